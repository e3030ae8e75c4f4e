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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from mien.data import labels as choosing
from mien.data.crew import make_shards, shard_path
from mien.data.geometry import RESAMPLERS, Box, find_crop
from mien.data.pack import FORMAT, Entry, Pack, PackWriter, Rows, chunks, is_pack
from mien.data.source import Listing, Source, stamp_of
from mien.data.split import hold_out
from mien.data.worker import Cutting, Shard
from mien.errors import DataError, Locked, StorageError, UsageError, did_you_mean

SHARD_BYTES = 4_000_000  # of finished pixels; the outcome never depends on it
REFUSED_SHARE = 0.01  # above it, something is wrong with the source


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a pack is made from a source."""

    side: int = 64  # pixels, height and width
    crop: str | None = None  # None = the layout's own
    box: Box | None = None  # left, top, right, bottom in pixels, instead of a named crop
    resampler: str | None = None  # None = the crop's own
    background: str = "white"  # what transparent pictures are composed on
    labels: Sequence[str] = ()  # none = every label of the source
    where: Mapping[str, str] = field(default_factory=dict)
    balance: Sequence[str] = ()
    limit: int | None = None  # images at most
    holdout: float = 0.0  # share held out for evaluation
    dedupe: bool = False  # leave out images whose pixels occur before

    def __post_init__(self) -> None:
        if not 4 <= self.side <= 4096:
            raise UsageError(
                f"--size {self.side} is not a side.", "It lies between 4 and 4096 pixels.", "Use 64, for example."
            )
        if self.resampler is not None and self.resampler not in RESAMPLERS:
            raise UsageError(
                f"There is no resampler `{self.resampler}`.",
                "They are known by name.",
                did_you_mean(self.resampler, RESAMPLERS),
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} keeps nothing.", "It counts images.", "Use 1 or more.")


@dataclass(frozen=True)
class Plan:
    """What will be decoded, and how: everything that decides the outcome."""

    source: Source
    listing: Listing  # of the images that were selected
    cutting: Cutting
    preparation: Preparation
    counts: Mapping[str, Any]
    key: str

    @property
    def shards(self) -> list[slice]:
        size = max(1, min(256, SHARD_BYTES // (self.cutting.side**2 * 3)))
        return list(chunks(len(self.listing.names), size))


def plan(source: Source, preparation: Preparation) -> Plan:
    """List the source and select. Raises DataError when nothing is left, UsageError for a label or crop that is not there."""
    found = source.listing()
    if not len(found.names):
        others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.others.items())) or "nothing at all"
        raise DataError(
            "The source holds no images.", f"It holds {others}.", "Give the folder or archive with the images."
        )
    crop_name = preparation.crop or found.crop
    crop = find_crop(crop_name, preparation.box)
    cutting = Cutting(
        side=preparation.side,
        crop="box" if preparation.box else crop_name,
        resampler=preparation.resampler or crop.resampler,
        box=preparation.box,
        background=preparation.background,
    )
    listing, counts = select(found, preparation)
    decides = [FORMAT, asdict(cutting), asdict(preparation), source.description, found.stamp]
    return Plan(source, listing, cutting, preparation, counts, stamp_of(decides))


def select(found: Listing, preparation: Preparation) -> tuple[Listing, dict[str, Any]]:
    """The images and labels that the preparation asks for, and how many each step left."""
    counts: dict[str, Any] = {"found": len(found.names)}
    listing = found
    if preparation.where:
        listing = listing.take(choosing.where(listing, preparation.where))
        counts["where"] = len(listing.names)
        if not len(listing.names):
            conditions = ", ".join(f"{name}={value}" for name, value in preparation.where.items())
            raise DataError(f"No image has {conditions}.", f"None of {len(found.names):,} fits.", "Loosen --where.")
    if preparation.balance:
        rows, counts["balance"] = choosing.balance(listing, preparation.balance, preparation.limit)
        listing = listing.take(rows)
    elif preparation.limit is not None:
        listing = listing.take(np.arange(min(preparation.limit, len(listing.names))))
    counts["selected"] = len(listing.names)
    return listing, counts


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
    while True:
        if path.exists():
            return existing(path, todo)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / f"lock-{rank}", wait) as owned:
            if not owned or path.exists():  # somebody finished while we waited
                continue
            decode_share(todo, folder, workers or len(os.sched_getaffinity(0)), rank, world)
            if rank:
                return None
            wait_for(todo, folder)
            pack = assemble(todo, folder, path, force)
        shutil.rmtree(folder, ignore_errors=True)
        for stale in path.parent.glob(f".{path.name}.*.partial"):  # of other settings, given up
            shutil.rmtree(stale, ignore_errors=True)
        return pack


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
    """Hold a lock file; yields False when it was removed while we waited. A dead process holds nothing."""
    import fcntl  # not on Windows

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked(
                f"{path.parent} is being prepared by another process.",
                "Its lock is held.",
                "Wait until it ends, or end it.",
            ) from None
        yield path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino


def decode_share(todo: Plan, folder: Path, workers: int, rank: int, world: int) -> None:
    """Make every shard of this rank that is not there yet."""
    ours = [number for number in range(len(todo.shards)) if number % world == rank]
    missing = {n: todo.listing.names[todo.shards[n]] for n in ours if not shard_path(folder, n).exists()}
    total = sum(len(todo.listing.names[todo.shards[number]]) for number in ours)
    done = total - sum(map(len, missing.values()))
    with tqdm(total=total, initial=done, unit=" images", desc="preparing", disable=None, leave=False) as bar:
        make_shards(folder, missing, todo.source, todo.cutting, workers, bar.update)


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


def assemble(todo: Plan, folder: Path, path: Path, force: bool) -> Pack:
    """Write the pack from its finished shards, one at a time."""
    names, chosen = todo.listing.names, todo.listing
    kept: list[int] = []
    refused: list[dict[str, str]] = []
    hashes: list[str] = []
    notes = Counter[str]()
    for number, part in enumerate(todo.shards):
        shard = Shard.load(shard_path(folder, number))
        kept += [part.start + position for position in shard.kept]
        refused += [{"name": names[part.start + position], "reason": reason} for position, reason in shard.refused]
        hashes += shard.hashes
        notes.update(shard.notes)
    check_refused(refused, len(names), force)
    rows = np.array(kept, dtype=np.int64)
    counts = {**todo.counts, "refused": len(refused)}
    if todo.preparation.dedupe:
        first = {digest: row for row, digest in reversed(list(zip(kept, hashes, strict=True)))}
        unique = [first[digest] == row for row, digest in zip(kept, hashes, strict=True)]
        counts["duplicates"] = len(kept) - sum(unique)
        rows = rows[np.array(unique, dtype=bool)]
    if todo.preparation.balance:  # what was refused must not tip the balance
        again, _ = choosing.balance(chosen.take(rows), todo.preparation.balance)
        counts["rebalanced_away"] = len(rows) - len(again)
        rows = rows[again]
    if todo.preparation.labels:
        chosen = choosing.choose(chosen, todo.preparation.labels)
    return write(todo, chosen, rows, folder, path, {"counts": counts, "notes": dict(notes), "refused": refused})


def check_refused(refused: Sequence[Mapping[str, str]], total: int, force: bool) -> None:
    """Stop when too many images were refused, or all of them."""
    examples = "; ".join(f"{item['name']} ({item['reason']})" for item in refused[:3])
    if len(refused) == total:
        raise DataError("Not one image can be used.", examples, "Look at them with `mien data check`.")
    if len(refused) > REFUSED_SHARE * total and not force:
        raise DataError(
            f"{len(refused):,} of {total:,} images were refused, more than {REFUSED_SHARE:.0%}.",
            examples,
            "Look at them with `mien data check`, or keep the others with --force.",
        )


def write(todo: Plan, listing: Listing, rows: Rows, folder: Path, path: Path, found: dict[str, Any]) -> Pack:
    """Copy the rows of every shard into the pack, in order."""
    kept = listing.take(rows)
    splits = hold_out(todo.preparation.holdout, kept.names, kept.groups)
    found["counts"] = {
        **found["counts"],
        "kept": len(rows),
        "labels": choosing.count_labels(kept.label_names, kept.labels),
    }
    wanted = np.zeros(len(listing.names), dtype=bool)
    wanted[rows] = True
    with PackWriter(path, todo.cutting.side, kept.label_names if kept.labels is not None else ()) as writer:
        written = 0
        for number, part in enumerate(todo.shards):
            shard = Shard.load(shard_path(folder, number))
            take = [i for i, position in enumerate(shard.kept) if wanted[part.start + position]]
            here = slice(written, written + len(take))
            entries = [
                Entry(kept.names[row], kept.groups[row] if kept.groups else "", splits[row], shard.geometry[i])
                for row, i in zip(range(here.start, here.stop), take, strict=True)
            ]
            writer.append(shard.images[take], None if kept.labels is None else kept.labels[here], entries)
            written = here.stop
        try:
            return writer.commit(describe(todo, kept, found))
        except FileExistsError:
            return existing(path, todo)


def describe(todo: Plan, kept: Listing, found: Mapping[str, Any]) -> dict[str, Any]:
    """What pack.json says beyond the pack's own fields."""
    asked = asdict(replace(todo.preparation, where=dict(todo.preparation.where)))
    recipe = {**asked, **asdict(todo.cutting), "decoder": f"Pillow {PIL.__version__}"}
    return {
        "key": todo.key,
        "source": {**todo.source.description, "layout": kept.layout},
        "recipe": recipe,
        "label_scales": dict(kept.scales),
        "remarks": list(kept.remarks),
        "others": dict(kept.others),
        **found,
    }
