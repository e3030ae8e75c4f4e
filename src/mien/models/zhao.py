"""sicongzhao's BEGAN (Face-Generation-and-Interpolation-with-BEGAN, 2020): pooling and 1x1 convolutions instead of strides,
a tanh, no skips, and a row of options.

A 1x1 convolution commutes with average pooling and with nearest upsampling, and so does what follows it pixel by pixel. So
here the narrow convolutions run on the smaller side of each change of resolution: the same numbers, for a quarter of their work.
The 3x3 convolution after each upsampling absorbs it, for half of its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, Model, ModelConfig, nearest_side
from mien.core.families import AutoencoderCriticModel
from mien.errors import UsageError
from mien.nn.priors import Uniform
from mien.nn.upsample import upsample_conv2d

LEGAL = (16, 32, 64, 128, 256, 512)
BASE = 8  # px of the coarsest tensor

Growth = Literal["linear", "exponential"]
Upsampling = Literal["nearest", "transposed"]
Initialisation = Literal["framework", "linear", "all"]


def levels(side: int) -> int:
    """How often 8 px doubles to reach `side`."""
    if side not in LEGAL:
        raise UsageError(
            f"sicongzhao's BEGAN cannot make {side} px.",
            "It doubles from 8 px, to 512 at most.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    return int(log2(side // BASE))


def convolutions(width: int, count: int) -> list[nn.Module]:
    """`count` 3x3 convolutions that keep their width, each with an ELU."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ELU(inplace=True)]
    return layers


class Encoder(nn.Module):
    """Images -> `[n, latent]`; feature maps grow by a width a level, or double."""

    def __init__(self, config: ZhaoConfig, faces: ImageSpec) -> None:
        super().__init__()
        n, factors = config.encoder_width, [1, 2]
        for _ in range(levels(faces.side) - 1):
            factors.append(factors[-1] + 1 if config.growth == "linear" else 2 * factors[-1])
        layers: list[nn.Module] = [nn.Conv2d(faces.channels, n, 3, padding=1), nn.ELU(inplace=True)]
        for a, b in pairwise(factors):
            layers += [*convolutions(a * n, config.layers), nn.AvgPool2d(2), nn.Conv2d(a * n, b * n, 1)]
        widest = factors[-1] * n
        self.body = nn.Sequential(*layers, *convolutions(widest, 2))
        self.embed = nn.Linear(widest * BASE**2, config.latent)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(self.body(images).flatten(1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """`[n, latent]` -> images in [-1, 1]: the generator, and the second half of the autoencoder."""

    def __init__(self, config: ZhaoConfig | ZhaoGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        n = config.width
        self.nearest = config.upsampling == "nearest"
        self.embed = nn.Linear(config.latent, n * BASE**2)
        depth = levels(faces.side)
        self.narrow = nn.ModuleList(nn.Conv2d(n, n, 1) for _ in range(depth))
        self.stages = nn.ModuleList(nn.Sequential(*convolutions(n, config.layers)) for _ in range(depth))
        self.enlarge = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(n, n, 4, 2, 1), nn.ELU(inplace=True))
            for _ in range(0 if self.nearest else depth)
        )
        self.last = nn.Sequential(*convolutions(n, 2), nn.Conv2d(n, faces.channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        x = self.embed(z).unflatten(1, (-1, BASE, BASE)).contiguous(memory_format=torch.channels_last)
        for level, (narrow, stage) in enumerate(zip(self.narrow, self.stages, strict=True)):
            x = F.elu(narrow(x))
            # The doubling of the stage before commutes with `narrow`, and joins the convolution after it.
            x = doubled(stage, x) if self.nearest and level else stage(x)
            if not self.nearest:
                x = self.enlarge[level](x)
        return torch.tanh(doubled(self.last, x) if self.nearest else self.last(x))


def doubled(layers: nn.Module, x: Tensor) -> Tensor:
    """A sequence of `layers` that begins with a 3x3 convolution, of `x` doubled by nearest neighbours."""
    first, *others = layers.children()
    assert isinstance(first, nn.Conv2d)
    x = upsample_conv2d(x, first.weight, first.bias)
    for layer in others:
        x = layer(x)
    return x


class Autoencoder(nn.Module):
    """The critic."""

    def __init__(self, config: ZhaoConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config, faces), Decoder(config, faces)


class ZhaoBEGAN(AutoencoderCriticModel):
    """A generator and the autoencoder that judges it; its layers are plain, so the carry rests at 0."""

    autoencoder: Autoencoder

    def __init__(self, config: ZhaoConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.prior = Uniform()
        self.generator = Decoder(config, faces)
        self.autoencoder = Autoencoder(config, faces)
        self.register_buffer("carry", torch.zeros(()))
        reached = {"framework": (), "linear": (nn.Linear,), "all": (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)}
        for module in self.modules():
            if isinstance(module, reached[config.initialise]):
                assert isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
                nn.init.normal_(module.weight, config.mean, config.deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(z)  # type: ignore[no-any-return]

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.autoencoder.encoder(images)  # type: ignore[no-any-return]

    def decode_encoding(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.autoencoder.decoder(z)  # type: ignore[no-any-return]


class ZhaoGenerator(Model):
    """The generator alone, as sicongzhao's checkpoints hold it: it draws, and has nothing to find the latent of a face with."""

    def __init__(self, config: ZhaoGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.prior = Uniform()
        self.generator = Decoder(config, faces)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(z)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class ZhaoGeneratorConfig(ModelConfig):
    """What of `ZhaoConfig` concerns the generator; for imported files, and no preset's."""

    cites: ClassVar[tuple[str, ...]] = ("began2017", "zhao2020")

    latent: int = 64
    width: int = 64
    layers: int = 2
    upsampling: Upsampling = "nearest"

    def build(self, faces: ImageSpec) -> ZhaoGenerator:
        return ZhaoGenerator(self, faces)


@dataclass(frozen=True, kw_only=True)
class ZhaoConfig(ModelConfig):
    """A generator of 653,891 parameters at 128 px, 916,291 with transposed upsampling, as the published one."""

    cites: ClassVar[tuple[str, ...]] = ("began2017", "zhao2020")

    latent: int = 64  # hidden_dim: numbers of a latent, U(-1, 1), and of an encoding
    width: int = 64  # ngf: feature maps of both decoders
    encoder_width: int = 64  # ndf: feature maps of the encoder's first level
    layers: int = 2  # n_layers: 3x3 convolutions a level
    growth: Growth = "linear"  # exp: whether the encoder's maps grow by a width a level, or double
    upsampling: Upsampling = "nearest"  # t_conv: nearest neighbours, or a transposed 4x4 convolution
    initialise: Initialisation = "framework"  # N(mean, deviation) for no layer, the linear ones (as in the code) or all
    mean: float = 0.0  # of first weights
    deviation: float = 0.002  # std: of first weights

    def without_effect(self) -> Mapping[str, str]:
        if self.initialise != "framework":
            return {}
        why = "all layers start as torch starts them; --model.initialise linear or all draws from it"
        return {"mean": why, "deviation": why}

    def build(self, faces: ImageSpec) -> ZhaoBEGAN:
        return ZhaoBEGAN(self, faces)
