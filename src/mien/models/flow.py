"""The network of flow matching (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003): a small convolutional
U-Net that predicts a velocity. Integrating it from noise to data samples a face; integrating back encodes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec, ModelConfig
from mien.core.families import FlowModel
from mien.models.residual import widths_of
from mien.nn.ode import Field, Method, Solution, solve, stages
from mien.nn.pixel_shuffle import scaled
from mien.nn.priors import Normal

SILU = 1.68  # 1 / root of the mean square of silu(N(0, 1)): keeps the variance
TIME_FREQUENCIES = 64  # of the sinusoidal time embedding


def channelwise(x: Tensor) -> Tensor:
    """Layer norm over the channels of each position: half the cost of group norm in bf16, and equally good here (docs/LOG.md)."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))); the scale and shift of the second norm depend on time and labels."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first = scaled(nn.Conv2d(width, width, 3, padding=1), SILU)
        self.second = scaled(nn.Conv2d(width, width, 3, padding=1), 0.0)
        self.modulation = scaled(nn.Linear(condition, 2 * width), 0.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        h = channelwise(self.first(F.silu(channelwise(x))))
        return x + self.second(F.silu(h * (1 + scale) + shift))  # type: ignore[no-any-return]


class Level(nn.Module):
    """The blocks of one resolution, in the encoder or the decoder of the U-Net."""

    def __init__(self, width: int, condition: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, condition) for _ in range(blocks))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return x


class Flow(FlowModel):
    """The velocity field, sampling and encoding."""

    def __init__(self, config: FlowConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)[::-1]  # finest first
        condition = 4 * config.width
        self.latent_shape = (faces.channels, faces.side, faces.side)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        self.solution = Solution(method=config.method, steps=config.steps, tolerance=config.tolerance)
        self.encoding = Solution(method="adaptive", tolerance=config.tolerance)
        self.guidance = config.guidance
        self.patch = config.patch
        channels = faces.channels * config.patch**2
        self.time_embedding = nn.Sequential(
            nn.Linear(2 * TIME_FREQUENCIES, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.labels = scaled(nn.Linear(2 * faces.label_dim, condition, bias=False), 1.0) if faces.label_dim else None
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Level(width, condition, config.blocks) for width in widths)
        self.up = nn.ModuleList(Level(width, condition, config.blocks) for width in widths)
        self.widen = nn.ModuleList(scaled(nn.Conv2d(a, b, 1), 1.0) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(scaled(nn.Conv2d(b, a, 1), 1.0) for a, b in pairwise(widths))
        self.last = scaled(nn.Conv2d(widths[0], channels, 3, padding=1), 0.0)

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.time_embedding(sinusoids(t).to(x))
        if self.labels is not None:
            values = torch.full((x.shape[0], self.label_dim), torch.nan).to(x) if labels is None else labels.to(x)
            known = ~values.isnan()
            condition = condition + self.labels(torch.cat([(2.0 * values - 1.0).nan_to_num(0.0), known.to(x)], 1))
        condition = F.silu(condition)
        h = self.first(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                h = self.widen[level - 1](F.avg_pool2d(h, 2))
            h = stage(h, condition)
            skips.append(h)
        for level in reversed(range(len(skips))):
            if level < len(skips) - 1:
                h = skips[level] + F.interpolate(self.narrow[level](h), scale_factor=2.0, mode="nearest")
            h = self.up[level](h, condition)
        field: Tensor = F.pixel_shuffle(self.last(F.silu(channelwise(h))), self.patch)
        return field.to(x.dtype)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_by(z, self.solution, self.guidance, labels)

    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        return solve(self.guided_field(guidance, labels), z, 0.0, 1.0, how)

    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        return stages(self.guided_field(guidance, labels), z, 0.0, 1.0, how)

    def guided_field(self, guidance: float, labels: Tensor | None) -> Field:
        """The field for sampling: the model's own, or with classifier-free guidance (arXiv:2207.12598)."""
        if guidance == 1.0 or labels is None:
            return lambda x, t: self.velocity(x, t, labels)
        both = torch.cat([labels, torch.full_like(labels, torch.nan)])

        def guided(x: Tensor, t: Tensor) -> Tensor:
            conditional, unconditional = self.velocity(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            return unconditional + guidance * (conditional - unconditional)

        return guided

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Integrates the field backwards, without guidance, with the adaptive solver."""
        return solve(lambda x, t: self.velocity(x, t, labels), images, 1.0, 0.0, self.encoding)


def sinusoids(t: Tensor) -> Tensor:
    """Sinusoidal embedding of times `[n]` in [0, 1], `[n, 2 TIME_FREQUENCIES]` (arXiv:1706.03762, section 3.5)."""
    frequencies = torch.exp(torch.linspace(0.0, log(1000.0), TIME_FREQUENCIES, device=t.device, dtype=t.dtype))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


@dataclass(frozen=True, kw_only=True)
class FlowConfig(ModelConfig):
    """Compute grows with the square of `width`."""

    cites: ClassVar[tuple[str, ...]] = ("flow2022", "rectified2022")
    grows: ClassVar[tuple[str, ...]] = ("width", "max_width")  # with `--scale`

    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    max_width: int = 192  # upper bound on the number of feature maps
    blocks: int = 1  # residual blocks per resolution, in the encoder and again in the decoder
    patch: int = 2  # pixels a side for each position of the finest features
    method: Method = "multistep"  # solver for sampling: euler, midpoint, heun, rk4, multistep or adaptive
    steps: int = 12  # of the solver, unless it is adaptive
    tolerance: float = 1e-4  # error per step of the adaptive solver, which is also used for encoding
    guidance: float = 1.0  # classifier-free guidance scale; above 1, faces follow the labels more and vary less

    def build(self, faces: ImageSpec) -> Flow:
        return Flow(self, faces)
