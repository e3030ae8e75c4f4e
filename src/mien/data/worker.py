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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.containers import Refused
from mien.data.cutting import Cutter, Cutting
from mien.data.duplicates import signature
from mien.data.pack import Images
from mien.data.source import Landmarks, Source
from mien.data.sources import open_source
from mien.durable import replacing
from mien.errors import MienError

OUTCOME = ("kept", "geometry", "sizes", "hashes", "signatures", "refused", "notes")


@dataclass(frozen=True)
class Shard:
    """The outcome of one shard, in the order of its names."""

    images: Images  # [kept, side, side, 3]
    kept: list[int] = field(default_factory=list)  # positions in the shard
    geometry: list[str] = field(default_factory=list)  # of each kept image, as are the next three
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of the upright source, in pixels
    hashes: list[str] = field(default_factory=list)  # when asked for: of the finished pixels, for exact duplicates
    signatures: list[str] = field(default_factory=list)  # likewise: for near duplicates
    refused: list[tuple[int, str]] = field(default_factory=list)  # position and reason
    notes: dict[str, int] = field(default_factory=dict)  # how often something had to be done

    def save(self, path: Path) -> None:
        """A line of JSON, then the pixels. A shard is there completely or not at all."""
        outcome = {key: getattr(self, key) for key in OUTCOME}
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps({**outcome, "shape": self.images.shape}).encode() + b"\n")
            file.write(np.ascontiguousarray(self.images).data)

    @classmethod
    def load(cls, path: Path, pixels: bool = True) -> Shard:
        """Read a shard, or all of it but its pixels."""
        with path.open("rb") as file:
            outcome = json.loads(file.readline())
            count, *shape = outcome.pop("shape")
            images = np.fromfile(file, dtype=np.uint8) if pixels else np.empty(0, dtype=np.uint8)
            return cls(images.reshape(count if pixels else 0, *shape), **outcome)


def make_shard(
    source: Source, addresses: Sequence[str], cutter: Cutter, lost: dict[int, str], landmarks: Landmarks | None = None
) -> Shard:
    """Decode and cut the images at `addresses`; `lost` holds positions that ended a worker before, with the reason."""
    side = cutter.cutting.side
    shard = Shard(np.empty((len(addresses), side, side, 3), dtype=np.uint8))
    notes = Counter[str]()
    for position, address in enumerate(addresses):
        say(f"START {position}")
        try:
            if position in lost:
                raise Refused(lost[position])
            made = cutter.make(source.read(address), None if landmarks is None else landmarks[position])
        except Refused as refusal:
            shard.refused.append((position, str(refusal)))
            continue
        pixels = shard.images[len(shard.kept)]
        pixels[...] = made.image
        shard.kept.append(position)
        shard.geometry.append(made.geometry)
        shard.sizes.append(made.size)
        if cutter.cutting.signatures:
            shard.hashes.append(hashlib.sha256(pixels.data).hexdigest()[:32])
            shard.signatures.append(signature(made.image))
        notes.update(made.notes)
    shard.notes.update(notes)
    return replace(shard, images=shard.images[: len(shard.kept)])


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def work(lines: Any) -> None:
    """Answer jobs until there are no more.

    Each is a JSON object with `shard`, `path`, `source`, `addresses`, `cutting`, `lost` and `landmarks`.
    """
    opened: dict[str, Any] | None = None
    source: Source | None = None
    for line in lines:
        job = json.loads(line)
        if source is None or job["source"] != opened:
            opened, source = job["source"], open_source(job["source"])
            cutting: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in job["cutting"].items()
            }
            cutter = Cutter(Cutting(**cutting))
        lost = {int(position): reason for position, reason in job["lost"].items()}
        landmarks = None if job["landmarks"] is None else np.array(job["landmarks"], dtype=np.float32)
        make_shard(source, job["addresses"], cutter, lost, landmarks).save(Path(job["path"]))
        say(f"DONE {job['shard']}")


def job_line(
    shard: int,
    path: Path,
    source: Source,
    names: Sequence[str],
    cutting: Cutting,
    lost: dict[int, str],
    landmarks: Landmarks | None = None,
) -> str:
    """One job, as `work` reads it."""
    job = {
        "shard": shard,
        "path": str(path.absolute()),
        "source": source.specification,
        "addresses": [source.address(name) for name in names],
        "cutting": asdict(cutting),
        "lost": lost,
        "landmarks": None if landmarks is None else landmarks.tolist(),
    }
    return json.dumps(job) + "\n"


def main() -> None:
    """Work until the parent has no more jobs, or has gone."""
    try:
        work(sys.stdin)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
    except (OSError, MienError) as error:  # a full disk, a source that changed: no fault of one image
        say(f"FAILED {' '.join(str(error).split())}")
