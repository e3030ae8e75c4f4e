"""Makes a pack from a source: list, select, decode in shards on every core, and assemble at the same time.

Finished shards stay in a hidden folder beside the pack until the pack is complete, so the same command resumes after a kill.
The folder's name contains a hash of everything that affects the result.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mien.core.cores import cores
from mien.data.assembly import Assembly
from mien.data.framing import with_framing
from mien.data.pack import Pack, is_pack
from mien.data.planning import Preparation, PreparationPlan, plan
from mien.data.preprocess import Preprocessor
from mien.data.shard import is_whole, shard_path
from mien.data.source import Source
from mien.data.worker_pool import WorkerPool
from mien.errors import DataError, Locked, StorageError


def prepare(
    source: Source,
    path: Path,
    preparation: Preparation,
    *,
    workers: int | None = None,
    force: bool = False,
    wait: bool = False,
    rank: int = 0,
    world: int = 1,
) -> Pack | None:
    """Make the pack at `path`, or resume making it. With several ranks, ranks above 0 decode their share and return None.

    Parameters
    ----------
    workers
        Number of processes; None = one for each core that this process may use.
    force
        Continue when more than 1% of the images are refused.
    wait
        When another process makes the same pack, wait for it instead of raising Locked.
    """
    if path.exists():
        return open_finished(path, plan(source, preparation))
    with WorkerPool(workers or cores()) as pool, gc_disabled():
        todo = plan(source, preparation)
        folder = path.parent / f".{path.name}.{todo.key}.partial"
        while not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with hold_lock(folder / f"lock-{rank}", wait) as acquired:
                if not acquired or path.exists():  # another process finished meanwhile
                    continue
                todo = with_framing(todo, folder, pool, rank)
                if rank:
                    decode_share(todo, folder, pool, rank, world)
                    return None
                assemble(todo, folder, path, pool, force, world)
    return open_finished(path, todo)


@contextlib.contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable Python's cyclic garbage collector: it would scan every name of a listing again and again, and find no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def open_finished(path: Path, todo: PreparationPlan) -> Pack:
    """Open the pack at `path`, if it was made with this plan, and remove temporary folders. Raises DataError otherwise."""
    for stale in path.parent.glob(
        f".{path.name}.*.partial"
    ):  # ours, and those of abandoned preparations with other settings
        remove(stale)
    if is_pack(path):
        pack = Pack.open(path)
        if pack.meta.get("key") == todo.key:
            return pack
    raise DataError(
        f"{path} exists already.",
        "It was made from other files or with other settings, or it is not a pack. Nothing is overwritten.",
        "Choose another name, or remove it.",
    )


def remove(folder: Path) -> None:
    """Remove a folder, with one thread for each core: deleting a gigabyte of shards takes time."""
    files = [file for file in folder.glob("*") if file.is_file()]

    def unlink(some: list[Path]) -> None:
        for file in some:
            with contextlib.suppress(OSError):
                file.unlink()

    threads = [threading.Thread(target=unlink, args=(files[part :: cores()],)) for part in range(cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def hold_lock(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file. Yields False when its folder was removed meanwhile. The lock of a dead process is released."""
    import filelock  # workers do not import it and start faster

    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except FileNotFoundError:  # the process that finished has removed the folder
        yield False
        return
    except filelock.Timeout:
        raise Locked(
            f"{path.parent.name} is being prepared by another process.",
            f"It holds the lock {path}.",
            "Wait until it ends.",
        ) from None
    try:
        yield True
    finally:
        lock.release()


def assemble(todo: PreparationPlan, folder: Path, path: Path, pool: WorkerPool, force: bool, world: int) -> None:
    """Decode this rank's share, and assemble the pack from the shards of every rank."""
    with Assembly(todo, folder, path, world) as assembly:
        decode_share(todo, folder, pool, 0, world, assembly.take)
        wait_for(assembly)
        try:
            assembly.finish(force)
        except OSError:
            if not path.exists():  # else another machine finished first
                raise


def decode_share(
    todo: PreparationPlan,
    folder: Path,
    pool: WorkerPool,
    rank: int = 0,
    world: int = 1,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Make every missing shard of this rank. `meanwhile` is called many times a second."""
    Preprocessor(todo.preprocess).load()
    ours = [number for number in range(len(todo.shards)) if number % world == rank]
    for path in (shard_path(folder, number) for number in ours):
        if path.exists() and not is_whole(path):
            path.unlink()
    missing = {n: todo.listing.names[todo.shards[n]] for n in ours if not shard_path(folder, n).exists()}
    total = sum(len(todo.listing.names[todo.shards[number]]) for number in ours)
    done = total - sum(map(len, missing.values()))
    marks = {}
    if todo.preprocess.landmarks_of is not None and todo.listing.landmarks is not None:
        marks = {number: todo.listing.landmarks[todo.shards[number]] for number in missing}
    with progress(total, done) as on_images:

        def poll(started: int) -> None:
            on_images(started)
            meanwhile()

        first = {number: todo.shards[number].start for number in missing}
        pool.make_shards(folder, missing, todo.source, todo.preprocess, poll, marks, first)


@contextlib.contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[int], object]]:
    """A function that takes the number of new images and updates a progress bar, shown only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda started: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=" images", desc="preparing", leave=False) as bar:
        yield bar.update


def wait_for(assembly: Assembly, timeout: float = 900.0) -> None:
    """Append the missing shards of other ranks as they are finished. Raises StorageError after `timeout` seconds without one."""
    last = time.monotonic()
    while assembly.missing:
        if assembly.take():
            last = time.monotonic()
        elif time.monotonic() - last > timeout:
            raise StorageError(
                f"{assembly.missing} shards of other ranks are missing.",
                f"No new shard for {timeout:.0f} s.",
                "Start every rank again with the same command, on a folder that all ranks share.",
            )
        else:
            time.sleep(0.2)
