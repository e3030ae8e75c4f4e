"""Compositional pattern-producing networks (hardmaru 2016): a face is a function of the place, computed pixel by pixel.

So the same latent can be painted at any side. Part one ("Generating Large Images from Latent Vectors") has three wide layers;
part two is 24 residual blocks of width 6 that start near the identity. Both come with an encoder and a convolutional critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, ModelConfig, NetworkConfig, nearest_side
from mien.core.families import ResolutionFreeModel, VariationalModel
from mien.errors import UsageError
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal
from mien.nn.same_conv import SameConv2d
from mien.nn.truncated_normal import truncated_normal_

LEGAL = range(2, 513)
CLASSES = 1024  # that a critic tells apart at most
PIECE = 2**14  # places painted at a time, so that memory does not grow with the size

Body = Literal["wide", "residual"]
Weights = Literal["original", "level"]


def normal(layer: nn.Linear, deviation: float) -> nn.Linear:
    """Weights and biases from N(0, deviation^2)."""
    nn.init.normal_(layer.weight, 0.0, deviation)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, 0.0, deviation)
    return layer


def initialise(network: nn.Module) -> None:
    """First weights of ops.py there: N(0, 0.02), of convolutions cut off at two deviations; scales from N(1, 0.02); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            truncated_normal_(module.weight, 0.02)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class Block(nn.Module):
    """x + tanh(f(x)), with f four layers that end in zeroes below 0 and one that starts near nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(4):
            hidden += [normal(nn.Linear(width, width), 1.0), nn.ReLU()]
        self.body = nn.Sequential(*hidden, normal(nn.Linear(width, width), 0.001))

    def level(self) -> None:
        """Set weights that keep the size of what they read (He, arXiv:1502.01852), and end near nothing, as there."""
        layers = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        for layer in layers:
            nn.init.normal_(layer.weight, 0.0, (2.0 / layer.in_features) ** 0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(layers[-1].weight, 0.0, 0.1 / layers[-1].in_features ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.body(x))


class Painter(nn.Module):
    """(latent, place) -> colour."""

    def __init__(self, config: CPPNConfig, channels: int) -> None:
        super().__init__()
        self.scale, self.residual = config.scale, config.body == "residual"
        n = config.width
        deviation = config.deviation
        self.from_latent = normal(nn.Linear(config.latent, n), deviation)
        self.from_place = normal(nn.Linear(3, n, bias=False), deviation)  # x, y and the distance from the middle
        if self.residual:
            layers: list[nn.Module] = [Block(n) for _ in range(config.layers)]
        else:
            layers = [part for _ in range(config.layers) for part in (normal(nn.Linear(n, n), deviation), nn.Tanh())]
        self.body = nn.Sequential(*layers)
        self.last = normal(nn.Linear(n, channels), deviation)
        if config.weights == "level":
            self.level()

    def level(self) -> None:
        """Set first weights with which latents and places are about as loud, and layers keep the size of what they read.

        The original's drown the place: its residual painter adds latents of deviation 2.3 to an x of at most 0.4.
        """
        n, latent = self.from_latent.weight.shape
        nn.init.normal_(self.from_latent.weight, 0.0, 1.0 / (self.scale * latent**0.5))
        nn.init.normal_(self.from_latent.bias, 0.0, 0.5)
        nn.init.normal_(self.from_place.weight, 0.0, 2.0 / self.scale)  # x and y reach 2
        for layer in self.body:
            if isinstance(layer, Block):
                layer.level()
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, n**-0.5)
                nn.init.zeros_(layer.bias)

    def places(self, side: int) -> Tensor:
        """`[side * side, 3]`: x and y in [-scale, scale], both ends included, and the radius."""
        line = torch.linspace(-1.0, 1.0, side, dtype=torch.float64) * self.scale
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y, (x.square() + y.square()).sqrt()], -1).reshape(-1, 3).to(self.last.weight)

    def forward(self, z: Tensor, side: int) -> Tensor:
        # In full precision: eight bits of fraction cannot tell neighbours in a large picture apart.
        with torch.autocast(z.device.type, enabled=False):
            latent = self.from_latent(z.to(self.last.weight.dtype) * self.scale)[:, None]
            pieces = [self.paint(latent + self.from_place(places)) for places in torch.split(self.places(side), PIECE)]
            return torch.cat(pieces, 1).transpose(1, 2).reshape(z.shape[0], -1, side, side)

    def paint(self, x: Tensor) -> Tensor:
        """`[n, places, width]` -> colours `[n, places, C]` in [-1, 1]."""
        x = self.body(torch.tanh(x) if self.residual else F.softplus(x))
        return torch.tanh(0.5 * self.last(x))  # a sigmoid, stretched


class Encoder(nn.Module):
    """Images -> the mean and the logarithm of the variance, each `[n, latent]`."""

    def __init__(self, config: CPPNConfig, faces: ImageSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (faces.channels * faces.side**2, config.hidden):
            layers += [nn.Linear(inputs, config.hidden), nn.Softplus(), nn.Dropout(config.dropout)]
        self.body = nn.Sequential(nn.Flatten(), *layers)
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body((images + 1.0) / 2.0)
        return self.mean(x), self.log_variance(x)


class CPPNGenerator(ResolutionFreeModel):
    """A painter alone, for a game without an encoder."""

    def __init__(self, config: CPPNConfig, faces: ImageSpec) -> None:
        super().__init__()
        if faces.side not in LEGAL:
            raise UsageError(
                f"A CPPN cannot learn at {faces.side} px.",
                "Its places run from end to end, from 2 to 512 px; once trained it paints at any size.",
                f"Use --side {nearest_side(faces.side, LEGAL)}.",
            )
        self.latent_shape = (config.latent,)
        self.prior = Normal()
        self.side = faces.side
        if config.encoder:
            self.encoder: nn.Module = Encoder(config, faces)
        self.decoder: nn.Module = Painter(config, faces.channels)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_at(z, self.side)

    def decode_at(self, z: Tensor, side: int, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z, side)  # type: ignore[no-any-return]


class CPPN(CPPNGenerator, VariationalModel):
    """A painter and the encoder that finds its latents."""


@dataclass(frozen=True, kw_only=True)
class CPPNConfig(ModelConfig):
    """In grey, a painter of 54,273 parameters (wide) or 5,263 (24 residual blocks of width 6)."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    latent: int = 32  # numbers that describe a face, N(0, 1)
    body: Body = "wide"  # wide: layers of tanh; residual: blocks that start near the identity
    width: int = 128  # of the painter's layers
    layers: int = 3  # of the painter, or its residual blocks
    scale: float = 8.0  # places run from -scale to scale, and latents are multiplied by it
    hidden: int = 512  # features of the encoder's two layers
    dropout: float = 0.0  # share of the encoder's features that are dropped
    deviation: float = 0.1  # of the painter's first weights, outside its residual blocks
    weights: Weights = "original"  # first weights; level: places are as loud as latents
    encoder: bool = True  # finds latents of images; without it only a recipe for generators alone fits

    def build(self, faces: ImageSpec) -> CPPNGenerator:
        return CPPN(self, faces) if self.encoder else CPPNGenerator(self, faces)


