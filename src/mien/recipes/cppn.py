"""The two games of hardmaru's CPPN-GAN-VAE (2016), which repeat each player's steps on one batch until it is good enough.

In both, fakes are copies: decodings of what the encoder drew for real faces. Both of the autoencoder's losses move one Adam,
whose rate is set for each; the original keeps one Adam a loss, with moments of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update
from mien.core.families import VariationalModel
from mien.errors import UsageError
from mien.recipes import balance, optimizers
from mien.recipes.losses import full, judged_fake, judged_real, pixel_cross_entropy
from mien.recipes.vae import draw


def variational(model: Model) -> VariationalModel:
    """The model, if it has an encoder that knows its doubt. Raises UsageError."""
    if not isinstance(model, VariationalModel):
        raise UsageError(
            "This recipe needs a model with an encoder that knows its doubt.",
            "Its fakes are decoded from what an encoder draws.",
            "Use a CPPN or a VAE's model.",
        )
    return model


class RepeatedSteps(Recipe):
    """Part one: steps of the VAE, then of the VAE and the generator together, then perhaps one of the critic."""

    model: VariationalModel

    def __init__(self, config: RepeatedStepsConfig, model: VariationalModel, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        betas = (config.beta1, config.beta2)
        self.optimizers["autoencoder"] = optimizers.build("adam", model.parameters(), config.lr_joint, betas)
        self.optimizers["critic"] = optimizers.build("adam", self.critic.parameters(), config.lr_critic, betas)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c, autoencoder = self.config, self.optimizers["autoencoder"]
        images = next(batches).images
        for _ in range(c.vae_steps):
            _, bound, stats = self.copy(images)
            optimizers.set_rate(autoencoder, c.lr_vae)
            yield Update(autoencoder, bound, stats=stats)
        for _ in range(c.joint_steps):
            copies, bound, _ = self.copy(images)
            deceit = judged_real(self.critic(copies))
            optimizers.set_rate(autoencoder, c.lr_joint)
            yield Update(autoencoder, deceit + bound, stats={"generator_loss": deceit})
            if balance.agreed(deceit) < c.deceived_below:
                break
        with torch.no_grad():
            copies, _, _ = self.copy(images)
        real, fake = judged_real(self.critic(images)), judged_fake(self.critic(copies))
        loss = (real + fake) / 2
        if balance.agreed(loss) > c.critic_moves_above and balance.agreed(deceit) < c.critic_moves_below:
            yield Update(self.optimizers["critic"], loss, stats={"critic_real": real, "critic_fake": fake})

    def copy(self, images: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Copies of images, their (cross-entropy + KL) for each pixel value, and both for the log."""
        posterior = self.model.posterior(images)
        copies = self.model.render(draw(posterior, self.noise(posterior.mean)))
        kl = posterior.divergence().flatten(1).sum(1).mean()
        error = pixel_cross_entropy(copies, images)
        return copies, error + kl / images[0].numel(), {"reconstruction": error, "kl": kl}


