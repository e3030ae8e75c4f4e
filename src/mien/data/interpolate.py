"""Resampling that Pillow lacks: no antialiasing as in scikit-image, area averaging, and Gaussian blur.

Each is separable and linear, so a picture is multiplied by one matrix per axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TRUNCATE = 4.0  # standard deviations at which the Gaussian is cut off, as in SciPy


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
def resize_matrix(source: int, target: int, kernel: str) -> NDArray[np.float64]:
    """`[target, source]`: each row interpolates at the centre of a target pixel; the border pixel is repeated.

    "area" is the mean of the area that a target pixel covers; when enlarging, it is "bilinear".
    """
    if kernel == "area" and target < source:
        edges = np.arange(target + 1) * source / target
        low, high = edges[:-1, None], edges[1:, None]
        covered = np.minimum(high, np.arange(1, source + 1)) - np.maximum(low, np.arange(source))
        weights: NDArray[np.float64] = np.maximum(0.0, covered) * target / source
        return weights
    positions = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(positions).astype(int) - 1
    matrix = np.zeros((target, source))
    for tap in range(4):
        index = first + tap
        np.add.at(matrix, (np.arange(target), index.clip(0, source - 1)), KERNELS[kernel](positions - index))
    return matrix


@lru_cache(maxsize=64)
def blur_matrix(size: int, deviation: float) -> NDArray[np.float64]:
    """`[size, size]`: a normalised Gaussian with a standard deviation of `deviation` pixels; the border pixel is repeated."""
    reach = int(TRUNCATE * deviation + 0.5)
    taps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (taps / deviation) ** 2)
    matrix = np.zeros((size, size))
    for tap, weight in zip(taps, weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), (np.arange(size) + tap).clip(0, size - 1)), weight)
    return matrix


def apply_matrices(image: Image.Image, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Image.Image:
    """Multiply an RGB picture by `rows` `[height, old height]` and `columns` `[width, old width]`."""
    pixels = np.einsum("yh,hwc->ywc", rows, np.asarray(image, dtype=np.float64), optimize=True)
    pixels = np.einsum("xw,ywc->yxc", columns, pixels, optimize=True)
    return Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))


def resized(image: Image.Image, size: tuple[int, int], kernel: str) -> Image.Image:
    """Resize `image` to `size`, width and height."""
    return apply_matrices(
        image, resize_matrix(image.height, size[1], kernel), resize_matrix(image.width, size[0], kernel)
    )


def blurred(image: Image.Image, deviation: float) -> Image.Image:
    """Blur `image` with a Gaussian whose standard deviation is `deviation` pixels."""
    return apply_matrices(image, blur_matrix(image.height, deviation), blur_matrix(image.width, deviation))
