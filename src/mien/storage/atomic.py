"""Atomic writes: a crash at any instant leaves the old file or the new one, never a part of either.

The protocol is the usual one of databases: write to a temporary name, fsync the file, rename it, fsync the directory.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.storage.regular_file import NotRegular

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONG_WRITE = 3600.0  # seconds: no write takes as long, so an older temporary file is abandoned


def create_bytes(path: Path, content: bytes) -> None:
    """Write a file that nobody reads yet, inside a directory that is renamed when it is complete, and fsync it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        fsync(file.fileno())


def fsync(descriptor: int) -> None:
    """Flush a file to the disk itself. macOS needs F_FULLFSYNC, since its fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def fsync_directory(path: Path) -> None:
    """Flush the names in a directory to the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file. On Windows a scanner may hold it for a moment, so retry there for 2.5 s."""
    for attempt in range(25):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == 24:
                raise
            time.sleep(0.1)


def refuse_special(path: Path) -> None:
    """Raises NotRegular for a pipe, a device or a socket: renamed over, /dev/null would be a picture from then on."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise NotRegular(errno.EINVAL, "Not a regular file", str(path))


@contextmanager
def replacing(path: Path, *, durable: bool = True, mend: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block succeeds and removed when it raises.

    Without `durable` nothing is flushed: the file survives a kill, but perhaps not a power failure. That is enough for
    files that carry a checksum and can be made again. A pipe or a device under the name is an error, NotRegular, unless
    `mend` says that it can only be damage, as in a run's directory.
    """
    if not mend:
        refuse_special(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        beside.unlink(missing_ok=True)  # in a folder from elsewhere it could be a link to any file, or a pipe
        yield beside
        if durable:
            with beside.open("rb") as file:
                fsync(file.fileno())
        rename(beside, path)
        if durable:
            fsync_directory(path.parent)
    except OSError as error:
        if error.errno in FULL and error.filename is None:  # a write does not say of which file
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def abandoned(folder: Path) -> Iterator[Path]:
    """Temporary files of `replacing` below `folder` whose process is dead: a kill left them there.

    The caller must not be writing one itself. A file of a process on another machine counts as abandoned if no process
    here has its number.
    """
    for path in folder.rglob(".*.tmp*"):
        written_by = re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)
        if written_by and path.is_file() and not is_busy(path, int(written_by[1])):
            yield path


def is_busy(path: Path, process: int) -> bool:
    """Whether another process of this number may still be writing the file."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # Windows has no signal that only asks
        return time.time() - path.stat().st_mtime < LONG_WRITE
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, or replace it, atomically: on a full disk the old content stays."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, or replace it and whatever else has its name, atomically."""
    with replacing(path, mend=True) as beside:
        beside.write_text(text, encoding="utf-8")
