"""Open data, whatever names it: a pack, photographs that become one, or the built-in drawn faces."""

from __future__ import annotations

from pathlib import Path

from mien.data.open_pack import open_pack
from mien.data.pack import Pack, is_pack
from mien.data.planning import DEFAULT_SIDE, Preparation, plan
from mien.data.preparation import prepare
from mien.data.source import Source
from mien.data.source_kinds import find_source
from mien.data.synthetic import COUNT, SEED, VERSION, SyntheticFaces
from mien.downloads.remote import is_remote
from mien.downloads.weights import cache_folder

CHECKED_BYTES = 1_000_000_000  # of pixels: read and hashed in about a second


def open_data(
    source: str | Path | None = None, side: int | None = None, *, count: int = COUNT, seed: int = SEED
) -> Pack:
    """The pack that `source` means.

    Nothing or `drawn`: the built-in faces at `side`. A pack, here or on a server: itself, at its own side. A folder or an archive
    of images: a pack of them, made at `side` on first use and kept in the cache. A pack on a disk, up to a gigabyte, is read once
    and compared with its checksums; `mien data info` does so for any.

    Raises DataError when there is nothing to be had, Untrusted when it is damaged.
    """
    if source is None or str(source) == "drawn":
        return _drawn(side or DEFAULT_SIDE, count, seed)
    if is_remote(source):
        return open_pack(source)
    path = Path(source)
    if path.is_dir() and is_pack(path):
        return _checked(Pack.open(path))
    return prepared(path, Preparation(side=side or DEFAULT_SIDE))


def is_prepared(source: str | Path | None) -> bool:
    """Whether `source` is opened as it is: the drawn faces, or a pack, here or on a server."""
    return source is None or str(source) == "drawn" or is_remote(source) or is_pack(Path(source))


def is_elsewhere(source: str) -> bool:
    """Whether a path or an address leads to another machine: by `https://` and the like, or as a share of Windows."""
    return is_remote(source) or source.startswith(("//", "\\\\"))


def check_source(source: str | Path | None) -> None:
    """Raises DataError where `open_data` would find nothing: before a model is downloaded for it."""
    if not is_prepared(source):
        find_source(Path(str(source)))


def is_cached(pack: Path) -> bool:
    """Whether a pack is there that was made of photographs on first use."""
    return pack.parent == cache_folder() / "packs" and is_pack(pack)


def prepared(path: Path, preparation: Preparation, source: Source | None = None, *, force: bool = False) -> Pack:
    """The pack of a folder or an archive of images, made on first use and kept in the cache; `force` as in `prepare`."""
    found = source or find_source(path)
    name = f"{path.resolve().stem}-{preparation.side}-{plan(found, preparation).key}.pack"
    return _prepared(found, cache_folder() / "packs" / name, preparation, force)


def _drawn(side: int, count: int, seed: int) -> Pack:
    path = cache_folder() / "drawn" / f"{VERSION}-{side}-{count}-{seed}.pack"
    if is_pack(path):
        return _checked(Pack.open(path))
    return _prepared(SyntheticFaces(side, count, seed), path, Preparation(side=side))


def _checked(pack: Pack) -> Pack:
    if pack.images.nbytes <= CHECKED_BYTES:
        pack.verify()
    return pack


def _prepared(source: Source, path: Path, preparation: Preparation, force: bool = False) -> Pack:
    pack = prepare(source, path, preparation, wait=True, force=force)
    assert pack is not None
    return pack
