"""Columns with several words in a cell, such as `smiling|hat`: one label for each of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mien.data.cells import are_dates, are_identifiers, is_known, spelling
from mien.data.tables import is_number

SEPARATORS = ("|", ";", ",")
BRACKETS = re.compile(r"[\[({](.*)[\])}]", re.DOTALL)  # ['a', 'b'], as Python writes a list


@dataclass(frozen=True)
class Tags:
    """The words of a column's cells."""

    separator: str
    of: Mapping[str, tuple[str, ...]]  # cell -> its words

    def counts(self, cells: Mapping[str, int]) -> dict[str, int]:
        """How many rows have each word; `cells` with their own counts."""
        found: Counter[str] = Counter()
        for cell, words in self.of.items():
            for word in words:
                found[word] += cells[cell]
        return dict(found)


def tags_of(title: str, cells: Mapping[str, int], numbers: Mapping[str, float]) -> Tags | None:
    """The words of cells, with their counts, where cells plainly hold several: most words recur in other combinations.

    None for single words, names such as `Smith, John`, whose parts hardly recur, dates, paths, and numbers such as 1,5.
    """
    if are_dates(title, cells, numbers) or are_identifiers(cells):
        return None
    for separator in SEPARATORS:
        of = {cell: split(cell, separator) for cell in cells}
        several = [cell for cell, words in of.items() if len(words) > 1]
        found = {spelling(word) for words in of.values() for word in words}
        shared = Counter(spelling(word) for words in of.values() for word in set(words))
        again = sum(count > 1 for count in shared.values())
        if not several or 2 * again <= len(found) or len(found) > len(cells):
            continue
        if separator == "," and not is_list(cells, of, numbers):
            continue
        return Tags(separator, of)
    return None


def split(cell: str, separator: str) -> tuple[str, ...]:
    """The words of a cell, each once, without the brackets and quotation marks of a list."""
    inside = BRACKETS.fullmatch(cell.strip())
    parts = ((inside[1] if inside else cell).strip() or "").split(separator)
    words = [part.strip().strip("'\"").strip() for part in parts]
    return tuple(dict.fromkeys(word for word in words if is_known(word)))


def is_list(cells: Mapping[str, int], of: Mapping[str, Sequence[str]], numbers: Collection[str]) -> bool:
    """Whether commas separate words.

    Where most are numbers, some cell has two commas, which are neither decimal nor thousands; where each cell has as many
    numbers as the others, they are a box or a point.
    """
    digits = [cell for cell, words in of.items() if cell in numbers or all(map(is_number, words))]
    if 2 * sum(cells[cell] for cell in digits) <= sum(cells.values()):
        return True
    several = {cell.count(",") for cell in of}
    return len(several) > 1 and any(len(of[cell]) > 2 and cell not in numbers for cell in digits)
