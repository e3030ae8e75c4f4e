"""Confidence intervals of scores: they contain 95% of the values that other samples of the same generator would give.

The reference is held fixed, because it is named in the score's protocol. Resampling is seeded: the same features, the
same interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

NORMAL_95 = 1.959963984540054  # the normal distribution's 97.5% point
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float
    method: str  # how the interval was computed, for the protocol


def from_error(value: float, standard_error: float, method: str) -> Estimate:
    """The normal interval of a standard error."""
    return Estimate(value, value - NORMAL_95 * standard_error, value + NORMAL_95 * standard_error, method)


def infinitesimal_jackknife(value: float, influence: Array) -> Estimate:
    """From each sample's influence: n times the change of the score, to first order, when the sample's weight increases.

    Jaeckel 1972; Efron 1982, section 6. One pass, where a bootstrap would compute the score hundreds of times.
    """
    centred = influence - influence.mean()
    error = np.sqrt((centred**2).sum() / (len(influence) * max(len(influence) - 1, 1)))
    return from_error(value, float(error), "infinitesimal jackknife of the samples")


def grouped_jackknife(value: float, without: Array) -> Estimate:
    """Jackknife over equal groups of samples, from the scores that leave out one group each."""
    groups = len(without)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    return from_error(value, float(error), f"jackknife of the samples in {groups} groups")


def bootstrap(values: Array, seed: int = 0) -> Estimate:
    """The mean over samples, and the middle 95% of the means of 1,000 resamplings."""
    random = np.random.default_rng(seed)
    counts = len(values)
    means = [values[random.integers(0, counts, counts)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high), f"bootstrap of the samples, {RESAMPLES} resamplings")
