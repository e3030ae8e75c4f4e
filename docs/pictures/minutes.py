"""Draw docs/pictures/minutes.webp: what `gan` draws of FairFace after some minutes of two cores, a row for each.

    mien train gan --data fairface64.pack --out small --threads 1 --minutes 36.6        the computing of 20 minutes of two cores
    python docs/pictures/minutes.py small/samples/0000007920.png small/samples/0000039792.png ...

Its arguments are sheets that runs draw on their way. A row has twelve faces of 64 px, or six of 128 px: the first seeds, none left
out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from mien.report.grid import GAP, grid

COLUMNS = 8  # of a sheet of 64 faces
WIDTH, BETWEEN = 790, 6  # pixels; between two rows


def faces_of(sheet: Image.Image) -> list[Image.Image]:
    """The first faces of a sheet, as many as fill a row."""
    side = (sheet.width - GAP) // COLUMNS - GAP
    corners = (
        (GAP + seed % COLUMNS * (side + GAP), GAP + seed // COLUMNS * (side + GAP)) for seed in range(12 * 64 // side)
    )
    return [sheet.crop((left, top, left + side, top + side)) for left, top in corners]


def main() -> None:
    """Write the picture."""
    strips = []
    for file in sys.argv[1:]:
        faces = faces_of(Image.open(file).convert("RGB"))
        strip = grid(faces, columns=len(faces))
        strips.append(strip.resize((WIDTH, round(strip.height * WIDTH / strip.width)), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (WIDTH, sum(strip.height + BETWEEN for strip in strips) - BETWEEN), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + BETWEEN
    sheet.save(Path(__file__).with_name("minutes.webp"), quality=88, method=6)


if __name__ == "__main__":
    main()
