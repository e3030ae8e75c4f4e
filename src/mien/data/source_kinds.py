"""Open a source: a path is looked at, a specification is opened again by a worker."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mien.data.archives import (
    IMAGE_SUFFIXES,
    Container,
    FileList,
    Folder,
    TarContainer,
    ZipContainer,
    begins_with,
    printable,
    suffix_of,
)
from mien.data.arrays import ArraySource
from mien.data.arrow import image_columns, import_pyarrow
from mien.data.file_lists import names_in_list, names_in_table
from mien.data.layouts import LAYOUTS, Layout, recognise
from mien.data.open_pack import open_pack
from mien.data.pack import is_pack
from mien.data.parquet import ParquetSource
from mien.data.source import Listing, Source
from mien.data.stylegan import to_png
from mien.data.synthetic import SyntheticFaces
from mien.data.unread_formats import CONVERT
from mien.data.webdataset import ShardFolder, webdataset
from mien.downloads.remote import is_remote
from mien.errors import DataError, did_you_mean

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
CONTAINERS: dict[str, tuple[Callable[[Path], Container], Sequence[Layout]]] = {
    "folder": (Folder, LAYOUTS),
    "zip": (ZipContainer, LAYOUTS),
    "tar": (TarContainer, LAYOUTS),
    "webdataset": (lambda path: ShardFolder(path, TAR_SUFFIXES), (webdataset,)),
    "list": (lambda path: FileList(path, names_in_list), LAYOUTS),
    "table": (lambda path: FileList(path, names_in_table), ()),
}
SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".tab"), "table"),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".hdf"), "arrays"),
    ".jsonl": "table",
    ".ndjson": "table",
    ".tab": "table",
    ".txt": "list",
    ".lst": "list",
    ".list": "list",
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "parquet",
}


class ContainerSource(Source):
    """Images in a container, with the layout that it fits."""

    def __init__(self, kind: str, path: Path) -> None:
        make, self.layouts = CONTAINERS[kind]
        self.kind, self.container = kind, make(path)

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.container.specification}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": printable(self.container.path.resolve().name)}

    def listing(self) -> Listing:
        return recognise(self.container, self.layouts)

    def address(self, name: str) -> str:
        return self.container.address(name)

    def read(self, address: str) -> bytes:
        return self.container.reader.read(address)


class PackSource(Source):
    """A pack, to make another from: other labels, some of its images, another side."""

    def __init__(self, path: Path | str) -> None:
        self.pack = open_pack(path)

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": "pack", "path": self.pack.address or str(self.pack.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "pack", "name": self.pack.name, "fingerprint": self.pack.fingerprint}

    def listing(self) -> Listing:
        entries = self.pack.entries
        return Listing(
            layout="pack",
            names=[entry.source for entry in entries],
            label_names=self.pack.label_names,
            labels=self.pack.labels,
            scales={name: (low, high) for name, (low, high) in self.pack.meta.get("label_scales", {}).items()},
            groups=[entry.group for entry in entries] if any(entry.group for entry in entries) else None,
            splits=[entry.split for entry in entries],
            side=self.pack.side,
            stamp=self.pack.fingerprint,
        )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {entry.source: row for row, entry in enumerate(self.pack.entries)}

    def address(self, name: str) -> str:
        return str(self._rows[name])

    def read(self, address: str) -> bytes:
        return to_png(self.pack, int(address))


def open_source(specification: dict[str, Any]) -> Source:
    """The source that a specification describes."""
    arguments = dict(specification)
    kind = arguments.pop("kind")
    if kind == "drawn":
        return SyntheticFaces(**arguments)
    if kind == "pack":
        return PackSource(arguments["path"])
    path = Path(arguments["path"])
    if kind == "arrays":
        return ArraySource(path)
    if kind in ("parquet", "datasets"):
        return ParquetSource(kind, path)
    return ContainerSource(kind, path)


def find_source(path: Path | str) -> Source:
    """The source at `path`, recognised by its files, or the pack at an address. Raises DataError when there is none."""
    if is_remote(path):
        return PackSource(path)
    path = Path(path)
    return open_source({"kind": kind_of(path), "path": str(path)})


def kind_of(path: Path) -> str:
    """What lies at `path`, as the `kind` of a specification."""
    if not path.exists():
        missing = path  # the first part of it that is not there
        while missing.parent != missing and not missing.parent.exists():  # a drive of Windows has itself above it
            missing = missing.parent
        home = missing.parent
        near = [other.name for other in home.iterdir() if not other.name.startswith(".")] if home.is_dir() else []
        where = "This folder" if str(home) == "." else str(home)
        remedy = did_you_mean(missing.name, near) if 0 < len(near) < 100 else "Check the path."
        raise DataError(f"There is nothing at {path}.", f"{where} has no `{missing.name}`.", remedy)
    if path.is_dir():
        return kind_of_folder(path)
    if not path.is_file():
        raise DataError(
            f"{path} is neither a file nor a folder.", "It cannot hold images.", "Give a folder or an archive."
        )
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if zipfile.is_zipfile(path):
        return "zip"
    if path.name.lower().endswith(TAR_SUFFIXES) or is_tar(path):
        return "tar"
    if suffix == ".zip":
        return "zip"
    raise DataError(
        f"{path} is not a source of images.",
        CONVERT.get(suffix)
        or begins_with(path)
        or "A source is a folder, a ZIP, a tar, a list of files, a table, or a pack.",
        "Give the folder or archive that holds the images.",
    )


def kind_of_folder(path: Path) -> str:
    """Whether a folder is a pack, a saved data set, Parquet files of images, WebDataset shards, or just holds files."""
    if is_pack(path):
        return "pack"
    if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")) and any(
        path.rglob("*.arrow")
    ):
        return "datasets"
    tables = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        tables += [Path(folder, name) for name in files if name.lower().endswith(".parquet")]
        if any(suffix_of(name) in IMAGE_SUFFIXES for name in files):
            holds = find_spec("pyarrow") is not None and any(map(holds_images, tables[:1]))
            return "parquet" if holds else "folder"
    if not tables and ShardFolder(path, TAR_SUFFIXES).shards:
        return "webdataset"
    return "parquet" if tables else "folder"


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images."""
    pyarrow = import_pyarrow(str(path))
    try:
        return path.is_file() and bool(image_columns(pyarrow.parquet.read_schema(path)))
    except (pyarrow.ArrowException, OSError, ValueError):
        return False


def is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return tarfile.is_tarfile(io.BytesIO(file.read(1 << 16)))
