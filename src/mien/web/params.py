"""What a request asks for, read once at the border: known names, bounded numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from starlette.datastructures import QueryParams

from mien.core.contracts import JSON
from mien.errors import UsageError
from mien.nn.ode import Solution
from mien.sampling.address import Address, Place, parse
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.sampling.styles import Style

LARGEST = 1024  # pixels a side of one picture
STRONGEST = 20.0  # standard deviations along a direction
MOST_FRAMES = 480
MOST_STOPS = 32
MOST_SHEET = 100
MOST_STEPS = 500  # of a descent
MOST_SOLVER_STEPS = 64
FINEST = 1e-5  # tolerance of a solver


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a sampler is set while it draws; faces of one manner are drawn together."""

    truncation: float = 1.0
    style: Style | None = None
    size: int | None = None
    solver: str | None = None  # of a flow; None = the model's own
    guidance: float | None = None

    def of(self, sampler: Sampler) -> Sampler:
        """A sampler that draws so. Raises UsageError for a model that cannot."""
        style = str(self.style) if self.style else None
        options = DrawOptions(
            truncation=self.truncation, style=style, solver=self.solver, guidance=self.guidance, size=self.size
        )
        return sampler.with_options(options)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a face is looked at, wherever it is."""

    labels: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, float] = field(default_factory=dict)
    manner: Manner = Manner()

    @property
    def recipe(self) -> JSON:
        """What a picture's recipe says of it, beside what its sampler says."""
        told: JSON = {"truncation": self.manner.truncation}
        told |= {"labels": dict(self.labels)} if self.labels else {}
        return told | ({"directions": dict(self.directions)} if self.directions else {})


class Given:
    """The parameters of a request; what nobody reads is refused in `end`."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = list(pairs)
        self.read: set[str] = set()

    @staticmethod
    def query(params: QueryParams) -> Given:
        """Those of a query."""
        return Given(params.multi_items())

    def all(self, name: str, most: int = 1) -> list[str]:
        """Every value of a parameter. Raises UsageError for more than `most`."""
        self.read.add(name)
        found = [value for key, value in self.pairs if key == name]
        if len(found) > most:
            raise wrong(name, f"It stands there {len(found)} times.", f"Give it at most {most} times.")
        return found

    def text(self, name: str, default: str) -> str:
        """One value."""
        return next(iter(self.all(name)), default)

    def word(self, name: str, choices: Iterable[str], default: str) -> str:
        """One of a few words."""
        value, known = self.text(name, default), list(choices)
        if value not in known:
            raise wrong(name, f"`{value[:40]}` is none of its values.", f"Choose from {', '.join(known)}.")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A finite number between two bounds."""
        return number(name, self.text(name, str(default)), low, high)

    def count(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number between two bounds."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,16}", value) or not low <= int(value) <= high:
            raise wrong(name, f"`{value[:40]}` is not possible.", f"Give a whole number from {low} to {high}.")
        return int(value)

    def addresses(self, name: str, most: int) -> list[Address]:
        """Faces."""
        return [parse(value) for value in self.all(name, most)]

    def address(self) -> Address:
        """One face: `at`, or the one of seed 0."""
        return next(iter(self.addresses("at", 1)), Address(Place(0)))

    def solver(self) -> str | None:
        """How a flow is followed, bounded in what it may cost."""
        word = self.text("solver", "")
        if not word:
            return None
        how = Solution.of(word[:40])
        if how.steps > MOST_SOLVER_STEPS or (how.method == "adaptive" and how.tolerance < FINEST):
            raise wrong(
                "solver",
                f"`{word[:40]}` takes too long.",
                f"Ask for up to {MOST_SOLVER_STEPS} steps, or a tolerance of {FINEST:g}.",
            )
        return str(how)

    def amounts(self, name: str, low: float, high: float) -> dict[str, float]:
        """`NAME:NUMBER`, as often as wanted."""
        found = {}
        for value in self.all(name, 256):
            key, _, amount = value.rpartition(":")
            found[key] = number(name, amount, low, high)
        return found

    def look(self) -> Look:
        """How a face is looked at."""
        size = self.count("size", 0, 0, LARGEST)
        if size == 1:
            raise wrong("size", "One pixel is no picture.", f"Give 2 to {LARGEST}.")
        manner = Manner(
            truncation=self.number("truncation", 1.0, -4.0, 4.0),
            style=Style.of(self.text("style", "") or None),
            size=size or None,
            solver=self.solver(),
            guidance=self.number("guidance", 1.0, 0.0, 20.0) if self.text("guidance", "") else None,
        )
        return Look(
            labels=self.amounts("label", 0.0, 1.0),
            directions=self.amounts("direction", -STRONGEST, STRONGEST),
            manner=manner,
        )

    def end(self) -> None:
        """Raises UsageError for a parameter that has no meaning here."""
        unknown = sorted({key for key, _ in self.pairs} - self.read)
        if unknown:
            raise UsageError(
                f"There is no parameter `{unknown[0][:40]}`.", "Nothing would come of it.",
                f"Known here: {', '.join(sorted(self.read))}.",
            )  # fmt: skip


def number(name: str, text: str, low: float, high: float) -> float:
    """A finite number between two bounds."""
    try:
        value = float(text) if len(text) < 40 else float("nan")
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not low <= value <= high:
        raise wrong(name, f"`{text[:40]}` is not possible.", f"Give a number from {low:g} to {high:g}.")
    return value


def wrong(name: str, why: str, remedy: str) -> UsageError:
    """The error for a parameter."""
    return UsageError(f"The parameter `{name}` does not fit.", why, remedy)
