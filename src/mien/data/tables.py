"""Tables of text: CSV, TSV, lists with spaces, JSON Lines; as pandas, Excel and the Hub write them.

Rows are read one by one and more than once, so that memory holds what is used and not what a file claims to hold.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TextIO

from mien.storage import bounded_json

MOST_BYTES = 48 << 20  # CelebA's attributes, 202,599 lines of 40, have 26 MB
MOST_ROWS, MOST_OBJECTS = 4_000_000, 1_000_000  # lines of a table, and of JSON Lines
MOST_COLUMNS = 4096
MOST_CHARACTERS = 1_000_000  # of a line
DELIMITERS = ",;\t|"
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".tab")  # always looked at
LIST_SUFFIXES = (".txt", ".lst", ".list", ".dat")  # may be a table, or prose
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

Row = list[str]


class UnusableTable(Exception):
    """Why a table cannot be used, and what to do: two sentences for a remark."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Titles, and rows of that many cells that can be read again."""

    name: str
    titles: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]
    twice: tuple[str, ...] = ()  # titles of several columns
    decimal_comma: bool = False  # cells are separated by semicolons, so that a comma is a decimal point
    remarks: list[str] = field(default_factory=list)


def open_table(name: str, data: bytes) -> Table:
    """The table in a file of text. Raises UnusableTable."""
    check_bytes(len(data))
    encoding = encoding_of(data)
    text = Text(data, encoding)
    table = json_lines(name, text) if name.lower().endswith((".jsonl", ".ndjson")) else delimited(name, text)
    if encoding == "cp1252":
        table.remarks.append(f"{name} is not UTF-8 and was read as Windows-1252. Save it as UTF-8 if names look wrong.")
    return table


def check_bytes(count: int) -> None:
    """Raise UnusableTable for a file that is larger than a table may be."""
    if count > MOST_BYTES:
        raise UnusableTable(f"It has {count:,} bytes, more than {MOST_BYTES:,}. Keep the columns that are labels.")


def check_rows(count: int, most: int = MOST_ROWS) -> None:
    """Raise UnusableTable for a table with more lines than are read."""
    if count > most:
        raise UnusableTable(f"It has more than {most:,} lines. Keep those that name pictures.")


@dataclass(frozen=True)
class Text:
    """Bytes, and how they are decoded."""

    data: bytes
    encoding: str

    def open(self, newline: str | None = None) -> TextIO:
        return io.TextIOWrapper(io.BytesIO(self.data), self.encoding, errors="replace", newline=newline)


def encoding_of(data: bytes) -> str:
    """The encoding of a text: by its byte order mark, by its zero bytes, UTF-8, or else Windows-1252."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding
    start = data[:4096]
    if b"\0" in start:
        zeros = (start[::2].count(0), start[1::2].count(0))
        if max(zeros) < 0.3 * len(start) / 2 or min(zeros) > 0:
            raise UnusableTable("It is not text. Save it as CSV in UTF-8.")
        return "utf-16-le" if zeros[1] else "utf-16-be"
    try:
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8")
        while text.read(1 << 20):
            pass
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def lines_of(file: TextIO) -> Iterator[str]:
    """The lines of a text. Raises UnusableTable for one that is longer than any table's."""
    while line := file.readline(MOST_CHARACTERS):
        if len(line) == MOST_CHARACTERS:
            raise UnusableTable(f"It has a line of more than {MOST_CHARACTERS:,} characters. Save it again as CSV.")
        yield line


def delimited(name: str, text: Text) -> Table:
    """A table whose cells are separated by a comma, semicolon, tab or bar, or by spaces."""
    with text.open() as file:
        lines = [line.rstrip("\r\n") for line in islice(lines_of(file), 20)]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UnusableTable("It is empty. Fill it, or remove it.")
    sep_line = lines[first].lower().startswith("sep=") and len(lines[first].strip()) == 5
    header = lines[first + 1] if sep_line and len(lines) > first + 1 else lines[first]
    delimiter = lines[first].strip()[4] if sep_line else find_delimiter(header, name)
    skip = first + sep_line
    quoting = csv.QUOTE_MINIMAL
    try:
        ragged, line = count_ragged(text, skip, delimiter, quoting)
    except csv.Error:  # a quotation mark that none closes would swallow every line after it
        quoting = csv.QUOTE_NONE
        try:
            ragged, line = count_ragged(text, skip, delimiter, quoting)
        except csv.Error as error:
            raise UnusableTable(f"It does not parse: {error}. Save it again as CSV.") from error
    rows = reader(text, skip, delimiter, quoting)
    head = next(rows)
    titles = unique_titles(head)
    if len(titles) > MOST_COLUMNS:
        raise UnusableTable(f"It has {len(titles):,} columns, more than {MOST_COLUMNS:,}. Keep those that are labels.")

    def read() -> Iterator[Row]:
        rows = reader(text, skip, delimiter, quoting)
        next(rows)
        for row in rows:
            fitted = fit(row, len(titles))
            if fitted is not None:
                yield fitted

    remarks = []
    if ragged:
        remarks.append(
            f"{ragged:,} lines of {name} do not have {len(titles)} cells and were left aside, line {line} first. Correct them."
        )
    twice = tuple(title for title, count in Counter(filter(None, head)).items() if count > 1)
    return Table(name=name, titles=titles, rows=read, remarks=remarks, twice=twice, decimal_comma=delimiter == ";")


