"""Nearest-neighbour metrics of two feature sets: precision, recall, density, coverage, memorisation.

They are computed in float64 and in blocks of both sets: beside the features, memory grows by a few numbers an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mien.metrics.confidence import Array, Estimate, bootstrap
from mien.metrics.distances import Features, Indices, blocks_of, mean_of

EQUAL_BELOW = 1e-11  # squared distances below this share of the squared lengths are rounding: the two are one image


def squared_distances(queries: Features, points: Features) -> Iterator[tuple[slice, slice, Array]]:
    """Blocks of the squared distances `[n, m]`, with their rows and columns; the rows' first block begins at column 0."""
    origin = mean_of(points)  # nearer the origin, less is lost to rounding
    for rows, some in blocks_of(queries):
        x = some - origin
        lengths = (x**2).sum(1)[:, None]
        for columns, others in blocks_of(points):
            y = others - origin
            scale = lengths + (y**2).sum(1)
            squared = x @ y.T
            squared *= -2.0
            squared += scale
            scale *= EQUAL_BELOW
            squared[squared < scale] = 0.0
            yield rows, columns, squared


def nearest(queries: Features, points: Features, k: int, within: bool = False) -> tuple[Array, Indices]:
    """Distances to the k nearest points, ascending, and their indices: `[n, k]` each.

    `within`: the two sets are the same, and a row is not its own neighbour.
    """
    distances, indices = np.full((len(queries), k), np.inf), np.zeros((len(queries), k), np.int64)
    for rows, columns, squared in squared_distances(queries, points):
        if within and rows == columns:
            np.fill_diagonal(squared, np.inf)
        width = min(k, squared.shape[1])
        closest = np.argpartition(squared, width - 1, axis=1)[:, :width]
        values = np.concatenate((distances[rows], np.take_along_axis(squared, closest, 1)), 1)
        places = np.concatenate((indices[rows], closest + columns.start), 1)
        order = np.argsort(values, axis=1, kind="stable")[:, :k]
        distances[rows], indices[rows] = np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)
    return np.sqrt(distances), indices


@dataclass(frozen=True)
class Manifolds:
    """Two sets as unions of balls; each radius is the distance to the centre's k-th neighbour in its own set.

    Precision and recall: Kynkäänniemi et al. 2019, arXiv 1904.06991; density and coverage: Naeem et al. 2020, arXiv
    2002.09797, eq. 3 and 4. A point lies in a ball only if it is nearer than the radius, as in the code of Naeem et al.; eq. 1
    of Kynkäänniemi et al. has points at the radius too, which differs where an image has k duplicates: its radius is 0.
    """

    precision: Estimate  # share of fakes inside the reals
    recall: Estimate  # share of reals inside the fakes
    density: Estimate  # how many reals' balls hold a fake, over k; above 1 where reals are dense
    coverage: Estimate  # share of reals with a fake in their ball
    points: tuple[int, int]  # reals and fakes whose radius is 0
    closed: tuple[float, float]  # precision and recall if points at the radius lie in the ball


def manifolds(real: Features, fake: Features, k: int = 5) -> Manifolds:
    """The four scores. Their intervals resample the images with the balls fixed."""
    real_radii = nearest(real, real, k, within=True)[0][:, -1] ** 2
    fake_radii = nearest(fake, fake, k, within=True)[0][:, -1] ** 2
    holding = np.zeros(len(fake))  # how many reals' balls hold each fake
    inside, covered = np.zeros(len(real), np.bool_), np.zeros(len(real), np.bool_)
    fakes_closed, reals_closed = np.zeros(len(fake), np.bool_), np.zeros(len(real), np.bool_)
    for rows, columns, squared in squared_distances(real, fake):
        radii, others = real_radii[rows, None], fake_radii[columns]
        held = squared < radii
        holding[columns] += held.sum(0)
        covered[rows] |= held.any(1)
        inside[rows] |= (squared < others).any(1)
        fakes_closed[columns] |= (squared <= radii).any(0)
        reals_closed[rows] |= (squared <= others).any(1)
    return Manifolds(
        precision=bootstrap((holding > 0).astype(np.float64)),
        recall=bootstrap(inside.astype(np.float64)),
        density=bootstrap(holding / k),
        coverage=bootstrap(covered.astype(np.float64)),
        points=(int((real_radii == 0).sum()), int((fake_radii == 0).sum())),
        closed=(float(fakes_closed.mean()), float(reals_closed.mean())),
    )


