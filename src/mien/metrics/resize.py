"""Named resizers before a network, because two resizers give two different metrics (Parmar et al. 2022, arXiv 2104.11222).

Every resizer here is linear and works on rows and columns apart, so it is one matrix a side: `[size_out, size_in]`,
its rows summing to one. Pixels are never rounded on the way.

    bilinear    half-pixel centres, widened when shrinking so that nothing aliases: Pillow's, and torch's antialiased
    bicubic     the same with Pillow's cubic (a = -0.5), then clipped to [0, 255]: clean-fid's
    point       half-pixel centres, two neighbours even when shrinking: torch's default and pytorch-fid's
    tf1         corner-aligned to the top left, two neighbours: TensorFlow 1's, torch-fidelity's and torchmetrics'
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Resizer = Literal["bilinear", "bicubic", "point", "tf1"]

Array = npt.NDArray[np.float64]


def triangle(x: Array) -> Array:
    return np.maximum(1.0 - np.abs(x), 0.0)


def cubic(x: Array) -> Array:
    """Keys' cubic with a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


def widened(size_in: int, size_out: int, kernel: Callable[[Array], Array], support: float) -> Array:
    """A kernel around half-pixel centres, as wide as an output pixel; weights outside the image are left out."""
    scale = size_in / size_out
    width = max(scale, 1.0)
    centres = (np.arange(size_out)[:, None] + 0.5) * scale
    places = np.arange(size_in)[None, :]
    first = np.floor(centres - support * width + 0.5)  # Pillow's rounding of the window's ends
    last = np.floor(centres + support * width + 0.5)
    weights = np.where((places >= first) & (places < last), kernel((places + 0.5 - centres) / width), 0.0)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def two_neighbours(size_in: int, positions: Array) -> Array:
    positions = np.clip(positions, 0.0, size_in - 1.0)
    return triangle(positions[:, None] - np.arange(size_in)[None, :])


@lru_cache(maxsize=32)
def matrix(size_in: int, size_out: int, resizer: Resizer) -> Tensor:
    """`[size_out, size_in]`, float32."""
    index, scale = np.arange(size_out, dtype=np.float64), size_in / size_out
    weights = {
        "bilinear": lambda: widened(size_in, size_out, triangle, 1.0),
        "bicubic": lambda: widened(size_in, size_out, cubic, 2.0),
        "point": lambda: two_neighbours(size_in, (index + 0.5) * scale - 0.5),
        "tf1": lambda: two_neighbours(size_in, index * scale),
    }[resizer]()
    return torch.from_numpy(weights.astype(np.float32))


def resize(images: Tensor, size: tuple[int, int], resizer: Resizer) -> Tensor:
    """Images `[n, C, H, W]`, float32 in [0, 255] -> `[n, C, *size]` in the same range."""
    height, width = size
    down = matrix(images.shape[2], height, resizer).to(images.device)
    across = matrix(images.shape[3], width, resizer).to(images.device)
    resized = torch.matmul(torch.matmul(down, images), across.T)
    return resized.clamp_(0.0, 255.0) if resizer == "bicubic" else resized
