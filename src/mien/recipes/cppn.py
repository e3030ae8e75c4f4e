"""The two games of hardmaru's CPPN-GAN-VAE (2016), which repeat each player's steps on one batch until it is good enough.

In both, fakes are reconstructions: decoded samples of the posterior of real faces. Every loss has an Adam of its own, with
moments of its own, over the same parameters. Every forward draws new codes: one decides whether a network moves, and the next
how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update, require_positive
from mien.core.families import VariationalModel
from mien.recipes import balance, optimizers
from mien.recipes.losses import bce_fake, bce_real, full, pixel_cross_entropy
from mien.recipes.vae import draw, variational


class CPPNVAEGAN(Recipe):
    """Part one: steps of the VAE, then of the VAE and the generator together, then perhaps one of the critic."""

    model: VariationalModel

    def __init__(self, config: CPPNVAEGANConfig, model: VariationalModel, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        betas = (config.beta1, config.beta2)
        self.optimizers["autoencoder"] = optimizers.build("adam-hat", model.parameters(), config.lr_vae, betas)
        self.optimizers["autoencoder_joint"] = optimizers.build("adam-hat", model.parameters(), config.lr_joint, betas)
        self.optimizers["critic"] = optimizers.build("adam-hat", self.critic.parameters(), config.lr_critic, betas)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        images = next(batches).images
        for _ in range(c.vae_steps):
            _, bound, stats = self.reconstruct(images)
            yield Update(self.optimizers["autoencoder"], bound, stats=stats)
        for _ in range(c.joint_steps):
            reconstructions, bound, _ = self.reconstruct(images)
            generator_loss = bce_real(self.critic(reconstructions))
            yield Update(
                self.optimizers["autoencoder_joint"], generator_loss + bound, stats={"generator_loss": generator_loss}
            )
            if balance.mean_over_ranks(generator_loss) < c.joint_stop_below:
                break
        with torch.no_grad():
            real, fake = self.critic_losses(images)
        self.measure({"critic_real": real, "critic_fake": fake})
        behind = balance.mean_over_ranks((real + fake) / 2) > c.critic_moves_above
        if behind and balance.mean_over_ranks(generator_loss) < c.critic_moves_below:
            real, fake = self.critic_losses(images)
            stats = {"critic_real": real, "critic_fake": fake}
            yield Update(self.optimizers["critic"], (real + fake) / 2, stats=stats)

    def critic_losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's losses on images and on reconstructions of them."""
        with torch.no_grad():
            reconstructions, _, _ = self.reconstruct(images)
        return bce_real(self.critic(images)), bce_fake(self.critic(reconstructions))

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Copies of images, their (cross-entropy + KL) for each place, and both for the log."""
        posterior = self.model.posterior(images)
        reconstructions = self.model.decode_code(draw(posterior, self.noise(posterior.mean)))
        kl = posterior.divergence().flatten(1).sum(1).mean()
        error = pixel_cross_entropy(reconstructions, images)
        bound = images.shape[1] * error + kl / images[0, 0].numel()  # all colours of a place count, as n_points there
        return reconstructions, bound, {"reconstruction": error, "kl": kl}


@dataclass(frozen=True, kw_only=True)
class CPPNVAEGANConfig(RecipeConfig):
    """How often each repeats, and until when; losses in nats."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    critic: NetworkConfig
    vae_steps: int = 4  # of the VAE alone, on each batch
    joint_steps: int = 4  # of VAE and generator together, at most and at least one
    joint_stop_below: float = 0.6  # the joint steps stop when the generator's loss is below
    critic_moves_above: float = 0.6  # the critic moves only while its loss is above ...
    critic_moves_below: float = 0.75  # ... and the generator's is below
    lr_vae: float = 1e-3  # of the VAE's steps
    lr_joint: float = 5e-3  # of the joint steps
    lr_critic: float = 1e-3  # of the critic
    beta1: float = 0.65  # Adam
    beta2: float = 0.999  # Adam

    def __post_init__(self) -> None:
        require_positive(self, "joint_steps")

    def build(self, model: Model, faces: ImageSpec) -> CPPNVAEGAN:
        return CPPNVAEGAN(self, variational(model, "Its fakes are decoded from what an encoder draws."), faces)


def compatible(labels: Tensor | None, count: int, classes: int) -> Tensor:
    """Which classes each face may belong to, `[count, classes]`, bool: combinations of labels, of which some may be unknown."""
    if labels is None or classes == 1:
        return torch.ones(count, classes, dtype=torch.bool)
    bits = torch.arange(classes)[:, None] >> torch.arange(labels.shape[1]) & 1  # [classes, label_dim]
    known = labels.cpu()[:, None]  # [n, 1, label_dim]
    return (torch.isnan(known) | ((known > 0.5) == bits.bool())).all(2)


