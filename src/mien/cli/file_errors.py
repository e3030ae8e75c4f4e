"""What to do about an error of the file system, for the last line of its message."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mien.downloads.weights import cache_folder


def remedy_of(error: OSError) -> str:
    """The remedy by the error's kind and place: another folder for the cache, another --out, or free space."""
    if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(cache_folder()):
        return "It is in mien's cache: set MIEN_CACHE to a folder that can be written."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space, or choose another place with --out or -o."
    return "Choose another place with --out or -o, or change the permissions of this one."
