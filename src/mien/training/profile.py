"""How long a run will take and how much memory it needs, measured on a few real steps of its own recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mien.core.contracts import JSON, Batch
from mien.errors import UsageError
from mien.training.train_state import NonFinite, TrainState

MEASURED = 8.0  # seconds of steps, about
MOST = 64  # steps
PATIENCE = 20.0  # seconds that one step of the full batch may take to be tried at all
SMALL = 4  # images of the first step, which says whether a full one can be waited for
CYCLE = 4  # steps at least, so that what is done every fourth step counts as often as it should


@dataclass(frozen=True)
class Estimate:
    """What a few steps said. `batch` is smaller than the run's where a full one could not be waited for."""

    images_per_second: float
    steps: int  # that were measured
    batch: int  # images in each pull of them
    memory: int  # bytes: peak of the process on a CPU, of the allocator on a GPU, networks and batch included
    grown: int  # bytes of it that the networks, optimizers and steps took
    checkpoint: int  # bytes on the disk
    share: float  # of the processor's time that was ours: under 1, others were at work, and alone it would be faster

    def seconds(self, images: int) -> float:
        """Of training, for so many images."""
        return images / self.images_per_second

    @property
    def told(self) -> JSON:
        """As JSON, rounded to what was measured."""
        told = asdict(self)
        return told | {
            "images_per_second": round(self.images_per_second, 1 if self.images_per_second > 10 else 3),
            "share": round(self.share, 2),
        }


def measure(
    build: Callable[[], TrainState], batches: Callable[[int], Iterator[Batch]], batch: int, budget: float = MEASURED
) -> Estimate:
    """Steps of a fresh learner, which is thrown away. `batches(n)` gives an endless source of `n` images a pull.

    Raises UsageError where the first steps are not finite already.
    """
    try:
        return tried(build, batches, batch, budget)
    except NonFinite as error:
        raise UsageError(
            "This run diverges in its first steps.",
            "A loss or a gradient is not finite with these knobs.",
            "Lower --recipe.lr, or go back to the preset's values.",
        ) from error


def tried(
    build: Callable[[], TrainState], batches: Callable[[int], Iterator[Batch]], batch: int, budget: float
) -> Estimate:
    """`measure`, with whatever a step raises."""
    before = resident(forget_peak=True)
    learner = build()
    device = learner.engine.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    source = batches(min(SMALL, batch))
    learner.step(source)  # the first step of a process compiles and allocates
    small = timed(learner, source, 1)
    full = small.wall * batch / min(SMALL, batch) <= PATIENCE
    if full and batch > SMALL:
        source = batches(batch)
        learner.step(source)
        small = timed(learner, source, 1)
    steps = max(1, min(round(budget / max(small.wall, 1e-6)), MOST))
    steps = max(CYCLE, steps - steps % CYCLE) if small.wall * CYCLE <= 2 * budget else steps
    taken = timed(learner, source, steps)
    snapshot = learner.snapshot({})
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident(peak=True)
    return Estimate(
        images_per_second=taken.images / taken.wall,
        steps=steps,
        batch=batch if full else min(SMALL, batch),
        memory=peak,
        grown=peak if device.type == "cuda" else max(0, peak - before),
        checkpoint=len(snapshot.model) + len(snapshot.state),
        share=min(1.0, taken.computing / taken.wall / torch.get_num_threads()) if device.type == "cpu" else 1.0,
    )


@dataclass(frozen=True)
class Taken:
    """What some steps took."""

    wall: float  # seconds
    computing: float  # seconds of processors
    images: int


def timed(learner: TrainState, source: Iterator[Batch], steps: int) -> Taken:
    """Steps, by the clock; a GPU is waited for."""
    seen, wall, computing = learner.seen, time.perf_counter(), time.process_time()
    for _ in range(steps):
        learner.step(source)
    if learner.engine.device.type == "cuda":
        torch.cuda.synchronize(learner.engine.device)
    return Taken(time.perf_counter() - wall, time.process_time() - computing, learner.seen - seen)


def resident(peak: bool = False, forget_peak: bool = False) -> int:
    """Bytes of memory that this process holds, or has held at most since the peak was forgotten; 0 off Linux."""
    try:
        if forget_peak:
            Path("/proc/self/clear_refs").write_text("5")
        told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(told["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return 0
