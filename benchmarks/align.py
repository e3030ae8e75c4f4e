"""How well faces are aligned: `python benchmarks/align.py ARCHIVE.zip [--every 10]`.

For every n-th picture: was a face detected; where do its eyes land by the landmarks that the aligner used (mapped by its
transform); where are they when they are found again, from nothing, in a copy aligned at twice the side; and where does
the detector alone, a second network with its own landmarks, see them in that copy. A face counts when its farther eye is within
2% of the side of its target; a face that is not found again counts as missed.

`--speed` measures processor time instead: of one look of the detector at 256 pixels, and of all that `--crop face` does from a
file's bytes on, alternately in blocks of 10 pictures; the ratio is the median over blocks. `--turned` turns each picture by
quarters: right is a face whose eyes are within 0.15 of their distance from where they are in the picture as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from mien.data.align import Aligner, Template
from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.readers import UnreadableFile

IMAGES = (".jpg", ".jpeg", ".png")


def measure(task: tuple[str, list[str], int, Template]) -> list[tuple[float, float, float, float] | None]:
    """For each picture the errors (used, found again, detector alone) as shares of the side, and seconds; None: no face."""
    path, names, side, template = task
    aligner, twice = Aligner(side, template), Aligner(2 * side, template)
    target = template.points(2 * side)[:2]
    rows: list[tuple[float, float, float, float] | None] = []
    with zipfile.ZipFile(path) as archive:
        for name in names:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            begun = time.perf_counter()
            aligned = aligner.align(image)
            seconds = time.perf_counter() - begun
            large = twice.align(image)
            if aligned is None or large is None:
                rows.append(None)
                continue
            used = np.linalg.norm(aligned.landmarks[:2] - template.points(side)[:2], axis=1).max() / side
            pixels = np.asarray(large.image)
            again = twice.find(pixels)
            alone = twice.detect(pixels)
            errors = [float(used), 1.0, 1.0]
            if again is not None:
                errors[1] = float(np.linalg.norm(again.landmarks[:2] - target, axis=1).max() / (2 * side))
            if len(alone):
                largest = alone[np.argmax(alone[:, 2] * alone[:, 3])]
                errors[2] = float(np.linalg.norm(largest[4:8].reshape(2, 2) - target, axis=1).max() / (2 * side))
            rows.append((errors[0], errors[1], errors[2], seconds))
    return rows


def speed(path: Path, names: list[str], side: int, block: int = 10) -> dict[str, object]:
    """Pictures per second of one core for detection alone and for all of `--crop face`, and the ratio of their times."""
    maker = Preprocessor(PreprocessConfig(side=side, crop="face", resampler="lanczos"))
    maker.load()
    detector, seconds = Aligner(side), []
    with zipfile.ZipFile(path) as archive:
        files = [archive.read(name) for name in names]
    for first in range(-block, len(files) - block + 1, block):  # the first block again, for what is done once
        some = files[max(first, 0) : max(first, 0) + block]
        views = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in some]
        times = [time.thread_time()]
        for view in views:
            detector.detect(view, 256 / min(view.shape[:2]))
        times.append(time.thread_time())
        for data in some:
            with contextlib.suppress(UnreadableFile):
                maker.make(data)
        times.append(time.thread_time())
        seconds.append(np.diff(times) / block)
    alone, whole = np.median(seconds[1:], axis=0)
    ratios = [b / a for a, b in seconds[1:]]
    return {"detection": round(1 / alone), "whole": round(1 / whole), "ratio": round(float(np.median(ratios)), 2)}


def turned(path: Path, names: list[str]) -> dict[str, object]:
    """How many faces are right after each turn counterclockwise, and how many were found."""
    aligner, right, found = Aligner(64), [0] * 4, [0] * 4
    with zipfile.ZipFile(path) as archive:
        for name in names:
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            level = aligner.find(pixels)
            for quarters in range(4):
                view = np.ascontiguousarray(np.rot90(pixels, quarters))
                face, height = aligner.find(view), view.shape[0]
                if face is None or level is None:
                    continue
                found[quarters] += 1
                eyes, width = face.landmarks[:2], view.shape[1]
                for _ in range(quarters):
                    eyes = np.stack([height - 1 - eyes[:, 1], eyes[:, 0]], axis=1)
                    height, width = width, height
                distance = np.linalg.norm(level.landmarks[1] - level.landmarks[0])
                right[quarters] += bool(np.linalg.norm(eyes - level.landmarks[:2], axis=1).max() < 0.15 * distance)
    return {"right": right, "found": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--eye-distance", type=float, default=Template().eye_distance)
    parser.add_argument("--eye-height", type=float, default=Template().eye_height)
    parser.add_argument("--mouth-weight", type=float, default=Template().mouth_weight)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--turned", action="store_true")
    given = parser.parse_args()
    template = Template(eye_distance=given.eye_distance, eye_height=given.eye_height, mouth_weight=given.mouth_weight)
    with zipfile.ZipFile(given.archive) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(IMAGES)][:: given.every]
    if given.speed or given.turned:
        found = speed(given.archive, names, given.side) if given.speed else turned(given.archive, names)
        print(json.dumps({"images": len(names), "side": given.side, **found}))
        return
    parts = [(str(given.archive), names[i :: given.processes], given.side, template) for i in range(given.processes)]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        rows = [row for part in pool.map(measure, parts) for row in part]
    faces = np.array([row for row in rows if row is not None])
    report: dict[str, object] = {"images": len(rows), "detected": len(faces), "side": given.side}
    for column, name in enumerate(("used", "found_again", "detector_alone")):
        errors = faces[:, column]
        report[name] = {
            "within_2_percent": round(float((errors < 0.02).mean()), 4),
            "median": round(float(np.median(errors)), 4),
            "p95": round(float(np.percentile(errors, 95)), 4),
        }
    report["milliseconds"] = round(1000 * float(np.median(faces[:, 3])), 1)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
