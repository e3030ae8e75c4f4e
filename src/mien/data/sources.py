"""Open a source: a path is looked at, a specification is opened again by a worker."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mien.data import tables
from mien.data.archives import Container, FileList, Folder, TarContainer, ZipContainer, lines
from mien.data.layouts import LAYOUTS, View, recognise, table
from mien.data.pack import Pack, is_pack
from mien.data.parquet import Columnar
from mien.data.source import Listing, Source
from mien.data.stylegan import to_png
from mien.data.synthetic import SyntheticFaces
from mien.errors import DataError, did_you_mean

Layout = Callable[[View], Listing | None]

CONTAINERS: dict[str, tuple[Callable[[Path], Container], Sequence[Layout]]] = {
    "folder": (Folder, LAYOUTS),
    "zip": (ZipContainer, LAYOUTS),
    "tar": (TarContainer, LAYOUTS),
    "list": (lambda path: FileList(path, lines), LAYOUTS),
    "table": (lambda path: FileList(path, tables.files_in), (table,)),
}
SUFFIXES = {".txt": "list", ".lst": "list", ".list": "list", ".csv": "table", ".tsv": "table", ".parquet": "parquet"}


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
        return {"kind": self.kind, "name": self.container.path.resolve().name}

    def listing(self) -> Listing:
        return recognise(self.container, self.layouts)

    def address(self, name: str) -> str:
        return self.container.address(name)

    def read(self, address: str) -> bytes:
        return self.container.reader.read(address)


class PackSource(Source):
    """A pack, to make another from: other labels, some of its images, another side."""

    def __init__(self, path: Path) -> None:
        self.pack = Pack.open(path)

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": "pack", "path": str(self.pack.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "pack", "name": self.pack.path.resolve().name, "fingerprint": self.pack.fingerprint}

    def listing(self) -> Listing:
        entries = self.pack.entries
        return Listing(
            layout="pack",
            names=[entry.source for entry in entries],
            label_names=self.pack.label_names,
            labels=self.pack.labels,
            scales={name: (low, high) for name, (low, high) in self.pack.meta.get("label_scales", {}).items()},
            groups=[entry.group for entry in entries] if any(entry.group for entry in entries) else None,
            parts=[entry.split for entry in entries],
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
    path = Path(arguments["path"])
    if kind == "pack":
        return PackSource(path)
    if kind in ("parquet", "datasets"):
        return Columnar(kind, path)
    return ContainerSource(kind, path)


def find_source(path: Path) -> Source:
    """The source at `path`, recognised by looking. Raises DataError when there is none."""
    return open_source({"kind": kind_of(path), "path": str(path)})


def kind_of(path: Path) -> str:
    """What lies at `path`, as the `kind` of a specification."""
    if not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        remedy = did_you_mean(path.name, near) if len(near) < 100 else "Check the spelling."
        raise DataError(f"There is nothing at {path}.", "The path does not exist.", remedy)
    suffix = path.suffix.lower()
    if path.is_dir():
        saved = (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()
        return "pack" if is_pack(path) else "datasets" if saved else "folder"
    if not path.is_file():
        raise DataError(
            f"{path} is neither a file nor a folder.", "It cannot hold images.", "Give a folder or an archive."
        )
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix == ".zip" or zipfile.is_zipfile(path):
        return "zip"
    if path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")) or is_tar(path):
        return "tar"
    raise DataError(
        f"{path} is not a source of images.",
        "A source is a folder, a ZIP, a tar, a list of files, a CSV or Parquet table, or a pack.",
        "Give the folder or archive that holds the images.",
    )


def is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return tarfile.is_tarfile(io.BytesIO(file.read(1 << 16)))
