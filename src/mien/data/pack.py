"""The pack: a prepared data set in a directory, read by memory map and written to a temporary name.

images.npy     uint8 [n, side, side, 3]
labels.npy     float32 [n, label_dim], in [0, 1]; NaN = not known (only when there are labels)
index.csv      one line a row: row, source name, group (such as an identity), split, geometry
blocks.sha256  32 bytes for each block of images: what a reader over the network compares
pack.json      format, count, side, label names, how it was prepared, what was refused and why, fingerprint
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien.data.growing_array import GrowingArray, hash_file
from mien.data.pack_shape import BLOCKS, check_shape, missing_for_a_report
from mien.errors import DataError, Mismatch, Untrusted, UsageError
from mien.storage import bounded_json
from mien.storage.atomic import fsync, fsync_directory
from mien.storage.regular_file import check_regular

if TYPE_CHECKING:  # only for packs on a server
    from mien.data.remote_rows import RemoteRows

FORMAT = 1
SPLITS = ("train", "holdout")
INDEX_COLUMNS = ("row", "source", "group", "split", "geometry")

Images = NDArray[np.uint8]
Labels = NDArray[np.float32]
Rows = NDArray[np.int64]


class Entry(NamedTuple):
    """What `index.csv` says of one image."""

    source: str  # its name inside the source, with forward slashes
    group: str = ""  # what must not be torn apart by a split: an identity
    split: str = "train"
    geometry: str = ""  # the box that was cut, or the transform, in pixels of the upright source


@dataclass(frozen=True, eq=False)
class Pack:
    """A prepared data set. `fingerprint` names its content: pixels, labels, names, order and splits."""

    path: Path
    images: Images | RemoteRows  # [n, side, side, 3], a read-only memory map, or what is fetched as it is indexed
    labels: Labels | None  # [n, len(label_names)], in [0, 1]; NaN = not known
    label_names: tuple[str, ...]
    side: int  # pixels, height and width
    fingerprint: str
    meta: Mapping[str, Any]  # pack.json
    address: str = ""  # of a pack on a server; `path` is then its folder in the cache

    @classmethod
    def open(cls, path: str | Path) -> Pack:
        """Open the pack at `path` without reading its pixels; `verify` reads them all.

        Raises DataError where there is no pack, Untrusted for a damaged one, Mismatch for one of a newer format.
        """
        path = Path(path)
        meta = _read_meta(path)
        count, side, fingerprint = meta["count"], meta["side"], meta["fingerprint"]
        names = tuple(meta["label_names"])
        images = map_array(path / "images.npy", np.dtype(np.uint8), (count, side, side, 3))
        labels = map_array(path / "labels.npy", np.dtype(np.float32), (count, len(names))) if names else None
        return cls(path, images, labels, names, side, fingerprint, meta)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        """The name of its directory, here or on the server."""
        return self.address.rpartition("/")[2] or self.path.resolve().name

    @property
    def preparation(self) -> Mapping[str, Any]:
        """pack.json with all the fields that say how the pack was prepared.

        Raises Mismatch where one is missing: such a pack can be trained on, and nothing can be reported of it.
        """
        if missing := missing_for_a_report(self.meta):
            raise Mismatch(
                f"{self.path} has no description of its preparation.",
                f"Its pack.json has no {', '.join(missing)}.",
                "It can be trained on; for a report, prepare it with `mien data prepare`.",
            )
        return self.meta

    def read_index(self) -> Iterator[Entry]:
        """Every row of `index.csv`, with one in memory at a time. Raises Untrusted, for a wrong number of rows at the end."""
        count = 0
        try:
            check_regular(self.path / "index.csv")
            with (self.path / "index.csv").open(newline="", encoding="utf-8") as file:
                lines = (line for line in csv.reader(file) if len(line) == len(INDEX_COLUMNS))
                next(lines, None)
                for _, source, *rest in lines:
                    count += 1
                    yield Entry(source, *map(sys.intern, rest))  # most are equal, so interning saves memory
        except (OSError, ValueError, csv.Error) as error:
            raise damaged(self.path, f"index.csv cannot be read: {error}.") from error
        if count != len(self):
            raise damaged(self.path, f"index.csv has {count} rows for {len(self)} images.")

    @cached_property
    def entries(self) -> list[Entry]:
        """Every row of `index.csv`, some hundred bytes each. Read on first use."""
        return list(self.read_index())

    @cached_property
    def _splits(self) -> NDArray[np.int8]:
        """Each row's split, as its number in SPLITS; -1 = none of them. A byte a row, where `entries` take hundreds."""
        numbers = {split: number for number, split in enumerate(SPLITS)}
        return np.fromiter((numbers.get(entry.split, -1) for entry in self.read_index()), np.int8)

    def source_of(self, row: int) -> str:
        """The name of one image inside its source."""
        return next(islice(self.read_index(), row, None)).source

    def rows(self, split: str = "train") -> Rows:
        """The rows of a split, in order: `train`, `holdout`, or `all`."""
        if split == "all":
            return np.arange(len(self))
        if split not in SPLITS:
            raise UsageError(
                f"There is no split `{split}`.", "A pack has train and holdout.", "Use train, holdout or all."
            )
        counts = self.meta.get("splits", {"train": len(self)})
        if counts.get(split, 0) in (0, len(self)):
            return np.arange(counts.get(split, 0))
        return np.flatnonzero(self._splits == SPLITS.index(split))

    def verify(self) -> None:
        """Read every byte and compare it with the checksums. Raises Untrusted when one differs."""
        checksums = self.meta.get("sha256", {})
        for name, expected in checksums.items():
            try:
                found = self._digest(name)
            except (OSError, ValueError) as error:
                raise damaged(self.path, f"{name} cannot be read: {error}.") from error
            if found != expected:
                raise damaged(self.path, f"{name} is not what was written: its SHA-256 differs.")
        if fingerprint_of(self.side, self.label_names, checksums) != self.fingerprint:
            raise damaged(self.path, "The fingerprint in pack.json does not belong to its checksums.")

    def _digest(self, name: str) -> str:
        """The SHA-256 of a file's content. Raises OSError, ValueError."""
        if name == "images.npy" and not isinstance(self.images, np.ndarray):
            digest = hashlib.sha256()
            for part in self.images.parts():
                digest.update(part)
            return digest.hexdigest()
        check_regular(self.path / name)
        return hash_file(self.path / name)


