"""A small residual generator and critic for little compute, after R3GAN (arXiv:2501.05441): no normalisation, residual blocks
that start as the identity, and a last upsampling that avoids most convolutions at full resolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core import distributed
from mien.core.compression import Compression
from mien.core.contracts import ImageSpec, ModelConfig, NetworkConfig, nearest_side
from mien.core.families import CompressedModel, StyleModel
from mien.errors import UsageError
from mien.nn.jpeg import JPEG
from mien.nn.labels import CriticConditioning, GeneratorConditioning, LabelChannel, LabelledLatent, LabelProjection
from mien.nn.pixel_shuffle import SLOPE, input_layer, output_layer, scaled
from mien.nn.priors import Normal
from mien.nn.residual_blocks import block_stage, projections

LEGAL = (16, 32, 64, 128, 256)
MAX_LAYERS = 16  # of a mapping network
MEAN_MOMENTUM = 0.01  # how far the tracked mean of styles moves toward that of a batch


def widths_of(side: int, width: int, max_width: int, patch: int) -> list[int]:
    """Feature maps at 4, 8, ... px up to side / patch: `width` at the finest, doubling downward to `max_width`."""
    if side not in LEGAL:
        raise UsageError(
            f"The residual networks cannot make {side} px.",
            "They double from 4 px, to 256 at most.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    if patch < 1 or patch & (patch - 1) or side // patch < 4:
        raise UsageError(
            f"The residual networks cannot have patches of {patch} by {patch} pixels at {side} px.",
            "They double from 4 px to the side over the patch.",
            f"Use a patch of 1, 2 or 4, up to {side // 4}.",
        )
    depth = (side // patch // 4).bit_length()
    return [min(max_width, width * 2**power) for power in range(depth - 1, -1, -1)]


def width_at(width: int, max_width: int, old: int, new: int) -> int:
    """`width` at another side, so that each resolution of both sides has the same number of feature maps."""
    doublings = new.bit_length() - old.bit_length()
    return max(1, min(max_width, width >> doublings if doublings > 0 else width << -doublings))


def stage_count(tensors: Mapping[str, Tensor]) -> int:
    """Resolutions of a residual network, from the names of its tensors."""
    return 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("stages.")), default=-1)


def label_layers(
    conditioning: GeneratorConditioning, label_dim: int, latent: int, side: int = 4
) -> tuple[LabelledLatent | None, LabelChannel | None]:
    """The label conditioning of a generator: an embedding beside the latent, or a channel of its first tensor."""
    if not label_dim:
        return None, None
    if conditioning == "norm":
        return LabelledLatent(label_dim, latent), None
    return None, LabelChannel(label_dim, side)


class MappingNetwork(nn.Module):
    """Mapping network (Karras et al. 2018, arXiv:1812.04948): latents `[n, latent]` -> styles of the same shape.

    `mean` tracks the mean style over all ranks during training.
    """

    mean: Tensor

    def __init__(self, latent: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(scaled(nn.Linear(latent, latent), sqrt(2 / (1 + SLOPE**2))) for _ in range(layers))
        self.register_buffer("mean", torch.zeros(latent))

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = F.leaky_relu(layer(z), SLOPE)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(distributed.mean(z.to(self.mean).mean(0)), MEAN_MOMENTUM)
        return z


class ResidualGenerator(StyleModel, CompressedModel):
    """A 4x4 tensor from the style, then residual blocks and nearest upsampling, each modulated by the style.

    The style is the normalised latent, or the output of a mapping network.
    """

    def __init__(self, config: ResidualGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)
        total = config.blocks * len(widths)
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        self.style_count = len(widths)
        labelled, channel = label_layers(config.conditioning, faces.label_dim, config.latent)
        self.labelled, self.channel = labelled, channel
        latent = 2 * config.latent if labelled is not None else config.latent
        self.mapper = MappingNetwork(config.latent, config.mapping) if config.mapping else None
        self.mapping = scaled(nn.Linear(latent, (widths[0] - (channel is not None)) * 16), 1.0)
        self.stages = nn.ModuleList(block_stage(width, config.group, config.blocks, total) for width in widths)
        self.narrow = projections(widths)
        self.style = nn.ModuleList(scaled(nn.Linear(latent, width), 0.0) for width in widths)
        self.last = output_layer(widths[-1], faces.channels, config.patch, config.full_res_width)
        self.jpeg = JPEG(Compression.parse(config.jpeg), faces.side) if config.jpeg else None

    @property
    def mean_style(self) -> Tensor:
        return torch.zeros(self.latent_shape).to(self.mapping.weight) if self.mapper is None else self.mapper.mean

    def translate(self, parent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stages are counted from 4 px, so they keep their names; output layers belong to one side.

        Where labels are added beside the latent, their weights are zero; where they are left out, so are their weights. Either way
        the faces are at first those that the parent draws without labels.
        """
        own, found = self.state_dict(), dict(parent)
        if stage_count(parent) != len(self.stages):
            found = {name: tensor for name, tensor in found.items() if not name.startswith("last.")}
        for name, tensor in found.items():
            wanted = own.get(name)
            if wanted is None or not tensor.dim() == 2 == wanted.dim():
                continue
            if self.labelled is not None and wanted.shape[1] == 2 * tensor.shape[1]:
                found[name] = F.pad(tensor, (0, tensor.shape[1]))
            elif self.labelled is None and tensor.shape[1] == 2 * wanted.shape[1]:
                found[name] = tensor[:, : wanted.shape[1]]
        return found

    def styles(self, z: Tensor) -> Tensor:
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)  # only the direction of a latent matters
        return z if self.mapper is None else self.mapper(z)

    def decode_styles(self, styles: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        once = {id(style): style for style in styles}  # usually one style for all stages
        conditioned = {
            key: style if self.labelled is None else self.labelled(style, labels) for key, style in once.items()
        }
        modulations = [conditioned[id(style)] for style in styles]
        x = self.mapping(modulations[0]).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = x if self.channel is None else self.channel(x, labels)
        for index, stage in enumerate(self.stages):
            if index:
                x = F.interpolate(self.narrow[index - 1](x), scale_factor=2.0, mode="nearest")
            x = stage(x * (1 + self.style[index](modulations[index]))[:, :, None, None])
        images: Tensor = self.last(F.leaky_relu(x, SLOPE))  # linear, as in R3GAN: a saturated tanh has no gradient
        if self.jpeg is None or self.training:  # nn/jpeg.py says why not in training
            return images
        return self.jpeg(images)


@dataclass(frozen=True, kw_only=True)
class ResidualGeneratorConfig(ModelConfig):
    """Compute grows with the square of `width`."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)
    grows: ClassVar[tuple[str, ...]] = ("width", "max_width", "group", "full_res_width")  # with `--scale`

    latent: int = 64  # numbers that describe a face, N(0, 1)
    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    max_width: int = 192  # upper bound on the number of feature maps
    blocks: int = 1  # residual blocks a resolution
    group: int = 0  # feature maps that one 3x3 convolution of a 1-3-1 block mixes; 0 = plain 3x3 blocks
    patch: int = 2  # pixels a side for each position of the finest features
    full_res_width: int = 0  # feature maps at full resolution; 0 rearranges channels into pixels instead
    jpeg: str = ""  # draw as JPEG files of this quality, such as 90; 75@74+7+20 = of a square of the file, resized
    mapping: int = 0  # layers of a network between latents and styles; 0 = the latent's direction is the style
    conditioning: GeneratorConditioning = (
        "norm"  # with labels: they scale every stage's features like the latent, or are a feature map (homogan)
    )

    def __post_init__(self) -> None:
        if not 0 <= self.mapping <= MAX_LAYERS:
            raise UsageError(
                f"--model.mapping {self.mapping} is not possible.",
                "It counts layers between latents and styles.",
                f"Give 0 to {MAX_LAYERS}; 2 is a good start.",
            )
        if self.jpeg:
            Compression.parse(self.jpeg)

    def resized(self, old: int, new: int) -> Self:
        jpeg = self.jpeg if old == new else ""  # it belongs to one side
        return replace(self, jpeg=jpeg, width=width_at(self.width, self.max_width, old, new))

    def build(self, faces: ImageSpec) -> ResidualGenerator:
        return ResidualGenerator(self, faces)


class ResidualCritic(nn.Module):
    """Mirrors the generator, down to one logit."""

    def __init__(self, config: ResidualCriticConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)[::-1]
        total = config.blocks * len(widths)
        channel = faces.label_dim > 0 and config.conditioning == "channel"
        self.channel = LabelChannel(faces.label_dim, faces.side) if channel else None
        self.project = LabelProjection(faces.label_dim, widths[-1] * 16) if faces.label_dim and not channel else None
        self.first = input_layer(
            faces.channels + channel, widths[0], config.patch, config.full_res_width, config.overlap
        )
        self.stages = nn.ModuleList(block_stage(width, config.group, config.blocks, total) for width in widths)
        self.widen = projections(widths)
        self.last = scaled(nn.Linear(widths[-1] * 16, 1), 1.0)

    def translate(self, parent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stages are counted from the finest, so those of a parent with another side have other numbers here."""
        shift = len(self.stages) - stage_count(parent)
        if not shift:
            return dict(parent)
        found = {}
        for name, tensor in parent.items():
            numbered = re.fullmatch(r"(stages|widen)\.(\d+)(\..+)", name)
            number = int(numbered[2]) + shift if numbered else 0
            if number >= 0 and not name.startswith("first."):
                found[f"{numbered[1]}.{number}{numbered[3]}" if numbered else name] = tensor
        return found

    def freeze(self, stages: int) -> None:
        """Hold the input layer and the finest `stages` (FreezeD, Mo et al. 2020, arXiv:2002.10964)."""
        for layer in (self.first, *self.stages[:stages], *self.widen[: max(0, stages - 1)]) if stages else ():
            layer.requires_grad_(False)

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> the features `[n, f]` that logits are linear in."""
        images = images if self.channel is None else self.channel(images, labels)
        x = self.first(images)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.widen[index - 1](F.avg_pool2d(x, 2))
            x = stage(x)
        return F.leaky_relu(x, SLOPE).flatten(1)

    def logits(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Features `[n, f]` -> logits `[n]`, large for real."""
        logits: Tensor = self.last(features).squeeze(1)
        return logits if self.project is None else logits + self.project(features, labels)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real."""
        return self.logits(self.features(images, labels), labels)


@dataclass(frozen=True, kw_only=True)
class ResidualCriticConfig(NetworkConfig):
    """Sized like the generator; see ResidualGeneratorConfig."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)
    grows: ClassVar[tuple[str, ...]] = ("width", "max_width", "group", "full_res_width")  # with `--scale`

    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    max_width: int = 192  # upper bound on the number of feature maps
    blocks: int = 1  # residual blocks a resolution
    group: int = 0  # feature maps that one 3x3 convolution of a 1-3-1 block mixes; 0 = plain 3x3 blocks
    patch: int = 2  # pixels a side for each position of the finest features
    full_res_width: int = 0  # feature maps at full resolution; 0 rearranges pixels into channels instead
    overlap: bool = True  # patches of full resolution overlap by a pixel where they become the finest features
    conditioning: CriticConditioning = (
        "projection"  # with labels: features are compared with them, or they are a channel of the image (homogan)
    )

    def resized(self, old: int, new: int) -> Self:
        return replace(self, width=width_at(self.width, self.max_width, old, new))

    def build(self, faces: ImageSpec) -> ResidualCritic:
        return ResidualCritic(self, faces)
