"""Preprocesses one image: from a file's bytes to a square picture, decoded, aligned or cropped, with its background replaced."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from mien.core.compression import compression_of
from mien.data.crops import Box, cut, find_crop, is_scaled, resize_center
from mien.data.decode import decode
from mien.data.jpeg import plain_quality
from mien.data.readers import UnreadableFile

if (
    TYPE_CHECKING
):  # face detection and matting are imported only where they are used: a worker then starts in a third of the time
    from mien.data.affine import Points
    from mien.data.align import Aligner
    from mien.data.matte import Matte
    from mien.data.source import Landmarks


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How every image of a pack is made from its file."""

    side: int  # pixels, height and width
    crop: str  # a name in crops.CROPS
    resampler: str  # a name in crops.RESAMPLERS
    box: Box | None = None  # instead of a named crop
    background: str = "white"  # colour behind transparent pixels
    matte: str | None = None  # new background: `grey`, `blur` or a colour
    eye_distance: float = 0.26  # for `face`: distance between the eyes, as a share of the side
    eye_height: float = 0.47  # for `face`: height of the eyes from the top, as a share of the side
    max_outside: float = 1.0  # for `face`: largest share of the crop that may lie outside the picture
    landmarks_of: tuple[int, int] | None = None  # for `face`: the picture size that the source's landmarks refer to
    signatures: bool = False  # whether to compute signatures for the search for duplicates
    variants: int = 0  # the first so many rows are varied copies
    blur: float = 0.0  # standard deviation of a Gaussian blur before resizing, in pixels of the crop

    @property
    def effective_fields(self) -> dict[str, Any]:
        """The fields that affect the pixels, for pack.json."""
        unused = {"signatures"} if self.crop == "face" else {"signatures", "eye_distance", "eye_height", "landmarks_of"}
        unused |= {name for name in ("blur", "variants") if not getattr(self, name)}
        unused |= set() if self.crop == "face" and self.max_outside < 1 else {"max_outside"}
        return {name: value for name, value in asdict(self).items() if name not in unused}


NO_FACE = "no face found"
TOO_FAR_OUTSIDE = "more of the face's crop lies outside the picture than --max-outside allows"
OUTSIDE = ((0.5, "over 50%"), (0.25, "25 to 50%"), (0.1, "10 to 25%"), (0.01, "1 to 10%"))  # least share, in words
ALIGNED_BY_SOURCE = "aligned by the landmarks of the source"
MATTE_SIDE = 1024  # pixels: larger pictures are reduced before matting
FACE_MATTE_SIDE = 256  # pixels: faces are aligned at this side or larger before matting


class Preprocessed(NamedTuple):
    """One preprocessed image."""

    image: Image.Image  # RGB, side x side
    geometry: str  # the crop box in pixels of the upright source, or the rows of the similarity transform
    size: tuple[int, int]  # width and height of the upright source
    notes: tuple[str, ...]  # conversions that were needed
    outside: float = 0.0  # for `face`: the share of the image that lies outside the source, in [0, 1]
    jpeg: str = ""  # how the file was compressed, in the notation of core/compression.py; empty where it left no marks


