"""Asking for faces in words: seeds, labels such as `Smiling=1`, all combinations of some, the way from one to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from mien.errors import UsageError
from mien.nn.priors import MAX_SEED
from mien.sampling.sampler import Sampler

MOST = 6  # labels that are combined: 64 tiles for each seed


def parse_labels(words: Sequence[str]) -> dict[str, float]:
    """`Smiling=1` as a name and a value in [0, 1]. Raises UsageError for anything else."""
    asked = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not equals or not 0.0 <= number <= 1.0:
            raise UsageError(
                f"`{word}` is not a label.", "A label is NAME=VALUE with a value in [0, 1].", "Write --label Smiling=1."
            )
        asked[name] = number
    return asked


@dataclass(frozen=True)
class Combinations:
    """A table whose rows are the combinations of some labels, and whose columns are those of others."""

    down: tuple[str, ...]
    across: tuple[str, ...]

    @staticmethod
    def parse(words: str) -> Combinations:
        """`A,B`: all across; `A:B,C`: A down. Raises UsageError for none, too many, or one twice."""
        first, colon, second = words.partition(":")
        down, across = (first, second) if colon else ("", first)
        table = Combinations(*(tuple(n.strip() for n in part.split(",") if n.strip()) for part in (down, across)))
        names = (*table.down, *table.across)
        if not 1 <= len(names) <= MOST or len(set(names)) < len(names):
            raise UsageError(
                f"`{words}` is no table of labels.",
                f"It names 1 to {MOST} labels, each once.",
                "Write --combine Eyeglasses,Male or --combine Eyeglasses:Male.",
            )
        return table

    @property
    def columns(self) -> int:
        return int(2 ** len(self.across))

    @property
    def cells(self) -> int:
        """Tiles for each seed."""
        return int(2 ** len(self.down)) * self.columns

    def laid_out(
        self, sampler: Sampler, seeds: Sequence[int], asked: Mapping[str, float]
    ) -> tuple[Tensor, Tensor, list[str]]:
        """Of every tile: which seed it shows `[cells]`, its labels `[cells, label_dim]`, and what it is called.

        Labels that are not combined are those asked for, or the seed's own. Raises UsageError for an unknown label.
        """
        names = (*self.down, *self.across)
        places = [sampler.column(name) for name in names]
        base = sampler.labels(seeds, asked)
        assert base is not None  # a model without labels knows no column
        values = torch.tensor(list(product((0.0, 1.0), repeat=len(names))))  # [cells, names], the last name fastest
        rows = base.repeat_interleave(len(values), 0)
        rows[:, places] = values.repeat(len(seeds), 1)
        called = [
            ", ".join(name if value else f"no {name}" for name, value in zip(names, row, strict=True)) for row in values
        ]
        return torch.arange(len(seeds)).repeat_interleave(len(values)), rows, called * len(seeds)


def on_the_way(
    sampler: Sampler, rows: Tensor | None, start: Mapping[str, float], end: Mapping[str, float]
) -> Tensor | None:
    """Label rows `[k, label_dim]` of a walk's stops, led evenly from `start` at the first to `end` at the last.

    A label that only one of them names begins or ends as the stop itself has it. Raises UsageError for an unknown label.
    """
    if not (start or end):
        return rows
    if rows is None:
        raise UsageError(
            "This model has no labels.", "It was trained without.", "Leave out --label-from and --label-to."
        )
    led = rows.clone()
    share = torch.linspace(0.0, 1.0, len(rows))
    for name in {**start, **end}:
        column = sampler.column(name)
        first, last = start.get(name, float(rows[0, column])), end.get(name, float(rows[-1, column]))
        led[:, column] = torch.lerp(torch.full_like(share, first), torch.full_like(share, last), share)
    return led


def parse_seeds(words: Iterable[str]) -> list[int]:
    """Seeds from words such as `0-63`, `3,42,7` and `42`. Raises UsageError for anything else."""
    seeds: list[int] = []
    for word in (part for given in words for part in given.split(",") if part):
        found = re.fullmatch(r"([0-9]{1,16})(?:-([0-9]{1,16}))?", word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if not first <= last <= MAX_SEED:
            raise UsageError(
                f"`{word[:40]}` is not a seed.",
                f"Seeds are 0 to {MAX_SEED}.",
                "Write --seeds 42, --seeds 0-63 or --seeds 3,42,7.",
            )
        count = last - first + 1
        if len(seeds) + count > 1_000_000:
            raise UsageError(
                "That is more than a million faces.",
                "They are listed before they are drawn.",
                "Ask for fewer at a time.",
            )
        seeds += range(first, last + 1)
    return seeds