class CPPNClassGAN(Recipe):
    """Part two: the critic classifies real faces and fakes; reconstructions should get the class of their originals."""

    model: VariationalModel

    def __init__(self, config: CPPNClassGANConfig, model: VariationalModel, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        self.classes = 2**faces.label_dim
        betas = (config.beta1, config.beta2)
        self.optimizers["autoencoder"] = optimizers.build("adam-hat", model.parameters(), config.lr_joint, betas)
        for name in ("critic", "critic_reals"):
            self.optimizers[name] = optimizers.build("adam-hat", self.critic.parameters(), config.lr_critic, betas)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        images = batch.images
        right = compatible(batch.labels, len(images), self.classes).to(images.device)
        for _ in range(c.joint_steps):
            reconstructions, kl = self.reconstruct(images)
            logits = self.critic(reconstructions)
            generator_loss, passed = self.class_loss(logits, right), self.class_accuracy(logits, right)
            loss = generator_loss + c.kl_weight * kl / images[0, 0].numel()
            stats = {"generator_loss": generator_loss, "kl": kl, "reconstruction_accuracy": passed}
            yield Update(self.optimizers["autoencoder"], loss, clip=c.clip, stats=stats)
            if balance.mean_over_ranks(passed) > c.joint_stop_above:
                break
        yield from self.critic_steps(images, right, balance.mean_over_ranks(passed))

    def critic_steps(self, images: Tensor, right: Tensor, passed: float) -> Iterator[Update]:
        """Both kinds while fakes pass and are not caught; else reals alone while they are not named."""
        c = self.config
        with torch.no_grad():
            stats = self.critic_losses(images, right)
        self.measure(stats)
        caught, named = (balance.mean_over_ranks(stats[name]) for name in ("fake_accuracy", "real_accuracy"))
        both = passed > c.critic_moves_above and caught < c.fake_accuracy_below
        if not both and named >= c.real_accuracy_below:
            return
        optimizer = self.optimizers["critic" if both else "critic_reals"]
        for _ in range(c.critic_repeats):
            stats = self.critic_losses(images, right)
            weighed = (self.classes * stats["critic_real"] + stats["critic_fake"]) / (self.classes + 1)
            yield Update(optimizer, weighed if both else stats["critic_real"], clip=c.clip, stats=stats)
            # It moves, and stops after the move before which it was good enough.
            accuracy = balance.mean_over_ranks(stats["fake_accuracy" if both else "real_accuracy"])
            if accuracy > (c.fake_accuracy_enough if both else c.real_accuracy_enough):
                return

    def critic_losses(self, images: Tensor, right: Tensor) -> dict[str, Tensor]:
        """The critic's losses on images and on reconstructions of them, and the shares of either that it names rightly."""
        with torch.no_grad():
            reconstructions, _ = self.reconstruct(images)
        real_logits, fake_logits = self.critic(images), self.critic(reconstructions)
        fakes = torch.zeros_like(right)
        return {
            "critic_real": self.class_loss(real_logits, right),
            "critic_fake": self.class_loss(fake_logits, fakes),
            "real_accuracy": self.class_accuracy(real_logits, right),
            "fake_accuracy": self.class_accuracy(fake_logits, fakes),
        }

    def class_loss(self, logits: Tensor, right: Tensor) -> Tensor:
        """-log of the probability of the right classes; of "fake" where none is right."""
        logits = full(logits)
        mask = torch.cat([right, ~right.any(1, keepdim=True)], 1)
        return (logits.logsumexp(1) - logits.masked_fill(~mask, -torch.inf).logsumexp(1)).mean()

    def class_accuracy(self, logits: Tensor, right: Tensor) -> Tensor:
        """The share of rows whose likeliest class is right."""
        mask = torch.cat([right, ~right.any(1, keepdim=True)], 1)
        return mask.gather(1, logits.argmax(1, keepdim=True)).float().mean()

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of images, and their KL in nats."""
        posterior = self.model.posterior(images)
        reconstructions = self.model.decode_code(draw(posterior, self.noise(posterior.mean)))
        return reconstructions, posterior.divergence().flatten(1).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class CPPNClassGANConfig(RecipeConfig):
    """How often each repeats, and until when; accuracies in [0, 1]."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    critic: NetworkConfig
    kl_weight: float = 10.0  # of the divergence for each place; pixels themselves are not compared
    joint_steps: int = 16  # of encoder and painter together on each batch, at most and at least one
    joint_stop_above: float = 0.98  # they stop when this fraction of reconstructions gets the class of the originals
    critic_repeats: int = 8  # on each batch, at most
    critic_moves_above: float = 0.6  # the critic learns of fakes only if more reconstructions than this passed ...
    fake_accuracy_below: float = 0.7  # ... and fewer than this are caught,
    fake_accuracy_enough: float = 0.75  # until so many are;
    real_accuracy_below: float = 0.6  # else of reals alone, if fewer than this are named,
    real_accuracy_enough: float = 0.7  # until so many are
    lr_joint: float = 1e-3  # of encoder and painter
    lr_critic: float = 1e-3  # of the critic
    beta1: float = 0.75  # Adam
    beta2: float = 0.999  # Adam
    clip: float = 5.0  # bound on the norm of the gradient

    def __post_init__(self) -> None:
        require_positive(self, "joint_steps")

    def build(self, model: Model, faces: ImageSpec) -> CPPNClassGAN:
        return CPPNClassGAN(self, variational(model, "Its fakes are decoded from what an encoder draws."), faces)
