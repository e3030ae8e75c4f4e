"""Residual blocks without normalisation that start as the identity, after R3GAN (arXiv:2501.05441)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

from torch import Tensor, nn
from torch.nn import functional as F

from mien.errors import UsageError
from mien.nn.pixel_shuffle import GAIN, SLOPE, scaled


class Block(nn.Module):
    """x + conv(act(conv(act(x)))); the second convolution starts at zero."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = scaled(nn.Conv2d(width, width, 3, padding=1), sqrt(2 / (1 + SLOPE**2)) * blocks**-0.25)
        self.second = scaled(nn.Conv2d(width, width, 3, padding=1), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(F.leaky_relu(x, SLOPE))
        return x + self.second(F.leaky_relu_(h, SLOPE))  # type: ignore[no-any-return]


class GroupedBlock(nn.Module):
    """x + narrow(act(grouped(act(widen(x))))): 1x1 to twice the width, grouped 3x3, 1x1 back, which starts at zero.

    The block of R3GAN (arXiv:2501.05441) with biases.
    """

    def __init__(self, width: int, group: int, blocks: int) -> None:
        super().__init__()
        inner, gain = 2 * width, GAIN * blocks**-0.25
        groups = next(count for count in range(max(1, inner // group), 0, -1) if inner % count == 0)
        self.widen = scaled(nn.Conv2d(width, inner, 1), gain)
        self.grouped = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain)
        self.narrow = scaled(nn.Conv2d(inner, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu_(self.grouped(F.leaky_relu_(self.widen(x), SLOPE)), SLOPE)  # in place: nobody else needs them
        return x + self.narrow(h)  # type: ignore[no-any-return]


def block_stage(width: int, group: int, count: int, total: int) -> nn.Sequential:
    """`count` residual blocks of one resolution, of `total` in the network; `group` as in ResidualGeneratorConfig."""
    if group < 0:
        raise UsageError(
            f"group must be 0 or a positive integer, not {group}.",
            "It is the number of feature maps that a 3x3 convolution mixes; 0 = all of them.",
            "Use --model.group 16.",
        )
    blocks = (GroupedBlock(width, group, total) if group else Block(width, total) for _ in range(count))
    return nn.Sequential(*blocks)


def projections(widths: Sequence[int]) -> nn.ModuleList:
    """1x1 convolutions between neighbouring resolutions, where the number of feature maps changes."""
    return nn.ModuleList(
        scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) if a != b else nn.Identity() for a, b in pairwise(widths)
    )
