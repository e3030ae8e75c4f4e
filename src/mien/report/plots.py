"""Plots of a run's curves for papers and slides, with matplotlib if it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mien.report.charts import spread
from mien.report.formatting import short
from mien.report.run_reader import read_record
from mien.report.series import BALANCE, Panel, balance_panel, loss_panels, speed_panels
from mien.storage import atomic
from mien.storage.provenance import Claim, Provenance

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#8A6D00",
)  # Okabe and Ito's palette, which is safe for colour blindness
INK, SOFT, RULE = "#22222a", "#5d5c66", "#e4e1dc"
POINTS = 600
FEW = 4  # points of a curve below which each is marked
WIDTH, HEIGHT = 7.2, 3.4  # inches of one panel


def plot_run(run_dir: Path) -> list[Path]:
    """Draw plots/losses.png, balance.png and speed.png from metrics.jsonl, those with curves.

    Returns the written files: none without matplotlib.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return []
    record = read_record(run_dir)
    pages = {"losses.png": loss_panels(record, POINTS), "speed.png": speed_panels(record, POINTS)}
    if any(set(BALANCE) <= line.keys() for line in record.metrics):
        pages["balance.png"] = [balance_panel(record, POINTS)]
    return [draw(panels, run_dir / "plots" / name) for name, panels in sorted(pages.items()) if panels]


def draw(panels: Sequence[Panel], path: Path) -> Path:
    """Write `panels` one below the other over a common axis of images seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no global state and no window system.
    figure = Figure(figsize=(WIDTH, HEIGHT * len(panels)), dpi=144, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        _draw_panel(axes, panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        chart = Provenance({"chart_of": path.stem}, Claim.CHART)
        figure.savefig(temporary, format="png", pil_kwargs={"pnginfo": chart.png_info()})
    return path


def _draw_panel(axes: Any, panel: Panel) -> None:
    low, high = panel.limits
    names = []
    for series, colour in zip(panel.series, COLOURS, strict=False):
        axes.fill_between(series.seen, series.low, series.high, color=colour, alpha=0.16, linewidth=0)
        marker = "o" if len(series.seen) < FEW else ""  # a short run's curve is a point or two
        axes.plot(series.seen, series.value, color=colour, linewidth=1.8, solid_capstyle="round", marker=marker)
        names.append((float(series.value[-1]), series.label, colour, "bold"))
    for bound in panel.bounds:
        axes.axhline(bound.value, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)))
        names.append((bound.value, f"{bound.label} {short(bound.value)}", SOFT, "normal"))
    names.sort()
    heights = spread([(value - low) / (high - low) for value, *_ in names], 0.07, 1.0)
    for height, (_, label, colour, weight) in zip(heights, names, strict=True):
        axes.text(
            1.015, height, label, color=colour, fontweight=weight, fontsize=9, va="center", transform=axes.transAxes
        )
    axes.set_ylim(low, high)
    axes.set_xlim(0, max(float(series.seen[-1]) for series in panel.series))
    axes.set_title(panel.title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)
    axes.set_xlabel("images seen", fontsize=9, color=SOFT)
    axes.xaxis.set_major_formatter(lambda seen, _: short(seen))
    axes.tick_params(colors=SOFT, labelsize=9, length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
