"""Packs on a server, read in place: the small files are kept in the cache, the images are fetched as they are needed."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from mien.data.growing_array import hash_file
from mien.data.pack import Pack, damaged, map_array, parse_meta
from mien.data.pack_shape import BLOCKS
from mien.data.remote_rows import SUM_BYTES, RemoteRows
from mien.downloads.remote import RemoteFolder
from mien.downloads.weights import cache_folder
from mien.errors import DataError, Mismatch, UsageError
from mien.storage import atomic, bounded_json

try:
    import fcntl
except ImportError:  # Windows, which removes no open file
    fcntl = None  # type: ignore[assignment]

CACHE_GB = 20.0  # that remote packs take on this machine's disk, unless MIEN_CACHE_GB says otherwise
MAX_BLOCK = 1 << 26  # bytes: an image of 4096 px
MAX_HEADER = 1 << 14  # bytes of an .npy before its first row
ATTEMPTS = 3  # at a file that arrives damaged
PIECE = 1 << 20  # bytes that are read of a file at a time
CACHED = "images.cache"


def open_remote(address: str) -> Pack:
    """The pack at `https://`, `s3://` or `hf://`. Its pack.json is read anew each time; images are checked as they come.

    Raises DataError where it cannot be read, Untrusted for a damaged one, Mismatch for one without sums of its blocks.
    """
    remote, most = RemoteFolder.of(address), cache_bytes()
    raw = remote.read_all("pack.json", bounded_json.MAX_BYTES)
    meta = parse_meta(raw, address)
    blocks, sizes = meta.get("blocks"), meta.get("bytes", {})
    if blocks is None or sizes.keys() != {*meta.get("sha256", {}), BLOCKS}:
        raise Mismatch(
            f"{address} cannot be read in place.",
            "It was prepared before packs had sums of their blocks.",
            "Make it again: mien data prepare OLD.pack NEW.pack",
        )
    count, side, names = meta["count"], meta["side"], tuple(meta["label_names"])
    row_bytes, rows = 3 * side**2, blocks["rows"]
    if not (rows > 0 and 0 < rows * row_bytes <= MAX_BLOCK and sizes[BLOCKS] == SUM_BYTES * -(-count // rows)):
        raise damaged(address, "The blocks of pack.json do not fit its images.")
    offset = sizes["images.npy"] - count * row_bytes  # the rows end the file; they are checked by their sums
    if not 0 < offset <= MAX_HEADER:
        raise damaged(address, "images.npy has another size than its images have.")
    kept = [name for name in sizes if name != "images.npy"]
    if (total := sum(sizes[name] for name in kept)) > most:
        raise DataError(
            f"{address} does not fit the cache.",
            f"Its labels and index have {total / 1e9:.1f} GB, and the cache has {most / 1e9:.1f}.",
            "Set MIEN_CACHE_GB to more.",
        )
    key = hashlib.sha256(f"{address} {blocks['sha256']} {meta['fingerprint']}".encode()).hexdigest()[:16]
    folder = cache_folder() / "remote" / f"{key}.pack"
    cache = in_use(folder / CACHED)
    taken = make_room(folder, most, total + sizes["images.npy"])
    for name in kept:
        keep(remote, name, sizes[name], blocks["sha256"] if name == BLOCKS else meta["sha256"][name], folder / name)
    sums = (folder / BLOCKS).read_bytes()
    images = RemoteRows(remote, offset, (count, side, side, 3), rows, sums, cache, max(0, most - total - taken))
    labels = map_array(folder / "labels.npy", np.dtype(np.float32), (count, len(names))) if names else None
    return Pack(folder, images, labels, names, side, meta["fingerprint"], meta, remote.address)


def cache_bytes() -> int:
    """The most that remote packs take on this machine's disk: MIEN_CACHE_GB, in GB."""
    text = os.environ.get("MIEN_CACHE_GB", str(CACHE_GB))
    try:
        found = float(text)
        if not 0 <= found < 1e9:
            raise ValueError
    except ValueError:
        raise UsageError(f"MIEN_CACHE_GB is {text}.", "It must be a number of GB.", "Set it to 20.") from None
    return int(found * 1e9)


def keep(remote: RemoteFolder, name: str, size: int, sha256: str, path: Path) -> None:
    """Fetch a file into the cache, unless it is there, and check it. Raises Untrusted for other bytes."""
    if path.is_file() and path.stat().st_size == size and has_sum(path, sha256):
        return
    for _ in range(ATTEMPTS):
        with atomic.replacing(path) as beside:
            with beside.open("wb") as file:
                for start in range(0, size, PIECE):
                    file.write(remote.read(name, start, min(PIECE, size - start)))
            right = has_sum(beside, sha256)
        if right:
            return
    path.unlink()
    raise damaged(remote.address, f"{name} is not what was written: its SHA-256 differs.")


def has_sum(path: Path, sha256: str) -> bool:
    """Whether a file's content has this SHA-256; what is no .npy has none."""
    try:
        return hash_file(path) == sha256
    except ValueError:
        return False


def in_use(path: Path) -> IO[bytes]:
    """The file of a pack's images in the cache, open. Until it is closed no other process removes the pack's folder."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process has just removed the folder
            path.touch()
            file = path.open("r+b", buffering=0)
            if fcntl:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_SH)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
            file.close()


def make_room(folder: Path, most: int, needed: int) -> int:
    """Remove the remote packs that were not used for the longest time, until the others and this one fit.

    Returns the bytes that those take, or will take, which other processes read and which therefore stay.
    """
    os.utime(folder)
    others = [other for other in folder.parent.iterdir() if other != folder and other.is_dir()]
    taken = {other: sum(on_disk(path) for path in other.iterdir()) for other in others}
    left, stays = most - min(most, needed), 0
    for other in sorted(taken, key=lambda path: path.stat().st_mtime, reverse=True):
        left -= taken[other]
        if left < 0 and not removed(other):
            stays += sum(path.stat().st_size for path in other.iterdir())
    return stays


def removed(folder: Path) -> bool:
    """Remove a pack from the cache, unless a process reads it."""
    with suppress(FileNotFoundError), (folder / CACHED).open("rb") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
        if os.name != "nt":
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def on_disk(path: Path) -> int:
    """Bytes that a file takes; a cache that is not full has holes."""
    info = path.stat()
    return getattr(info, "st_blocks", -(-info.st_size // 512)) * 512
