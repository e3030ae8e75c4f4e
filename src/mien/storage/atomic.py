"""Writing so that a crash at any instant leaves the old file or the new one, never a piece.

Protocol of SQLite's and the checkpoint managers' kind: write beside, flush to the disk, rename, flush the directory.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONG_WRITE = 3600.0  # seconds that no file takes to be written


def write_bytes(path: Path, content: bytes) -> None:
    """Write a new file and force it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        force(file.fileno())


def force(descriptor: int) -> None:
    """Flush a file through to the platter. macOS needs F_FULLFSYNC, since its fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def force_directory(path: Path) -> None:
    """Make the names in a directory durable. Windows has no such call, and needs none."""
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


@contextmanager
def replacing(path: Path, *, forced: bool = True) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends well and removed when it does not.

    Not `forced`: whole after a kill, but perhaps not after a power cut, for what can be told by a checksum and made again.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield beside
        if forced:
            with beside.open("rb") as file:
                force(file.fileno())
        rename(beside, path)
        if forced:
            force_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def abandoned(folder: Path) -> Iterator[Path]:
    """Temporary names of `replacing` below `folder` that nobody will rename any more: a kill left them there.

    The caller writes none at this moment. Those of other living processes are theirs; on another machine's word nothing is
    known, so a number that is free here counts as dead.
    """
    for path in folder.rglob(".*.tmp*"):
        written_by = re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)
        if written_by and path.is_file() and not is_busy(path, int(written_by[1])):
            yield path


def is_busy(path: Path, process: int) -> bool:
    """Whether another process of this number may still be writing the file."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # there is no harmless signal
        return time.time() - path.stat().st_mtime < LONG_WRITE
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def replace_text(path: Path, text: str) -> None:
    """Replace a small text file whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
