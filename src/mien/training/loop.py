"""The training loop: applies the updates that a recipe yields, logs, evaluates, saves, and rolls back from NaN."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mien.core import distributed
from mien.core.contracts import JSON, Batch, Evaluator, Observer, Progress
from mien.core.run import CONVERGENCE, Run
from mien.errors import DeviceError, Diverged, Interrupted, Preempted, StorageError
from mien.storage import checkpoint
from mien.storage.control import PAUSE, SAVE, STEPS, STOP, Control
from mien.storage.run_directory import RunDirectory
from mien.training.period import Period
from mien.training.signals import StopFlag, handled
from mien.training.train_state import NonFinite, TrainState, evaluating

MAX_ROLLBACKS = 3  # from one checkpoint, before the run ends as diverged
RECENT = 100  # steps over which BEGAN's M is averaged to rank a checkpoint: sicongzhao's show_every


class BatchSource(Iterator[Batch], Protocol):
    """An endless iterator over this rank's batches that measures how long the loop waited for it."""

    waited: float  # seconds, in all

    def close(self) -> None:
        """End the threads that read ahead."""
        ...


def train(
    run: Run,
    directory: RunDirectory,
    state: TrainState,
    open_batches: Callable[[int], BatchSource],
    observers: Sequence[Observer],
    header: JSON,
    resume_from: Path | None = None,
    evaluator: Evaluator | None = None,
) -> None:
    """Train until the goal. Raises Preempted, Interrupted, Diverged, StorageError or DeviceError; the state is saved first.

    `open_batches(position)` gives this rank's batches from a position on, in images. `state` is freshly initialised;
    `resume_from` is the checkpoint to continue from. The `evaluator` computes scores and may end the run early.
    """
    outcome, flag = "failed", StopFlag()
    with handled(flag.receive):  # until the observers have closed: a signal must not cut their last pictures
        try:
            _Loop(run, directory, state, open_batches, observers, header, resume_from, evaluator).go(flag)
            outcome = "done"
        except (Preempted, Interrupted, Diverged) as error:
            outcome = type(error).__name__.lower()
            raise
        except RuntimeError as error:
            texts = ("not enough memory", "can't allocate memory")  # of the CPU's allocator
            if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts):
                raise out_of_memory(run, error) from error
            raise
        finally:
            close(observers, directory, outcome)


def close(observers: Sequence[Observer], directory: RunDirectory, outcome: str) -> None:
    """Close all observers: a fault of one must not keep the others from closing."""
    for observer in observers:
        try:
            observer.close(outcome)
        except Exception as error:
            print(f"mien: {type(observer).__name__} did not close: {error}", file=sys.stderr)
            directory.log(f"{type(observer).__name__} did not close: {type(error).__name__}: {error}")


def out_of_memory(run: Run, error: Exception) -> DeviceError:
    """The error for a device with too little memory."""
    return DeviceError(
        f"Out of memory with batch {run.batch} at {run.side} px.",
        str(error).splitlines()[0],
        f"Try --batch {max(1, run.batch // 2)}. It starts a new run, because the batch size changes the training.",
    )


