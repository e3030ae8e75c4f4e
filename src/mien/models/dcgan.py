"""DCGAN (Radford, Metz, Chintala 2015, arXiv:1511.06434), constants as in soumith/dcgan.torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from mien.core.contracts import ImageSpec, Model, ModelConfig, NetworkConfig, nearest_side
from mien.errors import UsageError
from mien.nn.labels import LabelChannel, LabelledLatent
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal, Uniform

LEGAL = (16, 32, 64, 128, 256)


def stages(side: int) -> int:
    """How often 4 px doubles to reach `side`."""
    if side not in LEGAL:
        raise UsageError(
            f"DCGAN cannot make {side} px.",
            "It doubles from 4 px, to 256 at most.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    return LEGAL.index(side) + 2


def initialise(network: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation (dcgan.torch)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


class DCGANGenerator(Model):
    """Transposed 4x4 convolutions from 1 px up, with batch normalisation and ReLU, to a tanh."""

    def __init__(self, config: DCGANGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        depth = stages(faces.side)
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.labelled = LabelledLatent(faces.label_dim, config.latent) if faces.label_dim else None
        latent = 2 * config.latent if faces.label_dim else config.latent
        self.prior = Uniform() if config.uniform else Normal()
        widths = [config.width * 2**power for power in range(depth - 1, -1, -1)]  # 512, 256, 128, 64 at 64 px
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for inputs, outputs in zip(widths, [*widths[1:], faces.channels], strict=True):
            layers += [BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        self.body = nn.Sequential(*layers, nn.Tanh())
        initialise(self)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z if self.labelled is None else self.labelled(z, labels)
        return self.body(z[:, :, None, None])  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class DCGANGeneratorConfig(ModelConfig):
    """3,576,704 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("dcgan2015",)

    latent: int = 100  # numbers that describe a face
    width: int = 64  # feature maps of the last hidden stage, doubling toward the first
    uniform: bool = False  # latents from U(-1, 1) rather than N(0, 1)

    def build(self, faces: ImageSpec) -> DCGANGenerator:
        return DCGANGenerator(self, faces)


class DCGANDiscriminator(nn.Module):
    """Strided 4x4 convolutions down to one logit, LeakyReLU 0.2, batch normalisation on all but the first."""

    def __init__(self, config: DCGANDiscriminatorConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = [config.width * 2**power for power in range(stages(faces.side))]  # 64, 128, 256, 512 at 64 px
        self.channel = LabelChannel(faces.label_dim, faces.side) if faces.label_dim else None
        channels = faces.channels + (self.channel is not None)
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, bias=False))
        initialise(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real."""
        images = images if self.channel is None else self.channel(images, labels)
        return self.body(images).flatten()  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class DCGANDiscriminatorConfig(NetworkConfig):
    """2,765,568 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("dcgan2015",)

    width: int = 64  # feature maps of the first stage, doubling from there

    def build(self, faces: ImageSpec) -> DCGANDiscriminator:
        return DCGANDiscriminator(self, faces)
