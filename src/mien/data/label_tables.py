"""Tables beside pictures: each is used and said so, or left aside with the reason and what to do. None stops the pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from mien.data.archives import IMAGE_SUFFIXES, Member, base_name, suffix_of
from mien.data.arrow import parquet_table
from mien.data.class_folders import folder_classes, without_classes
from mien.data.contents import Contents
from mien.data.joined_tables import Group, NamedRows, compare, contradiction, join
from mien.data.name_index import NONE, SEVERAL, NameIndex
from mien.data.pack import Labels
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, stamp_of
from mien.data.table_labels import Columns, TableLabels, describe, split_of
from mien.data.tables import (
    LIST_SUFFIXES,
    TEXT_SUFFIXES,
    Row,
    Table,
    UnusableTable,
    check_bytes,
    is_number,
    open_table,
    without_titles,
)

FILE_TITLES = (
    *("file", "filename", "file_name", "image", "image_id", "image_name", "imagename", "img", "img_name", "img_id"),
    *("path", "filepath", "file_path", "image_path", "img_path", "name", "files", "images", "picture", "photo", "id"),
)
SAMPLE = 2000  # rows that are looked at for a column of names
MOST_CELLS = 50_000_000  # labels times pictures: 200 MB
NAMED = 5  # names that a remark lists
UNREAD = (
    ".mat .pkl .pickle .feather .arrow .orc .avro .db .sqlite .sqlite3 .xml .yaml .yml .sav .dta .rds .rdata .tfrecord"
)
CONVERT = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), "It is a spreadsheet. Save it as CSV."),
    **dict.fromkeys(
        (".npy", ".npz", ".h5", ".hdf5"), "Arrays are not matched with files. Save labels as CSV, or give it itself."
    ),
    ".json": "JSON is not read as a table. Save it as CSV, or as JSON Lines with an object in each line.",
    **dict.fromkeys(UNREAD.split(), "It is not read. Save it as CSV."),
}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".z", ".7z")


def add_tables(contents: Contents, listing: Listing, done: Collection[str] = ()) -> Listing:
    """The listing with what the tables beside the pictures say; `done` are the names of files that were read before."""
    if not listing.names:
        return listing
    aside: dict[str, list[str]] = {}  # names of files by why they are not used: there may be one beside each picture
    found: list[NamedRows] = []
    for member in contents.others:
        if base_name(member.name) in done:
            continue
        try:
            named = read_member(contents, member)
        except UnusableTable as error:
            aside.setdefault(str(error), []).append(member.name)
        except UnreadableFile as error:
            aside.setdefault(f"It cannot be read: {error}. Save it again.", []).append(member.name)
        else:
            found += [named] if named is not None else []
    remarks = [f"{shorten(names)} is left aside. {why}" for why, names in aside.items()]
    listing = replace(listing, remarks=[*listing.remarks, *remarks])
    groups, contradictions = join(found, listing.names)
    folders = folder_classes(listing)
    for group in groups:
        listing = add_group(listing, group, folders)
    listing = replace(listing, remarks=[*listing.remarks, *contradictions])
    if len({named.split for named in found} - {""}) > 1 and listing.splits is None:
        by_row: dict[int, str] = {}
        for named in found:
            for row in named.rows if named.split else ():
                by_row.setdefault(row, named.split)
        both = sum(len(named.rows) for named in found if named.split) - len(by_row)
        listing = replace(listing, splits=[by_row.get(row, "") for row in range(len(listing.names))])
        if both:
            remark = f"{both:,} lines name a picture that the table of another split names too: the first table counts."
            listing = replace(listing, remarks=[*listing.remarks, remark])
    return listing


def read_member(contents: Contents, member: Member) -> NamedRows | None:
    """A file beside the pictures as rows for them; None for one that is no table. Raises UnusableTable, UnreadableFile."""
    suffix = suffix_of(member.name)
    if suffix in CONVERT:
        raise UnusableTable(CONVERT[suffix])
    if suffix in PACKED and suffix_of(member.name[: -len(suffix)]) in (*TEXT_SUFFIXES, ".json", ".parquet"):
        raise UnusableTable("It is compressed. Unpack it.")
    if suffix not in (*TEXT_SUFFIXES, *LIST_SUFFIXES, ".parquet"):
        return None
    prose = suffix in LIST_SUFFIXES  # of which only a table is worth a word
    folder, _, base = member.name.rpartition("/")
    opener = parquet_table if suffix == ".parquet" else open_table
    try:
        check_bytes(member.size)
        table = opener(member.name, contents.read(member))
        return match(table, contents.index, folder, split_of(base.partition(".")[0]))
    except (UnusableTable, UnreadableFile):
        if prose:
            return None
        raise


def match(table: Table, index: NameIndex, folder: str = "", split: str = "") -> NamedRows:
    """The table's rows by picture. Raises UnusableTable where it names too few of them."""
    if any(names_picture(title, index, folder, split) for title in table.titles if title.lower() not in FILE_TITLES):
        table = without_titles(table)
    if next(iter(table.rows()), None) is None:
        raise UnusableTable("It has no line below its titles. Fill it, or remove it.")
    best = NamedRows(table, 0, {}, 0, 0, 0, split)
    for column in candidates(table):
        named = match_column(table, column, index, folder, split)
        if len(named.rows) > len(best.rows):
            best = named
        if 2 * len(named.rows) > len(index.names):
            break
    example = f"Give it a column `file` with names such as {index.names[0]}."
    if not best.rows:
        raise UnusableTable(f"None of its columns names one of the pictures. {example}")
    lines = len(best.rows) + best.without_picture + best.unclear + best.repeated
    if 2 * len(best.rows) < min(len(index.names), lines):
        raise UnusableTable(
            f"Its column {table.titles[best.column]} names {len(best.rows):,} of {len(index.names):,} pictures "
            f"in {lines:,} lines, which may be by chance. {example}"
        )
    if len(table.titles) == 1:
        raise UnusableTable("It names pictures and says nothing of them. Add columns, or give it itself as the source.")
    return best


