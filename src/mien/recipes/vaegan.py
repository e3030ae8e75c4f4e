"""VAE/GAN (Larsen et al. 2016, arXiv:1512.09300, algorithm 1): a VAE whose decoder is a GAN's generator.

    L_prior = KL(q(z|x) || N(0, I))                            encoder: L_prior + L_llike
    L_llike = 1/2 |features(x~) - features(x)|^2               decoder: w L_llike - (1 - w) F
    L_GAN   = log D(x) + log(1 - D(G(z)))                      critic:  B = -L_GAN

F is the fakes' part of B. The sign trap: the paper prints L_GAN as a log-likelihood, and updates whose signs only fit its
negative; here, as in the authors' code, the decoder makes the critic fail. The critic does not descend L_llike: its features
would become constant. Each gradient reaches its own player's parameters and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mien.core.contracts import Batch, ImageSpec, Model, NetworkConfig, Recipe, RecipeConfig, Update
from mien.core.families import FeatureCritic, VariationalModel
from mien.core.schedules import power, torch_epochs
from mien.errors import UsageError
from mien.nn.norm import frozen_statistics
from mien.recipes import balance, optimizers
from mien.recipes.losses import bce_real, full, offset_bce_fake, offset_bce_real
from mien.recipes.vae import draw, variational

Similarity = Literal["features", "pixels"]


class VAEGAN(Recipe):
    """Encoder, decoder and critic move together, from one state of all three."""

    model: VariationalModel

    def __init__(self, config: VAEGANConfig, model: VariationalModel, faces: ImageSpec) -> None:
        super().__init__(model)
        self.config = config
        self.critic = config.critic.build(faces)
        players: dict[str, nn.Module] = {"critic": self.critic, "decoder": model.decoder, "encoder": model.encoder}
        for name, network in players.items():
            self.optimizers[name] = optimizers.build(
                config.optimizer,
                optimizers.decayed(network, config.weight_decay, model.heads),
                config.lr,
                (config.beta1, config.beta2),
                config.alpha,
                config.eps,
            )

    def schedule(self, seen: int) -> None:
        c = self.config
        begun = seen - seen % c.epoch_images if c.epoch_images else seen
        rate = power(c.lr, c.lr_end, begun, c.decay_images, c.decay_power) if c.decay_images else c.lr
        if c.lr_decay < 1.0:
            rate = torch_epochs(c.lr, c.lr_decay, seen, c.epoch_images, c.lr_end)
        for optimizer in self.optimizers.values():
            optimizers.set_rate(optimizer, rate)

    def step(self, batches: Iterator[Batch]) -> Iterator[tuple[Update, ...]]:
        c = self.config
        batch = next(batches)
        images, labels = batch.images, self.labels_of(batch)
        posterior = self.model.posterior(images, labels)
        reconstructions = self.model.decode_code(draw(posterior, self.noise(posterior.mean)).to(images.dtype), labels)
        # The authors' code draws fakes by a copy of the decoder with the same weights: faces are drawn later by the statistics
        # of reconstructions alone.
        with frozen_statistics(self.model) if c.similarity == "features" else nullcontext():
            fakes = self.model.decode(self.latents(len(images)), labels)

        # A critic that normalises its batch sees reals and fakes in one, as in the authors' code: apart, each kind would be
        # normalised by itself, and the decoder learns patterns that no face has.
        if c.similarity == "features":
            features, target = self.features_of(torch.cat([reconstructions, images])).chunk(2)
        else:
            features, target = reconstructions, images
        inputs = [images, fakes] + [reconstructions] * c.reconstructions_as_fakes
        real_logits, *fake_logits = self.critic(torch.cat([each.to(images.dtype) for each in inputs])).chunk(
            len(inputs)
        )
        error = full(features) - full(target).detach()  # stop-gradient: real features are the target
        similarity_error = 0.5 * error.square().flatten(1).sum(1).mean()  # L_llike
        kl = posterior.divergence().flatten(1).sum(1).mean()  # L_prior

        real = offset_bce_real(real_logits, c.offset)
        fake = torch.stack([offset_bce_fake(logits, c.offset) for logits in fake_logits]).mean()  # F
        critic_loss = c.real_weight * real + (1.0 - c.real_weight) * fake  # B = -L_GAN
        move_critic, move_decoder = self.who_moves(real, fake)
        generator_loss = -fake  # without the weights of B, which the authors' code undoes on the way to the decoder
        if c.generator_loss == "non-saturating":
            generator_loss = torch.stack([bce_real(logits) for logits in fake_logits]).mean()
        self.measure({"critic_real": real, "critic_fake": fake, "generator_loss": bce_real(fake_logits[0])})
        decoder_loss = c.similarity_weight * similarity_error
        if move_decoder or c.gate == "adversary":
            decoder_loss = decoder_loss + (1.0 - c.similarity_weight) * generator_loss * float(move_decoder)

        stats = {"kl": kl, "similarity_error": similarity_error}
        updates = [Update(self.optimizers["encoder"], kl * c.kl_weight + similarity_error, stats=stats)]
        if move_decoder or c.gate == "adversary":
            updates.insert(0, Update(self.optimizers["decoder"], decoder_loss))
        if move_critic:
            updates.insert(0, Update(self.optimizers["critic"], critic_loss))
        yield tuple(updates)

    def features_of(self, images: Tensor) -> Tensor:
        """The critic's features; of a critic without, the images."""
        return self.critic.features(images)[1] if isinstance(self.critic, FeatureCritic) else images

    def who_moves(self, real: Tensor, fake: Tensor) -> tuple[bool, bool]:
        """(critic, decoder), decided from the critic's losses; the encoder always moves."""
        c = self.config
        if c.balance == "margin":
            return balance.margin(real, fake, c.equilibrium - c.margin, c.equilibrium + c.margin)
        return True, True


