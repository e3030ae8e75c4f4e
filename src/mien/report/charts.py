"""Curves as inline SVG that scales to any width: the lines stretch, the text does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mien.report.formatting import short, ticks
from mien.report.html import Markup, join, tag
from mien.report.series import Numbers, Panel, Series

WIDTH, HEIGHT = 1000, 200  # the lines' own units; height is also pixels on screen
LEFT, LABEL_GAP = 46, 15  # pixels


def chart(panel: Panel, index: int, extent: tuple[float, float]) -> Markup:
    """A figure with title, meaning, curves over `extent` (images seen, from and to) and a readout of values."""
    low, high = panel.limits

    def across(seen: Numbers | float) -> Any:
        return (seen - extent[0]) / max(extent[1] - extent[0], 1) * WIDTH

    def down(value: Numbers | float) -> Any:
        return HEIGHT - (value - low) / (high - low) * HEIGHT

    levels, marks = ticks(low, high), ticks(*extent) if extent[1] > extent[0] else [extent[0]]
    lines = tag(
        "svg",
        *(_level(down(level), "gridline") for level in levels),
        *(_level(down(bound.value), "bound") for bound in panel.bounds),
        *(_band(series, number, across, down) for number, series in enumerate(panel.series)),
        *(_curve(series, number, across, down) for number, series in enumerate(panel.series)),
        tag("line", class_="cursor", x1=WIDTH, x2=WIDTH, y1=0, y2=HEIGHT),
        class_="lines",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    axis = tag(
        "svg",
        *(tag("text", short(level), x=LEFT - 8, y=round(down(level) + 4, 1), text_anchor="end") for level in levels),
        class_="levels",
        width=LEFT,
        height=HEIGHT,
        aria_hidden="true",
    )
    foot = tag(
        "svg",
        *(
            tag("text", short(mark), x=f"{across(mark) / WIDTH:.2%}", y=14, text_anchor=_anchor(across(mark) / WIDTH))
            for mark in marks
        ),
        class_="marks",
        width="100%",
        height=18,
        aria_hidden="true",
    )
    last = max(float(series.seen[-1]) for series in panel.series)
    area = tag(
        "div",
        lines,
        class_="area",
        role="slider",
        tabindex=0,
        aria_label=f"{panel.title}: read a point",
        aria_valuemin=0,
        aria_valuemax=int(last),
        aria_valuenow=int(last),
    )
    return tag(
        "figure",
        tag("figcaption", tag("h3", panel.title), tag("p", panel.meaning) if panel.meaning else None),
        tag("div", axis, area, _ends(panel, down), foot, class_="plot"),
        tag("p", _readout(panel, last), class_="readout"),
        tag("p", spikes, class_="aside") if (spikes := _spikes(panel)) else None,
        class_="chart",
        data_chart=index,
        data_key=panel.key,
    )


def chart_data(panel: Panel) -> list[dict[str, Any]]:
    """The data with which the page's script reads out a panel."""
    return [
        {"seen": [int(seen) for seen in series.seen], "value": [float(f"{value:.4g}") for value in series.value]}
        for series in panel.series
    ]


def _level(at: float, kind: str) -> Markup:
    return tag("line", class_=kind, x1=0, x2=WIDTH, y1=round(at, 1), y2=round(at, 1))


def _anchor(share: float) -> str:
    return "start" if share < 0.04 else "end" if share > 0.96 else "middle"


def _band(series: Series, number: int, across: Any, down: Any) -> Markup:
    there = _points(across(series.seen), down(series.high))
    back = _points(across(series.seen[::-1]), down(series.low[::-1]))
    return tag("polygon", class_=f"band c{number}", points=f"{there} {back}")


def _curve(series: Series, number: int, across: Any, down: Any) -> Markup:
    xs, ys = across(series.seen), down(series.value)
    if len(xs) == 1:  # a line needs two ends: a short dash stands for a point
        xs, ys = np.array([xs[0] - 4, xs[0] + 4]), np.repeat(ys, 2)
    return tag("polyline", class_=f"curve c{number}", points=_points(xs, ys))


def _points(xs: Numbers, ys: Numbers) -> str:
    """Points of a line, clipped slightly outside the picture to save bytes."""
    ys = np.clip(ys, -HEIGHT, 2 * HEIGHT)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def _ends(panel: Panel, down: Any) -> Markup | None:
    """The curves' names at their right ends, pushed apart where they would overlap."""
    if len(panel.series) < 2 and not panel.bounds:
        return None
    names = [(float(down(series.value[-1])), series.label, f"c{n}") for n, series in enumerate(panel.series)]
    names += [(float(down(bound.value)), f"{bound.label} {short(bound.value)}", "rule") for bound in panel.bounds]
    names.sort()
    heights = spread([at for at, _, _ in names], LABEL_GAP, HEIGHT)
    width = min(150, 14 + round(6.6 * max(len(label) for _, label, _ in names)))
    return tag(
        "svg",
        *(
            tag("text", label, x=8, y=round(at + 4, 1), class_=kind)
            for at, (_, label, kind) in zip(heights, names, strict=True)
        ),
        class_="ends",
        width=width,
        height=HEIGHT,
        aria_hidden="true",
    )


def spread(heights: Sequence[float], gap: float, room: float) -> list[float]:
    """Move sorted heights as little as needed so that they are `gap` apart within [0, room]."""
    placed: list[float] = []
    for at in heights:
        placed.append(max(at, placed[-1] + gap) if placed else max(at, gap / 2))
    ceiling = room - gap / 2
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def _readout(panel: Panel, last: float) -> Markup:
    """The values at the cursor, which is at the end until the reader moves it."""
    values = (
        tag(
            "span",
            tag("b", series.label),
            " ",
            tag("span", short(float(series.value[-1])), class_="value"),
            class_=f"c{n}",
        )
        for n, series in enumerate(panel.series)
    )
    return join(tag("span", tag("span", f"{int(last):,}", class_="at"), " images", class_="when"), *values)


def _spikes(panel: Panel) -> str:
    low, high = panel.limits
    peak = max(float(series.high.max()) for series in panel.series)
    return f"Single peaks up to {short(peak)} are cut off." if peak > high + 0.15 * (high - low) else ""
