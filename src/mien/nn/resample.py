"""Doubling and halving by the filter [1, 3, 3, 1], in both directions, with zeros beyond the border: smooth enough to leave no
aliases worth learning from, short enough to be cheap (Karras et al. 2020, arXiv:1912.04958, appendix B).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def twice(x: Tensor) -> Tensor:
    """`[n, C, h, w]` -> `[n, C, 2 h, 2 w]`: zeros in between, then the filter with a gain of 4.

    Each output is 1/4 and 3/4 of its two neighbours a direction, which is what bilinear enlargement computes.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    return F.interpolate(padded, scale_factor=2.0, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def halve(x: Tensor) -> Tensor:
    """`[n, C, 2 h, 2 w]` -> `[n, C, h, w]`: the filter, then every second pixel."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
