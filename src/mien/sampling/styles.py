"""Styles of one face for some stages of others, as text: what a command line, a page and a picture's recipe say alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mien.core.contracts import Model
from mien.core.families import StyleModel
from mien.errors import UsageError

THIRDS = ("coarse", "middle", "fine")  # of a model's stages
STAGES = r"coarse|middle|fine|[0-9]{1,2}(-[0-9]{1,2})?"


def stages_of(words: str, count: int) -> slice:
    """Which of `count` stages `coarse`, `middle`, `fine`, `2` or `2-3` means, from 0 on. Raises UsageError for no such stages."""
    thirds = [round(count * part / 3) for part in range(4)]
    if words in THIRDS:
        at = THIRDS.index(words)
        return slice(thirds[at], thirds[at + 1])
    first, _, last = words.partition("-") if re.fullmatch(STAGES, words) else ("0", "", "")
    found = slice(int(first) - 1, int(last or first))
    if not 0 <= found.start < found.stop <= count:
        raise UsageError(
            f"There are no stages {words[:40]}.",
            f"This model has {count}, the first the coarsest.",
            f"Give coarse, middle, fine, or 1-{count}.",
        )
    return found


def in_layers(model: Model | None, before: Tensor, after: Tensor, layers: str) -> Tensor:
    """A latent for each stage, `[n, style_count, *latent_shape]`: `after` an edit in some stages, `before` it in the others.

    Raises UsageError for stages that there are not, or a model without any.
    """
    if not isinstance(model, StyleModel):
        raise UsageError(
            "These faces have no layers to edit one by one.",
            "Their latent enters the network once; models with a style in each stage, such as quick and gan, have layers.",
            "Leave out --layers: the edit changes the whole face.",
        )
    found = torch.stack([before] * model.style_count, 1)
    found[:, stages_of(layers, model.style_count)] = after[:, None]
    return found


@dataclass(frozen=True)
class Style:
    """Styles of a seed, for some stages of faces: `42:coarse`, `42:middle`, `42:fine`, or stages by number from 1 on: `42:2-3`."""

    seed: int
    stages: str

    @staticmethod
    def of(words: str | None) -> Style | None:
        """`SEED:STAGES`, or nothing. Raises UsageError for anything else."""
        if words is None:
            return None
        seed, _, stages = words.partition(":")
        if not re.fullmatch(r"[0-9]{1,16}", seed) or not re.fullmatch(STAGES, stages):
            raise UsageError(
                f"`{words[:40]}` names no styles.", "Styles are a seed's, of some stages.", "Write 42:coarse or 42:2-3."
            )
        return Style(int(seed), stages)

    def __str__(self) -> str:
        return f"{self.seed}:{self.stages}"

    def columns(self, count: int) -> slice:
        """Which of `count` stages, from 0 on. Raises UsageError for one that there is not."""
        return stages_of(self.stages, count)
