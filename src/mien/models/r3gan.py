"""The networks of R3GAN (Huang, Gokaslan, Kuleshov, Tompkin 2024, arXiv:2501.05441): residual blocks with an inverted, grouped
bottleneck, no normalisation, no attention, resampling by a short filter. Written from the paper and its published tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, Model, ModelConfig, NetworkConfig, nearest_side
from mien.errors import UsageError
from mien.nn.priors import Normal
from mien.nn.resample import halve, twice

LEGAL = (16, 32, 64, 128, 256)
SLOPE = 0.2  # of every LeakyReLU
GAIN = sqrt(2 / (1 + SLOPE**2))


def widths_of(side: int, width: int) -> list[int]:
    """Feature maps at 4, 8, ... px: `width` up to 32 px, then half at each doubling (the FFHQ presets' table)."""
    if side not in LEGAL:
        raise UsageError(
            f"R3GAN's networks cannot make {side} px.",
            "They support powers of two from 16 to 256.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    sides = [4 * 2**power for power in range((side // 4).bit_length())]
    return [max(1, width // max(1, at // 32)) for at in sides]


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Weights from N(0, gain / sqrt(fan_in)); fan_in counts one group's inputs times the kernel's area."""
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(layer.weight[0].numel()))
    return layer


class BiasedLeaky(nn.Module):
    """LeakyReLU of x + bias: the only biases of the networks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None].to(x.dtype), SLOPE)


class Bottleneck(nn.Sequential):
    """1x1 to twice the width, grouped 3x3, 1x1 back; the last starts at zero, so that a block starts as the identity."""

    def __init__(self, width: int, group: int, blocks: int) -> None:
        inner = 2 * width
        gain = GAIN * blocks**-0.25
        super().__init__(
            scaled(nn.Conv2d(width, inner, 1, bias=False), gain),
            BiasedLeaky(inner),
            scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=max(1, inner // group), bias=False), gain),
            BiasedLeaky(inner),
            scaled(nn.Conv2d(inner, width, 1, bias=False), 0.0),
        )


class Stage(nn.Module):
    """Two residual blocks at one resolution."""

    def __init__(self, width: int, group: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottleneck(width, group, blocks) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def changes(widths: list[int]) -> Iterator[nn.Module]:
    """A 1x1 convolution where the width changes, the identity elsewhere."""
    for before, after in pairwise(widths):
        yield scaled(nn.Conv2d(before, after, 1, bias=False)) if before != after else nn.Identity()


class R3GANGenerator(Model):
    """A learned 4x4 tensor, scaled per channel by the latent, then stages of residual blocks; linear output."""

    def __init__(self, config: R3GANGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width)
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        embedding_dim = config.latent if faces.label_dim else 0
        self.embedding = scaled(nn.Linear(faces.label_dim, embedding_dim, bias=False)) if embedding_dim else None
        self.start = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.modulation = scaled(nn.Linear(config.latent + embedding_dim, widths[0], bias=False))
        self.stages = nn.ModuleList(Stage(width, config.group, 2 * len(widths)) for width in widths)
        self.changes = nn.ModuleList(changes(widths))
        self.last = scaled(nn.Conv2d(widths[-1], faces.channels, 1, bias=False))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            known = torch.zeros(z.shape[0], self.label_dim).to(z) if labels is None else labels.nan_to_num(0.0).to(z)
            z = torch.cat([z, self.embedding(known).to(z.dtype)], 1)
        x = (self.start * self.modulation(z)[:, :, None, None]).contiguous(memory_format=torch.channels_last)
        for index, stage in enumerate(self.stages):
            if index:
                x = twice(self.changes[index - 1](x))
            x = stage(x)
        images: Tensor = self.last(x)
        return images


@dataclass(frozen=True, kw_only=True)
class R3GANGeneratorConfig(ModelConfig):
    """`width` and `group` scale the network: 768 and 16 are the paper's."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)

    latent: int = 64  # numbers that describe a face, N(0, 1)
    width: int = 768  # feature maps up to 32 px; half at each doubling after
    group: int = 16  # feature maps in a group of the 3x3 convolutions

    def build(self, faces: ImageSpec) -> R3GANGenerator:
        return R3GANGenerator(self, faces)


class R3GANCritic(nn.Module):
    """Mirrors the generator, down to one logit; with labels, the inner product of its features and the label embedding."""

    def __init__(self, config: R3GANCriticConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width)[::-1]
        features = widths[-1]
        self.first = scaled(nn.Conv2d(faces.channels, widths[0], 1, bias=False))
        self.stages = nn.ModuleList(Stage(width, config.group, 2 * len(widths)) for width in widths)
        self.changes = nn.ModuleList(changes(widths))
        self.pool = scaled(nn.Conv2d(features, features, 4, groups=features, bias=False))
        self.last = scaled(nn.Linear(features, features if faces.label_dim else 1, bias=False))
        self.embedding = (
            scaled(nn.Linear(faces.label_dim, features, bias=False), features**-0.5) if faces.label_dim else None
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real."""
        x = self.first(images.contiguous(memory_format=torch.channels_last))
        for index, stage in enumerate(self.stages):
            if index:
                x = self.changes[index - 1](halve(x))
            x = stage(x)
        features: Tensor = self.last(self.pool(x).flatten(1))
        if self.embedding is None:
            return features.squeeze(1)
        assert labels is not None
        logits: Tensor = (features * self.embedding(labels.nan_to_num(0.0).to(images))).sum(1)
        return logits


@dataclass(frozen=True, kw_only=True)
class R3GANCriticConfig(NetworkConfig):
    """Sized like the generator; see R3GANGeneratorConfig."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)

    width: int = 768  # feature maps up to 32 px; half at each doubling after
    group: int = 16  # feature maps in a group of the 3x3 convolutions

    def build(self, faces: ImageSpec) -> R3GANCritic:
        return R3GANCritic(self, faces)
