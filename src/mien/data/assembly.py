"""From finished shards to a pack, while the others are still being made."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import PIL

from mien.data import duplicates, labels
from mien.data.pack import Pack, PackWriter, Rows, chunks
from mien.data.planning import PreparationPlan
from mien.data.shard import Shard, is_whole, shard_path
from mien.data.source import Listing
from mien.data.split import hold_out
from mien.errors import DataError

REFUSED_SHARE = 0.01  # above it, something is wrong with the source
AT_ONCE = 4  # shards that are taken before the workers are looked after again
INDEX_ROWS = 4096  # lines of the index in memory


@dataclass
class Outcome:
    """What became of the images of a plan, over all shards, without their pixels."""

    kept: list[int] = field(default_factory=list)  # rows of the plan's listing
    geometry: list[str] = field(default_factory=list)  # of each kept image
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

    def add(self, shard: Shard, names: Sequence[str], first: int) -> None:
        """Add a shard of the images `names`, the first of which is row `first` of the listing."""
        self.kept += [first + position for position in shard.kept]
        self.geometry += map(sys.intern, shard.geometry)  # most of them are equal
        self.refused += [{"name": names[position], "reason": reason} for position, reason in shard.refused]
        self.hashes += shard.hashes
        self.signatures += shard.signatures
        self.sizes.update((width, height) for width, height in shard.sizes)
        self.notes.update(shard.notes)


class Assembly:
    """A pack that grows in the order of its images, in constant memory, as its shards come.

    Pixels are copied and hashed at once; what needs every shard comes last. Leaving the `with` block without `finish` removes
    what was written.
    """

    def __init__(self, todo: PreparationPlan, folder: Path, path: Path, world: int = 1) -> None:
        self.todo, self.folder, self.world = todo, folder, world
        self.outcome = Outcome()
        self._taken = 0  # shards
        self._keeps_all = not (
            todo.preparation.dedupe or todo.preparation.balance
        )  # else it is known at the end what stays
        for stale in folder.glob("*.tmp"):  # of a process that was killed at this point
            shutil.rmtree(stale, ignore_errors=True)
        names = todo.listing.label_names if todo.listing.labels is not None else ()
        if todo.preparation.labels:
            names = labels.choose(todo.listing.take(np.arange(0)), todo.preparation.labels).label_names
        self._writer = PackWriter(path, todo.cutting.side, names, beside=folder)

    def __enter__(self) -> Assembly:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @property
    def missing(self) -> int:
        """Shards that were not taken yet."""
        return len(self.todo.shards) - self._taken

    def take(self) -> bool:
        """Take the next shards, a few at most. Returns whether one was there."""
        before = self._taken
        for number in range(before, min(before + AT_ONCE, len(self.todo.shards))):
            path = shard_path(self.folder, number)
            if not path.exists() or (number % self.world and not is_whole(path)):  # another rank looks after it
                break
            shard, part = Shard.load(path, pixels=self._keeps_all), self.todo.shards[number]
            self.outcome.add(shard, self.todo.listing.names[part], part.start)
            if self._keeps_all:
                self._writer.append_images(shard.images)
            self._taken += 1
        return self._taken > before

    def finish(self, force: bool) -> Pack:
        """Choose what stays, describe it and put the pack in place. All shards must have been taken."""
        assert not self.missing
        todo, outcome = self.todo, self.outcome
        check_refused(outcome.refused, len(todo.listing.names), force)
        counts: dict[str, Any] = {**todo.counts, "refused": len(outcome.refused)}
        places, left_out = np.arange(len(outcome.kept)), []  # which of the kept images stay
        if todo.preparation.dedupe:
            names, repeated = todo.listing.names, outcome.repeated()
            for place, (earlier, is_exact) in repeated.items():
                name, first = names[outcome.kept[place]], names[outcome.kept[earlier]]
                left_out.append(
                    {"name": name, "reason": f"{'the same as' if is_exact else 'nearly the same as'} {first}"}
                )
            places = np.delete(places, list(repeated))
            exact = sum(is_exact for _, is_exact in repeated.values())
            counts |= {"duplicates": exact, "near_duplicates": len(repeated) - exact}
        rows = np.array(outcome.kept, dtype=np.int64)
        if todo.preparation.balance:  # what was refused must not tip the balance
            again, _ = labels.balance(todo.listing.take(rows[places]), todo.preparation.balance)
            counts["rebalanced_away"] = len(places) - len(again)
            places = places[again]
        if not self._keeps_all:
            self._append(rows[places])
        kept = todo.listing.take(rows[places])
        if todo.preparation.labels:
            kept = labels.choose(kept, todo.preparation.labels)
        self._describe(kept, places)
        counts |= {"kept": len(places), "labels": labels.count_labels(kept.label_names, kept.labels, kept.scales)}
        notes = dict(sorted(outcome.notes.items()))
        found = {"counts": counts, "notes": notes, "refused": outcome.refused, "duplicates": left_out}
        return self._writer.commit(describe(todo, kept, found))

    def _append(self, rows: Rows) -> None:
        """Copy the pixels of these rows of the listing, one shard in memory."""
        stays = np.zeros(len(self.todo.listing.names), dtype=bool)
        stays[rows] = True
        for number, part in enumerate(self.todo.shards):
            shard = Shard.load(shard_path(self.folder, number))
            self._writer.append_images(shard.images[stays[part][shard.kept]])

    def _describe(self, kept: Listing, places: Rows) -> None:
        """Write the labels and the index."""
        names, groups = kept.names, kept.groups or [""] * len(kept.names)
        splits, geometry = split(kept, self.todo.preparation.holdout), self.outcome.geometry
        for part in chunks(len(places), INDEX_ROWS):
            here = [geometry[place] for place in places[part].tolist()]
            entries = list(zip(names[part], groups[part], splits[part], here, strict=True))
            self._writer.describe(None if kept.labels is None else kept.labels[part], entries)


def collect(todo: PreparationPlan, folder: Path) -> Outcome:
    """What became of every image, from the finished shards."""
    outcome = Outcome()
    for number, part in enumerate(todo.shards):
        outcome.add(Shard.load(shard_path(folder, number), pixels=False), todo.listing.names[part], part.start)
    return outcome


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


def split(kept: Listing, holdout: float | Literal["official"]) -> list[str]:
    """`train` or `holdout` for each image: drawn by groups, as the source's own split has it, or as a pack holds out already."""
    if holdout == "official":
        assert kept.splits is not None, "planned"
        return ["train" if part in ("train", "training", "") else "holdout" for part in kept.splits]
    if not holdout and kept.splits is not None:
        return ["holdout" if part == "holdout" else "train" for part in kept.splits]
    return hold_out(holdout, kept.names, kept.groups)


def describe(todo: PreparationPlan, kept: Listing, found: Mapping[str, Any]) -> dict[str, Any]:
    """What pack.json says beyond the pack's own fields."""
    return {
        "key": todo.key,
        "source": {**todo.source.description, "layout": kept.layout},
        "recipe": {**todo.preparation.selection, **todo.cutting.told, "decoder": f"Pillow {PIL.__version__}"},
        "label_scales": dict(kept.scales),
        "remarks": list(kept.remarks),
        "others": dict(kept.other_files),
        **found,
    }
