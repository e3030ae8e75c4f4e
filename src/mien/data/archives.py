"""What holds files: a folder, a ZIP, a tar, a list of paths. Members are read in place; nothing is ever unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mien.data.readers import FileReader, MemberReader, TarReader, UnreadableFile, ZipReader
from mien.data.tar_headers import HeaderFile
from mien.downloads.weights import cache_folder
from mien.errors import Untrusted
from mien.storage.atomic import replacing
from mien.storage.regular_file import open_regular

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
    def reader(self) -> MemberReader:
        """Reads members by their addresses."""

    names_pictures = False  # whether every member is meant as a picture, whatever its name

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises UnreadableFile when they cannot be read."""
        return self.reader.read(self.address(name))

    @property
    def specification(self) -> dict[str, str]:
        """What `open_reader` needs beside the kind."""
        return {"path": str(self.path.absolute())}


def base_name(name: str) -> str:
    """The last part of a name with forward slashes: `posixpath.basename` in a third of the time."""
    return name.rpartition("/")[2]


PICTURE_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")


def is_picture(head: bytes) -> bool:
    """Whether a file begins like a picture."""
    return head.startswith(PICTURE_HEADS) or head[8:12] == b"WEBP" or head[4:12] in (b"ftypavif", b"ftypavis")


def suffix_of(name: str) -> str:
    """The suffix of a name in lower case; empty where there is none, as in `.hidden` or `20170109.142408075`."""
    stem, _, suffix = base_name(name).rpartition(".")
    return f".{suffix.lower()}" if stem.strip(".") and not suffix.isdigit() else ""


def images_in(container: Container, members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """The members that are pictures, and the others: by suffix, or by the first bytes where there is no suffix."""
    images, others = [], []
    for member in members:
        name, suffix = base_name(member.name), suffix_of(member.name)
        known = suffix in IMAGE_SUFFIXES or (not suffix and not name.startswith(".") and begins_like(container, member))
        if container.names_pictures and member.name != container.path.name:
            known = True
        if known and not name.startswith("._") and "__MACOSX/" not in member.name:
            images.append(member)
        else:
            others.append(member)
    return images, others


def begins_like(container: Container, member: Member) -> bool:
    """Whether a member without a suffix is a picture by its first bytes."""
    try:
        return is_picture(container.reader.head(container.address(member.name)))
    except UnreadableFile:
        return False


def count_suffixes(members: Sequence[Member]) -> dict[str, int]:
    """How many files there are of each suffix, or of each name without one."""
    return dict(Counter(suffix_of(member.name) or base_name(member.name) for member in members))


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 (lone surrogates), and signs that a terminal obeys, become `\\xe9`."""
    name = re.sub(r"[\0-\x1f\x7f-\x9f]", lambda sign: f"\\x{ord(sign[0]):02x}", name)
    try:
        name.encode()
    except UnicodeEncodeError:
        try:
            return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return name.encode("utf-8", "backslashreplace").decode()
    return name


class Folder(Container):
    """A directory, with its sub-directories; links to directories are followed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._on_disk: dict[str, str] = {}  # the real name of a file whose name is not UTF-8

    def members(self) -> list[Member]:
        found: list[Member] = []
        visited: set[tuple[int, int]] = set()

        def visit(folder: Path, prefix: str) -> None:
            info = folder.stat()
            if (info.st_dev, info.st_ino) in visited:  # a link back to a folder above
                return
            visited.add((info.st_dev, info.st_ino))
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
        self._on_disk = {text: raw for raw in (member.name for member in found) if (text := printable(raw)) != raw}
        return sorted(member._replace(name=printable(member.name)) for member in found)

    def address(self, name: str) -> str:
        return self._on_disk.get(name, name)

    @cached_property
    def reader(self) -> MemberReader:
        return FileReader(self.path)


class FileList(Container):
    """Files named one by one, relative to `path`'s folder or absolute, and `path` itself, which names them."""

    names_pictures = True

    def __init__(self, path: Path, names: Callable[[Path], Sequence[str]]) -> None:
        self.path, self._names = path, names
        self._on_disk: dict[str, str] = {}

    def members(self) -> list[Member]:
        found = []
        for raw in dict.fromkeys((*self._names(self.path), self.path.name)):
            name = printable(raw)
            if name != raw:
                self._on_disk[name] = raw
            try:
                info = (self.path.parent / raw).stat()
            except (OSError, ValueError):  # a ValueError for a name with a zero byte
                found.append(Member(name, 0, 0))  # refused by name when it is read
            else:
                found.append(Member(name, info.st_size, info.st_mtime_ns))
        return sorted(found)

    def address(self, name: str) -> str:
        return self._on_disk.get(name, name)

    @cached_property
    def reader(self) -> MemberReader:
        return FileReader(self.path.parent)


#: What zipfile raises for a directory that is damaged or lies.
NOT_A_ZIP = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, struct.error),
    *(NotImplementedError, OverflowError, EOFError, IndexError, RuntimeError, MemoryError),
)


