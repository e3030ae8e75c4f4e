"""Directions along which one thing that can be measured in a picture changes, and the others stay.

Each measure y_k, standardised over the model's faces, is regressed on the latent: y = B z. A direction v changes the measures by
B v. That of measure k is row k of (B B^T + ridge I)^-1 B: with a small ridge nothing else changes, with a large one it is the
gradient of y_k alone. The largest change of y_k is taken whose predicted leaks are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.sampling.directions import Direction

RANGE = 3.0  # standard deviations: a direction is measured at amounts from -RANGE to RANGE
DEVIATION = RANGE / 3**0.5  # of amounts that are uniform there
SHRINKAGE = 0.02  # ridge of the regression, as a share of the latents' variance
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
MAX_LEAK = 0.2  # predicted
CLIP = 3.0  # standard deviations: a face whose measurement failed must not decide a direction
FEWEST = 64  # faces that a measure was taken of


@dataclass(frozen=True, eq=False)
class Scale:
    """The mean and the standard deviation of each measure over a model's faces."""

    mean: Tensor  # [k]
    deviation: Tensor  # [k]

    @staticmethod
    def of(values: Tensor) -> Scale:
        """From values `[n, k]`, NaN = not measured."""
        mean = values.nanmean(0)
        return Scale(mean, (values - mean).square().nanmean(0).sqrt().clamp(min=1e-9))

    def apply(self, values: Tensor) -> Tensor:
        """Standardised values, clipped; what was not measured is the mean."""
        return ((values - self.mean) / self.deviation).clamp(-CLIP, CLIP).nan_to_num(0.0)


def correlation(effect: Tensor) -> Tensor:
    """Of an amount and a measure that changes by `effect` standard deviations with each one, over faces that differ by one."""
    moved = effect * DEVIATION
    return moved / (1 + moved.square()).sqrt()


def regression(latents: Tensor, values: Tensor) -> Tensor:
    """`[k, d]` effects of latents `[n, d]` on standardised values `[n, k]`, by ridge regression."""
    x, y = latents - latents.mean(0), values - values.mean(0)
    count, width = x.shape
    ridge = SHRINKAGE * count * x.var()
    if width <= count:
        solved: Tensor = torch.linalg.solve(x.T @ x + ridge * torch.eye(width, dtype=x.dtype), x.T @ y)
    else:
        solved = x.T @ torch.linalg.solve(x @ x.T + ridge * torch.eye(count, dtype=x.dtype), y)
    return solved.T


def vectors(latents: Tensor, values: Tensor) -> Tensor:
    """A direction `[k, d]` for each of standardised values `[n, k]`, as long as one standard deviation of latents `[n, d]`."""
    effects = regression(latents, values)
    rows = effects / effects.norm(dim=1).mean().clamp(min=1e-12)  # the ridges are for rows of length one
    gram, eye = rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype)
    tried = []
    for ridge in RIDGES:
        found = torch.linalg.solve(gram + ridge * eye, rows)
        tried.append(found / (latents @ found.T).std(0).clamp(min=1e-12)[:, None])
    chosen = []
    for place in range(len(effects)):
        predicted = [correlation(effects @ found[place]).abs() for found in tried]
        own = [float(row[place]) for row in predicted]
        leak = [float(torch.cat([row[:place], row[place + 1 :]]).max()) if len(row) > 1 else 0.0 for row in predicted]
        allowed = [step for step in range(len(tried)) if leak[step] <= MAX_LEAK] or [leak.index(min(leak))]
        chosen.append(tried[max(allowed, key=own.__getitem__)][place])
    return torch.stack(chosen)


def obedience(
    moves: Tensor, latents: Tensor, scale: Scale, measure: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> Tensor:
    """Correlations `[k, k]` of the amount along each direction with each measure, on faces that no direction was fitted to.

    `latents` `[m, d]` are moved along each of `moves` `[k, d]` by amounts that are evenly spread from -RANGE to RANGE; `measure`
    gives the values of latents `[m, *shape]`. What the faces' own differences add to a covariance by chance is left out of it.
    """
    amounts = torch.linspace(-RANGE, RANGE, len(latents), dtype=latents.dtype)
    amounts = amounts[torch.randperm(len(latents), generator=torch.Generator().manual_seed(0))]
    before = scale.apply(measure(latents.reshape(-1, *shape)))
    rows = []
    for move in moves:
        after = scale.apply(measure((latents + amounts[:, None] * move).reshape(-1, *shape)))
        covariance = ((after - before) * amounts[:, None]).mean(0) - (after - before).mean(0) * amounts.mean()
        rows.append(covariance / (amounts.std(correction=0) * after.std(0, correction=0)).clamp(min=1e-9))
    return torch.stack(rows)


def described(
    names: Sequence[str], moves: Tensor, found: Tensor, faces: int, shape: tuple[int, ...]
) -> list[Direction]:
    """The directions with what is known of each: its correlation, its largest leak, and all leaks."""
    directions = []
    for place, name in enumerate(names):
        leaks = {other: round(float(found[place, at]), 4) for at, other in enumerate(names) if at != place}
        worst = max(leaks, key=lambda other: abs(leaks[other])) if leaks else ""
        facts: JSON = {"found": "measures", "faces": faces, "correlation": round(float(found[place, place]), 4)}
        facts |= {"leak": abs(leaks[worst]) if worst else 0.0, "leaks_to": worst, "leaks": leaks}
        directions.append(Direction(name, moves[place].float().reshape(shape), "latent", facts))
    return directions
