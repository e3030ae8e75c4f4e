"""The complete state of a run, and one training step: the updates of a recipe, applied."""

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
from mien.core.device import DeviceContext, mix, preserve_rng
from mien.core.distributed import World
from mien.core.eager_optimizer import eager_step
from mien.errors import Mismatch, UsageError
from mien.storage import checkpoint
from mien.training.ema import EMA
from mien.training.replicas import Replicas

SHARED = -1  # in place of a rank, in seeds that are equal on all ranks


class NonFinite(Exception):
    """A loss, a gradient or a buffer is NaN or infinite. No parameter has moved since it was detected."""


@dataclass
class TrainState:
    """The complete state of a run: `snapshot` serialises all of it, `restore` loads it."""

    recipe: Recipe
    ema: EMA | None
    context: DeviceContext
    world: World
    seed: int
    seen: int = 0  # real images consumed, over all ranks
    retry: int = 0  # rollbacks so far; each changes the random stream
    steered: list[tuple[int, str]] = field(
        default_factory=list
    )  # images seen before each step in which one player moved, and who
    threads: int = 1  # that share the rows of a batch, in one process
    pulled: int = field(default=0, repr=False)  # images of the current step, over all ranks
    replicas: Replicas | None = field(default=None, repr=False)  # made by the first step of several threads

    @property
    def inference_model(self) -> Model:
        """The model that is sampled and exported: the EMA where there is one."""
        return self.ema.model if self.ema else self.recipe.model

    @property
    def players(self) -> list[str]:
        """Who can move alone: the critic and the generator, which is all that is not the critic; nobody without a critic."""
        critics = [name for name in self.recipe.optimizers if is_critic(name)]
        return ["critic", "generator"] if 0 < len(critics) < len(self.recipe.optimizers) else []

    def step(self, batches: Iterator[Batch], rate: float = 1.0, player: str = "all") -> dict[str, Tensor]:
        """One training step with the learning rates times `rate`. Returns its stats. Raises NonFinite before a bad update.

        Where `player` is the critic or the generator, it alone moves, and `steered` records that.
        """
        torch.manual_seed(mix(self.seed, self.seen, self.world.rank, self.retry))
        self.pulled = 0
        counted = self._counted(batches)
        held = [] if player == "all" else [(weight, weight.clone()) for weight in self.weights_but(player)]
        if self.threads == 1:
            stats = self.updates(self.recipe, counted, rate, player)
        else:
            self.replicas = self.replicas or Replicas(self.recipe, self.threads)
            everyone = self.replicas.run(lambda recipe, rows: self.updates(recipe, rows, rate, player), counted)
            stats = {name: torch.stack([their[name].float() for their in everyone]).mean(0) for name in everyone[0]}
        with torch.no_grad():
            for weight, before in held:  # a recipe may change weights beside its updates: homogan's constraint does
                weight.copy_(before)
        if player != "all":
            self.steered.append((self.seen, player))
        self.seen += self.pulled
        if self.ema:
            self.ema.update(self.recipe.model, self.pulled, self.seen)
        return stats

    def weights_but(self, player: str) -> list[Tensor]:
        """The parameters that one player does not move."""
        others = (o for name, o in self.recipe.optimizers.items() if is_critic(name) != (player == "critic"))
        return [weight for optimizer in others for weight in parameters_of(optimizer)]

    def updates(self, recipe: Recipe, batches: Iterator[Batch], rate: float, player: str = "all") -> dict[str, Tensor]:
        """Apply the updates of one step of the recipe, or of a replica of it, or those of one player. Returns its stats."""
        critics = [id(optimizer) for name, optimizer in recipe.optimizers.items() if is_critic(name)]
        recipe.shared_noise.manual_seed(mix(self.seed, self.seen, SHARED, self.retry))
        recipe.schedule(self.seen)
        recipe.measured.clear()
        stats: dict[str, Tensor] = {}
        updates = recipe.step(batches)
        while True:
            with self.context.autocast():
                group = next(updates, None)
            if group is None:
                break
            group = group if isinstance(group, tuple) else (group,)
            moving = [u for u in group if player == "all" or (id(u.optimizer) in critics) == (player == "critic")]
            if moving:
                apply_updates(moving, rate)
            for update in group:
                stats |= {name: value.detach() for name, value in update.stats.items()}
        return {**recipe.measured, **stats}

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.pulled += len(batch.images) * self.world.size
            yield self.context.batch(batch)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name."""
        found = {f"recipe.{name}": tensor for name, tensor in self.recipe.state_dict().items()}
        if self.ema:
            found |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        for name, optimizer in self.recipe.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{name}.{index}.{key}": v for key, v in state.items() if isinstance(v, Tensor)}
        return found

    def counters(self) -> JSON:
        """Everything of the state that is not a tensor."""
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
        steered = {"steered": [list(step) for step in self.steered]} if self.steered else {}
        return {"seen": self.seen, "retry": self.retry, "seed": self.seed, "optimizers": groups, **steered}

    def snapshot(self, header: JSON) -> checkpoint.Snapshot:
        """The state as bytes, equal for equal states. Raises NonFinite if it contains NaN or infinity."""
        tensors = self.tensors()
        floats = [t for t in tensors.values() if t.is_floating_point() and t.numel()]
        if not torch.isfinite(torch.stack(torch._foreach_norm(floats, float("inf")))).all():
            raise NonFinite
        header = {**header, "steered": len(self.steered)} if self.steered else header
        model = checkpoint.pack_tensors(self.inference_model.state_dict(), header)
        return checkpoint.Snapshot(self.seen, model, checkpoint.pack_tensors(tensors), self.counters())

    def restore(self, tensors: Mapping[str, Tensor], counters: JSON) -> None:
        """Load what `snapshot` wrote. Raises Mismatch for the state of another run."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        try:
            self.recipe.load_state_dict(part("recipe."))
            self.replicas = None  # their buffers are of another state
            if self.ema:
                self.ema.model.load_state_dict(part("ema."))
            for name, optimizer in self.recipe.optimizers.items():
                restore_optimizer(optimizer, part(f"optimizer.{name}."), counters["optimizers"][name])
            self.seen, self.retry = counters["seen"], counters["retry"]
            self.steered = [(seen, player) for seen, player in counters.get("steered", [])]
        except (RuntimeError, KeyError) as error:
            raise Mismatch(
                "This checkpoint does not fit the run.",
                str(error).splitlines()[0],
                "Resume with the version and configuration that wrote it (see run.json and env.json).",
            ) from error


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], counters: JSON) -> None:
    """Load the state of an optimizer, each tensor in the memory layout of its parameter, which keeps the speed."""
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


