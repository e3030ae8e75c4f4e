"""The two observers of every run: the progress line and metrics.jsonl."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mien.core.contracts import Model, Observer, Progress
from mien.storage.bounded_json import dumps
from mien.storage.regular_file import append_text
from mien.storage.run_directory import RunDirectory


class MetricsLog(Observer):
    """Appends a line to metrics.jsonl at the end of every log period; each number of images occurs once."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.warned = False

    def after_step(self, progress: Progress, model: Model) -> None:
        if not progress.log:
            return
        line = {
            "seen": progress.seen,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(progress.images_per_second, 2),
            "waiting": round(progress.waiting, 4),
            **{name: float(f"{value:.6g}") for name, value in {**progress.stats, **progress.scores}.items()},
        }
        try:
            append_text(self.directory.metrics, dumps(line) + "\n")
            self.directory.update_status(seen=progress.seen, seconds=round(progress.seconds, 3))
        except OSError as error:  # a log never stops training
            if not self.warned:
                print(f"mien: metrics.jsonl cannot be written: {error}", file=sys.stderr)
            self.warned = True


class ProgressLine(Observer):
    """Images of total, images/s, ETA, losses, last checkpoint: one line rewritten on a terminal, else one every ten seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.last = 0.0
        self.saved = "no checkpoint yet"
        self.bar: Any = None  # tqdm's, in a notebook

    def after_step(self, progress: Progress, model: Model) -> None:
        if "ipykernel" in sys.modules:
            self.show_bar(progress)
            return
        now = time.monotonic()
        done = progress.seen >= progress.goal
        if now - self.last < (0.2 if self.live else 10.0) and not done:
            return
        self.last = now
        line = self.text(progress)
        if self.live:
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show_bar(self, progress: Progress) -> None:
        """A bar: a widget where ipywidgets is installed, else text that is rewritten in place."""
        if self.bar is None:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=progress.goal, initial=progress.seen, unit=" images", unit_scale=True)
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in list(progress.stats.items())[:4]}, refresh=False)
        self.bar.update(progress.seen - self.bar.n)

    def say(self, words: str) -> None:
        """Print a separate line above the progress line."""
        print(f"\r\x1b[2K{words}" if self.live else words, file=sys.stderr, flush=True)

    def text(self, progress: Progress) -> str:
        """The text of the progress line."""
        left = max(0, progress.goal - progress.seen) / progress.images_per_second if progress.images_per_second else 0.0
        losses = "  ".join(f"{name} {value:.3g}" for name, value in list(progress.stats.items())[:4])
        return (
            f"{progress.seen:,} of {progress.goal:,} images  {progress.images_per_second:.0f}/s  {clock(left)} left"
            f"  {losses}  {self.saved}"
        )

    def after_commit(self, progress: Progress, checkpoint: Path) -> None:
        self.saved = f"saved at {progress.seen:,}"

    def close(self, outcome: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        elif self.live:
            print(file=sys.stderr)


def clock(seconds: float) -> str:
    """`3:07` or `2:03:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
