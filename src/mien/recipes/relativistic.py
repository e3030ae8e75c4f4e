"""A game with a reason to converge (R3GAN, Huang et al. 2024, arXiv:2501.05441): the critic judges fakes against reals in
pairs, and its slope is held down around both kinds of image. The penalty can be lazy and on part of the batch, which is
what makes it cheap (Karras et al. 2020, arXiv:1912.04958, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, optim

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update, require_positive
from mien.core.families import StyleModel
from mien.core.schedules import cosine
from mien.errors import UsageError
from mien.recipes import optimizers
from mien.recipes.augmentation import DRAWS, Augment, Augmentation
from mien.recipes.losses import relativistic, zero_centred_penalty


class Relativistic(Recipe):
    """Critic, then generator, each on fresh latents and on the labels of the reals that they are paired with."""

    turn: Tensor  # steps since the last penalty

    def __init__(self, config: RelativisticConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.augment = Augment(config.augment) if config.augment.mode != "none" else None
        for name, network in (("critic", self.critic), ("generator", self.model)):
            self.optimizers[name] = optim.Adam(
                network.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True
            )
        self.enlarged = (faces.side / config.gamma_side) ** 2 if config.gamma_side else 1.0
        self.gamma = config.gamma * self.enlarged

    def schedule(self, seen: int) -> None:
        c = self.config
        self.gamma = cosine(c.gamma, c.gamma_end, seen, c.anneal_images) * self.enlarged
        beta2 = cosine(c.beta2, c.beta2_end, seen, c.anneal_images)
        for optimizer in self.optimizers.values():
            optimizers.set_rate(optimizer, cosine(c.lr, c.lr_end, seen, c.anneal_images))
            for group in optimizer.param_groups:
                group["betas"] = (c.beta1, beta2)
        if self.augment is not None:
            self.augment.schedule(seen)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        batch = self.told(next(batches))
        with torch.set_grad_enabled(not self.config.fresh_fakes):
            fakes = self.fakes(batch)
        real, fake = self.judge(batch, fakes.detach())
        loss = relativistic(real, fake)
        stats = {"critic_loss": loss, "critic_gap": (real - fake).float().mean()}
        if self.augment is not None:
            self.augment.heed(real, fake, len(fakes) * self.world)
            stats["augment_p"] = self.augment.p
        if int(self.turn) % self.config.penalty_every == 0:
            penalty = self.penalty(batch, fakes.detach())
            stats["penalty"] = penalty
            loss = loss + penalty * (0.5 * self.gamma * self.config.penalty_every)
        self.turn += 1
        yield Update(self.optimizers["critic"], loss, stats=stats)

        if self.config.fresh_reals:
            batch = self.told(next(batches))
        if self.config.fresh_fakes:
            fakes = self.fakes(batch)
        with torch.no_grad():  # the generator has no part in them
            real = self.critic(self.changed(batch.images), batch.labels)
        fake = self.critic(self.changed(fakes), batch.labels)
        loss = relativistic(fake, real)
        yield Update(self.optimizers["generator"], loss, stats={"generator_loss": loss})

    def told(self, batch: Batch) -> Batch:
        """The batch as both players are told of it: without the labels of some of its faces."""
        if batch.labels is None or not self.config.withheld:
            return batch
        kept_back = self.uniform(len(batch.labels)).to(batch.labels) < self.config.withheld
        return Batch(batch.images, batch.labels.masked_fill(kept_back[:, None], torch.nan))

    def fakes(self, batch: Batch) -> Tensor:
        """As many faces as there are reals, asked for with the reals' labels."""
        count, z = len(batch.images), self.latents(len(batch.images))
        if not self.config.style_mixing or not isinstance(self.model, StyleModel):
            return self.model.decode(z, batch.labels).to(batch.images.dtype)
        chance, where = self.uniform(count, 2).to(z).unbind(1)
        stages = torch.arange(self.model.style_count, device=z.device)
        first = 1 + (where * (len(stages) - 1)).floor()  # from there on, styles are of another latent
        shares = (chance < self.config.style_mixing)[:, None] & (stages >= first[:, None])
        faces = self.model.decode_mixed(z, self.latents(count), shares, labels=batch.labels)
        return faces.to(batch.images.dtype)

    def judge(self, batch: Batch, fakes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[n]` of reals and of fakes, from one forward: nothing in these critics mixes the batch."""
        images = torch.cat([self.changed(batch.images), self.changed(fakes)])
        labels = None if batch.labels is None else torch.cat([batch.labels, batch.labels])
        real, fake = self.critic(images, labels).chunk(2)
        return real, fake

    def changed(self, images: Tensor) -> Tensor:
        """The images as the critic gets to see them."""
        if self.augment is None:
            return images
        return self.augment(images, self.noise(images.new_empty(len(images), DRAWS)))  # type: ignore[no-any-return]

    def penalty(self, batch: Batch, fakes: Tensor) -> Tensor:
        """R1 + R2 on every penalty_part-th row of the batch, so that ranks together look at the rows that one process would.

        Taken at the images as they are, through whatever changes them.
        """
        rows = slice(None, None, self.config.penalty_part)
        images = torch.cat([batch.images[rows], fakes[rows]]).requires_grad_(True)
        labels = None if batch.labels is None else torch.cat([batch.labels[rows], batch.labels[rows]])
        real, fake = images.chunk(2)
        seen = torch.cat([self.changed(real), self.changed(fake)])
        return 2.0 * zero_centred_penalty(self.critic(seen, labels), images)


@dataclass(frozen=True, kw_only=True)
class RelativisticConfig(RecipeConfig):
    """The relativistic game and its annealing."""

    cites: ClassVar[tuple[str, ...]] = ("r3gan2024",)

    critic: NetworkConfig
    lr: float = 4e-4  # of both players at the start
    lr_end: float = 2e-4  # after anneal_images
    gamma: float = 1.0  # weight of the slope penalty
    gamma_end: float = 1.0  # after anneal_images
    gamma_side: int = (
        0  # the side that gamma is meant for: at others it goes with the pixels; 0 = the same at every side
    )
    anneal_images: int = 100_000  # over which rates and penalty go from start to end
    beta1: float = 0.0  # Adam
    beta2: float = 0.99  # Adam, at the start
    beta2_end: float = 0.99  # Adam, after anneal_images
    penalty_every: int = 4  # steps; the penalty is scaled up to match
    penalty_part: int = 4  # the penalty looks at one in so many rows
    style_mixing: float = (
        0.0  # share of faces whose finer stages get the styles of another latent, where stages have styles
    )
    withheld: float = 0.0  # share of faces, with labels, of which neither player is told them
    fresh_reals: bool = False  # whether the generator's step pulls reals of its own
    fresh_fakes: bool = (
        True  # whether it draws fakes of its own, or answers for those that the critic has just learned from
    )
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        require_positive(self, "anneal_images", "penalty_every", "penalty_part")
        if self.gamma_side < 0:
            raise UsageError(
                f"--recipe.gamma-side {self.gamma_side} is not possible.", "It is a side in pixels.", "Give 0 or more."
            )
        for name in ("style_mixing", "withheld"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(
                    f"--recipe.{name.replace('_', '-')} {getattr(self, name)} is not possible.",
                    "It is a share.",
                    "Give 0 to 1.",
                )
        if self.fresh_reals and not self.fresh_fakes:
            raise UsageError(
                "--recipe.fresh-reals needs --recipe.fresh-fakes.",
                "Fakes are asked for with the labels of the reals that they are paired with.",
                "Turn both on, or both off.",
            )

    def build(self, model: Model, faces: ImageSpec) -> Relativistic:
        return Relativistic(self, model, faces)
