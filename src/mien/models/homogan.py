"""Generators and discriminators of homogan (A. Nieto et al., UPC 2020, TensorFlow): its architectures A to G, and one that its
authors proposed and never ran. The sides below are those at 128 px; at another, the first tensor's side is a sixteenth of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, Model, ModelConfig, NetworkConfig, nearest_side
from mien.errors import UsageError
from mien.nn.attention import SelfAttention
from mien.nn.labels import LabelChannel
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal

LEGAL = range(16, 513, 16)
Layout = Literal["mixed", "slim", "plain"]


def base_of(side: int) -> int:
    """The side of the first tensor: four doublings under the image."""
    if side not in LEGAL:
        raise UsageError(
            f"homogan's networks cannot make {side} px.",
            "They double four times, from 16 to 512 px.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    return side // 16


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's `same` padding: with stride 2, one pixel less on the left than on the right."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        left = (kernel - stride) // 2 if stride > 1 else kernel // 2
        right = max(kernel - stride, 0) - left
        return super().forward(F.pad(input, (left, right, left, right)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with stride 2 and TensorFlow's `same` padding: twice the side, to the pixel."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        left = (self.kernel_size[0] - 2) // 2
        whole = super().forward(input)  # [n, C, 2 h - 2 + kernel, 2 w - 2 + kernel]
        height, width = (2 * size for size in input.shape[2:])
        return whole[:, :, left : left + height, left : left + width]


def norm(width: int) -> BatchNorm2d:
    """Batch normalisation with the constants of Keras."""
    return BatchNorm2d(width, eps=1e-3, momentum=0.01)


def initialise(network: nn.Module) -> None:
    """Glorot's uniform weights and biases of zero, the defaults of Keras."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_label_std(std: float | None) -> None:
    """Refuse a standard deviation that is not one."""
    if std is not None and not 0.0 < std < inf:
        raise UsageError(
            f"A label_std of {std} is not possible.", "It is a standard deviation.", "Give a positive number, or None."
        )


def label_channel(
    config: HomoganGeneratorConfig | HomoganCriticConfig, faces: ImageSpec, side: int
) -> LabelChannel | None:
    """The labels as a feature map of `side` pixels, if there are any."""
    return LabelChannel(faces.label_dim, side, config.embedding, config.label_std) if faces.label_dim else None


