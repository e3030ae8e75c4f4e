"""CelebA's own lists beside its pictures: attributes, identities, split and landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mien.data.archives import Member
from mien.data.contents import Contents
from mien.data.joined_tables import NamedRows
from mien.data.label_tables import match_column
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, stamp_of
from mien.data.table_labels import SPLIT_NUMBERS, clean
from mien.data.tables import (
    Row,
    Table,
    Text,
    UnusableTable,
    check_bytes,
    check_rows,
    encoding_of,
    lines_of,
    open_table,
    to_float,
    without_titles,
)

SIZE = (178, 218)  # pixels, width and height of its aligned pictures
ATTRIBUTES, IDENTITIES, PARTITION = "list_attr_celeba", "identity_CelebA", "list_eval_partition"
LANDMARKS = "list_landmarks_align_celeba"
LISTS = (ATTRIBUTES, IDENTITIES, PARTITION, LANDMARKS)
NOT_LABELS = ("list_bbox_celeba", "list_landmarks_celeba")  # places in other pictures
FILES = tuple(f"{name}{suffix}" for name in (*LISTS, *NOT_LABELS) for suffix in (".txt", ".csv"))


def celeba(contents: Contents, remarks: list[str]) -> Listing | None:
    """CelebA: pictures that one of its lists names, with what every list says of them."""
    lists: dict[str, NamedRows] = {}
    for name in LISTS:
        member = contents.find(f"{name}.txt", f"{name}.csv")
        if member is not None:
            try:
                lists[name] = read_list(contents, member, name, remarks)
            except (UnusableTable, UnreadableFile) as error:
                remarks.append(f"{member.name} is left aside. {error}")
    if not lists:
        return None
    plain = contents.listing("celeba")
    count = len(plain.names)
    attributes, landmarks = lists.get(ATTRIBUTES), None
    labels = None if attributes is None else to_labels(numbers(attributes, count))
    if LANDMARKS in lists:
        middles = numbers(lists[LANDMARKS], count).reshape(-1, 5, 2) + 0.5  # it names pixels
        landmarks = np.divide(middles, np.array(SIZE), dtype=np.float32)
    groups = words(lists[IDENTITIES], count) if IDENTITIES in lists else None
    splits = words(lists[PARTITION], count) if PARTITION in lists else None
    return replace(
        plain,
        label_names=() if attributes is None else tuple(map(clean, attributes.label_titles)),
        labels=labels,
        groups=groups,
        splits=None if splits is None else [SPLIT_NUMBERS.get(word, "") for word in splits],
        landmarks=landmarks,
        landmarks_of=SIZE,
        crop="celeba-148",
        stamp=stamp_of(
            [plain.stamp, groups, splits, *(values.tobytes() for values in (labels, landmarks) if values is not None)]
        ),
    )


def numbers(found: NamedRows, count: int) -> NDArray[np.float32]:
    """[count, columns], NaN for pictures that a list does not name and for cells that are no numbers."""
    values = np.full((count, len(found.label_titles)), np.nan, np.float32)
    for row, (_, *cells) in found.rows.items():
        try:
            values[row] = list(map(float, cells))
        except ValueError:
            values[row] = list(map(to_float, cells))
    return values


def words(found: NamedRows, count: int) -> list[str]:
    """The second cell of each picture; empty for those that a list does not name."""
    return [found.rows[row][1] if row in found.rows else "" for row in range(count)]


def to_labels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 is yes and -1 is no; in a list without any -1, 0 is no."""
    no = -1 if (values == -1).any() else 0
    return np.where(values == 1, 1, np.where(values == no, 0, np.nan)).astype(np.float32)


def read_list(contents: Contents, member: Member, kind: str, remarks: list[str]) -> NamedRows:
    """One list by picture, its file names in the first column. Raises UnusableTable, UnreadableFile."""
    check_bytes(member.size)
    data, name = contents.read(member), member.name
    table = open_table(name, data) if name.endswith(".csv") else text_list(name, data)
    if contents.index.find(table.titles[0]) >= 0:
        table = without_titles(table)
    if kind == LANDMARKS and len(table.titles) != 11:
        raise UnusableTable(f"Landmarks are ten numbers a face, it has {len(table.titles) - 1}. Download it again.")
    if len(table.titles) < 2:
        raise UnusableTable("It has file names and nothing more. Download it again.")
    found = match_column(table, 0, contents.index, "", "")
    if not found.rows:
        raise UnusableTable(
            f"It names none of the pictures, such as {contents.names[0]}. Put CelebA's own pictures beside it, or correct "
            "the names in its first column."
        )
    remarks.append(f"{name} is used: it names {len(found.rows):,} of {len(contents.names):,} pictures.")
    remarks += table.remarks
    if found.without_picture:
        remarks.append(f"{found.without_picture:,} lines of {name} have no picture here.")
    return found


def text_list(name: str, data: bytes) -> Table:
    """A list of text: perhaps a count, perhaps a line of titles, then a file name and a cell for each title."""
    text = Text(data, encoding_of(data))

    def lines() -> Iterator[Row]:
        with text.open() as file:
            for line in lines_of(file):
                if cells := line.replace(",", " ").split():
                    yield cells

    head = list(islice(lines(), 3))
    skip, promised, titles = 0, None, list[str]()
    if head and len(head[0]) == 1 and head[0][0].isdecimal() and len(head[0][0]) < 10:
        skip, promised = 1, int(head.pop(0)[0])
    if not head:
        raise UnusableTable("It is empty. Download it again.")
    if "." not in head[0][0] or (len(head) > 1 and len(head[1]) == len(head[0]) + 1):
        heading = head.pop(0)
        titles = heading[1:] if head and len(head[0]) == len(heading) else heading
        skip += 1
    width = 1 + len(titles) if titles else len(head[0])

    def rows() -> Iterator[Row]:
        return (cells for cells in islice(lines(), skip, None) if len(cells) == width)

    count = wrong = 0
    for cells in islice(lines(), skip, None):
        count, wrong = count + 1, wrong + (len(cells) != width)
        check_rows(count)
    remarks = []
    if promised is not None and promised != count:
        remarks.append(f"{name} promises {promised:,} lines and has {count:,}: those that are there are used.")
    if wrong:
        remarks.append(f"{wrong:,} lines of {name} do not have {width} cells and were left aside. Download it again.")
    named = titles or [f"column_{number}" for number in range(1, width)]
    return Table(name=name, titles=("file", *named), rows=rows, remarks=remarks)
