"""Reads a run directory: complete, still growing, or truncated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from mien.core.contracts import JSON
from mien.errors import DataError
from mien.storage.bounded_json import read_lines
from mien.storage.run_directory import read_json


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of a run directory, except its weights."""

    directory: Path
    run: JSON  # run.json, the resolved run
    environment: JSON  # env.json
    data: JSON  # data.json
    status: JSON  # status.json
    health: tuple[
        JSON, ...
    ]  # verdicts of health.json: name, state (healthy, warning, alarm or pending), evidence, suggestion
    health_history: tuple[JSON, ...]  # lines of health.jsonl: the verdicts over time
    metrics: tuple[JSON, ...]  # lines of metrics.jsonl, increasing in "seen"
    scores: tuple[JSON, ...]  # lines of eval/*.jsonl, increasing in "seen"
    grids: tuple[tuple[int, Path], ...]  # images seen, and the grid drawn then
    reconstructions: tuple[tuple[int, Path], ...] = ()  # the same, of real faces and their reconstructions
    encodings: JSON = field(default_factory=dict)  # encodings.json: seen, and kl of each dimension in nats

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.run.get("name") or self.directory.name)

    @property
    def path(self) -> str:
        """The run as an argument of a command, without the folders of this machine."""
        absolute = self.directory.resolve()
        return f"runs/{absolute.name}" if absolute.parent.name == "runs" else absolute.name

    @property
    def seen(self) -> int:
        """Images seen so far."""
        lines = (self.status.get("seen"), *(line["seen"] for line in self.metrics[-1:]))
        return int(max((float(seen) for seen in lines if is_number(seen)), default=0))

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        lines = (self.status.get("seconds"), *(line.get("seconds") for line in self.metrics[-1:]))
        return max((float(seconds) for seconds in lines if is_number(seconds)), default=0.0)

    @property
    def latest_scores(self) -> tuple[JSON, ...]:
        """The newest score of each name."""
        newest = {score_name(score): score for score in self.scores}
        return tuple(newest[name] for name in sorted(newest))


def read_record(run_dir: Path, state: str | None = None) -> RunRecord:
    """Read `run_dir`; a missing or truncated file counts as empty. Raises DataError where there is no run.

    `state` overrides the state in status.json.
    """
    if not (run_dir / "run.json").is_file():
        raise DataError(
            f"{run_dir} is not a run.",
            "It is not a directory that holds a run.json.",
            "Name a directory that `mien train` made.",
        )
    verdicts = (read_json(run_dir / "health.json") or {}).get("verdicts")
    scores = [
        score
        for path in sorted(run_dir.glob("eval/*.jsonl"))
        for score in read_lines(path)
        if isinstance(score.get("metric"), str) and is_number(score.get("seen", 0))
    ]
    metrics = {line["seen"]: line for line in read_lines(run_dir / "metrics.jsonl") if is_number(line.get("seen"))}
    return RunRecord(
        directory=run_dir,
        run=read_json(run_dir / "run.json") or {},
        environment=read_json(run_dir / "env.json") or {},
        data=read_json(run_dir / "data.json") or {},
        status={**(read_json(run_dir / "status.json") or {}), **({"state": state} if state else {})},
        health=tuple(
            verdict for verdict in (verdicts if isinstance(verdicts, list) else ()) if isinstance(verdict, dict)
        ),
        health_history=tuple(read_health(run_dir / "health.jsonl")),
        metrics=tuple(metrics[seen] for seen in sorted(metrics)),
        scores=tuple(sorted(scores, key=lambda score: float(score.get("seen", 0)))),
        grids=tuple(sample_grids(run_dir)),
        reconstructions=tuple(sample_grids(run_dir, "reconstructions")),
        encodings=read_json(run_dir / "encodings.json") or {},
    )


def read_health(path: Path) -> list[JSON]:
    """The lines of a health.jsonl; invalid or incomplete lines are skipped."""
    names = ("seen", "rollbacks", "loss_size", "spread")
    lines = (line for line in read_lines(path) if all(is_number(line.get(name)) for name in names))
    return [line for line in lines if has_verdicts(line)]


def has_verdicts(line: JSON) -> bool:
    """Whether a line of health.jsonl contains verdicts by name."""
    verdicts = line.get("verdicts")
    return isinstance(verdicts, dict) and all(
        isinstance(known, dict) and isinstance(known.get("state"), str) for known in verdicts.values()
    )


def score_name(score: JSON) -> str:
    """The name of a score, else its metric."""
    return str(score.get("name", score["metric"]))


def sample_grids(run_dir: Path, folder: str = "samples") -> list[tuple[int, Path]]:
    """Images seen and path of each sample grid, in order; links are left out, as they could name any file."""
    return sorted(
        (int(path.stem), path)
        for path in run_dir.glob(f"{folder}/*.png")
        if not (run_dir / folder).is_symlink() and path.stem.isdecimal() and path.is_file() and not path.is_symlink()
    )


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
