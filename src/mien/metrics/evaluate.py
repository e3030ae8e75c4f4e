"""Scores of a set of faces against a reference: each metric is one function of `MetricInputs`, listed in `METRICS`."""

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
from mien.metrics.distances import (
    frechet,
    frechet_at_infinity,
    kernel_distance,
    kernel_distance_of_subsets,
    monge,
)
from mien.metrics.features import Extractor, Features, InceptionFeatures, PixelFeatures
from mien.metrics.identity import IdentityFeatures
from mien.metrics.images import Images, SampledImages
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
PAIRS = 12  # closest pairs in the picture, samples before their training images

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

    Raises DataError if one of `metrics` needs it and its weights are not available: before sampling, not after.
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
    """Load an extractor from `FILE.py:NAME`, a function without arguments in a user's file."""
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
    extractor: Extractor = found()
    return extractor


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
    beside = {"baseline": baseline, "nearer_than_unseen": found.nearer, "median_distance_ratio": found.ratio}
    yield Score.of(metric, inputs.name(metric), found.excess, inputs.protocol(extractor, **beside))
    rows = found.pairs[:PAIRS]
    samples = [inputs.fake.read(slice(row, row + 1)) for row in rows[:, 0]]
    closest = [inputs.reference.read(slice(row, row + 1)) for row in rows[:, 1]]
    inputs.pictures[f"{metric}_pairs"] = np.concatenate(samples + closest)


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
    return [score for metric in known(metrics) for score in METRICS[metric](inputs)]


def samples_of(
    sampler: Sampler, reference: Images, samples: int | None = None, name: str = "the model"
) -> SampledImages:
    """`samples` faces of seeds 0, 1, ...; by default as many as real images, up to MAX_SAMPLES."""
    return SampledImages(sampler, samples or min(reference.count, MAX_SAMPLES), name)