@dataclass(frozen=True)
class Memorisation:
    """How much nearer the samples are to training images than held-out faces are."""

    excess: Estimate  # share of samples nearer than 99% of the unseen are, less the 1% that chance gives
    nearer: float  # probability that a sample is nearer than an unseen face: 0.5 when nothing is memorised
    ratio: float  # median distance of the samples over that of the unseen
    pairs: Indices  # [n, 2]: sample and its nearest training image, the closest first
    distances: Array  # [n], of those pairs
    duplicates: (
        Indices  # rows of the baseline (`unseen`, else `train`) that are in the training set too; they do not count
    )


#: Of the median distance: nearer features are of one picture, perhaps saved again. Measured (LOG 2026-11-29): the nearest two of
#: 1,200 faces are at 0.49, of 500 drawn ones at 0.32; JPEGs of quality 75 are at 0.1 to 0.25 of their originals.
DUPLICATE = 0.3
#: The same of what is left of features when their mean and their length do not count: a picture that is brighter, or of more
#: contrast, is at 0.2 at most, the nearest two of 600 drawn faces at 0.23, of 1,500 photographs at 0.6 (LOG 2026-11-30).
REPAINTED, WIDE = 0.2, 32  # ... of so many numbers at least: fewer agree by chance
NEAR_QUANTILE = 0.01  # the share of unseen faces that count as near


def pattern_distances(features: Features, others: Features, rows: Indices) -> Array:
    """The distance of each image to one of `others`, each without its mean and divided by its length."""

    def pattern(some: Array) -> Array:
        centred = some - some.mean(1, keepdims=True)
        unit: Array = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        return unit

    blocks = zip(blocks_of(features), blocks_of(others, rows), strict=True)
    return np.concatenate([np.linalg.norm(pattern(some) - pattern(match), axis=1) for (_, some), (_, match) in blocks])


def memorisation(train: Features, unseen: Features | None, fake: Features) -> Memorisation:
    """Compare nearest-training distances of samples with those of `unseen` faces.

    None: compare with the distances between training images, for a pack without a holdout. Images that have a duplicate or
    a near-duplicate in the training set are left out of the baseline, where 1% of them would hide copies that are as good.
    """
    others = train if unseen is None else unseen
    distances, indices = nearest(others, train, 1, within=unseen is None)
    baseline, closest = distances[:, 0], indices[:, 0]
    duplicate = baseline <= DUPLICATE * np.median(baseline)
    if train.shape[1] >= WIDE:
        patterns = pattern_distances(others, train, closest)
        duplicate |= patterns < REPAINTED * np.median(patterns)
    if not duplicate.all():  # else there is nothing to compare with
        baseline = baseline[~duplicate]
    distances, indices = nearest(fake, train, 1)
    sampled, closest = distances[:, 0], indices[:, 0]
    bound = np.quantile(baseline, NEAR_QUANTILE)
    excess = bootstrap((sampled < bound).astype(np.float64) - NEAR_QUANTILE)
    below = np.searchsorted(np.sort(sampled), baseline, side="left")  # samples nearer than each unseen face
    ties = np.searchsorted(np.sort(sampled), baseline, side="right") - below
    nearer = float((below + 0.5 * ties).mean() / len(sampled))
    order = np.argsort(sampled, kind="stable")
    ratio = float(np.median(sampled) / max(float(np.median(baseline)), 1e-12))
    return Memorisation(
        excess, nearer, ratio, np.stack((order, closest[order]), 1), sampled[order], np.flatnonzero(duplicate)
    )