class HomoganGenerator(Model):
    """Latent -> a small tensor, optionally with the labels as one more channel, then four upsamplings by 2, then tanh."""

    def __init__(self, config: HomoganGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        base = base_of(faces.side)
        self.config, self.label_dim = config, faces.label_dim
        self.latent_shape = (config.latent,)
        self.prior = Normal()
        self.entrance = nn.Sequential(*self.entry(base))
        self.label_channel = label_channel(config, faces, base)
        stages, inputs = [], config.width + (self.label_channel is not None)
        for index, (kernel, maps, mixed) in enumerate(self.plan()):
            layers: list[nn.Module] = [SameConvTranspose2d(inputs, maps, kernel, 2, bias=not config.batch_norm)]
            if mixed:
                layers.append(nn.Conv2d(maps, mixed, 1, bias=not config.batch_norm))
            inputs = mixed or maps
            layers += self.tail(inputs)
            if config.attention and index == 1:  # at a quarter of the side
                layers.append(SelfAttention(inputs))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        last = 5 if config.layout == "plain" else 1
        self.last = nn.Conv2d(inputs, faces.channels, last, padding=last // 2)
        initialise(self)

    def entry(self, base: int) -> list[nn.Module]:
        """From `[n, latent]` to `[n, width, base, base]`: dense layers, or the transposed convolutions that are the same map."""
        c = self.config
        bias, flat = not c.batch_norm, c.width * base**2
        match c.first, c.hidden:
            case "dense", 0:
                layers = [nn.Linear(c.latent, flat, bias), nn.Unflatten(1, (flat, 1, 1)), *self.tail(flat)]
            case "dense", hidden:
                layers = [nn.Linear(c.latent, hidden, bias), nn.Unflatten(1, (hidden, 1, 1)), *self.tail(hidden)]
                layers += [nn.Flatten(), nn.Linear(hidden, flat, bias), nn.Unflatten(1, (flat, 1, 1)), *self.tail(flat)]
            case _, 0:
                layers = [nn.Unflatten(1, (c.latent, 1, 1)), nn.ConvTranspose2d(c.latent, flat, 1, bias=bias)]
                layers += self.tail(flat)
            case _, hidden:
                layers = [nn.Unflatten(1, (c.latent, 1, 1)), nn.ConvTranspose2d(c.latent, hidden, 1, bias=bias)]
                layers += [*self.tail(hidden), nn.ConvTranspose2d(hidden, c.width, base, bias=bias)]
                return [*layers, *self.tail(c.width)]
        return [*layers, nn.Flatten(), nn.Unflatten(1, (c.width, base, base))]

    def tail(self, width: int) -> list[nn.Module]:
        """Normalisation and activation after each layer except the last."""
        return [*([norm(width)] if self.config.batch_norm else []), nn.LeakyReLU(self.config.slope)]

    def plan(self) -> list[tuple[int, int, int]]:
        """For each upsampling: kernel size, feature maps, and feature maps of the following 1x1 convolution, or 0."""
        width = self.config.width
        if self.config.layout == "plain":
            return [(4, width, 0)] * 4
        quarter, half = max(1, width // 4), max(1, width // 2)
        mixed = self.config.layout == "mixed"
        return [(5, width, half * mixed), (5, quarter, half * mixed), (3, quarter, half), (3, quarter, width)]

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.entrance(z)
        if self.label_channel is not None:
            x = self.label_channel(x, labels)
        images = torch.tanh(self.last(self.stages(x)))
        return 2 * images - 1 if self.config.output == "unit" else images


@dataclass(frozen=True, kw_only=True)
class HomoganGeneratorConfig(ModelConfig):
    """At 128 px: A 9,203,331 parameters with the statistics of its normalisation, D 3,164,035, E 3,169,447, G 3,166,339."""

    cites: ClassVar[tuple[str, ...]] = ("homogan2020",)

    latent: int = 256  # numbers that describe a face, N(0, 1)
    layout: Layout = (
        "plain"  # mixed: narrow stages with 1x1 convolutions (A); slim: two of these less (B, C); plain (D to G)
    )
    width: int = 128  # feature maps of the first tensor; the others are in proportion
    first: Literal["dense", "convolution"] = "dense"  # the kind of the first layers; they are the same linear map
    hidden: int = 0  # features between the latent and the first tensor; 0 = none
    batch_norm: bool = False  # after every layer but the last
    slope: float = 0.2  # of every LeakyReLU
    embedding: int = (
        0  # numbers that a label becomes before it is a feature map (E, F: 50); 0 = it goes there directly (G)
    )
    label_std: float | None = None  # of the label channel's first weights, N(0, std); None: Glorot's
    attention: bool = False  # between the places of the features at a quarter of the side
    output: Literal["symmetric", "unit"] = (
        "symmetric"  # tanh's values are pixels from -1 to 1, or (fault) from 0 to 1: half of them are darker than black
    )

    def __post_init__(self) -> None:
        check_label_std(self.label_std)

    def build(self, faces: ImageSpec) -> HomoganGenerator:
        return HomoganGenerator(self, faces)


class HomoganCritic(nn.Module):
    """Strided convolutions to one logit, optionally with the labels as a fourth channel of the image."""

    def __init__(self, config: HomoganCriticConfig, faces: ImageSpec) -> None:
        super().__init__()
        base_of(faces.side)
        width = config.width
        self.label_channel = label_channel(config, faces, faces.side)
        plan = {  # kernel, stride, feature maps
            "mixed": [(5, 1, width), (5, 2, 2 * width), (3, 2, 4 * width), (3, 2, 8 * width)],
            "slim": [(5, 1, width), (3, 2, 4 * width), (3, 2, 8 * width)],
            "plain": [(5, 1, width), *[(5, 2, width)] * 4],
        }[config.layout]
        layers: list[nn.Module] = []
        inputs, side = faces.channels + (self.label_channel is not None), faces.side
        for index, (kernel, stride, maps) in enumerate(plan):
            layers.append(SameConv2d(inputs, maps, kernel, stride))
            layers += [norm(maps)] if config.batch_norm else []
            layers.append(nn.LeakyReLU(config.slope))
            layers += [nn.Dropout(config.block_dropout)] if config.block_dropout else []
            inputs, side = maps, side // stride
            if config.attention and index == 2:  # at a quarter of the side, in the plain layout
                layers.append(SelfAttention(maps))
        layers += [nn.Flatten(), *([nn.Dropout(config.dropout)] if config.dropout else [])]
        self.body = nn.Sequential(*layers, nn.Linear(inputs * side**2, 1))
        initialise(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` -> logits `[n]`, large for real."""
        x = images if self.label_channel is None else self.label_channel(images, labels)
        return self.body(x).squeeze(1)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class HomoganCriticConfig(NetworkConfig):
    """At 128 px: A 490,177 parameters with the statistics of its normalisation, D 1,656,833, E 2,495,717, G 1,725,569."""

    cites: ClassVar[tuple[str, ...]] = ("homogan2020",)

    layout: Layout = (
        "plain"  # mixed: four convolutions, doubling (A); slim: one of these less (B, C); plain: five (D to G)
    )
    width: int = 128  # feature maps of the first convolution (A to C: 32)
    batch_norm: bool = False  # after every convolution
    slope: float = 0.2  # of every LeakyReLU
    block_dropout: float = 0.0  # of values after each LeakyReLU (A .3; B and C .5)
    dropout: float = 0.0  # of features before the logit (D to G: .4)
    embedding: int = 0  # numbers that a label becomes before it is a channel (E, F: 50); 0 = it goes there directly (G)
    label_std: float | None = None  # of the label channel's first weights, N(0, std); None: Glorot's
    attention: bool = False  # between the places of the features at a quarter of the side

    def __post_init__(self) -> None:
        check_label_std(self.label_std)

    def build(self, faces: ImageSpec) -> HomoganCritic:
        return HomoganCritic(self, faces)
