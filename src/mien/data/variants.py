"""Varied copies of pictures, as VAE/GAN's authors made 600,000 of CelebA: andersbll/autoencoding_beyond_pixels@24aa0f2,
dataset/augment.py and the deviations in dataset/celeba.py. Each is shifted, scaled, turned and recoloured a little.
"""

from __future__ import annotations

from math import ceil, cos, exp, log, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEED = 151209300  # the paper's number
SHIFT = 2.0 / 178  # deviation of either shift, as a share of the width: 2 pixels of CelebA's 178
TURN, SCALE, HUE = 0.01, 0.01, 0.01  # deviations: radians, a factor, and a turn of the colour circle
GAMMA, CONTRAST = 0.05, 0.05  # of an exponent's logarithm to base 2, about
BORDER = 0.1  # of the width: a shift of more than that is cut to it

Pixels = NDArray[np.float64]  # [height, width, 3] in [0, 1]


class Variation(NamedTuple):
    """How one copy differs from its picture."""

    shift: tuple[float, float]  # right and down, as shares of the width
    scale: float
    turn: float  # radians
    gamma: float  # exponent of red, green and blue
    contrast: float  # exponent of saturation and value
    hue: float  # turns of the colour circle


def variation(number: int) -> Variation:
    """The variation of a row of a pack. The means of the exponents' logarithms are their variances, as there."""
    rng = np.random.default_rng([SEED, number])
    right, down = np.clip(rng.normal(0.0, SHIFT, 2), -BORDER, BORDER).tolist()
    scale, turn = rng.normal(1.0, SCALE), rng.normal(0.0, TURN)
    gamma, contrast = (exp(rng.normal(deviation**2, deviation) / log(2)) for deviation in (GAMMA, CONTRAST))
    return Variation((right, down), scale, turn, gamma, contrast, rng.normal(0.0, HUE))


def varied(image: Image.Image, how: Variation) -> Image.Image:
    """A copy of an RGB picture, of the same size. What lies beyond its border repeats it."""
    pixels = np.asarray(moved(image, how), dtype=np.float64) / 255.0
    hue, saturation, value = to_hsv(pixels**how.gamma)
    recoloured = to_rgb((hue + how.hue) % 1.0, saturation**how.contrast, value**how.contrast)
    return Image.fromarray(np.rint(recoloured * 255.0).astype(np.uint8))


def moved(image: Image.Image, how: Variation) -> Image.Image:
    """Turned and scaled around the centre, then shifted, with bicubic interpolation."""
    border = ceil(BORDER * image.width) + ceil(0.1 * max(image.size))
    padded = Image.fromarray(np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge"))
    along, across = how.scale * cos(how.turn), how.scale * sin(how.turn)
    centre = (image.width / 2, image.height / 2)
    left = centre[0] + how.shift[0] * image.width - along * centre[0] + across * centre[1] + border
    top = centre[1] + how.shift[1] * image.width - across * centre[0] - along * centre[1] + border
    matrix = (along, -across, left, across, along, top)  # from a place in the copy to one in the picture
    return padded.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def to_hsv(rgb: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Hue, saturation and value, each `[height, width]` in [0, 1]."""
    value, least = rgb.max(-1), rgb.min(-1)
    chroma = value - least
    red, green, blue = np.moveaxis(rgb, -1, 0)
    span = np.where(chroma > 0, chroma, 1.0)
    sextant = np.where(
        value == red, (green - blue) / span, np.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span)
    )
    return sextant / 6 % 1.0, chroma / np.where(value > 0, value, 1.0), value


def to_rgb(hue: Pixels, saturation: Pixels, value: Pixels) -> Pixels:
    """The inverse of `to_hsv`."""
    place = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue[..., None]) % 6.0
    return value[..., None] * (1.0 - saturation[..., None] * np.clip(np.minimum(place, 4.0 - place), 0.0, 1.0))  # type: ignore[no-any-return]
