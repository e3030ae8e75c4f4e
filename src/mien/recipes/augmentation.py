"""Changing images before a critic sees them, reals and fakes alike, so that it cannot learn a small set of images by heart
(Karras et al. 2020, arXiv:2006.06676; Zhao et al. 2020, arXiv:2006.10738).

Every change is a differentiable function of the image, twice: penalties on a critic's slope go through it. A change that is
applied with a probability below 0.8 does not leak into what is generated (arXiv:2006.06676, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core import distributed
from mien.core.contracts import require_fraction, require_positive

DRAWS = 32  # standard normal numbers that the changes of one image are made from
# Strengths, from arXiv:2006.06676, appendix B.
SHIFT = 0.125  # of the side: most of a whole-pixel shift, deviation of a fractional one
SCALE = 0.2  # deviation of the binary logarithm, for both kinds of scaling
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # deviations; of binary logarithms for the last two
CUTOUT = 0.5  # of the side


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which images are changed, how often and how. Below p = 0.8 samples do not show them (arXiv:2006.06676, section 2.2)."""

    mode: Literal["none", "ramp", "adaptive"] = "none"  # ramp: up to p on a schedule; adaptive: as the critic overfits
    p: float = 0.3  # probability of each change: where a ramp ends, the most that adaptive may reach
    images: int = 500_000  # over which a ramp rises, or adaptive could go from 0 to 1
    target: float = 0.6  # adaptive: mean sign of (real - fake) logits that is held
    geometry: float = 1.0  # multiplies p for flips, turns, shifts, scalings
    colour: float = 0.5  # multiplies p for brightness, contrast, inversion, hue, saturation
    cutout: float = 1.0  # multiplies p for a grey square

    def __post_init__(self) -> None:
        require_fraction(self, "p", "geometry", "colour", "cutout", prefix="recipe.augment")
        require_positive(self, "images", prefix="recipe.augment")


class Augment(nn.Module):
    """Images `[n, C, H, W]` and as many rows of standard normal numbers -> changed images of the same shape."""

    p: Tensor

    def __init__(self, config: Augmentation) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.zeros((), dtype=torch.float64))

    def schedule(self, seen: int) -> None:
        """Follow the ramp, half a cosine from 0 to p."""
        if self.config.mode == "ramp":
            share = min(1.0, seen / self.config.images)
            self.p.fill_(self.config.p * (1.0 - torch.cos(torch.tensor(pi * share, dtype=torch.float64))) / 2.0)

    def heed(self, real: Tensor, fake: Tensor, seen: int) -> None:
        """Follow the critic, when adaptive: logits `[n]` of reals and fakes that are paired, after `seen` more images.

        The heuristic is r_t of arXiv:2006.06676, section 3.1, on differences of logits: a relativistic critic has no zero.
        """
        if self.config.mode == "adaptive":
            surplus = float(distributed.mean((real - fake).detach().sign().float().mean())) - self.config.target
            step = seen / self.config.images * (1.0 if surplus > 0 else -1.0)
            self.p.add_(step).clamp_(0.0, self.config.p)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        p, c = float(self.p), self.config
        if p == 0.0:
            return images
        with torch.autocast(images.device.type, enabled=False):
            rows = iter(numbers.to(images).unbind(1))
            images = resampled(images, placement(rows, p * c.geometry, images.shape[-1]))
            images = recoloured(images, *palette(rows, p * c.colour, images.shape[1]))
            return images * window(rows, p * c.cutout, images)


def uniform(normal: Tensor) -> Tensor:
    """Numbers uniform in [0, 1] from standard normal ones."""
    return 0.5 * (1.0 + torch.erf(normal / sqrt(2.0)))


def chosen(rows: Any, p: float) -> Tensor:
    """1 with probability p, else 0, for each image."""
    return (uniform(next(rows)) < p).to(torch.float32)