def fingerprint_of(side: int, label_names: Sequence[str], checksums: Mapping[str, str]) -> str:
    """The name of a pack's content: a hash of its files' hashes, its side and its label names."""
    content = {
        "format": FORMAT,
        "side": side,
        "label_names": list(label_names),
        "sha256": dict(sorted(checksums.items())),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class PackWriter:
    """Writes a pack row by row, in constant memory, under a temporary name; `commit` puts it in place.

    Leaving the `with` block without `commit` removes what was written.
    """

    def __init__(
        self, path: str | Path, side: int, label_names: Sequence[str] = (), *, beside: Path | None = None
    ) -> None:
        """`beside` is the folder for the temporary one, on the file system of `path`; by default the folder of `path`."""
        self.path, self.side, self.label_names = Path(path), side, tuple(label_names)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = (beside or self.path.parent) / f".{self.path.name}.{uuid.uuid4().hex}.tmp"
        self.folder.mkdir()
        self._images = GrowingArray(self.folder / "images.npy", np.dtype(np.uint8), (side, side, 3))
        self._labels = (
            GrowingArray(self.folder / "labels.npy", np.dtype(np.float32), (len(self.label_names),))
            if label_names
            else None
        )
        self._index = (self.folder / "index.csv").open("w", newline="", encoding="utf-8")
        self._csv = csv.writer(self._index, lineterminator="\n")
        self._csv.writerow(INDEX_COLUMNS)
        self._splits = Counter(dict.fromkeys(SPLITS, 0))
        self._committed = False

    def append(self, images: Images, labels: Labels | None, entries: Sequence[Entry]) -> None:
        """Add rows: images `[k, side, side, 3]`, labels `[k, label_dim]` in [0, 1] or NaN, one entry each."""
        self.append_images(images)
        self.describe(labels, entries)

    def append_images(self, images: Images) -> None:
        """Add images `[k, side, side, 3]`, to be described later."""
        self._images.append(images)

    def describe(self, labels: Labels | None, entries: Sequence[tuple[str, str, str, str]]) -> None:
        """Add the labels and the lines of the index for images that were added; entries have the fields of Entry."""
        if self._labels is not None:
            assert labels is not None
            self._labels.append(labels)
        first = sum(self._splits.values())
        self._csv.writerows([(row, *entry) for row, entry in enumerate(entries, first)])
        self._splits.update([split for _, _, split, _ in entries])

    def commit(self, meta: Mapping[str, Any]) -> Pack:
        """Complete the files, make them durable and rename the directory into place.

        Raises FileExistsError or OSError (not empty) when another process was first.
        """
        assert sum(self._splits.values()) == self._images.count, "every image is described"
        checksums = {"images.npy": self._images.close()}
        if self._labels is not None:
            checksums["labels.npy"] = self._labels.close()
        self._index.close()
        checksums["index.csv"] = hash_file(self.folder / "index.csv")
        (self.folder / BLOCKS).write_bytes(self._images.sums)
        described = {
            "format": FORMAT,
            "count": self._images.count,
            "side": self.side,
            "label_names": list(self.label_names),
            "fingerprint": fingerprint_of(self.side, self.label_names, checksums),
            "splits": {split: count for split, count in self._splits.items() if count},
            "sha256": checksums,
            "blocks": {"rows": self._images.rows, "sha256": hash_file(self.folder / BLOCKS)},
            "bytes": {path.name: path.stat().st_size for path in sorted(self.folder.iterdir())},
            **meta,
        }
        (self.folder / "pack.json").write_text(
            json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for path in self.folder.iterdir():
            with path.open("rb") as file:
                fsync(file.fileno())
        fsync_directory(self.folder)
        self.folder.rename(self.path)
        self._committed = True
        fsync_directory(self.path.parent)
        return Pack.open(self.path)

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._images.close()
            if self._labels is not None:
                self._labels.close()
            self._index.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def is_pack(path: Path) -> bool:
    """Whether a directory says that it is a pack."""
    return os.path.lexists(
        path / "pack.json"
    )  # whatever it is: what cannot be read is a damaged pack, not a pile of files


def chunks(count: int, size: int) -> Iterable[slice]:
    """Consecutive slices of at most `size` that cover `count`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _read_meta(path: Path) -> dict[str, Any]:
    remedy = "Prepare one with `mien data prepare SOURCE PACK`."
    if not path.exists():
        raise DataError(f"There is no pack at {path}.", "The path does not exist.", f"Check the spelling. {remedy}")
    if not is_pack(path):
        raise DataError(f"{path} is not a pack.", "A pack is a directory with a pack.json.", remedy)
    try:
        raw = bounded_json.read_bytes(path / "pack.json")
    except (OSError, ValueError) as error:
        raise damaged(path, f"pack.json does not parse: {error}.") from error
    return parse_meta(raw, path)


def parse_meta(raw: bytes, path: Path | str) -> dict[str, Any]:
    """The content of a pack.json, with the shape that one has. Raises Untrusted, and Mismatch for a newer format."""
    try:
        meta = bounded_json.loads_object(raw, format=int)
        version = meta["format"]
    except ValueError as error:
        raise damaged(path, f"pack.json does not parse: {error}.") from error
    if version > FORMAT:
        raise Mismatch(
            f"{path} has pack format {version}.",
            f"This mien reads formats up to {FORMAT}.",
            "Update mien, or prepare the pack again.",
        )
    if wrong := check_shape(meta):
        raise damaged(path, f"pack.json does not describe a pack: {wrong}.")
    return meta


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A memory map of an .npy. Raises Untrusted where it has another type or shape."""
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    try:
        check_regular(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read: {error}.") from error
    if array.dtype != dtype or array.shape != shape:
        raise damaged(
            path.parent, f"{path.name} holds {array.dtype} {array.shape}, pack.json promises {dtype} {shape}."
        )
    return array  # type: ignore[no-any-return]


def damaged(path: Path | str, why: str) -> Untrusted:
    """The error of a pack whose files do not fit together."""
    return Untrusted(f"The pack {path} is damaged.", why, "Prepare it again, or restore it from a copy.")
