"""One photograph as a model takes it: read, upright, its face levelled where that can be done here, cut to a square."""

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
    """A photograph, cut."""

    name: str  # of its file
    pixels: NDArray[np.uint8]  # [side, side, 3]
    notes: tuple[str, ...]  # how it was cut, and what had to be done


def read_photo(path: Path, side: int, crop: str | None = None, framing: Mapping[str, Any] | None = None) -> Photo:
    """The photograph at `path` as `side` by `side` pixels. Raises DataError, with the reason, for what cannot be used.

    Without `crop`: as it is, if it has that size; as `framing`, the recipe of the pack that the model learned from, cuts
    photographs of this very shape; by its face, where the extra `faces` and its weights are here; else its centre.
    """
    data = read_bytes(path)
    told = dict(framing or {})
    try:
        return frame(path.name, data, side, told) if crop is None else cut(path.name, data, side, crop, told)
    except UnreadableFile as error:
        remedy = "Give another photograph." if str(error) != NO_FACE else "Add --crop center to take it without a face."
        raise DataError(f"{path} cannot be used.", f"It is refused: {error}.", remedy) from error


def frame(name: str, data: bytes, side: int, framing: Mapping[str, Any]) -> Photo:
    """A file's bytes, cut as `read_photo` cuts without a crop. Raises Refused."""
    image = decode(data).image
    if image.size == (side, side):
        return Photo(name, np.asarray(image), ("taken as it is",))
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
        raise DataError(f"There is no {path}.", "A photograph is a file.", "Check the spelling.")
    if not path.is_file():
        raise DataError(f"{path} is not a file.", "One photograph is asked for.", "Name the file itself.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} is too large.",
                f"It has more than {MAX_BYTES:,} bytes.",
                "Give a photograph, or a smaller copy.",
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read.", str(error), "Check its permissions.") from error


def cut(name: str, data: bytes, side: int, crop: str, framing: Mapping[str, Any]) -> Photo:
    """By a named crop. Raises Refused."""
    own = framing.get("crop") == crop
    template = Template()
    cutting = PreprocessConfig(
        side=side,
        crop=crop,
        resampler=str(framing.get("resampler") or find_crop(crop).resampler) if own else find_crop(crop).resampler,
        eye_distance=float(framing.get("eye_distance") or template.eye_distance) if own else template.eye_distance,
        eye_height=float(framing.get("eye_height") or template.eye_height) if own else template.eye_height,
    )
    made = Preprocessor(cutting).make(data)
    return Photo(name, np.asarray(made.image), (f"cut by {crop}", *made.notes))


def fits(crop: str, image: Image.Image) -> bool:
    """Whether a crop made for one size is for pictures of this shape."""
    try:
        CROPS[crop].box(*image.size)
    except UnreadableFile:
        return False
    return True


def can_align() -> bool:
    """Whether faces can be found here without a download."""
    return (
        find_spec("cv2") is not None and find_spec("ai_edge_litert") is not None and weights.here("yunet", "face-mesh")
    )
