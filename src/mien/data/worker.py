"""A worker process: decodes, cuts and resizes the images of one shard after another.

Jobs come in as lines of JSON, progress goes out as lines of text: `START position` before each image, `DONE shard` after each
shard. It is a program of its own, so that a file which kills or hangs a decoder costs one file, and so that as many run as
there are cores, on as many machines as share the folder.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.readers import FileReader, Reader, TarReader, UnreadableFile, ZipReader
from mien.data.shard import Shard
from mien.errors import MienError
from mien.storage import bounded_json

if TYPE_CHECKING:
    from PIL import Image

    from mien.data.source import Landmarks, Source


def open_reader(specification: dict[str, Any]) -> Reader:
    """The reader of the source that a specification describes."""
    kind, path = specification["kind"], Path(specification.get("path", ""))
    if kind == "folder":
        return FileReader(path)
    if kind in ("list", "table"):
        return FileReader(path.parent)
    if kind == "zip":
        return ZipReader(path)
    if kind == "tar":
        return TarReader(Path(specification["plain"]))
    from mien.data.source_kinds import (
        open_source,  # needs more than the standard library: loaded by those sources alone
    )

    return open_source(specification)


def make_shard(
    reader: Reader,
    addresses: Sequence[str],
    cutter: Preprocessor,
    lost: dict[int, str],
    landmarks: Landmarks | None = None,
) -> Shard:
    """Decode and cut the images at `addresses`; `lost` holds positions that ended a worker before, with the reason."""
    shard = Shard(cutter.cutting.side)
    notes = Counter[str]()
    for position, address in enumerate(addresses):
        say(f"START {position}")
        try:
            if position in lost:
                raise UnreadableFile(lost[position])
            made = cutter.make(reader.read(address), None if landmarks is None else landmarks[position])
        except UnreadableFile as refusal:
            shard.refused.append((position, str(refusal)))
            continue
        shard.pixels.append(made.image.tobytes())
        shard.kept.append(position)
        shard.geometry.append(made.geometry)
        shard.sizes.append(made.size)
        if made.notes:
            notes.update(made.notes)
        if cutter.cutting.signatures:
            sign(shard, made.image)
    shard.notes.update(notes)
    return shard


def sign(shard: Shard, image: Image.Image) -> None:
    """Note what duplicates are known by, of the newest image."""
    import hashlib  # neither this nor numpy for a worker that is not asked for duplicates

    from mien.data.duplicates import signature

    shard.hashes.append(hashlib.sha256(shard.pixels[-1]).hexdigest()[:32])
    shard.signatures.append(signature(image))


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def work(lines: Any) -> None:
    """Answer jobs until there are no more.

    Each is a JSON object with `shard`, `path`, `source`, `addresses`, `cutting`, `lost` and `landmarks`.
    """
    opened: dict[str, Any] | None = None
    reader: Reader | None = None
    for line in lines:
        job = bounded_json.loads_object(line)
        if reader is None or job["source"] != opened:
            opened, reader = job["source"], open_reader(job["source"])
            cutting: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in job["cutting"].items()
            }
            cutter = Preprocessor(PreprocessConfig(**cutting))
        lost = {int(position): reason for position, reason in job["lost"].items()}
        landmarks = None if job["landmarks"] is None else to_array(job["landmarks"])
        make_shard(reader, job["addresses"], cutter, lost, landmarks).save(Path(job["path"]))
        say(f"DONE {job['shard']}")


def to_array(landmarks: Any) -> Landmarks:
    import numpy as np

    return np.array(landmarks, dtype=np.float32)


def job_line(
    shard: int,
    path: Path,
    source: Source,
    names: Sequence[str],
    cutting: PreprocessConfig,
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
    gc.freeze()  # what is loaded by now stays
    try:
        work(sys.stdin)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
    except (OSError, MienError) as error:  # a full disk, a source that changed: no fault of one image
        say(f"FAILED {' '.join(str(error).split())}")