def candidates(table: Table) -> Iterator[int]:
    """The columns that may name pictures: by their titles, then those with names or with values that hardly recur."""
    titled = [place for known in FILE_TITLES for place, title in enumerate(table.titles) if title.lower() == known]
    yield from titled
    sample = list(islice(table.rows(), SAMPLE))
    for place in range(len(table.titles)):
        cells = [row[place] for row in sample]
        names = [cell for cell in cells if suffix_of(cell) in IMAGE_SUFFIXES]
        others = {cell for cell in cells if not is_plain_number(cell)}  # an age is no name, 000020 may be one
        if place not in titled and cells and (2 * len(names) > len(cells) or 2 * len(others) > len(cells)):
            yield place


def names_picture(title: str, index: NameIndex, folder: str, split: str) -> bool:
    """Whether a title is a picture's name, so that the table has no titles."""
    if suffix_of(title) in IMAGE_SUFFIXES:
        return True
    return not is_plain_number(title) and index.find(title, folder, split) >= 0


def is_plain_number(text: str) -> bool:
    """Whether a text is a number, without zeros in front."""
    return is_number(text) and not (len(text) > 1 and text[0] == "0" and text.isdecimal())


def match_column(table: Table, column: int, index: NameIndex, folder: str, split: str) -> NamedRows:
    """The rows by the pictures that one column names. Of two rows for a picture the first counts."""
    rows: dict[int, Row] = {}
    without = unclear = repeated = 0
    contradictions: list[str] = []
    shared: dict[str, str] = {}  # equal cells share one string: most of a table repeats
    most = MOST_CELLS // len(table.titles)
    for cells in table.rows():
        row = index.find(cells[column], folder, split)
        if row == NONE:
            without += 1
        elif row == SEVERAL:
            unclear += 1
        elif row in rows:
            repeated += 1
            contradictions += contradiction(table, column, rows[row], cells)
        elif len(rows) < most:
            rows[row] = [shared.setdefault(cell, cell) for cell in cells]
        else:
            raise UnusableTable(
                f"It has more than {MOST_CELLS:,} cells for pictures. Keep the columns that are labels."
            )
    return NamedRows(table, column, rows, without, unclear, repeated, split, tuple(contradictions))


def add_group(listing: Listing, group: Group, folders: Sequence[str]) -> Listing:
    """The listing with the labels, identities and splits of tables that have the same columns, beside class `folders`."""
    order = sorted(group.rows)
    names = " and ".join(named.table.name for named in group.tables)
    columns: Columns = {title: [group.rows[row][place] for row in order] for title, place in group.places.items()}
    same: list[str] = []
    if folders:
        known = [folders[row] for row in order], [listing.names[row] for row in order]
        columns, same = without_classes(columns, *known, names)
    described = describe(columns, names, group.tables[0].table.decimal_comma)
    before = listing
    listing = merge(listing, described, np.array(order, dtype=np.int64))
    return replace(
        listing,
        remarks=[*listing.remarks, *usage(before, group.tables, described, len(order)), *same, *described.remarks],
    )


