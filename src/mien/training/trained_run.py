"""A run for Python: its directory, model, scores and report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mien.core.run import Device
from mien.metrics.scores import Score, Scores
from mien.sampling.sampler import Sampler
from mien.storage.bounded_json import read_lines
from mien.storage.run_directory import RunDirectory


@dataclass(frozen=True)
class TrainedRun(os.PathLike[str]):
    """The directory of a run, which stands wherever a path does: `mien.load(run)`, `open(run / "report.html")`."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # TrainedRun("runs/mine")

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def sampler(self, *, device: Device = "auto") -> Sampler:
        """The newest model. Raises DataError before the first checkpoint."""
        return Sampler.load(self.path, device=device)

    @property
    def scores(self) -> Scores:
        """The last score of each metric that was evaluated during the training, in order; none without `evaluate_every`."""
        found: dict[str, Score] = {}
        shape = {"metric": str, "name": str, "value": float, "low": float, "high": float, "protocol": dict}
        for line in read_lines(RunDirectory(self.path).evaluations, **shape):
            found[line["name"]] = Score(**{part: line[part] for part in shape})
        return Scores(found.values())

    @property
    def report(self) -> Path:
        """The report: one HTML file."""
        return self.path / "report.html"

    def _repr_html_(self) -> str:
        """In a notebook: where the run is, and its scores."""
        return f"<p><code>{self.path.name}</code></p>{self.scores._repr_html_()}"
