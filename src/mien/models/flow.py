"""A velocity field from noise to faces (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003): a small
convolutional U-Net, that a face is drawn with by following it from noise, and encoded by following it back.
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
CLOCK = 64  # sines and cosines that tell the time


def channelwise(x: Tensor) -> Tensor:
    """Zero mean and unit variance over the feature maps of each position: half the price of groups in bf16, and as good here."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), the second norm's scale and shift told by the time and the labels."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.first = scaled(nn.Conv2d(width, width, 3, padding=1), SILU)
        self.second = scaled(nn.Conv2d(width, width, 3, padding=1), 0.0)
        self.tell = scaled(nn.Linear(told, 2 * width), 0.0)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.tell(told)[:, :, None, None].chunk(2, 1)
        h = channelwise(self.first(F.silu(channelwise(x))))
        return x + self.second(F.silu(h * (1 + scale) + shift))  # type: ignore[no-any-return]


class Level(nn.Module):
    """The blocks of one resolution, on one of the two ways."""

    def __init__(self, width: int, told: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, told) for _ in range(blocks))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, told)
        return x


class Flow(FlowModel):
    """The field, and the two ways along it."""

    def __init__(self, config: FlowConfig, faces: ImageSpec) -> None:
        super().__init__()
        widths = widths_of(faces.side, config.width, config.max_width, config.patch)[::-1]  # finest first
        told = 4 * config.width
        self.latent_shape = (faces.channels, faces.side, faces.side)
        self.label_dim = faces.label_dim
        self.prior = Normal()
        self.solution = Solution(method=config.method, steps=config.steps, tolerance=config.tolerance)
        self.encoding = Solution(method="adaptive", tolerance=config.tolerance)
        self.guidance = config.guidance
        self.fold = config.patch
        channels = faces.channels * config.patch**2
        self.clock = nn.Sequential(nn.Linear(2 * CLOCK, told), nn.SiLU(), nn.Linear(told, told))
        self.labels = scaled(nn.Linear(2 * faces.label_dim, told, bias=False), 1.0) if faces.label_dim else None
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Level(width, told, config.blocks) for width in widths)
        self.up = nn.ModuleList(Level(width, told, config.blocks) for width in widths)
        self.widen = nn.ModuleList(scaled(nn.Conv2d(a, b, 1), 1.0) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(scaled(nn.Conv2d(b, a, 1), 1.0) for a, b in pairwise(widths))
        self.last = scaled(nn.Conv2d(widths[0], channels, 3, padding=1), 0.0)

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        told = self.clock(hands(t).to(x))
        if self.labels is not None:
            asked = torch.full((x.shape[0], self.label_dim), torch.nan).to(x) if labels is None else labels.to(x)
            known = ~asked.isnan()
            told = told + self.labels(torch.cat([(2.0 * asked - 1.0).nan_to_num(0.0), known.to(x)], 1))
        told = F.silu(told)
        h = self.first(F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last))
        kept = []
        for level, stage in enumerate(self.down):
            if level:
                h = self.widen[level - 1](F.avg_pool2d(h, 2))
            h = stage(h, told)
            kept.append(h)
        for level in reversed(range(len(kept))):
            if level < len(kept) - 1:
                h = kept[level] + F.interpolate(self.narrow[level](h), scale_factor=2.0, mode="nearest")
            h = self.up[level](h, told)
        field: Tensor = F.pixel_shuffle(self.last(F.silu(channelwise(h))), self.fold)
        return field.to(x.dtype)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_by(z, self.solution, self.guidance, labels)

    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        return solve(self.led(guidance, labels), z, 0.0, 1.0, how)

    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        return stages(self.led(guidance, labels), z, 0.0, 1.0, how)

    def led(self, guidance: float, labels: Tensor | None) -> Field:
        """The field that faces are drawn with: the model's own, or away from what it is without labels (arXiv:2207.12598)."""
        if guidance == 1.0 or labels is None:
            return lambda x, t: self.velocity(x, t, labels)
        asked_and_not = torch.cat([labels, torch.full_like(labels, torch.nan)])

        def guided(x: Tensor, t: Tensor) -> Tensor:
            asked, not_asked = self.velocity(torch.cat([x, x]), torch.cat([t, t]), asked_and_not).chunk(2)
            return not_asked + guidance * (asked - not_asked)

        return guided

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Back along the field, unguided, in steps as small as `tolerance` asks."""
        return solve(lambda x, t: self.velocity(x, t, labels), images, 1.0, 0.0, self.encoding)


def hands(t: Tensor) -> Tensor:
    """Sines and cosines of times `[n]` in [0, 1] at geometric speeds, `[n, 2 CLOCK]` (arXiv:1706.03762, section 3.5)."""
    speeds = torch.exp(torch.linspace(0.0, log(1000.0), CLOCK, device=t.device, dtype=t.dtype))
    angles = t[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], 1)


@dataclass(frozen=True, kw_only=True)
class FlowConfig(ModelConfig):
    """Compute grows with the square of `width`."""

    cites: ClassVar[tuple[str, ...]] = ("flow2022", "rectified2022")
    grows: ClassVar[tuple[str, ...]] = ("width", "max_width")  # with `--scale`

    width: int = 64  # feature maps at the finest convolved resolution, doubling downward
    max_width: int = 192  # upper bound on the number of feature maps
    blocks: int = 1  # residual blocks a resolution, on the way down and again on the way up
    patch: int = 2  # pixels a side for each position of the finest features
    method: Method = "multistep"  # how faces are drawn: euler, midpoint, heun, rk4, multistep or adaptive
    steps: int = 12  # of the fixed methods
    tolerance: float = 1e-4  # of the adaptive method, and of encoding: error of a step
    guidance: float = 1.0  # over 1: faces show more of what is asked for, and vary less

    def build(self, faces: ImageSpec) -> Flow:
        return Flow(self, faces)