def usage(listing: Listing, tables: Sequence[NamedRows], described: TableLabels, count: int) -> list[str]:
    """What of some tables is used, and which of their lines are not."""
    names = " and ".join(named.table.name for named in tables)
    gives = [f"the labels {shorten(list(described.columns))}"] if described.columns else []
    gives += ["identities"] if described.groups else []
    gives += ["a split"] if described.splits else []
    title = tables[0].table.titles[tables[0].column]
    remarks = [
        f"{names} {'are' if len(tables) > 1 else 'is'} used: the column {title} names {count:,} of {len(listing.names):,} "
        f"pictures, the others give {' and '.join(gives) or 'no labels'}."
    ]
    for named in tables:
        name = named.table.name
        remarks += named.table.remarks
        if named.without_picture:
            remarks.append(f"{named.without_picture:,} lines of {name} have no picture here.")
        if named.unclear:
            remarks.append(
                f"{named.unclear:,} lines of {name} fit several pictures and were left aside. Write their folders."
            )
        if named.repeated:
            remarks.append(f"{named.repeated:,} lines of {name} name a picture again: its first line counts.")
        if named.contradictions:
            remarks.append(
                f"{len(named.contradictions):,} of these lines say something else than the first "
                f"({named.contradictions[0]}) and were left aside. Write one line for each picture."
            )
        if named.table.twice:
            remarks.append(
                f"{name} has several columns titled {shorten(named.table.twice)}: each after the first has a number."
            )
    return remarks


def shorten(names: Sequence[str]) -> str:
    """Some names in a sentence, the first of them if they are many."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def merge(listing: Listing, described: TableLabels, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Listing:
    """The listing with labels, identities and splits for some of its rows. What it knows already stays."""
    count, names, scales = len(listing.names), list(listing.label_names), dict(listing.scales)
    labels: Labels | None = listing.labels
    remarks = list(listing.remarks)
    if described.columns:
        total = len(names) + len(described.columns)
        if total * count > MOST_CELLS:
            remarks.append(f"{total:,} labels for {count:,} pictures are too many: those of tables were left aside.")
            return replace(listing, remarks=remarks)
        new = np.full((count, total), np.nan, np.float32)
        if labels is not None:
            new[:, : len(names)] = labels
        new[rows, len(names) :] = described.matrix
        for place, name in enumerate(described.columns, len(names)):
            other, again = name, 2
            while other in names:
                other, again = f"{name}_{again}", again + 1
            if other != name:
                remarks.append(
                    compare(new, names.index(name), place, name, scales, described.scales) + f"It is called {other}."
                )
            names.append(other)
            if name in described.scales:
                scales[other] = described.scales[name]
        labels = new
    if listing.splits is not None and described.splits is not None:
        pairs = [(listing.splits[row], split) for row, split in zip(rows.tolist(), described.splits, strict=True)]
        if differ := sum(bool(one and other and one != other) for one, other in pairs):
            remarks.append(f"{differ:,} pictures have another split in the table than by their folders, which count.")
    return replace(
        listing,
        layout="table" if listing.layout in ("folder", "classes") and listing.labels is None else listing.layout,
        label_names=tuple(names),
        labels=labels,
        scales=scales,
        groups=spread(listing.groups, described.groups, rows, count),
        splits=spread(listing.splits, described.splits, rows, count),
        remarks=remarks,
        stamp=stamp_of([listing.stamp, described_bytes(described), rows.tobytes(), described.groups, described.splits]),
    )


def described_bytes(described: TableLabels) -> list[object]:
    return [(name, values.tobytes()) for name, values in described.columns.items()]


def spread(
    known: Sequence[str] | None,
    new: Sequence[str] | None,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    count: int,
) -> Sequence[str] | None:
    """A word for each picture: what is known, or else what a table says of it."""
    if new is None:
        return known
    words = list(known or [""] * count)
    for row, word in zip(rows.tolist(), new, strict=True):
        words[row] = words[row] or word
    return words
