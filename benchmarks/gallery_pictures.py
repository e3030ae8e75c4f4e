"""The pictures of the gallery: sheets, strips of a training, and curves, each small enough for the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MOST_BYTES = 300_000  # of a picture
WIDE = 548  # pixels of a sheet, about
MOMENTS = 8  # rows of a strip


def opened(path: Path) -> Any:
    from PIL import Image

    return Image.open(path).convert("RGB")


def keep(image: Any, path: Path, times: int = 0) -> None:
    """Write a picture for the page in at most MOST_BYTES, its pixels enlarged by a whole number: about to WIDE where it is 0."""
    from PIL import Image

    times = times or max(1, WIDE // image.width)
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in (92, 85, 75, 60, 45):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            return


def strip(run: Path) -> Any:
    """Eight seeds at eight moments, a row each, the last the newest: each about as many times older as the one before."""
    from PIL import Image

    from mien.report.grid import GAP
    from mien.report.run_reader import sample_grids

    grids = sample_grids(run)
    last = grids[-1][0]
    wanted = [last / 2.0 ** (MOMENTS - 1 - place) for place in range(MOMENTS)]
    chosen = dict.fromkeys(min(grids, key=lambda grid: abs(grid[0] - seen)) for seen in wanted)
    rows = []
    for _, path in chosen:
        whole = opened(path)
        height = GAP + (whole.height - GAP) // 8  # of a grid of eight rows
        rows.append(whole.crop((0, 0, whole.width, height)))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def curves(run: Path, path: Path) -> None:
    """The losses of a run, or the three curves of a game, as its report plots them."""
    from mien.report.plots import plot_run

    drawn = {found.name: found for found in plot_run(run)}
    chosen = drawn.get("balance.png") or drawn.get("losses.png")
    if chosen is None:
        return
    image = opened(chosen)
    image.thumbnail((820, 10_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(64).save(path, optimize=True)
