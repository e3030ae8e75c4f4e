"""BEGAN (Berthelot, Schumm, Metz 2017, arXiv:1703.10717): a generator, and an autoencoder of the same build that judges it.

Two layouts are known. Figure 1 of the paper has two 3x3 convolutions with ELU a level. The author's own layer library
(tf_img_tech) has `depth - 1` such convolutions and a linear one that changes the resolution, and none at 8 px but that: it is
the one whose 17,268,038 parameters are the paper's "17.3M" at 128 px. Both blend each layer that keeps its shape with its
input, by a carry that falls from 1 to 0 (vanishing residuals), and both can hand the decoder's first tensor h0 to every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, ModelConfig, nearest_side
from mien.core.families import AutoencoderCriticModel
from mien.errors import UsageError
from mien.nn.priors import Uniform
from mien.nn.truncated_normal import truncated_normal_

LEGAL = (16, 32, 64, 128, 256)
BASE = 8  # px of the coarsest tensor

Layout = Literal["author", "figure"]


def levels(side: int) -> int:
    """How often 8 px doubles to reach `side`."""
    if side not in LEGAL:
        raise UsageError(
            f"BEGAN cannot make {side} px.",
            "It doubles from 8 px, to 256 at most.",
            f"Use --side {nearest_side(side, LEGAL)}.",
        )
    return LEGAL.index(side) + 1


class Blend(nn.Module):
    """ELU of a 3x3 convolution, blended with its input: carry x + (1 - carry) f(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, carry: Tensor) -> Tensor:
        y = F.elu(self.convolution(x))
        return torch.lerp(y, x, carry.to(y.dtype))


def blended(blends: nn.Module, x: Tensor, carry: Tensor) -> Tensor:
    """Through a list of blends."""
    for blend in blends.children():
        x = blend(x, carry)
    return x


class Encoder(nn.Module):
    """Images -> `[n, hidden]`, the feature maps growing by `width` a level."""

    def __init__(self, config: BEGANModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        scales, n = levels(faces.side), config.width
        self.figure = config.layout == "figure"
        self.first = nn.Conv2d(faces.channels, n, 3, padding=1)
        self.blends = nn.ModuleList(
            nn.ModuleList(Blend(n * (level + 1)) for _ in range(config.depth - 1)) for level in range(scales)
        )
        self.grow = nn.ModuleList(
            nn.Conv2d(n * (level + 1), n * (level + 2), 3, stride=2, padding=1) for level in range(scales)
        )
        widest = n * (scales + 1)
        self.last = nn.ModuleList(Blend(widest) for _ in range(config.depth if self.figure else 0))
        self.embed = nn.Linear(widest * BASE**2, config.hidden)

    def forward(self, images: Tensor, carry: Tensor) -> Tensor:
        x = self.first(images)
        x = F.elu(x) if self.figure else x
        for blends, grow in zip(self.blends, self.grow, strict=True):
            x = blended(blends, x, carry)
            x = grow(x)  # [n, width + width * level, H / 2, W / 2]
            x = F.elu(x) if self.figure else x
        x = blended(self.last, x, carry)
        return self.embed(x.flatten(1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """`[n, latent]` -> images: the generator, and the second half of the autoencoder. The output is linear."""

    def __init__(self, config: BEGANModelConfig, faces: ImageSpec, latent: int) -> None:
        super().__init__()
        scales, n = levels(faces.side), config.width
        self.skips, self.figure = config.skips, config.layout == "figure"
        self.embed = nn.Linear(latent, n * BASE**2)
        self.start = nn.ModuleList(Blend(n) for _ in range(config.depth if self.figure else 0))
        merged = 2 * n if config.skips else n  # h0 stands beside every tensor but itself
        inputs = [merged] * scales if self.figure else [n, *([merged] * (scales - 1))]
        self.merge = nn.ModuleList(nn.Conv2d(maps, n, 3, padding=1) for maps in inputs)
        self.blends = nn.ModuleList(nn.ModuleList(Blend(n) for _ in range(config.depth - 1)) for _ in range(scales))
        self.last = nn.Conv2d(n, faces.channels, 3, padding=1)

    def forward(self, z: Tensor, carry: Tensor) -> Tensor:
        x = h0 = self.embed(z).unflatten(1, (-1, BASE, BASE)).contiguous(memory_format=torch.channels_last)
        x = blended(self.start, x, carry)
        for level, (merge, blends) in enumerate(zip(self.merge, self.blends, strict=True)):
            if self.figure:
                x = F.elu(merge(self.beside(F.interpolate(x, scale_factor=2.0), h0)))
            else:
                x = F.interpolate(merge(self.beside(x, h0) if level else x), scale_factor=2.0)
            x = blended(blends, x, carry)
        return self.last(x)  # type: ignore[no-any-return]

    def beside(self, x: Tensor, h0: Tensor) -> Tensor:
        """The tensor with h0, enlarged to its size, as further maps."""
        if not self.skips:
            return x
        return torch.cat([x, F.interpolate(h0, scale_factor=x.shape[-1] / BASE)], 1)


class Autoencoder(nn.Module):
    """The critic."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class BEGANModel(AutoencoderCriticModel):
    """A generator and the autoencoder that judges it; encodings are the autoencoder's, and so is their decoder."""

    autoencoder: Autoencoder

    def __init__(self, config: BEGANModelConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.latent_shape = (config.latent,)
        self.prior = Uniform()
        self.generator = Decoder(config, faces, config.latent)
        self.autoencoder = Autoencoder(Encoder(config, faces), Decoder(config, faces, config.hidden))
        self.register_buffer("carry", torch.zeros(()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                truncated_normal_(module.weight, config.deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(z, self.carry)  # type: ignore[no-any-return]

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.autoencoder.encoder(images, self.carry)  # type: ignore[no-any-return]

    def decode_encoding(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.autoencoder.decoder(z, self.carry)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class BEGANModelConfig(ModelConfig):
    """17,268,038 parameters at 128 px with the author's layout and a width of 128."""

    cites: ClassVar[tuple[str, ...]] = ("began2017",)

    layout: Layout = (
        "author"  # author: of his layer library, the paper's 17.3M; figure: the paper's Figure 1 to the letter
    )
    width: int = 128  # n, feature maps of the decoder, and by which the encoder grows a level
    hidden: int = 64  # N_h, numbers of an encoding
    latent: int = 64  # N_z, numbers of a latent, U(-1, 1); other than N_h, it unbalances the two on purpose
    depth: int = 2  # 3x3 convolutions a level
    skips: bool = True  # whether the decoder's first tensor is handed to every level, for sharpness
    deviation: float = 0.01  # of the normal distribution of first weights, cut at twice that

    def build(self, faces: ImageSpec) -> BEGANModel:
        return BEGANModel(self, faces)
