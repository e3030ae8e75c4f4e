"""What changes while a run goes on, as functions of the number of real images seen."""

from __future__ import annotations

from math import cos, pi


def cosine(start: float, end: float, seen: int, over: int) -> float:
    """From `start` to `end` along half a cosine over the first `over` images, then constant (arXiv:2501.05441, appendix)."""
    return end + (start - end) * (1.0 + cos(pi * min(1.0, seen / over))) / 2.0


def linear(start: float, end: float, seen: int, over: int) -> float:
    """From `start` to `end` in a straight line over the first `over` images, then constant."""
    return start + (end - start) * min(1.0, seen / over)
