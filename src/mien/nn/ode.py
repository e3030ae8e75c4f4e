"""ODE solvers for a batch: dx/dt = field(x, t), from one time to another.

The Runge-Kutta methods are Butcher tableaus with equal steps. `multistep` is two-step Adams-Bashforth: second order with one
function evaluation a step, on a time grid that is denser at both ends, where the paths of a flow bend. `adaptive` estimates its
error with an embedded method of lower order and chooses the step size of each row separately, so that no row depends on the
others in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import Literal, get_args

import torch
from torch import Tensor

from mien.errors import UsageError

Field = Callable[[Tensor, Tensor], Tensor]  # x [n, ...] and t [n] -> dx/dt [n, ...]
Method = Literal["euler", "midpoint", "heun", "rk4", "multistep", "adaptive"]
METHODS: tuple[Method, ...] = get_args(Method)
MAX_STEPS = 10_000
SNAPSHOTS = 12  # of the adaptive method, whose rows take different steps
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0  # of step sizes: Hairer, Norsett, Wanner, Solving ODEs I, II.4


@dataclass(frozen=True)
class Tableau:
    """A Butcher tableau: stage times, stage weights (lower triangular), weights of the result and of the embedded result."""

    times: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    embedded: tuple[float, ...] = ()
    order: int = 1


TABLEAUS: dict[Method, Tableau] = {
    "euler": Tableau((0.0,), ((),), (1.0,)),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), order=2),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), order=2),
    "rk4": Tableau(
        (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4
    ),
    # Bogacki and Shampine 1989: third order. The embedded second-order result reuses the first stage of the next step.
    "adaptive": Tableau(
        (0.0, 0.5, 0.75, 1.0),
        ((), (0.5,), (0.0, 0.75), (2 / 9, 1 / 3, 4 / 9)),
        (2 / 9, 1 / 3, 4 / 9, 0.0),
        (7 / 24, 1 / 4, 1 / 3, 1 / 8),
        order=3,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The solver and its accuracy."""

    method: Method = (
        "multistep"  # function evaluations a step: euler, multistep 1; midpoint, heun 2; rk4 4; adaptive: as needed
    )
    steps: int = 12  # of the fixed methods
    tolerance: float = 1e-3  # adaptive: maximum error of a step, absolute and relative

    @staticmethod
    def of(word: str) -> Solution:
        """Parse `heun`, `euler:8` or `adaptive:1e-4`: a method and its steps or tolerance. Raises UsageError."""
        name, _, number = word.partition(":")
        method = next((method for method in METHODS if method == name), None)
        try:
            if method == "adaptive":
                return Solution(method=method, tolerance=float(number or Solution.tolerance))
            if method is not None:
                return Solution(method=method, steps=int(number or Solution.steps))
        except ValueError:
            pass
        raise UsageError(
            f"`{word}` is not a solver.",
            f"Allowed: {', '.join(METHODS)}, followed by a colon and the steps (adaptive: the tolerance).",
            "Use for example --solver multistep:12.",
        )

    def __str__(self) -> str:
        return f"{self.method}:{self.tolerance if self.method == 'adaptive' else self.steps}"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise UsageError(
                f"The number of solver steps must be from 1 to {MAX_STEPS:,}.",
                f"It is {self.steps}.",
                "Use for example --solver multistep:12.",
            )
        if not 1e-9 <= self.tolerance <= 1.0:
            raise UsageError(
                f"The tolerance must be from 1e-9 to 1, not {self.tolerance}.",
                "It is the error of a step.",
                "Use 1e-3.",
            )


def solve(field: Field, x: Tensor, start: float, end: float, how: Solution) -> Tensor:
    """x at time `end`, from x `[n, ...]` at time `start`; `end` may be before `start`."""
    if how.method == "adaptive":
        return solve_adaptively(field, x, start, end, how.tolerance)
    for stage in stages(field, x, start, end, how):
        x = stage
    return x


