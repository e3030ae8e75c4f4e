"""The contracts: what a model is, what a recipe is, and what a recipe asks of the trainer.

Every way of learning a generator is losses, each descended by some parameters, in some order. So a training step is a generator
of updates: the recipe yields, the trainer applies. Neither knows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mien.errors import UsageError


class Prior(Protocol):
    """Where latents come from, and the natural walk between two of them."""

    def draw(self, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """One latent a seed, `[len(seeds), *shape]`, from a counter-based generator: the address of a face."""
        ...

    def sample(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """`[count, *shape]` latents for training: fast, and reproducible through `generator` alone."""
        ...

    def path(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """The latents a share `t` in [0, 1] of the way from `a` to `b`, both `[n, *shape]`, likely under the prior."""
        ...

    def within(self, z: Tensor) -> Tensor:
        """`z` `[n, *shape]`, moved to the nearest latents that the prior may well draw: what a descent must not leave."""
        ...


@dataclass(frozen=True)
class Batch:
    """Real images and what is known of them."""

    images: Tensor  # [n, C, H, W], in [-1, 1]; C is 1 or 3
    labels: Tensor | None = None  # [n, label_dim], in [0, 1]; NaN = not known


@dataclass(frozen=True)
class ImageSpec:
    """What every network of a run agrees on: the shape of the images and the width of the labels."""

    side: int = 64  # pixels, height and width
    channels: int = 3
    label_dim: int = 0  # 0 = unconditional


class Model(nn.Module, ABC):
    """What is sampled, averaged, saved and served: a map from latents to faces."""

    latent_shape: tuple[int, ...]  # without the batch axis
    label_dim: int = 0  # 0 = unconditional
    prior: Prior

    @abstractmethod
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """`[n, *latent_shape]` -> images `[n, C, H, W]` in [-1, 1]."""

    def decode_truncated(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """`decode`, the share `truncation` of the way from the mean face: 1 is the face itself, 0 the mean one.

        Where the mean is depends on the model. Here: at the middle of the prior, so that latents are scaled.
        """
        return self.decode(z * truncation, labels)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The same as `decode`, so that a model is also a plain module."""
        return self.decode(z, labels)


@dataclass(frozen=True)
class Update:
    """Move the parameters of `optimizer`, and no others, down the gradient of `loss`.

    A parameter of the optimizer that gets no gradient is an error, unless it is named in `idle`.
    """

    optimizer: Optimizer
    loss: Tensor  # scalar
    clip: float | None = None  # bound on the gradient's global norm, after averaging over ranks
    stats: Mapping[str, Tensor] = field(default_factory=dict)  # scalars to log
    idle: Sequence[nn.Parameter] = ()  # parameters that this loss rightly does not reach


