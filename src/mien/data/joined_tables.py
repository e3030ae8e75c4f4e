"""Tables of the same pictures as one: of a title the first table counts, and what contradicts it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mien.data.cells import is_known, quote, same
from mien.data.pack import Labels
from mien.data.tables import Row, Table


@dataclass(frozen=True)
class NamedRows:
    """A table's rows by the pictures that they are for."""

    table: Table
    column: int  # that names the pictures
    rows: dict[int, Row]  # picture -> cells
    without_picture: int
    unclear: int  # rows that might mean several pictures
    repeated: int  # rows for a picture that an earlier row is for
    split: str  # what the table's own name says
    contradictions: tuple[str, ...] = ()  # an example for each repeated row that says something else

    @property
    def label_titles(self) -> tuple[str, ...]:
        return tuple(title for place, title in enumerate(self.table.titles) if place != self.column)


@dataclass(frozen=True)
class Group:
    """Tables with the same columns, read as one."""

    tables: list[NamedRows]
    rows: dict[int, Row]  # picture -> cells
    places: dict[str, int]  # title -> cell, of the columns that no earlier table has

    def absorb(self, place: int, named: NamedRows, other: int, pictures: Sequence[str]) -> str:
        """Take from another table's column what this one does not know. Returns a remark where they contradict each other."""
        new: dict[int, str] = {}
        differ, both, own = list[int](), 0, self.rows
        for row, cells in named.rows.items():
            if not is_known(cells[other]):
                continue
            if row not in own or not is_known(own[row][place]):
                new[row] = cells[other]
            else:
                both += 1
                if own[row][place] != cells[other] and not same(own[row][place], cells[other]):
                    differ.append(row)
        title, names = named.table.titles[other], (named.table.name, self.tables[0].table.name)
        remark = ""
        if differ:
            row, most = differ[0], 2 * len(differ) > both
            example = f"{pictures[row]}: {quote(named.rows[row][other])} and {quote(own[row][place])}"
            remark = (
                f"{title} of {names[0]} contradicts {names[1]} for {len(differ):,} of {both:,} pictures ({example}): "
                f"{'the column is' if most else 'these cells are'} left aside. Correct one of the tables, or rename the "
                "column if it says something else."
            )
        elif both and not new:
            remark = f"{title} of {names[0]} says the same as {names[1]}."
        if 2 * len(differ) <= both:
            for row, cell in new.items():
                own.setdefault(row, [""] * len(self.tables[0].table.titles))[place] = cell
        return remark


def join(found: Sequence[NamedRows], pictures: Sequence[str]) -> tuple[list[Group], list[str]]:
    """Tables by their columns, and remarks on those that contradict each other: of a title the first table counts."""
    groups: dict[tuple[str, ...], Group] = {}
    owners: dict[str, tuple[Group, int]] = {}
    remarks = []
    for named in found:
        titles = tuple(title.lower() for title in named.table.titles)
        group = groups.setdefault(titles, Group([], {} if titles in groups else dict(named.rows), {}))
        group.tables.append(named)
        for place, title in enumerate(titles):
            if place == named.column:
                continue
            if title not in owners:
                owners[title] = (group, place)
                group.places[named.table.titles[place]] = place
            elif remark := owners[title][0].absorb(owners[title][1], named, place, pictures):
                remarks.append(remark)
    return list(groups.values()), remarks


def contradiction(table: Table, column: int, first: Row, again: Row) -> list[str]:
    """In words, what two rows for one picture say differently; empty where they do not."""
    for place, (one, other) in enumerate(zip(first, again, strict=True)):
        if place != column and one != other and is_known(one) and is_known(other) and not same(one, other):
            return [f"{quote(first[column])}, {table.titles[place]}: {quote(one)} and {quote(other)}"]
    return []


def compare(
    labels: Labels,
    known: int,
    new: int,
    name: str,
    scales: Mapping[str, tuple[float, float]],
    others: Mapping[str, tuple[float, float]],
) -> str:
    """How far two columns of labels with one name agree, in their own units."""
    (low, high), (least, most) = scales.get(name, (0.0, 1.0)), others.get(name, (0.0, 1.0))
    first, second = labels[:, known] * (high - low) + low, labels[:, new] * (most - least) + least
    both = ~np.isnan(first) & ~np.isnan(second)
    differ = int((np.abs(first - second)[both] > 1e-3 * max(1.0, abs(high), abs(most))).sum())
    return f"{name} of the table differs from the label {name} for {differ:,} of {int(both.sum()):,} pictures. "
