"""Tables of files and labels: CSV, TSV, and Parquet; columns of any kind become labels in [0, 1]."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mien.data.pack import Labels
from mien.errors import DataError, Untrusted

MOST_CLASSES = 64  # a column of words with more different ones is not a label
FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_id", "path", "name", "img")
GROUP_COLUMNS = ("identity", "person", "person_id", "subject", "group")
SPLIT_COLUMNS = ("split", "partition", "part")
UNKNOWN = frozenset({"", "nan", "none", "null", "na", "n/a", "?"})

Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a table says of each of its rows."""

    files: Sequence[str]
    label_names: tuple[str, ...]
    labels: Labels  # [n, len(label_names)], in [0, 1]; NaN = not known
    scales: Mapping[str, tuple[float, float]]  # what 0 and 1 mean, for labels with a scale of their own
    groups: Sequence[str] | None
    splits: Sequence[str] | None
    remarks: Sequence[str]


def read_csv(data: bytes, name: str) -> Columns:
    """The columns of a CSV or TSV with a header. Raises Untrusted when rows have different lengths."""
    text = data.decode("utf-8-sig", errors="replace")
    delimiter = "\t" if name.lower().endswith(".tsv") else ";" if text.partition("\n")[0].count(";") else ","
    header, *rows = list(csv.reader(io.StringIO(text), delimiter=delimiter)) or [[]]
    rows = [row for row in rows if row]
    wrong = next((number for number, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if wrong is not None:
        raise Untrusted(f"{name} is not a table.", f"Line {wrong} has not {len(header)} columns.", "Correct the line.")
    return {title.strip(): [row[i].strip() for row in rows] for i, title in enumerate(header)}


def file_column(columns: Columns, known: frozenset[str]) -> str | None:
    """The column that names files: by its title, or because most of its values are names in `known`."""
    for title in sorted(columns, key=lambda title: title.lower() not in FILE_COLUMNS):
        values = columns[title]
        if values and sum(PurePosixPath(value).name in known for value in values) > 0.5 * len(values):
            return title
    return None


def files_in(path: Path) -> Sequence[str]:
    """The files that a CSV names: its column with a title such as `file`, or else the first whose values exist."""
    columns = read_csv(path.read_bytes(), path.name)
    for title in sorted(columns, key=lambda title: title.lower() not in FILE_COLUMNS):
        values = columns[title]
        if title.lower() in FILE_COLUMNS or (values and (path.parent / values[0]).is_file()):
            return values
    raise DataError(
        f"{path} names no files.", "No column is titled `file`, and none holds paths.", "Add such a column."
    )


def describe(columns: Columns, files: Sequence[str], skip: str) -> Described:
    """Labels, groups and splits from every column but `skip`."""
    names: list[str] = []
    values: list[NDArray[np.float32]] = []
    scales: dict[str, tuple[float, float]] = {}
    remarks: list[str] = []
    groups: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    for title, column in columns.items():
        if title == skip:
            continue
        if title.lower() in GROUP_COLUMNS:
            groups = column
        elif title.lower() in SPLIT_COLUMNS and not all(is_number(value) for value in column):
            splits = column
        elif all(is_number(value) or value.lower() in UNKNOWN for value in column):
            level, scale = to_unit(np.array([to_float(value) for value in column]))
            names.append(clean(title))
            values.append(level)
            if scale != (0.0, 1.0):
                scales[clean(title)] = scale
        else:
            words = sorted({value for value in column if value.lower() not in UNKNOWN})
            if len(words) > MOST_CLASSES:
                remarks.append(f"The column {title} has {len(words):,} different words and is no label.")
                continue
            unknown = np.array([value.lower() in UNKNOWN for value in column])
            for word in words:
                names.append(clean(f"{title}_{word}"))
                values.append(np.where(unknown, np.nan, [value == word for value in column]).astype(np.float32))
    labels = np.stack(values, axis=1) if values else np.zeros((len(files), 0), np.float32)
    return Described(
        files=files,
        label_names=tuple(names),
        labels=labels,
        scales=scales,
        groups=groups,
        splits=splits,
        remarks=remarks,
    )


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


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def to_float(text: str) -> float:
    return float(text) if is_number(text) else math.nan
