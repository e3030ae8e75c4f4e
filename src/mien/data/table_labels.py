"""From columns of words and numbers to labels in [0, 1], identities and splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mien.data.pack import Labels
from mien.data.tables import is_number, to_float

MOST_CLASSES = 64  # a column of words with more different ones is not a label
GROUP_TITLES = ("identity", "identity_id", "person", "person_id", "subject", "subject_id", "celebrity", "group")
CROWD = 20  # rows: a few groups that have more than so many each are not persons, such as FairFace's
SPLIT_TITLES = ("split", "partition", "part", "subset", "usage", "set")
CLASS_TITLES = (
    *("label", "labels", "class", "classes", "target", "targets", "category", "class_id", "label_id", "y", "arr_1"),
    *("emotion", "expression"),
)
COUNTER_TITLES = ("", "index", "idx", "id", "row", "no", "nr", "number")
UNKNOWN = frozenset(
    {"", "nan", "none", "null", "na", "n/a", "n.a.", "<na>", "#n/a", "?", "-", "--", "unknown", "missing", "undefined"}
)
YES_OR_NO = {"yes": 1.0, "y": 1.0, "true": 1.0, "t": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "f": 0.0}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "publictest", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "privatetest", "testset"), "test"),
    "holdout": "holdout",
}
SPLIT_NUMBERS = {"0": "train", "1": "val", "2": "test"}  # as CelebA numbers them

Columns = Mapping[str, Sequence[str]]


@dataclass(kw_only=True)
class TableLabels:
    """What the columns of a table say of each of its rows."""

    columns: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # [n], in [0, 1]; NaN = not known
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)  # what 0 and 1 of a label mean, such as years
    groups: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def matrix(self) -> Labels:
        """[n, labels]"""
        return np.stack(list(self.columns.values()), axis=1)

    def add(self, name: str, values: NDArray[np.float32], scale: tuple[float, float] = (0.0, 1.0)) -> str:
        """Add a label under a name that is not taken. Returns the name."""
        plain, again = clean(name), 2
        name = plain
        while name in self.columns:
            name, again = f"{plain}_{again}", again + 1
        self.columns[name] = values
        if scale != (0.0, 1.0):
            self.scales[name] = scale
        return name


def describe(columns: Columns, table: str) -> TableLabels:
    """Labels, identities and splits from columns of cells; `table` is named in the remarks."""
    found = TableLabels()
    for title, cells in columns.items():
        plain = title.lower()
        words = Counter(cells)
        known = {word: count for word, count in words.items() if word.lower() not in UNKNOWN}
        if not known:
            found.remarks.append(f"The column {title} of {table} is empty.")
        elif plain in GROUP_TITLES and not (plain == "group" and is_crowded(known)):
            found.groups = ["" if cell.lower() in UNKNOWN else cell for cell in cells]
        elif plain in SPLIT_TITLES and (splits := to_splits(known)):
            found.splits = [splits.get(cell, "") for cell in cells]
        elif counts_rows(title, cells):
            found.remarks.append(f"The column {title} of {table} only counts the rows and is no label.")
        else:
            add_label(found, title, cells, known, table)
    return found


def is_crowded(words: Mapping[str, int]) -> bool:
    """Whether the words of a column called `group`, with their counts, are classes of people instead of persons."""
    return len(words) <= MOST_CLASSES and sum(words.values()) > CROWD * len(words)


def add_label(found: TableLabels, title: str, cells: Sequence[str], known: Mapping[str, int], table: str) -> None:
    """One column as one label, as one for each of its words, or as none."""
    numbers = {word: to_float(word) for word in known if is_number(word)}
    numeric = sum(known[word] for word in numbers)
    classes = (
        title.lower() in CLASS_TITLES and len(numbers) > 2 and all(value.is_integer() for value in numbers.values())
    )
    if numeric > sum(known.values()) / 2 and not (classes and len(known) <= MOST_CLASSES):
        if others := [word for word in known if word not in numbers]:
            count, named = sum(known[word] for word in others), ", ".join(f"`{word}`" for word in others[:3])
            found.remarks.append(
                f"{count:,} cells of {title} in {table} are not numbers ({named}{', ...' if len(others) > 3 else ''}) "
                "and count as not known."
            )
        values, scale = to_unit(look_up(cells, numbers).astype(np.float64))
        found.add(title, values, scale)
    elif all(word.lower() in YES_OR_NO for word in known):
        found.add(title, look_up(cells, {word: YES_OR_NO[word.lower()] for word in known}))
    elif len(known) == 2:
        no, yes = sorted(known)
        name = found.add(f"{title}_{yes}", look_up(cells, {no: 0.0, yes: 1.0}))
        found.remarks.append(f"{title} is one label, {name}: 1 is {yes}, 0 is {no}.")
    elif len(known) > MOST_CLASSES:
        found.remarks.append(
            f"The column {title} of {table} has {len(known):,} different words, more than {MOST_CLASSES}, and is no label."
        )
    else:
        for word in sorted(known, key=lambda word: (numbers.get(word, 0.0), word)):
            found.add(f"{title}_{word}", look_up(cells, {other: float(other == word) for other in known}))


def look_up(cells: Sequence[str], values: Mapping[str, float]) -> NDArray[np.float32]:
    """The value of each cell, NaN where it has none."""
    return np.array([values.get(cell, np.nan) for cell in cells], dtype=np.float32)


def to_splits(words: Mapping[str, int]) -> dict[str, str] | None:
    """What each word of a column says: train, val or test; None when it speaks of something else."""
    if all(word in SPLIT_NUMBERS for word in words):
        return SPLIT_NUMBERS
    splits = {word: split_of(word) for word in words}
    return {word: split or word for word, split in splits.items()} if any(splits.values()) else None


def split_of(word: str) -> str:
    """`train`, `val` or `test`, as a folder or a cell may spell it; empty for every other word."""
    plain = re.sub(r"[\s_\-]+", "", word.lower())
    for trim in ("", "images", "image", "imgs", "data", "set", "faces", "split", "labels", "label"):
        if trim and plain.endswith(trim) and plain.removesuffix(trim) in SPLIT_WORDS:
            return SPLIT_WORDS[plain.removesuffix(trim)]
    return SPLIT_WORDS.get(plain, "")


def counts_rows(title: str, cells: Sequence[str]) -> bool:
    """Whether a column is an index, as pandas writes it: a title that says nothing over 0, 1, 2 or other numbers in a row."""
    plain = title.lower()
    if not (plain in COUNTER_TITLES or plain.startswith(("unnamed", "column_"))) or len(cells) < 2:
        return False
    if not all(cell.isdecimal() and len(cell) < 18 for cell in cells):
        return False
    numbers = {int(cell) for cell in cells}
    return len(numbers) == len(cells) and (plain in COUNTER_TITLES or max(numbers) - min(numbers) == len(cells) - 1)


def clean(name: str) -> str:
    """A label's name without the signs that have a meaning on the command line."""
    return re.sub(r"[\s,=!]+", "_", name.strip())


def to_unit(values: NDArray[np.float64]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Numbers `[n]` mapped to [0, 1], and what 0 and 1 mean: -1 and 1 are no and yes; others by their least and greatest."""
    known = values[np.isfinite(values)]
    if not len(known) or (known.min() >= 0 and known.max() <= 1):
        return values.astype(np.float32), (0.0, 1.0)
    if set(np.unique(known)) <= {-1.0, 1.0}:
        return ((values + 1) / 2).astype(np.float32), (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    return ((values - low) / max(high - low, 1e-12)).astype(np.float32), (low, high)
