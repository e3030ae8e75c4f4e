"""Opens regular files only: a FIFO, a device or a socket where a file is expected is an error instead of an endless wait."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


class NotRegular(OSError):
    """A FIFO, a device, a socket or a directory."""


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, open for reading. Raises OSError, NotRegular for what is no such file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path) -> None:
    """Raises OSError for what is no regular file, for readers that open a path themselves."""
    open_regular(path).close()
