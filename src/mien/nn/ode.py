"""Ordinary differential equations, every row of a batch on its own: dx/dt = field(x, t) from one time to another.

Most methods are their Butcher tableaus and take equal steps. The multistep method (Adams and Bashforth's, of second order) looks at
the field but once a step and remembers the look before, at times that lie closer at both ends, where a flow's paths bend. The
adaptive one measures its error by an embedded method of lower order and chooses each row's steps for itself, so that a row never
depends on its neighbours.
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
MOST_STEPS = 10_000
LOOKS = 12  # at a solution whose rows step each for itself
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0  # of step sizes: Hairer, Norsett, Wanner, Solving ODEs I, II.4


@dataclass(frozen=True)
class Tableau:
    """Stage times, stage weights (lower triangular), weights of the result, and of the embedded result if there is one."""

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
    # Bogacki, Shampine 1989: third order, its second-order companion costs nothing more than the next step's first stage.
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
    """How an equation is solved."""

    method: Method = (
        "multistep"  # looks at the field a step: euler, multistep 1; midpoint, heun 2; rk4 4; adaptive as it asks
    )
    steps: int = 12  # of the fixed methods
    tolerance: float = 1e-3  # adaptive: error of a step, absolute and relative

    @staticmethod
    def of(word: str) -> Solution:
        """`heun`, `euler:8` or `adaptive:1e-4`: a method, and its steps or its tolerance. Raises UsageError for anything else."""
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
            f"Known: {', '.join(METHODS)}, then a colon and the steps, or the tolerance of adaptive.",
            "Write --solver multistep:12.",
        )

    def __str__(self) -> str:
        return f"{self.method}:{self.tolerance if self.method == 'adaptive' else self.steps}"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise UsageError(f"{self.steps} steps are not possible.", "They are counted.", f"Give 1 to {MOST_STEPS:,}.")
        if not 1e-9 <= self.tolerance <= 1.0:
            raise UsageError(
                f"A tolerance of {self.tolerance} is not possible.", "It bounds an error.", "Give 1e-9 to 1."
            )


def solve(field: Field, x: Tensor, start: float, end: float, how: Solution) -> Tensor:
    """x at time `end`, from x `[n, ...]` at time `start`, which may be the later."""
    if how.method == "adaptive":
        return solve_adaptively(field, x, start, end, how.tolerance)
    for stage in stages(field, x, start, end, how):
        x = stage
    return x


def stages(field: Field, x: Tensor, start: float, end: float, how: Solution) -> Iterator[Tensor]:
    """x `[n, ...]` at time `start`, then after each step, at time `end` the last; adaptively, at LOOKS equal distances."""
    yield x
    if how.method == "adaptive":
        times = [start + (end - start) * look / LOOKS for look in range(LOOKS + 1)]
        for here, there in pairwise(times):
            x = solve_adaptively(field, x, here, there, how.tolerance)
            yield x
        return
    if how.method == "multistep":
        yield from remembering(field, x, start, end, how.steps)
        return
    tableau = TABLEAUS[how.method]
    h = torch.full((x.shape[0],), (end - start) / how.steps, dtype=x.dtype, device=x.device)
    for step in range(how.steps):
        t = torch.full_like(h, start + (end - start) * step / how.steps)
        x = x + beside(h, x) * weighed(looks(field, x, t, h, tableau), tableau.weights)
        yield x


def remembering(field: Field, x: Tensor, start: float, end: float, steps: int) -> Iterator[Tensor]:
    """x after each step of the multistep method: the field goes on as it went from the look before to this one."""
    shares = [step / steps for step in range(steps + 1)]
    times = [start + (end - start) * 0.5 * (share + 0.5 * (1.0 - cos(pi * share))) for share in shares]
    before, last = x, 0.0  # of no weight in the first step
    for t, after in pairwise(times):
        here, h = field(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device)), after - t
        x = x + h * (here + (h / (2.0 * last)) * (here - before) if last else here)
        before, last = here, h
        yield x


def solve_adaptively(field: Field, x: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    """Each row with steps of its own. Raises UsageError where the field is so wild that steps shrink to nothing."""
    tableau = TABLEAUS["adaptive"]
    span = end - start
    t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
    h = torch.full_like(t, span / 16)
    for _ in range(MOST_STEPS):
        left = end - t
        if bool((left == 0.0).all()):
            return x
        last = left.abs() <= h.abs()
        h = torch.where(last, left, h)
        found = looks(field, x, t.to(x.dtype), h.to(x.dtype), tableau)
        moved = x + beside(h, x) * weighed(found, tableau.weights)
        apart = beside(h, x) * (weighed(found, tableau.weights) - weighed(found, tableau.embedded))
        bound = tolerance * (1.0 + torch.maximum(x.abs(), moved.abs()))
        error = (apart / bound).flatten(1).square().mean(1).sqrt().double()
        good = error <= 1.0
        x = torch.where(beside(good, x), moved, x)
        t = torch.where(good, torch.where(last, torch.full_like(t, end), t + h), t)
        factor = SAFETY * error.clamp(min=1e-10) ** (-1.0 / tableau.order)
        h = h * factor.clamp(SHRINK, GROW)
    raise UsageError(
        f"The equation was not solved in {MOST_STEPS:,} steps.",
        f"A tolerance of {tolerance} asks for more than this field gives.",
        "Give a larger --tolerance, or --method multistep.",
    )


def looks(field: Field, x: Tensor, t: Tensor, h: Tensor, tableau: Tableau) -> list[Tensor]:
    """The field at each stage of one step."""
    found: list[Tensor] = []
    for at, weights in zip(tableau.times, tableau.stages, strict=True):
        there = x + beside(h, x) * weighed(found, weights) if weights else x
        found.append(field(there, t + at * h))
    return found


def weighed(values: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The weighted sum of stages."""
    return sum((w * value for w, value in zip(weights, values, strict=True) if w), start=torch.zeros_like(values[0]))


def beside(rows: Tensor, x: Tensor) -> Tensor:
    """Numbers `[n]` in a shape that multiplies x `[n, ...]` row by row."""
    shaped = rows.reshape(-1, *[1] * (x.ndim - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)