@dataclass(frozen=True, kw_only=True)
class VAEGANConfig(RecipeConfig):
    """What each player descends, when it rests, and how fast it goes."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "vaegan2016")

    critic: NetworkConfig
    similarity: Similarity = "features"  # reconstruction error in the critic's features, or in pixels
    similarity_weight: float = 1e-6  # w: the decoder descends w L_llike - (1 - w) F
    kl_weight: float = 1.0  # weight of L_prior in the encoder's loss
    reconstructions_as_fakes: bool = False  # the critic also gets reconstructions as fakes (algorithm 1)
    real_weight: float = 0.5  # share of the reals in the critic's loss
    offset: float = 1e-3  # added to probabilities before their logarithm
    generator_loss: Literal["saturating", "non-saturating"] = (
        "saturating"  # the decoder ascends F, or descends -log D of fakes
    )
    balance: Literal["none", "margin"] = "margin"  # margin: the player who is ahead rests
    equilibrium: float = 0.68  # cross-entropy of a level game, in nats
    margin: float = 0.35  # the critic rests below equilibrium - margin, the decoder above equilibrium + margin
    gate: Literal["player", "adversary"] = "player"  # what a resting decoder leaves out: its whole update, or only F
    optimizer: optimizers.OptimizerName = "rmsprop"  # of all three
    lr: float = 3e-4  # of all three
    lr_end: float = 3e-4  # at decay_images
    decay_images: int = 0  # over which the rate goes from lr to lr_end; 0 = it stays
    decay_power: float = 1.0  # the way done from lr to lr_end is (seen / decay_images) to this power
    epoch_images: int = 0  # the rate changes once in so many images; 0 = in every step
    lr_decay: float = 1.0  # in epoch e > 1 the rate is lr times this to the power e, down to lr_end; 1 = it is annealed
    alpha: float = 0.9  # RMSprop
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam
    eps: float = 1e-8  # added to the root of RMSprop's or Adam's mean square
    weight_decay: float = 0.0  # times each weight of linear and convolutional layers, added to its gradient

    def __post_init__(self) -> None:
        if self.lr_decay < 1.0 and not self.epoch_images:
            raise UsageError(
                f"--recipe.lr-decay {self.lr_decay} needs the length of an epoch.",
                "The rate falls from epoch to epoch.",
                "Give --recipe.epoch-images.",
            )

    def without_effect(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if self.balance == "none":
            found |= dict.fromkeys(("equilibrium", "margin", "gate"), "it belongs to --recipe.balance margin")
        if self.optimizer == "rmsprop":
            found |= dict.fromkeys(("beta1", "beta2"), "it belongs to --recipe.optimizer adam")
        else:
            found["alpha"] = "it belongs to --recipe.optimizer rmsprop"
        if self.lr_decay < 1.0:
            found |= dict.fromkeys(
                ("decay_images", "decay_power"), "the rate falls by --recipe.lr-decay, which is below 1"
            )
        elif not self.decay_images:
            found |= dict.fromkeys(
                ("lr_end", "decay_power", "epoch_images"), "the rate stays; give --recipe.decay-images"
            )
        return found

    def build(self, model: Model, faces: ImageSpec) -> VAEGAN:
        encoding = variational(model, "VAE/GAN is a VAE whose decoder plays against a critic.")
        recipe = VAEGAN(self, encoding, faces)
        if self.similarity == "features" and not isinstance(recipe.critic, FeatureCritic):
            raise UsageError(
                "This critic has no features to compare by.",
                "--recipe.similarity features needs a critic that returns features.",
                "Use --recipe.similarity pixels.",
            )
        return recipe
