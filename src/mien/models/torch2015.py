"""Generator and discriminator of the Torch blog post "Generating Faces with Torch" (2015-11-13; code: skaae/torch-gan).

Torch7 drew weights and biases uniformly from +-1/sqrt(fan_in), which is also torch's default, and the scales of batch
normalisation from U(0, 1), which is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mien.core.contracts import ImageSpec, Model, ModelConfig, NetworkConfig, nearest_side
from mien.errors import UsageError
from mien.nn.labels import LabelChannel, LabelledLatent
from mien.nn.norm import BatchNorm2d
from mien.nn.priors import Normal
from mien.nn.spatial_dropout import SpatialDropout
from mien.nn.upsample import UpsampleConv2d

LEGAL = range(16, 513, 8)


def check_side(side: int) -> None:
    """Three poolings and three upsamplings by two: the side is a multiple of 8."""
    if side not in LEGAL:
        raise UsageError(
            f"The Torch blog's networks cannot make {side} px.",
            "They halve and double three times, from 16 to 512 px.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )


class TorchGenerator(Model):
    """Linear, then three times: nearest upsampling, 5x5 convolution, batch normalisation, ReLU; the output is linear."""

    def __init__(self, config: TorchGeneratorConfig, faces: ImageSpec) -> None:
        super().__init__()
        check_side(faces.side)
        self.latent_shape = (config.latent,)
        self.label_dim = faces.label_dim
        self.labelled = LabelledLatent(faces.label_dim, config.latent) if faces.label_dim else None
        self.prior = Normal()
        width, self.base = config.width, faces.side // 8
        self.first = nn.Linear(config.latent * (2 if faces.label_dim else 1), width * self.base**2)
        layers: list[nn.Module] = []
        for inputs, outputs in ((width, 2 * width), (2 * width, 2 * width), (2 * width, width)):
            layers += [UpsampleConv2d(inputs, outputs, 5), BatchNorm2d(outputs), nn.ReLU()]
            if config.dropout:
                layers.append(SpatialDropout(config.dropout))
        self.body = nn.Sequential(*layers, nn.Conv2d(width, faces.channels, 3, padding=1))
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                nn.init.uniform_(module.weight)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z if self.labelled is None else self.labelled(z, labels)
        x = self.first(z).relu().unflatten(1, (-1, self.base, self.base))  # [n, width, side/8, side/8]
        images: Tensor = self.body(x)  # linear: may leave [-1, 1], where the original clipped for display
        return images


@dataclass(frozen=True, kw_only=True)
class TorchGeneratorConfig(ModelConfig):
    """7,484,675 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("torch2015",)

    latent: int = 512  # noise dimension, N(0, 1)
    width: int = 128  # feature maps of the first and last stage; the middle ones have twice as many
    dropout: float = 0.0  # of whole maps, after each ReLU, without rescaling

    def build(self, faces: ImageSpec) -> TorchGenerator:
        return TorchGenerator(self, faces)


class TorchDiscriminator(nn.Module):
    """Three 5x5 convolutions, each pooled by two with whole-map dropout, and two linear layers to one logit."""

    def __init__(self, config: TorchDiscriminatorConfig, faces: ImageSpec) -> None:
        super().__init__()
        check_side(faces.side)
        self.channel = LabelChannel(faces.label_dim, faces.side) if faces.label_dim else None
        layers: list[nn.Module] = []
        inputs = faces.channels + (self.channel is not None)
        for outputs in (config.width, 2 * config.width, 3 * config.width):
            layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2)]
            layers += [BatchNorm2d(outputs)] if config.batch_norm else []
            layers += [nn.ReLU(), SpatialDropout(config.map_dropout)]
            inputs = outputs
        flat = 3 * config.width * (faces.side // 8) ** 2
        head = [nn.Linear(flat, config.hidden), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, 1)]
        self.body = nn.Sequential(*layers, nn.Flatten(), *head)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real."""
        images = images if self.channel is None else self.channel(images, labels)
        return self.body(images).squeeze(1)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class TorchDiscriminatorConfig(NetworkConfig):
    """6,500,897 parameters at 64 px."""

    cites: ClassVar[tuple[str, ...]] = ("torch2015",)

    width: int = 32  # feature maps of the first convolution; then twice and three times as many
    hidden: int = 1024  # features of the linear layer
    batch_norm: bool = False  # the blog's panel A: dangerous in a critic
    map_dropout: float = 0.2  # of whole maps, after each convolution, without rescaling
    dropout: float = 0.5  # of features, before the logit

    def build(self, faces: ImageSpec) -> TorchDiscriminator:
        return TorchDiscriminator(self, faces)
