"""From a source to a pack: list, select, decode in shards on every core, and assemble meanwhile.

Finished shards are kept in a hidden folder beside the pack until the pack is complete, so that the same command after a kill
goes on where it was. The folder's name holds a hash of everything that decides the outcome.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mien.data.assembly import Assembly
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
    """Make the pack at `path`, or finish making it; under several ranks, ranks above 0 do their share and return None.

    Parameters
    ----------
    workers
        Processes; None = one for each core this process may use.
    force
        Keep on when more than 1% of the images are refused.
    wait
        When another process makes the same pack, wait for it instead of raising Locked.
    """
    if path.exists():
        return finished(path, plan(source, preparation))
    with WorkerPool(workers or cores()) as crew, uncollected():
        todo = plan(source, preparation)
        folder = path.parent / f".{path.name}.{todo.key}.partial"
        while not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with held(folder / f"lock-{rank}", wait) as owned:
                if not owned or path.exists():  # somebody finished while we waited
                    continue
                if rank:
                    decode_share(todo, folder, crew, rank, world)
                    return None
                assemble(todo, folder, path, crew, force, world)
    return finished(path, todo)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles: it looks at every name of a listing, again and again, and there are none to find."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def finished(path: Path, todo: PreparationPlan) -> Pack:
    """The pack at `path`, if it is the one that was asked for; what was left of making it is removed."""
    for stale in path.parent.glob(f".{path.name}.*.partial"):  # ours, and those of other settings that were given up
        remove(stale)
    if is_pack(path):
        pack = Pack.open(path)
        if pack.meta.get("key") == todo.key:
            return pack
    raise DataError(
        f"{path} is there already.",
        "It was made from other files or with other settings, or it is no pack; nothing is ever overwritten.",
        "Choose another name, or remove it first.",
    )


def remove(folder: Path) -> None:
    """Remove a folder, its files on every core: freeing a gigabyte of shards is work."""
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
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False when its folder was removed while we waited. A dead process holds nothing."""
    import filelock  # not for the workers, which start faster without

    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except FileNotFoundError:  # whoever finished has removed the folder
        yield False
        return
    except filelock.Timeout:
        raise Locked(
            f"{path.parent.name} is being prepared by another process.", f"It holds {path}.", "Wait for its end."
        ) from None
    try:
        yield True
    finally:
        lock.release()


def assemble(todo: PreparationPlan, folder: Path, path: Path, crew: WorkerPool, force: bool, world: int) -> None:
    """Decode this rank's share, and put the pack together as the shards of every rank come."""
    with Assembly(todo, folder, path, world) as assembly:
        decode_share(todo, folder, crew, 0, world, assembly.take)
        wait_for(assembly)
        try:
            assembly.finish(force)
        except OSError:
            if not path.exists():  # else another machine was first
                raise


def decode_share(
    todo: PreparationPlan,
    folder: Path,
    crew: WorkerPool,
    rank: int = 0,
    world: int = 1,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Make every shard of this rank that is not there yet; `meanwhile` is called many times a second."""
    Preprocessor(todo.cutting).load()
    ours = [number for number in range(len(todo.shards)) if number % world == rank]
    for path in (shard_path(folder, number) for number in ours):
        if path.exists() and not is_whole(path):
            path.unlink()
    missing = {n: todo.listing.names[todo.shards[n]] for n in ours if not shard_path(folder, n).exists()}
    total = sum(len(todo.listing.names[todo.shards[number]]) for number in ours)
    done = total - sum(map(len, missing.values()))
    marks = {}
    if todo.cutting.landmarks_of is not None and todo.listing.landmarks is not None:
        marks = {number: todo.listing.landmarks[todo.shards[number]] for number in missing}
    with progress(total, done) as on_images:

        def look(begun: int) -> None:
            on_images(begun)
            meanwhile()

        crew.make_shards(folder, missing, todo.source, todo.cutting, look, marks)


@contextlib.contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[int], object]]:
    """A function that hears of more images and draws how far it is: on a terminal, and elsewhere nothing is loaded for it."""
    if not sys.stderr.isatty():
        yield lambda begun: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=" images", desc="preparing", leave=False) as bar:
        yield bar.update


def cores() -> int:
    """The cores that this process may use, shared among the processes that a launcher started on this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def wait_for(assembly: Assembly, patience: float = 900.0) -> None:
    """Take the shards that are missing, those of other ranks, as they come."""
    last = time.monotonic()
    while assembly.missing:
        if assembly.take():
            last = time.monotonic()
        elif time.monotonic() - last > patience:
            raise StorageError(
                f"{assembly.missing} shards of other ranks did not come.",
                f"None came for {patience:.0f} s.",
                "Start every rank again with the same command on a folder that all of them share.",
            )
        else:
            time.sleep(0.2)
