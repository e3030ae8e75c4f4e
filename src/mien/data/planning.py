"""What a preparation will do: listed and selected before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import ImageColor

from mien.data import labels
from mien.data.crops import RESAMPLERS, Box, find_crop
from mien.data.pack import FORMAT, chunks
from mien.data.preprocess import PreprocessConfig
from mien.data.source import Listing, Source, stamp_of
from mien.data.unread_formats import remedy_for
from mien.errors import DataError, UsageError, did_you_mean

DEFAULT_SIDE = 64
SAMPLING = "sha256"  # how --limit and --balance draw: an older pack of the first names is another one
SHARD_BYTES = 4_000_000  # of finished pixels; the outcome never depends on it
SHARD_IMAGES = 256  # at most


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a pack is made from a source."""

    side: int | None = None  # pixels, height and width; None = the source's own, or 64
    crop: str | None = None  # None = the layout's own
    box: Box | None = None  # left, top, right, bottom in pixels, instead of a named crop
    resampler: str | None = None  # None = the crop's own
    background: str = "white"  # what transparent pictures are composed on
    matte: str | None = None  # what replaces the background of the photograph: `grey`, `blur` or a colour
    eye_distance: float = 0.26  # of the crop `face`: between the eyes, as a share of the side
    eye_height: float = 0.47  # of the crop `face`: of the eyes, as a share of the side, from the top
    labels: Sequence[str] = ()  # none = every label of the source
    where: Mapping[str, str] = field(default_factory=dict)
    balance: Sequence[str] = ()
    limit: int | None = None  # images at most, drawn at random
    holdout: float | Literal["official"] = (
        0.0  # share held out for evaluation, or what the source itself does not train on
    )
    dedupe: bool = False  # leave out images that occur before, exactly or nearly
    blur: float = 0.0  # deviation, in pixels of the cut, of a Gaussian before it is resized

    @property
    def selection(self) -> dict[str, Any]:
        """The fields that choose images and labels, not those that shape pixels."""
        chosen = ("labels", "where", "balance", "limit", "holdout", "dedupe")
        return {name: value for name, value in asdict(self).items() if name in chosen}

    def __post_init__(self) -> None:
        if self.side is not None and not 4 <= self.side <= 4096:
            raise UsageError(f"--size {self.side} is not a side.", "It lies between 4 and 4096 pixels.", "Use 64.")
        if self.resampler is not None and self.resampler not in RESAMPLERS:
            hint = did_you_mean(self.resampler, RESAMPLERS)
            raise UsageError(f"There is no resampler `{self.resampler}`.", "They are known by name.", hint)
        if not 0 <= self.blur <= 64:
            raise UsageError(
                f"--blur {self.blur} is not possible.", "It is a deviation in pixels.", "Choose from 0 to 64."
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} keeps nothing.", "It counts images.", "Use 1 or more.")
        if self.box is not None and self.crop is not None:
            raise UsageError(
                "--crop and --box are given together.", "Each of them says how the square is cut.", "Leave one out."
            )
        if self.holdout != "official" and not 0 <= self.holdout < 1:
            raise UsageError(
                f"--holdout {self.holdout} is not a share.", "It lies in [0, 1).", "Use 0.1 for a tenth, or official."
            )
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UsageError(
                f"--background {self.background} is not a colour.", "Colours are names or #RRGGBB.", "Use white."
            ) from None


@dataclass(frozen=True)
class PreparationPlan:
    """What will be decoded, and how: everything that decides the outcome."""

    source: Source
    listing: Listing  # of the images that were selected
    cutting: PreprocessConfig
    preparation: Preparation
    counts: Mapping[str, Any]  # what each step of the selection left
    key: str  # a hash of everything that decides the outcome

    @cached_property
    def shards(self) -> list[slice]:
        """Rows of the listing that are decoded together."""
        size = max(1, min(SHARD_IMAGES, SHARD_BYTES // (self.cutting.side**2 * 3)))
        return list(chunks(len(self.listing.names), size))


def plan(source: Source, preparation: Preparation) -> PreparationPlan:
    """List the source and select. Raises DataError when nothing is left, UsageError for a label or crop that is not there."""
    found = source.listing()
    if not len(found.names):
        others = (
            ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.other_files.items())) or "nothing at all"
        )
        raise DataError("The source holds no images.", f"It holds {others}.", remedy_for(found.other_files))
    crop_name = preparation.crop or found.crop
    crop = find_crop(crop_name, preparation.box)
    check_face(preparation, crop.finds_face)
    cutting = PreprocessConfig(
        side=preparation.side or found.side or DEFAULT_SIDE,
        crop="box" if preparation.box else crop_name,
        resampler=preparation.resampler or crop.resampler,
        box=preparation.box,
        background=preparation.background,
        matte=preparation.matte,
        eye_distance=preparation.eye_distance,
        eye_height=preparation.eye_height,
        landmarks_of=found.landmarks_of if crop.finds_face and found.landmarks is not None else None,
        signatures=preparation.dedupe,
        blur=preparation.blur,
    )
    if preparation.holdout == "official" and not any(found.splits or ()):
        raise UsageError(
            "The source has no split of its own.",
            "It is folders such as train and test, CelebA's list_eval_partition.txt, or a table's column titled split.",
            "Put it beside the pictures, or draw one with --holdout 0.1.",
        )
    listing, counts = select(found, preparation)
    if preparation.labels:
        labels.choose(listing.take(np.arange(0)), preparation.labels)  # a wrong name is told before anything is decoded
    decides = [FORMAT, SAMPLING, asdict(cutting), asdict(preparation), source.description, found.stamp]
    return PreparationPlan(source, listing, cutting, preparation, counts, stamp_of(decides))


def check_face(preparation: Preparation, finds_face: bool) -> None:
    """Refuse settings that would have no effect. Raises UsageError."""
    framed = (preparation.eye_distance, preparation.eye_height) != (Preparation.eye_distance, Preparation.eye_height)
    if framed and not finds_face:
        raise UsageError(
            "--eye-distance and --eye-height have no effect here.", "They frame --crop face.", "Add --crop face."
        )
    if preparation.blur and finds_face:
        raise UsageError(f"--blur {preparation.blur} has no effect here.", "--crop face has its own.", "Leave it out.")
    if preparation.resampler is not None and finds_face:
        raise UsageError(
            f"--resampler {preparation.resampler} has no effect here.",
            "--crop face turns pictures and has its own resampler.",
            "Leave one of the two out.",
        )


def select(found: Listing, preparation: Preparation) -> tuple[Listing, dict[str, Any]]:
    """The images that the preparation asks for, and how many each step left."""
    counts: dict[str, Any] = {"found": len(found.names)}
    listing = found
    if preparation.where:
        listing = listing.take(labels.where(listing, preparation.where))
        counts["where"] = len(listing.names)
        if not len(listing.names):
            conditions = ", ".join(f"{name}={value}" for name, value in preparation.where.items())
            raise DataError(f"No image has {conditions}.", f"None of {len(found.names):,} fits.", "Loosen --where.")
    if preparation.balance:
        rows, counts["balance"] = labels.balance(listing, preparation.balance, preparation.limit)
        listing = listing.take(rows)
    elif preparation.limit is not None and preparation.limit < len(listing.names):
        listing = listing.take(labels.sample(listing, preparation.limit))
        counts["sampled"] = preparation.limit
    counts["selected"] = len(listing.names)
    return listing, counts
