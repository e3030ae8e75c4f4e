"""The contracts: what a model is, what a recipe is, and what a recipe asks of the trainer.

Every way of learning a generator is losses, each descended by some parameters, in some order. So a training step is a generator
of updates: the recipe yields, the trainer applies. Neither knows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mien.errors import UsageError

if TYPE_CHECKING:
    from mien.ode import Solution


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
class Faces:
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


class Styled(Model):
    """A model whose stages, coarse to fine, each get a style: a face can have those of two latents.

    Truncation happens among styles (Karras et al. 2018, arXiv:1812.04948, section 3.2 and appendix B).
    """

    style_count: int  # stages that have a style

    @property
    @abstractmethod
    def mean_style(self) -> Tensor:
        """`[width]`: the mean of `styles` over the prior."""

    @abstractmethod
    def styles(self, z: Tensor) -> Tensor:
        """`[n, *latent_shape]` -> the style `[n, width]` that steers every stage."""

    @abstractmethod
    def decode_styles(self, styles: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """A style `[n, width]` for each stage -> images `[n, C, H, W]` in [-1, 1]."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_styles([self.styles(z)] * self.style_count, labels)

    def decode_truncated(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_styles([self._typical(self.styles(z), truncation)] * self.style_count, labels)

    def decode_mixed(
        self, z: Tensor, other: Tensor, shares: Tensor, truncation: float | Tensor = 1.0, labels: Tensor | None = None
    ) -> Tensor:
        """Faces of `z` with styles of `other`, both `[n, *latent_shape]`: of each stage a share in `[n, style_count]`."""
        own, others = self.styles(z), self.styles(other)
        mixed = [torch.lerp(own, others, share[:, None].to(own)) for share in shares.unbind(1)]
        return self.decode_styles([self._typical(style, truncation) for style in mixed], labels)

    def _typical(self, style: Tensor, truncation: float | Tensor) -> Tensor:
        """Styles `[n, width]` moved toward their mean; to the bit the same for a truncation of 1."""
        if not isinstance(truncation, Tensor) and truncation == 1.0:
            return style
        mean = self.mean_style.to(style)
        return mean + truncation * (style - mean)


class Invertible(Model):
    """A model that also finds the latent of a given face (VAE, VAE/GAN, BEGAN with its autoencoder, flow)."""

    @abstractmethod
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> latents `[n, *latent_shape]`."""

    def decode_encoding(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `encode` gave -> images. The same as `decode`, but for a model whose encodings have a decoder of their own."""
        return self.decode(z, labels)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images -> what the model makes of them, both `[n, C, H, W]` in [-1, 1]."""
        return self.decode_encoding(self.encode(images, labels), labels)


@dataclass(frozen=True)
class Gaussian:
    """Normal distributions with independent dimensions, one a row."""

    mean: Tensor  # [n, *latent_shape]
    log_variance: Tensor  # [n, *latent_shape], natural logarithm

    def divergence(self) -> Tensor:
        """KL from N(0, 1) in nats for each dimension, `[n, *latent_shape]` (arXiv:1312.6114, app. B), in at least fp32."""
        mean, log_variance = (
            value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
            for value in (self.mean, self.log_variance)
        )
        return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


class Variational(Invertible):
    """A model whose encoder tells how sure it is of each code (VAE, VAE/GAN).

    A code is what the encoder gives and `render` takes. Codes are the latents themselves, unless the model learns where codes
    lie: then a flow leads from N(0, I), the latents, to codes, and back.
    """

    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        """Where the codes of images `[n, C, H, W]` in [-1, 1] lie."""

    def render(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes `[n, *latent_shape]` -> images."""
        return self.decode(codes, labels)

    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes -> the latents that `decode` makes the same images of."""
        return codes

    def information(self, posterior: Gaussian, codes: Tensor) -> Tensor:
        """What codes drawn from the posterior tell, in nats: KL from where codes lie without a face, `[n, dimensions]`.

        In closed form; of a learned prior by the draw `codes`, and for all dimensions together, `[n, 1]`.
        """
        return posterior.divergence().flatten(1)

    def carried(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Nats that each number of a face's latent tells beyond those before it, `[n, dimensions]`: their sum is the KL."""
        return self.posterior(images, labels).divergence().flatten(1)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latent of the posterior's mean, so that the same face always has the same latent."""
        return self.latents_of(self.posterior(images, labels).mean)


class SelfJudging(Invertible):
    """A model that keeps the autoencoder that judged its generator (BEGAN): the one decodes latents, the other faces."""

    generator: nn.Module  # what `decode` runs
    autoencoder: nn.Module  # what `reconstruct` runs
    carry: Tensor  # scalar buffer in [0, 1]: how much of its input each residual layer passes on unchanged


class Flowing(Invertible):
    """A model that carries noise to faces along a velocity field, and faces back (flow matching).

    Latents are as large as images. Time runs from 0, noise, to 1, faces.
    """

    solution: Solution  # how `decode` follows the field
    guidance: float  # of `decode`: over 1, faces show more of what is asked for, and vary less

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """dx/dt `[n, C, H, W]` at places `[n, C, H, W]` and times `[n]`."""

    @abstractmethod
    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        """`decode` with another solver, or led further toward what the labels ask (arXiv:2207.12598)."""

    @abstractmethod
    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        """What `decode_by` comes by: the noise, the face in the making after each step, and the face last."""


class Scalable(Model):
    """A model that paints a plane rather than pixels (CPPN): the same latent at any side."""

    @abstractmethod
    def decode_at(self, z: Tensor, side: int, labels: Tensor | None = None) -> Tensor:
        """`[n, *latent_shape]` -> images `[n, C, side, side]` in [-1, 1]."""


class PerceivingCritic(nn.Module, ABC):
    """A critic whose inner features can be compared: a learned measure of likeness (VAE/GAN)."""

    @abstractmethod
    def perceive(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real, and features `[n, ...]`."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits alone."""
        return self.perceive(images)[0]


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

    @abstractmethod
    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        """Pull the real batches it needs; successive yields alternate, a tuple is simultaneous: every gradient, then every move."""

    def schedule(self, seen: int) -> None:
        """Set what depends on the number of real images seen. Default: nothing."""

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


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """The typed description of a network that a recipe needs beside the model (a critic, an encoder)."""

    cites: ClassVar[tuple[str, ...]] = ()  # keys of mien.citations

    @abstractmethod
    def build(self, faces: Faces) -> nn.Module:
        """The network, with fresh weights from torch's default generator. Raises UsageError for a side it cannot make."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """The typed description of a model; frozen, so that a header can hold it and a run can be named by it."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, faces: Faces) -> Model:
        """The model, with fresh weights from torch's default generator. Raises UsageError for a side it cannot make."""

    def outline(self, faces: Faces) -> Model:
        """The model without its memory: shapes alone, however large. Raises what `build` raises."""
        with torch.device("meta"):
            return self.build(faces)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(ABC):
    """The typed description of a way of learning."""

    cites: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, model: Model, faces: Faces) -> Recipe:
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


class Judge(Protocol):
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


def counted(config: object, *names: str) -> None:
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
