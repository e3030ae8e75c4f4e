"""Reading one file's bytes at its address: all that a worker needs of a source. Loads in an instant, without numpy."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from mien.storage.regular_file import open_regular

MAX_BYTES = 100_000_000  # of one file; above it, no photograph
STORED, DEFLATED = 0, 8  # the methods of a ZIP that are read
HEAD_BYTES = 32


class UnreadableFile(Exception):
    """Why one image cannot be used. Counted and named, never fatal."""


class Reader(Protocol):
    """Reads the bytes of one file."""

    def read(self, address: str) -> bytes:
        """The bytes at `address`. Raises UnreadableFile when they cannot be read or are too many for a photograph."""


class FileReader:
    """Files below a folder, or anywhere: an address is a path, relative to the folder or absolute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, address: str) -> bytes:
        return read_file(self.folder / address)

    def head(self, address: str) -> bytes:
        """The first HEAD_BYTES at most: enough to recognise a format. Raises UnreadableFile."""
        path = self.folder / address
        check_regular(path)
        try:
            with open_regular(path) as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            raise UnreadableFile(f"unreadable: {error.strerror}") from error


class ZipReader:
    """Members of a ZIP: an address is what the archive's directory says of one.

    So that workers need not parse the directory: with many members that takes long, and more memory than everything else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _file(self) -> BinaryIO:
        return open_regular(self.path)

    def read(self, address: str) -> bytes:
        """`address` is the header's offset, the method, packed and unpacked size, checksum, whether encrypted."""
        offset, method, packed_size, size, checksum, encrypted = map(int, address.split())
        if encrypted:
            raise UnreadableFile("encrypted in the archive")
        check_size(max(size, packed_size))
        data = self._inflate(offset, method, packed_size, size)
        if len(data) != size or zlib.crc32(data) != checksum:
            raise UnreadableFile("damaged in the archive: its checksum differs")
        return data

    def head(self, address: str) -> bytes:
        offset, method, packed_size, _, _, encrypted = map(int, address.split())
        return b"" if encrypted else self._inflate(offset, method, min(packed_size, 4096), HEAD_BYTES)

    def _inflate(self, offset: int, method: int, packed_size: int, most: int) -> bytes:
        """The first bytes of a member; one more than `most` when a deflated member has more."""
        self._file.seek(offset)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise UnreadableFile("damaged in the archive: no header where the directory says")
        self._file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        data = self._file.read(packed_size)
        if method == DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most + 1)
            except zlib.error as error:
                raise UnreadableFile(f"damaged in the archive: {error}") from error
        elif method != STORED:
            raise UnreadableFile(f"packed by method {method}, which is not read: only stored and deflated are")
        return data


class TarReader:
    """Members of a plain tar: an address is the offset and the size of the data."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _file(self) -> BinaryIO:
        return open_regular(self.path)

    def read(self, address: str) -> bytes:
        offset, size = map(int, address.split())
        check_size(size)
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise UnreadableFile("cut off in the archive")
        return data

    def head(self, address: str) -> bytes:
        offset, size = map(int, address.split())
        self._file.seek(offset)
        return self._file.read(min(size, HEAD_BYTES))


class MemberReader(Reader, Protocol):
    """Reads members of a container, and their beginnings."""

    def head(self, address: str) -> bytes:
        """The first HEAD_BYTES at most: enough to recognise a format. Raises UnreadableFile."""


def check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableFile(f"larger than {MAX_BYTES // 1_000_000} MB")
    if size == 0:
        raise UnreadableFile("empty")


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Never opens anything else, because a pipe would block."""
    check_size(check_regular(path))
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise UnreadableFile(f"unreadable: {error.strerror}") from error


def check_regular(path: Path) -> int:
    """The size of a regular file. Raises UnreadableFile for anything else."""
    try:
        info = path.stat()
    except FileNotFoundError:
        raise UnreadableFile("a broken link" if path.is_symlink() else "missing") from None
    except OSError as error:
        reason = "a loop of links" if error.errno == errno.ELOOP else f"unreadable: {error.strerror}"
        raise UnreadableFile(reason) from error
    if not stat.S_ISREG(info.st_mode):
        raise UnreadableFile("not a regular file")
    return info.st_size
