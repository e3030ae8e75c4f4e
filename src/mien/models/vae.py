"""Our best VAE: residual blocks without normalisation, so that no face depends on its batch, around one vector.

The decoder sees the latent at every resolution, as a scale of its feature maps: what only the coarsest tensor is told has to
survive every layer above it, and fine detail is what gets lost on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core import Faces, Gaussian, ModelConfig, Variational
from mien.models.residual import SLOPE, Block, scaled, told_by, widths_of
from mien.nn.labels import LabelChannel, Telling
from mien.priors import Normal


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: VAEConfig, faces: Faces) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.widest, config.fold)[::-1]
        total = config.blocks * len(widths)
        self.fold = config.fold
        self.channel = LabelChannel(faces.label_dim, faces.side) if faces.label_dim else None
        channels = faces.channels + (self.channel is not None)
        self.first = scaled(nn.Conv2d(channels * config.fold**2, widths[0], 3, padding=1), 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, total) for _ in range(config.blocks))) for width in widths
        )
        self.widen = nn.ModuleList(
            scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) if a != b else nn.Identity() for a, b in pairwise(widths)
        )
        self.last = scaled(nn.Linear(widths[-1] * 16, 2 * config.latent), 0.5)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images = images if self.channel is None else self.channel(images, labels)
        x = self.first(F.pixel_unshuffle(images, self.fold).contiguous(memory_format=torch.channels_last))
        for index, stage in enumerate(self.stages):
            if index:
                x = self.widen[index - 1](F.avg_pool2d(x, 2))
            x = stage(x)
        mean, log_variance = self.last(F.leaky_relu(x, SLOPE).flatten(1)).chunk(2, 1)
        return mean, log_variance


class Decoder(nn.Module):
    """`[n, latent]` -> images; the output is linear."""

    def __init__(self, config: VAEConfig, faces: Faces) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.widest, config.fold)
        total = config.blocks * len(widths)
        self.fold = config.fold
        labelled, channel = told_by(config.conditioning, faces.label_dim, config.latent)
        self.labelled, self.channel = labelled, channel
        latent = 2 * config.latent if labelled is not None else config.latent
        self.first = scaled(nn.Linear(latent, (widths[0] - (channel is not None)) * 16), 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, total) for _ in range(config.blocks))) for width in widths
        )
        self.narrow = nn.ModuleList(
            scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) if a != b else nn.Identity() for a, b in pairwise(widths)
        )
        self.style = nn.ModuleList(scaled(nn.Linear(latent, width), 0.0) for width in widths)
        self.last = scaled(nn.Conv2d(widths[-1], faces.channels * config.fold**2, 3, padding=1), 0.3)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z if self.labelled is None else self.labelled(z, labels)
        x = self.first(z).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = x if self.channel is None else self.channel(x, labels)
        for index, stage in enumerate(self.stages):
            if index:
                x = F.interpolate(self.narrow[index - 1](x), scale_factor=2.0, mode="nearest")
            x = stage(x * (1 + self.style[index](z))[:, :, None, None])
        return F.pixel_shuffle(self.last(F.leaky_relu(x, SLOPE)), self.fold)


class ResidualVAE(Variational):
    """Encoder and decoder, mirror images."""

    def __init__(self, config: VAEConfig, faces: Faces) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        self.encoder, self.decoder = Encoder(config, faces), Decoder(config, faces)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z, labels)  # type: ignore[no-any-return]

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        return Gaussian(*self.encoder(images, labels))


@dataclass(frozen=True, kw_only=True)
class VAEConfig(ModelConfig):
    """`width` is the dial: compute grows with its square."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013",)

    latent: int = 128  # numbers that describe a face, N(0, 1)
    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    widest: int = 256  # feature maps at most
    blocks: int = 1  # residual blocks a resolution
    fold: int = 2  # pixels a side that one position of the finest features becomes
    conditioning: Telling = (
        "norm"  # with labels, the decoder's: they scale every stage's features, or are a feature map (homogan)
    )

    def build(self, faces: Faces) -> ResidualVAE:
        return ResidualVAE(self, faces)
