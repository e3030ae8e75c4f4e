"""A worker process: decodes, crops and resizes the images of one shard after another.

It reads jobs as lines of JSON and prints progress as lines of text: `START position` before each image, `DONE shard` after
each shard. It is a separate process, so that a file which crashes or hangs a decoder costs only that file, and so that one
worker runs on each core, on every machine that shares the folder.
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
    """Open the reader that a source's specification describes."""
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
        open_source,  # needs more than the standard library, so it is imported only for these sources
    )

    return open_source(specification)


def make_shard(
    reader: Reader,
    addresses: Sequence[str],
    preprocessor: Preprocessor,
    lost: dict[int, str],
    landmarks: Landmarks | None = None,
    first: int = 0,
) -> Shard:
    """Decode and crop the images at `addresses`, the rows of a pack from `first` on.

    `lost` maps positions that crashed a worker before to the reason.
    """
    shard = Shard(preprocessor.preprocess.side)
    notes, jpeg = Counter[str](), Counter[str]()
    for position, address in enumerate(addresses):
        report(f"START {position}")
        try:
            if position in lost:
                raise UnreadableFile(lost[position])
            marks = None if landmarks is None else landmarks[position]
            result = preprocessor.make(reader.read(address), marks, first + position)
        except UnreadableFile as error:
            shard.refused.append((position, str(error)))
            continue
        shard.pixels.append(result.image.tobytes())
        shard.positions.append(position)
        shard.geometry.append(result.geometry)
        shard.sizes.append(result.size)
        if preprocessor.preprocess.crop == "face":
            shard.outside.append(round(result.outside, 4))
        if result.notes:
            notes.update(result.notes)
        if result.jpeg:
            jpeg[result.jpeg] += 1
        if preprocessor.preprocess.signatures:
            add_signature(shard, result.image)
    shard.notes.update(notes)
    shard.jpeg.update(jpeg)
    return shard


def add_signature(shard: Shard, image: Image.Image) -> None:
    """Add the hash and the perceptual signature of the newest image, for the search for duplicates."""
    import hashlib  # hashlib and numpy are imported only by a worker that searches for duplicates

    from mien.data.duplicates import signature

    shard.hashes.append(hashlib.sha256(shard.pixels[-1]).hexdigest()[:32])
    shard.signatures.append(signature(image))


def report(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def work(lines: Any) -> None:
    """Process jobs until the input ends.

    Each job is a JSON object with `shard`, `path`, `source`, `addresses`, `preprocess`, `lost`, `landmarks` and `first`.
    """
    specification: dict[str, Any] | None = None
    reader: Reader | None = None
    config: dict[str, Any] | None = None
    for line in lines:
        job = bounded_json.loads_object(line)
        if reader is None or job["source"] != specification:
            specification, reader = job["source"], open_reader(job["source"])
        if job["preprocess"] != config:
            config = job["preprocess"]
            preprocess: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in job["preprocess"].items()
            }
            preprocessor = Preprocessor(PreprocessConfig(**preprocess))
        lost = {int(position): reason for position, reason in job["lost"].items()}
        landmarks = None if job["landmarks"] is None else to_array(job["landmarks"])
        shard = make_shard(reader, job["addresses"], preprocessor, lost, landmarks, job["first"])
        shard.save(Path(job["path"]))
        report(f"DONE {job['shard']}")


def to_array(landmarks: Any) -> Landmarks:
    import numpy as np

    return np.array(landmarks, dtype=np.float32)


def job_line(
    shard: int,
    path: Path,
    source: Source,
    names: Sequence[str],
    preprocess: PreprocessConfig,
    lost: dict[int, str],
    landmarks: Landmarks | None = None,
    first: int = 0,
) -> str:
    """One job as a line of JSON, in the format that `work` reads."""
    job = {
        "shard": shard,
        "path": str(path.absolute()),
        "source": source.specification,
        "addresses": [source.address(name) for name in names],
        "preprocess": asdict(preprocess),
        "lost": lost,
        "landmarks": None if landmarks is None else landmarks.tolist(),
        "first": first,
    }
    return json.dumps(job) + "\n"


def main() -> None:
    """Process jobs until the parent closes the pipe or ends."""
    gc.freeze()  # the modules loaded so far are never collected
    try:
        work(sys.stdin)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
    except (OSError, MienError) as error:  # a full disk or a changed source: not the fault of one image
        report(f"FAILED {' '.join(str(error).split())}")
