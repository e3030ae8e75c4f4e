"""Which images and which of their labels: chosen, negated, filtered, sampled, balanced. Every step is counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.data.pack import Labels, Rows
from mien.data.source import Listing
from mien.errors import DataError, UsageError, did_you_mean


def column(listing: Listing, name: str) -> NDArray[np.float32]:
    """The values `[n]` of a label; `!Name` is its negation. Raises UsageError for an unknown name."""
    negated, plain = name.startswith("!"), name.removeprefix("!")
    if listing.labels is None or plain not in listing.label_names:
        why = "The source has no labels." if listing.labels is None else "The source has other labels."
        raise UsageError(f"There is no label `{plain}`.", why, did_you_mean(plain, listing.label_names))
    values: NDArray[np.float32] = listing.labels[:, listing.label_names.index(plain)]
    return 1 - values if negated else values


def choose(listing: Listing, choices: Sequence[str]) -> Listing:
    """The listing with only the chosen labels, in that order: `Smiling`, or `Beard=!No_Beard` under a new name."""
    names, columns, scales = [], [], {}
    for choice in choices:
        name, _, origin = choice.partition("=")
        origin = origin or name
        names.append(name.replace("!", "Not_"))
        columns.append(column(listing, origin))
        if origin.removeprefix("!") in listing.scales:
            low, high = listing.scales[origin.removeprefix("!")]
            scales[names[-1]] = (high, low) if origin.startswith("!") else (low, high)
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"The label {', '.join(sorted(twice))} is chosen twice.", "Names are unique.", "Name it once.")
    return replace(listing, label_names=tuple(names), labels=np.stack(columns, axis=1), scales=scales)


def where(listing: Listing, conditions: Mapping[str, str]) -> Rows:
    """The rows that fit every condition: `Male=1`, or a range in the label's own units, `Age=20..30`."""
    fits = np.ones(len(listing.names), dtype=bool)
    for name, condition in conditions.items():
        values = column(listing, name)
        low, high = listing.scales.get(name.removeprefix("!"), (0.0, 1.0))
        physical = values * (high - low) + low
        try:
            first, _, last = condition.partition("..")
            lowest, highest = float(first), float(last or first)
        except ValueError:
            raise UsageError(
                f"--where {name}={condition} is not a condition.",
                "A value is a number or a range.",
                f"Write {name}=1 or {name}=20..30.",
            ) from None
        fits &= (physical >= lowest - 1e-4) & (physical <= highest + 1e-4)  # not known fits nothing
    return np.flatnonzero(fits)


def random_order(names: Sequence[str]) -> Rows:
    """The rows in a random order that is a function of each name alone: it is the same on every machine and every time."""
    return np.array(
        sorted(range(len(names)), key=lambda row: hashlib.sha256(f"sample/{names[row]}".encode()).digest()), np.int64
    )


def sample(listing: Listing, count: int) -> Rows:
    """`count` rows at random, in the listing's order. A smaller sample is part of a larger one."""
    return np.sort(random_order(listing.names)[:count])


def combinations(listing: Listing, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Which combination of yes and no of `names` each row has, -1 where one is not known, and the combinations in words."""
    code = np.zeros(len(listing.names), dtype=np.int64)
    unknown = np.zeros(len(listing.names), dtype=bool)
    for name in names:
        values = column(listing, name)
        unknown |= np.isnan(values)
        code = 2 * code + (np.nan_to_num(values) > 0.5)
    words = [
        ", ".join(f"{name}={(number >> (len(names) - 1 - place)) & 1}" for place, name in enumerate(names))
        for number in range(2 ** len(names))
    ]
    code[unknown] = -1
    return code, words


def balance(listing: Listing, names: Sequence[str], limit: int | None = None) -> tuple[Rows, dict[str, Any]]:
    """Equally many rows of every combination of `names` that occurs, drawn at random, and what was left out."""
    code, words = combinations(listing, names)
    counts = np.bincount(code[code >= 0], minlength=len(words))
    present = np.flatnonzero(counts)
    if not len(present):
        raise DataError("There is nothing to balance.", "No image has all of these labels.", "Choose other labels.")
    each = int(counts[present].min())
    if limit is not None:
        each = min(each, limit // len(present))
    if each == 0:
        raise UsageError(
            f"--limit {limit} is too small for --balance.",
            f"There are {len(present)} combinations, and each is to have equally many images.",
            f"Use --limit {len(present)} or more.",
        )
    order = random_order(listing.names)
    taken = np.sort(np.concatenate([order[code[order] == number][:each] for number in present]))
    report: dict[str, Any] = {
        "of_each": each,
        "found": {words[number]: int(counts[number]) for number in range(len(words))},
        "left_out": {words[number]: int(counts[number]) - each for number in present},
        "not_known": int((code < 0).sum()),
    }
    return taken, report


def count_labels(
    names: Sequence[str], labels: Labels | None, scales: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, Any]]:
    """How often each label is yes, no and not known; of numbers also the range and the mean, in their own units."""
    if labels is None:
        return {}
    counts: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        known = labels[:, place][~np.isnan(labels[:, place])].astype(np.float64)
        yes = int((known > 0.5).sum())
        counts[name] = {"yes": yes, "no": len(known) - yes, "unknown": len(labels) - len(known)}
        if len(known) and (name in scales or not np.isin(known, (0, 1)).all()):
            low, high = scales.get(name, (0.0, 1.0))
            own = known * (high - low) + low
            counts[name] |= {"range": [round(float(edge), 4) for edge in (own.min(), own.max())]}
            counts[name] |= {"mean": round(float(own.mean()), 4)}
    return counts


def together(labels: Labels) -> NDArray[np.float64]:
    """`[d, d]`: of the images with the row's label, the share that has the column's too; NaN where there are none.

    Images where either is not known do not count.
    """
    known, yes = (~np.isnan(labels)).astype(np.float64), (np.nan_to_num(labels) > 0.5).astype(np.float64)
    both, base = yes.T @ yes, yes.T @ known
    return np.divide(both, base, out=np.full_like(both, np.nan), where=base > 0)


def strongest(names: Sequence[str], labels: Labels, most: int = 8) -> list[tuple[str, str, float]]:
    """The pairs of labels that go together most, or exclude each other most, by their correlation in [-1, 1]."""
    known = labels[~np.isnan(labels).any(axis=1)]
    varied = np.flatnonzero(known.std(axis=0) > 0) if len(known) else np.array([], dtype=np.int64)
    if len(varied) < 2:
        return []
    correlation = np.atleast_2d(np.corrcoef(known[:, varied], rowvar=False))
    rows, columns = np.triu_indices(len(varied), 1)
    order = np.argsort(-np.abs(correlation[rows, columns]), kind="stable")[:most]
    return [(names[varied[rows[i]]], names[varied[columns[i]]], float(correlation[rows[i], columns[i]])) for i in order]
