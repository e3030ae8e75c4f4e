"""Time and memory of a run, measured on a few real steps of its recipe, for `mien train --dry-run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mien.core.contracts import JSON, Batch
from mien.errors import UsageError
from mien.training.train_state import NonFinite, TrainState

BUDGET = 8.0  # seconds of measured steps, about
MAX_STEPS = 64
MAX_STEP_SECONDS = 20.0  # if a step of the full batch would take longer, a smaller batch is measured
SMALL_BATCH = 4  # images of the first step, from which the time of a full one is predicted
CYCLE = 4  # steps at least, so that lazy regularisation every fourth step is counted in proportion


@dataclass(frozen=True)
class Estimate:
    """The result. `batch` is smaller than the run's if a full step would take too long."""

    images_per_second: float
    steps: int  # measured
    batch: int  # images of each measured step
    memory: int  # bytes, peak: of the process on a CPU, of the allocator on a GPU
    grown: int  # bytes of it used by networks, optimizers and steps
    checkpoint: int  # bytes on disk
    share: float  # of the CPU time that this process got; below 1, other work slowed it down

    def seconds(self, images: int) -> float:
        """Seconds of training for this number of images."""
        return images / self.images_per_second

    @property
    def json(self) -> JSON:
        """As JSON, rounded."""
        return asdict(self) | {
            "images_per_second": round(self.images_per_second, 1 if self.images_per_second > 10 else 3),
            "share": round(self.share, 2),
        }


def measure(
    build: Callable[[], TrainState], batches: Callable[[int], Iterator[Batch]], batch: int, budget: float = BUDGET
) -> Estimate:
    """Run steps on a new TrainState and discard it. `batches(n)` is an endless iterator of batches of `n` images.

    Raises UsageError if a loss or gradient of the first steps is NaN or infinite.
    """
    try:
        return _measure(build, batches, batch, budget)
    except NonFinite as error:
        raise UsageError(
            "This run diverges in its first steps.",
            "A loss or a gradient is NaN or infinite with these settings.",
            "Lower --recipe.lr, or use the preset's values.",
        ) from error


def _measure(
    build: Callable[[], TrainState], batches: Callable[[int], Iterator[Batch]], batch: int, budget: float
) -> Estimate:
    """`measure` without the translation of errors."""
    before = resident(forget_peak=True)
    state = build()
    device = state.context.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    source = batches(min(SMALL_BATCH, batch))
    state.step(source)  # the first step of a process compiles kernels and allocates
    small = timed(state, source, 1)
    full = small.wall * batch / min(SMALL_BATCH, batch) <= MAX_STEP_SECONDS
    if full and batch > SMALL_BATCH:
        source = batches(batch)
        state.step(source)
        small = timed(state, source, 1)
    steps = max(1, min(round(budget / max(small.wall, 1e-6)), MAX_STEPS))
    steps = max(CYCLE, steps - steps % CYCLE) if small.wall * CYCLE <= 2 * budget else steps
    taken = timed(state, source, steps)
    snapshot = state.snapshot({})
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident(peak=True)
    return Estimate(
        images_per_second=taken.images / taken.wall,
        steps=steps,
        batch=batch if full else min(SMALL_BATCH, batch),
        memory=peak,
        grown=peak if device.type == "cuda" else max(0, peak - before),
        checkpoint=len(snapshot.model) + len(snapshot.state),
        share=min(1.0, taken.computing / taken.wall / torch.get_num_threads()) if device.type == "cpu" else 1.0,
    )


@dataclass(frozen=True)
class Timing:
    """The cost of some steps."""

    wall: float  # seconds by the clock
    computing: float  # seconds of CPU time, all threads
    images: int


def timed(state: TrainState, source: Iterator[Batch], steps: int) -> Timing:
    """Time some steps; a GPU is synchronised."""
    seen, wall, computing = state.seen, time.perf_counter(), time.process_time()
    for _ in range(steps):
        state.step(source)
    if state.context.device.type == "cuda":
        torch.cuda.synchronize(state.context.device)
    return Timing(time.perf_counter() - wall, time.process_time() - computing, state.seen - seen)


def resident(peak: bool = False, forget_peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its peak since `forget_peak`; 0 on other systems than Linux."""
    try:
        if forget_peak:
            Path("/proc/self/clear_refs").write_text("5")
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return 0