class ZipContainer(Container):
    """A ZIP archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _directory(self) -> dict[str, tuple[int, ...]]:
        """Name -> offset of the header, method, packed and unpacked size, checksum, whether encrypted."""
        try:
            with open_regular(self.path) as file, zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
                packed, places = sum(info.compress_size for info in infos), {info.header_offset for info in infos}
                if packed > os.fstat(file.fileno()).st_size or len(places) < len(infos):
                    raise zipfile.BadZipFile("Several of its members lie in the same place: they overlap")
                return {
                    printable(info.filename): (
                        *(info.header_offset, info.compress_type, info.compress_size, info.file_size),
                        *(info.CRC, info.flag_bits & 1),
                    )
                    for info in infos
                    if not info.is_dir()
                }
        except NOT_A_ZIP as error:
            raise Untrusted(
                f"{self.path} is not a readable ZIP.",
                f"{error or type(error).__name__}. {begins_with(self.path)}",
                "Download or pack it again.",
            ) from error

    def members(self) -> list[Member]:
        return sorted(Member(name, place[3], place[4]) for name, place in self._directory.items())

    def address(self, name: str) -> str:
        offset, method, packed_size, size, checksum, encrypted = self._directory[name]
        return f"{offset} {method} {packed_size} {size} {checksum} {encrypted}"

    @cached_property
    def reader(self) -> MemberReader:
        return ZipReader(self.path)


class TarContainer(Container):
    """A tar archive; a compressed one, which cannot be read at random, is decompressed into the cache once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _plain(self) -> Path:
        try:
            with open_regular(self.path) as file:
                head = file.read(6)
        except OSError as error:
            raise Untrusted(f"{self.path} cannot be read.", f"{error}.", "Give the tar itself.") from error
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
    def _members(self) -> dict[str, tuple[int, int, int]]:
        """Name -> offset of the data, size, time."""
        try:
            found = {}
            with HeaderFile(self._plain) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                while info := archive.next():
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte for each
                    if info.isreg():
                        place = (info.offset_data, info.size, int(info.mtime))
                        found[printable(info.name.removeprefix("./"))] = place
            return found
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError) as error:
            raise Untrusted(
                f"{self.path} is not a readable tar.",
                f"{error}. {begins_with(self.path)}",
                "Download or pack it again.",
            ) from error

    def members(self) -> list[Member]:
        return sorted(Member(name, size, time) for name, (_, size, time) in self._members.items())

    def address(self, name: str) -> str:
        offset, size, _ = self._members[name]
        return f"{offset} {size}"

    @cached_property
    def reader(self) -> MemberReader:
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


def begins_with(path: Path) -> str:
    """What a file that is no archive looks like, in a sentence; empty where nothing is known."""
    try:
        with open_regular(path) as file:
            head = file.read(512).lstrip()
    except OSError:
        return ""
    looks = {
        (b"<!", b"<html", b"<HTML"): "It begins like a web page: the download gave a page instead.",
        (b"Rar!",): "It begins like a RAR archive: unpack it.",
        (b"7z\xbc\xaf'\x1c",): "It begins like a 7z archive: unpack it.",
        (b"\x28\xb5\x2f\xfd",): "It begins like Zstandard: unpack it.",
        (b"version https://git-lfs",): "It is a pointer of Git LFS: fetch the file itself with `git lfs pull`.",
    }
    return next((words for heads, words in looks.items() if head.startswith(heads)), "")
