"""How much `--crop face` shows around a face: the smallest eye distance at which little is filled in beyond the pictures.

A fixed random sample of the source decides, so that `--limit` and `--where` change nothing. The choice lies beside the shards of
a preparation until the pack is complete: what resumes, and other ranks, use it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.affine import distance_outside
from mien.data.pack import chunks
from mien.data.planning import PreparationPlan
from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.shard import Shard, shard_path
from mien.data.worker_pool import WorkerPool
from mien.errors import StorageError
from mien.storage import atomic, bounded_json

DISTANCES = [hundredths / 100 for hundredths in range(26, 48)]  # shares of the side: the whole head to the face alone
SMALL = 0.1  # of the crops' area, on average: what may be filled in
GRID = 64  # pixels: at this side the area is counted
SHARD = 25  # pictures that a worker looks at, one after another


def with_framing(todo: PreparationPlan, folder: Path, pool: WorkerPool, rank: int = 0) -> PreparationPlan:
    """The plan with an eye distance, if it has to be chosen; `folder` is that of its shards. Rank 0 chooses for all."""
    if todo.sample is None:
        return todo
    file = folder / "framing.json"
    if rank:
        wait_for(file)
    framing = saved(file)
    if framing is None:
        Preprocessor(todo.preprocess).load()
        framing = choose(*look(todo, folder / "sample", pool), todo.preprocess)
        atomic.replace_text(file, json.dumps(framing))
    return replace(todo, framing=framing, preprocess=replace(todo.preprocess, eye_distance=framing["eye_distance"]))


def saved(file: Path) -> Mapping[str, Any] | None:
    """What was chosen before, if it is there and whole."""
    try:
        framing = bounded_json.read_object(file, eye_distance=float, images=int, outside_at_widest=float)
    except (OSError, bounded_json.InvalidJSON):
        return None
    return framing if framing["eye_distance"] in DISTANCES else None


def look(todo: PreparationPlan, folder: Path, pool: WorkerPool) -> tuple[list[str], list[tuple[int, int]]]:
    """The geometry at GRID pixels and the size of each picture of the sample with a face."""
    assert todo.sample is not None
    folder.mkdir(exist_ok=True)
    names, marks = todo.sample.names, todo.sample.landmarks
    preprocess = replace(todo.preprocess, side=GRID, matte=None, max_outside=1.0, signatures=False)
    parts = dict(enumerate(chunks(len(names), SHARD)))
    known = {} if marks is None else {number: marks[part] for number, part in parts.items()}
    wanted = {number: names[part] for number, part in parts.items()}
    pool.make_shards(folder, wanted, todo.source, preprocess, lambda started: None, known)
    shards = [Shard.load(shard_path(folder, number), pixels=False) for number in parts]
    return [text for one in shards for text in one.geometry], [(w, h) for one in shards for w, h in one.sizes]


def choose(geometry: list[str], sizes: list[tuple[int, int]], preprocess: PreprocessConfig) -> dict[str, Any]:
    """The smallest eye distance that fills in SMALL of the area or less, else the largest, with the shares of both ends.

    `geometry` are the rows of transforms to GRID pixels, with the eye distance and height of `preprocess`.
    """
    transforms = [np.array(text.split(","), dtype=np.float64).reshape(2, 3) for text in geometry]
    middle = GRID * np.array([0.5, preprocess.eye_height])  # of the eyes; every eye distance has it there

    def outside(distance: float) -> float:
        """The mean share of a crop that lies outside its picture, in [0, 1]."""
        zoom, shares = distance / preprocess.eye_distance, []
        for transform, (width, height) in zip(transforms, sizes, strict=True):
            zoomed = zoom * transform + np.outer((1 - zoom) * middle, [0, 0, 1])
            shares.append(float((distance_outside(zoomed, GRID, width, height) > 0).mean()))
        return round(float(np.mean(shares)), 4) if shares else 0.0

    chosen = next((d for d in DISTANCES[:-1] if outside(d) <= SMALL), DISTANCES[-1])
    return {
        "eye_distance": chosen,
        "images": len(transforms),
        "outside": outside(chosen),
        "outside_at_widest": outside(DISTANCES[0]),
    }


def framing_facts(meta: Mapping[str, Any], count: int) -> dict[str, str]:
    """What a pack of `count` images, or a check, says of `--crop face`: titles and sentences; nothing of other crops."""
    facts, framing = {}, meta.get("framing")
    if framing:
        facts["eye distance"] = f"{framing['eye_distance']} of the side, chosen by {framing['images']:,} images"
        if framing["eye_distance"] > DISTANCES[0]:
            facts["eye distance"] += f": {DISTANCES[0]} would fill in {framing['outside_at_widest']:.1%} of their area"
    if filled := meta.get("filled_in"):
        facts["filled in"] = f"{filled['area']:.1%} of the area, in {filled['images']:,} of {count:,} images"
    return facts


def wait_for(file: Path, timeout: float = 900.0) -> None:
    """Wait for what rank 0 writes. Raises StorageError after `timeout` seconds."""
    last = time.monotonic() + timeout
    while not file.exists():
        if time.monotonic() > last:
            raise StorageError(
                "The eye distance that rank 0 chooses is missing.",
                f"No {file.name} for {timeout:.0f} s.",
                "Start every rank again with the same command, on a folder that all ranks share.",
            )
        time.sleep(0.1)
