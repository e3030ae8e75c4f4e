"""What holds files: a folder, a ZIP, a tar, a list of paths. Members are read in place; nothing is ever unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mien.data.readers import FileReader, Reader, TarReader, ZipReader
from mien.downloads.weights import cache_folder
from mien.errors import Untrusted
from mien.storage.atomic import replacing

PHOTOGRAPHS = "jpg jpeg jpe jfif png apng webp bmp dib gif tif tiff ppm pgm pbm pnm avif jp2 j2k"
NOT_READ = (
    "heic heif jxl svg eps fits fit psd raw dng cr2 nef arw"  # listed, so that they are refused and not overlooked
)
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in (*PHOTOGRAPHS.split(), *NOT_READ.split()))


OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
MOST_INFLATION = 100  # times its size that a compressed tar may grow to; photographs hardly shrink


class Member(NamedTuple):
    """One file, without its bytes."""

    name: str  # with forward slashes, relative to the container
    size: int  # bytes
    stamp: int  # changes when the file does: modification time or checksum


class Container(ABC):
    """A set of named files that can be listed and read."""

    path: Path

    @abstractmethod
    def members(self) -> list[Member]:
        """Every file, sorted by name."""

    @abstractmethod
    def address(self, name: str) -> str:
        """What its reader takes for a member: where it lies, for a process that has not listed the container."""

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """Reads members by their addresses."""

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises Refused when they cannot be had."""
        return self.reader.read(self.address(name))

    @property
    def specification(self) -> dict[str, str]:
        """What `open_reader` needs beside the kind."""
        return {"path": str(self.path.absolute())}


def base_name(name: str) -> str:
    """The last part of a name with forward slashes: `posixpath.basename` in a third of the time."""
    return name.rpartition("/")[2]


def images_in(members: list[Member]) -> tuple[list[Member], dict[str, int]]:
    """The members named like images, and how many others there are by suffix."""
    images, others = [], Counter[str]()
    for member in members:
        name = base_name(member.name)
        stem, _, suffix = name.rpartition(".")
        suffix = f".{suffix.lower()}" if stem.strip(".") else ""  # a name may begin with dots
        if suffix in IMAGE_SUFFIXES and not name.startswith("._") and "__MACOSX/" not in member.name:
            images.append(member)
        else:
            others[suffix or name] += 1
    return images, dict(others)


class Folder(Container):
    """A directory, with its sub-directories; links to directories are followed once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> list[Member]:
        found: list[Member] = []
        seen: set[tuple[int, int]] = set()

        def visit(folder: Path, prefix: str) -> None:
            info = folder.stat()
            if (info.st_dev, info.st_ino) in seen:  # a link back to a folder above
                return
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        is_folder = entry.is_dir()
                    except OSError:  # a loop of links
                        is_folder = False
                    if is_folder and not is_pack_or_hidden(entry):
                        visit(Path(entry.path), f"{prefix}{entry.name}/")
                    elif not is_folder:
                        found.append(describe(entry, prefix))

        visit(self.path, "")
        return sorted(found)

    def address(self, name: str) -> str:
        return name

    @cached_property
    def reader(self) -> Reader:
        return FileReader(self.path)


class FileList(Container):
    """Files named one by one, relative to `path`'s folder or absolute, and `path` itself, which names them."""

    def __init__(self, path: Path, names: Callable[[Path], Sequence[str]]) -> None:
        self.path, self._names = path, names

    def members(self) -> list[Member]:
        found = []
        for name in dict.fromkeys((*self._names(self.path), self.path.name)):
            try:
                info = (self.path.parent / name).stat()
            except OSError:
                found.append(Member(name, 0, 0))  # refused by name when it is read
            else:
                found.append(Member(name, info.st_size, info.st_mtime_ns))
        return sorted(found)

    def address(self, name: str) -> str:
        return name

    @cached_property
    def reader(self) -> Reader:
        return FileReader(self.path.parent)


def lines(path: Path) -> list[str]:
    """The names in a text file: one a line; `#` begins a comment."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


class ZipContainer(Container):
    """A ZIP archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _directory(self) -> dict[str, tuple[int, ...]]:
        """Name -> offset of the header, method, packed and unpacked size, checksum, whether encrypted."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {
                    info.filename: (
                        info.header_offset,
                        info.compress_type,
                        info.compress_size,
                        info.file_size,
                        info.CRC,
                        info.flag_bits & 1,
                    )
                    for info in archive.infolist()
                    if not info.is_dir()
                }
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise Untrusted(f"{self.path} is not a readable ZIP.", str(error), "Download or pack it again.") from error

    def members(self) -> list[Member]:
        return sorted(Member(name, place[3], place[4]) for name, place in self._directory.items())

    def address(self, name: str) -> str:
        offset, method, packed_size, size, checksum, encrypted = self._directory[name]
        return f"{offset} {method} {packed_size} {size} {checksum} {encrypted}"

    @cached_property
    def reader(self) -> Reader:
        return ZipReader(self.path)


class TarContainer(Container):
    """A tar archive; a compressed one, which cannot be read at random, is decompressed into the cache once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _plain(self) -> Path:
        with self.path.open("rb") as file:
            head = file.read(6)
        opener = next((OPENERS[magic] for magic in OPENERS if head.startswith(magic)), None)
        if opener is None:
            return self.path
        info = self.path.stat()
        plain = cache_folder() / "tars" / f"{self.path.stem}-{info.st_size}-{info.st_mtime_ns}.tar"
        if not plain.exists():
            plain.parent.mkdir(parents=True, exist_ok=True)
            with replacing(plain) as temporary, opener(self.path, "rb") as packed, temporary.open("wb") as file:
                while block := packed.read(1 << 22):
                    file.write(block)
                    if file.tell() > MOST_INFLATION * max(info.st_size, 1 << 20):
                        raise Untrusted(
                            f"{self.path} is a bomb.", f"It inflates over {MOST_INFLATION} times.", "Do not use it."
                        )
        return plain

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            with tarfile.open(self._plain, "r:") as archive:
                return {info.name.removeprefix("./"): info for info in archive if info.isreg()}
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise Untrusted(f"{self.path} is not a readable tar.", str(error), "Download or pack it again.") from error

    def members(self) -> list[Member]:
        return sorted(Member(name, info.size, int(info.mtime)) for name, info in self._members.items())

    def address(self, name: str) -> str:
        info = self._members[name]
        return f"{info.offset_data} {info.size}"

    @cached_property
    def reader(self) -> Reader:
        return TarReader(self._plain)

    @property
    def specification(self) -> dict[str, str]:
        return {**super().specification, "plain": str(self._plain.absolute())}


def describe(entry: os.DirEntry[str], prefix: str) -> Member:
    try:
        info = entry.stat()
        return Member(f"{prefix}{entry.name}", info.st_size, info.st_mtime_ns)
    except OSError:  # a broken link or a loop: refused by name when it is read
        return Member(f"{prefix}{entry.name}", 0, 0)


def is_pack_or_hidden(entry: os.DirEntry[str]) -> bool:
    """Folders that hold no photographs: hidden ones (half-made packs, version control) and packs."""
    return entry.name.startswith(".") or (Path(entry.path) / "pack.json").is_file()