def square(rows: list[list[Tensor]]) -> Tensor:
    """Matrices `[n, k, k]` from their entries, each `[n]`."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def placement(rows: Any, p: float, side: int) -> Tensor:
    """Where each output pixel is taken from: `[n, 2, 3]` in coordinates from -1 to 1."""
    first = next(rows)
    zero, one = torch.zeros_like(first), torch.ones_like(first)

    def scaling(x: Tensor, y: Tensor) -> Tensor:
        return square([[x, zero, zero], [zero, y, zero], [zero, zero, one]])

    def turning(angle: Tensor) -> Tensor:
        return square([[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero], [zero, zero, one]])

    def shifting(x: Tensor, y: Tensor) -> Tensor:
        return square([[one, zero, 2.0 * x], [zero, one, 2.0 * y], [zero, zero, one]])

    turn_p = 1.0 - sqrt(1.0 - min(p, 1.0))  # twice, before and after the uneven scaling: p in all
    where = scaling(1.0 - 2.0 * (uniform(first) < 0.5 * p).float(), one)
    where = where @ turning(pi / 2 * chosen(rows, p) * (uniform(next(rows)) * 4).floor())
    on = chosen(rows, p)
    whole = [on * ((uniform(next(rows)) * 2 - 1) * SHIFT * side).round() / side for _ in range(2)]
    where = where @ shifting(*whole)
    even = torch.exp2(SCALE * next(rows) * chosen(rows, p))
    where = where @ scaling(even, even)
    where = where @ turning(chosen(rows, turn_p) * (uniform(next(rows)) * 2 - 1) * pi)
    uneven = torch.exp2(SCALE * next(rows) * chosen(rows, p))
    where = where @ scaling(uneven, 1.0 / uneven)
    where = where @ turning(chosen(rows, turn_p) * (uniform(next(rows)) * 2 - 1) * pi)
    on = chosen(rows, p)
    where = where @ shifting(on * SHIFT * next(rows), on * SHIFT * next(rows))
    return where[:, :2]


def palette(rows: Any, p: float, channels: int) -> tuple[Tensor, Tensor]:
    """What becomes of colours: a matrix `[n, C, C]` and what is added, `[n, C, 1]`."""
    brightness = BRIGHTNESS * next(rows) * chosen(rows, p)
    contrast = torch.exp2(CONTRAST * next(rows) * chosen(rows, p))
    flip, turned, angle = chosen(rows, p * 0.5), chosen(rows, p), (uniform(next(rows)) * 2 - 1) * pi
    saturation = torch.exp2(SATURATION * next(rows) * chosen(rows, p))
    identity = torch.eye(channels).to(brightness)
    grey = torch.full((channels, channels), 1.0 / channels).to(brightness)  # projects onto the line of greys

    def each(value: Tensor) -> Tensor:
        return value[:, None, None]

    matrix = each(contrast) * (identity - each(2.0 * flip) * grey)  # inverted brightness keeps hue
    added = (contrast * brightness * (1.0 - 2.0 * flip))[:, None].expand(-1, channels)
    if channels == 3:
        across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]).to(brightness) / sqrt(3.0)
        angle = turned * angle
        hue = grey + each(angle.cos()) * (identity - grey) + each(angle.sin()) * across  # Rodrigues, around the greys
        matrix = (grey + each(saturation) * (identity - grey)) @ hue @ matrix
    return matrix, added[..., None]


def recoloured(images: Tensor, matrix: Tensor, added: Tensor) -> Tensor:
    return (matrix @ images.flatten(2) + added).reshape(images.shape)


def window(rows: Any, p: float, images: Tensor) -> Tensor:
    """1, and 0 inside a square of half the side around a random place, `[n, 1, H, W]`."""
    on, x, y = chosen(rows, p), uniform(next(rows)), uniform(next(rows))
    line = (torch.arange(images.shape[-1]).to(x) + 0.5) / images.shape[-1]
    inside_x, inside_y = ((line - at[:, None]).abs() < CUTOUT / 2 for at in (x, y))
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return 1.0 - on[:, None, None, None] * inside


def resampled(images: Tensor, where: Tensor) -> Tensor:
    """Images looked up bilinearly where `[n, 2, 3]` says, reflected at the border."""
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    return Resample.apply(images, grid)  # type: ignore[no-any-return,no-untyped-call]


class Resample(torch.autograd.Function):
    """`grid_sample`, a linear function of the image, which torch differentiates but once: its adjoint is linear too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return Spread.apply(gradient, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class Spread(torch.autograd.Function):
    """The adjoint of Resample: every pixel's value goes back to where it was taken from."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        bilinear, reflection = 0, 2
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(
            values.contiguous(), values.new_zeros(shape), grid, bilinear, reflection, False, [True, False]
        )
        return spread  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return Resample.apply(gradient, grid), None, None  # type: ignore[no-untyped-call]