def stages(field: Field, x: Tensor, start: float, end: float, how: Solution) -> Iterator[Tensor]:
    """x `[n, ...]` at time `start`, then after each step up to `end`; for `adaptive`, at SNAPSHOTS equal distances."""
    yield x
    if how.method == "adaptive":
        times = [start + (end - start) * index / SNAPSHOTS for index in range(SNAPSHOTS + 1)]
        for here, there in pairwise(times):
            x = solve_adaptively(field, x, here, there, how.tolerance)
            yield x
        return
    if how.method == "multistep":
        yield from multistep(field, x, start, end, how.steps)
        return
    tableau = TABLEAUS[how.method]
    h = torch.full((x.shape[0],), (end - start) / how.steps, dtype=x.dtype, device=x.device)
    for step in range(how.steps):
        t = torch.full_like(h, start + (end - start) * step / how.steps)
        x = x + per_row(h, x) * weighted_sum(evaluate_stages(field, x, t, h, tableau), tableau.weights)
        yield x


def multistep(field: Field, x: Tensor, start: float, end: float, steps: int) -> Iterator[Tensor]:
    """x after each step of two-step Adams-Bashforth, which extrapolates the field linearly from its last two values."""
    shares = [step / steps for step in range(steps + 1)]
    times = [start + (end - start) * 0.5 * (share + 0.5 * (1.0 - cos(pi * share))) for share in shares]
    before, last = x, 0.0  # not used in the first step
    for t, after in pairwise(times):
        here, h = field(x, torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)), after - t
        x = x + h * (here + (h / (2.0 * last)) * (here - before) if last else here)
        before, last = here, h
        yield x


def solve_adaptively(field: Field, x: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    """Each row with its own step sizes. Raises UsageError if MAX_STEPS do not reach the end."""
    tableau = TABLEAUS["adaptive"]
    span = end - start
    t = torch.full((x.shape[0],), start, dtype=torch.float64, device=x.device)
    h = torch.full_like(t, span / 16)
    for _ in range(MAX_STEPS):
        left = end - t
        if bool((left == 0.0).all()):
            return x
        last = left.abs() <= h.abs()
        h = torch.where(last, left, h)
        found = evaluate_stages(field, x, t.to(x.dtype), h.to(x.dtype), tableau)
        moved = x + per_row(h, x) * weighted_sum(found, tableau.weights)
        apart = per_row(h, x) * (weighted_sum(found, tableau.weights) - weighted_sum(found, tableau.embedded))
        bound = tolerance * (1.0 + torch.maximum(x.abs(), moved.abs()))
        error = (apart / bound).flatten(1).square().mean(1).sqrt().double()
        good = error <= 1.0
        x = torch.where(per_row(good, x), moved, x)
        t = torch.where(good, torch.where(last, torch.full_like(t, end), t + h), t)
        factor = SAFETY * error.clamp(min=1e-10) ** (-1.0 / tableau.order)
        h = h * factor.clamp(SHRINK, GROW)
    raise UsageError(
        f"The equation was not solved in {MAX_STEPS:,} steps.",
        f"The tolerance of {tolerance} is too small for this model.",
        "Use a larger tolerance, such as --solver adaptive:1e-2, or --solver multistep:12.",
    )


def evaluate_stages(field: Field, x: Tensor, t: Tensor, h: Tensor, tableau: Tableau) -> list[Tensor]:
    """The field at each stage of one Runge-Kutta step."""
    found: list[Tensor] = []
    for at, weights in zip(tableau.times, tableau.stages, strict=True):
        there = x + per_row(h, x) * weighted_sum(found, weights) if weights else x
        found.append(field(there, t + at * h))
    return found


def weighted_sum(values: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The weighted sum of the stages."""
    return sum((w * value for w, value in zip(weights, values, strict=True) if w), start=torch.zeros_like(values[0]))


def per_row(rows: Tensor, x: Tensor) -> Tensor:
    """Numbers `[n]`, reshaped to multiply x `[n, ...]` row by row."""
    shaped = rows.reshape(-1, *[1] * (x.ndim - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)
