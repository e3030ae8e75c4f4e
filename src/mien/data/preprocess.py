"""From one file's bytes to one finished square: decoded, aligned or cut, its background replaced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from mien.data.crops import Box, cut, find_crop, is_scaled, resize_center
from mien.data.decode import decode
from mien.data.readers import UnreadableFile

if (
    TYPE_CHECKING
):  # what finds faces and people is loaded by those who look for them: a worker starts in a third of the time
    from mien.data.affine import Points
    from mien.data.align import Aligner
    from mien.data.matte import Matte
    from mien.data.source import Landmarks


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How every image of a pack is made from its file."""

    side: int  # pixels, height and width
    crop: str  # a name in geometry.CROPS
    resampler: str  # a name in geometry.RESAMPLERS
    box: Box | None = None  # instead of the crop's own
    background: str = "white"  # what transparent pictures are composed on
    matte: str | None = None  # what replaces the background: `grey`, `blur` or a colour
    eye_distance: float = 0.26  # of `face`: between the eyes, as a share of the side
    eye_height: float = 0.47  # of `face`: of the eyes, as a share of the side, from the top
    landmarks_of: tuple[int, int] | None = None  # of `face`: the size of the pictures that landmarks come with
    signatures: bool = False  # whether duplicates are looked for
    blur: float = 0.0  # deviation, in pixels of the cut, of a Gaussian before it is resized

    @property
    def told(self) -> dict[str, Any]:
        """What a pack says of it: the fields that mattered."""
        idle = {"signatures"} if self.crop == "face" else {"signatures", "eye_distance", "eye_height", "landmarks_of"}
        idle |= set() if self.blur else {"blur"}
        return {name: value for name, value in asdict(self).items() if name not in idle}


NO_FACE = "no face found"
GIVEN = "aligned by the landmarks of the source"
MATTE_SIDE = 1024  # pixels: larger pictures are reduced before their background is replaced
FACE_MATTE_SIDE = 256  # pixels: faces are aligned at this side at least before it is


class Made(NamedTuple):
    """One finished image."""

    image: Image.Image  # RGB, side x side
    geometry: str  # the box in pixels of the upright source, or the similarity transform, row by row
    size: tuple[int, int]  # width and height of the upright source
    notes: tuple[str, ...]  # what had to be done


class Preprocessor:
    """Makes finished images; one for each worker, since a face detector is loaded on first use."""

    def __init__(self, cutting: PreprocessConfig) -> None:
        self.cutting = cutting
        self._crop = find_crop(cutting.crop, cutting.box)
        self._box = lru_cache(maxsize=256)(self._find_box)  # most pictures of a source have one size

    def make(self, data: bytes, landmarks: Landmarks | None = None) -> Made:
        """One file's bytes -> its finished image. Raises Refused with the reason.

        `landmarks` [5, 2] are shares of the picture's width and height.
        """
        image, notes = decode(data, self.cutting.background)
        if self._crop.finds_face:
            return self._aligned(image, notes, landmarks)
        size, side = image.size, self.cutting.side
        box, geometry = self._box(size)
        if min(box[2] - box[0], box[3] - box[1]) < side:
            notes = (*notes, "enlarged")
        if self._matte is not None:  # before the cut: shoulders help to tell who stands before what
            image.thumbnail((MATTE_SIDE, MATTE_SIDE), Image.Resampling.LANCZOS)
            scale = (image.width / size[0], image.height / size[1])
            left, top, right, bottom = (round(edge * scale[place % 2]) for place, edge in enumerate(box))
            image, box = self._matte.apply(image), (left, top, right, bottom)
        if self.cutting.blur:
            from mien.data import interpolate

            image, box = image.crop(box), (0, 0, box[2] - box[0], box[3] - box[1])
            image = interpolate.blurred(image, self.cutting.blur)
        if self._crop.resize_first:
            finished, shown = resize_center(image, side, self.cutting.resampler)
            return Made(finished, ",".join(map(str, shown)), size, notes)
        return Made(cut(image, box, side, self.cutting.resampler), geometry, size, notes)

    def _find_box(self, size: tuple[int, int]) -> tuple[Box, str]:
        """The box in a picture of this size, also in words. Raises Refused when there is none."""
        box = self._crop.box(*size)
        return box, ",".join(map(str, box))

    def load(self) -> None:
        """Load what the cut needs, so that a missing package or file is told before the work begins."""
        if self._crop.finds_face and self.cutting.landmarks_of is not None:
            from mien.data.affine import opencv

            opencv()  # and the networks only if it comes to that
        elif self._crop.finds_face:
            self._aligner.load()
        if self._matte is not None:
            self._matte.apply(Image.new("RGB", (64, 64)))

    @cached_property
    def _matte(self) -> Matte | None:
        if self.cutting.matte is None:
            return None
        from mien.data.matte import Matte

        return Matte(self.cutting.matte)

    @cached_property
    def _aligner(self) -> Aligner:
        from mien.data.align import Aligner, Template

        template = Template(eye_distance=self.cutting.eye_distance, eye_height=self.cutting.eye_height)
        side = self.cutting.side if self._matte is None else max(self.cutting.side, FACE_MATTE_SIDE)
        return Aligner(side, template)

    def given(self, size: tuple[int, int], landmarks: Landmarks | None) -> Points | None:
        """The landmarks in pixels, when they are known and are for this picture: one cut by others has lost its places."""
        of = self.cutting.landmarks_of
        if of is None or landmarks is None or not is_scaled(size, of):
            return None
        import numpy as np

        points: Points = landmarks.astype(np.float64) * size
        return points if np.linalg.norm(points[1] - points[0]) > 1 else None  # not for NaN, nor for a line of zeros

    def _aligned(self, image: Image.Image, notes: tuple[str, ...], landmarks: Landmarks | None) -> Made:
        given = self.given(image.size, landmarks)
        found = self._aligner.align(image, given)
        if found is None:
            raise UnreadableFile(NO_FACE)
        if given is not None:
            notes = (*notes, GIVEN)
        if found.faces > 1:
            notes = (*notes, "several faces: the largest and most central")
        geometry = ",".join(f"{value:.4f}" for value in found.transform.flatten())
        finished = found.image
        if self._matte is not None:
            finished = self._matte.apply(finished)
        side = self.cutting.side
        return Made(cut(finished, (0, 0, *finished.size), side, "lanczos"), geometry, image.size, notes)
