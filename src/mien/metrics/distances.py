"""Distances between two sets of features, `[n, d]` and `[m, d]`: pure functions.

They compute in float64, a block of rows at a time: beside the features, memory grows by a few numbers an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mien.metrics.confidence import Array, Estimate, grouped_jackknife, infinitesimal_jackknife

Features = npt.NDArray[Any]  # [n, d], any floating type

BLOCK = 2048  # rows in float64 at a time
FOLD = 4  # a QR decomposition takes up to so many rows a dimension
DIRECTIONS, DIRECTION_BLOCK = 1000, 50  # of the Monge Inception distance in all, and at a time

Indices = npt.NDArray[np.int64]


def blocks_of(features: Features, chosen: Indices | None = None) -> Iterator[tuple[slice, Array]]:
    """Blocks of rows in float64, with their places: of all rows, or of the chosen ones."""
    count = len(features) if chosen is None else len(chosen)
    for start in range(0, count, BLOCK):
        places = slice(start, min(start + BLOCK, count))
        yield places, np.asarray(features[places if chosen is None else chosen[places]], np.float64)


def mean_of(features: Features, chosen: Indices | None = None) -> Array:
    """The mean `[d]` of all rows, or of the chosen ones."""
    total = sum((block.sum(0) for _, block in blocks_of(features, chosen)), np.zeros(features.shape[1]))
    mean: Array = total / (len(features) if chosen is None else len(chosen))
    return mean


@dataclass(frozen=True)
class Spread:
    """Mean and covariance of a set of features, for the Fréchet distance."""

    mean: Array  # [d]
    root: Array  # [min(n, d), d]; its product with itself is the covariance
    trace: float  # of the covariance
    count: int  # n

    @staticmethod
    def of(features: Features, chosen: Indices | None = None) -> Spread:
        """Of all rows, or of the chosen ones.

        The root of many rows is R of their QR decomposition, which is that of earlier rows' R with the next rows below it.
        """
        count = len(features) if chosen is None else len(chosen)
        spread = Spread(mean_of(features, chosen), np.empty((0, features.shape[1])), 0.0, count)
        pending, rows, trace, most = [], 0, 0.0, features.shape[1]
        for _, block in blocks_of(features, chosen):
            pending.append(spread.scaled(block))
            trace += float((pending[-1] ** 2).sum())
            rows += len(block)
            if rows >= FOLD * most:
                pending, rows = [triangle(pending)], most
        if rows > most:
            pending = [triangle(pending)]
        return replace(spread, root=np.concatenate(pending), trace=trace)

    def scaled(self, block: Array) -> Array:
        """Rows less the mean over sqrt(n - 1): the product of all of them with themselves is the covariance."""
        return np.asarray((block - self.mean) / np.sqrt(max(self.count - 1, 1)))

    def distance(self, other: Spread) -> float:
        """The Fréchet distance without its interval, in a third of the time of `frechet`."""
        shift = self.mean - other.mean
        singular = np.linalg.svd(self.root @ other.root.T, compute_uv=False)
        return float(shift @ shift + self.trace + other.trace - 2.0 * singular.sum())


def triangle(pending: list[Array]) -> Array:
    """R of the QR decomposition of all rows, `[d, d]`; the list is emptied, so that they are held once."""
    rows = np.concatenate(pending)
    pending.clear()
    return np.asarray(np.linalg.qr(rows, mode="r"))


def frechet(real: Features, fake: Features) -> Estimate:
    """The Fréchet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (arXiv 1706.08500, eq. 6).

    Neither a covariance nor its square root is formed: with C = X'X, the trace of the root is the sum of the singular
    values of X Y', which stays exact where covariances are singular, with fewer samples than dimensions. The
    derivative of the distance by each sample comes with it: the interval is first order in the samples, the reference
    held fixed.
    """
    spread, reference = Spread.of(fake), Spread.of(real)
    product = spread.root @ reference.root.T
    _, singular, right = np.linalg.svd(product, full_matrices=False)
    shift = spread.mean - reference.mean
    value = shift @ shift + spread.trace + reference.trace - 2.0 * singular.sum()
    # The derivative by C1 is I - A, A the optimal map between the Gaussians: with X Y' = U S V', A = Y'V S^-1 V'Y. What
    # smaller singular values would add is below rounding.
    known = singular > singular.max() * max(product.shape) * np.finfo(np.float64).eps
    axes = (right[known] @ reference.root) / np.sqrt(singular[known])[:, None]
    influence, scale = np.empty(len(fake)), max(len(fake) - 1, 1)
    for rows, block in blocks_of(fake):
        x = spread.scaled(block)
        along, lengths, mapped = x @ shift, (x**2).sum(1), ((x @ axes.T) ** 2).sum(1)
        influence[rows] = np.sqrt(scale) * 2.0 * along + scale * (lengths - mapped)
    return infinitesimal_jackknife(max(float(value), 0.0), influence)


def frechet_at_infinity(real: Features, fake: Features, seed: int = 0) -> float | None:
    """The Fréchet distance that infinitely many samples would have: its bias is a series in 1/n (arXiv 1911.07023).

    The first two terms are removed with the help of two halves and four quarters of the samples (Richardson's extrapolation).
    Below about three samples a dimension the series is longer, and the value is approximate. None for fewer than eight samples.
    """
    if len(fake) < 8:
        return None
    order, reference = np.random.default_rng(seed).permutation(len(fake)), Spread.of(real)

    def mean_of_parts(parts: int) -> float:
        return float(np.mean([reference.distance(Spread.of(fake, piece)) for piece in np.array_split(order, parts)]))

    return max((8.0 * mean_of_parts(1) - 6.0 * mean_of_parts(2) + mean_of_parts(4)) / 3.0, 0.0)


def cubic_kernel(x: Array, y: Array) -> Array:
    """(x'y / d + 1)^3, `[n, m]` (Binkowski et al. 2018, arXiv 1801.01401, section 4)."""
    product: Array = x @ y.T
    product /= x.shape[1]
    product += 1.0
    return product * product * product


def kernel_sums(x: Features, y: Features, groups: int) -> Array:
    """Sums of the kernel over pairs, by the group of x and the group of y: `[groups, groups]`. Row i is of group i
    mod groups.
    """

    def membership(rows: slice) -> Array:
        return np.asarray(np.eye(groups)[np.arange(rows.start, rows.stop) % groups])

    sums = np.zeros((groups, groups))
    for rows, some in blocks_of(x):
        for columns, others in blocks_of(y):
            sums += membership(rows).T @ (cubic_kernel(some, others) @ membership(columns))
    return sums


def kernel_with_itself(x: Features) -> Array:
    """The kernel of each row with itself, `[n]`."""
    kernel: Array = np.concatenate([((block**2).sum(1) / x.shape[1] + 1.0) ** 3 for _, block in blocks_of(x)])
    return kernel


def kernel_distance(real: Features, fake: Features, groups: int = 10) -> Estimate:
    """The unbiased squared maximum mean discrepancy under the cubic kernel, over all pairs (KID, arXiv 1801.01401,
    eq. 4).

    All pairs have the least variance, and no seed chooses subsets. The interval is a jackknife of the samples in
    groups, whose sums are computed separately: at least three samples, so that two remain without one.
    """
    x, y = fake, real
    groups = min(groups, max(len(x) // 2, 2) if len(x) > 3 else len(x))
    own = kernel_sums(x, x, groups)
    diagonal = kernel_with_itself(x)
    own[np.diag_indices(groups)] -= np.array([diagonal[group::groups].sum() for group in range(groups)])
    across = kernel_sums(x, y, groups).sum(1)
    reference = kernel_sums(y, y, 1).item() - kernel_with_itself(y).sum()
    reference /= len(y) * (len(y) - 1)

    def distance(kept: list[int]) -> float:
        count = sum(len(range(group, len(x), groups)) for group in kept)
        within = own[np.ix_(kept, kept)].sum() / (count * (count - 1))
        return float(within + reference - 2.0 * across[kept].sum() / (count * len(y)))

    everyone = list(range(groups))
    without = np.array([distance([g for g in everyone if g != left_out]) for left_out in everyone])
    return grouped_jackknife(distance(everyone), without)


def kernel_distance_of_subsets(
    real: Features, fake: Features, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased distance over random subsets: how the common packages report KID.

    The deviation is that of one subset, not the error of the mean. `seed` and the order of draws are torch-fidelity's.
    """
    size = min(size, len(real), len(fake))
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = np.asarray(fake[random.choice(len(fake), size, replace=False)], np.float64)
        y = np.asarray(real[random.choice(len(real), size, replace=False)], np.float64)
        own, other = cubic_kernel(x, x), cubic_kernel(y, y)
        within = (own.sum() - np.trace(own) + other.sum() - np.trace(other)) / (size * (size - 1))
        values.append(within - 2.0 * cubic_kernel(x, y).mean())
    return float(np.mean(values)), float(np.std(values))


def monge(real: Features, fake: Features, seed: int = 2020) -> Estimate:
    """The Monge Inception distance (MIND, arXiv 2605.06797): 3d times the squared sliced 2-Wasserstein distance.

    The mean over 1,000 random directions of the mean squared difference between sorted projections. It compares whole
    distributions, not two moments, and needs fewer samples than FID. If there are more images on one side, a random
    subset is used; it and the directions are torch-fidelity's. The interval is first order in the samples: a sample's
    influence along a direction is the Kantorovich potential, whose slope is twice the displacement of the optimal map.
    """
    random = torch.Generator().manual_seed(seed)
    count = min(len(real), len(fake))
    chosen, chosen_reals = (_subset(len(rows), count, random) for rows in (fake, real))
    directions = torch.randn(DIRECTIONS, fake.shape[1], generator=random)
    directions = torch.nn.functional.normalize(directions, dim=1)
    value, influence = 0.0, np.zeros(count)
    for block in torch.split(directions, DIRECTION_BLOCK):
        axes = block.numpy().astype(np.float64).T
        fakes, reals = projected(fake, chosen, axes), projected(real, chosen_reals, axes)
        reals.sort(axis=0)
        order = np.argsort(fakes, axis=0)
        fakes = np.take_along_axis(fakes, order, 0)
        moves = fakes - reals
        value += float((moves**2).mean(0).sum())
        potential = np.zeros_like(moves)
        potential[1:] = np.cumsum((moves[1:] + moves[:-1]) * np.diff(fakes, axis=0), axis=0)
        for column in range(potential.shape[1]):
            influence[order[:, column]] += potential[:, column]
    scale = 3.0 * fake.shape[1] / DIRECTIONS
    return infinitesimal_jackknife(scale * value, scale * influence)


def projected(features: Features, chosen: Indices, axes: Array) -> Array:
    """The chosen rows along some axes `[d, k]`: `[len(chosen), k]`."""
    return np.concatenate([block @ axes for _, block in blocks_of(features, chosen)])


def _subset(count: int, wanted: int, random: torch.Generator) -> Indices:
    """`wanted` of `count` rows, at random; all of them, in order, without a draw, if they are as many."""
    rows = torch.arange(count) if count == wanted else torch.randperm(count, generator=random)[:wanted]
    return rows.numpy()


def mean_pairwise(features: Features) -> Estimate:
    """The mean squared distance over all pairs of rows, in one pass: twice the trace of the covariance.

    Of LPIPS embeddings, it is the mean LPIPS over all pairs.
    """
    mean = features.mean(0, dtype=np.float64)
    spread = np.array([((row - mean) ** 2).sum() for row in features])
    return infinitesimal_jackknife(2.0 * float(spread.sum()) / (len(features) - 1), 2.0 * spread)
