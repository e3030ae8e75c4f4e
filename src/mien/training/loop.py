"""The one loop. It applies what a recipe yields, and keeps the promises: routed gradients, finite weights, exact resume."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mien.core import distributed
from mien.core.contracts import JSON, Batch, Evaluator, Model, Observer, Progress
from mien.core.device import preserve_rng
from mien.core.run import CONVERGENCE, Run
from mien.errors import DeviceError, Diverged, Interrupted, MienError, Preempted, StorageError
from mien.storage import checkpoint
from mien.storage.control import PAUSE, SAVE, STOP, Control
from mien.storage.run_directory import RunDirectory
from mien.training.train_state import NonFinite, TrainState

RECENT = 100  # steps over which BEGAN's M is averaged to rank a checkpoint: sicongzhao's show_every
ATTEMPTS = 3  # rollbacks from one checkpoint before giving up


class BatchSource(Iterator[Batch], Protocol):
    """An endless stream of this rank's batches that starts at a position and knows how long it was waited for."""

    waited: float  # seconds

    def close(self) -> None:
        """Stop reading ahead."""
        ...


@contextmanager
def only_looking(model: Model) -> Iterator[Model]:
    """The model as it would be served, its layers' modes and torch's random state put back afterwards.

    A model that is not averaged is the one that learns: drawing from it in training mode would move its batch statistics.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with preserve_rng():
            yield model
    finally:
        for module, training in modes:
            module.training = training


class Signals:
    """Turns SIGTERM, SIGUSR1 and Ctrl-C into a flag that is read between steps; a second one leaves at once."""

    CODES: ClassVar[dict[str, int]] = {"SIGTERM": 75, "SIGUSR1": 75, "SIGINT": 130}

    def __init__(self) -> None:
        self.code = 0

    def __enter__(self) -> Signals:
        self._old = {}
        for name in self.CODES:
            if name in signal.Signals.__members__:
                number = signal.Signals[name]
                try:
                    self._old[number] = signal.signal(number, self._receive)
                except ValueError:  # not the main thread: whoever called us handles signals
                    break
        return self

    def _receive(self, number: int, frame: object) -> None:
        code = self.CODES[signal.Signals(number).name]
        if self.code:
            os._exit(code)
        self.code = code

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class Period:
    """Fires when a multiple of `every` images is crossed; with 0, by time, so that what it triggers costs at most `share` of it."""

    def __init__(self, every: int, least: float, growth: float = 0.0, share: float = 0.02, warmup: int = 0) -> None:
        self.every, self.least, self.growth, self.share = every, least, growth, share
        self.warmup = warmup  # first times whose cost says nothing about the next
        self.last_time, self.cost = 0.0, 0.0

    def due(self, before: int, after: int, seconds: float) -> bool:
        """Whether to fire, after a step from `before` to `after` images, `seconds` of training in all."""
        if self.every:
            return after // self.every > before // self.every
        return seconds - self.last_time >= max(self.least, self.growth * seconds, self.cost / self.share)

    def fired(self, seconds: float, cost: float) -> None:
        """Remember when, and what it cost."""
        self.last_time, self.cost = seconds, 0.0 if self.warmup else max(cost, self.cost / 2)
        self.warmup = max(0, self.warmup - 1)


def train(
    run: Run,
    directory: RunDirectory,
    learner: TrainState,
    open_batches: Callable[[int], BatchSource],
    observers: Sequence[Observer],
    header: JSON,
    resume_from: Path | None = None,
    judge: Evaluator | None = None,
) -> None:
    """Train until the goal. Raises Preempted, Interrupted, Diverged, StorageError or DeviceError, with the state saved.

    `open_batches(position)` gives this rank's batches from a position on. The learner is fresh; `resume_from` names the
    checkpoint to continue from, if any. A `judge` scores the model at evaluation periods, and may end the run early.
    """
    outcome = "failed"
    try:
        _Loop(run, directory, learner, open_batches, observers, header, resume_from, judge).go()
        outcome = "done"
    except (Preempted, Interrupted, Diverged) as error:
        outcome = type(error).__name__.lower()
        raise
    except torch.OutOfMemoryError as error:
        raise out_of_memory(run, error) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise out_of_memory(run, error) from error
        raise
    finally:
        for observer in observers:
            try:
                observer.close(outcome)
            except Exception as error:  # what only looks takes nothing down with it: the others still have to close
                print(f"mien: {type(observer).__name__} did not close: {error}", file=sys.stderr)
                directory.log(f"{type(observer).__name__} did not close: {type(error).__name__}: {error}")


def out_of_memory(run: Run, error: Exception) -> DeviceError:
    """The error for a device that is too small."""
    return DeviceError(
        f"Memory ran out at batch {run.batch}, side {run.side}.",
        str(error).splitlines()[0],
        f"Try --batch {max(1, run.batch // 2)}: a new run, because the batch is part of what is learned.",
    )


class _Loop:
    """One process's walk to the goal, with its periods, rollbacks and reports."""

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        learner: TrainState,
        open_batches: Callable[[int], BatchSource],
        observers: Sequence[Observer],
        header: JSON,
        resume_from: Path | None,
        judge: Evaluator | None,
    ) -> None:
        self.run, self.directory, self.learner, self.header = run, directory, learner, header
        self.open_batches, self.observers, self.judge = open_batches, observers, judge
        fresh = {name: tensor.clone() for name, tensor in learner.tensors().items()} if resume_from is None else {}
        self.beginning = (fresh, learner.counters())
        self.last: Path | None = resume_from
        self.attempts = 0
        self.failed_saves = 0
        self.seconds = 0.0 if resume_from is None else float(directory.status["seconds"])
        self.saving = Period(run.save_every, least=30.0)
        self.showing = Period(run.sample_every, least=2.0, growth=0.02, warmup=1)
        self.logging = Period(run.log_every, least=1.0, growth=0.001)
        for period in (self.saving, self.showing, self.logging):
            period.last_time = self.seconds
        self.recent: deque[float] = deque(maxlen=RECENT)  # of BEGAN's M, where checkpoints are ranked by it
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.judged = 0  # images seen at the last evaluation
        self.scores: dict[str, float] = {}  # what it found, if it ended with this step
        self.enough = ""  # why the judge ends the run early
        self.rate_mark = (0.0, 0)  # seconds and seen at the last log line
        self.waited_mark = 0.0
        self.control = Control(directory) if learner.world.first else None

    def go(self) -> None:
        if self.last is not None:
            self.learner.restore(*checkpoint.read_state(self.last))
        if self.judge is not None:
            self.judged, self.enough = distributed.agree((self.judge.judged, self.judge.verdict()))
        self.rate_mark = (self.seconds, self.learner.seen)
        batches = self.open_batches(self.learner.seen)
        try:
            with Signals() as signals:
                while not self.reached():
                    before = self.learner.seen
                    started = time.perf_counter()
                    self.scores = {}
                    try:
                        stats = self.learner.step(batches, rate=0.5**self.attempts)
                        self.seconds += time.perf_counter() - started
                        self.gather(stats)
                        wish = self.wish(signals)
                        if self.judge is not None and wish < STOP and self.evaluate(self.judge, signals):
                            wish = max(wish, self.wish(signals))
                        stop = wish if wish >= STOP else 0
                        last = bool(stop) or self.reached()
                        self.observe(before, batches, last)
                        if self.due(self.saving, before) or last or wish in (SAVE, PAUSE) or self.scores:
                            self.save(last)
                        if wish == PAUSE:
                            self.pause(signals)
                    except NonFinite:
                        batches.close()
                        self.roll_back()
                        batches = self.open_batches(self.learner.seen)
                        continue
                    if stop:
                        raise self.stopped(stop)
        finally:
            batches.close()
        if self.last is None or int(self.last.name) < self.learner.seen:
            self.save(last=True)
        if self.enough and self.learner.world.first:
            line = f"stopped early at {self.learner.seen:,} images: {self.enough}"
            print(f"mien: {line}; to go on, give the same command with more --patience, or 0", file=sys.stderr)
            self.directory.log(line)
            self.directory.update_status(reason=line)

    def wish(self, signals: Signals) -> int:
        """What any process is asked to do by a signal or through its directory, for all ranks alike; 0 for nothing."""
        return int(distributed.maximum(float(max(signals.code, self.control.code() if self.control else 0))))

    def pause(self, signals: Signals) -> None:
        """Wait, the state saved, until the run is asked to go on or to stop; the time does not count as training."""
        if self.control is not None:
            self.directory.update_status(state="paused")
            self.directory.log(f"paused at {self.learner.seen} images")
            signals.code = signals.code or self.control.wait(lambda: bool(signals.code))
            self.directory.update_status(state="running")
        distributed.barrier()

    def reached(self) -> bool:
        """Whether the goal is reached, or the judge has seen enough; on time, the first process's clock decides for all."""
        if self.enough:
            return True
        if self.run.minutes is None:
            return self.learner.seen >= self.run.images
        return bool(distributed.agree(self.seconds >= self.run.minutes * 60.0))

    def due(self, period: Period, before: int) -> bool:
        """Whether a period fires, for all ranks alike."""
        here = period.due(before, self.learner.seen, self.seconds)
        return here if period.every else bool(distributed.agree(here))

    def gather(self, stats: Mapping[str, Tensor]) -> None:
        """Add a step's stats to the means since the last log line, on the device."""
        for name, value in stats.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == CONVERGENCE == self.run.keep_best:
                self.recent.append(float(value))

    def evaluate(self, judge: Evaluator, signals: Signals) -> bool:
        """Score the model where an evaluation period has ended since the last one, and at the goal. Returns whether it did."""
        seen = self.learner.seen
        period_ended = seen // self.run.evaluate_every > self.judged // self.run.evaluate_every
        if not (period_ended or self.reached()):
            return False
        with only_looking(self.learner.served) as model:
            scores = dict(judge.scores(seen, model, lambda: bool(signals.code)))
        self.judged = seen
        self.scores, self.enough = distributed.agree((scores, judge.verdict()))
        return True

    def observe(self, before: int, batches: BatchSource, last: bool) -> None:
        """Show the observers where we stand, if a period asks for it."""
        log, show = self.due(self.logging, before) or bool(self.scores), self.due(self.showing, before)
        if not (log or show or last):
            return
        started = time.perf_counter()
        stats = {name: float(distributed.mean(total)) / self.counts[name] for name, total in self.sums.items()}
        elapsed, images = self.seconds - self.rate_mark[0], self.learner.seen - self.rate_mark[1]
        waiting = min(1.0, (batches.waited - self.waited_mark) / elapsed) if elapsed else 0.0
        speed = images / elapsed if elapsed else 0.0
        seen, goal = self.learner.seen, self.goal()
        progress = Progress(
            seen, goal, self.seconds, speed, stats, waiting,
            log=log or last, show=show or last, scores=self.scores, rollbacks=self.learner.retry,
        )  # fmt: skip
        if log or last:
            self.sums, self.counts = {}, {}
            self.rate_mark, self.waited_mark = (self.seconds, self.learner.seen), batches.waited
        with only_looking(self.learner.served) as model:
            for observer in self.observers:
                observer.after_step(progress, model)
        cost = time.perf_counter() - started
        if log:
            self.logging.fired(self.seconds, 0.0)  # a line costs nothing, and the report bounds its own cost
        if show:
            self.showing.fired(self.seconds, cost)

    def goal(self) -> int:
        """Images to see in all, or what the time left will allow at the present speed."""
        if self.run.minutes is None:
            return self.run.images
        return round(self.learner.seen * max(1.0, self.run.minutes * 60.0 / max(self.seconds, 1e-9)))

    def save(self, last: bool) -> None:
        """Commit a checkpoint from the first rank; all wait. Three failures in a row, or one at the end, stop the run."""
        started = time.perf_counter()
        fault, finite = "", True
        if self.learner.world.first:
            try:
                self.last = self.commit()
                self.failed_saves = 0
            except NonFinite:
                finite = False
            except OSError as error:
                self.failed_saves += 1
                fault = str(error)
                need = sum(t.numel() * t.element_size() for t in self.learner.tensors().values()) / 1e6
                free = checkpoint.free_bytes(self.directory.path) / 1e6
                line = f"checkpoint not saved ({error}): about {need:.0f} MB needed, {free:.0f} MB free"
                print(f"mien: {line}", file=sys.stderr)
                self.directory.log(line)
        self.last, self.failed_saves, fault, finite = distributed.agree((self.last, self.failed_saves, fault, finite))
        if not finite:
            raise NonFinite
        if fault and (last or self.failed_saves >= 3):
            raise StorageError(
                "The checkpoint could not be saved.",
                fault,
                "Free space and run the same command again: nothing older is lost.",
            )
        if not fault:
            self.attempts = 0
        self.saving.fired(self.seconds, time.perf_counter() - started)

    def commit(self) -> Path:
        """Write the checkpoint and tell the observers."""
        snapshot = self.learner.snapshot(self.header)
        fingerprints = {"run": self.header["run_fingerprint"], "data": self.header["data"]["fingerprint"]}
        path = checkpoint.commit(self.directory.checkpoints, snapshot, fingerprints, self.run.keep)
        self.directory.update_status(state="running", seen=self.learner.seen, seconds=round(self.seconds, 3))
        measure = {CONVERGENCE: sum(self.recent) / len(self.recent)} if self.recent else {}
        progress = Progress(self.learner.seen, self.goal(), self.seconds, 0.0, measure)
        for observer in self.observers:
            observer.after_commit(progress, path)
        return path

    def roll_back(self) -> None:
        """Go back to the last good checkpoint with other random numbers and halved rates. Raises Diverged at the fourth time."""
        at = self.learner.seen
        self.attempts += 1
        retry = self.learner.retry + 1
        line = f"a loss or gradient after {at} images is not finite"
        if self.attempts > ATTEMPTS:
            self.directory.log(f"{line}; giving up after {ATTEMPTS} rollbacks")
            raise Diverged(
                f"Training diverged after {at} images.",
                f"A loss or gradient was not finite, also after {ATTEMPTS} rollbacks with halved learning rates.",
                "Lower the learning rates or change the balance, and look at report.html: the last good checkpoint is kept.",
            )
        self.learner.restore(*(checkpoint.read_state(self.last) if self.last else self.beginning))
        self.learner.retry = retry
        self.sums, self.counts = {}, {}
        self.judged = min(self.judged, self.learner.seen)
        self.rate_mark = (self.seconds, self.learner.seen)
        self.waited_mark = 0.0
        line = f"{line}: back to {self.learner.seen}, rates times {0.5**self.attempts}, retry {retry}"
        if self.learner.world.first:
            print(f"mien: {line}", file=sys.stderr)
            self.directory.log(line)
            self.directory.cut_metrics(self.learner.seen)

    def stopped(self, code: int) -> MienError:
        """The error that ends a run on a signal, its state saved."""
        kind = Interrupted if code == Interrupted.exit_code else Preempted
        return kind(
            f"Stopped at {self.learner.seen} images, state saved.",
            "A signal asked for it.",
            f"Run the same command again, or name the run with --out {self.directory.path}.",
        )
