"""Draw docs/pictures/minutes.webp: what `quick` draws of FairFace after some minutes of two cores, a row for each.

    mien train quick --data fairface64.pack --out after --threads 1 --minutes 1.83       the computing of a minute of two cores
    python docs/pictures/minutes.py AFTER_1 AFTER_5 AFTER_20

Copy the run after each piece: the same command with more minutes goes on. A row has twelve faces of 64 px, or six of 128 px: the
first seeds, none left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from mien.report.grid import grid
from mien.sampling.sampler import Sampler

WIDTH, GAP = 790, 6  # pixels; between two rows


def main() -> None:
    """Write the picture."""
    strips = []
    for run in sys.argv[1:]:
        sampler = Sampler.load(run)
        columns = 12 * 64 // sampler.image_spec.side
        strip = grid(sampler.sample(range(columns)), columns=columns).convert("RGB")
        strips.append(strip.resize((WIDTH, round(strip.height * WIDTH / strip.width)), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (WIDTH, sum(strip.height + GAP for strip in strips) - GAP), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    sheet.save(Path(__file__).with_name("minutes.webp"), quality=88, method=6)


if __name__ == "__main__":
    main()
