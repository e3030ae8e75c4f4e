"""The contracts: Model, Recipe, Update, Observer.

Every way to train a generator is a set of losses, each minimised over some parameters, in some order. So a training step is a
Python generator of updates: the recipe yields them, the training loop applies them. Neither knows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mien.core.outline import shapes_only
from mien.errors import UsageError


class Prior(Protocol):
    """The distribution of latents, and interpolation within it."""

    def draw(self, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """One latent per seed, `[len(seeds), *shape]`, from a counter-based generator: a seed is the address of a face."""
        ...

    def sample(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """`[count, *shape]` latents for training: fast, and determined by `generator` alone."""
        ...

    def path(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """Interpolation from `a` (t = 0) to `b` (t = 1), both `[n, *shape]`, through latents that are typical of the prior."""
        ...

    def project(self, z: Tensor) -> Tensor:
        """Projects `z` `[n, *shape]` onto the prior's typical set."""
        ...


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: == of tensors has no single truth value
class Batch:
    """Real images and their labels."""

    images: Tensor  # [n, C, H, W], in [-1, 1]; C is 1 or 3
    labels: Tensor | None = None  # [n, label_dim], in [0, 1]; NaN = unknown


@dataclass(frozen=True)
class ImageSpec:
    """The shape of the images and labels, equal for all networks of a run."""

    side: int = 64  # pixels, height and width
    channels: int = 3
    label_dim: int = 0  # 0 = unconditional


