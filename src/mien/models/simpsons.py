"""The VAE of Leikrit/LMH_Summer_Programme (2023), a DCGAN folded into an autoencoder; its ancestor is podgorskiy/VAE.

The original always makes 128 px, in five strided convolutions down to 4 px. Here their number follows the side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, ModelConfig, nearest_side
from mien.core.families import VariationalModel
from mien.errors import UsageError
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal

LEGAL = (16, 32, 64, 128)
BASE = 4  # px of the coarsest tensor


def widths_of(side: int, width: int) -> list[int]:
    """Feature maps from the finest tensor to the coarsest, doubling: 128 to 2048 at 128 px."""
    if side not in LEGAL:
        raise UsageError(
            f"The Simpsons VAE cannot make {side} px.",
            "It halves to 4 px, from 128 at most.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    return [width * 2**power for power in range(LEGAL.index(side) + 2)]


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: SimpsonsConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([faces.channels, *widths]):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.mean = nn.Linear(widths[-1] * BASE**2, config.latent)
        self.log_variance = nn.Linear(widths[-1] * BASE**2, config.latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(images)
        return self.mean(x), self.log_variance(x)


class Decoder(nn.Module):
    """`[n, latent]` -> images in [-1, 1]."""

    def __init__(self, config: SimpsonsConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width)[::-1]
        self.first = nn.Linear(config.latent, widths[0] * BASE**2)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], faces.channels, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).unflatten(1, (-1, BASE, BASE))  # [n, 2048, 4, 4] at 128 px
        return self.body(F.leaky_relu(x, 0.2))  # type: ignore[no-any-return]


class SimpsonsVAE(VariationalModel):
    """Convolutions from N(0, 0.02), linear layers as torch starts them."""

    def __init__(self, config: SimpsonsConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.prior = Normal()
        self.encoder, self.decoder = Encoder(config, faces), Decoder(config, faces)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class SimpsonsConfig(ModelConfig):
    """139,524,355 parameters at 128 px."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "simpsons2023")

    latent: int = 512  # numbers that describe a face, N(0, 1)
    width: int = 128  # feature maps of the finest hidden tensor, doubling down to 4 px

    def build(self, faces: ImageSpec) -> SimpsonsVAE:
        return SimpsonsVAE(self, faces)
