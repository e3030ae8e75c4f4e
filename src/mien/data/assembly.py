"""Assembles a pack from finished shards, while workers still decode the others."""

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

REFUSED_SHARE = 0.01  # a larger share means that something is wrong with the source
COMPRESSED_ALIKE = 0.95  # of the images, from where on a pack says how its files were compressed
AT_ONCE = 4  # shards appended between two polls of the workers
INDEX_ROWS = 4096  # lines of the index written at once


@dataclass
class Outcome:
    """The results of all shards, without their pixels."""

    rows: list[int] = field(default_factory=list)  # of the accepted images in the plan's listing
    geometry: list[str] = field(default_factory=list)  # of each accepted image
    refused: list[dict[str, str]] = field(default_factory=list)  # name and reason
    outside: list[float] = field(default_factory=list)  # of each accepted image's area, for `face`
    hashes: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    jpeg: Counter[str] = field(default_factory=Counter)

    def duplicates(self) -> dict[int, tuple[int, bool]]:
        """Duplicates by their index in `rows`: the index of the first occurrence, and whether it is bit-identical."""
        exact = duplicates.exact(self.hashes)
        near = duplicates.near(self.signatures)
        return {place: (exact.get(place, near.get(place, place)), place in exact) for place in sorted(exact | near)}

    def filled_in(self, places: Rows | None = None) -> dict[str, Any]:
        """For `face`: the mean share filled in beyond the sources, and the images with over 1% of it; nothing else."""
        if not self.outside:
            return {}
        shares = np.array(self.outside) if places is None else np.array(self.outside)[places]
        area = round(float(shares.mean()), 4) if len(shares) else 0.0
        return {"filled_in": {"area": area, "images": int((shares > 0.01).sum())}}

    def compression(self) -> dict[str, str]:
        """How nearly all files were compressed, as `model.jpeg` says it; nothing where they were not, or not alike."""
        alike = [way for way, count in self.jpeg.items() if count >= COMPRESSED_ALIKE * len(self.rows)]
        return {"jpeg": alike[0]} if alike else {}

    def add(self, shard: Shard, names: Sequence[str], first: int) -> None:
        """Add a shard of the images `names`, the first of which is row `first` of the listing."""
        self.rows += [first + position for position in shard.positions]
        self.geometry += map(sys.intern, shard.geometry)  # most are equal, so interning saves memory
        self.refused += [{"name": names[position], "reason": reason} for position, reason in shard.refused]
        self.outside += shard.outside
        self.hashes += shard.hashes
        self.signatures += shard.signatures
        self.sizes.update((width, height) for width, height in shard.sizes)
        self.notes.update(shard.notes)
        self.jpeg.update(shard.jpeg)


