"""The one loop. It applies what a recipe yields, and keeps the promises: routed gradients, finite weights, exact resume."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from mien import checkpoint, parallel
from mien.average import Average
from mien.core import JSON, Batch, Model, Observer, Progress, Recipe, Update
from mien.directory import RunDirectory
from mien.engine import Engine, mix, untouched_randomness
from mien.errors import DeviceError, Diverged, Interrupted, MienError, Mismatch, Preempted, StorageError
from mien.parallel import World
from mien.run import Run

ATTEMPTS = 3  # rollbacks from one checkpoint before giving up
SHARED = -1  # stands for "every rank" where a rank is mixed into a seed


class NonFinite(Exception):
    """A loss, a gradient or a buffer is not finite. Nothing has moved since it was found."""


class BatchSource(Iterator[Batch], Protocol):
    """An endless stream of this rank's batches that starts at a position and knows how long it was waited for."""

    waited: float  # seconds

    def close(self) -> None:
        """Stop reading ahead."""
        ...


@dataclass
class Learner:
    """The complete memory of a run: `snapshot` gives all of it, `restore` takes it back."""

    recipe: Recipe
    average: Average | None
    engine: Engine
    world: World
    seed: int
    seen: int = 0  # real images consumed, over all ranks
    retry: int = 0  # rollbacks so far: another stream of random numbers after each
    pulled: int = field(default=0, repr=False)  # rows of the step in progress, over all ranks

    @property
    def served(self) -> Model:
        """The model that is sampled and exported."""
        return self.average.model if self.average else self.recipe.model

    def step(self, batches: Iterator[Batch], rate: float = 1.0) -> dict[str, Tensor]:
        """One step of the recipe: every update it yields, applied. Returns its stats. Raises NonFinite before a bad move."""
        torch.manual_seed(mix(self.seed, self.seen, self.world.rank, self.retry))
        self.recipe.shared_noise.manual_seed(mix(self.seed, self.seen, SHARED, self.retry))
        self.recipe.schedule(self.seen)
        self.pulled = 0
        stats: dict[str, Tensor] = {}
        updates = self.recipe.step(self._counted(batches))
        while True:
            with self.engine.autocast():
                group = next(updates, None)
            if group is None:
                break
            group = group if isinstance(group, tuple) else (group,)
            move(group, rate)
            for update in group:
                stats.update(update.stats)
        self.seen += self.pulled
        if self.average:
            self.average.update(self.recipe.model, self.pulled, self.seen)
        return stats

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.pulled += len(batch.images) * self.world.size
            yield self.engine.batch(batch)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the memory, by name."""
        found = {f"recipe.{name}": tensor for name, tensor in self.recipe.state_dict().items()}
        if self.average:
            found |= {f"average.{name}": tensor for name, tensor in self.average.model.state_dict().items()}
        for name, optimizer in self.recipe.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{name}.{index}.{key}": v for key, v in state.items() if isinstance(v, Tensor)}
        return found

    def counters(self) -> JSON:
        """Everything of the memory that is not a tensor."""
        groups = {
            name: {
                "rates": [group["lr"] for group in optimizer.param_groups],
                "numbers": {
                    str(index): {key: v for key, v in state.items() if not isinstance(v, Tensor)}
                    for index, state in optimizer.state_dict()["state"].items()
                },
            }
            for name, optimizer in self.recipe.optimizers.items()
        }
        return {"seen": self.seen, "retry": self.retry, "seed": self.seed, "optimizers": groups}

    def snapshot(self, header: JSON) -> checkpoint.Snapshot:
        """The memory as bytes, equal for equal memories. Raises NonFinite rather than save a number that is not one."""
        tensors = self.tensors()
        floats = [t for t in tensors.values() if t.is_floating_point() and t.numel()]
        if not torch.isfinite(torch.stack(torch._foreach_norm(floats, float("inf")))).all():
            raise NonFinite
        model = checkpoint.pack_tensors(self.served.state_dict(), header)
        return checkpoint.Snapshot(self.seen, model, checkpoint.pack_tensors(tensors), self.counters())

    def restore(self, tensors: Mapping[str, Tensor], counters: JSON) -> None:
        """Become what `snapshot` remembered. Raises Mismatch for the memory of another run."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        try:
            self.recipe.load_state_dict(part("recipe."))
            if self.average:
                self.average.model.load_state_dict(part("average."))
            for name, optimizer in self.recipe.optimizers.items():
                restore_optimizer(optimizer, part(f"optimizer.{name}."), counters["optimizers"][name])
            self.seen, self.retry = counters["seen"], counters["retry"]
        except (RuntimeError, KeyError) as error:
            raise Mismatch(
                "This checkpoint does not fit the run.",
                str(error).splitlines()[0],
                "Resume it with the version and configuration that wrote it (run.json, env.json).",
            ) from error


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], counters: JSON) -> None:
    """Fill an optimizer's state, each tensor in its parameter's layout, so that resuming costs no speed."""
    by_index: dict[int, dict[str, Any]] = {int(i): dict(numbers) for i, numbers in counters["numbers"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        by_index.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": by_index, "param_groups": optimizer.state_dict()["param_groups"]})
    for group, rate in zip(optimizer.param_groups, counters["rates"], strict=True):
        group["lr"] = rate
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def own(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def move(group: Sequence[Update], rate: float = 1.0) -> None:
    """Apply simultaneous updates: every gradient first, then every move.

    A gradient reaches only the parameters of its update's own optimizer, whatever the graph holds. Raises NonFinite before
    anything moves if a loss or gradient is not finite, on all ranks alike.
    """
    ready = []
    for position, update in enumerate(group):
        parameters = own(update.optimizer)
        found = torch.autograd.grad(update.loss, parameters, retain_graph=position < len(group) - 1, allow_unused=True)
        idle = {id(parameter) for parameter in update.idle}
        pairs = []
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                pairs.append((parameter, laid_out_like(parameter, gradient)))
            elif id(parameter) not in idle:
                raise RuntimeError(f"a parameter of shape {tuple(parameter.shape)} got no gradient from its loss")
        moved = [parameter for parameter, _ in pairs]
        loss, gradients = parallel.average_gradients(update.loss, [gradient for _, gradient in pairs])
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(norm + loss)):
            raise NonFinite
        if update.clip is not None:
            torch._foreach_mul_(gradients, (update.clip / (norm + 1e-6)).clamp(max=1.0))
        ready.append((update.optimizer, moved, gradients))
    for optimizer, moved, gradients in ready:
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.grad = gradient
        with slowed(optimizer, rate):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's memory layout.

    `backward` sees to this, `autograd.grad` does not, and torch's fused Adam on a CPU walks both memories side by side: with
    other strides it moves the wrong weights, without a word (seen in torch 2.13; docs/LOG.md).
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def slowed(optimizer: Optimizer, rate: float) -> Iterator[None]:
    """Multiply the learning rates for one move."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * rate
    yield
    for group, original in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = original


@contextmanager
def only_looking(model: Model) -> Iterator[Model]:
    """The model as it would be served, its layers' modes and torch's random state put back afterwards.

    A model that is not averaged is the one that learns: drawing from it in training mode would move its batch statistics.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with untouched_randomness():
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

    def __init__(self, every: int, least: float, growth: float = 0.0, share: float = 0.02) -> None:
        self.every, self.least, self.growth, self.share = every, least, growth, share
        self.last_time, self.cost = 0.0, 0.0

    def due(self, before: int, after: int, seconds: float) -> bool:
        """Whether to fire, after a step from `before` to `after` images, `seconds` of training in all."""
        if self.every:
            return after // self.every > before // self.every
        return seconds - self.last_time >= max(self.least, self.growth * seconds, self.cost / self.share)

    def fired(self, seconds: float, cost: float) -> None:
        """Remember when, and what it cost."""
        self.last_time, self.cost = seconds, max(cost, self.cost / 2)


def train(
    run: Run,
    directory: RunDirectory,
    learner: Learner,
    open_batches: Callable[[int], BatchSource],
    observers: Sequence[Observer],
    header: JSON,
    resume_from: Path | None = None,
) -> None:
    """Train until the goal. Raises Preempted, Interrupted, Diverged, StorageError or DeviceError, with the state saved.

    `open_batches(position)` gives this rank's batches from a position on. The learner is fresh; `resume_from` names the
    checkpoint to continue from, if any.
    """
    outcome = "failed"
    try:
        _Loop(run, directory, learner, open_batches, observers, header, resume_from).go()
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
        learner: Learner,
        open_batches: Callable[[int], BatchSource],
        observers: Sequence[Observer],
        header: JSON,
        resume_from: Path | None,
    ) -> None:
        self.run, self.directory, self.learner, self.header = run, directory, learner, header
        self.open_batches, self.observers = open_batches, observers
        fresh = {name: tensor.clone() for name, tensor in learner.tensors().items()} if resume_from is None else {}
        self.beginning = (fresh, learner.counters())
        self.last: Path | None = resume_from
        self.attempts = 0
        self.failed_saves = 0
        self.seconds = 0.0 if resume_from is None else float(directory.status["seconds"])
        self.base = self.seconds
        self.saving = Period(run.save_every, least=30.0)
        self.showing = Period(run.sample_every, least=2.0, growth=0.02)
        self.logging = Period(run.log_every, least=1.0, growth=0.001)
        for period in (self.saving, self.showing, self.logging):
            period.last_time = self.seconds
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.rate_mark = (0.0, 0)  # seconds and seen at the last log line
        self.waited_mark = 0.0

    def go(self) -> None:
        if self.last is not None:
            self.learner.restore(*checkpoint.read_state(self.last))
        self.rate_mark = (self.seconds, self.learner.seen)
        batches = self.open_batches(self.learner.seen)
        try:
            with Signals() as signals:
                while not self.reached():
                    before = self.learner.seen
                    started = time.perf_counter()
                    try:
                        stats = self.learner.step(batches, rate=0.5**self.attempts)
                        self.seconds += time.perf_counter() - started
                        self.gather(stats)
                        stop = int(parallel.maximum(float(signals.code)))
                        last = bool(stop) or self.reached()
                        self.observe(before, batches, last)
                        if self.due(self.saving, before) or last:
                            self.save(last)
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

    def reached(self) -> bool:
        """Whether the goal is reached; on time, the first process's clock decides for all."""
        if self.run.minutes is None:
            return self.learner.seen >= self.run.images
        return bool(parallel.agree(self.seconds >= self.run.minutes * 60.0))

    def due(self, period: Period, before: int) -> bool:
        """Whether a period fires, for all ranks alike."""
        here = period.due(before, self.learner.seen, self.seconds)
        return here if period.every else bool(parallel.agree(here))

    def gather(self, stats: Mapping[str, Tensor]) -> None:
        """Add a step's stats to the means since the last log line, on the device."""
        for name, value in stats.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def observe(self, before: int, batches: BatchSource, last: bool) -> None:
        """Show the observers where we stand, if a period asks for it."""
        log, show = self.due(self.logging, before), self.due(self.showing, before)
        if not (log or show or last):
            return
        started = time.perf_counter()
        stats = {name: float(parallel.mean(total)) / self.counts[name] for name, total in self.sums.items()}
        elapsed, images = self.seconds - self.rate_mark[0], self.learner.seen - self.rate_mark[1]
        waiting = min(1.0, (batches.waited - self.waited_mark) / elapsed) if elapsed else 0.0
        speed = images / elapsed if elapsed else 0.0
        seen, goal = self.learner.seen, self.goal()
        progress = Progress(seen, goal, self.seconds, speed, stats, waiting, log=log or last, show=show or last)
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
        fault = ""
        if self.learner.world.first:
            try:
                self.last = self.commit()
                self.failed_saves = 0
            except OSError as error:
                self.failed_saves += 1
                fault = str(error)
                need = sum(t.numel() * t.element_size() for t in self.learner.tensors().values()) / 1e6
                free = checkpoint.free_bytes(self.directory.path) / 1e6
                line = f"checkpoint not saved ({error}): about {need:.0f} MB needed, {free:.0f} MB free"
                print(f"mien: {line}", file=sys.stderr)
                self.directory.log(line)
        self.last, self.failed_saves, fault = parallel.agree((self.last, self.failed_saves, fault))
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
        path = checkpoint.commit(self.directory.checkpoints, snapshot, fingerprints)
        self.directory.update_status(state="running", seen=self.learner.seen, seconds=round(self.seconds, 3))
        progress = Progress(self.learner.seen, self.goal(), self.seconds, 0.0, {})
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