class Model(nn.Module, ABC):
    """A generator: a map from latents to faces. It is what is averaged, saved, sampled and exported."""

    latent_shape: tuple[int, ...]  # without the batch axis
    label_dim: int = 0  # 0 = unconditional
    guidance: float = 1.0  # scale of what labels change in samples, where nobody asks for another
    prior: Prior

    @abstractmethod
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """`[n, *latent_shape]` -> images `[n, C, H, W]` in [-1, 1]."""

    def decode_truncated(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """`decode` with truncation psi: 0 is the mean face, 1 no truncation.

        What the mean is depends on the model. By default it is the mean of the prior, so that latents are scaled.
        """
        return self.decode(z * truncation, labels)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Calls `decode`, so that a model is an ordinary torch module."""
        return self.decode(z, labels)


@dataclass(frozen=True)
class Update:
    """One step of `optimizer` along the gradient of `loss`. No parameter of another optimizer moves.

    A parameter of the optimizer that gets no gradient is an error, unless it is listed in `unused`.
    """

    optimizer: Optimizer
    loss: Tensor  # scalar
    clip: float | None = None  # maximum of the gradient's global norm, after averaging over ranks
    stats: Mapping[str, Tensor] = field(default_factory=dict)  # scalars to log
    unused: Sequence[nn.Parameter] = ()  # parameters of the optimizer that this loss does not depend on


class Recipe(nn.Module, ABC):
    """How a model is trained: helper networks, optimizers, one training step."""

    model: Model  # averaged, sampled and exported; everything else exists during training only
    optimizers: dict[str, Optimizer]  # checkpointed by name
    #: The rows that a thread needs where threads share a batch. 0 = they cannot: all random numbers of its steps must come
    #: from latents, uniform and noise, and its means over a batch from mien.core.distributed.
    least_rows: int = 0

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.optimizers = {}
        self.shared_noise = torch.Generator()  # seeded by the loop before each step, equal on all ranks
        self.rank, self.world = 0, 1  # set by the loop: the rows of a shared draw that belong to this rank
        self.measured: dict[str, Tensor] = {}  # stats of this step that belong to no update; cleared by the loop

    @abstractmethod
    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        """One training step. It pulls the real batches that it needs.

        Updates yielded one after the other are applied one after the other. A tuple is simultaneous: all gradients first,
        then all optimizer steps.
        """

    def schedule(self, seen: int) -> None:
        """Set what depends on the number of real images seen so far. Default: nothing."""

    def measure(self, stats: Mapping[str, Tensor]) -> None:
        """Log scalars of this step, also where no update does: a network that pauses has a loss all the same."""
        self.measured.update({name: value.detach() for name, value in stats.items()})

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The labels of a batch `[n, label_dim]` if the model is label-conditional, else None."""
        return batch.labels if self.model.label_dim else None

    def latents(self, count: int) -> Tensor:
        """`count` new latents `[count, *latent_shape]` for this rank, on the model's device and in its precision.

        All ranks draw the rows of all ranks and use their own, so that two processes compute what one process computes with
        both batches.
        """
        z = self.model.prior.sample(count * self.world, self.model.latent_shape, self.shared_noise)
        return z[self.rank * count : (self.rank + 1) * count].to(next(self.model.parameters()))

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Samples of U(0, 1), `[count, *shape]` on the CPU, drawn like `latents`."""
        drawn = torch.rand(count * self.world, *shape, generator=self.shared_noise)
        return drawn[self.rank * count : (self.rank + 1) * count]

    def noise(self, like: Tensor) -> Tensor:
        """Samples of N(0, 1) with the shape, device and precision of `like` `[n, ...]`, drawn like `latents`."""
        count = len(like)
        drawn = torch.randn(count * self.world, *like.shape[1:], generator=self.shared_noise)
        return drawn[self.rank * count : (self.rank + 1) * count].to(like)


@runtime_checkable
class Adoptive(Protocol):
    """A network that finds its own layers among those of a network with another side, or without labels."""

    def translate(self, parent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parent's tensors under this network's names; those that have no place here are left out."""
        ...


Built = TypeVar("Built", covariant=True)


class ConfigBase:
    """Base class of all configurations."""

    def without_effect(self) -> Mapping[str, str]:
        """Fields without effect at the present values of the others, each with the reason. Default: none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ConfigBase, ABC):
    """Configuration of a helper network of a recipe, such as a critic or an encoder."""

    cites: ClassVar[tuple[str, ...]] = ()  # keys of mien.presets.citations

    def resized(self, old: int, new: int) -> Self:
        """As ModelConfig.resized."""
        return self

    @abstractmethod
    def build(self, faces: ImageSpec) -> nn.Module:
        """The network, initialised from torch's default generator. Raises UsageError for a side that it does not support."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ConfigBase, ABC):
    """Configuration of a model. It is frozen and stored in the header of every checkpoint."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, faces: ImageSpec) -> Model:
        """The model, initialised from torch's default generator. Raises UsageError for a side that it does not support."""

    def resized(self, old: int, new: int) -> Self:
        """The configuration whose network of side `new` shares most layers with this one's of side `old`. Default: itself."""
        return self

    def outline(self, faces: ImageSpec) -> Model:
        """The model on torch's meta device: shapes without memory. Raises what `build` raises."""
        with shapes_only():
            return self.build(faces)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(ConfigBase, ABC):
    """Configuration of a recipe."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, model: Model, faces: ImageSpec) -> Recipe:
        """The recipe around `model`, with its helper networks and optimizers."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run after a step."""

    seen: int  # real images consumed so far, over all ranks
    goal: int  # images in all; an estimate if the run is limited by --minutes
    seconds: float  # of training, over all resumes
    images_per_second: float  # of training alone, since the last log line
    stats: Mapping[str, float]  # means since the last log line
    waiting: float = 0.0  # share of that time spent waiting for data
    log: bool = True  # a log period ended with this step
    show: bool = False  # a sample period ended with this step
    scores: Mapping[str, float] = field(default_factory=dict)  # of an evaluation after this step, by name
    rollbacks: int = 0  # so far, each after a NaN or infinite loss or gradient


class Observer(Protocol):
    """Called after steps and checkpoints, with the EMA model. Default: nothing. Read-only: it may not change the training."""

    def after_step(self, progress: Progress, model: Model) -> None:
        """Called after a step in which a period ended, and after the last step."""
        return

    def after_commit(self, progress: Progress, checkpoint: Path) -> None:
        """Called when a checkpoint is complete on disk."""
        return

    def close(self, outcome: str) -> None:
        """Called once when training ends; `outcome` is done, preempted, interrupted, diverged or failed."""
        return


class Evaluator(Protocol):
    """Computes scores of the EMA model whenever an evaluation period ends, on all ranks together. Read-only, like observers."""

    @property
    def last_seen(self) -> int:
        """Images seen at the last evaluation; 0 if there was none."""
        ...

    def scores(self, seen: int, model: Model, stopping: Callable[[], bool]) -> Mapping[str, float]:
        """The scores by name. Empty if they could not be computed, or if the run is `stopping`."""
        ...

    def stop_reason(self) -> str:
        """Why the run should end now; empty if it should continue."""
        ...


def require_positive(config: object, *names: str, prefix: str = "recipe") -> None:
    """Raise UsageError unless these fields of a recipe's config are positive integers."""
    for name in names:
        if (value := getattr(config, name)) < 1:
            flag = f"--{prefix}.{name.replace('_', '-')}"
            raise UsageError(f"{flag} must be a positive integer.", f"The value given is {value}.", "Use 1 or more.")


def require_fraction(config: object, *names: str, prefix: str = "recipe") -> None:
    """Raise UsageError unless these fields of a recipe's config lie in [0, 1]."""
    for name in names:
        if not 0.0 <= (value := getattr(config, name)) <= 1.0:
            flag = f"--{prefix}.{name.replace('_', '-')}"
            raise UsageError(f"{flag} must be a fraction.", f"The value given is {value}.", "Give 0 to 1.")


def nearest_side(side: int, legal: Sequence[int]) -> str:
    """The supported sides below and above `side`, for an error message."""
    below = [s for s in legal if s < side]
    above = [s for s in legal if s > side]
    return " or ".join(str(s) for s in (*below[-1:], *above[:1]))


JSON = dict[str, Any]