def find_delimiter(header: str, name: str) -> str | None:
    """The delimiter that stands in a header most often, outside quotes; None for spaces."""
    plain = "".join(header.split('"')[::2])
    best = max(DELIMITERS, key=plain.count)
    if plain.count(best):
        return best
    return None if name.lower().endswith(LIST_SUFFIXES) and len(plain.split()) > 1 else ","


def reader(text: Text, skip: int, delimiter: str | None, quoting: int) -> Iterator[Row]:
    """The lines of a table as cells without spaces around them; empty lines are passed over."""
    with text.open(newline="") as file:
        lines = lines_of(file)
        for _ in islice(lines, skip):
            pass
        rows: Iterable[Row] = (
            map(str.split, lines)
            if delimiter is None
            else csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        )
        for row in rows:
            cells = [cell.strip() for cell in row]
            if quoting == csv.QUOTE_NONE:  # such as `"a.png" ; "20"`, where spaces stand outside the quotation marks
                cells = [cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells]
            if any(cells):
                yield cells


def count_ragged(text: Text, skip: int, delimiter: str | None, quoting: int) -> tuple[int, int]:
    """How many rows have another number of cells than the first, and the line of the first of them."""
    rows = reader(text, skip, delimiter, quoting)
    width, count, first = len(next(rows, [])), 0, 0
    for number, row in enumerate(rows, skip + 2):
        check_rows(number)
        if fit(row, width) is None:
            count, first = count + 1, first or number
    return count, first


def fit(row: Row, width: int) -> Row | None:
    """A row with `width` cells: more than that may be there if they are empty. None for any other row."""
    if len(row) == width:
        return row
    if len(row) > width and not any(row[width:]):
        return row[:width]
    return None


def unique_titles(cells: Row) -> tuple[str, ...]:
    """Titles that differ: empty ones become column_3, a second `age` becomes age_2."""
    titles: dict[str, None] = {}
    for number, cell in enumerate(cells, 1):
        title, again = cell or f"column_{number}", 2
        while title in titles:
            title, again = f"{cell or f'column_{number}'}_{again}", again + 1
        titles[title] = None
    return tuple(titles)


def without_titles(table: Table) -> Table:
    """The table, where its first line is a row as all others."""
    width = len(table.titles)

    def rows() -> Iterator[Row]:
        yield list(table.titles)
        yield from table.rows()

    titles = tuple(f"column_{number}" for number in range(1, width + 1))
    return replace(table, titles=titles, rows=rows, twice=())


def json_lines(name: str, text: Text) -> Table:
    """A JSON object in each line, as `metadata.jsonl` of an image folder on the Hub; nested values are passed over."""
    titles: dict[str, None] = {}
    nested: dict[str, None] = {}
    wrong, count = 0, 0
    for values in objects(text):
        count += 1
        check_rows(count, MOST_OBJECTS)
        if values is None:
            wrong += 1
            continue
        for title, value in values.items():
            (nested if isinstance(value, (list, dict)) and not are_words(value) else titles)[title] = None
        if len(titles) > MOST_COLUMNS:
            raise UnusableTable(f"It has more than {MOST_COLUMNS:,} keys. Keep those that are labels.")
    if wrong == count:
        raise UnusableTable("It is not JSON Lines, an object in each line. Save it again.")
    names = tuple(titles)

    def rows() -> Iterator[Row]:
        for values in objects(text):
            if values is not None:
                yield [scalar(values.get(title)) for title in names]

    remarks = [f"{wrong:,} lines of {name} are no JSON objects and were left aside. Correct them."] if wrong else []
    if only := [title for title in nested if title not in titles]:
        remarks.append(f"{', '.join(only)} of {name} holds lists, which are no labels, and was left aside.")
    return Table(name=name, titles=names, rows=rows, remarks=remarks)


def objects(text: Text) -> Iterator[dict[str, object] | None]:
    """The object of each line; None for a line that is none."""
    with text.open() as file:
        for line in lines_of(file):
            if not line.strip():
                continue
            try:
                yield bounded_json.loads_object(line, max_bytes=4 * MOST_CHARACTERS, file_names=False)
            except bounded_json.InvalidJSON:
                yield None


def are_words(value: object) -> bool:
    """Whether a value is a list of words, which one cell can hold."""
    return isinstance(value, list) and all(isinstance(word, str) and "|" not in word for word in value)


def scalar(value: object) -> str:
    """A value of JSON or Parquet as a cell."""
    if isinstance(value, list) and are_words(value):
        return f"[{'|'.join(value)}]"
    if value is None or isinstance(value, (list, dict)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def is_number(text: str) -> bool:
    """Whether a text is a number; 20_29, which Python would read as 2029, is none."""
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def to_float(text: str) -> float:
    return float(text) if is_number(text) else math.nan
