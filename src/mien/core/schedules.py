"""What changes while a run goes on, as functions of the number of real images seen."""

from __future__ import annotations

from math import cos, pi


def cosine(start: float, end: float, seen: int, over: int) -> float:
    """From `start` to `end` along half a cosine over the first `over` images, then constant (arXiv:2501.05441, appendix)."""
    return end + (start - end) * (1.0 + cos(pi * min(1.0, seen / over))) / 2.0


def linear(start: float, end: float, seen: int, over: int) -> float:
    """From `start` to `end` in a straight line over the first `over` images, then constant."""
    return start + (end - start) * min(1.0, seen / over)


def power(start: float, end: float, seen: int, over: int, exponent: float) -> float:
    """From `start` to `end`: (seen / over) to the power `exponent` is the share of the way done, over the first `over` images."""
    share: float = min(1.0, seen / over) ** exponent
    return start - share * (start - end)


def torch_epochs(lr: float, decay: float, seen: int, epoch_images: int, floor: float) -> float:
    """`lr` in epoch 1, and `lr` times `decay`^e in every later epoch e, never below `floor`.

    So skaae/torch-gan has it: after epoch 1 it counts on to 2, and only then sets a rate.
    """
    epoch = 1 + seen // epoch_images
    factor: float = decay**epoch if epoch > 1 else 1.0
    return max(lr * factor, floor)
