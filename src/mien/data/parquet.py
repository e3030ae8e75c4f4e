"""Sources of rows: Parquet files, folders of them as the Hub lays them out, and data sets saved by Hugging Face `datasets`."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.archives import MOST_INFLATION, Folder, images_in, printable
from mien.data.arrow import MOST_ROWS, class_names, image_columns, import_pyarrow, split_names, word_columns
from mien.data.label_tables import candidates, merge, shorten
from mien.data.layouts import complete
from mien.data.name_index import NameIndex
from mien.data.readers import UnreadableFile, read_file
from mien.data.source import Listing, Source, stamp_of
from mien.data.table_labels import describe, split_of
from mien.data.tables import MOST_COLUMNS, Table
from mien.errors import DataError, Untrusted

BATCH = 16  # rows that are read at a time


@dataclass(frozen=True)
class Shard:
    """One file, and how many rows each of its blocks has."""

    path: Path
    schema: Any
    blocks: tuple[int, ...]
    split: str


class ParquetSource(Source):
    """Rows that hold an image each, or name a file beside the table."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path = kind, path
        self._batch: Any = None  # of the row read last, the number of its first row, and those that follow
        self._first, self._coming = 0, iter(())
        self._opened: tuple[Path | None, int, Any] = (None, 0, None)  # the file read last, and its next block

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": printable(self.path.resolve().name)}

    @cached_property
    def _files(self) -> list[Path]:
        """The files with rows, in the order of their names."""
        if self.path.is_file():
            return [self.path]
        suffix = ".parquet" if self.kind == "parquet" else ".arrow"
        found = sorted(path for path in self.path.rglob(f"*{suffix}") if path.is_file())
        return [
            path
            for path in found
            if not path.name.startswith("cache-")
            and not any(part.startswith(".") for part in path.relative_to(self.path).parts)
        ]

    @cached_property
    def _shards(self) -> tuple[list[Shard], list[str]]:
        """The files whose columns are those of most rows, and what was left aside. Raises Untrusted when none can be read."""
        shards, remarks, broken = [], [], ""
        for path in self._files:
            try:
                shards.append(self._open(path))
            except Untrusted as error:
                broken = broken or error.why
                remarks.append(f"{path.name} is left aside. It does not parse: {error.why} Download it again.")
        if not shards:
            why = broken or "It has no file with rows."
            raise Untrusted(f"{self.path} does not parse.", why, "Save or download it again.")
        rows = Counter[tuple[str, ...]]()
        for shard in shards:
            rows[tuple(shard.schema.names)] += sum(shard.blocks)
        names = max(rows, key=lambda names: rows[names])
        if len(rows) > 1:
            others = [shard.path.name for shard in shards if tuple(shard.schema.names) != names]
            remarks.append(f"{shorten(others)} is left aside. It has other columns than the rest. Give it itself.")
        remarks += missing_shards([shard.path for shard in shards])
        return [shard for shard in shards if tuple(shard.schema.names) == names], remarks

    def _open(self, path: Path) -> Shard:
        pyarrow = import_pyarrow(str(self.path))
        try:
            if self.kind == "parquet":
                with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
                    meta = file.metadata
                    blocks = tuple(meta.row_group(number).num_rows for number in range(meta.num_row_groups))
                    schema = file.schema_arrow
                    check_inflation(path, meta)
            else:
                with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
                    schema = stream.schema
                    blocks = tuple(batch.num_rows for batch in stream)  # mapped, not read
            image_columns(schema)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise Untrusted(f"{path} does not parse.", f"{error}.", "Save or download it again.") from error
        if len(schema.names) > MOST_COLUMNS:
            why = f"It has {len(schema.names):,} columns, and {MOST_COLUMNS:,} are the most."
            raise Untrusted(f"{path} cannot be used.", why, "Save those that matter.")
        if sum(blocks) > max(MOST_ROWS, path.stat().st_size):
            raise Untrusted(f"{path} is a bomb.", f"It promises {sum(blocks):,} rows.", "Do not use it.")
        folders = path.relative_to(self.path).parts[:-1] if self.path.is_dir() else ()
        words = (re.split(r"-\d|\.", path.name)[0], *reversed(folders))
        return Shard(path, schema, blocks, next((split for word in words if (split := split_of(word))), ""))

    @cached_property
    def _blocks(self) -> list[tuple[Shard, int]]:
        """Each block of rows: its file, and its number there."""
        return [(shard, number) for shard in self._shards[0] for number in range(len(shard.blocks))]

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each block, and the count of all rows."""
        starts = [0]
        for shard, number in self._blocks:
            starts.append(starts[-1] + shard.blocks[number])
        return starts

    @property
    def _schema(self) -> Any:
        return self._shards[0][0].schema

    @cached_property
    def _image_column(self) -> str | None:
        return next(iter(image_columns(self._schema)), None)

    def _batches(self, number: int, columns: Sequence[str]) -> Iterator[Any]:
        """Some columns of a block, a few rows at a time: in a file one large value may stand for many rows."""
        shard, place = self._blocks[number]
        if self.kind == "parquet":
            yield from self._table(shard.path).iter_batches(BATCH, row_groups=[place], columns=list(columns))
        else:
            yield from islice(self._stream(shard.path, place), 1)

    def _table(self, path: Path) -> Any:
        """A Parquet file, which stays open: its footer names every block, and was read once for each of them."""
        if self._opened[0] != path:
            self._opened = (path, 0, import_pyarrow(str(path)).parquet.ParquetFile(path, memory_map=True))
        return self._opened[2]

    def _stream(self, path: Path, place: int) -> Any:
        """The blocks of an Arrow file from one on: it goes on where it was, since none knows where the next one begins."""
        pyarrow = import_pyarrow(str(path))
        known, coming, stream = self._opened
        if known != path or place < coming:
            coming, stream = 0, pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
        self._opened = (path, place + 1, stream)
        return islice(stream, place - coming, None)

    def _columns(self) -> dict[str, list[str]]:
        """Every column of words and numbers; class numbers by their names."""
        titles, classes = word_columns(self._schema), class_names(self._schema.metadata)
        columns: dict[str, list[str]] = {title: [] for title in titles}
        shared: dict[str, str] = {}  # equal cells share one string
        for number in range(len(self._blocks)):
            for batch in self._batches(number, titles):
                for title in titles:
                    words = split_names(batch.column(title).to_pylist(), classes.get(title))
                    columns[title] += [shared.setdefault(word, word) for word in words]
        return columns

    def listing(self) -> Listing:
        count = self._starts[-1]
        if not count:
            raise DataError(f"{self.path} holds no rows.", "It has no block of data.", "Save it again.")
        columns, remarks = self._columns(), list(self._shards[1])
        if self._image_column is not None:
            names = [f"{row:08d}" for row in range(count)]
        else:
            names, column = self._names(columns)
            del columns[column]
        unused = [name for name in self._schema.names if name not in (*columns, self._image_column)]
        if unused and self._image_column is not None:
            remarks.append(f"{shorten(unused)} holds lists or more pictures and is left aside.")
        stamp = stamp_of([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self._files])
        described = describe(columns, self.path.name)
        listing = Listing(layout=self.kind, names=names, remarks=remarks, stamp=stamp)
        listing = merge(listing, described, np.arange(count))
        splits = [shard.split for shard in self._shards[0] for _ in range(sum(shard.blocks))]
        if listing.splits is None and len(set(splits)) > 1:
            listing = replace(listing, splits=splits)
        if len(self._shards[0]) > 1:
            remark = f"{len(self._shards[0]):,} files with {count:,} rows are read as one source."
            listing = replace(listing, remarks=[remark, *listing.remarks])
        return complete(replace(listing, remarks=[*listing.remarks, *described.remarks]))

    @property
    def _folder(self) -> Path:
        """The folder of the files that rows name."""
        return self.path if self.path.is_dir() else self.path.parent

    def _names(self, columns: Mapping[str, list[str]]) -> tuple[list[str], str]:
        """The files that rows name, and the column that names them."""
        container = Folder(self._folder)
        pictures = [image.name for image in images_in(container, container.members())[0]]
        index = NameIndex(pictures, self._folder.resolve().name)
        table = Table(
            name=self.path.name, titles=tuple(columns), rows=lambda: map(list, zip(*columns.values(), strict=True))
        )
        for place in candidates(table):
            values = columns[table.titles[place]]
            rows = [index.find(value) for value in values]
            if any(row >= 0 for row in rows):
                names = [pictures[row] if row >= 0 else value for row, value in zip(rows, values, strict=True)]
                return names, table.titles[place]
        raise DataError(
            f"{self.path} names no images.",
            f"None of its columns, {shorten(self._schema.names)}, holds images as bytes or names files.",
            "Write a column `image` with the bytes of a file in each row, or put it beside the files.",
        )

    def address(self, name: str) -> str:
        return name

    def read(self, address: str) -> bytes:
        column = self._image_column
        if column is None:
            return read_file(self._folder / address)
        row = int(address)
        if self._batch is None or not 0 <= row - self._first < len(self._batch):
            self._find(row, column)
        value = self._batch.column(column)[row - self._first].as_py()
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not data:
            raise UnreadableFile("not in the table, which names its file" if value and value.get("path") else "empty")
        return bytes(data)

    def _find(self, row: int, column: str) -> None:
        """Read on to the batch of a row: rows are read in order."""
        number = bisect_right(self._starts, row) - 1
        following = self._batch is not None and self._starts[number] <= self._first < row
        if not following:
            self._batch, self._first, self._coming = (), self._starts[number], self._batches(number, [column])
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = next(self._coming, None)
            if self._batch is None:
                raise UnreadableFile("cut off")


def check_inflation(path: Path, meta: Any) -> None:
    """Raises Untrusted for a column that inflates as no photographs and no labels do: 19 KB took 3 GB."""
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.total_uncompressed_size > MOST_INFLATION * max(column.total_compressed_size, 1 << 20):
                why = f"{column.path_in_schema[:80]} inflates over {MOST_INFLATION} times."
                raise Untrusted(f"{path} is a bomb.", why, "Do not use it.")


def missing_shards(paths: Sequence[Path]) -> list[str]:
    """A remark for each series of shards, `train-00000-of-00004`, of which some are not there."""
    found: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if fit := re.match(r"(.*?)-(\d+)-of-(\d+)", path.name):
            found.setdefault((fit[1], int(fit[3])), set()).add(int(fit[2]))
    return [
        f"{total - len(numbers):,} of {total:,} shards of {name} are missing. Download them, or go on without."
        for (name, total), numbers in found.items()
        if len(numbers) < total
    ]
