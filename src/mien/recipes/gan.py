"""The non-saturating GAN (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1; Radford et al. 2015, arXiv:1511.06434).

D is the critic's probability that an image is real, G the generator:

    critic:     L_D = -log D(x) - log(1 - D(G(z)))
    generator:  L_G = -log D(G(z))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update, require_positive
from mien.recipes import optimizers
from mien.recipes.ingredients import critic_stats
from mien.recipes.losses import bce_fake, bce_real


class GAN(Recipe):
    """k steps of the critic, each on a new batch, then one step of the generator."""

    def __init__(self, config: GANConfig, model: Model, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        for name, network in (("critic", self.critic), ("generator", self.model)):
            self.optimizers[name] = optimizers.build(
                "adam-hat", network.parameters(), config.lr, (config.beta1, config.beta2)
            )

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        for _ in range(c.critic_steps):
            batch = next(batches)
            reals, labels = batch.images, self.labels_of(batch)
            with torch.set_grad_enabled(
                not c.resample_fakes
            ):  # the generator's step needs the graph of fakes it reuses
                fakes = self.model.decode(self.latents(len(reals)), labels)
            real_logits, fake_logits = self.critic(reals, labels), self.critic(fakes.detach(), labels)
            real_loss, fake_loss = bce_real(real_logits), bce_fake(fake_logits)
            stats = critic_stats(real_logits, fake_logits, real_loss, fake_loss)
            yield Update(self.optimizers["critic"], real_loss + fake_loss, stats=stats)
        if c.resample_fakes:
            fakes = self.model.decode(self.latents(len(reals)), labels)
        generator_loss = bce_real(self.critic(fakes, labels))
        yield Update(self.optimizers["generator"], generator_loss, stats={"generator_loss": generator_loss})


@dataclass(frozen=True, kw_only=True)
class GANConfig(RecipeConfig):
    """The critic, the number of its steps, and Adam's constants; its epsilon is added as in Torch7 (arXiv:1412.6980, section 2)."""

    cites: ClassVar[tuple[str, ...]] = ("gan2014",)

    critic: NetworkConfig
    critic_steps: int = 1  # k: critic steps, each on a new batch, for one generator step
    resample_fakes: bool = True  # draw new fakes for the generator's step, or reuse the critic's
    lr: float = 2e-4  # learning rate of both networks
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam

    def __post_init__(self) -> None:
        require_positive(self, "critic_steps")

    def build(self, model: Model, faces: ImageSpec) -> GAN:
        return GAN(self, model, faces)
