"""From one file's bytes to one finished square: decoded, aligned or cut, its background replaced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from PIL import Image

from mien.data.align import Aligner, Template
from mien.data.containers import Refused
from mien.data.decode import decode
from mien.data.geometry import Box, cut, find_crop


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How every image of a pack is made from its file."""

    side: int  # pixels, height and width
    crop: str  # a name in geometry.CROPS
    resampler: str  # a name in geometry.RESAMPLERS
    box: Box | None = None  # instead of the crop's own
    background: str = "white"  # what transparent pictures are composed on
    eye_distance: float = 0.26  # of `face`: between the eyes, as a share of the side
    eye_height: float = 0.47  # of `face`: of the eyes, as a share of the side, from the top
    signatures: bool = False  # whether near duplicates are looked for

    @property
    def told(self) -> dict[str, Any]:
        """What a pack says of it: the fields that mattered."""
        idle = {"signatures"} if self.crop == "face" else {"signatures", "eye_distance", "eye_height"}
        return {name: value for name, value in asdict(self).items() if name not in idle}


class Made(NamedTuple):
    """One finished image."""

    image: Image.Image  # RGB, side x side
    geometry: str  # the box in pixels of the upright source, or the similarity transform, row by row
    size: tuple[int, int]  # width and height of the upright source
    notes: tuple[str, ...]  # what had to be done


class Cutter:
    """Makes finished images; one for each worker, since a face detector is loaded on first use."""

    def __init__(self, cutting: Cutting) -> None:
        self.cutting = cutting
        self._crop = find_crop(cutting.crop, cutting.box)

    def make(self, data: bytes) -> Made:
        """One file's bytes -> its finished image. Raises Refused with the reason."""
        image, notes = decode(data, self.cutting.background)
        if self._crop.finds_face:
            return self._aligned(image, notes)
        box = self._crop.box(*image.size)
        if min(box[2] - box[0], box[3] - box[1]) < self.cutting.side:
            notes = (*notes, "enlarged")
        finished = cut(image, box, self.cutting.side, self.cutting.resampler)
        return Made(finished, ",".join(map(str, box)), image.size, notes)

    @cached_property
    def _aligner(self) -> Aligner:
        template = Template(eye_distance=self.cutting.eye_distance, eye_height=self.cutting.eye_height)
        return Aligner(self.cutting.side, template)

    def _aligned(self, image: Image.Image, notes: tuple[str, ...]) -> Made:
        found = self._aligner.align(image)
        if found is None:
            raise Refused("no face found")
        if found.faces > 1:
            notes = (*notes, "several faces: the largest and most central")
        geometry = ",".join(f"{value:.4f}" for value in found.transform.flatten())
        return Made(found.image, geometry, image.size, notes)
