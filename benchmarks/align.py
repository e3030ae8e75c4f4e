"""How well faces are aligned: `python benchmarks/align.py ARCHIVE.zip [--every 10]`.

For every n-th picture: was a face detected; where do its eyes land by the landmarks that the aligner used (mapped by its
transform); where are they when they are found again, from nothing, in a copy aligned at twice the side; and where does
the detector alone, a second network with its own landmarks, see them in that copy. A face counts when its farther eye is within
2% of the side of its target; a face that is not found again counts as missed.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from mien.data.align import Aligner, Template

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--eye-distance", type=float, default=Template().eye_distance)
    parser.add_argument("--eye-height", type=float, default=Template().eye_height)
    parser.add_argument("--mouth-weight", type=float, default=Template().mouth_weight)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    template = Template(eye_distance=given.eye_distance, eye_height=given.eye_height, mouth_weight=given.mouth_weight)
    with zipfile.ZipFile(given.archive) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(IMAGES)][:: given.every]
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
