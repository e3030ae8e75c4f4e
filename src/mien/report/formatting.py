"""Formats numbers for readers: round ticks, short numbers, durations."""

from __future__ import annotations

import math


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers in [low, high]."""
    step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 0.25, 12, 1.2k, 3M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{round(value, 6):.4g}"


def duration(seconds: float) -> str:
    """3 h 12 min, 12 min 4 s, 8 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