class Assembly:
    """Writes a pack in the order of its images, in constant memory, as shards are finished.

    Pixels are copied and hashed immediately; steps that need every shard run last. Leaving the `with` block without `finish`
    removes the incomplete pack.
    """

    def __init__(self, todo: PreparationPlan, folder: Path, path: Path, world: int = 1) -> None:
        self.todo, self.folder, self.world = todo, folder, world
        self.outcome = Outcome()
        self._taken = 0  # shards
        self._keeps_all = not (
            todo.preparation.dedupe or todo.preparation.balance
        )  # else the selection is known only at the end
        for stale in folder.glob("*.tmp"):  # left by a process that was killed here
            shutil.rmtree(stale, ignore_errors=True)
        names = todo.listing.label_names if todo.listing.labels is not None else ()
        if todo.preparation.labels:
            names = labels.choose(todo.listing.take(np.arange(0)), todo.preparation.labels).label_names
        self._writer = PackWriter(path, todo.preprocess.side, names, beside=folder)

    def __enter__(self) -> Assembly:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @property
    def missing(self) -> int:
        """The number of shards that were not appended yet."""
        return len(self.todo.shards) - self._taken

    def take(self) -> bool:
        """Append the next few shards. Returns whether one was ready."""
        before = self._taken
        for number in range(before, min(before + AT_ONCE, len(self.todo.shards))):
            path = shard_path(self.folder, number)
            if not path.exists() or (number % self.world and not is_whole(path)):  # another rank is still writing it
                break
            shard, part = Shard.load(path, pixels=self._keeps_all), self.todo.shards[number]
            self.outcome.add(shard, self.todo.listing.names[part], part.start)
            if self._keeps_all:
                self._writer.append_images(shard.images)
            self._taken += 1
        return self._taken > before

    def finish(self, force: bool) -> Pack:
        """Select the images, write labels and index, and commit the pack. Every shard must have been appended."""
        assert not self.missing
        todo, outcome = self.todo, self.outcome
        check_refused(outcome.refused, len(todo.listing.names), force)
        counts: dict[str, Any] = {**todo.counts, "refused": len(outcome.refused)}
        places, left_out = np.arange(len(outcome.rows)), []  # indices of the accepted images that enter the pack
        if todo.preparation.dedupe:
            names, repeats = todo.listing.names, outcome.duplicates()
            for place, (earlier, is_exact) in repeats.items():
                name, first = names[outcome.rows[place]], names[outcome.rows[earlier]]
                left_out.append(
                    {"name": name, "reason": f"{'the same as' if is_exact else 'nearly the same as'} {first}"}
                )
            places = np.delete(places, list(repeats))
            exact = sum(is_exact for _, is_exact in repeats.values())
            counts |= {"duplicates": exact, "near_duplicates": len(repeats) - exact}
        rows = np.array(outcome.rows, dtype=np.int64)
        if todo.preparation.balance:  # refused images must not change the balance
            again, _ = labels.balance(todo.listing.take(rows[places]), todo.preparation.balance)
            counts["rebalanced_away"] = len(places) - len(again)
            places = places[again]
        if not self._keeps_all:
            self._append(rows[places])
        listing = todo.listing.take(rows[places])
        if todo.preparation.labels:
            listing = labels.choose(listing, todo.preparation.labels)
        self._describe(listing, places)
        counts |= {
            "kept": len(places),
            "labels": labels.count_labels(listing.label_names, listing.labels, listing.scales),
        }
        notes = dict(sorted(outcome.notes.items()))
        results = {
            "counts": counts,
            **outcome.filled_in(places),
            **outcome.compression(),
            "notes": notes,
            "refused": outcome.refused,
            "duplicates": left_out,
        }
        return self._writer.commit(describe(todo, listing, results))

    def _append(self, rows: Rows) -> None:
        """Copy the pixels of these rows of the listing, with one shard in memory at a time."""
        selected = np.zeros(len(self.todo.listing.names), dtype=bool)
        selected[rows] = True
        for number, part in enumerate(self.todo.shards):
            shard = Shard.load(shard_path(self.folder, number))
            self._writer.append_images(shard.images[selected[part][shard.positions]])

    def _describe(self, listing: Listing, places: Rows) -> None:
        """Write the labels and the index."""
        names, groups = listing.names, listing.groups or [""] * len(listing.names)
        splits, geometry = split(listing, self.todo.preparation.holdout), self.outcome.geometry
        for part in chunks(len(places), INDEX_ROWS):
            here = [geometry[place] for place in places[part].tolist()]
            entries = list(zip(names[part], groups[part], splits[part], here, strict=True))
            self._writer.describe(None if listing.labels is None else listing.labels[part], entries)


def collect(todo: PreparationPlan, folder: Path) -> Outcome:
    """The results of every image, from the finished shards."""
    outcome = Outcome()
    for number, part in enumerate(todo.shards):
        outcome.add(Shard.load(shard_path(folder, number), pixels=False), todo.listing.names[part], part.start)
    return outcome


def check_refused(refused: Sequence[Mapping[str, str]], total: int, force: bool) -> None:
    """Raise DataError when all images, or too many, were refused."""
    examples = "; ".join(f"{item['name']} ({item['reason']})" for item in refused[:3])
    if len(refused) == total:
        raise DataError("No image of the source can be used.", f"{examples}.", "Inspect them with `mien data check`.")
    if len(refused) > REFUSED_SHARE * total and not force:
        raise DataError(
            f"{len(refused):,} of {total:,} images were refused, more than {REFUSED_SHARE:.0%}.",
            f"{examples}{', ...' if len(refused) > 3 else '.'}",
            "Inspect them with `mien data check SOURCE`, or use the others: `mien data prepare SOURCE PACK --force`.",
        )


def split(listing: Listing, holdout: float | Literal["official"]) -> list[str]:
    """`train` or `holdout` for each image: random by groups, by the source's own split, or by the split of a source pack."""
    if holdout == "official":
        assert listing.splits is not None, "the plan checks this"
        return ["train" if part in ("train", "training", "") else "holdout" for part in listing.splits]
    if not holdout and listing.splits is not None:
        return ["holdout" if part == "holdout" else "train" for part in listing.splits]
    return hold_out(holdout, listing.names, listing.groups)


def describe(todo: PreparationPlan, listing: Listing, results: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of pack.json that the preparation adds."""
    return {
        "key": todo.key,
        "source": {**todo.source.description, "layout": listing.layout},
        "recipe": {
            **todo.preparation.selection,
            **todo.preprocess.effective_fields,
            "decoder": f"Pillow {PIL.__version__}",
        },
        **({} if todo.framing is None else {"framing": dict(todo.framing)}),
        "label_scales": dict(listing.scales),
        "remarks": list(listing.remarks),
        "others": dict(listing.other_files),
        **results,
    }
