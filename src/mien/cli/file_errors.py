"""What to do about an error of the file system, for the last line of its message."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mien.downloads.weights import cache_folder
from mien.errors import StorageError


def fault_of(error: Exception) -> StorageError | None:
    """What is said of an error of the file system; None for any other. Python below 3.13 has its own for a loop of links."""
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return StorageError("A link points to itself.", f"{error}.", "Remove it, or let it point to the file.")
    if not isinstance(error, OSError):
        return None
    path = f" at {error.filename}" if error.filename else ""
    return StorageError(f"The file system reports an error{path}.", str(error), remedy_of(error))


def remedy_of(error: OSError) -> str:
    """The remedy by the error's kind and place: another folder for the cache, another --out, or free space."""
    if error.filename and in_cache(Path(os.fsdecode(error.filename))):
        return "It is in mien's cache: set MIEN_CACHE to a folder that can be written."
    if error.errno == errno.ELOOP:
        return "Remove this link: what lies here is never looked for elsewhere."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space, or choose another place with --out or -o."
    return "Choose another place with --out or -o, or change the permissions of this one."


def in_cache(path: Path) -> bool:
    """Whether a path lies in the cache, or is a folder above it that could not be made, such as a home that is not there."""
    cache = cache_folder()
    return path.is_relative_to(cache) or (cache.is_relative_to(path) and not os.path.lexists(path))
