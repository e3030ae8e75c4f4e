"""Portraits without their background: MediaPipe's selfie segmentation, its edge drawn again by the photograph.

The network's mask is soft and 256 pixels wide. A guided filter with a colour guide (He, Sun and Tang, "Guided image
filtering", 2010; solved on a smaller grid as in arXiv 1505.00996) makes it follow hair. The colour of half-covered pixels is
then estimated without the old background (Forte, "Approximate fast foreground colour estimation", ICIP 2021), so that no
halo of it remains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from mien.data.affine import opencv
from mien.data.tflite import Network
from mien.errors import UsageError

Array = NDArray[np.float32]

MASK_SIDE = 256  # pixels that the network takes and gives
GRID = 128  # pixels of the grid on which the guided filter is solved
RADIUS = 3  # of the filter, in pixels of the grid: about a lock of hair
SURE = 0.9  # where the mask's 99th percentile is below, the photograph is looked at again, with a margin around it
SMOOTHNESS = 1e-4  # its epsilon, for colours in [0, 1]: contrasts below 0.01 are no edge
REACH = 0.06  # how far colours are gathered for half-covered pixels, as a share of the shorter side
BLUR = 0.08  # of the background, likewise
GREY = (128, 128, 128)


class Matte:
    """Puts people before another background. Cheap to make and to send to a worker; each process loads its own network.

    `background` is `grey` (transparency shown on middle grey), `blur` (the photograph's own, unrecognisable), or any colour
    that Pillow knows: `white`, `#3366cc`, `hsl(200,50%,50%)`. Raises UsageError for another word. It takes some 150 bytes of
    memory for a pixel: reduce a large photograph first.
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
        """How much of each pixel [height, width] is person, in [0, 1]."""
        picture = image.convert("RGB")
        small, mask = self._look(picture)
        if np.percentile(mask, 99) < SURE:
            framed = self._look_framed(picture)
            mask = framed if np.percentile(framed, 99) > np.percentile(mask, 99) else mask
        slope, offset = guide(resize(small, (GRID, GRID)), resize(mask, (GRID, GRID)))
        if min(picture.size) < MASK_SIDE:  # a small photograph is finished at the mask's size, and reduced after
            return resize(follow(small, slope, offset), picture.size)
        return follow(np.divide(np.asarray(picture), 255, dtype=np.float32), slope, offset)

    def _look(self, picture: Image.Image) -> tuple[Array, Array]:
        """The picture as the network takes it [256, 256, 3], and the mask that it gives [256, 256]."""
        square = picture.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.LANCZOS)
        small = np.divide(np.asarray(square), 255, dtype=np.float32)
        return small, np.clip(self._network(small)[0][:, :, 0], 0, 1)

    def _look_framed(self, picture: Image.Image) -> Array:
        """The mask of a picture that was shown with grey above and beside it, as the network is used to."""
        width, height = picture.size
        left, top = round(0.3 * width), round(0.3 * height)
        framed = Image.new("RGB", (width + 2 * left, height + top), GREY)
        framed.paste(picture, (left, top))
        mask = resize(self._look(framed)[1], framed.size)[top:, left : left + width]
        return resize(np.ascontiguousarray(mask), (MASK_SIDE, MASK_SIDE))


def parse(colour: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour as red, green, blue in 0..255. Raises UsageError for none."""
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
    """Per pixel the slope [h, w, 3] and offset [h, w] of the plane that gives the mask from the colours around it."""
    mean, mask_mean = box(colours, RADIUS), box(mask, RADIUS)
    products = (colours[:, :, :, None] * colours[:, :, None, :]).reshape(*mask.shape, 9)
    covariance = box(products, RADIUS).reshape(*mask.shape, 3, 3) - mean[:, :, :, None] * mean[:, :, None, :]
    shared = box(colours * mask[:, :, None], RADIUS) - mean * mask_mean[:, :, None]
    slope = np.linalg.solve(covariance + SMOOTHNESS * np.eye(3, dtype=np.float32), shared[:, :, :, None])[:, :, :, 0]
    return box(slope, RADIUS), box(mask_mean - (slope * mean).sum(axis=2), RADIUS)


def follow(pixels: Array, slope: Array, offset: Array) -> Array:
    """The planes applied to a picture; nearly covered becomes covered and nearly bare bare, for the filter leaves a veil."""
    size = (pixels.shape[1], pixels.shape[0])
    alpha = (resize(slope, size) * pixels).sum(axis=2) + resize(offset, size)
    clipped: Array = np.clip((alpha - 0.08) / 0.84, 0, 1)
    return clipped


def foreground(pixels: Array, alpha: Array) -> Array:
    """The person's own colours, also where the old background shines through (Forte 2021, equations 6 to 8)."""
    covered, bare = alpha**3, (1 - alpha) ** 3  # colours are gathered where hardly anything is mixed into them
    person, behind = pixels, pixels
    for share in (REACH, REACH / 6):  # first from afar, then close by
        radius = max(1, round(share * min(pixels.shape[:2])))
        person = box(person * covered, radius) / (box(covered[:, :, 0], radius)[:, :, None] + 1e-5)
        behind = box(behind * bare, radius) / (box(bare[:, :, 0], radius)[:, :, None] + 1e-5)
        person = np.clip(person + alpha * (pixels - alpha * person - (1 - alpha) * behind), 0, 1)
    return person


def blurred_ground(pixels: Array, alpha: Array) -> Array:
    """The background's colours, blurred, without the person's."""
    radius = max(2, round(BLUR * min(pixels.shape[:2])))
    weight = (1 - alpha) ** 2 + 1e-4  # where there is hardly any background, still some colour
    colours = pixels * weight
    for _ in range(3):  # three boxes are nearly a Gaussian
        colours, weight = box(colours, radius), box(weight[:, :, 0], radius)[:, :, None]
    ground: Array = colours / weight
    return ground


def box(values: Array, radius: int) -> Array:
    """The mean over a square of `radius` around each pixel, of each channel; at the edges the picture is reflected."""
    cv2 = opencv()
    side = 2 * radius + 1
    mean: Array = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
    return mean


def resize(values: Array, size: tuple[int, int]) -> Array:
    """Channels at another width and height, antialiased."""
    if values.ndim == 3:
        return np.stack([resize(values[:, :, channel], size) for channel in range(values.shape[2])], axis=-1)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
