"""BEGAN (Berthelot, Schumm, Metz 2017, arXiv:1703.10717): the critic D is an autoencoder with reconstruction error L.

L(v) = |v - D(v)|^eta
critic:     L_D = L(x) - k_t L(G(z_D))
generator:  L_G = L(G(z_G))
control:    k_{t+1} = k_t + lambda_k (gamma L(x) - L(G(z_G)))
measure:    M = L(x) + |gamma L(x) - L(G(z_G))|
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, Recipe, RecipeConfig, Update, require_fraction
from mien.core.families import AutoencoderCriticModel
from mien.core.schedules import linear
from mien.errors import UsageError
from mien.recipes import balance, optimizers
from mien.recipes.losses import reconstruction


class BEGAN(Recipe):
    """Critic and generator, from one state or one after the other; then k_t. The rates fall when M reaches a plateau."""

    model: AutoencoderCriticModel

    def __init__(self, config: BEGANConfig, model: AutoencoderCriticModel) -> None:
        super().__init__(model)
        self.config = config
        self.least_rows = 4
        self.control = balance.ProportionalControl(config.gamma, config.k_step)
        self.plateau = balance.PlateauDetector(
            config.plateau_steps, config.plateau_tolerance, config.plateau_whole_history, config.plateau_lazy_mark
        )
        for name, network in (("critic", model.autoencoder), ("generator", model.generator)):
            self.optimizers[name] = optimizers.build(
                "adam", network.parameters(), config.lr, (config.beta1, config.beta2)
            )

    def schedule(self, seen: int) -> None:
        over = self.config.carry_images
        self.model.carry.fill_(linear(1.0, 0.0, seen, over) if over else 0.0)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
        c = self.config
        images = next(batches).images
        fakes = self.model.decode(self.latents(len(images)))
        critic_fakes = fakes.detach()
        if c.latents == "independent":
            with torch.no_grad():
                critic_fakes = self.model.decode(self.latents(len(images)))
        # In a simultaneous step on shared latents, one forward serves both players.
        joint = c.updates == "simultaneous" and c.latents == "shared"
        real, fake = self.error(images), self.error(fakes if joint else critic_fakes)
        k = self.control.k.clone()  # k_t changes before the gradients are taken
        loss = real - k * fake
        stats = {"critic_loss": loss, "real_error": real, "fake_error": fake, "k": k}
        critic = Update(self.optimizers["critic"], loss, stats=stats)
        if c.updates == "simultaneous":
            generator_loss = fake if joint else self.error(fakes)
        else:
            yield critic
            generator_loss = self.error(fakes)  # by the critic after its step
        convergence = self.control.update(real, generator_loss if c.k_from == "generator" else fake)
        stats = {"generator_loss": generator_loss, "convergence": convergence}
        generator = Update(self.optimizers["generator"], generator_loss, stats=stats)
        yield (critic, generator) if c.updates == "simultaneous" else generator
        if self.plateau.update(convergence):
            self.lower_rates()

    def error(self, images: Tensor) -> Tensor:
        """L(v) of images `[n, C, H, W]`, scalar. Gradients flow through v and through D(v)."""
        return reconstruction(self.model.reconstruct(images), images, self.config.norm)

    def lower_rates(self) -> None:
        """Multiply both learning rates by the factor, but not below the floor."""
        c = self.config
        for optimizer in self.optimizers.values():
            rate = optimizer.param_groups[0]["lr"] * (c.gamma if c.plateau_decays_by_gamma else c.plateau_factor)
            optimizers.set_rate(optimizer, max(rate, c.lr_floor))


@dataclass(frozen=True, kw_only=True)
class BEGANConfig(RecipeConfig):
    """The balance, the order of updates, and the decay of the learning rates."""

    cites: ClassVar[tuple[str, ...]] = ("began2017",)

    gamma: float = (
        0.5  # gamma, in [0, 1]: target ratio of the errors on fakes and on reals; low for quality, high for diversity
    )
    k_step: float = 1e-3  # lambda_k: step size of k_t
    norm: Literal["l1", "l2"] = "l1"  # eta: the error is the mean of |v - D(v)| or of its square
    updates: Literal["simultaneous", "alternating"] = "simultaneous"  # both from one state, or the critic first
    latents: Literal["independent", "shared"] = "independent"  # latents of critic and generator
    k_from: Literal["generator", "critic"] = (
        "generator"  # whose error on fakes updates k_t and enters M, where the two differ
    )
    lr: float = 1e-4  # learning rate of both players
    lr_floor: float = 0.0  # lower bound of the rates
    beta1: float = 0.9  # Adam
    beta2: float = 0.999  # Adam
    plateau_steps: int = 10_000  # steps between checks of M; 0 = the rates stay
    plateau_tolerance: float = 0.9999  # M is on a plateau if its mean is not below this fraction of the last one
    plateau_factor: float = 0.5  # the rates are multiplied by this on a plateau
    plateau_decays_by_gamma: bool = False  # fault: the rates are multiplied by gamma instead
    plateau_whole_history: bool = False  # fault: the mean of M is over all steps so far
    plateau_lazy_mark: bool = False  # fault: the reference of M changes only on a plateau
    carry_images: int = (
        0  # images over which the model's carry decays from 1 to 0 (vanishing residuals); 0 = carry is 0
    )

    def __post_init__(self) -> None:
        require_fraction(self, "gamma")

    def without_effect(self) -> Mapping[str, str]:
        found = {}
        if not self.plateau_steps:
            names = ("tolerance", "factor", "decays_by_gamma", "whole_history", "lazy_mark")
            found = {f"plateau_{name}": "the rates stay; give --recipe.plateau-steps" for name in names}
            found["lr_floor"] = "the rates stay; give --recipe.plateau-steps"
        elif self.plateau_decays_by_gamma:
            found["plateau_factor"] = "--recipe.plateau-decays-by-gamma takes gamma in its place"
        if self.updates == "simultaneous" and self.latents == "shared":
            found["k_from"] = "one forward gives both networks the same error on fakes"
        return found

    def build(self, model: Model, faces: ImageSpec) -> BEGAN:
        if not isinstance(model, AutoencoderCriticModel):
            raise UsageError(
                "This recipe needs a model with an autoencoder as its critic.",
                f"{type(model).__name__} has none.",
                "Use a BEGAN model.",
            )
        return BEGAN(self, model)
