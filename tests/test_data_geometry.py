"""Crops by name, each to the pixel; resamplers by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mien.data.crops import CROPS, cut, find_crop
from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.readers import UnreadableFile
from mien.errors import UsageError
from tests.data_torture import face, saved


@pytest.mark.parametrize(
    ("name", "size", "box"),
    [
        ("celeba-148", (178, 218), (15, 40, 163, 188)),
        ("celeba-148", (89, 109), (7, 20, 81, 94)),  # the 74x74 box at column 7, row 20
        ("celeba-148", (356, 436), (30, 80, 326, 376)),
        ("celeba-128-vae", (178, 218), (25, 60, 153, 188)),
        ("center", (178, 218), (0, 20, 178, 198)),
        ("center", (200, 100), (50, 0, 150, 100)),
        ("squash", (178, 218), (0, 0, 178, 218)),
        ("lfw-150", (250, 250), (50, 50, 200, 200)),
    ],
)
def test_boxes(name: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert CROPS[name].box(*size) == box


@pytest.mark.parametrize(("name", "size"), [("celeba-148", (178, 178)), ("lfw-150", (250, 200))])
def test_a_crop_refuses_pictures_of_another_shape(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableFile, match="this crop is for"):
        CROPS[name].box(*size)


def test_an_explicit_box() -> None:
    crop = find_crop("anything", (10, 20, 40, 50))
    assert crop.box(60, 60) == (10, 20, 40, 50)
    with pytest.raises(UnreadableFile, match="does not fit"):
        crop.box(60, 49)


def test_an_unknown_crop_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="celeba-148"):
        find_crop("celeba148")


def test_resizing_does_not_alias_but_where_it_is_told_to() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    smooth = {name: np.asarray(cut(image, (0, 0, 64, 64), 16, name)) for name in ("lanczos", "bicubic", "bilinear")}
    assert all(np.abs(pixels.astype(int) - 127).max() < 25 for pixels in smooth.values())
    assert set(np.unique(np.asarray(cut(image, (0, 0, 64, 64), 16, "nearest")))) <= {0, 255}


def test_only_pixels_inside_the_box_count() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[20:80, 20:80] = 200
    assert (np.asarray(cut(Image.fromarray(pixels), (20, 20, 80, 80), 16, "lanczos")) == 200).all()


def test_a_finished_image_knows_where_it_came_from() -> None:
    made = Preprocessor(PreprocessConfig(side=64, crop="celeba-148", resampler="lanczos")).make(
        saved(face(178, 218), "PNG")
    )
    assert made.image.size == (64, 64) and made.geometry == "15,40,163,188" and made.size == (178, 218)
    assert made.notes == ()
    small = Preprocessor(PreprocessConfig(side=64, crop="center", resampler="lanczos")).make(saved(face(40, 30), "PNG"))
    assert small.notes == ("enlarged",)
