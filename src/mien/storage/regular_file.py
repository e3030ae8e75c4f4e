"""Opens regular files only: a FIFO, a device or a socket where a file is expected is an error instead of an endless wait.

A run directory may come from anybody. A link in it could name any file of the machine, to be published or appended to, so
what is handed out or appended to is no link either.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


class NotRegular(OSError):
    """A FIFO, a device, a socket or a directory."""


NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, open for reading. Raises OSError, NotRegular for what is no such file."""
    return os.fdopen(_descriptor(path, os.O_RDONLY), "rb")


def read_own(path: Path, most: int) -> bytes:
    """A file of at most `most` bytes that is no link. Raises OSError, NotRegular for a link, a larger file or no file."""
    with os.fdopen(_descriptor(path, os.O_RDONLY | NO_LINK), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise NotRegular(errno.EFBIG, f"Over {most:,} bytes", str(path))
    return content


def append_text(path: Path, text: str) -> None:
    """Append lines to a regular file that is no link, made where it is missing. Raises OSError, NotRegular for another.

    A last line that a kill or a full disk has cut off is ended first: joined to it, the next one would be lost too.
    """
    with os.fdopen(_descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINK), "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else f"\n{text}"
        file.write(text.encode())


def _descriptor(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | NO_WAIT, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def check_regular(path: Path) -> None:
    """Raises OSError for what is no regular file, for readers that open a path themselves."""
    open_regular(path).close()
