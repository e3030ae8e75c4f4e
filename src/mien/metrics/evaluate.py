"""Scores of a set of faces against a reference: each metric is one function of `MetricInputs`, listed in `METRICS`."""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mien.data.archives import printable
from mien.downloads import weights
from mien.errors import DataError, UsageError, did_you_mean
from mien.metrics import lpips_metrics
from mien.metrics.conditions import conditions
from mien.metrics.confidence import Estimate
from mien.metrics.distances import (
    Indices,
    frechet,
    frechet_at_infinity,
    kernel_distance,
    kernel_distance_of_subsets,
    monge,
)
from mien.metrics.features import Extractor, Features, InceptionFeatures, PixelFeatures
from mien.metrics.identity import IdentityFeatures
from mien.metrics.images import Images, Pixels, SampledImages
from mien.metrics.inputs import MetricInputs
from mien.metrics.prdc import manifolds, memorisation
from mien.metrics.resize import Resizer
from mien.metrics.scores import Score
from mien.sampling.sampler import Sampler

Legacy = Literal["pytorch-fid", "torch-fidelity", "clean-fid"]

DEFAULT = ("fid", "kid", "prdc", "memorisation")
MAX_SAMPLES = 10_000  # by default
FEW = 10_000  # samples, or real images: with fewer the bias of FID is worth a warning
NEIGHBOURS = 5  # of density and coverage, as their paper measures them, and of precision and recall beside them
NAMED = 5  # duplicates that a warning names
SAME = 0.5  # share of samples that are real images, from which two sets count as partly the same
PAIRS = 12  # closest pairs in the picture, samples before their training images

# How the common packages bring pixels to the network: resampling, and whether the range is (x - 128) / 128.
CONVENTIONS: dict[Legacy, tuple[Resizer, bool]] = {
    "pytorch-fid": ("point", False),
    "torch-fidelity": ("tf1", True),
    "clean-fid": ("bicubic", True),
}


def inception(
    legacy: Legacy | None = None,
    precision: str = "auto",
    device: str = "cpu",
    metrics: Sequence[str] = DEFAULT,
    download: bool = True,
) -> InceptionFeatures:
    """The extractor of a common package's protocol, in fp32, or of ours.

    Raises DataError if one of `metrics` needs it and its weights are not available: before sampling, not after; unless
    `download` is false.
    """
    if download and set(metrics) & set(DEFAULT):
        weights.path("inception")
    if legacy is None:
        return InceptionFeatures(precision=precision, device=device)
    if legacy not in CONVENTIONS:
        known = get_args(Legacy)
        raise UsageError(f"There is no convention `{legacy}`.", "Each is a package's.", did_you_mean(legacy, known))
    resizer, legacy_range = CONVENTIONS[legacy]
    return InceptionFeatures(resizer, "fp32", device, legacy_range)


def load_extractor(words: str) -> Extractor:
    """Load an extractor from `FILE.py:NAME`, a function without arguments in a user's file."""
    file, _, name = words.rpartition(":")
    if not Path(file).is_file():
        raise DataError(
            f"There is no regular file {file or words}.", "An extractor is FILE.py:NAME.", "Check the spelling."
        )
    if not file.endswith(".py"):
        raise UsageError(f"{file} is not a Python file.", "Its name does not end in .py.", "See docs/metrics.md.")
    try:
        found = runpy.run_path(file).get(name)
        extractor: Extractor | None = found() if callable(found) else None
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{words} cannot be run.", f"{type(error).__name__}: {error}", "Run it with python to see where it stops."
        ) from error
    names = ("name", "hash", "resizer", "precision")
    if not callable(extractor) or not all(isinstance(getattr(extractor, part, None), str) for part in names):
        raise UsageError(
            f"`{words}` is not an extractor.",
            f"NAME must be a function that returns a callable whose {', '.join(names)} are texts.",
            "docs/metrics.md shows one in ten lines.",
        )
    return OwnExtractor(words, extractor)


class OwnExtractor:
    """A user's extractor: its exceptions and features of a wrong shape are errors of its file, not of mien."""

    def __init__(self, words: str, extractor: Extractor) -> None:
        self.words, self.extractor = words, extractor
        self.name, self.hash = extractor.name, extractor.hash
        self.resizer, self.precision = extractor.resizer, extractor.precision

    def __call__(self, images: Pixels) -> Features:
        """uint8 `[n, H, W, 3]` -> float32 `[n, d]`. Raises UsageError."""
        try:
            features = np.asarray(self.extractor(images), np.float32)
        except Exception as error:
            raise UsageError(
                f"The extractor {self.words} fails.", f"{type(error).__name__}: {error}", "Correct its file."
            ) from error
        if features.ndim != 2 or len(features) != len(images):
            raise UsageError(
                f"The extractor {self.words} returns the shape {list(features.shape)}.",
                f"Features of {len(images)} images are [{len(images)}, d].",
                "Correct its file.",
            )
        return features


