"""Resampling that Pillow has not: without antialiasing as in scikit-image, the mean of an area, and a Gaussian blur.

All are linear along each axis, so that a picture is multiplied by a matrix from either side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TRUNCATE = 4.0  # deviations after which a Gaussian ends, as in SciPy


def linear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear interpolation."""
    return np.maximum(0.0, 1.0 - np.abs(distance))


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bicubic interpolation with a = -1/2 (Keys 1981), scikit-image's order 3 of 2015 and 2016."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1.0, -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


KERNELS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "bilinear": linear,
    "bicubic": cubic,
    "area": linear,
}


@lru_cache(maxsize=64)
def resizing(source: int, target: int, kernel: str) -> NDArray[np.float64]:
    """`[target, source]`: each row interpolates at the centre of a target pixel; beyond the border its last pixel goes on.

    "area" is the mean of what a target pixel covers; where that is less than a pixel, "bilinear".
    """
    if kernel == "area" and target < source:
        edges = np.arange(target + 1) * source / target
        low, high = edges[:-1, None], edges[1:, None]
        covered = np.minimum(high, np.arange(1, source + 1)) - np.maximum(low, np.arange(source))
        weights: NDArray[np.float64] = np.maximum(0.0, covered) * target / source
        return weights
    places = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(places).astype(int) - 1
    matrix = np.zeros((target, source))
    for tap in range(4):
        index = first + tap
        np.add.at(matrix, (np.arange(target), index.clip(0, source - 1)), KERNELS[kernel](places - index))
    return matrix


@lru_cache(maxsize=64)
def blurring(size: int, deviation: float) -> NDArray[np.float64]:
    """`[size, size]`: a Gaussian of `deviation` pixels, normalised; beyond the border its last pixel goes on."""
    reach = int(TRUNCATE * deviation + 0.5)
    taps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (taps / deviation) ** 2)
    matrix = np.zeros((size, size))
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), (np.arange(size) + tap).clip(0, size - 1)), weight)
    return matrix


def multiplied(image: Image.Image, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Image.Image:
    """An RGB picture with `rows` `[height, old height]` from the left and `columns` `[width, old width]` from the right."""
    pixels = np.einsum("yh,hwc->ywc", rows, np.asarray(image, dtype=np.float64), optimize=True)
    pixels = np.einsum("xw,ywc->yxc", columns, pixels, optimize=True)
    return Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))


def resized(image: Image.Image, size: tuple[int, int], kernel: str) -> Image.Image:
    """`image` at `size`, width and height."""
    return multiplied(image, resizing(image.height, size[1], kernel), resizing(image.width, size[0], kernel))


def blurred(image: Image.Image, deviation: float) -> Image.Image:
    """`image` behind a Gaussian of `deviation` pixels."""
    return multiplied(image, blurring(image.height, deviation), blurring(image.width, deviation))