class CPPNCritic(nn.Module):
    """Three strided 5x5 convolutions and a linear layer: to one logit, or to a logit a class and one for fakes."""

    def __init__(self, config: CPPNCriticConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.classes = config.classes
        if config.classes and 2**faces.label_dim > CLASSES:
            raise UsageError(
                f"{faces.label_dim} labels make too many classes.",
                f"This critic tells every combination apart, {CLASSES} at most.",
                "Prepare a pack with fewer --labels.",
            )
        n, side = config.width, faces.side
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((faces.channels, n, 2 * n, 4 * n)):
            layers += [SameConv2d(inputs, outputs, 5, 2)]
            layers += [BatchNorm2d(outputs)] if inputs != faces.channels else []
            layers += [nn.LeakyReLU(0.2)]
            side = (side + 1) // 2
        outputs = 2**faces.label_dim + 1 if config.classes else 1
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * n * side**2, outputs))
        initialise(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real, or `[n, classes + 1]`, the last for fakes.

        Values from 0 to 1 go in, as there.
        """
        logits: Tensor = self.body((images + 1.0) / 2.0)
        return logits if self.classes else logits.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class CPPNCriticConfig(NetworkConfig):
    """It always normalises by its own batch, as in the original."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    width: int = 24  # feature maps of the first convolution; then twice and four times as many
    classes: bool = False  # whether it names a real face's class; classes are the combinations of the run's labels

    def build(self, faces: ImageSpec) -> CPPNCritic:
        return CPPNCritic(self, faces)