def fid(inputs: MetricInputs) -> Iterator[Score]:
    """The Fréchet distance of Inception's features; with few images, its extrapolation beside it."""
    estimate = frechet(inputs.reals, inputs.fakes)
    few = min(inputs.fake.count, inputs.reference.count)
    if few >= FEW or not inputs.extrapolate:
        yield Score.of("fid", inputs.name("fid"), estimate, inputs.protocol())
        return
    extrapolated = frechet_at_infinity(inputs.reals, inputs.fakes)
    hint = "" if extrapolated is None else f", about {extrapolated:.2f} for infinitely many samples"
    inputs.warnings.append(
        f"fid: {few:,} images are few, and FID is biased upwards: {estimate.value:.2f} here{hint}. "
        "Compare only scores of equal counts, or use kid."
    )
    yield Score.of("fid", inputs.name("fid"), estimate, inputs.protocol(extrapolated=extrapolated))


def kid(inputs: MetricInputs) -> Iterator[Score]:
    """The kernel distance over all pairs; under another package's conventions, over its subsets."""
    if inputs.legacy:
        mean, deviation = kernel_distance_of_subsets(inputs.reals, inputs.fakes)
        subsets = Estimate(mean, mean - deviation, mean + deviation, "standard deviation of one subset")
        protocol = inputs.protocol(estimator="100 subsets of up to 1,000")
        yield Score.of("kid", inputs.name("kid"), subsets, protocol)
        return
    if inputs.fake.count < 3:
        raise DataError(
            "kid needs at least 3 samples.",
            "Its interval leaves out one, and two must remain.",
            "Give more images, or leave kid out of --metrics.",
        )
    estimate = kernel_distance(inputs.reals, inputs.fakes)
    yield Score.of("kid", inputs.name("kid"), estimate, inputs.protocol(estimator="all pairs"))


def mind(inputs: MetricInputs) -> Iterator[Score]:
    """The Monge Inception distance: whole distributions along random directions, with little bias at 5,000 samples."""
    estimate = monge(inputs.reals, inputs.fakes)
    counted = min(inputs.fake.count, inputs.reference.count)
    yield Score.of(
        "mind", inputs.name("mind"), estimate, inputs.protocol(estimator=f"1,000 directions, {counted:,} a side")
    )


def prdc(inputs: MetricInputs) -> Iterator[Score]:
    """Precision, recall, density, coverage."""
    if min(inputs.fake.count, inputs.reference.count) <= NEIGHBOURS:
        raise DataError(
            f"prdc needs more than {NEIGHBOURS} images on either side.",
            f"It looks at each image's {NEIGHBOURS} nearest neighbours.",
            "Give more images, or leave prdc out of --metrics.",
        )
    four = manifolds(inputs.reals, inputs.fakes, NEIGHBOURS)
    if any(four.points):
        inputs.warnings.append(
            f"prdc: {four.points[0]:,} real images and {four.points[1]:,} samples have {NEIGHBOURS} or more duplicates in their "
            "own set: their balls have radius 0 and contain nothing, not even a copy. With points at the radius counted, "
            f"as in eq. 1 of arXiv:1904.06991, precision is {four.closed[0]:.4f} and recall {four.closed[1]:.4f}"
        )
    protocol = inputs.protocol(neighbours=NEIGHBOURS)
    for metric in ("precision", "recall", "density", "coverage"):
        yield Score.of(metric, inputs.name(metric), getattr(four, metric), protocol)


def copies(
    inputs: MetricInputs, metric: str, extractor: Extractor, fakes: Features, reals: Features
) -> Iterator[Score]:
    """The excess share of samples that are very near a training image, in one feature space, with the closest pairs."""
    unseen = inputs.of_reals(extractor, inputs.unseen) if inputs.unseen and inputs.unseen.count > 1 else None
    found = memorisation(reals, unseen, fakes)
    baseline = f"holdout of {inputs.unseen.count}" if unseen is not None and inputs.unseen else "other training images"
    if len(found.duplicates):
        inputs.warnings.append(
            duplicates_text(metric, found.duplicates, inputs.unseen if unseen is not None else None, inputs)
        )
    beside = {"baseline": baseline, "nearer_than_unseen": found.nearer, "median_distance_ratio": found.ratio}
    beside["duplicates"] = len(found.duplicates)
    yield Score.of(metric, inputs.name(metric), found.excess, inputs.protocol(extractor, **beside))
    rows = found.pairs[:PAIRS]
    samples = [inputs.fake.read(slice(row, row + 1)) for row in rows[:, 0]]
    closest = [inputs.reference.read(slice(row, row + 1)) for row in rows[:, 1]]
    inputs.pictures[f"{metric}_pairs"] = np.concatenate(samples + closest)