class _Loop:
    """The loop of one process: its periods, rollbacks and reports."""

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        state: TrainState,
        open_batches: Callable[[int], BatchSource],
        observers: Sequence[Observer],
        header: JSON,
        resume_from: Path | None,
        evaluator: Evaluator | None,
    ) -> None:
        self.run, self.directory, self.state, self.header = run, directory, state, header
        self.open_batches, self.observers, self.evaluator = open_batches, observers, evaluator
        fresh = {name: tensor.clone() for name, tensor in state.tensors().items()} if resume_from is None else {}
        self.initial = (fresh, state.counters())
        self.last: Path | None = resume_from  # the newest checkpoint
        self.has_run_json = directory.run_json is not None
        self.rollbacks = 0  # since the last checkpoint
        self.failed_saves = 0
        self.seconds = 0.0 if resume_from is None else float(directory.status["seconds"])
        self.saving = Period(run.save_every, least=30.0)
        self.sampling = Period(run.sample_every, least=2.0, growth=0.02, warmup=1)
        self.logging = Period(run.log_every, least=1.0, growth=0.001)
        for period in (self.saving, self.sampling, self.logging):
            period.last_time = self.seconds
        self.recent: deque[float] = deque(maxlen=RECENT)  # of BEGAN's M, where checkpoints are ranked by it
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.evaluated = 0  # images seen at the last evaluation
        self.scores: dict[str, float] = {}  # of an evaluation after this step
        self.early_stop = ""  # why the evaluator ends the run before its goal
        self.rate_mark = (0.0, 0)  # seconds and seen at the last log line
        self.waited_mark = 0.0
        self.control = Control(directory) if state.world.first else None
        self.by_hand = ""  # who moves in the next step, where it is one by hand, between two pauses

    def go(self, flag: StopFlag) -> None:
        if self.last is not None:
            self.state.restore(*checkpoint.read_state(self.last))
        if self.evaluator is not None:
            self.evaluated, self.early_stop = distributed.broadcast(
                (self.evaluator.last_seen, self.evaluator.stop_reason())
            )
        self.rate_mark = (self.seconds, self.state.seen)
        batches = self.open_batches(self.state.seen)
        if self.state.world.first:
            self.directory.update_status(players=self.state.players)
        try:
            while not self.finished():
                before, started = self.state.seen, time.perf_counter()
                self.scores = {}
                try:
                    stats = self.state.step(batches, 0.5**self.rollbacks, self.by_hand or "all")
                    self.seconds += time.perf_counter() - started
                    self.accumulate(stats)
                    request = max(self.request(flag), PAUSE if self.by_hand else 0)
                    if self.evaluator is not None and request < STOP and self.evaluate(self.evaluator, flag):
                        request = max(request, self.request(flag))
                    stop = request if request >= STOP else 0
                    last = bool(stop) or self.finished()
                    self.observe(before, batches, last or request == PAUSE)
                    if self.due(self.saving, before) or last or request in (SAVE, PAUSE) or self.scores:
                        self.save(last)
                    if request == PAUSE:
                        stop = self.pause(flag)
                except NonFinite:
                    batches.close()
                    self.roll_back()
                    batches = self.open_batches(self.state.seen)
                    continue
                if stop:
                    raise self.stopped(stop)
        finally:
            batches.close()
        if self.last is None or int(self.last.name) < self.state.seen:
            self.save(last=True)
        if self.early_stop and self.state.world.first:
            line = f"stopped early at {self.state.seen:,} images: {self.early_stop}"
            print(f"mien: {line}; to continue, repeat the command with a larger --patience, or 0", file=sys.stderr)
            self.directory.log(line)
            self.directory.update_status(reason=line)

    def request(self, flag: StopFlag) -> int:
        """The request of a signal or of the control file to any rank, equal on all ranks; 0 for none."""
        return int(distributed.maximum(float(max(flag.code, self.control.code() if self.control else 0))))

    def pause(self, flag: StopFlag) -> int:
        """Wait until the control file says resume, step or stop; returns the code of a stop. The time does not count."""
        if self.control is not None:
            self.directory.update_status(state="paused")
            self.directory.log(f"paused at {self.state.seen} images")
            request = self.control.wait(lambda: bool(flag.code), self.state.players)
            flag.code = STOP if request == "stop" else flag.code
            self.by_hand = STEPS.get(request, "")
            if self.by_hand:
                alone = "" if self.by_hand == "all" else f", of the {self.by_hand} alone: no command repeats this run"
                self.directory.log(f"one step by hand{alone}")
            self.directory.update_status(state="running")
        self.by_hand, stop = distributed.broadcast((self.by_hand, flag.code))
        return int(stop)

    def finished(self) -> bool:
        """Whether the goal is reached or the evaluator stopped the run. With --minutes the clock of rank 0 decides."""
        if self.early_stop:
            return True
        if self.run.minutes is None:
            return self.state.seen >= self.run.images
        return bool(distributed.broadcast(self.seconds >= self.run.minutes * 60.0))

    def due(self, period: Period, before: int) -> bool:
        """Whether a period is due, equal on all ranks."""
        here = period.due(before, self.state.seen, self.seconds)
        return here if period.every else bool(distributed.broadcast(here))

    def accumulate(self, stats: Mapping[str, Tensor]) -> None:
        """Add the stats of a step to the sums since the last log line, on the device."""
        for name, value in stats.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == CONVERGENCE == self.run.keep_best:
                self.recent.append(float(value))

    def evaluate(self, evaluator: Evaluator, flag: StopFlag) -> bool:
        """Compute scores if an evaluation period ended with this step, or the run did. Returns whether it computed them."""
        seen = self.state.seen
        period_ended = seen // self.run.evaluate_every > self.evaluated // self.run.evaluate_every
        if not (period_ended or self.finished()):
            return False
        with evaluating(self.state.inference_model) as model:
            scores = dict(evaluator.scores(seen, model, lambda: bool(flag.code)))
        self.evaluated = seen
        self.scores, self.early_stop = distributed.broadcast((scores, evaluator.stop_reason()))
        return True

    def observe(self, before: int, batches: BatchSource, last: bool) -> None:
        """Notify the observers, if a period is due."""
        log, show = self.due(self.logging, before) or bool(self.scores), self.due(self.sampling, before)
        if not (log or show or last):
            return
        started = time.perf_counter()
        stats = {name: float(distributed.mean(total)) / self.counts[name] for name, total in self.sums.items()}
        elapsed, images = self.seconds - self.rate_mark[0], self.state.seen - self.rate_mark[1]
        waiting = min(1.0, (batches.waited - self.waited_mark) / elapsed) if elapsed else 0.0
        speed = images / elapsed if elapsed else 0.0
        progress = Progress(
            self.state.seen, self.goal(), self.seconds, speed, stats, waiting,
            log=log or last, show=show or last, scores=self.scores, rollbacks=self.state.retry,
        )  # fmt: skip
        if log or last:
            self.sums, self.counts = {}, {}
            self.rate_mark, self.waited_mark = (self.seconds, self.state.seen), batches.waited
        with evaluating(self.state.inference_model) as model:
            for observer in self.observers:
                observer.after_step(progress, model)
        distributed.barrier()  # rank 0 may draw, or wait for a tracker's server, longer than a gradient average may take
        cost = time.perf_counter() - started
        if log:
            self.logging.record(self.seconds, 0.0)  # a line costs nothing; the report limits its own cost
        if show:
            self.sampling.record(self.seconds, cost)

    def goal(self) -> int:
        """Images in all: --images, or an estimate from --minutes and the present speed."""
        if self.run.minutes is None:
            return self.run.images
        return round(self.state.seen * max(1.0, self.run.minutes * 60.0 / max(self.seconds, 1e-9)))

    def save(self, last: bool) -> None:
        """Write a checkpoint on rank 0 while the others wait. Three failures in a row, or one at the end, stop the run."""
        started = time.perf_counter()
        fault, finite, deleted = "", True, False
        if self.state.world.first:
            deleted = self.has_run_json and self.directory.run_json is None
            try:
                if not deleted:
                    self.last = self.commit()
                self.failed_saves = 0
            except NonFinite:
                finite = False
            except OSError as error:
                self.failed_saves += 1
                fault = str(error)
                need = sum(t.numel() * t.element_size() for t in self.state.tensors().values()) / 1e6
                free = checkpoint.free_bytes(self.directory.path) / 1e6
                line = f"checkpoint not saved ({error}): about {need:.0f} MB needed, {free:.0f} MB free"
                print(f"mien: {line}", file=sys.stderr)
                self.directory.log(line)
        self.last, self.failed_saves, fault, finite, deleted = distributed.broadcast(
            (self.last, self.failed_saves, fault, finite, deleted)
        )
        if deleted:
            raise StorageError(
                f"{self.directory.path} was deleted or renamed while the run was training.",
                "Its run.json is gone, so nothing more can be saved there.",
                "Restore the directory and run the same command again, or start anew.",
            )
        if not finite:
            raise NonFinite
        if fault and (last or self.failed_saves >= 3):
            raise StorageError(
                "The checkpoint could not be saved.",
                fault,
                "Free some space and run the same command again: older checkpoints are intact.",
            )
        if not fault:
            self.rollbacks = 0
        self.saving.record(self.seconds, time.perf_counter() - started)

    def commit(self) -> Path:
        """Write the checkpoint and notify the observers."""
        snapshot = self.state.snapshot(self.header)
        fingerprints = {"run": self.header["run_fingerprint"], "data": self.header["data"]["fingerprint"]}
        path = checkpoint.commit(self.directory.checkpoints, snapshot, fingerprints, self.run.keep)
        self.directory.update_status(
            state="running", seen=self.state.seen, seconds=round(self.seconds, 3), steered=len(self.state.steered)
        )
        measure = {CONVERGENCE: sum(self.recent) / len(self.recent)} if self.recent else {}
        progress = Progress(self.state.seen, self.goal(), self.seconds, 0.0, measure)
        for observer in self.observers:
            observer.after_commit(progress, path)
        return path

    def roll_back(self) -> None:
        """Restore the last checkpoint, with another random stream and halved learning rates. Raises Diverged at the fourth time."""
        at = self.state.seen
        self.rollbacks += 1
        retry = self.state.retry + 1
        line = f"a loss or gradient after {at} images is NaN or infinite"
        if self.rollbacks > MAX_ROLLBACKS:
            self.directory.log(f"{line}; giving up after {MAX_ROLLBACKS} rollbacks")
            raise Diverged(
                f"Training diverged after {at} images.",
                f"A loss or gradient was NaN or infinite, also after {MAX_ROLLBACKS} rollbacks with halved learning rates.",
                "Lower --recipe.lr or change the balance; report.html has the curves. The last good checkpoint is intact.",
            )
        self.state.restore(*(checkpoint.read_state(self.last) if self.last else self.initial))
        self.state.retry = retry
        self.sums, self.counts = {}, {}
        self.evaluated = min(self.evaluated, self.state.seen)
        self.rate_mark, self.waited_mark = (self.seconds, self.state.seen), 0.0
        line = f"{line}: back to {self.state.seen} images, learning rates times {0.5**self.rollbacks}, retry {retry}"
        if self.state.world.first:
            print(f"mien: {line}", file=sys.stderr)
            self.directory.log(line)
            self.directory.cut_metrics(self.state.seen)

    def stopped(self, code: int) -> Interrupted | Preempted:
        """The error that ends a run after a signal or a stop request, once the state is saved."""
        kind = Interrupted if code == Interrupted.exit_code else Preempted
        return kind(
            f"Stopped at {self.state.seen} images; the state is saved.",
            "The process received a signal or a stop request.",
            f"Run the same command again, or add --out {self.directory.path}.",
        )
