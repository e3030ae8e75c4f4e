"""Named crops: how a square is cut from a picture, each as in one published system.

celeba-148       the 148x148 box at column 15, row 40 of CelebA's 178x218 (Larsen et al., arXiv 1512.09300); boxes scale
celeba-128-vae   the 128x128 box centred 15 px below the middle of 178x218 (podgorskiy/VAE)
center           the largest centred square
resize-center    the shorter side resized to the size, then the centre cropped (torchvision's Resize and CenterCrop)
squash           the whole picture, without keeping its aspect ratio
lfw-150          50 px off every side of LFW's 250x250 (Generating Faces with Torch, 2015)
face             the detected face, aligned by eyes and mouth
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from mien.data.readers import UnreadableFile
from mien.errors import UsageError, did_you_mean

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright picture; right and bottom exclusive

RESAMPLERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "area": None,  # the mean of the covered area: OpenCV's INTER_AREA, and Torch7's image.scale when it reduces
    "bicubic-no-antialias": None,
    "bilinear-no-antialias": None,
}  # all but nearest and the last two are antialiased


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A crop. `box` maps the picture's width and height to the box, or raises UnreadableFile."""

    box: Callable[[int, int], Box]
    resampler: str = "lanczos"
    finds_face: bool = False  # the face is aligned before the box is cropped
    resize_first: bool = False  # the shorter side is resized first, then the centre is cropped


def scaled_box(box: Box, of: tuple[int, int]) -> Callable[[int, int], Box]:
    """A box for pictures of size `of` and scaled copies of them. Raises UnreadableFile for another aspect ratio."""
    left, top, right, bottom = box

    def cut(width: int, height: int) -> Box:
        scale = width / of[0]
        if not is_scaled((width, height), of):
            raise UnreadableFile(f"{width}x{height}: this crop is for {of[0]}x{of[1]} and scaled copies")
        side_x, side_y = round((right - left) * scale), round((bottom - top) * scale)
        return (int(left * scale), int(top * scale), int(left * scale) + side_x, int(top * scale) + side_y)

    return cut


def is_scaled(size: tuple[int, int], of: tuple[int, int]) -> bool:
    """Whether `size` has the aspect ratio of `of`, up to one pixel of either."""
    scale = size[0] / of[0]
    return abs(size[1] - of[1] * scale) <= max(1.0, scale)


def center(width: int, height: int) -> Box:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)


def squash(width: int, height: int) -> Box:
    return (0, 0, width, height)


CROPS: dict[str, Crop] = {
    "celeba-148": Crop(box=scaled_box((15, 40, 163, 188), (178, 218))),
    "celeba-128-vae": Crop(box=scaled_box((25, 60, 153, 188), (178, 218)), resampler="bilinear"),
    "center": Crop(box=center),
    "resize-center": Crop(box=squash, resampler="bilinear", resize_first=True),
    "squash": Crop(box=squash),
    "lfw-150": Crop(box=scaled_box((50, 50, 200, 200), (250, 250)), resampler="bicubic"),
    "face": Crop(box=squash, finds_face=True),
}


def find_crop(name: str, box: Box | None = None) -> Crop:
    """The crop `name`, or the explicit `box` if there is one. Raises UsageError for an unknown name."""
    if box is not None:
        return Crop(box=lambda width, height: fixed(box, width, height))
    if name not in CROPS:
        raise UsageError(f"There is no crop `{name}`.", f"Known: {', '.join(CROPS)}.", did_you_mean(name, CROPS))
    return CROPS[name]


def fixed(box: Box, width: int, height: int) -> Box:
    if box[2] > width or box[3] > height:
        raise UnreadableFile(f"{width}x{height}: the box {','.join(map(str, box))} does not fit")
    return box


def cut(image: Image.Image, box: Box, side: int, resampler: str) -> Image.Image:
    """Crop the box of `image` and resize it to `side` by `side`; pixels outside the box have no influence."""
    if box != (0, 0, *image.size):
        image = image.crop(box)
    return image if image.size == (side, side) else resize(image, (side, side), resampler)


def resize(image: Image.Image, size: tuple[int, int], resampler: str) -> Image.Image:
    """Resize `image` to `size`, width and height."""
    pillow = RESAMPLERS[resampler]
    if pillow is not None:
        return image.resize(size, pillow)
    from mien.data import interpolate  # imports numpy, which most workers do not need

    return interpolate.resized(image, size, resampler.partition("-")[0])


def resize_center(image: Image.Image, side: int, resampler: str) -> tuple[Image.Image, Box]:
    """Resize the shorter side to `side` and crop the centre. Returns it and its box in pixels of `image`."""
    width, height = image.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    left, top = (round((length - side) / 2) for length in size)  # halves round to even, as in torchvision
    scale_x, scale_y = width / size[0], height / size[1]
    box = (round(left * scale_x), round(top * scale_y), round((left + side) * scale_x), round((top + side) * scale_y))
    whole = image if image.size == size else resize(image, size, resampler)
    return whole.crop((left, top, left + side, top + side)), box
