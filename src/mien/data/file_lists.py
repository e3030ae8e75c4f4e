"""The pictures that a list or a table names, when it is the source itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mien.data.archives import Folder, images_in
from mien.data.label_tables import candidates
from mien.data.name_index import NameIndex
from mien.data.readers import UnreadableFile, read_file
from mien.data.tables import Text, UnusableTable, encoding_of, lines_of, open_table
from mien.errors import DataError, Untrusted


def names_in_list(path: Path) -> Sequence[str]:
    """The names in a text file: one a line; `#` begins a comment."""
    data = read(path)
    try:
        encoding = encoding_of(data)
    except UnusableTable as error:
        raise Untrusted(f"{path} is no list of files.", *str(error).split(". ", 1)) from error
    if encoding == "cp1252":  # names of files that are not UTF-8: as the file system has them
        lines = data.decode("utf-8", "surrogateescape").splitlines()
    else:
        with Text(data, encoding).open() as file:
            lines = list(lines_of(file))
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [name.replace("\\", "/") if "\\" in name and not (path.parent / name).exists() else name for name in names]


def names_in_table(path: Path) -> Sequence[str]:
    """The files that a table names, below its own folder or by absolute paths.

    Its column is the one whose first names are there; names without suffix or with other separators are searched for.
    """
    try:
        table = open_table(path.name, read(path))
        columns = list(candidates(table))
        values = {column: [row[column] for row in table.rows()] for column in columns}
    except UnusableTable as error:
        raise Untrusted(f"{path} is no table.", *str(error).split(". ", 1)) from error
    for names in values.values():
        if names and any((path.parent / name).is_file() for name in names[:100] if name and "\0" not in name):
            return names
    container = Folder(path.parent)
    pictures = [image.name for image in images_in(container, container.members())[0]]
    index = NameIndex(pictures, path.parent.resolve().name)
    for names in values.values():
        rows = [index.find(name) for name in names]
        if any(row >= 0 for row in rows):
            return [pictures[row] if row >= 0 else name for name, row in zip(names, rows, strict=True)]
    if "pixels" in table.titles:
        raise DataError(
            f"{path} holds the pictures themselves as text.",
            "Its column pixels is not read.",
            "Save them as an array `images` of shape [n, height, width] in an .npz file.",
        )
    raise DataError(
        f"{path} names no files.",
        "No column holds names of pictures in its folder.",
        "Add a column titled `file` with their paths, or put the table beside the pictures.",
    )


def read(path: Path) -> bytes:
    try:
        return read_file(path)
    except UnreadableFile as error:
        raise DataError(f"{path} cannot be read.", f"It is {error}.", "Give another file.") from error
