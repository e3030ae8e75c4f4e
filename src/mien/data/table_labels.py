"""From columns of words and numbers to labels in [0, 1], identities and splits."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mien.data import cells as cell_kinds
from mien.data.cells import ID_TITLE, MOST_CHARACTERS, YES_OR_NO, is_known, quote, quotes, spelling
from mien.data.pack import Labels
from mien.data.tags import Tags, tags_of

MOST_CLASSES = 64  # a column of words with more different ones is not a label
GROUP_TITLES = ("identity", "identity_id", "person", "person_id", "subject", "subject_id", "celebrity", "group")
CROWD = 20  # rows: a few groups that have more than so many each are not persons, such as FairFace's
SPLIT_TITLES = ("split", "partition", "part", "subset", "usage", "set")
CLASS_TITLES = (
    *("label", "labels", "class", "classes", "target", "targets", "category", "class_id", "label_id", "y", "arr_1"),
    *("emotion", "expression"),
)
COUNTER_TITLES = ("", "index", "idx", "id", "row", "no", "nr", "number")
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # kinds of characters
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


def describe(columns: Columns, table: str, decimal_comma: bool = False) -> TableLabels:
    """Labels, identities and splits from columns of cells; `table` is named in the remarks."""
    found = TableLabels()
    for title, cells in columns.items():
        plain, column = title.lower(), f"The column {title} of {table}"
        words = Counter(cells)
        known = {word: count for word, count in words.items() if is_known(word)}
        if not known:
            found.remarks.append(f"{column} is empty.")
        elif plain in GROUP_TITLES and not (plain == "group" and is_crowded(known)):
            found.groups = [cell.strip() if cell in known else "" for cell in cells]
        elif plain in SPLIT_TITLES and (splits := to_splits(known)):
            found.splits = [splits.get(cell, "") for cell in cells]
        elif counts_rows(title, cells):
            found.remarks.append(f"{column} only counts the rows and is no label.")
        elif tags := tags_of(title, known, cell_kinds.numbers_of(known, decimal_comma).values):
            add_tags(found, title, cells, tags, known, table)
        elif why := why_no_label(title, known, decimal_comma):
            found.remarks.append(f"{column} {why}")
        else:
            if len(set(map(spelling, known))) == 1:
                found.remarks.append(
                    f"{column} has one value ({quote(next(iter(known)))}): no model can learn from it."
                )
            add_label(found, title, cells, known, table, decimal_comma)
    return found


def is_crowded(words: Mapping[str, int]) -> bool:
    """Whether the words of a column called `group`, with their counts, are classes of people instead of persons."""
    return len(words) <= MOST_CLASSES and sum(words.values()) > CROWD * len(words)


def why_no_label(title: str, known: Mapping[str, int], decimal_comma: bool) -> str:
    """Why a column of `known` words, with their counts, is left aside, and what to do; empty for one that is a label."""
    numbers = cell_kinds.numbers_of(known, decimal_comma).values
    numeric = 2 * sum(known[word] for word in numbers) > sum(known.values())
    spellings: Counter[str | float] = Counter()
    for word, count in known.items():
        spellings[numbers[word] if word in numbers else spelling(word)] += count
    example = f"({quote(next(iter(known)))})"
    if all(spelling(word) in YES_OR_NO for word in known):
        return ""
    if cell_kinds.are_dates(title, known, numbers):
        return (
            f"holds dates or times {example} and is no label. Write what matters of them as a number, such as the year."
        )
    if cell_kinds.are_identifiers(known):
        return f"holds addresses, files or other identifiers {example} and is no label."
    all_differ = len(spellings) == sum(known.values()) > 2
    padded = any(len(word) > 1 and word[0] == "0" and word.isdecimal() for word in known)
    whole = all(value.is_integer() for value in numbers.values())
    if numeric and all_differ and whole and is_plain_class(title) < (padded or ID_TITLE.search(title) is not None):
        return f"holds a different number for each picture, as identifiers do {example}, and is no label."
    if numeric and not (ID_TITLE.search(title) and whole):
        return ""
    words = f"{len(spellings):,} different words"
    if len(spellings) > MOST_CLASSES and not (numeric and is_plain_class(title)):
        return f"has {words}, more than {MOST_CLASSES}, and is no label."
    if any(len(word) > MOST_CHARACTERS for word in known):
        return f"holds texts of more than {MOST_CHARACTERS} characters {example} and is no label."
    if not is_plain_class(title) and cell_kinds.nearly_all_differ(spellings):
        return f"has {words} in {sum(known.values()):,} lines {example} and is no label. Write words that recur."
    return ""


def is_plain_class(title: str) -> bool:
    return title.lower() in CLASS_TITLES


def add_label(
    found: TableLabels, title: str, cells: Sequence[str], known: Mapping[str, int], table: str, decimal_comma: bool
) -> None:
    """One column as one label, or as one for each of its words."""
    read = cell_kinds.numbers_of(known, decimal_comma)
    numbers, where = read.values, f"{title} in {table}"
    numeric = 2 * sum(known[word] for word in numbers) > sum(known.values())
    values = set(numbers.values())
    whole = all(value.is_integer() for value in values)
    classes = (
        (is_plain_class(title) or ID_TITLE.search(title)) and len(values) > 2 and whole and len(values) <= MOST_CLASSES
    )
    if all(spelling(word) in YES_OR_NO for word in known):
        found.add(title, look_up(cells, {word: YES_OR_NO[spelling(word)] for word in known}))
    elif numeric and not classes:
        if others := [word for word in known if word not in numbers]:
            count = sum(known[word] for word in others)
            found.remarks.append(
                f"{count:,} cells of {where} are not numbers ({quotes(others)}) and count as not known."
            )
        if read.unit:
            found.remarks.append(f"The numbers of {where} are in {read.unit}.")
        if read.style:
            found.remarks.append(read.style.format(where))
        if apart := cell_kinds.sentinels(numbers):
            count = sum(known[word] for word in apart)
            found.remarks.append(
                f"{count:,} cells of {where} are {quotes(apart)}, apart from all others, and count as numbers. Leave them "
                "empty, if they mean that it is not known."
            )
        own = np.array([numbers.get(cell, np.nan) for cell in cells], dtype=np.float64)
        found.add(title, *to_unit(own))
    else:
        best = cell_kinds.unite(known)
        if other := {word.strip(): best[word] for word in known if " ".join(word.split()) != best[word]}:
            pairs = ", ".join(f"{quote(word)} as {quote(name)}" for word, name in sorted(other.items())[:3])
            found.remarks.append(f"Words of {where} that differ in capitals or spaces count as one: {pairs}.")
        names = sorted(set(best.values()), key=lambda word: (numbers.get(word, 0.0), word))
        if len(names) == 2:
            name = found.add(
                f"{title}_{names[1]}", look_up(cells, {word: float(best[word] == names[1]) for word in known})
            )
            found.remarks.append(f"{title} is one label, {name}: 1 is {names[1]}, 0 is {names[0]}.")
            return
        for one in names:
            found.add(f"{title}_{one}", look_up(cells, {word: float(best[word] == one) for word in known}))


def add_tags(
    found: TableLabels, title: str, cells: Sequence[str], tags: Tags, known: Mapping[str, int], table: str
) -> None:
    """One label for each of the words that the cells of a column hold several of."""
    counts = tags.counts(known)
    column, example = f"The column {title} of {table}", next(word for word in known if len(tags.of[word]) > 1)
    if why := why_no_label(title, counts, decimal_comma=False):
        found.remarks.append(f"{column} holds several words in a cell ({quote(example)}), {why}")
        return
    best = cell_kinds.unite(counts)
    names = sorted(set(best.values()))
    for name in names:
        has = {cell: float(any(best[word] == name for word in words)) for cell, words in tags.of.items()}
        found.add(f"{title}_{name}", look_up(cells, has))
    found.remarks.append(
        f"{column} holds several words in a cell, divided by `{tags.separator}` ({quote(example)}): each of the "
        f"{len(names)} is a label, and an empty cell is not known."
    )


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
    plain = re.sub(r"[\s_\-]+|(?:19|20)\d\d$", "", word.lower())  # train2017
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
    """A label's name without the signs that have a meaning on the command line, or that are not seen."""
    seen = "".join(" " if unicodedata.category(sign) in UNSEEN else sign for sign in unicodedata.normalize("NFC", name))
    return re.sub(r"[\s,=!]+", "_", seen.strip())[:MOST_CHARACTERS] or "unnamed"


def to_unit(values: NDArray[np.float64]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Numbers `[n]` mapped to [0, 1], and what 0 and 1 mean: -1 and 1 are no and yes; others by their least and greatest."""
    known = values[np.isfinite(values)]
    if not len(known) or (known.min() >= 0 and known.max() <= 1):
        return values.astype(np.float32), (0.0, 1.0)
    if set(np.unique(known)) <= {-1.0, 1.0}:
        return ((values + 1) / 2).astype(np.float32), (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    return ((values - low) / max(high - low, 1e-12)).astype(np.float32), (low, high)
