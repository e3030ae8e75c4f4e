"""BEGAN (Berthelot, Schumm, Metz 2017, arXiv:1703.10717): the critic is an autoencoder, and faces are judged by how well it
reproduces them. Balance is kept between its errors on reals and on fakes, not between players.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, Recipe, RecipeConfig, Update
from mien.core.families import AutoencoderCriticModel
from mien.core.schedules import linear
from mien.errors import UsageError
from mien.recipes import balance, optimizers
from mien.recipes.losses import reconstruction


class BoundaryEquilibrium(Recipe):
    """L_D = L(x) - k_t L(G(z_D)) and L_G = L(G(z_G)), with L(v) = |v - D(v)|; then k_t moves."""

    model: AutoencoderCriticModel

    def __init__(self, config: BoundaryEquilibriumConfig, model: AutoencoderCriticModel) -> None:
        super().__init__(model)
        self.config = config
        self.equilibrium = balance.Equilibrium(config.gamma, config.k_step)
        self.stall = balance.Stall(
            config.stall_steps, config.stall_tolerance, config.stall_whole_history, config.stall_lazy_mark
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
        seen = fakes.detach()
        if c.latents == "independent":
            with torch.no_grad():
                seen = self.model.decode(self.latents(len(images)))
        # In a simultaneous step on shared latents, one forward serves both players.
        joined = c.updates == "simultaneous" and c.latents == "shared"
        real, fake = self.error(images), self.error(fakes if joined else seen)
        k = self.equilibrium.k.clone()  # it moves before the gradients are taken
        loss = real - k * fake
        stats = {"critic_loss": loss, "real_error": real, "fake_error": fake, "k": k}
        critic = Update(self.optimizers["critic"], loss, stats=stats)
        if c.updates == "simultaneous":
            deceit = fake if joined else self.error(fakes)
        else:
            yield critic
            deceit = self.error(fakes)  # by the critic that has moved
        convergence = self.equilibrium.update(real, deceit if c.k_from == "generator" else fake)
        generator = Update(
            self.optimizers["generator"], deceit, stats={"generator_loss": deceit, "convergence": convergence}
        )
        yield (critic, generator) if c.updates == "simultaneous" else generator
        if self.stall.update(convergence):
            self.slow()

    def error(self, images: Tensor) -> Tensor:
        """L(v): how badly the autoencoder reproduces images, which are not held constant."""
        return reconstruction(self.model.reconstruct(images), images, self.config.norm)

    def slow(self) -> None:
        """Lower the rates."""
        c = self.config
        for optimizer in self.optimizers.values():
            rate = optimizer.param_groups[0]["lr"] * (c.gamma if c.stall_decays_by_gamma else c.stall_factor)
            optimizers.set_rate(optimizer, max(rate, c.lr_floor))


@dataclass(frozen=True, kw_only=True)
class BoundaryEquilibriumConfig(RecipeConfig):
    """The balance, the order of moves, and when the rates fall."""

    cites: ClassVar[tuple[str, ...]] = ("began2017",)

    gamma: float = (
        0.5  # wanted ratio of the errors on fakes and on reals, in [0, 1]: low for quality, high for diversity
    )
    k_step: float = 1e-3  # lambda_k: how fast k_t follows
    norm: Literal["l1", "l2"] = "l1"  # eta: the error is the mean of |v - D(v)| or of its square
    updates: Literal["simultaneous", "alternating"] = "simultaneous"  # both from one state, or the critic first
    latents: Literal["independent", "shared"] = "independent"  # whether critic and generator get latents of their own
    k_from: Literal["generator", "critic"] = (
        "generator"  # which error on fakes moves k_t and enters M, where the two differ
    )
    lr: float = 1e-4  # of both players
    lr_floor: float = 0.0  # the rate never falls below
    beta1: float = 0.9  # Adam
    beta2: float = 0.999  # Adam
    stall_steps: int = 10_000  # steps between looks at M; 0 = the rates never fall
    stall_tolerance: float = 0.9999  # M has stalled if its mean is not below this share of the last one
    stall_factor: float = 0.5  # the rates are multiplied by this when M has stalled
    stall_decays_by_gamma: bool = False  # fault: the rates are multiplied by gamma instead
    stall_whole_history: bool = False  # fault: the mean of M is over all steps so far
    stall_lazy_mark: bool = False  # fault: what M is compared with changes only when it has stalled
    carry_images: int = 0  # images over which the model's carry falls from 1 to 0 (vanishing residuals); 0 = it is 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise UsageError(
                f"--recipe.gamma {self.gamma} is not possible.", "It is a ratio of errors.", "Choose from 0 to 1."
            )

    def build(self, model: Model, faces: ImageSpec) -> BoundaryEquilibrium:
        if not isinstance(model, AutoencoderCriticModel):
            raise UsageError(
                "This recipe needs a model that judges itself.", "BEGAN's critic is kept.", "Use a BEGAN model."
            )
        return BoundaryEquilibrium(self, model)