def duplicates_text(metric: str, rows: Indices, unseen: Images | None, inputs: MetricInputs) -> str:
    """What is said of images that are left out of the baseline, with the first few of their names."""
    images = unseen or inputs.reference
    names = ", ".join(printable(images.name_of(int(row))) for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    what = (
        "held-out images are among the training images too, or nearly"
        if unseen
        else "training images have a duplicate or a near-duplicate among them"
    )
    if len(rows) == images.count:
        return (
            f"{metric}: all {len(rows):,} {what}: there is nothing to compare samples with, and the score says nothing"
        )
    return f"{metric}: {len(rows):,} {what} ({names}{more}); they are left out of the baseline"


def memorisation_scores(inputs: MetricInputs) -> Iterator[Score]:
    """Memorisation by Inception's features and by pixels."""
    yield from copies(inputs, "memorisation", inputs.extractor, inputs.fakes, inputs.reals)
    plain = PixelFeatures()
    yield from copies(inputs, "memorisation_pixels", plain, inputs.of_fakes(plain), inputs.of_reals(plain))


def identity(inputs: MetricInputs) -> Iterator[Score]:
    """Memorisation by identity embeddings."""
    face = IdentityFeatures(inputs.reference)
    yield from copies(inputs, "memorisation_identity", face, inputs.of_fakes(face), inputs.of_reals(face))


def sface(inputs: MetricInputs) -> Iterator[Score]:
    """The Fréchet distance of SFace identity embeddings: a second opinion on FID by a network without ImageNet."""
    face = IdentityFeatures(inputs.reference)
    estimate = frechet(inputs.of_reals(face), inputs.of_fakes(face))
    yield Score.of("sface", inputs.name("sface"), estimate, inputs.protocol(face))


METRICS: Mapping[str, Callable[[MetricInputs], Iterator[Score]]] = {
    "fid": fid,
    "kid": kid,
    "mind": mind,
    "prdc": prdc,
    "memorisation": memorisation_scores,
    "identity": identity,
    "sface": sface,
    "diversity": lpips_metrics.diversity,
    "reconstruction": lpips_metrics.reconstruction,
    "ppl": lpips_metrics.path_length,
    "conditions": conditions,
}

#: The scores of the metrics that give several, or one of another name; the first always.
GIVES: Mapping[str, tuple[str, ...]] = {
    "prdc": ("precision", "recall", "density", "coverage"),
    "memorisation": ("memorisation", "memorisation_pixels"),
    "identity": ("memorisation_identity",),
    "reconstruction": ("reconstruction_l1", "reconstruction_lpips"),
    "conditions": ("classifier", "condition", "conditions"),
}
METRIC_OF: Mapping[str, str] = {score: metric for metric, scores in GIVES.items() for score in scores}


def split_names(metrics: str) -> list[str]:
    """`fid,kid` -> [fid, kid]."""
    return [word.strip() for word in metrics.split(",") if word.strip()]


def known(metrics: Sequence[str], flag: str = "--metrics") -> Sequence[str]:
    """Check the names of metrics. Raises UsageError for none or an unknown one."""
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(
                f"There is no metric `{metric}`.", f"Known: {', '.join(METRICS)}.", did_you_mean(metric, METRICS)
            )
    if not metrics:
        raise UsageError("There is nothing to measure.", f"{flag} is empty.", f"Write {flag} {','.join(DEFAULT)}.")
    return metrics


def measure(inputs: MetricInputs, metrics: Sequence[str] = DEFAULT) -> list[Score]:
    """The scores of some metrics, in their order. Raises UsageError for an unknown one, DataError for unusable images."""
    scores = [score for metric in known(metrics) for score in METRICS[metric](inputs)]
    computed = vars(inputs)
    if "fakes" in computed and "reals" in computed and (same := shared(inputs.fakes, inputs.reals)) >= SAME:
        inputs.warnings.append(
            f"{same:.0%} of the images of {inputs.fake.name} are images of {inputs.reference.name}: what is compared is partly "
            "the same set, and scores say nothing of a generator"
        )
    return scores


def shared(fakes: Features, reals: Features) -> float:
    """The share of samples whose features are, bit for bit, those of a real image."""

    def digest(row: Features) -> bytes:
        return hashlib.blake2b(row.data, digest_size=16).digest()  # the rows themselves would be a copy of the features

    known_rows = {digest(row) for row in reals}
    return float(np.mean([digest(row) in known_rows for row in fakes]))


def samples_of(
    sampler: Sampler, reference: Images, samples: int | None = None, name: str = "the model"
) -> SampledImages:
    """`samples` faces of seeds 0, 1, ...; by default as many as real images, up to MAX_SAMPLES."""
    return SampledImages(sampler, samples or min(reference.count, MAX_SAMPLES), name)
