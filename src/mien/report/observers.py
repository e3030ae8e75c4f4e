"""Observers of a run: sample grids, TensorBoard and the report. They never stop or change the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mien.core.contracts import Model, Observer, Progress
from mien.report.best_effort import BestEffort
from mien.report.card import write_card
from mien.report.film import training_film
from mien.report.grid import grid, save_png
from mien.report.page import write_report
from mien.report.pictures import Compressed
from mien.report.plots import plot_run
from mien.report.run_reader import sample_grids
from mien.report.trackers import scalars

SHARE = 0.01  # of the time, at most, goes into refreshing the report


class SampleGrids(Observer):
    """Draws the same seeds whenever a sample period ends, into samples/ under the number of images seen."""

    def __init__(
        self,
        run_dir: Path,
        draw: Callable[[Model], Tensor],
        recipe: Mapping[str, Any],
        columns: int | None = None,
        titles: Sequence[str] | None = None,
    ) -> None:
        """`draw` returns faces `[n, C, H, W]` in [-1, 1] without torch's global random state; `titles` stand under them."""
        self.samples = run_dir / "samples"
        self.draw, self.recipe, self.columns, self.titles = draw, recipe, columns, titles
        self.faces = torch.empty(0)  # the last sample grid, for observers that follow
        self.best_effort = BestEffort(run_dir)

    def begin(self, model: Model) -> None:
        """Draw the grid of a run that has not learned anything."""
        self._write(0, model)

    def after_step(self, progress: Progress, model: Model) -> None:
        if progress.show:
            self._write(progress.seen, model)

    def _write(self, seen: int, model: Model) -> None:
        self.faces = self.draw(model)
        image = grid(self.faces, self.columns, self.titles)
        with self.best_effort("samples"):
            for later, path in sample_grids(self.samples.parent):
                if later > seen:  # of a future that a rollback or a resume took back
                    path.unlink()
            save_png(image, self.samples / f"{seen:010d}.png", {**self.recipe, "seen": seen})


class TensorBoard(Observer):
    """Writes stats and grids as events in tensorboard/, where it is installed. Steps are images seen."""

    def __init__(self, run_dir: Path, purge_step: int = 0) -> None:
        """`purge_step` is where a resumed run starts: later events are removed."""
        self.run_dir, self.start = run_dir, purge_step
        self.best_effort = BestEffort(run_dir)
        self.writer: Any = None
        self.open_writer: Callable[..., Any] | None = None
        with suppress(ImportError):  # here, not in a step: it takes a second
            from torch.utils.tensorboard import SummaryWriter

            self.open_writer = SummaryWriter

    def after_step(self, progress: Progress, model: Model) -> None:
        if self.open_writer is None or not (progress.log or progress.show):
            return
        with self.best_effort("tensorboard"):
            try:
                self._write(progress, self.open_writer)
            except OSError:
                self.close("failed")  # its thread is dead; the next call opens another file
                raise

    def _write(self, progress: Progress, open_writer: Callable[..., Any]) -> None:
        if self.writer is None:
            purge = self.start + 1 if self.start else None
            self.writer = open_writer(str(self.run_dir / "tensorboard"), purge_step=purge, flush_secs=30)
        if progress.log:
            for name, value in scalars(progress).items():
                self.writer.add_scalar(name, value, progress.seen)
        picture = self.run_dir / "samples" / f"{progress.seen:010d}.png"
        if progress.show and picture.exists():
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image("samples", pixels, progress.seen, dataformats="HWC")
        self.start = progress.seen

    def close(self, outcome: str) -> None:
        writer, self.writer = self.writer, None
        if writer is not None:
            with self.best_effort("tensorboard"):
                writer.close()


class Report(Observer):
    """Updates plots/ and report.html; at the end also writes the film of the training and the model card."""

    def __init__(self, run_dir: Path, every_seconds: float = 60, film: str = "auto") -> None:
        """`film` is the suffix of the training's film, or auto."""
        self.run_dir, self.every_seconds, self.film = run_dir, every_seconds, film
        self.best_effort = BestEffort(run_dir)
        self.compressed: Compressed = {}
        self.due = 0.0

    def after_step(self, progress: Progress, model: Model) -> None:
        started = time.monotonic()
        # Never in a step that also draws samples: the trainer spaces those by what such a step costs.
        if started >= self.due and not progress.show:
            self.refresh()
            now = time.monotonic()
            self.due = now + max(self.every_seconds, (now - started) / SHARE)

    def refresh(self, state: str | None = None) -> None:
        """Write plots and page from the current state."""
        with self.best_effort("plots"):
            plot_run(self.run_dir)
        with self.best_effort("report"):
            write_report(self.run_dir, state, self.compressed)

    def close(self, outcome: str) -> None:
        self.refresh(outcome)
        with self.best_effort("model card"):
            write_card(self.run_dir, outcome)
        # A preempted run has no time; the film is made at the end of the resumed run.
        if outcome != "preempted" and sample_grids(self.run_dir):
            with self.best_effort("film"):
                out = None if self.film == "auto" else self.run_dir / f"training.{self.film}"
                training_film(self.run_dir, out)
