"""From a source to a pack: list, select, decode in shards on every core, assemble.

Finished shards are kept in a hidden folder beside the pack until the pack is complete, so that the same command after a kill
goes on where it was. The folder's name holds a hash of everything that decides the outcome.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

from mien.data import duplicates, labels
from mien.data.crew import make_shards, shard_path
from mien.data.cutting import Cutter
from mien.data.pack import Entry, Pack, PackWriter, Rows, is_pack
from mien.data.planning import Plan, Preparation, plan
from mien.data.source import Listing, Source
from mien.data.split import hold_out
from mien.data.worker import Shard
from mien.errors import DataError, Locked, StorageError

REFUSED_SHARE = 0.01  # above it, something is wrong with the source


@dataclass
class Outcome:
    """What became of the images of a plan, over all shards, without their pixels."""

    kept: list[int] = field(default_factory=list)  # rows of the plan's listing
    refused: list[dict[str, str]] = field(default_factory=list)  # name and reason
    hashes: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def repeated(self) -> dict[int, tuple[int, bool]]:
        """Each kept image, by its place in `kept`, that occurs before: where first, and whether to the bit."""
        exact = duplicates.exact(self.hashes)
        near = duplicates.near(self.signatures)
        return {place: (exact.get(place, near.get(place, place)), place in exact) for place in sorted(exact | near)}


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
    todo = plan(source, preparation)
    folder = path.parent / f".{path.name}.{todo.key}.partial"
    while not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / f"lock-{rank}", wait) as owned:
            if not owned or path.exists():  # somebody finished while we waited
                continue
            decode_share(todo, folder, workers, rank, world)
            if rank:
                return None
            wait_for(todo, folder)
            assemble(todo, folder, path, force)
    for stale in path.parent.glob(f".{path.name}.*.partial"):  # ours, and those of other settings that were given up
        shutil.rmtree(stale, ignore_errors=True)
    return existing(path, todo)


def existing(path: Path, todo: Plan) -> Pack:
    """The pack that is there already, if it is the one that was asked for."""
    if is_pack(path):
        pack = Pack.open(path)
        if pack.meta.get("key") == todo.key:
            return pack
    raise DataError(
        f"{path} is there already.",
        "It was made from other files or with other settings, or it is no pack; nothing is ever overwritten.",
        "Choose another name, or remove it first.",
    )


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


def decode_share(todo: Plan, folder: Path, workers: int | None = None, rank: int = 0, world: int = 1) -> None:
    """Make every shard of this rank that is not there yet."""
    from tqdm import tqdm  # not for the workers, which start faster without

    Cutter(todo.cutting).load()
    ours = [number for number in range(len(todo.shards)) if number % world == rank]
    missing = {n: todo.listing.names[todo.shards[n]] for n in ours if not shard_path(folder, n).exists()}
    total = sum(len(todo.listing.names[todo.shards[number]]) for number in ours)
    done = total - sum(map(len, missing.values()))
    marks = {}
    if todo.cutting.landmarks_of is not None and todo.listing.landmarks is not None:
        marks = {number: todo.listing.landmarks[todo.shards[number]] for number in missing}
    with tqdm(total=total, initial=done, unit=" images", desc="preparing", disable=None, leave=False) as bar:
        make_shards(folder, missing, todo.source, todo.cutting, workers or cores(), bar.update, marks)


def cores() -> int:
    """The cores that this process may use, shared among the processes that a launcher started on this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def wait_for(todo: Plan, folder: Path, patience: float = 900.0) -> None:
    """Wait until the shards of every rank are there."""
    last, missing = time.monotonic(), len(todo.shards)
    while left := [number for number in range(len(todo.shards)) if not shard_path(folder, number).exists()]:
        if len(left) < missing:
            last, missing = time.monotonic(), len(left)
        if time.monotonic() - last > patience:
            raise StorageError(
                f"{len(left)} shards of other ranks did not come.",
                f"None came for {patience:.0f} s.",
                "Start every rank again with the same command on a folder that all of them share.",
            )
        time.sleep(0.2)


def collect(todo: Plan, folder: Path) -> Outcome:
    """What became of every image, from the finished shards."""
    outcome = Outcome()
    for number, part in enumerate(todo.shards):
        shard = Shard.load(shard_path(folder, number), pixels=False)
        names = todo.listing.names[part]
        outcome.kept += [part.start + position for position in shard.kept]
        outcome.refused += [{"name": names[position], "reason": reason} for position, reason in shard.refused]
        outcome.hashes += shard.hashes
        outcome.signatures += shard.signatures
        outcome.sizes.update((width, height) for width, height in shard.sizes)
        outcome.notes.update(shard.notes)
    return outcome


