"""A score and its protocol, which decides whether two scores are comparable."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, overload

from mien.metrics.confidence import Estimate


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number, its 95% interval, and its protocol. `name` is a short form of the protocol: `fid10k_train`."""

    metric: str
    name: str
    value: float
    low: float
    high: float
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(metric: str, name: str, estimate: Estimate, protocol: Mapping[str, Any]) -> Score:
        """A score from an estimate, whose method joins the protocol."""
        return Score(
            metric=metric,
            name=name,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            protocol={**protocol, "interval": estimate.method},
        )

    def json(self) -> dict[str, Any]:
        """The score as `evaluate --json` and the files under `eval/` hold it."""
        return {
            "metric": self.metric,
            "name": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "protocol": dict(self.protocol),
        }


class Scores(list[Score]):
    """Scores in order, with access by metric or name: `scores["fid"]`, `scores["fid10k_train"]`."""

    @overload
    def __getitem__(self, key: SupportsIndex) -> Score: ...
    @overload
    def __getitem__(self, key: slice) -> list[Score]: ...
    @overload
    def __getitem__(self, key: str) -> Score: ...
    def __getitem__(self, key: SupportsIndex | slice | str) -> Score | list[Score]:
        if not isinstance(key, str):
            return super().__getitem__(key)
        for score in self:
            if key in (score.metric, score.name):
                return score
        raise KeyError(f"no score {key!r}; there are {', '.join(score.metric for score in self)}")

    def _repr_html_(self) -> str:
        """In a notebook: a table of values and 95% intervals."""
        rows = "".join(
            f"<tr><td>{html.escape(s.name)}</td><td>{s.value:.4g}</td><td>{s.low:.4g} to {s.high:.4g}</td></tr>"
            for s in self
        )
        return f"<table><tr><th>score</th><th>value</th><th>95% interval</th></tr>{rows}</table>"


def in_thousands(count: int) -> str:
    """10000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


# What makes two scores of one metric incomparable when it differs; the rest of a protocol may.
PROTOCOL = (
    "extractor",
    "extractor_sha256",
    "resizer",
    "precision",
    "reference",
    "samples",
    "compression",
    "legacy",
    "neighbours",
    "estimator",
    "baseline",
    "of",
)


def comparable(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a protocol that two scores must share to be in one column."""
    return {part: protocol[part] for part in PROTOCOL if part in protocol}


def disagreements(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The parts of two protocols that differ and make their scores incomparable."""
    return [part for part in PROTOCOL if a.get(part) != b.get(part)]