class Recipe(nn.Module, ABC):
    """How a model learns: its helper networks, its optimizers, one step."""

    model: Model  # averaged, exported, served; the rest is training only
    optimizers: dict[str, Optimizer]  # checkpointed by name

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.optimizers = {}
        self.shared_noise = torch.Generator()  # seeded by the trainer before each step, equally on all ranks
        self.rank, self.world = 0, 1  # set by the trainer: which rows of a shared draw are ours
        self.measured: dict[str, Tensor] = {}  # in this step, whether or not an update follows; emptied by the trainer

    @abstractmethod
    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        """Pull the real batches it needs; successive yields alternate, a tuple is simultaneous: every gradient, then every move."""

    def schedule(self, seen: int) -> None:
        """Set what depends on the number of real images seen. Default: nothing."""

    def measure(self, stats: Mapping[str, Tensor]) -> None:
        """Log scalars of this step, also where no update does: a network that pauses has a loss all the same."""
        self.measured.update({name: value.detach() for name, value in stats.items()})

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The labels of a batch `[n, label_dim]`, for a model that is told them."""
        return batch.labels if self.model.label_dim else None

    def latents(self, count: int) -> Tensor:
        """`count` fresh latents `[count, *latent_shape]` of the prior for this rank, on the model's device and in its precision.

        All ranks draw the same rows and keep their own, so that two processes learn what one process with both batches learns.
        """
        z = self.model.prior.sample(count * self.world, self.model.latent_shape, self.shared_noise)
        return z[self.rank * count : (self.rank + 1) * count].to(next(self.model.parameters()))

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Numbers from U(0, 1), `[count, *shape]` on the CPU, drawn as `latents` draws."""
        drawn = torch.rand(count * self.world, *shape, generator=self.shared_noise)
        return drawn[self.rank * count : (self.rank + 1) * count]

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, device and precision of `like` `[n, ...]`, drawn as `latents` draws."""
        count = len(like)
        drawn = torch.randn(count * self.world, *like.shape[1:], generator=self.shared_noise)
        return drawn[self.rank * count : (self.rank + 1) * count].to(like)


Built = TypeVar("Built", covariant=True)


class Knobs:
    """What every config can say of its own fields."""

    def without_effect(self) -> Mapping[str, str]:
        """Fields that do nothing at the present values of the others, each with what would give it an effect. Default: none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Knobs, ABC):
    """The typed description of a network that a recipe needs beside the model (a critic, an encoder)."""

    cites: ClassVar[tuple[str, ...]] = ()  # keys of mien.presets.citations

    @abstractmethod
    def build(self, faces: ImageSpec) -> nn.Module:
        """The network, with fresh weights from torch's default generator. Raises UsageError for a side it cannot make."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Knobs, ABC):
    """The typed description of a model; frozen, so that a header can hold it and a run can be named by it."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, faces: ImageSpec) -> Model:
        """The model, with fresh weights from torch's default generator. Raises UsageError for a side it cannot make."""

    def outline(self, faces: ImageSpec) -> Model:
        """The model without its memory: shapes alone, however large. Raises what `build` raises."""
        with torch.device("meta"):
            return self.build(faces)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Knobs, ABC):
    """The typed description of a way of learning."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, model: Model, faces: ImageSpec) -> Recipe:
        """The recipe around `model`, with its helper networks and optimizers."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step."""

    seen: int  # real images consumed so far, over all ranks
    goal: int  # images to see in all; an estimate while a run is bounded by time
    seconds: float  # of training, over every resume
    images_per_second: float  # of training alone, recently
    stats: Mapping[str, float]  # means since the last log line
    waiting: float = 0.0  # share of recent time spent waiting for data
    log: bool = True  # whether a log period ended with this step
    show: bool = False  # whether a sample period ended with this step
    scores: Mapping[str, float] = field(default_factory=dict)  # of an evaluation that ended with this step, by name
    rollbacks: int = 0  # so far, each after a loss or gradient that was not finite


class Observer(Protocol):
    """Called after steps and commits, with the averaged model. Read-only: nothing it does may change what is learned."""

    def after_step(self, progress: Progress, model: Model) -> None:
        """After a step that crossed one of the run's periods, or the last one."""
        ...

    def after_commit(self, progress: Progress, checkpoint: Path) -> None:
        """After a checkpoint is complete on disk."""
        ...

    def close(self, outcome: str) -> None:
        """Once, when training ends; `outcome` is done, preempted, interrupted, diverged or failed."""
        ...


class Evaluator(Protocol):
    """Scores the averaged model whenever an evaluation period ends, on all ranks together. Read-only, as observers are."""

    @property
    def judged(self) -> int:
        """Images seen at the newest evaluation, 0 without one."""
        ...

    def scores(self, seen: int, model: Model, stopping: Callable[[], bool]) -> Mapping[str, float]:
        """The scores by name; empty where they could not be measured, or were left because the run is `stopping`."""
        ...

    def verdict(self) -> str:
        """Why the run should end now, in words; empty: it should not."""
        ...


def require_positive(config: object, *names: str) -> None:
    """Refuse fields of a recipe's config that count something and are under 1. Raises UsageError."""
    for name in names:
        value = getattr(config, name)
        if value < 1:
            flag = f"--recipe.{name.replace('_', '-')}"
            raise UsageError(f"{flag} {value} is not possible.", "It counts.", "Give 1 or more.")


def nearest_side(side: int, legal: Sequence[int]) -> str:
    """The legal sides around `side`, in words for an error."""
    below = [s for s in legal if s < side]
    above = [s for s in legal if s > side]
    return " or ".join(str(s) for s in (*below[-1:], *above[:1]))


JSON = dict[str, Any]
