"""Photographs to fine-tune on are cut as their parent's faces lie: at another size or height, all of it would be learned anew."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mien.data import labels
from mien.data.align import Aligner
from mien.data.decode import decode
from mien.data.open import is_prepared, prepared
from mien.data.pack import Pack
from mien.data.photo import can_align
from mien.data.planning import Preparation
from mien.data.readers import UnreadableFile
from mien.data.source import Source
from mien.data.source_kinds import find_source
from mien.metrics.framing import framing_of
from mien.sampling.sampler import Sampler

if TYPE_CHECKING:
    from mien.training.parent import Parent

LOOKED_AT = 16  # pictures
MOSTLY = 0.8  # of them must show a face
WITHOUT_NETWORKS = (
    "photographs are cut to their middle square; with the extra `faces`, `mien data fetch weights:yunet` and "
    "`mien data fetch weights:face-mesh` (1.4 MB) faces in them are cut as the parent's are"
)
ALIKE = 0.15  # eye distances that differ by less, as a fraction, need no other cut


def framed(data: str | Path | None, side: int, parent: Parent) -> Pack | None:
    """A pack of the photographs in `data`, `side` pixels, cut by `--crop face` with the eyes where the parent's faces have them.

    None where nothing is to be cut: for a pack, for a layout with a crop of its own, where most pictures show no face, where faces
    are as large already, and where faces cannot be found without a download, which is said on stderr like what was done.
    """
    if data is None or is_prepared(data):
        return None
    source = find_source(data)
    listing = source.listing()
    if listing.crop != "center" or listing.side is not None or not listing.names:
        return None
    if not can_align():
        print(f"mien: {WITHOUT_NETWORKS}", file=sys.stderr)
        return None
    framing = framing_of(Sampler.load(parent.name))
    if framing.get("crop") != "face":
        return None
    looked, found = eye_distances(source)
    theirs = float(framing["eye_distance"])
    if len(found) < MOSTLY * looked or abs(statistics.median(found) / theirs - 1) < ALIKE:
        return None
    preparation = Preparation(side=side, crop="face", eye_distance=theirs, eye_height=float(framing["eye_height"]))
    pack = prepared(Path(data), preparation, source, force=True)
    left_out = len(listing.names) - len(pack)
    for line in (
        f"photographs are cut by --crop face with the eyes {theirs:.2f} of the side apart, as the faces of {parent.name} have them",
        f"in the middle square of a photograph they are {statistics.median(found):.2f} apart",
        "a pack of `mien data prepare` is taken as it is",
        *([f"{left_out:,} of {len(listing.names):,} pictures show no face or cannot be read"] if left_out else []),
    ):
        print(f"mien: {line}", file=sys.stderr)
    return pack


def eye_distances(source: Source) -> tuple[int, list[float]]:
    """How many pictures of a random sample can be read, and the eye distances of faces, as fractions of the shorter side."""
    listing, aligner, looked, found = source.listing(), Aligner(256), 0, []
    for name in listing.take(labels.sample(listing, LOOKED_AT)).names:
        try:
            image = decode(source.read(source.address(name))).image
        except UnreadableFile:
            continue
        looked += 1
        if face := aligner.find(np.asarray(image)):
            found.append(float(np.hypot(*(face.landmarks[1] - face.landmarks[0]))) / min(image.size))
    return looked, found
