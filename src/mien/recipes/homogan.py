"""The GAN of homogan (A. Nieto et al., UPC 2020), with what its sixteen experiments tried.

D is the critic's probability that an image is real, t its target, 1 for real and 0 for fake before smoothing and flips:

    critic:        L(x, t) = -t log D(x) - (1 - t) log(1 - D(x))
    simultaneous:  L_D = (L(x, t_real) + L(G(z), t_fake)) / 2 and L_G = L(G(z), 1), from one state and on the same fakes
    split:         L(x, t_real), then L(G(z), t_fake), each a step of its own; then L_G on new fakes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

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
from mien.errors import UsageError
from mien.recipes import balance, ingredients, optimizers
from mien.recipes.losses import bce, bce_fake, bce_real

FROZEN_SEED = (
    6  # of targets that are drawn once for a run, as in homogan's sixth experiment: of reals, and of fakes the next
)


class HomoGAN(Recipe):
    """A label-conditional GAN with two orders of updates and a generator that may move less often than the critic."""

    batches_seen: Tensor  # batches that the critic has had, which the generator's schedule counts

    def __init__(self, config: HomoGANConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        ingredients.add_noise(self.model, config.generator_noise)
        ingredients.add_noise(self.critic, config.critic_noise)
        if config.spectral_norm == "layer":
            ingredients.add_spectral_norm(self.critic)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        for name, network in (("critic", self.critic), ("generator", self.model)):
            self.optimizers[name] = optimizers.build(  # Keras's Adam
                "adam-hat", network.parameters(), config.lr, (config.beta1, config.beta2), eps=1e-7
            )

    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        before = int(self.batches_seen)
        for _ in range(self.config.critic_steps):
            batch = next(batches)
            labels, reals = self.labels_of(batch), self.critic_input(batch.images, real=True)
            self.batches_seen += 1
            if self.config.updates == "simultaneous":
                yield from self.simultaneous_update(reals, labels, self.generator_steps(before))
                return
            if int(self.batches_seen) % self.config.critic_interval:
                self.measure_critic(reals, labels)
                continue
            yield from self.split_update(reals, labels)
        for _ in range(self.generator_steps(before)):
            fakes, fake_labels = self.fakes(labels, len(reals))
            loss = bce_real(self.critic(fakes, fake_labels))
            yield Update(self.optimizers["generator"], loss, stats={"generator_loss": loss})

    def simultaneous_update(
        self, reals: Tensor, labels: Tensor | None, generator_steps: int
    ) -> Iterator[tuple[Update, ...]]:
        """Both networks move from one state; one forward of the critic on the fakes serves both."""
        fakes, fake_labels = self.fakes(labels, len(reals))
        real_logits, fake_logits = self.critic(reals, labels), self.critic(fakes, fake_labels)
        real, fake = self.critic_loss(real_logits, real=True), self.critic_loss(fake_logits, real=False)
        generator_loss = bce_real(fake_logits)
        stats = ingredients.critic_stats(real_logits, fake_logits, real, fake)
        self.measure({**stats, "generator_loss": generator_loss})  # also of a network that does not move
        updates = []
        if not self.critic_pauses(generator_loss):
            updates.append(Update(self.optimizers["critic"], (real + fake) * 0.5, stats=stats))
        if generator_steps:
            stats = {"generator_loss": generator_loss}
            updates.append(Update(self.optimizers["generator"], generator_loss, stats=stats))
        if updates:
            yield tuple(updates)
            self.constrain()

    def split_update(self, reals: Tensor, labels: Tensor | None) -> Iterator[Update]:
        """The critic moves on reals, then on fakes: two calls of Keras's `train_on_batch`."""
        with torch.no_grad():
            self.model.eval()  # Keras's `predict`: without noise
            fakes, fake_labels = self.fakes(labels, len(reals))
            self.model.train()
            if self.config.critic_pause_above is not None and self.critic_pauses(
                bce_real(self.critic(fakes, fake_labels))
            ):
                self.measure_critic(reals, labels)
                return
        for name, images, condition in (("real", reals, labels), ("fake", fakes, fake_labels)):
            real = name == "real"
            logits = self.critic(images, condition)
            loss = self.critic_loss(logits, real)
            stats = {f"critic_{name}": loss, f"{name}_accuracy": ingredients.accuracy(logits, real)}
            if not real:  # in a batch without a step of the generator, its loss is that on the critic's fakes
                self.measure({"generator_loss": bce_real(logits)})
            yield Update(self.optimizers["critic"], loss, stats=stats)
            self.constrain()

    @torch.no_grad()
    def measure_critic(self, reals: Tensor, labels: Tensor | None) -> None:
        """Log all three losses of a batch without a step of the critic."""
        fakes, fake_labels = self.fakes(labels, len(reals))
        real_logits, fake_logits = self.critic(reals, labels), self.critic(fakes, fake_labels)
        losses = self.critic_loss(real_logits, True), self.critic_loss(fake_logits, False)
        self.measure(ingredients.critic_stats(real_logits, fake_logits, *losses))
        self.measure({"generator_loss": bce_real(fake_logits)})

    def critic_loss(self, logits: Tensor, real: bool) -> Tensor:
        """L(x, t) for logits `[n]` of images that are all real, or all fake."""
        c = self.config
        smoothing = c.smooth_real if real else c.smooth_fake
        if not (smoothing or c.flip_targets):
            return bce_real(logits) if real else bce_fake(logits)
        generator = torch.Generator().manual_seed(FROZEN_SEED + (not real)) if c.frozen_targets else self.shared_noise
        count = len(logits)
        targets = ingredients.targets(count * self.world, real, smoothing, c.flip_targets, generator)
        return bce(logits, targets[self.rank * count : (self.rank + 1) * count])

    def fakes(self, labels: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
        """Fakes `[count, C, H, W]` as the critic's input, and the labels `[count, label_dim]` that they were made with."""
        if labels is not None and self.config.fake_labels == "uniform":
            labels = (self.uniform(count, labels.shape[1]) < 0.5).to(labels)
        return self.critic_input(self.model.decode(self.latents(count), labels), real=False), labels

    def critic_input(self, images: Tensor, real: bool) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1], scaled as the critic gets them."""
        if self.config.critic_input == "unit":
            return (images + 1.0) / 2.0
        if self.config.critic_input == "standardised" and real:
            deviation, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
            return (images - mean) / deviation.clamp(min=1e-3)
        return images

    def critic_pauses(self, generator_loss: Tensor) -> bool:
        """Whether the generator's loss, over all ranks, is so high that the critic waits for it."""
        bound = self.config.critic_pause_above
        return bound is not None and balance.mean_over_ranks(generator_loss) >= bound

    def generator_steps(self, before: int) -> int:
        """Steps of the generator now; the critic had had `before` batches when this step began."""
        c = self.config
        if c.generator_schedule == "per-step":
            return c.generator_steps
        return int(self.batches_seen) // c.generator_steps - before // c.generator_steps

    def constrain(self) -> None:
        """Apply homogan's constraint after a step of the critic."""
        if self.config.spectral_norm == "kernel-height":
            ingredients.constrain_kernel_heights(self.critic, self.shared_noise)


