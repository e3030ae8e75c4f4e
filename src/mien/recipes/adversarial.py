"""Two players (Goodfellow et al. 2014, arXiv:1406.2661): a critic tells real from fake, a generator makes it fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mien import balance
from mien.core import Batch, Faces, Model, NetworkConfig, Recipe, RecipeConfig, Update, counted
from mien.losses import judged_fake, judged_real
from mien.recipes import optimizers

Balance = Literal["none", "margin", "adaptive-l2"]


class Adversarial(Recipe):
    """Alternating updates with the non-saturating loss, and the Torch blog's three ways of keeping the players level."""

    calls: Tensor  # of the two optimizers, for their warm-up: critic, generator

    def __init__(self, config: AdversarialConfig, model: Model, faces: Faces) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        self.decay = balance.AdaptiveL2(*config.l2_target, config.l2_step)
        self.register_buffer("calls", torch.zeros(2, dtype=torch.int64))
        for name, network in (("critic", self.critic), ("generator", self.model)):
            self.optimizers[name] = optimizers.build(
                config.optimizer, network.parameters(), config.lr, (config.beta1, config.beta2), config.alpha
            )
        self.lr = config.lr

    def schedule(self, seen: int) -> None:
        c = self.config
        self.lr = max(c.lr * c.lr_decay ** (seen // c.lr_decay_images), c.lr_floor) if c.lr_decay < 1.0 else c.lr

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        for _ in range(c.critic_steps):
            batch = next(batches)
            z = self.latents(len(batch.images))
            # A generator that will be judged on these same fakes keeps their graph; otherwise none is built.
            with torch.set_grad_enabled(not c.fresh_latents):
                fakes = self.model.decode(z)
            real, fake, update = self.critic_update(batch.images, fakes.detach())
            move_critic, move_generator = self.who_moves(real, fake)
            self.warm("critic")
            if move_critic:
                yield update
            del update
        if c.fresh_latents:
            fakes = self.model.decode(self.latents(c.generator_ratio * len(batch.images)))
        loss = judged_real(self.critic(fakes))
        if c.balance == "adaptive-l2":
            self.decay.update(loss)
        self.warm("generator")
        if move_generator:
            yield Update(self.optimizers["generator"], loss, stats={"generator_loss": loss})

    def critic_update(self, reals: Tensor, fakes: Tensor) -> tuple[Tensor, Tensor, Update]:
        """The critic's losses on reals and on fakes, and the update that lowers both."""
        c = self.config
        if c.joint:
            real_logits, fake_logits = self.critic(torch.cat([reals, fakes.to(reals.dtype)])).split(
                [len(reals), len(fakes)]
            )
        else:
            real_logits, fake_logits = self.critic(reals), self.critic(fakes)
        real, fake = judged_real(real_logits), judged_fake(fake_logits)
        loss = (real + fake) * (0.5 if c.joint else 1.0)  # a joint batch is averaged over both halves
        if c.balance == "adaptive-l2":
            loss = loss + self.decay.penalty(self.critic)
        if c.l2:
            loss = loss + 0.5 * c.l2 * balance.squared_norm(self.critic)
        if c.l1:
            loss = loss + c.l1 * balance.absolute_norm(self.critic)
        stats = {
            "critic_real": real,
            "critic_fake": fake,
            "real_accuracy": (real_logits > 0).float().mean(),
            "fake_accuracy": (fake_logits < 0).float().mean(),
        }
        if c.balance == "adaptive-l2":
            stats["l2_coefficient"] = self.decay.coefficient
        return real, fake, Update(self.optimizers["critic"], loss, stats=stats)

    def who_moves(self, real: Tensor, fake: Tensor) -> tuple[bool, bool]:
        """(critic, generator), decided from the critic's losses before it moves."""
        if self.config.balance == "margin":
            return balance.margin(real, fake, *self.config.margin)
        return True, True

    def warm(self, player: str) -> None:
        """Set a player's rate for its next call; calls that the balance skips count too, as in torch-gan."""
        index = 0 if player == "critic" else 1
        rate = self.lr
        for calls, divisor in zip(self.config.warmup_calls, self.config.warmup_divisors, strict=True):
            if self.calls[index] < calls:
                rate = self.lr / divisor
                break
        self.calls[index] += 1
        optimizers.set_rate(self.optimizers[player], rate)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(RecipeConfig):
    """The two-player game and its switches."""

    cites: ClassVar[tuple[str, ...]] = ("gan2014",)

    critic: NetworkConfig
    balance: Balance = "none"  # none; margin: the player who is ahead rests; adaptive-l2: decay holds the critic back
    margin: tuple[float, float] = (0.3, 0.7)  # the critic rests below, the generator above (losses in nats)
    l2_target: tuple[float, float] = (0.9, 1.2)  # where adaptive-l2 wants the generator's loss
    l2_step: float = 1e-5  # by how much its coefficient moves at a time
    l1: float = 0.0  # constant penalty on the critic's weights
    l2: float = 0.0  # constant decay of the critic's weights
    critic_steps: int = 1  # K: critic updates, each on a fresh batch, for one of the generator
    generator_ratio: int = 1  # latents in the generator's batch for each real image of the critic's
    fresh_latents: bool = True  # whether the generator is judged on new fakes, or on those the critic has just seen
    joint: bool = False  # one forward of the critic for reals and fakes; its loss is then the mean over both
    optimizer: optimizers.OptimizerName = "adam"  # of both players
    lr: float = 2e-4  # of both players
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam
    alpha: float = 0.9  # RMSprop
    lr_decay: float = 1.0  # factor every lr_decay_images
    lr_decay_images: int = 13_000  # real images
    lr_floor: float = 1e-6  # the rate never falls below
    warmup_calls: tuple[int, ...] = ()  # up to how many calls of a player's optimizer ...
    warmup_divisors: tuple[float, ...] = ()  # ... its rate is divided by this

    def __post_init__(self) -> None:
        counted(self, "critic_steps", "generator_ratio", "lr_decay_images")

    def build(self, model: Model, faces: Faces) -> Adversarial:
        return Adversarial(self, model, faces)
