"""A column of classes beside class folders: whether they say the same. The folders count, and what contradicts them is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mien.data.cells import is_known, quote, spelling
from mien.data.source import Listing
from mien.data.table_labels import clean, is_plain_class

AGREE = 0.8  # of the pictures, by which numbers are taken for those of the folders


def folder_classes(listing: Listing) -> list[str]:
    """The class folder of each picture, empty for one outside of them; nothing for a source without class folders."""
    if listing.layout not in ("classes", "splits") or listing.labels is None:
        return []
    known = ~np.isnan(listing.labels[:, 0])
    places = np.nan_to_num(listing.labels).argmax(1).tolist()
    return [listing.label_names[place] if is_in else "" for place, is_in in zip(places, known.tolist(), strict=True)]


def without_classes(
    columns: Mapping[str, Sequence[str]], folders: Sequence[str], pictures: Sequence[str], table: str
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The columns but those that name the folders' classes, and a remark for each of these.

    `folders` and `pictures` are those of the columns' rows. A column stays where it knows pictures that lie in no folder.
    """
    kept, remarks = dict(columns), []
    for title, cells in columns.items():
        meant = meanings(title, cells, folders)
        if not meant:
            continue
        rows = [row for row, cell in enumerate(cells) if is_known(cell)]
        both = [row for row in rows if folders[row]]
        differ = [row for row in both if meant.get(cells[row]) != folders[row]]
        column = f"{title} of {table}"
        if len(both) == len(rows):
            del kept[title]
        if differ:
            example = f"{pictures[differ[0]]}: {quote(cells[differ[0]])}"
            end = "the folders count. Move these pictures, or correct the table."
            remarks.append(
                f"{column} contradicts the folders for {len(differ):,} of {len(both):,} pictures ({example}): {end}"
            )
        elif title not in kept:
            remarks.append(f"{column} says the same as the folders.")
    return kept, remarks


def meanings(title: str, cells: Sequence[str], folders: Sequence[str]) -> dict[str, str]:
    """The folder that each word of a column means; empty for a column about something else.

    Words mean the folders of their names, numbers titled as classes those that most of their pictures lie in.
    """
    words, names = {cell for cell in cells if is_known(cell)}, {spelling(name): name for name in folders if name}
    meant = {word: names[key] for word in words if (key := spelling(clean(word))) in names}
    if len(set(meant.values())) > 1 and 2 * len(meant) > len(words):
        return meant
    if (
        not is_plain_class(title)
        or not all(word.isdecimal() for word in words)
        or len(words) != len(names)
        or len(words) < 2
    ):
        return {}
    pairs = Counter((cell, folder) for cell, folder in zip(cells, folders, strict=True) if cell in words and folder)
    meant = {word: max(names.values(), key=lambda name: pairs[word, name]) for word in words}
    agree = sum(pairs[pair] for pair in meant.items())
    return meant if len(set(meant.values())) == len(words) and agree >= AGREE * pairs.total() else {}