def assemble(todo: Plan, folder: Path, path: Path, force: bool) -> Pack:
    """Write the pack from its finished shards."""
    outcome = collect(todo, folder)
    check_refused(outcome.refused, len(todo.listing.names), force)
    counts: dict[str, Any] = {**todo.counts, "refused": len(outcome.refused)}
    rows, left_out = np.array(outcome.kept, dtype=np.int64), []
    if todo.preparation.dedupe:
        names, repeated = todo.listing.names, outcome.repeated()
        for place, (earlier, is_exact) in repeated.items():
            name, first = names[outcome.kept[place]], names[outcome.kept[earlier]]
            left_out.append({"name": name, "reason": f"{'the same as' if is_exact else 'nearly the same as'} {first}"})
        rows = np.delete(rows, list(repeated))
        exact = sum(is_exact for _, is_exact in repeated.values())
        counts |= {"duplicates": exact, "near_duplicates": len(repeated) - exact}
    if todo.preparation.balance:  # what was refused must not tip the balance
        again, _ = labels.balance(todo.listing.take(rows), todo.preparation.balance)
        counts["rebalanced_away"] = len(rows) - len(again)
        rows = rows[again]
    found = {"counts": counts, "notes": dict(sorted(outcome.notes.items())), "refused": outcome.refused}
    return write(todo, rows, folder, path, {**found, "duplicates": left_out})


def check_refused(refused: Sequence[Mapping[str, str]], total: int, force: bool) -> None:
    """Stop when too many images were refused, or all of them."""
    examples = "; ".join(f"{item['name']} ({item['reason']})" for item in refused[:3])
    if len(refused) == total:
        raise DataError("Not one image can be used.", f"{examples}.", "Look at them with `mien data check`.")
    if len(refused) > REFUSED_SHARE * total and not force:
        raise DataError(
            f"{len(refused):,} of {total:,} images were refused, more than {REFUSED_SHARE:.0%}.",
            f"{examples}{', ...' if len(refused) > 3 else '.'}",
            "Look at them with `mien data check SOURCE`, or keep the others: `mien data prepare SOURCE PACK --force`.",
        )


def write(todo: Plan, rows: Rows, folder: Path, path: Path, found: dict[str, Any]) -> Pack:
    """Copy the rows of every shard into the pack, in order, one shard in memory."""
    kept = todo.listing.take(rows)
    if todo.preparation.labels:
        kept = labels.choose(kept, todo.preparation.labels)
    splits = split(kept, todo.preparation.holdout)
    found["counts"] |= {"kept": len(rows), "labels": labels.count_labels(kept.label_names, kept.labels)}
    wanted = np.zeros(len(todo.listing.names), dtype=bool)
    wanted[rows] = True
    for stale in folder.glob("*.tmp"):  # of a process that was killed at this point
        shutil.rmtree(stale, ignore_errors=True)
    names = kept.label_names if kept.labels is not None else ()
    with PackWriter(path, todo.cutting.side, names, beside=folder) as writer:
        written = 0
        for number, part in enumerate(todo.shards):
            shard = Shard.load(shard_path(folder, number))
            take = [place for place, position in enumerate(shard.kept) if wanted[part.start + position]]
            here = slice(written, written + len(take))
            entries = [
                Entry(kept.names[row], kept.groups[row] if kept.groups else "", splits[row], shard.geometry[place])
                for row, place in zip(range(here.start, here.stop), take, strict=True)
            ]
            writer.append(shard.images[take], None if kept.labels is None else kept.labels[here], entries)
            written = here.stop
        try:
            return writer.commit(describe(todo, kept, found))
        except OSError:
            if path.exists():  # another machine was first
                return existing(path, todo)
            raise


def split(kept: Listing, holdout: float | Literal["official"]) -> list[str]:
    """`train` or `holdout` for each image: drawn by groups, as the source's own split has it, or as a pack holds out already."""
    if holdout == "official":
        assert kept.parts is not None, "planned"
        return ["train" if part in ("train", "training", "") else "holdout" for part in kept.parts]
    if not holdout and kept.parts is not None:
        return ["holdout" if part == "holdout" else "train" for part in kept.parts]
    return hold_out(holdout, kept.names, kept.groups)


def describe(todo: Plan, kept: Listing, found: Mapping[str, Any]) -> dict[str, Any]:
    """What pack.json says beyond the pack's own fields."""
    return {
        "key": todo.key,
        "source": {**todo.source.description, "layout": kept.layout},
        "recipe": {**todo.preparation.selection, **todo.cutting.told, "decoder": f"Pillow {PIL.__version__}"},
        "label_scales": dict(kept.scales),
        "remarks": list(kept.remarks),
        "others": dict(kept.others),
        **found,
    }
