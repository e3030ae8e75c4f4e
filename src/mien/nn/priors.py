"""Priors: distributions of latents. Seeds use Philox4x32-10 on (seed, index), so that a seed gives the same face everywhere.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". The counter of block i of seed s is (i, 0, 0, 0), its key
(s mod 2^32, s div 2^32). Block i gives four 32-bit words w; the uniforms are u = (w + 0.5) / 2^32 in (0, 1); Box-Muller takes the
pairs (u0, u1), (u2, u3) to sqrt(-2 ln u0) cos(2 pi u1), sqrt(-2 ln u0) sin(2 pi u1) and so on, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mien.errors import UsageError

MAX_FRAMES = 100_000  # of a walk: about an hour of video
MAX_SEED = 2**53 - 1  # the largest integer that JavaScript represents exactly


def philox(seeds: Sequence[int], blocks: int) -> npt.NDArray[np.uint64]:
    """`[len(seeds), 4 * blocks]` words in [0, 2^32) of Philox4x32-10."""
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(
                f"{seed} is not a valid seed.", "A seed is a non-negative integer below 2^53.", f"Use 0 to {MAX_SEED}."
            )
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    key = np.asarray(seeds, dtype=np.uint64)[:, None]
    k0, k1 = key & low, key >> shift
    c0 = np.broadcast_to(np.arange(blocks, dtype=np.uint64), (len(seeds), blocks))
    c1 = c2 = c3 = np.zeros_like(c0)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack((c0, c1, c2, c3), axis=-1).reshape(len(seeds), 4 * blocks)


def uniforms(seeds: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """Samples of U(0, 1), `[len(seeds), count]`."""
    return ((philox(seeds, -(-count // 4)).astype(np.float64) + 0.5) / 2.0**32)[:, :count]


def normals(seeds: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """Samples of N(0, 1), `[len(seeds), count]`, by Box-Muller."""
    u = uniforms(seeds, count + count % 2)
    radius, angle = np.sqrt(-2.0 * np.log(u[:, 0::2])), 2.0 * np.pi * u[:, 1::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1).reshape(len(seeds), u.shape[1])[
        :, :count
    ]


@dataclass(frozen=True)
class Normal:
    """N(0, I). Its samples lie near a sphere, so interpolation is spherical and lengths are interpolated linearly."""

    def draw(self, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(normals(seeds, prod(shape)).astype(np.float32)).reshape(-1, *shape)

    def sample(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def path(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """Spherical interpolation of directions (Shoemake 1985), linear interpolation of lengths."""
        x, y = a.flatten(1).double(), b.flatten(1).double()
        length_x, length_y = x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
        x, y = x / length_x, y / length_y
        angle = torch.acos((x * y).sum(1, keepdim=True).clamp(-1.0, 1.0))
        sine = torch.sin(angle)
        apart = sine > 1e-6  # equal or opposite directions define no great circle: interpolate linearly
        safe = torch.where(apart, sine, torch.ones_like(sine))
        weight_x = torch.where(apart, torch.sin((1 - t) * angle) / safe, torch.full_like(sine, 1 - t))
        weight_y = torch.where(apart, torch.sin(t * angle) / safe, torch.full_like(sine, t))
        point: Tensor = (weight_x * x + weight_y * y) * ((1 - t) * length_x + t * length_y)
        return point.to(a.dtype).reshape(a.shape)

    def project(self, z: Tensor) -> Tensor:
        """Into the ball that contains 99.9% of the samples, whose lengths are about N(sqrt(d), 1/2)."""
        length = z.flatten(1).norm(dim=1).reshape(-1, *[1] * (z.ndim - 1))
        radius = z[0].numel() ** 0.5 + 2.2
        inside: Tensor = z * (radius / length.clamp(min=1e-12)).clamp(max=1.0)
        return inside


@dataclass(frozen=True)
class Uniform:
    """U(-1, 1)^d. The cube is convex, so interpolation is linear."""

    def draw(self, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy((2.0 * uniforms(seeds, prod(shape)) - 1.0).astype(np.float32)).reshape(-1, *shape)

    def sample(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2.0 - 1.0

    def path(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        between: Tensor = a + (b - a) * t
        return between

    def project(self, z: Tensor) -> Tensor:
        """Into the cube."""
        return z.clamp(-1.0, 1.0)


def check_walk(stops: int, frames: int) -> None:
    """Raise UsageError for fewer than two stops, or fewer frames than stops."""
    if stops < 2 or not stops <= frames <= MAX_FRAMES:
        raise UsageError(
            "A walk needs at least two faces, and at least one frame per face.",
            f"It has {stops} faces and {frames} frames; the maximum is {MAX_FRAMES:,} frames.",
            "Use for example --seeds 3 42 7 --frames 60.",
        )


def positions(stops: int, frames: int, loop: bool, chosen: Sequence[int] | None = None) -> list[float]:
    """The position of each frame between 0 and stops - 1: evenly spaced, except that each stop is hit exactly.

    `chosen` are the frames whose positions are returned; None is all of them.
    """
    legs = stops - 1
    steps = frames if loop else frames - 1  # a loop's last frame is the one before the first
    marks = [round(leg * steps / legs) for leg in range(legs + 1)]
    line = [
        leg + step / (marks[leg + 1] - marks[leg]) for leg in range(legs) for step in range(marks[leg + 1] - marks[leg])
    ]
    line = line if loop else [*line, float(legs)]
    return line if chosen is None else [line[frame] for frame in chosen]
