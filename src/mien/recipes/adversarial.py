"""Two players (Goodfellow et al. 2014, arXiv:1406.2661): a critic tells real from fake, a generator makes it fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update, require_positive
from mien.errors import UsageError
from mien.recipes import balance, ingredients, optimizers
from mien.recipes.losses import judged, judged_fake, judged_real

Balance = Literal["none", "margin", "adaptive-l2"]
FROZEN = 6  # the seed of targets that stay what they were when homogan's sixth experiment was traced


class Judgement(NamedTuple):
    """What a critic says of reals and fakes."""

    real: Tensor  # its loss on reals
    fake: Tensor  # its loss on fakes
    update: Update  # that lowers both
    deceit: Tensor  # the generator's loss on these fakes


class Adversarial(Recipe):
    """The non-saturating game, three orders of moving, and what keeps the players level."""

    calls: Tensor  # of the two optimizers, for warm-up and rhythm: critic, generator

    def __init__(self, config: AdversarialConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        ingredients.add_noise(self.model, config.generator_noise)
        ingredients.add_noise(self.critic, config.critic_noise)
        if config.spectral == "outputs":
            ingredients.normalise_spectra(self.critic)
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

    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        c = self.config
        before = int(self.calls[0])
        move_generator = True
        for _ in range(c.critic_steps):
            batch = next(batches)
            labels, reals = self.labels_of(batch), self.shown(batch.images, real=True)
            asked = self.asked(labels, len(reals))
            # A generator that will be judged on these same fakes keeps their graph; otherwise none is built.
            with torch.set_grad_enabled(not c.fresh_latents):
                fakes = self.invent(asked, len(reals))
            self.warm("critic")
            if c.updates == "simultaneous":
                yield from self.at_once(self.critic_update(reals, fakes, labels, asked), before)
                return
            if c.updates == "split":
                yield from self.apart(reals, fakes.detach(), labels, asked)
                continue
            judgement = self.critic_update(reals, fakes.detach(), labels, asked)
            move_critic, move_generator = self.who_moves(judgement)
            if move_critic:
                yield judgement.update
                self.constrain()
            del judgement
        for turn in range(self.turns(before)):
            if c.fresh_latents or turn:
                count = c.generator_ratio * len(reals)
                asked = self.asked(labels, count)
                fakes = self.invent(asked, count)
            loss = judged_real(self.critic(fakes, asked))
            if c.balance == "adaptive-l2":
                self.decay.update(loss)
            self.warm("generator")
            if move_generator:
                yield Update(self.optimizers["generator"], loss, stats={"generator_loss": loss})

    def at_once(self, judgement: Judgement, before: int) -> Iterator[tuple[Update, ...]]:
        """Both players from one state: one forward of the critic serves both."""
        move_critic, move_generator = self.who_moves(judgement)
        self.warm("generator")
        if self.config.balance == "adaptive-l2":
            self.decay.update(judgement.deceit)
        stats = {"generator_loss": judgement.deceit}
        deceit = Update(self.optimizers["generator"], judgement.deceit, stats=stats)
        moves = (move_critic, move_generator and self.turns(before) > 0)
        if any(moves):
            yield tuple(update for update, moving in zip((judgement.update, deceit), moves, strict=True) if moving)
            self.constrain()

    def apart(self, reals: Tensor, fakes: Tensor, labels: Tensor | None, asked: Tensor | None) -> Iterator[Update]:
        """The critic moves on reals, and then on fakes: two calls of Keras's `train_on_batch`."""
        if self.config.critic_rests_above is not None:
            with torch.no_grad():
                if self.rests(judged_real(self.critic(fakes, asked))):
                    return
        for name, images, told in (("real", reals, labels), ("fake", fakes, asked)):
            logits = self.critic(images, told)
            loss = self.verdict(logits, name == "real")
            stats = {f"critic_{name}": loss, f"{name}_accuracy": accuracy(logits, name == "real")}
            yield Update(self.optimizers["critic"], self.weighed(loss * self.config.critic_scale), stats=stats)
            self.constrain()

    def critic_update(
        self, reals: Tensor, fakes: Tensor, labels: Tensor | None = None, asked: Tensor | None = None
    ) -> Judgement:
        """The critic's losses on reals with their labels and on fakes with theirs, and the update that lowers both."""
        c = self.config
        if c.joint:
            told = None if labels is None or asked is None else torch.cat([labels, asked])
            logits = self.critic(torch.cat([reals, fakes.to(reals.dtype)]), told)
            real_logits, fake_logits = logits.split([len(reals), len(fakes)])
        else:
            real_logits, fake_logits = self.critic(reals, labels), self.critic(fakes, asked)
        real, fake = self.verdict(real_logits, True), self.verdict(fake_logits, False)
        # A joint batch is averaged over both halves.
        loss = self.weighed((real + fake) * ((0.5 if c.joint else 1.0) * c.critic_scale))
        stats = {
            "critic_real": real,
            "critic_fake": fake,
            "real_accuracy": accuracy(real_logits, True),
            "fake_accuracy": accuracy(fake_logits, False),
        }
        if c.balance == "adaptive-l2":
            stats["l2_coefficient"] = self.decay.coefficient
        update = Update(self.optimizers["critic"], loss, stats=stats)
        return Judgement(real, fake, update, judged_real(fake_logits))

    def verdict(self, logits: Tensor, real: bool) -> Tensor:
        """The critic's loss for logits `[n]` of images that are real, or fake."""
        c = self.config
        smooth = c.smooth_real if real else c.smooth_fake
        if not (smooth or c.flip_targets):
            return judged_real(logits) if real else judged_fake(logits)
        generator = torch.Generator().manual_seed(FROZEN) if c.frozen_targets else self.shared_noise
        count = len(logits)
        wanted = ingredients.targets(count * self.world, real, smooth, c.flip_targets, generator)
        return judged(logits, wanted[self.rank * count : (self.rank + 1) * count])

    def weighed(self, loss: Tensor) -> Tensor:
        """The critic's loss with the price of its weights."""
        c = self.config
        if c.balance == "adaptive-l2":
            loss = loss + self.decay.penalty(self.critic)
        if c.l2:
            loss = loss + 0.5 * c.l2 * balance.squared_norm(self.critic)
        if c.l1:
            loss = loss + c.l1 * balance.absolute_norm(self.critic)
        return loss

    def asked(self, labels: Tensor | None, count: int) -> Tensor | None:
        """The labels `[count, label_dim]` that fakes are made and judged with, for reals with `labels`."""
        if labels is None:
            return None
        if self.config.fake_labels == "uniform":
            return (self.uniform(count, labels.shape[1]) < 0.5).to(labels)
        return labels.repeat(count // len(labels), 1)

    def invent(self, asked: Tensor | None, count: int) -> Tensor:
        """Fakes `[count, C, H, W]` as the critic is shown them."""
        return self.shown(self.model.decode(self.latents(count), asked), real=False)

    def shown(self, images: Tensor, real: bool) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] as the critic sees them."""
        if self.config.shown == "unit":
            return (images + 1.0) / 2.0
        if self.config.shown == "standardised" and real:
            deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
            return (images - mean) / deviation.clamp(min=1e-3)
        return images

    def who_moves(self, judgement: Judgement) -> tuple[bool, bool]:
        """(critic, generator), decided from the losses before either moves."""
        c = self.config
        critic, generator = True, True
        if c.balance == "margin":
            critic, generator = balance.margin(judgement.real, judgement.fake, *c.margin)
        return critic and not self.rests(judgement.deceit), generator

    def rests(self, deceit: Tensor) -> bool:
        """Whether the critic rests until the generator, whose loss is `deceit`, has caught up."""
        bound = self.config.critic_rests_above
        return bound is not None and balance.agreed(deceit) >= bound

    def turns(self, before: int) -> int:
        """How often the generator moves in this step; the critic had been called `before` times when it began."""
        c = self.config
        if c.generator_rhythm == "times":
            return c.generator_steps
        return int(self.calls[0]) // c.generator_steps - before // c.generator_steps

    def constrain(self) -> None:
        """What follows a move of the critic."""
        if self.config.spectral == "height":
            ingredients.constrain_heights(self.critic, self.shared_noise)

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


def accuracy(logits: Tensor, real: bool) -> Tensor:
    """The share of images that are told for what they are."""
    return ((logits > 0) if real else (logits < 0)).float().mean()


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(RecipeConfig):
    """The two-player game and its switches."""

    cites: ClassVar[tuple[str, ...]] = ("gan2014",)

    critic: NetworkConfig
    updates: Literal["alternating", "simultaneous", "split"] = (
        "alternating"  # the critic, then the generator; both from one state; or the critic on reals, on fakes, then the generator
    )
    balance: Balance = "none"  # none; margin: the player who is ahead rests; adaptive-l2: decay holds the critic back
    margin: tuple[float, float] = (0.3, 0.7)  # the critic rests below, the generator above (losses in nats)
    l2_target: tuple[float, float] = (0.9, 1.2)  # where adaptive-l2 wants the generator's loss
    l2_step: float = 1e-5  # by how much its coefficient moves at a time
    l1: float = 0.0  # constant penalty on the critic's weights
    l2: float = 0.0  # constant decay of the critic's weights
    critic_rests_above: float | None = None  # the critic rests while the generator's loss is this or more
    critic_scale: float = 1.0  # factor of the critic's losses
    critic_steps: int = 1  # K: critic updates, each on a fresh batch, for one of the generator
    generator_steps: int = 1  # moves of the generator, for each step of the critic or in every so many of its batches
    generator_rhythm: Literal["times", "every"] = (
        "times"  # times: so many moves a step; every: one in so many batches (what homogan's train_g does, not what it says)
    )
    generator_ratio: int = 1  # latents in the generator's batch for each real image of the critic's
    fresh_latents: bool = True  # whether the generator is judged on new fakes, or on those the critic has just seen
    joint: bool = False  # one forward of the critic for reals and fakes; its loss is then the mean over both
    shown: Literal["symmetric", "unit", "standardised"] = (
        "symmetric"  # the critic sees values from -1 to 1; (faults) from 0 to 1; or reals with mean 0 and deviation 1 each
    )
    fake_labels: Literal["data", "uniform"] = "data"  # labels of fakes: those of the reals, or yes and no at random
    smooth_real: float = 0.0  # targets of reals lie between 1 and this much less
    smooth_fake: float = 0.0  # targets of fakes lie between 0 and this much more
    flip_targets: float = 0.0  # share of the critic's targets, rounded up, that are the opposite of the truth
    frozen_targets: bool = False  # fault: smoothing and flips are drawn once for the run
    generator_noise: float = 0.0  # deviation of the noise behind the generator's activations, while it learns
    critic_noise: float = 0.0  # the same of the critic's
    spectral: Literal["none", "outputs", "height"] = (
        "none"  # spectral norm of the critic's layers: as Miyato et al.; (fault) of convolutions, over the kernel's height
    )
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
        require_positive(self, "critic_steps", "generator_steps", "generator_ratio", "lr_decay_images")
        for name in ("smooth_real", "smooth_fake", "flip_targets"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                flag = f"--recipe.{name.replace('_', '-')}"
                raise UsageError(f"{flag} {value} is not possible.", "It is a share.", "Choose from 0 to 1.")
        if self.updates == "simultaneous" and (self.critic_steps > 1 or self.turns_repeat):
            raise UsageError(
                "Players that move at once move equally often.",
                "--recipe.updates simultaneous has one step of each.",
                "Use --recipe.updates alternating, or --recipe.generator-rhythm every.",
            )
        if self.updates == "split" and self.balance == "margin":
            raise UsageError(
                "The margin rule needs both of the critic's losses before it moves.",
                "--recipe.updates split moves it after each.",
                "Use --recipe.updates alternating, or --recipe.balance none.",
            )

    @property
    def turns_repeat(self) -> bool:
        """Whether the generator moves more than once in a step."""
        return self.generator_rhythm == "times" and self.generator_steps > 1

    def build(self, model: Model, faces: ImageSpec) -> Adversarial:
        return Adversarial(self, model, faces)