class Preprocessor:
    """Preprocesses images. Each worker has its own, because the face detector is loaded on first use."""

    def __init__(self, preprocess: PreprocessConfig) -> None:
        self.preprocess = preprocess
        self._crop = find_crop(preprocess.crop, preprocess.box)
        self._box = lru_cache(maxsize=256)(self._find_box)  # most pictures of a source have the same size

    def make(self, data: bytes, landmarks: Landmarks | None = None, row: int = 0) -> Preprocessed:
        """One file's bytes -> its preprocessed image, which is to be a row of the pack. Raises UnreadableFile with the reason.

        `landmarks` [5, 2] are in [0, 1], as shares of the picture's width and height.
        """
        image, notes = decode(data, self.preprocess.background, exact=self.preprocess.box is not None)
        if row < self.preprocess.variants:
            from mien.data.variants import variation, varied

            image = varied(image, variation(row))
        if self._crop.finds_face:
            return self._aligned(image, notes, landmarks)
        size, side = image.size, self.preprocess.side
        box, geometry = self._box(size)
        jpeg = self._compression(data, box)
        if min(box[2] - box[0], box[3] - box[1]) < side:
            notes = (*notes, "enlarged")
        if self._matte is not None:  # before the crop: the shoulders help the segmentation
            image.thumbnail((MATTE_SIDE, MATTE_SIDE), Image.Resampling.LANCZOS)
            scale = (image.width / size[0], image.height / size[1])
            left, top, right, bottom = (round(edge * scale[place % 2]) for place, edge in enumerate(box))
            image, box = self._matte.apply(image), (left, top, right, bottom)
        if self.preprocess.blur:
            from mien.data import interpolate

            image, box = image.crop(box), (0, 0, box[2] - box[0], box[3] - box[1])
            image = interpolate.blurred(image, self.preprocess.blur)
        if self._crop.resize_first:
            image, crop_box = resize_center(image, side, self.preprocess.resampler)
            return Preprocessed(image, ",".join(map(str, crop_box)), size, notes)
        return Preprocessed(cut(image, box, side, self.preprocess.resampler), geometry, size, notes, jpeg=jpeg)

    def _compression(self, data: bytes, box: Box) -> str:
        """How the file was compressed, as far as its marks are still in the image that is cut from `box`; else an empty text."""
        p = self.preprocess
        if self._crop.resize_first or p.variants or p.blur or p.matte is not None:
            return ""
        found = compression_of(box, p.side)
        quality = plain_quality(data) if found is not None else 0
        return str(replace(found, quality=quality)) if found is not None and quality else ""

    def _find_box(self, size: tuple[int, int]) -> tuple[Box, str]:
        """The crop box for a picture of this size, also as text. Raises UnreadableFile when the crop does not fit."""
        box = self._crop.box(*size)
        return box, ",".join(map(str, box))

    def load(self) -> None:
        """Load the networks now, so that a missing package or file raises before the work begins."""
        if self._crop.finds_face and self.preprocess.landmarks_of is not None:
            from mien.data.affine import opencv

            opencv()  # the networks are loaded only if an image has no landmarks
        elif self._crop.finds_face:
            self._aligner.load()
        if self._matte is not None:
            self._matte.apply(Image.new("RGB", (64, 64)))

    @cached_property
    def _matte(self) -> Matte | None:
        if self.preprocess.matte is None:
            return None
        from mien.data.matte import Matte

        return Matte(self.preprocess.matte)

    @cached_property
    def _aligner(self) -> Aligner:
        from mien.data.align import Aligner, Template

        template = Template(eye_distance=self.preprocess.eye_distance, eye_height=self.preprocess.eye_height)
        side = self.preprocess.side if self._matte is None else max(self.preprocess.side, FACE_MATTE_SIDE)
        return Aligner(side, template)

    def source_landmarks(self, size: tuple[int, int], landmarks: Landmarks | None) -> Points | None:
        """The source's landmarks in pixels, if they fit this picture. They do not fit a picture that was cropped later."""
        of = self.preprocess.landmarks_of
        if of is None or landmarks is None or not is_scaled(size, of):
            return None
        import numpy as np

        points: Points = landmarks.astype(np.float64) * size
        if not (np.abs(landmarks) < 3).all():  # NaN, or places that are in no picture
            return None
        return points if np.linalg.norm(points[1] - points[0]) > 1 else None  # excludes rows of zeros

    def _aligned(self, image: Image.Image, notes: tuple[str, ...], landmarks: Landmarks | None) -> Preprocessed:
        known = self.source_landmarks(image.size, landmarks)
        aligned = self._aligner.align(image, known)
        if aligned is None:
            raise UnreadableFile(NO_FACE)
        if known is not None:
            notes = (*notes, ALIGNED_BY_SOURCE)
        if aligned.faces > 1:
            notes = (*notes, "several faces: the largest and most central")
        if aligned.outside > self.preprocess.max_outside:
            raise UnreadableFile(TOO_FAR_OUTSIDE)
        if share := next((words for least, words in OUTSIDE if aligned.outside >= least), None):
            notes = (*notes, f"filled in beyond the picture: {share} of the crop")
        geometry = ",".join(f"{value:.4f}" for value in aligned.transform.flatten())
        result = aligned.image
        if self._matte is not None:
            result = self._matte.apply(result)
        side = self.preprocess.side
        return Preprocessed(
            cut(result, (0, 0, *result.size), side, "lanczos"), geometry, image.size, notes, aligned.outside
        )
