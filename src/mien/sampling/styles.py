"""Styles of one face for some stages of others, as text: what a command line, a page and a picture's recipe say alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mien.errors import UsageError

THIRDS = ("coarse", "middle", "fine")  # of a model's stages


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
        if not re.fullmatch(r"[0-9]{1,16}", seed) or not re.fullmatch(
            r"coarse|middle|fine|[0-9]{1,2}(-[0-9]{1,2})?", stages
        ):
            raise UsageError(
                f"`{words[:40]}` names no styles.", "Styles are a seed's, of some stages.", "Write 42:coarse or 42:2-3."
            )
        return Style(int(seed), stages)

    def __str__(self) -> str:
        return f"{self.seed}:{self.stages}"

    def columns(self, count: int) -> slice:
        """Which of `count` stages, from 0 on. Raises UsageError for one that there is not."""
        thirds = [round(count * part / 3) for part in range(4)]
        if self.stages in THIRDS:
            at = THIRDS.index(self.stages)
            return slice(thirds[at], thirds[at + 1])
        first, _, last = self.stages.partition("-")
        found = slice(int(first) - 1, int(last or first))
        if not 0 <= found.start < found.stop <= count:
            raise UsageError(
                f"There are no stages {self.stages}.",
                f"This model has {count}, the first the coarsest.",
                f"Give coarse, middle, fine, or 1-{count}.",
            )
        return found
