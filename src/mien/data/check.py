"""Look at a source as a preparation would, and write no pack."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.core.cores import cores
from mien.data.assembly import Outcome, collect
from mien.data.framing import with_framing
from mien.data.labels import count_labels
from mien.data.pack import Images
from mien.data.planning import Preparation, PreparationPlan, plan
from mien.data.preparation import decode_share
from mien.data.shard import Shard, shard_path
from mien.data.source import Source
from mien.data.worker_pool import WorkerPool

SHEET = 100  # images on a contact sheet


@dataclass(frozen=True)
class Examination:
    """What a preparation would meet."""

    plan: PreparationPlan
    outcome: Outcome
    samples: Images  # [up to SHEET, side, side, 3], evenly from the usable images

    @property
    def report(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON."""
        listing, outcome = self.plan.listing, self.outcome
        found = outcome.duplicates()
        pairs = [(place, earlier, exact) for place, (earlier, exact) in found.items()]
        names = [listing.names[row] for row in outcome.rows]
        labels = None if listing.labels is None else listing.labels[outcome.rows]
        return {
            "source": {**self.plan.source.description, "layout": listing.layout},
            "crop": self.plan.preprocess.crop,
            "counts": {**self.plan.counts, "usable": len(outcome.rows), "refused": len(outcome.refused)},
            **outcome.filled_in(),
            **({} if self.plan.framing is None else {"framing": dict(self.plan.framing)}),
            "reasons": dict(Counter(general(item["reason"]) for item in outcome.refused).most_common()),
            "refused": outcome.refused,
            "notes": dict(sorted(outcome.notes.items())),
            "sizes": [[width, height, count] for (width, height), count in outcome.sizes.most_common(20)],
            "smallest": list(min(outcome.sizes, key=min, default=())),
            "largest": list(max(outcome.sizes, key=max, default=())),
            "groups": len(set(listing.groups) - {""}) if listing.groups else None,
            "duplicates": [[names[place], names[earlier]] for place, earlier, exact in pairs if exact],
            "near_duplicates": [[names[place], names[earlier]] for place, earlier, exact in pairs if not exact],
            "labels": count_labels(listing.label_names, labels, listing.scales),
            "others": dict(listing.other_files),
            "remarks": list(listing.remarks),
        }


def check(source: Source, preparation: Preparation, workers: int | None = None) -> Examination:
    """Decode and crop every image once, without writing a pack. Raises DataError when the source contains no images."""
    with tempfile.TemporaryDirectory(prefix="mien-check-") as name, WorkerPool(workers or cores()) as pool:
        todo, folder = plan(source, replace(preparation, dedupe=True)), Path(name)
        todo = with_framing(todo, folder, pool)
        decode_share(todo, folder, pool)
        outcome = collect(todo, folder)
        return Examination(todo, outcome, sample(todo, folder, outcome))


def sample(todo: PreparationPlan, folder: Path, outcome: Outcome) -> Images:
    """Usable images, evenly spread."""
    rows = {outcome.rows[place] for place in spread(len(outcome.rows), SHEET)}
    parts = [np.empty((0, todo.preprocess.side, todo.preprocess.side, 3), dtype=np.uint8)]
    for number, part in enumerate(todo.shards):
        if rows.isdisjoint(range(part.start, part.stop)):
            continue
        shard = Shard.load(shard_path(folder, number))
        parts.append(shard.images[[part.start + position in rows for position in shard.positions]])
    return np.concatenate(parts)


def spread(count: int, most: int) -> list[int]:
    """At most `most` places among `count`, evenly spread."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def general(reason: str) -> str:
    """A reason without the figures of one file: `20x30: smaller than 16 pixels` -> `smaller than 16 pixels`."""
    head, separator, tail = reason.partition(": ")
    return tail if separator and "x" in head and head[:1].isdigit() else head if head == "damaged" else reason