@dataclass(frozen=True, kw_only=True)
class HomoGANConfig(RecipeConfig):
    """The order of updates, the critic's targets and input, noise, spectral norm, and Adam's constants."""

    cites: ClassVar[tuple[str, ...]] = ("gan2014",)

    critic: NetworkConfig
    updates: Literal["simultaneous", "split"] = (
        "split"  # simultaneous: both networks from one state; split: the critic on reals, on fakes, then the generator
    )
    critic_steps: int = 1  # batches of the critic in one step
    critic_interval: int = 1  # the critic moves in one of so many batches (homogan's train_d)
    generator_steps: int = 1  # n: generator steps in each step, or one in every n batches (see generator_schedule)
    generator_schedule: Literal["per-step", "interval"] = (
        "per-step"  # per-step: n generator steps a step; interval: one in every n batches (what homogan's train_g does)
    )
    critic_pause_above: float | None = None  # nats: the critic pauses while the generator's loss is at or above this
    critic_input: Literal["symmetric", "unit", "standardised"] = (
        "symmetric"  # pixels from -1 to 1; (fault) from 0 to 1; (fault) each real with mean 0 and deviation 1
    )
    fake_labels: Literal["data", "uniform"] = "data"  # labels of fakes: those of the reals, or 0 and 1 at random
    smooth_real: float = 0.0  # label smoothing: targets of reals lie between 1 and 1 minus this
    smooth_fake: float = 0.0  # label smoothing: targets of fakes lie between 0 and this
    flip_targets: float = 0.0  # share of the critic's targets, rounded up, that are flipped
    frozen_targets: bool = False  # fault: draw smoothing and flips once for the whole run
    generator_noise: float = 0.0  # standard deviation of noise behind the generator's activations, in training
    critic_noise: float = 0.0  # standard deviation of noise behind the critic's activations, in training
    spectral_norm: Literal["none", "layer", "kernel-height"] = (
        "none"  # of the critic. layer: as Miyato et al.; kernel-height: (fault) of convolutions, over the kernel's rows
    )
    lr: float = 2e-4  # learning rate of both networks
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam

    def __post_init__(self) -> None:
        require_positive(self, "critic_steps", "critic_interval", "generator_steps")
        require_fraction(self, "smooth_real", "smooth_fake", "flip_targets")
        repeats = self.generator_schedule == "per-step" and self.generator_steps > 1
        if self.updates == "simultaneous" and (max(self.critic_steps, self.critic_interval) > 1 or repeats):
            raise UsageError(
                "--recipe.updates simultaneous allows one critic step and one generator step.",
                "Both networks move once, from one state.",
                "Use --recipe.updates split, or --recipe.generator-schedule interval.",
            )

    def without_effect(self) -> Mapping[str, str]:
        found = {}
        if not (self.smooth_real or self.smooth_fake or self.flip_targets):
            found["frozen_targets"] = "targets are plain 0 and 1; --recipe.smooth-real, --recipe.smooth-fake and "
            found["frozen_targets"] += "--recipe.flip-targets draw them"
        if self.generator_steps == 1:
            found["generator_schedule"] = "one step a batch is the same either way; see --recipe.generator-steps"
        return found

    def build(self, model: Model, faces: ImageSpec) -> HomoGAN:
        return HomoGAN(self, model, faces)
