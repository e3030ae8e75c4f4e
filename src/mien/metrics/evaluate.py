"""Scores of a set of faces against a reference: each metric is one function of what is judged, listed in `METRICS`."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mien.downloads import weights
from mien.errors import DataError, UsageError, did_you_mean
from mien.metrics import lpips_metrics
from mien.metrics.conditions import conditions
from mien.metrics.confidence import Estimate
from mien.metrics.distances import frechet, frechet_at_infinity, kernel_distance, kernel_distance_of_subsets
from mien.metrics.features import Extractor, Features, InceptionFeatures, PixelFeatures
from mien.metrics.identity import IdentityFeatures
from mien.metrics.images import DrawnImages, Images
from mien.metrics.inputs import Judged
from mien.metrics.prdc import manifolds, memorisation
from mien.metrics.resize import Resizer
from mien.metrics.scores import Score
from mien.sampling.sampler import Sampler

Legacy = Literal["pytorch-fid", "torch-fidelity", "clean-fid"]

DEFAULT = ("fid", "kid", "prdc", "memorisation")
MOST_SAMPLES = 10_000  # drawn unless more are asked for
FEW = 10_000  # samples, or real images: with fewer the bias of FID is worth a warning
NEIGHBOURS = 5  # of density and coverage, as their paper measures them, and of precision and recall beside them
PAIRS = 12  # closest pairs that are shown, the samples before their training images

# How the common packages bring pixels to the network: resampling, and whether the range is (x - 128) / 128.
CONVENTIONS: dict[Legacy, tuple[Resizer, bool]] = {
    "pytorch-fid": ("point", False),
    "torch-fidelity": ("tf1", True),
    "clean-fid": ("bicubic", True),
}


def inception(
    legacy: Legacy | None = None, precision: str = "auto", device: str = "cpu", metrics: Sequence[str] = DEFAULT
) -> InceptionFeatures:
    """The extractor of a common package's protocol, in fp32, or of ours.

    Raises DataError where one of `metrics` looks through it and its weights cannot be had: now, not after drawing.
    """
    if set(metrics) & set(DEFAULT):
        weights.path("inception")
    if legacy is None:
        return InceptionFeatures(precision=precision, device=device)
    if legacy not in CONVENTIONS:
        known = get_args(Legacy)
        raise UsageError(f"There is no convention `{legacy}`.", "Each is a package's.", did_you_mean(legacy, known))
    resizer, legacy_range = CONVENTIONS[legacy]
    return InceptionFeatures(resizer, "fp32", device, legacy_range)


def load_extractor(words: str) -> Extractor:
    """An extractor from `FILE.py:NAME`, a function without arguments in a file of the user's."""
    file, _, name = words.rpartition(":")
    if not Path(file).is_file():
        raise DataError(f"There is no {file or words}.", "An extractor is FILE.py:NAME.", "Check the spelling.")
    found = runpy.run_path(file).get(name)
    if not callable(found):
        raise UsageError(
            f"`{words}` is not an extractor.",
            "It is FILE.py:NAME, where NAME is a function that returns one.",
            "docs/metrics.md shows one in ten lines.",
        )
    eye: Extractor = found()
    return eye


def fid(judged: Judged) -> Iterator[Score]:
    """The Fréchet distance of Inception's features; with few images, its extrapolation beside it."""
    estimate = frechet(judged.reals, judged.fakes)
    few = min(judged.fake.count, judged.reference.count)
    if few >= FEW or not judged.extrapolate:
        yield Score.of("fid", judged.name("fid"), estimate, judged.passport())
        return
    extrapolated = frechet_at_infinity(judged.reals, judged.fakes)
    hint = "" if extrapolated is None else f", about {extrapolated:.2f} for infinitely many samples"
    judged.warnings.append(
        f"fid: {few:,} images are few, and FID is biased upwards: {estimate.value:.2f} here{hint}. "
        "Compare only scores of equal counts, or use kid."
    )
    yield Score.of("fid", judged.name("fid"), estimate, judged.passport(extrapolated=extrapolated))


def kid(judged: Judged) -> Iterator[Score]:
    """The kernel distance over all pairs; under another package's conventions, over its subsets."""
    if judged.legacy:
        mean, deviation = kernel_distance_of_subsets(judged.reals, judged.fakes)
        subsets = Estimate(mean, mean - deviation, mean + deviation, "standard deviation of one subset")
        passport = judged.passport(estimator="100 subsets of up to 1,000")
        yield Score.of("kid", judged.name("kid"), subsets, passport)
        return
    estimate = kernel_distance(judged.reals, judged.fakes)
    yield Score.of("kid", judged.name("kid"), estimate, judged.passport(estimator="all pairs"))


