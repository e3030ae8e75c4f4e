"""Dropout of whole feature maps as Torch7 had it."""

from __future__ import annotations

from torch import Tensor, nn


class SpatialDropout(nn.Dropout2d):
    """Torch7's `nn.SpatialDropout`: it does not rescale what it keeps in training, and multiplies by 1 - p outside it.

    `nn.Dropout2d` divides by 1 - p in training instead; behind three layers with p = 0.2 features would be 1.95 times larger.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1.0 - self.p)
