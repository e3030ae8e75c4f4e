"""Replaces the background of portraits: MediaPipe's selfie segmentation, refined by a guided filter.

The network's mask is soft and 256 pixels wide. A guided filter with a colour guide (He, Sun and Tang, "Guided image
filtering", 2010; solved on a smaller grid as in arXiv 1505.00996) aligns it with hair. Foreground estimation (Forte,
"Approximate fast foreground colour estimation", ICIP 2021) then removes the old background's colour from partly covered
pixels, so that no halo remains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from mien.data.affine import opencv
from mien.data.tflite import Network
from mien.errors import UsageError

Array = NDArray[np.float32]

MASK_SIDE = 256  # pixels of the network's input and output
GRID = 128  # pixels of the grid on which the guided filter is solved
RADIUS = 3  # of the guided filter, in pixels of the grid: about the width of a lock of hair
CONFIDENT = 0.9  # if the mask's 99th percentile is lower, the network runs again with a margin around the photograph
SMOOTHNESS = 1e-4  # the filter's epsilon, for colours in [0, 1]: contrasts below 0.01 do not count as edges
REACH = 0.06  # radius of foreground estimation, as a share of the shorter side
BLUR = 0.08  # radius of the background's blur, as a share of the shorter side
GREY = (128, 128, 128)


class Matte:
    """Replaces the background behind people. Cheap to create and to pickle; each process loads its own network.

    `background` is `grey` (middle grey), `blur` (the photograph's own background, blurred beyond recognition), or any colour
    that Pillow knows: `white`, `#3366cc`, `hsl(200,50%,50%)`. Raises UsageError for another value. It uses about 150 bytes of
    memory per pixel: reduce a large photograph first.
    """

    def __init__(self, background: str | tuple[int, int, int] = "grey") -> None:
        self.background = background
        self.colour = None if background == "blur" else parse(background)
        self._network = Network("selfie")

    def apply(self, image: Image.Image) -> Image.Image:
        """The same picture, RGB and of the same size, with the background replaced."""
        picture = image.convert("RGB")
        alpha = self.alpha(picture)[:, :, None]
        pixels = np.divide(np.asarray(picture), 255, dtype=np.float32)
        person = foreground(pixels, alpha)
        if self.colour is None:
            ground = blurred_ground(pixels, alpha)
        else:
            ground = np.divide(np.array(self.colour), 255, dtype=np.float32)
        mixed = alpha * person + (1 - alpha) * ground
        return Image.fromarray(np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8))

    def alpha(self, image: Image.Image) -> Array:
        """The alpha matte [height, width] in [0, 1]: 1 is the person."""
        picture = image.convert("RGB")
        small, mask = self._segment(picture)
        if np.percentile(mask, 99) < CONFIDENT:
            framed = self._segment_with_margin(picture)
            mask = framed if np.percentile(framed, 99) > np.percentile(mask, 99) else mask
        slope, offset = guide(resize(small, (GRID, GRID)), resize(mask, (GRID, GRID)))
        if min(picture.size) < MASK_SIDE:  # a small photograph is refined at the mask's size, then reduced
            return resize(apply_guide(small, slope, offset), picture.size)
        return apply_guide(np.divide(np.asarray(picture), 255, dtype=np.float32), slope, offset)

    def _segment(self, picture: Image.Image) -> tuple[Array, Array]:
        """The network's input [256, 256, 3] and its mask [256, 256]."""
        square = picture.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.LANCZOS)
        small = np.divide(np.asarray(square), 255, dtype=np.float32)
        return small, np.clip(self._network(small)[0][:, :, 0], 0, 1)

    def _segment_with_margin(self, picture: Image.Image) -> Array:
        """The mask [256, 256] of a picture with a grey margin above and beside it, as in the network's training data."""
        width, height = picture.size
        left, top = round(0.3 * width), round(0.3 * height)
        framed = Image.new("RGB", (width + 2 * left, height + top), GREY)
        framed.paste(picture, (left, top))
        mask = resize(self._segment(framed)[1], framed.size)[top:, left : left + width]
        return resize(np.ascontiguousarray(mask), (MASK_SIDE, MASK_SIDE))