def prdc(judged: Judged) -> Iterator[Score]:
    """Precision, recall, density, coverage."""
    if min(judged.fake.count, judged.reference.count) <= NEIGHBOURS:
        raise DataError(
            f"prdc needs more than {NEIGHBOURS} images on either side.",
            f"It looks at each image's {NEIGHBOURS} nearest neighbours.",
            "Give more images, or leave prdc out of --metrics.",
        )
    four = manifolds(judged.reals, judged.fakes, NEIGHBOURS)
    passport = judged.passport(neighbours=NEIGHBOURS)
    for metric in ("precision", "recall", "density", "coverage"):
        yield Score.of(metric, judged.name(metric), getattr(four, metric), passport)


def copying(judged: Judged, metric: str, extractor: Extractor, fakes: Features, reals: Features) -> Iterator[Score]:
    """The excess share of samples that are very near a training image, in one feature space, with the closest pairs."""
    unseen = judged.of_reals(extractor, judged.unseen) if judged.unseen and judged.unseen.count > 1 else None
    found = memorisation(reals, unseen, fakes)
    baseline = f"holdout of {judged.unseen.count}" if unseen is not None and judged.unseen else "other training images"
    beside = {"baseline": baseline, "nearer_than_unseen": found.nearer, "median_distance_ratio": found.ratio}
    yield Score.of(metric, judged.name(metric), found.excess, judged.passport(extractor, **beside))
    rows = found.pairs[:PAIRS]
    samples = [judged.fake.read(slice(row, row + 1)) for row in rows[:, 0]]
    closest = [judged.reference.read(slice(row, row + 1)) for row in rows[:, 1]]
    judged.pictures[f"{metric}_pairs"] = np.concatenate(samples + closest)


def memorised(judged: Judged) -> Iterator[Score]:
    """Memorisation by Inception's features, and by the pixels themselves."""
    yield from copying(judged, "memorisation", judged.extractor, judged.fakes, judged.reals)
    plain = PixelFeatures()
    yield from copying(judged, "memorisation_pixels", plain, judged.of_fakes(plain), judged.of_reals(plain))


def identity(judged: Judged) -> Iterator[Score]:
    """Memorisation by who the faces are."""
    face = IdentityFeatures(judged.reference)
    yield from copying(judged, "memorisation_identity", face, judged.of_fakes(face), judged.of_reals(face))


def sface(judged: Judged) -> Iterator[Score]:
    """The Fréchet distance of identity embeddings: a second opinion on FID by a network that never saw ImageNet."""
    face = IdentityFeatures(judged.reference)
    estimate = frechet(judged.of_reals(face), judged.of_fakes(face))
    yield Score.of("sface", judged.name("sface"), estimate, judged.passport(face))


METRICS: Mapping[str, Callable[[Judged], Iterator[Score]]] = {
    "fid": fid,
    "kid": kid,
    "prdc": prdc,
    "memorisation": memorised,
    "identity": identity,
    "sface": sface,
    "diversity": lpips_metrics.diversity,
    "reconstruction": lpips_metrics.reconstruction,
    "ppl": lpips_metrics.path_length,
    "conditions": conditions,
}


def words_of(metrics: str) -> list[str]:
    """`fid,kid` -> [fid, kid]."""
    return [word.strip() for word in metrics.split(",") if word.strip()]


def known(metrics: Sequence[str], flag: str = "--metrics") -> Sequence[str]:
    """The metrics, if there are any and all are known. Raises UsageError otherwise."""
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(
                f"There is no metric `{metric}`.", f"Known: {', '.join(METRICS)}.", did_you_mean(metric, METRICS)
            )
    if not metrics:
        raise UsageError("There is nothing to measure.", f"{flag} is empty.", f"Write {flag} {','.join(DEFAULT)}.")
    return metrics


def measure(judged: Judged, metrics: Sequence[str] = DEFAULT) -> list[Score]:
    """The scores of some metrics, in their order. Raises UsageError for an unknown one, DataError for unusable images."""
    return [score for metric in known(metrics) for score in METRICS[metric](judged)]


def drawn(sampler: Sampler, reference: Images, samples: int | None = None, name: str = "the model") -> DrawnImages:
    """As many samples as asked for, or as there are real images, up to 10,000: seeds 0 to n - 1."""
    return DrawnImages(sampler, samples or min(reference.count, MOST_SAMPLES), name)
