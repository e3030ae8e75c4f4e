"""The way into the pixels and out of them, for networks whose most expensive resolution is `fold` times coarser than the image.

Rearranging channels into pixels is the cheapest way, and leaves a period of `fold` pixels: each of them has weights of its own, and
nothing makes neighbours agree. With a few `fine` feature maps at full resolution they do, for a seventh of the time more.
"""

from __future__ import annotations

from math import sqrt
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of every LeakyReLU
GAIN = sqrt(2 / (1 + SLOPE**2))  # keeps the variance through a LeakyReLU

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def scaled(layer: Layer, gain: float) -> Layer:
    """Weights from N(0, gain / sqrt(fan_in)), biases 0."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def share_weights(layer: nn.Conv2d, phases: int) -> None:
    """Start the pixels that one position unfolds into equal: no checkerboard to unlearn (Aitken et al. 2017, arXiv:1707.02937)."""
    with torch.no_grad():
        layer.weight.copy_(layer.weight[::phases].repeat_interleave(phases, 0))


class Folded(nn.Conv2d):
    """Images -> features: pixels become channels, then a 3x3 convolution."""

    def __init__(self, channels: int, width: int, fold: int) -> None:
        super().__init__(channels * fold**2, width, 3, padding=1)
        self.fold = fold

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.pixel_unshuffle(images, self.fold).contiguous(memory_format=torch.channels_last))


class Unfolded(nn.Conv2d):
    """Features -> images: a 3x3 convolution, whose channels become pixels."""

    def __init__(self, width: int, channels: int, fold: int) -> None:
        super().__init__(width, channels * fold**2, 3, padding=1)
        self.fold = fold

    def forward(self, features: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(features), self.fold)


class FineEntry(nn.Module):
    """Images -> features: a look at full resolution, then a convolution with a stride whose steps overlap."""

    def __init__(self, channels: int, width: int, fold: int, fine: int) -> None:
        super().__init__()
        self.see = scaled(nn.Conv2d(channels, fine, 3, padding=1), 1.0)
        self.gather = scaled(nn.Conv2d(fine, width, 2 + fold, padding=1, stride=fold), GAIN)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.see(images.contiguous(memory_format=torch.channels_last))
        return self.gather(F.leaky_relu(seen, SLOPE))  # type: ignore[no-any-return]


class FineExit(nn.Module):
    """Features -> images: smoothly enlarged feature maps, and two convolutions at full resolution."""

    def __init__(self, width: int, channels: int, fold: int, fine: int) -> None:
        super().__init__()
        self.fold = fold
        self.narrow = scaled(nn.Conv2d(width, fine, 3, padding=1), GAIN)
        self.draw = scaled(nn.Conv2d(fine, fine, 3, padding=1), GAIN)
        self.paint = scaled(nn.Conv2d(fine, channels, 3, padding=1), 0.3)

    def forward(self, features: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(features), scale_factor=float(self.fold), mode="bilinear", align_corners=False)
        return self.paint(F.leaky_relu(self.draw(F.leaky_relu(x, SLOPE)), SLOPE))  # type: ignore[no-any-return]


def entry(channels: int, width: int, fold: int, fine: int) -> nn.Module:
    """Images `[n, channels, H, W]` -> features `[n, width, H / fold, W / fold]`."""
    return FineEntry(channels, width, fold, fine) if fine else scaled(Folded(channels, width, fold), 1.0)


def way_out(width: int, channels: int, fold: int, fine: int, shared: bool = True) -> nn.Module:
    """Features (after their activation) `[n, width, h, w]` -> images `[n, channels, h fold, w fold]`."""
    if fine:
        return FineExit(width, channels, fold, fine)
    unfolded = scaled(Unfolded(width, channels, fold), 0.3)
    if shared:
        share_weights(unfolded, fold**2)
    return unfolded
