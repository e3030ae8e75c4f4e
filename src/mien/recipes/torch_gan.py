"""The GAN of "Generating Faces with Torch" (2015-11-13; code: skaae/torch-gan), with its rules for balance.

With critic losses R on reals and F on fakes, and generator loss G, in nats:

    critic:       L_D = (R + F) / 2 + l1 |w| + l2 / 2 |w|^2, from one forward of reals and fakes together
    generator:    L_G = G = -log D(G(z)), on new latents, twice as many as the critic saw fakes
    margin:       the critic pauses where min(R, F) < low, the generator where max(R, F) > high; never both
    adaptive-l2:  l2 grows by a step after G > high, and shrinks by a step after G < low
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update, require_positive
from mien.core.schedules import torch_epochs
from mien.recipes import balance, optimizers
from mien.recipes.ingredients import critic_stats
from mien.recipes.losses import bce_fake, bce_real

Player = Literal["critic", "generator"]


class CriticLoss(NamedTuple):
    """The critic's losses on either half of its batch, and the update that lowers both."""

    real: Tensor  # R, scalar in nats
    fake: Tensor  # F, scalar in nats
    update: Update


class TorchGAN(Recipe):
    """K steps of the critic, then one of the generator, unless the margin rule makes one of them pause."""

    calls: Tensor  # calls of the two optimizers, which the warm-up counts: critic, generator

    def __init__(self, config: TorchGANConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        self.adaptive_l2 = (
            balance.AdaptiveL2(*config.l2_target, config.l2_step) if config.balance == "adaptive-l2" else None
        )
        self.register_buffer("calls", torch.zeros(2, dtype=torch.int64))
        for name, network in (("critic", self.critic), ("generator", self.model)):
            self.optimizers[name] = optimizers.build("rmsprop", network.parameters(), config.lr, alpha=config.alpha)
        self.lr = config.lr

    def schedule(self, seen: int) -> None:
        c = self.config
        self.lr = torch_epochs(c.lr, c.lr_decay, seen, c.lr_decay_images, c.lr_floor) if c.lr_decay < 1.0 else c.lr

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        for _ in range(c.critic_steps):
            batch = next(batches)
            reals, labels = batch.images, self.labels_of(batch)
            with torch.no_grad():
                fakes = self.model.decode(self.latents(len(reals)), labels)
            self.warm_up("critic")
            loss = self.critic_loss(reals, fakes, labels)
            critic_moves, generator_moves = True, True
            if c.balance == "margin":
                critic_moves, generator_moves = balance.margin(loss.real, loss.fake, *c.margin)
            self.measure(loss.update.stats)  # also when nobody moves: the three curves have no gaps
            if critic_moves:
                yield loss.update
            del loss  # and its graph
        labels = None if labels is None else labels.repeat(c.generator_ratio, 1)
        fakes = self.model.decode(self.latents(c.generator_ratio * len(reals)), labels)
        generator_loss = bce_real(self.critic(fakes, labels))
        if self.adaptive_l2 is not None:
            self.adaptive_l2.update(generator_loss)
        self.warm_up("generator")
        self.measure({"generator_loss": generator_loss})
        if generator_moves:
            yield Update(self.optimizers["generator"], generator_loss, stats={"generator_loss": generator_loss})

    def critic_loss(self, reals: Tensor, fakes: Tensor, labels: Tensor | None = None) -> CriticLoss:
        """L_D on `[n, C, H, W]` reals and as many fakes with the same labels."""
        c = self.config
        both = None if labels is None else torch.cat([labels, labels])
        real_logits, fake_logits = self.critic(torch.cat([reals, fakes.to(reals.dtype)]), both).chunk(2)
        real, fake = bce_real(real_logits), bce_fake(fake_logits)
        loss = (real + fake) * 0.5
        stats = critic_stats(real_logits, fake_logits, real, fake)
        if self.adaptive_l2 is not None:
            loss = loss + self.adaptive_l2.penalty(self.critic)
            stats["l2_coefficient"] = self.adaptive_l2.coefficient
        if c.l2:
            loss = loss + 0.5 * c.l2 * balance.squared_norm(self.critic)
        if c.l1:
            loss = loss + c.l1 * balance.absolute_norm(self.critic)
        return CriticLoss(real, fake, Update(self.optimizers["critic"], loss, stats=stats))

    def warm_up(self, player: Player) -> None:
        """Set the rate of a player's next call. Calls that the margin rule skips count too, as in torch-gan."""
        index = 0 if player == "critic" else 1
        rate = self.lr
        for calls, divisor in zip(self.config.warmup_calls, self.config.warmup_divisors, strict=True):
            if self.calls[index] < calls:
                rate = self.lr / divisor
                break
        self.calls[index] += 1
        optimizers.set_rate(self.optimizers[player], rate)


@dataclass(frozen=True, kw_only=True)
class TorchGANConfig(RecipeConfig):
    """The rule for balance, the critic's penalties, and RMSprop with its warm-up."""

    cites: ClassVar[tuple[str, ...]] = ("gan2014",)

    critic: NetworkConfig
    balance: Literal["none", "margin", "adaptive-l2"] = (
        "margin"  # margin: the player that is ahead pauses; adaptive-l2: weight decay on the critic follows the losses
    )
    margin: tuple[float, float] = (0.3, 0.7)  # nats: the critic pauses below the first, the generator above the second
    l2_target: tuple[float, float] = (0.9, 1.3)  # nats: where adaptive-l2 keeps the generator's loss
    l2_step: float = 1e-5  # change of adaptive-l2's coefficient in one step
    l1: float = 0.0  # constant L1 penalty on the critic's weights
    l2: float = 0.0  # constant weight decay of the critic
    critic_steps: int = 1  # K: critic steps, each on a new batch, for one generator step
    generator_ratio: int = 2  # latents in the generator's batch for each real image in the critic's
    lr: float = 1e-3  # learning rate of both networks
    alpha: float = 0.9  # RMSprop
    lr_decay: float = 0.99  # in epoch e > 1 the rate is multiplied by this to the power e
    lr_decay_images: int = 13_056  # real images in an epoch
    lr_floor: float = 1e-6  # the decayed rate stays at or above this
    warmup_calls: tuple[int, ...] = (10, 30)  # up to these numbers of calls of a network's optimizer ...
    warmup_divisors: tuple[float, ...] = (50.0, 5.0)  # ... its rate is divided by these

    def __post_init__(self) -> None:
        require_positive(self, "critic_steps", "generator_ratio", "lr_decay_images")

    def without_effect(self) -> Mapping[str, str]:
        found = {}
        if self.balance != "margin":
            found["margin"] = "it belongs to --recipe.balance margin"
        if self.balance != "adaptive-l2":
            found |= dict.fromkeys(("l2_target", "l2_step"), "it belongs to --recipe.balance adaptive-l2")
        if self.lr_decay >= 1.0:
            found |= dict.fromkeys(
                ("lr_decay_images", "lr_floor"), "the rate stays; --recipe.lr-decay 0.99 lets it fall"
            )
        return found

    def build(self, model: Model, faces: ImageSpec) -> TorchGAN:
        return TorchGAN(self, model, faces)
