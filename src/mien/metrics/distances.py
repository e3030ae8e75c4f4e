"""Distances between two sets of features, `[n, d]` and `[m, d]`: pure functions, computed in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mien.metrics.confidence import Array, Estimate, grouped_jackknife, infinitesimal_jackknife

Features = npt.NDArray[Any]  # [n, d], any floating type

KERNEL_BLOCK = 1024  # rows at a time, so that memory does not grow with the square of the count
DIRECTIONS, DIRECTION_BLOCK = 1000, 50  # of the Monge Inception distance in all, and at a time


def centred(features: Features) -> tuple[Array, Array]:
    """The mean `[d]`, and the rows less the mean over sqrt(n - 1), whose own product is the covariance."""
    x = np.asarray(features, np.float64)
    mean = x.mean(0)
    return mean, (x - mean) / np.sqrt(max(len(x) - 1, 1))


@dataclass(frozen=True)
class Spread:
    """Mean and covariance of a set of features, for the Fréchet distance."""

    mean: Array  # [d]
    root: Array  # [min(n, d), d]; its product with itself is the covariance
    trace: float  # of the covariance

    @staticmethod
    def of(features: Features) -> Spread:
        mean, x = centred(features)
        root: Array = x if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(x, mode="r"))
        return Spread(mean, root, float((x**2).sum()))

    def distance(self, other: Spread) -> float:
        """The Fréchet distance without its interval, in a third of the time of `frechet`."""
        shift = self.mean - other.mean
        singular = np.linalg.svd(self.root @ other.root.T, compute_uv=False)
        return float(shift @ shift + self.trace + other.trace - 2.0 * singular.sum())


def frechet(real: Features, fake: Features) -> Estimate:
    """The Fréchet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (arXiv 1706.08500, eq. 6).

    Neither a covariance nor its square root is formed: with C = X'X, the trace of the root is the sum of the singular
    values of X Y', which stays exact where covariances are singular, with fewer samples than dimensions. The
    derivative of the distance by each sample comes with it: the interval is first order in the samples, the reference
    held fixed.
    """
    mean, x = centred(fake)
    reference = Spread.of(real)
    rotation, short = (None, x) if len(x) <= x.shape[1] else np.linalg.qr(x)
    left, singular, _ = np.linalg.svd(short @ reference.root.T, full_matrices=False)
    shift = mean - reference.mean
    value = shift @ shift + (x**2).sum() + reference.trace - 2.0 * singular.sum()
    # The derivative by C1 is I - A, A the optimal map between the Gaussians; here x'Ax needs no inverse.
    across = left if rotation is None else rotation @ left
    mapped = (across**2) @ singular
    scale = max(len(x) - 1, 1)
    influence = np.sqrt(scale) * 2.0 * (x @ shift) + scale * ((x**2).sum(1) - mapped)
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
        return float(np.mean([reference.distance(Spread.of(fake[piece])) for piece in np.array_split(order, parts)]))

    return max((8.0 * mean_of_parts(1) - 6.0 * mean_of_parts(2) + mean_of_parts(4)) / 3.0, 0.0)


def cubic_kernel(x: Array, y: Array) -> Array:
    """(x'y / d + 1)^3, `[n, m]` (Binkowski et al. 2018, arXiv 1801.01401, section 4)."""
    product = x @ y.T
    product /= x.shape[1]
    product += 1.0
    return product * product * product


def kernel_sums(x: Array, y: Array, groups: int) -> Array:
    """Sums of the kernel over pairs, by the group of x and the group of y: `[groups, groups]`. Row i is of group i
    mod groups.
    """
    sums = np.zeros((groups, groups))
    columns = np.arange(len(y)) % groups
    for start in range(0, len(x), KERNEL_BLOCK):
        values = cubic_kernel(x[start : start + KERNEL_BLOCK], y)
        rows = np.arange(start, start + len(values)) % groups
        by_column = np.stack([values[:, columns == group].sum(1) for group in range(groups)], 1)
        for group in range(groups):
            sums[group] += by_column[rows == group].sum(0)
    return sums


def kernel_distance(real: Features, fake: Features, groups: int = 10) -> Estimate:
    """The unbiased squared maximum mean discrepancy under the cubic kernel, over all pairs (KID, arXiv 1801.01401,
    eq. 4).

    All pairs have the least variance, and no seed chooses subsets. The interval is a jackknife of the samples in
    groups, whose sums are computed separately: at least three samples, so that two remain without one.
    """
    x, y = np.asarray(fake, np.float64), np.asarray(real, np.float64)
    groups = min(groups, max(len(x) // 2, 2) if len(x) > 3 else len(x))
    own = kernel_sums(x, x, groups)
    diagonal = ((x**2).sum(1) / x.shape[1] + 1.0) ** 3
    own[np.diag_indices(groups)] -= np.array([diagonal[group::groups].sum() for group in range(groups)])
    across = kernel_sums(x, y, groups).sum(1)
    reference = kernel_sums(y, y, 1).item() - (((y**2).sum(1) / y.shape[1] + 1.0) ** 3).sum()
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
    x, y = (np.asarray(rows[_subset(len(rows), count, random)], np.float64) for rows in (fake, real))
    directions = torch.randn(DIRECTIONS, x.shape[1], generator=random)
    directions = torch.nn.functional.normalize(directions, dim=1)
    value, influence = 0.0, np.zeros(count)
    for block in torch.split(directions, DIRECTION_BLOCK):
        axes = block.numpy().astype(np.float64).T
        fakes, reals = x @ axes, np.sort(y @ axes, axis=0)
        order = np.argsort(fakes, axis=0)
        fakes = np.take_along_axis(fakes, order, 0)
        moves = fakes - reals
        value += float((moves**2).mean(0).sum())
        potential = np.zeros_like(moves)
        potential[1:] = np.cumsum((moves[1:] + moves[:-1]) * np.diff(fakes, axis=0), axis=0)
        for column in range(potential.shape[1]):
            influence[order[:, column]] += potential[:, column]
    scale = 3.0 * x.shape[1] / DIRECTIONS
    return infinitesimal_jackknife(scale * value, scale * influence)


def _subset(count: int, wanted: int, random: torch.Generator) -> npt.NDArray[np.int64]:
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