def parse(colour: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour as red, green, blue in 0..255. Raises UsageError for an unknown colour."""
    if isinstance(colour, tuple):
        return colour
    if colour in ("grey", "gray"):
        return GREY
    try:
        return ImageColor.getrgb(colour)[:3]
    except ValueError as error:
        raise UsageError(
            f"There is no background `{colour}`.", str(error), "Give grey, blur, or a colour such as white or #3366cc."
        ) from error


def guide(colours: Array, mask: Array) -> tuple[Array, Array]:
    """Guided filter: slope [h, w, 3] and offset [h, w] of the local linear model from colours to the mask."""
    mean, mask_mean = box(colours, RADIUS), box(mask, RADIUS)
    products = (colours[:, :, :, None] * colours[:, :, None, :]).reshape(*mask.shape, 9)
    covariance = box(products, RADIUS).reshape(*mask.shape, 3, 3) - mean[:, :, :, None] * mean[:, :, None, :]
    shared = box(colours * mask[:, :, None], RADIUS) - mean * mask_mean[:, :, None]
    slope = np.linalg.solve(covariance + SMOOTHNESS * np.eye(3, dtype=np.float32), shared[:, :, :, None])[:, :, :, 0]
    return box(slope, RADIUS), box(mask_mean - (slope * mean).sum(axis=2), RADIUS)


def apply_guide(pixels: Array, slope: Array, offset: Array) -> Array:
    """Apply the linear models to a picture. Alpha near 0 or 1 is clipped to it, because the filter never quite reaches them."""
    size = (pixels.shape[1], pixels.shape[0])
    alpha = (resize(slope, size) * pixels).sum(axis=2) + resize(offset, size)
    clipped: Array = np.clip((alpha - 0.08) / 0.84, 0, 1)
    return clipped


def foreground(pixels: Array, alpha: Array) -> Array:
    """The foreground colours, without the old background in partly covered pixels (Forte 2021, equations 6 to 8)."""
    covered, bare = alpha**3, (1 - alpha) ** 3  # weights: nearly pure pixels count most
    person, behind = pixels, pixels
    for share in (REACH, REACH / 6):  # first a large radius, then a small one
        radius = max(1, round(share * min(pixels.shape[:2])))
        person = box(person * covered, radius) / (box(covered[:, :, 0], radius)[:, :, None] + 1e-5)
        behind = box(behind * bare, radius) / (box(bare[:, :, 0], radius)[:, :, None] + 1e-5)
        person = np.clip(person + alpha * (pixels - alpha * person - (1 - alpha) * behind), 0, 1)
    return person


def blurred_ground(pixels: Array, alpha: Array) -> Array:
    """The blurred background, without the person's colours."""
    radius = max(2, round(BLUR * min(pixels.shape[:2])))
    weight = (1 - alpha) ** 2 + 1e-4  # a small weight where there is hardly any background
    colours = pixels * weight
    for _ in range(3):  # three box filters approximate a Gaussian
        colours, weight = box(colours, radius), box(weight[:, :, 0], radius)[:, :, None]
    ground: Array = colours / weight
    return ground


def box(values: Array, radius: int) -> Array:
    """Box filter: the mean over a square of `radius` around each pixel, per channel, with reflected borders."""
    cv2 = opencv()
    side = 2 * radius + 1
    mean: Array = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
    return mean


def resize(values: Array, size: tuple[int, int]) -> Array:
    """Resize to another width and height, with antialiasing."""
    if values.ndim == 3:
        return np.stack([resize(values[:, :, channel], size) for channel in range(values.shape[2])], axis=-1)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