def is_critic(name: str) -> bool:
    """Whether an optimizer of a recipe moves its critic: recipes name it so, and a second one as in `critic_reals`."""
    return name.split("_")[0] == "critic"


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def apply_updates(group: Sequence[Update], rate: float = 1.0) -> None:
    """Apply simultaneous updates: all gradients first, then all optimizer steps.

    A gradient reaches only the parameters of its own optimizer, whatever else the graph contains. Raises NonFinite on all
    ranks, before any parameter moves, if a loss or gradient is NaN or infinite.
    """
    ready = []
    for position, update in enumerate(group):
        parameters = parameters_of(update.optimizer)
        found = torch.autograd.grad(update.loss, parameters, retain_graph=position < len(group) - 1, allow_unused=True)
        unused = {id(parameter) for parameter in update.unused}
        pairs = []
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                pairs.append((parameter, match_layout(parameter, gradient)))
            elif id(parameter) not in unused:
                raise UsageError(
                    f"A parameter of shape {tuple(parameter.shape)} got no gradient from its loss.",
                    "The recipe's optimizer holds it, but the loss does not depend on it: an encoder, say, in a GAN.",
                    "Use a model without that part, or name the parameter in Update(unused=...).",
                )
        trained = [parameter for parameter, _ in pairs]
        loss, gradients = distributed.average_gradients(update.loss, [gradient for _, gradient in pairs])
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(norm + loss)):
            raise NonFinite
        scale = None if update.clip is None else (update.clip / (norm + 1e-6)).clamp(max=1.0)
        ready.append((update.optimizer, trained, gradients, scale))

    def move() -> None:
        for optimizer, trained, gradients, scale in ready:
            if scale is not None:
                torch._foreach_mul_(gradients, scale)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            with scaled_rates(optimizer, rate):
                eager_step(optimizer)
            optimizer.zero_grad(set_to_none=True)

    distributed.once(move)  # nobody else reads the gradients any more


def match_layout(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's memory layout.

    `backward` ensures this, `autograd.grad` does not. torch's fused Adam on a CPU ignores strides: with different layouts it
    silently moves the wrong weights (torch 2.13; docs/LOG.md).
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@contextmanager
def scaled_rates(optimizer: Optimizer, rate: float) -> Iterator[None]:
    """Multiply the learning rates within the block."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * rate
    yield
    for group, original in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = original


@contextmanager
def evaluating(model: Model) -> Iterator[Model]:
    """The model in evaluation mode. Restores the mode of each layer and torch's random state afterwards.

    Without EMA this is the model in training: a forward pass in training mode would change its batch statistics.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with preserve_rng():
            yield model
    finally:
        for module, training in modes:
            module.training = training
