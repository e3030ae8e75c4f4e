"""R3GAN (Huang et al. 2024, arXiv:2501.05441): a relativistic loss with R1 and R2 gradient penalties.

D is the critic's logit; x and G(z) are paired by row:

    critic:     L_D = softplus(D(G(z)) - D(x)) + gamma / 2 (R1 + R2)
    generator:  L_G = softplus(D(x) - D(G(z)))
    penalties:  R1 = E |grad_x D(x)|^2 and R2 = E |grad_v D(v)|^2 at v = G(z)
    labels:     with `label_weight` w, L_D + w / K sum_k softplus(D(x, y with label k turned into its opposite) - D(x, y))

The term of the labels y makes the projection of a critic (arXiv:1802.05637) tell labels as surely as an auxiliary classifier does
(Odena et al. 2016, arXiv:1610.09585), by the inner products that its logits consist of anyway; fakes have no part in it, and
the generator's loss is what it was.

Lazy regularisation (Karras et al. 2020, arXiv:1912.04958, section 3.1) makes the penalties cheap: they are computed every
few steps, with a weight scaled up to match, and on a fraction of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil, floor, inf
from typing import ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from mien.core.contracts import (
    Batch,
    ImageSpec,
    Model,
    NetworkConfig,
    Recipe,
    RecipeConfig,
    Update,
    require_fraction,
    require_positive,
)
from mien.core.families import StyleModel
from mien.core.schedules import cosine
from mien.errors import UsageError
from mien.nn.labels import LabelProjection
from mien.recipes import optimizers
from mien.recipes.augmentation import DRAWS, Augment, Augmentation
from mien.recipes.losses import full, gradient_penalty, relativistic_loss
from mien.recipes.soap import SOAP, by_matrices


class ProjectionCritic(Protocol):
    """A critic whose logits are linear in its features, and compare them with labels (arXiv:1802.05637)."""

    project: LabelProjection

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor: ...

    def logits(self, features: Tensor, labels: Tensor | None = None) -> Tensor: ...


class RelativisticGAN(Recipe):
    """Critic, then generator. Fakes have the labels of the reals that they are paired with."""

    steps: Tensor  # steps so far, which the interval of the penalties counts

    def __init__(self, config: RelativisticGANConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        if config.freeze:
            freeze(self.critic, config.freeze)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.least_rows = max(4, ceil(1.0 / config.reg_fraction))  # some of which are penalised
        self.weighs_labels = bool(config.label_weight and faces.label_dim)
        if self.weighs_labels:
            require_projection(self.critic, config.label_weight)
        self.augment = Augment(config.augment) if config.augment.mode != "none" else None
        moving = [weight for weight in self.critic.parameters() if weight.requires_grad]
        self.optimizers["critic"] = config.optimizer_of(self.critic, moving)
        self.optimizers["generator"] = config.optimizer_of(self.model, self.model.parameters())
        self.gamma_scale = (faces.side / config.gamma_side) ** 2 if config.gamma_side else 1.0
        self.gamma = config.gamma * self.gamma_scale

    def schedule(self, seen: int) -> None:
        c = self.config
        self.gamma = cosine(c.gamma, c.gamma_end, seen, c.decay_images) * self.gamma_scale
        beta2 = cosine(c.beta2, c.beta2_end, seen, c.decay_images)
        for optimizer in self.optimizers.values():
            optimizers.set_rate(optimizer, cosine(c.lr, c.lr_end, seen, c.decay_images))
            for group in optimizer.param_groups:
                group["betas"] = (c.beta1, beta2)
        if self.augment is not None:
            self.augment.schedule(seen)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        batch = self.drop_labels(next(batches))
        with torch.set_grad_enabled(not self.config.resample_fakes):
            fakes = self.fakes(batch)
        real, fake, margins = self.judge(batch, fakes.detach())
        loss = relativistic_loss(real, fake)
        stats = {"critic_loss": loss, "logit_difference": (real - fake).float().mean()}
        if margins is not None:
            stats["label_loss"] = F.softplus(-margins).mean()
            loss = loss + self.config.label_weight * stats["label_loss"]
        if self.augment is not None:
            self.augment.heed(real, fake, len(fakes) * self.world)
            stats["augment_p"] = self.augment.p
        if int(self.steps) % self.config.reg_interval == 0:
            penalty = self.penalty(batch, fakes.detach())
            stats["penalty"] = penalty
            loss = loss + penalty * (0.5 * self.gamma * self.config.reg_interval)
        self.steps += 1
        yield Update(self.optimizers["critic"], loss, stats=stats)

        if self.config.resample_reals:
            batch = self.drop_labels(next(batches))
        if self.config.resample_fakes:
            fakes = self.fakes(batch)
        if self.config.resample_reals:
            with torch.no_grad():  # the generator's gradient does not pass through the reals
                real = self.critic(self.augmented(batch.images), batch.labels)
        fake = self.critic(self.augmented(fakes), batch.labels)
        loss = relativistic_loss(fake, real.detach())  # the same reals as the critic judged them before it moved
        yield Update(self.optimizers["generator"], loss, stats={"generator_loss": loss})

    def drop_labels(self, batch: Batch) -> Batch:
        """The batch, with the labels of a random fraction of its images unknown (NaN), for both players."""
        if batch.labels is None or not self.config.label_dropout:
            return batch
        dropped = self.uniform(len(batch.labels)).to(batch.labels) < self.config.label_dropout
        return Batch(batch.images, batch.labels.masked_fill(dropped[:, None], torch.nan))

    def fakes(self, batch: Batch) -> Tensor:
        """As many fakes `[n, C, H, W]` as reals, with the reals' labels."""
        count, z = len(batch.images), self.latents(len(batch.images))
        if not self.config.style_mixing or not isinstance(self.model, StyleModel):
            return self.model.decode(z, batch.labels).to(batch.images.dtype)
        mixing, position = self.uniform(count, 2).to(z).unbind(1)
        stages = torch.arange(self.model.style_count, device=z.device)
        first = 1 + (position * (len(stages) - 1)).floor()  # the first stage with the style of another latent
        shares = (mixing < self.config.style_mixing)[:, None] & (stages >= first[:, None])
        faces = self.model.decode_mixed(z, self.latents(count), shares, labels=batch.labels)
        return faces.to(batch.images.dtype)

    def judge(self, batch: Batch, fakes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits `[n]` of reals and of fakes, from one forward: these critics have no layer that mixes the batch.

        With a weight on labels also the margins of the reals' own labels, `[n, label_dim]`.
        """
        images = torch.cat([self.augmented(batch.images), self.augmented(fakes)])
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        if not self.weighs_labels:
            real, fake = self.critic(images, labels).chunk(2)
            return real, fake, None
        critic = cast(ProjectionCritic, self.critic)
        features = critic.features(images, labels)
        real, fake = critic.logits(features, labels).chunk(2)
        return real, fake, full(critic.project.margins(features[: len(fakes)], batch.labels))

    def augmented(self, images: Tensor) -> Tensor:
        """The images as the critic gets them."""
        if self.augment is None:
            return images
        return self.augment(images, self.noise(images.new_empty(len(images), DRAWS)))  # type: ignore[no-any-return]

    def penalty(self, batch: Batch, fakes: Tensor) -> Tensor:
        """R1 + R2 on a fraction of the batch, with gradients taken at the images before augmentation, scalar.

        The rows are evenly spaced, so that all ranks together use the rows that one process would.
        """
        rows = spread(len(fakes), self.config.reg_fraction)
        images = torch.cat([batch.images[rows], fakes[rows]]).requires_grad_(True)
        labels = None if batch.labels is None else torch.cat([batch.labels[rows], batch.labels[rows]])
        real, fake = images.chunk(2)
        logits = self.critic(torch.cat([self.augmented(real), self.augmented(fake)]), labels)
        return 2.0 * gradient_penalty(logits, images)


def require_projection(critic: nn.Module, weight: float) -> None:
    """Raises UsageError for a critic that does not compare its features with labels."""
    if not isinstance(getattr(critic, "project", None), LabelProjection):
        raise UsageError(
            f"--recipe.label-weight {weight:g} is not possible.",
            f"This {type(critic).__name__} does not compare its features with labels.",
            "Give --recipe.label-weight 0, or use --recipe.critic.conditioning projection.",
        )


def freeze(critic: nn.Module, stages: int) -> None:
    """Hold the finest stages of a critic that has stages. Raises UsageError for another, or where none would be left."""
    count = len(getattr(critic, "stages", ()))
    if not hasattr(critic, "freeze") or stages >= count:
        raise UsageError(
            f"--recipe.freeze {stages} is not possible.",
            f"This critic has {count} stages." if count else f"A {type(critic).__name__} has no stages.",
            f"Give 0 to {count - 1}." if count else "Leave it at 0.",
        )
    critic.freeze(stages)  # type: ignore[operator]


def spread(count: int, fraction: float) -> list[int]:
    """Evenly spaced rows of a batch of `count`, the first among them: one in 1 / `fraction`."""
    ends = [
        floor(row * fraction + 1e-9) for row in range(-1, count)
    ]  # the term absorbs the rounding of 1/3 and the like
    return [row for row in range(count) if ends[row + 1] > ends[row]]


@dataclass(frozen=True, kw_only=True)
class RelativisticGANConfig(RecipeConfig):
    """The critic, the gradient penalties, the schedules, and what else acts on the batch."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)

    critic: NetworkConfig
    lr: float = 4e-4  # learning rate of both players, at the start
    lr_end: float = 2e-4  # learning rate after decay_images
    gamma: float = 1.0  # weight of R1 and R2, at the start
    gamma_end: float = 1.0  # weight of R1 and R2 after decay_images
    gamma_side: int = (
        0  # side at which gamma holds; at others it scales with the number of pixels; 0 = the same at all sides
    )
    decay_images: int = 100_000  # images over which rates, gamma and beta2 decay along half a cosine
    optimizer: Literal["adam", "soap"] = "adam"  # of both players; soap is Adam in the eigenbasis of recent gradients
    hold_norms: bool = False  # with soap: matrices of weights keep the norm that they start with, where that is not 0
    beta1: float = 0.0  # Adam; 0 with soap
    beta2: float = 0.99  # Adam, at the start
    beta2_end: float = 0.99  # Adam, after decay_images
    reg_interval: int = 4  # steps between gradient penalties, whose weight is scaled up to match
    reg_fraction: float = 0.25  # fraction of the batch that the gradient penalties use, above 0 and up to 1
    style_mixing: float = (
        0.0  # fraction of fakes whose finer stages get the style of another latent, for models with styles
    )
    label_weight: float = 0.0  # weight of the critic's loss by which a real's own labels must beat each one's opposite
    label_dropout: float = 0.0  # label dropout rate: fraction of faces whose labels neither player gets
    resample_reals: bool = False  # draw new reals for the generator's step, or reuse the critic's and their logits
    resample_fakes: bool = True  # draw new fakes for the generator's step, or reuse the critic's
    freeze: int = 0  # finest resolutions of the critic whose weights do not move (FreezeD, arXiv:2002.10964)
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        require_positive(self, "decay_images", "reg_interval")
        if not 0.0 < self.reg_fraction <= 1.0:
            raise UsageError(
                f"--recipe.reg-fraction {self.reg_fraction} is not possible.",
                "It is a fraction of the batch.",
                "Give more than 0, up to 1.",
            )
        if self.gamma_side < 0:
            raise UsageError(
                f"--recipe.gamma-side {self.gamma_side} is not possible.", "It is a side in pixels.", "Give 0 or more."
            )
        require_fraction(self, "style_mixing", "label_dropout")
        if self.optimizer == "soap" and self.beta1:
            raise UsageError(
                f"--recipe.beta1 {self.beta1:g} is not possible with --recipe.optimizer soap.",
                "Its first moment is the gradient itself.",
                "Leave beta1 at 0, or use --recipe.optimizer adam.",
            )
        if not 0.0 <= self.label_weight < inf:
            raise UsageError(
                f"--recipe.label-weight {self.label_weight} is not possible.",
                "It is the weight of a loss.",
                "Give 0 or more; 0.5 is cgan's.",
            )
        if self.resample_reals and not self.resample_fakes:
            raise UsageError(
                "--recipe.resample-reals needs --recipe.resample-fakes.",
                "Fakes have the labels of the reals that they are paired with.",
                "Turn both on, or both off.",
            )

    def optimizer_of(self, network: nn.Module, weights: Iterable[nn.Parameter]) -> optim.Optimizer:
        """A new optimizer of these weights of a network."""
        if self.optimizer == "soap":
            return SOAP(by_matrices(network, weights), self.lr, self.beta2, hold=self.hold_norms)
        return optim.Adam(weights, lr=self.lr, betas=(self.beta1, self.beta2), eps=1e-8, fused=True)

    def build(self, model: Model, faces: ImageSpec) -> RelativisticGAN:
        return RelativisticGAN(self, model, faces)
