"""First and last layers of networks whose most expensive resolution is `patch` times coarser than the image.

Pixel shuffle is the cheapest, but leaves an artefact with a period of `patch` pixels, because each position of a patch has its own
weights. A few feature maps at full resolution (`full_res_width`) remove it and cost 14% more time (docs/LOG.md).
"""

from __future__ import annotations

from math import sqrt
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of every LeakyReLU
GAIN = sqrt(2 / (1 + SLOPE**2))  # preserves the variance through a LeakyReLU

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def scaled(layer: Layer, gain: float) -> Layer:
    """Weights from N(0, gain / sqrt(fan_in)), biases 0."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def share_weights(layer: nn.Conv2d, phases: int) -> None:
    """Equal initial weights for all pixels of a patch: avoids checkerboard artefacts (Aitken et al. 2017, arXiv:1707.02937)."""
    with torch.no_grad():
        layer.weight.copy_(layer.weight[::phases].repeat_interleave(phases, 0))


class UnshuffleConv(nn.Conv2d):
    """Images -> features: pixel unshuffle, then a 3x3 convolution."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__(channels * patch**2, width, 3, padding=1)
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.pixel_unshuffle(images, self.patch).contiguous(memory_format=torch.channels_last))


class ShuffleConv(nn.Conv2d):
    """Features -> images: a 3x3 convolution, then pixel shuffle."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__(width, channels * patch**2, 3, padding=1)
        self.patch = patch

    def forward(self, features: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(features), self.patch)


class FullResolutionInput(nn.Module):
    """Images -> features: a convolution at full resolution, then a strided one, of patches that overlap by a pixel or not."""

    def __init__(self, channels: int, width: int, patch: int, full_res_width: int, overlap: bool = True) -> None:
        super().__init__()
        edge = int(overlap)
        self.first = scaled(nn.Conv2d(channels, full_res_width, 3, padding=1), 1.0)
        self.second = scaled(nn.Conv2d(full_res_width, width, patch + 2 * edge, padding=edge, stride=patch), GAIN)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images.contiguous(memory_format=torch.channels_last))
        return self.second(F.leaky_relu_(x, SLOPE))  # type: ignore[no-any-return]


class FullResolutionOutput(nn.Module):
    """Features -> images: bilinear upsampling, then two convolutions at full resolution."""

    def __init__(self, width: int, channels: int, patch: int, full_res_width: int) -> None:
        super().__init__()
        self.patch = patch
        self.first = scaled(nn.Conv2d(width, full_res_width, 3, padding=1), GAIN)
        self.second = scaled(nn.Conv2d(full_res_width, full_res_width, 3, padding=1), GAIN)
        self.third = scaled(nn.Conv2d(full_res_width, channels, 3, padding=1), 0.3)

    def forward(self, features: Tensor) -> Tensor:
        x = F.interpolate(self.first(features), scale_factor=float(self.patch), mode="bilinear", align_corners=False)
        return self.third(F.leaky_relu_(self.second(F.leaky_relu_(x, SLOPE)), SLOPE))  # type: ignore[no-any-return]


def input_layer(channels: int, width: int, patch: int, full_res_width: int, overlap: bool = True) -> nn.Module:
    """Images `[n, channels, H, W]` -> features `[n, width, H / patch, W / patch]`."""
    return (
        FullResolutionInput(channels, width, patch, full_res_width, overlap)
        if full_res_width
        else scaled(UnshuffleConv(channels, width, patch), 1.0)
    )


def output_layer(width: int, channels: int, patch: int, full_res_width: int, shared: bool = True) -> nn.Module:
    """Features (after their activation) `[n, width, h, w]` -> images `[n, channels, h patch, w patch]`."""
    if full_res_width:
        return FullResolutionOutput(width, channels, patch, full_res_width)
    layer = scaled(ShuffleConv(width, channels, patch), 0.3)
    if shared:
        share_weights(layer, patch**2)
    return layer
