"""Columnar files with pyarrow: Parquet tables, and image data sets saved by Hugging Face `datasets`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mien.data import tables
from mien.data.layouts import with_table
from mien.data.readers import UnreadableFile, read_file
from mien.data.source import Listing, Source, stamp_of
from mien.errors import DataError, Untrusted, UsageError
from mien.storage import bounded_json


class Columnar(Source):
    """A table whose rows hold an image each, or name a file beside the table."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path = kind, path

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.path.name}

    @cached_property
    def _blocks(self) -> list[Callable[[], Any]]:
        """How to load each block of rows, an Arrow table or record batch."""
        pyarrow = pyarrow_for(self.path)
        try:
            if self.kind == "parquet":
                file = pyarrow.parquet.ParquetFile(self.path, memory_map=True)
                self._counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                self._schema = file.schema_arrow
                return [lambda number=number: file.read_row_group(number) for number in range(file.num_row_groups)]  # type: ignore[misc]
            batches = []
            for arrow in sorted(self.path.rglob("*.arrow")):
                if not arrow.name.startswith("cache-"):
                    reader = pyarrow.ipc.open_stream(pyarrow.memory_map(str(arrow)))
                    self._schema = reader.schema
                    batches += list(reader)  # mapped, not read
            self._counts = [batch.num_rows for batch in batches]
            return [lambda batch=batch: batch for batch in batches]  # type: ignore[misc]
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise Untrusted(f"{self.path} does not parse.", str(error), "Save or download it again.") from error

    @cached_property
    def _starts(self) -> list[int]:
        blocks, starts = self._blocks, [0]
        assert len(blocks) == len(self._counts)
        for count in self._counts:
            starts.append(starts[-1] + count)
        return starts

    @cached_property
    def _image_column(self) -> str | None:
        """The column that holds images: bytes, or a struct with bytes as Hugging Face writes it."""
        pyarrow = pyarrow_for(self.path)
        assert self._blocks is not None
        for field in self._schema:
            kind = field.type
            if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
                return str(field.name)
            if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return str(field.name)
        return None

    def _columns(self) -> dict[str, Sequence[str]]:
        """Every column but the images, as words; class numbers by their names."""
        pyarrow = pyarrow_for(self.path)
        if not self._blocks:
            raise DataError(f"{self.path} holds no rows.", "It has no block of data.", "Save it again.")
        classes = class_names(self._schema.metadata or {})
        columns: dict[str, Sequence[str]] = {}
        for name in self._schema.names:
            if name == self._image_column or pyarrow.types.is_nested(self._schema.field(name).type):
                continue
            values = [value for block in self._blocks for value in block().column(name).to_pylist()]
            known = classes.get(name)
            if known:
                values = [known[value] if value is not None and 0 <= value < len(known) else None for value in values]
            columns[name] = [
                "" if value is None else str(int(value) if isinstance(value, bool) else value) for value in values
            ]
        return columns

    def listing(self) -> Listing:
        columns, rows = self._columns(), self._starts[-1]
        if self._image_column is not None:
            names, skip = [f"{row:08d}" for row in range(rows)], ""
        else:
            beside = frozenset(path.name for path in self.path.parent.rglob("*"))
            column = tables.file_column(columns, beside)
            if column is None:
                raise DataError(
                    f"{self.path} names no images.", "No column holds images or names files.", "Put it beside them."
                )
            names, skip = list(columns[column]), column
        described = tables.describe(columns, names, skip)
        stamp = stamp_of([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()])
        plain = Listing(layout=self.kind, names=names, stamp=stamp)
        return replace(with_table(plain, described, range(rows)), names=names)

    def _files(self) -> list[Path]:
        return [self.path] if self.path.is_file() else sorted(self.path.rglob("*.arrow"))

    def address(self, name: str) -> str:
        return name

    def read(self, address: str) -> bytes:
        column = self._image_column
        if column is None:
            return read_file(self.path.parent / address)
        row = int(address)
        block = bisect_right(self._starts, row) - 1
        value = self._load(block).column(column)[row - self._starts[block]].as_py()
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not data:
            raise UnreadableFile("empty")
        return bytes(data)

    def _load(self, block: int) -> Any:
        """One block of rows; the last is kept, because rows are read in order."""
        if self._kept is None or self._kept[0] != block:
            self._kept = (block, self._blocks[block]())
        return self._kept[1]

    _kept: tuple[int, Any] | None = None
    _counts: list[int]
    _schema: Any


def pyarrow_for(path: Path) -> Any:
    """pyarrow, which an extra brings. Raises UsageError without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"{path} needs pyarrow.", f"{error}.", "Install it: pip install 'mien[tables]'.") from error
    return pyarrow


def class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of class numbers, by column, from the metadata that Hugging Face writes into a schema."""
    try:
        features = bounded_json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: list(kind["names"]) for name, kind in features.items() if isinstance(kind, dict) and kind.get("names")
    }
