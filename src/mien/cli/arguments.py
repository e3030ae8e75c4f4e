"""Values on the command line: seeds, labels such as `Smiling=1`, combinations of labels, labels that change along a walk."""

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

MAX_COMBINED = 6  # labels that are combined: 64 cells for each seed
MAX_SEEDS = 1_000_000  # of one command


def positive(name: str, value: float | None) -> None:
    """Raises UsageError unless a flag's number is positive, or absent. `name` is the flag's, without dashes."""
    if value is not None and not value > 0:
        kind = "integer" if isinstance(value, int) else "number"
        article = "an" if kind == "integer" else "a"
        raise UsageError(
            f"{name} must be a positive {kind}.", f"{value:g} is not.", f"Give --{name} {article} {kind} above 0."
        )


def within(name: str, value: int, low: int, high: int | None, why: str, hint: str) -> None:
    """Raises UsageError unless a flag's integer lies in [low, high], or is `low` or more. `name` is the flag's, without dashes."""
    if value < low or (high is not None and value > high):
        bounds = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} must be an integer {bounds}, not {value}.", why, hint)


def parse_labels(words: Sequence[str]) -> dict[str, float]:
    """`Smiling=1` as a name and a value in [0, 1]. Raises UsageError for anything else."""
    labels = {}
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
        labels[name] = number
    return labels


@dataclass(frozen=True)
class Combinations:
    """A table: combinations of some labels down the rows, combinations of others across the columns."""

    down: tuple[str, ...]
    across: tuple[str, ...]

    @staticmethod
    def parse(words: str) -> Combinations:
        """`A,B`: all across; `A:B,C`: A down. Raises UsageError for no label, too many, or a repeated one."""
        first, colon, second = words.partition(":")
        down, across = (first, second) if colon else ("", first)
        table = Combinations(*(tuple(n.strip() for n in part.split(",") if n.strip()) for part in (down, across)))
        names = (*table.down, *table.across)
        if not 1 <= len(names) <= MAX_COMBINED or len(set(names)) < len(names):
            raise UsageError(
                f"--combine cannot read `{words}`.",
                f"It takes 1 to {MAX_COMBINED} labels, each once.",
                "Write --combine Eyeglasses,Male or --combine Eyeglasses:Male.",
            )
        return table

    @property
    def columns(self) -> int:
        return int(2 ** len(self.across))

    @property
    def cells(self) -> int:
        """Cells for each seed."""
        return int(2 ** len(self.down)) * self.columns

    def cells_of(
        self, sampler: Sampler, seeds: Sequence[int], labels: Mapping[str, float]
    ) -> tuple[Tensor, Tensor, list[str]]:
        """For every cell: the index of its seed `[cells]`, its label row `[cells, label_dim]`, and its title.

        Labels that are not combined are those of `labels`, or the seed's own. Raises UsageError for an unknown label.
        """
        names = (*self.down, *self.across)
        columns = [sampler.label_column(name) for name in names]
        base = sampler.labels(seeds, labels)
        assert base is not None  # label_column has refused a model without labels
        values = torch.tensor(list(product((0.0, 1.0), repeat=len(names))))  # [cells, names], the last name fastest
        rows = base.repeat_interleave(len(values), 0)
        rows[:, columns] = values.repeat(len(seeds), 1)
        titles = [
            ", ".join(name if value else f"no {name}" for name, value in zip(names, row, strict=True)) for row in values
        ]
        return torch.arange(len(seeds)).repeat_interleave(len(values)), rows, titles * len(seeds)


def interpolate_labels(
    sampler: Sampler, rows: Tensor | None, start: Mapping[str, float], end: Mapping[str, float]
) -> Tensor | None:
    """Label rows `[k, label_dim]` of a walk's seeds, interpolated from `start` at the first to `end` at the last.

    A label that only one of them names keeps the seed's own value at the other end. Raises UsageError for an unknown label.
    """
    if not (start or end):
        return rows
    if rows is None:
        raise UsageError(
            "This model has no labels.", "It was trained without.", "Leave out --label-from and --label-to."
        )
    rows = rows.clone()
    share = torch.linspace(0.0, 1.0, len(rows))
    for name in {**start, **end}:
        column = sampler.label_column(name)
        first, last = start.get(name, float(rows[0, column])), end.get(name, float(rows[-1, column]))
        rows[:, column] = torch.lerp(torch.full_like(share, first), torch.full_like(share, last), share)
    return rows


def parse_seeds(words: Iterable[str]) -> list[int]:
    """Seeds from words such as `0-63`, `3,42,7` and `42`. Raises UsageError for anything else."""
    ranges = parse_ranges(words)
    if sum(map(len, ranges)) > MAX_SEEDS:
        raise UsageError(
            f"More than {MAX_SEEDS:,} seeds are too many.",
            "All seeds of this command are held in memory.",
            "Draw them in several commands, or as shards: mien sample MODEL --format tar -o shards/.",
        )
    return [seed for part in ranges for seed in part]


def parse_ranges(words: Iterable[str]) -> list[range]:
    """Seeds as ranges, from words such as `0-63`, `3,42,7` and `42`. Raises UsageError for anything else."""
    ranges: list[range] = []
    for item in (item for word in words for item in word.split(",") if item):
        match = re.fullmatch(r"([0-9]{1,16})(?:-([0-9]{1,16}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last <= MAX_SEED:
            raise UsageError(
                f"`{item[:40]}` is not a seed or a range of seeds.",
                f"A seed is a whole number from 0 to {MAX_SEED}.",
                "Write --seeds 42, --seeds 0-63 or --seeds 3,42,7.",
            )
        ranges.append(range(first, last + 1))
    return ranges
