"""Plans a preparation: lists and selects the images before any is decoded."""

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
SAMPLING = "sha256"  # how --limit and --balance sample; part of the key, so that packs of older versions differ
ALIGNMENT = 2  # version of --crop face; part of the key likewise
FRAMING_IMAGES = 100  # of the whole source, at random: they choose an eye distance
SHARD_BYTES = 4_000_000  # of pixels in a shard; does not affect the pack
SHARD_IMAGES = 256  # at most


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a pack is made from a source."""

    side: int | None = None  # pixels, height and width; None = the source's own, or 64
    crop: str | None = None  # None = the default of the layout
    box: Box | None = None  # left, top, right, bottom in pixels, instead of a named crop
    resampler: str | None = None  # None = the default of the crop
    background: str = "white"  # colour behind transparent pixels
    matte: str | None = None  # new background: `grey`, `blur` or a colour
    eye_distance: float | None = None  # for --crop face: between the eyes, as a share of the side; None = chosen
    eye_height: float = 0.47  # for --crop face: height of the eyes from the top, as a share of the side
    max_outside: float = 1.0  # for --crop face: largest share of the crop that may lie outside the picture
    labels: Sequence[str] = ()  # empty = every label of the source
    where: Mapping[str, str] = field(default_factory=dict)
    balance: Sequence[str] = ()
    limit: int | None = None  # maximum number of images, sampled at random
    holdout: float | Literal["official"] = 0.0  # share held out for evaluation, or the source's own split
    dedupe: bool = False  # leave out exact and near-duplicates
    blur: float = 0.0  # standard deviation of a Gaussian blur before resizing, in pixels of the crop
    variants: int | None = None  # images for training in all, varied copies of those that are there

    @property
    def selection(self) -> dict[str, Any]:
        """The fields that select images and labels; the others affect pixels."""
        chosen = ("labels", "where", "balance", "limit", "holdout", "dedupe")
        return {name: value for name, value in asdict(self).items() if name in chosen}

    def check_variants(self) -> None:
        """Raise UsageError for what varied copies cannot be combined with."""
        if self.variants is None:
            return
        if self.variants < 1:
            raise UsageError(
                f"--variants {self.variants} is too small.", "It is a number of images.", "Use for example 600000."
            )
        others = {
            "--dedupe": self.dedupe,
            "--balance": bool(self.balance),
            "--holdout SHARE": self.holdout not in (0, "official"),
        }
        if wrong := [name for name, used in others.items() if used]:
            raise UsageError(
                f"--variants cannot be combined with {' or '.join(wrong)}.",
                "Copies of one picture must stay together.",
                f"Prepare a pack with {wrong[0]} first, and the variants from that pack.",
            )

    def __post_init__(self) -> None:
        if self.side is not None and not 4 <= self.side <= 4096:
            raise UsageError(f"--size {self.side} is out of range.", "It must be between 4 and 4096 pixels.", "Use 64.")
        if self.resampler is not None and self.resampler not in RESAMPLERS:
            hint = did_you_mean(self.resampler, RESAMPLERS)
            raise UsageError(f"There is no resampler `{self.resampler}`.", f"Known: {', '.join(RESAMPLERS)}.", hint)
        if not 0 <= self.max_outside <= 1:
            raise UsageError(
                f"--max-outside {self.max_outside} is out of range.",
                "It is a share from 0 to 1.",
                "Use for example 0.3.",
            )
        if not 0 <= self.blur <= 64:
            raise UsageError(
                f"--blur {self.blur} is out of range.",
                "It is a standard deviation of 0 to 64 pixels.",
                "Use such a value.",
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(
                f"--limit {self.limit} is too small.", "It must be a positive number of images.", "Use 1 or more."
            )
        if self.box is not None and self.crop is not None:
            raise UsageError(
                "--crop and --box cannot be combined.", "Each of them selects the square.", "Remove one of them."
            )
        if self.holdout != "official" and not 0 <= self.holdout < 1:
            raise UsageError(
                f"--holdout {self.holdout} is out of range.",
                "It must be in [0, 1).",
                "Use 0.1 for a tenth, or official.",
            )
        self.check_variants()
        try:
            ImageColor.getrgb(self.background)
        except ValueError:
            raise UsageError(
                f"--background {self.background} is not a colour.", "A colour is a name or #RRGGBB.", "Use white."
            ) from None


@dataclass(frozen=True)
class PreparationPlan:
    """Which images will be decoded, and how: everything that affects the pack."""

    source: Source
    listing: Listing  # of the selected images
    preprocess: PreprocessConfig
    preparation: Preparation
    counts: Mapping[str, Any]  # number of images after each step of the selection
    key: str  # a hash of everything that affects the pack
    sample: Listing | None = None  # for --crop face: the images that choose the eye distance, if it is to be chosen
    framing: Mapping[str, Any] | None = None  # the chosen eye distance, and what it was chosen by

    @cached_property
    def shards(self) -> list[slice]:
        """The rows of the listing in each shard."""
        size = max(1, min(SHARD_IMAGES, SHARD_BYTES // (self.preprocess.side**2 * 3)))
        return list(chunks(len(self.listing.names), size))


def plan(source: Source, preparation: Preparation) -> PreparationPlan:
    """List the source and select. Raises DataError when no image is left, UsageError for an unknown label or crop."""
    full = source.listing()
    if not len(full.names):
        others = ", ".join(f"{count} {suffix}" for suffix, count in sorted(full.other_files.items())) or "no files"
        raise DataError(
            f"{source.description['name']} contains no images.", f"It contains {others}.", remedy_for(full.other_files)
        )
    crop_name = preparation.crop or full.crop
    crop = find_crop(crop_name, preparation.box)
    check_face(preparation, crop.finds_face)
    preprocess = PreprocessConfig(
        side=preparation.side or full.side or DEFAULT_SIDE,
        crop="box" if preparation.box else crop_name,
        resampler=preparation.resampler or crop.resampler,
        box=preparation.box,
        background=preparation.background,
        matte=preparation.matte,
        **({} if preparation.eye_distance is None else {"eye_distance": preparation.eye_distance}),
        eye_height=preparation.eye_height,
        max_outside=preparation.max_outside,
        landmarks_of=full.landmarks_of if crop.finds_face and full.landmarks is not None else None,
        signatures=preparation.dedupe,
        variants=preparation.variants or 0,
        blur=preparation.blur,
    )
    if preparation.holdout == "official" and not any(full.splits or ()):
        raise UsageError(
            "The source has no split of its own.",
            "A split is folders such as train and test, CelebA's list_eval_partition.txt, or a table's column named split.",
            "Add one beside the pictures, or use a random split with --holdout 0.1.",
        )
    listing, counts = select(full, preparation)
    if preparation.variants:
        listing, counts["variants"] = repeated(listing, preparation.variants, preparation.holdout), preparation.variants
    if preparation.labels:
        labels.choose(listing.take(np.arange(0)), preparation.labels)  # a wrong name raises before any image is decoded
    chooses = crop.finds_face and preparation.eye_distance is None
    sample = full.take(labels.sample(full, FRAMING_IMAGES)) if chooses else None
    inputs = [
        FORMAT,
        SAMPLING,
        ALIGNMENT if crop.finds_face else "",
        asdict(preprocess),
        asdict(preparation),
        source.description,
        full.stamp,
    ]
    return PreparationPlan(source, listing, preprocess, preparation, counts, stamp_of(inputs), sample)


def check_face(preparation: Preparation, finds_face: bool) -> None:
    """Raise UsageError for settings that would have no effect."""
    names = ("eye_distance", "eye_height", "max_outside")
    if not finds_face and any(getattr(preparation, name) != getattr(Preparation, name) for name in names):
        raise UsageError(
            "--eye-distance, --eye-height and --max-outside have no effect here.",
            "They apply only to --crop face.",
            "Add --crop face.",
        )
    if preparation.variants and finds_face:
        raise UsageError(
            "--variants has no effect with --crop face.",
            "It would level what was turned.",
            "Prepare a pack with --crop face first, and the variants from that pack.",
        )
    if preparation.blur and finds_face:
        raise UsageError(
            f"--blur {preparation.blur} has no effect here.", "--crop face has its own antialiasing.", "Remove --blur."
        )
    if preparation.resampler is not None and finds_face:
        raise UsageError(
            f"--resampler {preparation.resampler} has no effect here.",
            "--crop face rotates pictures with its own resampler.",
            "Remove --resampler, or choose another crop.",
        )


def repeated(listing: Listing, count: int, holdout: float | Literal["official"]) -> Listing:
    """The images for training in turn until there are `count`, and then those held out, each once."""
    parts = listing.splits if holdout == "official" or "holdout" in (listing.splits or ()) else None
    held = np.array([part not in ("train", "training", "") for part in parts or [""] * len(listing.names)])
    rows = np.flatnonzero(~held)
    if not len(rows) or count < len(rows):
        raise UsageError(
            f"--variants {count:,} is fewer than the {len(rows):,} images for training.",
            "Each is taken at least once.",
            "Use a larger number, or --limit.",
        )
    return listing.take(np.concatenate([rows[np.arange(count) % len(rows)], np.flatnonzero(held)]))


def select(full: Listing, preparation: Preparation) -> tuple[Listing, dict[str, Any]]:
    """The images that the preparation selects, and the number left after each step."""
    counts: dict[str, Any] = {"found": len(full.names)}
    listing = full
    if preparation.where:
        listing = listing.take(labels.where(listing, preparation.where))
        counts["where"] = len(listing.names)
        if not len(listing.names):
            conditions = ", ".join(f"{name}={value}" for name, value in preparation.where.items())
            raise DataError(
                f"No image has {conditions}.", f"None of {len(full.names):,} images matches.", "Relax --where."
            )
    if preparation.balance:
        rows, counts["balance"] = labels.balance(listing, preparation.balance, preparation.limit)
        listing = listing.take(rows)
    elif preparation.limit is not None and preparation.limit < len(listing.names):
        listing = listing.take(labels.sample(listing, preparation.limit))
        counts["sampled"] = preparation.limit
    counts["selected"] = len(listing.names)
    return listing, counts
