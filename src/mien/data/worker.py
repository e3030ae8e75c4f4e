"""A worker process: decodes, cuts and resizes the images of one shard after another.

Jobs come in as lines of JSON, progress goes out as lines of text: `START position` before each image, `DONE shard` after each
shard. It is a program of its own, so that a file which kills or hangs a decoder costs one file, and so that as many run as
there are cores, on as many machines as share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.data.containers import Refused
from mien.data.decode import decode
from mien.data.geometry import Box, Crop, cut, find_crop
from mien.data.pack import Images
from mien.data.source import Source
from mien.data.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How every image of a pack is made from its file."""

    side: int
    crop: str
    resampler: str
    box: Box | None = None  # instead of the crop's own
    background: str = "white"  # what alpha is composed on


@dataclass(frozen=True)
class Shard:
    """The outcome of one shard, in the order of its names."""

    images: Images  # [kept, side, side, 3]
    kept: Sequence[int]  # positions in the shard
    geometry: Sequence[str]  # of each kept image
    hashes: Sequence[str]  # of each kept image: SHA-256 of its pixels, for duplicates
    refused: Sequence[tuple[int, str]]  # position and reason
    notes: dict[str, int]  # how often something had to be done

    def save(self, path: Path) -> None:
        """Write under a temporary name and rename, so that a shard is there completely or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        outcome = {key: getattr(self, key) for key in ("kept", "geometry", "hashes", "refused", "notes")}
        with temporary.open("wb") as file:
            np.savez(file, images=self.images, outcome=np.frombuffer(json.dumps(outcome).encode(), dtype=np.uint8))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Shard:
        with np.load(path, allow_pickle=False) as arrays:
            outcome = json.loads(arrays["outcome"].tobytes())
            refused = [(int(position), str(reason)) for position, reason in outcome["refused"]]
            return cls(
                arrays["images"], outcome["kept"], outcome["geometry"], outcome["hashes"], refused, outcome["notes"]
            )


def make_image(data: bytes, cutting: Cutting, crop: Crop) -> tuple[Image.Image, str, tuple[str, ...]]:
    """One file's bytes -> its picture, the geometry in words, and notes. Raises Refused."""
    image, notes = decode(data, cutting.background)
    box = crop.box(*image.size)
    geometry = ",".join(map(str, box))
    if min(box[2] - box[0], box[3] - box[1]) < cutting.side:
        notes = (*notes, "enlarged")
    return cut(image, box, cutting.side, cutting.resampler), geometry, notes


def make_shard(source: Source, names: Sequence[str], cutting: Cutting, lost: dict[int, str]) -> Shard:
    """Decode and cut the images called `names`; `lost` holds positions that ended a worker before, with the reason."""
    crop = find_crop(cutting.crop, cutting.box)
    images = np.empty((len(names), cutting.side, cutting.side, 3), dtype=np.uint8)
    kept: list[int] = []
    geometry: list[str] = []
    hashes: list[str] = []
    refused: list[tuple[int, str]] = []
    notes = Counter[str]()
    for position, name in enumerate(names):
        say(f"START {position}")
        try:
            if position in lost:
                raise Refused(lost[position])
            image, where, done = make_image(source.read(name), cutting, crop)
        except Refused as refusal:
            refused.append((position, str(refusal)))
            continue
        images[len(kept)] = np.asarray(image)
        hashes.append(hashlib.sha256(images[len(kept)].data).hexdigest()[:32])
        kept.append(position)
        geometry.append(where)
        notes.update(done)
    return Shard(images[: len(kept)], kept, geometry, hashes, refused, dict(notes))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def work(lines: Any) -> None:
    """Answer jobs until there are no more: each a JSON object with `shard`, `path`, `source`, `names`, `cutting` and `lost`."""
    source: Source | None = None
    specification: dict[str, Any] | None = None
    for line in lines:
        job = json.loads(line)
        if source is None or job["source"] != specification:
            specification = job["source"]
            source = open_source(job["source"])
        box = job["cutting"].pop("box")
        cutting = Cutting(**job["cutting"], box=tuple(box) if box else None)
        lost = {int(position): reason for position, reason in job["lost"].items()}
        make_shard(source, job["names"], cutting, lost).save(Path(job["path"]))
        say(f"DONE {job['shard']}")


def job_line(
    shard: int, path: Path, source: Source, names: Sequence[str], cutting: Cutting, lost: dict[int, str]
) -> str:
    """One job, as `work` reads it."""
    job = {
        "shard": shard,
        "path": str(path.absolute()),
        "source": source.specification,
        "names": list(names),
        "cutting": asdict(cutting),
        "lost": lost,
    }
    return json.dumps(job) + "\n"


def main() -> None:
    """Work until the parent has no more jobs, or has gone."""
    try:
        work(sys.stdin)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
