"""What holds files: a folder, a ZIP, a tar, a list of paths. Members are read in place; nothing is ever unpacked."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mien.data.weights import cache_folder
from mien.durable import replacing
from mien.errors import Untrusted

MAX_BYTES = 100_000_000  # of one file; above it, no photograph
PHOTOGRAPHS = "jpg jpeg jpe jfif png apng webp bmp dib gif tif tiff ppm pgm pbm pnm avif jp2 j2k"
NOT_READ = (
    "heic heif jxl svg eps fits fit psd raw dng cr2 nef arw"  # listed, so that they are refused and not overlooked
)
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in (*PHOTOGRAPHS.split(), *NOT_READ.split()))


OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
MOST_INFLATION = 100  # times its size that a compressed tar may grow to; photographs hardly shrink


class Refused(Exception):
    """Why one image cannot be used. Counted and named, never fatal."""


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
        """What `read` takes for a member: where it lies, for a process that has not listed the container."""

    @abstractmethod
    def read(self, address: str) -> bytes:
        """One file's bytes. Raises Refused when it cannot be read or is too large to be a photograph."""


def images_in(members: list[Member]) -> tuple[list[Member], dict[str, int]]:
    """The members named like images, and how many others there are by suffix."""
    images, others = [], Counter[str]()
    for member in members:
        name = posixpath.basename(member.name)
        suffix = posixpath.splitext(name)[1].lower()
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

    def read(self, address: str) -> bytes:
        return read_file(self.path / address)


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

    def read(self, address: str) -> bytes:
        return read_file(self.path.parent / address)


def lines(path: Path) -> list[str]:
    """The names in a text file: one a line; `#` begins a comment."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


class ZipContainer(Container):
    """A ZIP archive.

    An address holds what it takes to read a member, so that workers need not parse the archive's directory: with many
    members that takes long, and more memory than everything else.
    """

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
        return " ".join(map(str, self._directory[name]))

    @cached_property
    def _file(self) -> BinaryIO:
        return self.path.open("rb")

    def read(self, address: str) -> bytes:
        offset, method, packed_size, size, checksum, encrypted = map(int, address.split())
        if encrypted:
            raise Refused("encrypted in the archive")
        check_size(max(size, packed_size))
        self._file.seek(offset)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise Refused("damaged in the archive: no header where the directory says")
        self._file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        data = self._file.read(packed_size)
        if method == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise Refused(f"damaged in the archive: {error}") from error
        elif method != zipfile.ZIP_STORED:
            raise Refused(f"packed by method {method}, which is not read: only stored and deflated are")
        if len(data) != size or zlib.crc32(data) != checksum:
            raise Refused("damaged in the archive: its checksum differs")
        return data


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

    def read(self, address: str) -> bytes:
        offset, size = map(int, address.split())
        check_size(size)
        with self._plain.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise Refused("cut off in the archive")
        return data


def check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Refused(f"larger than {MAX_BYTES // 1_000_000} MB")
    if size == 0:
        raise Refused("empty")


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Never opens anything else, because a pipe would block."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise Refused("not a regular file")
        check_size(info.st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise Refused("a broken link" if path.is_symlink() else "missing") from None
    except OSError as error:
        reason = "a loop of links" if error.errno == errno.ELOOP else f"unreadable: {error.strerror}"
        raise Refused(reason) from error


def describe(entry: os.DirEntry[str], prefix: str) -> Member:
    try:
        info = entry.stat()
        return Member(f"{prefix}{entry.name}", info.st_size, info.st_mtime_ns)
    except OSError:  # a broken link or a loop: refused by name when it is read
        return Member(f"{prefix}{entry.name}", 0, 0)


def is_pack_or_hidden(entry: os.DirEntry[str]) -> bool:
    """Folders that hold no photographs: hidden ones (half-made packs, version control) and packs."""
    return entry.name.startswith(".") or (Path(entry.path) / "pack.json").is_file()
