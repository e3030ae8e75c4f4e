"""Open a pack, here or on a server."""

from __future__ import annotations

from pathlib import Path

from mien.data.pack import Pack
from mien.downloads.remote import is_remote


def open_pack(source: str | Path) -> Pack:
    """The pack at a path, or at an address such as `https://HOST/faces.pack`."""
    if not is_remote(source):
        return Pack.open(source)
    from mien.data.remote_pack import open_remote  # only here: workers of a preparation start in an instant

    return open_remote(str(source))
