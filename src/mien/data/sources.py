"""Open a source: a path is looked at, a specification is opened again by a worker."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mien.data.containers import Container, FileList, Folder, TarContainer, ZipContainer
from mien.data.drawn import DrawnFaces
from mien.data.layouts import recognise
from mien.data.source import Listing, Source
from mien.errors import DataError, did_you_mean

CONTAINERS: dict[str, Callable[[Path], Container]] = {
    "folder": Folder,
    "zip": ZipContainer,
    "tar": TarContainer,
    "list": FileList,
}


class ContainerSource(Source):
    """Images in a container, with the layout that it fits."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.container = kind, CONTAINERS[kind](path)

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.container.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.container.path.name}

    def listing(self) -> Listing:
        return recognise(self.container)

    def read(self, name: str) -> bytes:
        return self.container.read(name)


def open_source(specification: dict[str, Any]) -> Source:
    """The source that a specification describes."""
    arguments = dict(specification)
    kind = arguments.pop("kind")
    if kind == "drawn":
        return DrawnFaces(**arguments)
    return ContainerSource(kind, Path(arguments["path"]))


def find_source(path: Path) -> Source:
    """The source at `path`, recognised by looking. Raises DataError when there is none."""
    if not path.exists():
        near = path.parent.iterdir() if path.parent.is_dir() else ()
        raise DataError(
            f"There is nothing at {path}.", "The path does not exist.", did_you_mean(path.name, (p.name for p in near))
        )
    if path.is_dir():
        return ContainerSource("folder", path)
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        return ContainerSource("zip", path)
    if path.suffix.lower() in (".txt", ".lst", ".list"):
        return ContainerSource("list", path)
    if path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")) or tarfile.is_tarfile(path):
        return ContainerSource("tar", path)
    raise DataError(
        f"{path} is not a source of images.",
        "A source is a folder, a ZIP, a tar, or a text file with one path a line.",
        "Give the folder or archive that holds the images.",
    )
