"""The chart of FID over minutes, of every system in the gallery: `python benchmarks/fid_chart.py`.

Reads what `benchmarks/gallery.py` measured (docs/pictures/gallery/gallery.json), writes docs/pictures/fid-over-minutes.png.
Both axes are logarithmic: most is learned in the first minutes, and a halved FID is the same step anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from mien.report.charts import spread
from mien.report.plots import COLOURS, INK, RULE, SOFT

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SIDE = 32  # pixels: rows of another side are not comparable
OURS = {"gan": COLOURS[1]}  # of mien itself; the reproduced ones are grey


def rows_of(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows that the chart shows."""
    return {name: row for name, row in facts.items() if row["side"] == SIDE and row.get("fid_over_minutes")}


def digest(facts: dict[str, dict[str, Any]]) -> str:
    """A hash of what the chart shows, which its file carries: so a test sees whether it is current."""
    drawn = {name: [row["fid_over_minutes"], row["eigenfaces"]] for name, row in sorted(rows_of(facts).items())}
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def chart(facts: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the curves of all rows with `fid_over_minutes` at SIDE, named at their ends, and the baseline as a dashed line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = rows_of(facts)
    baseline = next(row["eigenfaces"] for row in rows.values())
    ends = {name: row["fid_over_minutes"][-1][1] for name, row in rows.items()}
    values = [value for row in rows.values() for _, value in row["fid_over_minutes"]]
    low, high = 0.85 * min(*values, baseline), 1.1 * max(values)
    figure = Figure(figsize=(8.2, 4.6), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", ylim=(low, high), xlabel="CPU minutes of one core")
    for name, row in rows.items():
        minutes, fids = zip(*row["fid_over_minutes"], strict=True)
        ours = name in OURS
        axes.plot(minutes, fids, "-o", color=OURS.get(name, "#9a98a3"), linewidth=2.2 if ours else 1.2, markersize=4)
    axes.axhline(baseline, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)))
    labels = sorted([*((value, name) for name, value in ends.items()), (baseline, "eigenfaces")])
    places = spread([math.log(value / low) / math.log(high / low) for value, _ in labels], 0.052, 1.0)
    for place, (value, name) in zip(places, labels, strict=True):
        colour, weight = (OURS[name], "bold") if name in OURS else (SOFT, "normal")
        axes.text(1.02, place, f"{name}  {value:.0f}", color=colour, weight=weight, fontsize=9, va="center",
                  transform=axes.transAxes)  # fmt: skip
    axes.set_title(f"FID of 1,000 samples, FairFace, {SIDE} px", loc="left", fontsize=11, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axes.tick_params(which="both", labelsize=8, colors=SOFT)
    axes.grid(axis="y", which="both", color=RULE, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, metadata={"Description": digest(facts)})


if __name__ == "__main__":
    chart(
        json.loads((PICTURES / "gallery" / "gallery.json").read_text(encoding="utf-8")),
        PICTURES / "fid-over-minutes.png",
    )
