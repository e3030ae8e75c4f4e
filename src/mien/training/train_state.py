"""The complete memory of a run, and one step of it: what a recipe yields, applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mien.core import distributed
from mien.core.contracts import JSON, Batch, Model, Recipe, Update
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.errors import Mismatch
from mien.storage import checkpoint
from mien.training.ema import EMA

SHARED = -1  # stands for "every rank" where a rank is mixed into a seed


class NonFinite(Exception):
    """A loss, a gradient or a buffer is not finite. Nothing has moved since it was found."""


@dataclass
class TrainState:
    """The complete memory of a run: `snapshot` gives all of it, `restore` takes it back."""

    recipe: Recipe
    average: EMA | None
    engine: DeviceContext
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
        self.recipe.measured.clear()
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
        return {**self.recipe.measured, **stats}

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
        loss, gradients = distributed.average_gradients(update.loss, [gradient for _, gradient in pairs])
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
