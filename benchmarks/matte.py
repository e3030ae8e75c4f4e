"""Backgrounds removed, to be looked at: `python benchmarks/matte.py ARCHIVE.zip SHEET.png [--background blur]`.

Writes a sheet of pictures beside their cut-outs and prints the time a picture takes, and how much of it is left.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from mien.data.matte import Matte

IMAGES = (".jpg", ".jpeg", ".png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--background", default="grey")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--columns", type=int, default=10)
    given = parser.parse_args()
    matte = Matte(given.background)
    pairs, seconds, shares = [], [], []
    with zipfile.ZipFile(given.archive) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(IMAGES)]
        for name in names[:: max(1, len(names) // given.count)][: given.count]:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            begun = time.perf_counter()
            cut = matte.apply(image)
            seconds.append(time.perf_counter() - begun)
            shares.append(float(matte.alpha(image).mean()))
            pairs.append(np.hstack([np.asarray(image), np.asarray(cut)]))
    height, width = (max(pair.shape[axis] for pair in pairs) for axis in (0, 1))
    rows = -(-len(pairs) // given.columns)
    sheet = Image.new("RGB", (given.columns * width, rows * height))
    for position, pair in enumerate(pairs):
        sheet.paste(Image.fromarray(pair), (position % given.columns * width, position // given.columns * height))
    sheet.save(given.sheet)
    report = {
        "images": len(pairs),
        "milliseconds": round(1000 * float(np.median(seconds)), 1),
        "person": {
            "median": round(float(np.median(shares)), 3),
            "least": round(min(shares), 3),
            "most": round(max(shares), 3),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