@dataclass(frozen=True, kw_only=True)
class RepeatedStepsConfig(RecipeConfig):
    """How often each repeats, and until when; losses in nats."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    critic: NetworkConfig
    vae_steps: int = 4  # of the VAE alone, on each batch
    joint_steps: int = 4  # of VAE and generator together, at most and at least one
    deceived_below: float = 0.6  # the joint steps stop when the generator's loss is below
    critic_moves_above: float = 0.6  # the critic moves only while its loss is above ...
    critic_moves_below: float = 0.75  # ... and the generator's is below
    lr_vae: float = 1e-3  # of the VAE's steps
    lr_joint: float = 5e-3  # of the joint steps
    lr_critic: float = 1e-3  # of the critic
    beta1: float = 0.65  # Adam
    beta2: float = 0.999  # Adam

    def __post_init__(self) -> None:
        if self.joint_steps < 1:
            raise UsageError("--recipe.joint-steps 0 is not possible.", "The generator plays.", "Give 1 or more.")

    def build(self, model: Model, faces: ImageSpec) -> RepeatedSteps:
        return RepeatedSteps(self, variational(model), faces)


def compatible(labels: Tensor | None, count: int, classes: int) -> Tensor:
    """Which classes each face may belong to, `[count, classes]`, bool: combinations of labels, of which some may be unknown."""
    if labels is None or classes == 1:
        return torch.ones(count, classes, dtype=torch.bool)
    bits = torch.arange(classes)[:, None] >> torch.arange(labels.shape[1]) & 1  # [classes, label_dim]
    known = labels.cpu()[:, None]  # [n, 1, label_dim]
    return (torch.isnan(known) | ((known > 0.5) == bits.bool())).all(2)


class NamedFaces(Recipe):
    """Part two: the critic names a real face's class, or calls it a fake; copies are to be named like their originals."""

    model: VariationalModel

    def __init__(self, config: NamedFacesConfig, model: VariationalModel, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        self.classes = 2**faces.label_dim
        betas = (config.beta1, config.beta2)
        self.optimizers["autoencoder"] = optimizers.build("adam", model.parameters(), config.lr_joint, betas)
        self.optimizers["critic"] = optimizers.build("adam", self.critic.parameters(), config.lr_critic, betas)

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        images = batch.images
        right = compatible(batch.labels, len(images), self.classes).to(images.device)
        for _ in range(c.joint_steps):
            copies, kl = self.copy(images)
            logits = self.critic(copies)
            deceit, passed = self.naming(logits, right), self.named(logits, right)
            loss = deceit + c.kl_weight * kl / images[0].numel()
            stats = {"generator_loss": deceit, "kl": kl, "copies_named": passed}
            yield Update(self.optimizers["autoencoder"], loss, clip=c.clip, stats=stats)
            if balance.agreed(passed) > c.passed_above:
                break
        yield from self.critic_steps(images, right, balance.agreed(passed))

    def critic_steps(self, images: Tensor, right: Tensor, passed: float) -> Iterator[Update]:
        """Both kinds while fakes pass and are not caught; else reals alone while they are not named."""
        c = self.config
        fakes_slip = passed > c.critic_moves_above
        for turn in range(c.critic_turns):
            with torch.no_grad():
                copies, _ = self.copy(images)
            real_logits, fake_logits = self.critic(images), self.critic(copies)
            fakes = torch.zeros_like(right)
            real, fake = self.naming(real_logits, right), self.naming(fake_logits, fakes)
            caught, named = self.named(fake_logits, fakes), self.named(real_logits, right)
            stats = {"real_accuracy": named, "fake_accuracy": caught}
            if turn == 0:
                fakes_slip = fakes_slip and balance.agreed(caught) < c.caught_below
            if fakes_slip:
                if turn and balance.agreed(caught) > c.caught_enough:
                    return
                loss = (self.classes * real + fake) / (self.classes + 1)
            else:
                bound = c.named_enough if turn else c.named_below
                if balance.agreed(named) >= bound:
                    return
                loss = real
            yield Update(self.optimizers["critic"], loss, clip=c.clip, stats=stats)

    def naming(self, logits: Tensor, right: Tensor) -> Tensor:
        """-log of the probability of the right classes; of "fake" where none is right."""
        logits = full(logits)
        mask = torch.cat([right, ~right.any(1, keepdim=True)], 1)
        return (logits.logsumexp(1) - logits.masked_fill(~mask, -torch.inf).logsumexp(1)).mean()

    def named(self, logits: Tensor, right: Tensor) -> Tensor:
        """The share of rows whose likeliest class is right."""
        mask = torch.cat([right, ~right.any(1, keepdim=True)], 1)
        return mask.gather(1, logits.argmax(1, keepdim=True)).float().mean()

    def copy(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of images, and what their latents say in nats."""
        posterior = self.model.posterior(images)
        copies = self.model.render(draw(posterior, self.noise(posterior.mean)))
        return copies, posterior.divergence().flatten(1).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class NamedFacesConfig(RecipeConfig):
    """How often each repeats, and until when; accuracies in [0, 1]."""

    cites: ClassVar[tuple[str, ...]] = ("cppn2016",)

    critic: NetworkConfig
    kl_weight: float = 10.0  # of the divergence for each pixel value; pixels themselves are not compared
    joint_steps: int = 16  # of encoder and painter together on each batch, at most and at least one
    passed_above: float = 0.98  # they stop when this share of copies is named like the originals
    critic_turns: int = 8  # on each batch, at most
    critic_moves_above: float = 0.6  # the critic learns of fakes only if more copies than this passed ...
    caught_below: float = 0.7  # ... and fewer than this are caught,
    caught_enough: float = 0.75  # until so many are;
    named_below: float = 0.6  # else of reals alone, if fewer than this are named,
    named_enough: float = 0.7  # until so many are
    lr_joint: float = 1e-3  # of encoder and painter
    lr_critic: float = 1e-3  # of the critic
    beta1: float = 0.75  # Adam
    beta2: float = 0.999  # Adam
    clip: float = 5.0  # bound on the norm of the gradient

    def __post_init__(self) -> None:
        if self.joint_steps < 1:
            raise UsageError("--recipe.joint-steps 0 is not possible.", "The generator plays.", "Give 1 or more.")

    def build(self, model: Model, faces: ImageSpec) -> NamedFaces:
        return NamedFaces(self, variational(model), faces)
