"""What metrics need beside the features, measured by tracemalloc, which sees every array of numpy's."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from mien.metrics import features
from mien.metrics.distances import (
    frechet,
    frechet_at_infinity,
    kernel_distance,
    kernel_distance_of_subsets,
    monge,
)
from mien.metrics.evaluate import shared
from mien.metrics.images import CachedImages, Images, Pixels
from mien.metrics.inputs import finite
from mien.metrics.prdc import manifolds, memorisation

WIDTH = 256  # of features: 1 KB a row, far more than the few numbers that a metric keeps of each
ROWS = (300, 900)  # both more than the dimensions


def peak(work: Callable[[], object]) -> int:
    """The most bytes that were allocated at once during some work, beside those before it."""
    tracemalloc.start()
    try:
        result = work()  # counts too, if it is large
        most = tracemalloc.get_traced_memory()[1]
        del result
    finally:
        tracemalloc.stop()
    return most


def rows_of(count: int, seed: int) -> features.Features:
    return np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32)


class ManyImages(Images):
    """Black pictures of 16 pixels that are made as they are read."""

    name, split, size, fingerprint = "many", "samples", (16, 16), ""

    def __init__(self, count: int) -> None:
        self.count = count

    def read(self, rows: slice) -> Pixels:
        return np.zeros((len(range(*rows.indices(self.count))), 16, 16, 3), np.uint8)


class WideFeatures:
    name, hash, resizer, precision = "wide", "", "none", "fp32"

    def __call__(self, images: Pixels) -> features.Features:
        return np.zeros((len(images), WIDTH), np.float32)


COMPARISONS: dict[str, Callable[[features.Features, features.Features], object]] = {
    "frechet": frechet,
    "extrapolation": frechet_at_infinity,
    "kernel": kernel_distance,
    "subsets": lambda real, fake: kernel_distance_of_subsets(real, fake, subsets=2, size=100),
    "monge": monge,
    "prdc": manifolds,
    "memorisation": lambda real, fake: memorisation(real, None, fake),
    "shared": shared,
    "finite": lambda real, fake: finite(fake, ManyImages(len(fake))),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_metric_copies_no_features(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of three times the samples and real images, the peak grows by less than a quarter of their features.

    Copies in float64 were up to six times the features in fp32, and neighbours 400 MB of distances for 50,000 images.
    """
    monkeypatch.setattr("mien.metrics.distances.BLOCK", 64)
    monkeypatch.setattr("mien.metrics.distances.FOLD", 1)
    monkeypatch.setattr("mien.metrics.distances.DIRECTION_BLOCK", 2)

    def peak_of(count: int) -> int:
        real, fake = rows_of(count, 0), rows_of(count, 1)
        return peak(lambda: COMPARISONS[name](real, fake))

    few, many = map(peak_of, ROWS)
    grown = 2 * (ROWS[1] - ROWS[0]) * WIDTH * 4
    assert many - few < grown / 4, (few, many, grown)


def test_features_are_held_once() -> None:
    """Until the last block, a list of all blocks stood beside the array of them."""
    few, many = (peak(lambda n=count: features.extract(ManyImages(n), WideFeatures())) for count in ROWS)  # type: ignore[misc]
    grown = (ROWS[1] - ROWS[0]) * WIDTH * 4
    assert many - few < 1.25 * grown, (few, many, grown)


def test_pictures_are_not_held() -> None:
    """Samples that are read again lie in a file, not in memory."""

    def read_twice(count: int) -> None:
        images = CachedImages(ManyImages(count))
        for _ in range(2):
            for rows in features.blocks(count):
                images.read(rows)

    few, many = (peak(lambda n=count: read_twice(n)) for count in ROWS)  # type: ignore[misc]
    assert many - few < (ROWS[1] - ROWS[0]) * 16 * 16 * 3 / 4, (few, many)


def test_a_machine_without_a_place_for_temporary_files_still_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    images = CachedImages(ManyImages(40))
    first = images.read(slice(0, 16)).copy()
    assert np.array_equal(images.read(slice(0, 16)), first)
    assert np.array_equal(images.read(slice(8, 24)), ManyImages(40).read(slice(8, 24)))
