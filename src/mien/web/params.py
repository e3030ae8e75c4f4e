"""The parameters of a request: known names, bounded numbers; anything else is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from starlette.datastructures import QueryParams

from mien.core.contracts import JSON
from mien.errors import UsageError
from mien.nn.ode import Solution
from mien.sampling.address import Address, SeedPoint, parse
from mien.sampling.options import DrawOptions

MAX_SIDE = 1024  # pixels a side of one picture
MAX_AMOUNT = 20.0  # standard deviations along a direction
MAX_FRAMES = 480
MAX_STOPS = 32
MAX_SHEET = 100
MAX_STEPS = 500  # of a descent
MAX_SOLVER_STEPS = 64
MIN_TOLERANCE = 1e-5  # tolerance of a solver


@dataclass(frozen=True, kw_only=True)
class FaceParams:
    """How a face is drawn, wherever it is: labels, steps along directions, and the drawing options."""

    labels: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, float] = field(default_factory=dict)
    layers: str = ""  # style stages in which directions act; all where it is empty
    options: DrawOptions = DrawOptions()
    exact: bool = True  # equal to `mien sample`, or within 2/255 of it

    @property
    def metadata(self) -> JSON:
        """What a picture's metadata says of it, beside what its sampler says."""
        found: JSON = {"truncation": self.options.truncation}
        found |= {"labels": dict(self.labels)} if self.labels else {}
        found |= {"directions": dict(self.directions)} if self.directions else {}
        return found | ({"layers": self.layers} if self.layers else {})


class RequestParams:
    """The parameters of a request; `end` refuses those that no route has read."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = list(pairs)
        self.read: set[str] = set()

    @staticmethod
    def query(params: QueryParams) -> RequestParams:
        """Those of a query."""
        return RequestParams(params.multi_items())

    def all(self, name: str, most: int = 1) -> list[str]:
        """Every value of a parameter. Raises UsageError for more than `most`."""
        self.read.add(name)
        found = [value for key, value in self.pairs if key == name]
        if len(found) > most:
            raise wrong(name, f"It is given {len(found)} times.", f"Give it at most {most} times.")
        return found

    def text(self, name: str, default: str) -> str:
        """One value."""
        return next(iter(self.all(name)), default)

    def word(self, name: str, choices: Iterable[str], default: str) -> str:
        """One of a few words."""
        value, known = self.text(name, default), list(choices)
        if value not in known:
            raise wrong(name, f"`{value[:40]}` is not one of its values.", f"Choose from {', '.join(known)}.")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A finite number between two bounds."""
        return number(name, self.text(name, str(default)), low, high)

    def count(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number between two bounds."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,16}", value) or not low <= int(value) <= high:
            raise wrong(name, f"`{value[:40]}` is out of range.", f"Give a whole number from {low} to {high}.")
        return int(value)

    def addresses(self, name: str, most: int) -> list[Address]:
        """Faces."""
        return [parse(value) for value in self.all(name, most)]

    def address(self) -> Address:
        """One face: `at`, or the one of seed 0."""
        return next(iter(self.addresses("at", 1)), Address(SeedPoint(0)))

    def solver(self) -> str | None:
        """How a flow is followed, bounded in what it may cost."""
        word = self.text("solver", "")
        if not word:
            return None
        how = Solution.of(word[:40])
        if how.steps > MAX_SOLVER_STEPS or (how.method == "adaptive" and how.tolerance < MIN_TOLERANCE):
            raise wrong(
                "solver",
                f"`{word[:40]}` takes too long.",
                f"Ask for up to {MAX_SOLVER_STEPS} steps, or a tolerance of {MIN_TOLERANCE:g}.",
            )
        return str(how)

    def amounts(self, name: str, low: float, high: float) -> dict[str, float]:
        """`NAME:NUMBER`, as often as wanted."""
        found = {}
        for value in self.all(name, 256):
            key, _, amount = value.rpartition(":")
            found[key] = number(name, amount, low, high)
        return found

    def face(self) -> FaceParams:
        """How a face is drawn, within the bounds of the explorer."""
        size = self.count("size", 0, 0, MAX_SIDE)
        if size == 1:
            raise wrong("size", "One pixel is no picture.", f"Give 2 to {MAX_SIDE}.")
        options = DrawOptions(
            truncation=self.number("truncation", 1.0, -4.0, 4.0),
            style=self.text("style", "") or None,
            size=size or None,
            solver=self.solver(),
            guidance=self.number("guidance", 1.0, 0.0, 20.0) if self.text("guidance", "") else None,
        )
        return FaceParams(
            labels=self.amounts("label", 0.0, 1.0),
            directions=self.amounts("direction", -MAX_AMOUNT, MAX_AMOUNT),
            layers=self.text("layers", ""),
            options=options,
        )

    def end(self) -> None:
        """Raises UsageError for a parameter that has no meaning here."""
        unknown = sorted({key for key, _ in self.pairs} - self.read)
        if unknown:
            raise UsageError(
                f"There is no parameter `{unknown[0][:40]}`.", "This route does not use it.",
                f"This route takes {', '.join(sorted(self.read))}.",
            )  # fmt: skip


def number(name: str, text: str, low: float, high: float) -> float:
    """A finite number between two bounds."""
    try:
        value = float(text) if len(text) < 40 else float("nan")
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not low <= value <= high:
        raise wrong(name, f"`{text[:40]}` is out of range.", f"Give a number from {low:g} to {high:g}.")
    return value


def wrong(name: str, why: str, remedy: str) -> UsageError:
    """The error for a parameter."""
    return UsageError(f"The parameter `{name}` is invalid.", why, remedy)
