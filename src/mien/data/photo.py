"""Reads one photograph for a model: decoded, upright, face-aligned where possible, and cropped to a square."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.data.align import Template
from mien.data.crops import CROPS, find_crop
from mien.data.decode import decode
from mien.data.preprocess import NO_FACE, PreprocessConfig, Preprocessor
from mien.data.readers import MAX_BYTES, UnreadableFile
from mien.downloads import weights
from mien.errors import DataError


@dataclass(frozen=True)
class Photo:
    """A cropped photograph."""

    name: str  # file name
    pixels: NDArray[np.uint8]  # [side, side, 3]
    notes: tuple[str, ...]  # how it was cropped, and which conversions were needed


def read_photo(path: Path, side: int, crop: str | None = None, framing: Mapping[str, Any] | None = None) -> Photo:
    """The photograph at `path` as `side` by `side` pixels. Raises DataError with the reason if it cannot be used.

    Without `crop`, the first that applies: unchanged, if it has that size; with the crop of `framing` (the recipe of the
    model's training pack), if that fits this shape; face-aligned, if the extra `faces` and its weights are installed; else the
    centre crop.
    """
    data = read_bytes(path)
    try:
        return decode_photo(path.name, data, side, crop, framing)
    except UnreadableFile as error:
        remedy = (
            "Choose another photograph." if str(error) != NO_FACE else "Add --crop center to use it without a face."
        )
        raise DataError(f"{path} cannot be used.", f"Reason: {error}.", remedy) from error


def decode_photo(
    name: str, data: bytes, side: int, crop: str | None = None, framing: Mapping[str, Any] | None = None
) -> Photo:
    """The photograph in a file's bytes, cropped as `read_photo` does. Raises UnreadableFile."""
    return frame(name, data, side, framing or {}) if crop is None else cut(name, data, side, crop, framing or {})


def frame(name: str, data: bytes, side: int, framing: Mapping[str, Any]) -> Photo:
    """Crop a file's bytes as `read_photo` does without `crop`. Raises UnreadableFile."""
    image = decode(data).image
    if image.size == (side, side):
        return Photo(name, np.asarray(image), ("used unchanged",))
    own = str(framing.get("crop", "center"))
    if own in CROPS and own not in ("center", "squash", "face") and fits(own, image):
        return cut(name, data, side, own, framing)
    if own == "squash":
        return cut(name, data, side, own, framing)
    if can_align():
        try:
            return cut(name, data, side, "face", framing)
        except UnreadableFile as error:
            if str(error) != NO_FACE:
                raise
            centred = cut(name, data, side, "center", framing)
            return Photo(name, centred.pixels, (NO_FACE, *centred.notes))
    return cut(name, data, side, "center", framing)


def read_bytes(path: Path) -> bytes:
    """A regular file's content. Raises DataError."""
    if not path.exists():
        raise DataError(f"There is no {path}.", "A photograph must be a file.", "Check the spelling.")
    if not path.is_file():
        raise DataError(
            f"{path} is not a file.", "A photograph must be a regular file.", "Give the path of an image file."
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} is too large.",
                f"A photograph may have at most {MAX_BYTES:,} bytes.",
                "Give a smaller copy.",
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read.", str(error), "Check its permissions.") from error


def cut(name: str, data: bytes, side: int, crop: str, framing: Mapping[str, Any]) -> Photo:
    """Crop by a named crop. Raises UnreadableFile."""
    own = framing.get("crop") == crop
    template = Template()
    preprocess = PreprocessConfig(
        side=side,
        crop=crop,
        resampler=str(framing.get("resampler") or find_crop(crop).resampler) if own else find_crop(crop).resampler,
        eye_distance=float(framing.get("eye_distance") or template.eye_distance) if own else template.eye_distance,
        eye_height=float(framing.get("eye_height") or template.eye_height) if own else template.eye_height,
    )
    result = Preprocessor(preprocess).make(data)
    return Photo(name, np.asarray(result.image), (f"cropped by {crop}", *result.notes))


def fits(crop: str, image: Image.Image) -> bool:
    """Whether a crop fits pictures of this shape."""
    try:
        CROPS[crop].box(*image.size)
    except UnreadableFile:
        return False
    return True


def can_align() -> bool:
    """Whether face alignment works without a download."""
    return (
        find_spec("cv2") is not None and find_spec("ai_edge_litert") is not None and weights.here("yunet", "face-mesh")
    )
