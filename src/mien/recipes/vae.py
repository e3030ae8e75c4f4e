"""The VAE (Kingma and Welling 2013, arXiv:1312.6114): encoder q and decoder p descend the negative evidence lower bound.

    L = -E_q log p(x|z) + beta KL(q(z|x) || p(z))

Both terms are divided by the number of pixel values, so that a clip of the gradient means the same at any side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mien.core.contracts import Batch, ImageSpec, Model, Recipe, RecipeConfig, Update
from mien.core.families import Gaussian, VariationalModel
from mien.core.schedules import cosine, linear
from mien.errors import UsageError
from mien.recipes import balance, optimizers
from mien.recipes.losses import full, haar_bands, reconstruction

Likelihood = Literal["mean", "unit", "calibrated", "bands"]
ACTIVE = 0.01  # KL in nats from which on a dimension counts as active (after Burda et al. 2015, arXiv:1509.00519)


def draw(posterior: Gaussian, noise: Tensor) -> Tensor:
    """The reparameterisation trick: mean + deviation x noise."""
    return full(posterior.mean) + torch.exp(0.5 * full(posterior.log_variance)) * noise


class VAE(Recipe):
    """One update of encoder and decoder together."""

    model: VariationalModel

    def __init__(self, config: VAEConfig, model: VariationalModel) -> None:
        super().__init__(model)
        self.config = config
        self.least_rows = 4
        self.optimizers["autoencoder"] = optimizers.build(
            "adam", model.parameters(), config.lr, (config.beta1, config.beta2)
        )
        self.beta = config.kl_weight

    def schedule(self, seen: int) -> None:
        c = self.config
        self.beta = linear(0.0, c.kl_weight, seen, c.warmup_images) if c.warmup_images else c.kl_weight
        optimizers.set_rate(
            self.optimizers["autoencoder"], cosine(c.lr, c.lr_end, seen, c.decay_images) if c.decay_images else c.lr
        )

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        images, labels = batch.images, self.labels_of(batch)
        posterior = self.model.posterior(images, labels)
        codes = draw(posterior, self.noise(posterior.mean))
        reconstructions = self.model.decode_code(codes.to(images.dtype), labels)
        error, kl = reconstruction(reconstructions, images), self.model.kl(posterior, codes).mean(0)
        distortion = self.distortion(reconstructions, images, error)
        dimensions = posterior.mean[0].numel()
        clamped = balance.free_bits(kl, c.free_nats * dimensions / len(kl))
        loss = distortion + self.beta * (clamped.sum() / (dimensions if c.kl == "mean" else images[0].numel()))
        stats = {"reconstruction": error, "kl": kl.sum(), "loss": loss}
        if len(kl) == dimensions:
            stats["active_dimensions"] = (kl > ACTIVE).float().sum()
        yield Update(self.optimizers["autoencoder"], loss, clip=c.clip, stats=stats)

    def distortion(self, reconstructions: Tensor, images: Tensor, error: Tensor) -> Tensor:
        """-log p(x|z), up to a constant, in nats a pixel value, from the mean squared `error`; "mean" is that error."""
        match self.config.likelihood:
            case "mean":
                return error
            case "unit":
                return 0.5 * error
            case "calibrated":
                return balance.calibrated_nll(error)
            case "bands":
                bands = [
                    (band.square().mean(), band.numel()) for band in haar_bands(full(reconstructions) - full(images))
                ]
                total = sum(count for _, count in bands)
                return torch.stack([balance.calibrated_nll(error) * (count / total) for error, count in bands]).sum()


@dataclass(frozen=True, kw_only=True)
class VAEConfig(RecipeConfig):
    """The likelihood of pixels, the weight of the KL, and Adam's constants."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "sigma2021", "freebits2016")

    likelihood: Likelihood = (
        "bands"  # mean: squared error; unit: N(x, 1); calibrated: N(x, best variance); bands: one a Haar band
    )
    kl: Literal["sum", "mean"] = "sum"  # over the latent's dimensions; sum is the evidence lower bound
    kl_weight: float = 1.0  # beta: the weight of the KL; 1 is the evidence lower bound
    free_nats: float = 0.0  # free bits: KL in nats per dimension, on average, that costs nothing
    warmup_images: int = 0  # images over which beta rises from 0; 0 = no warm-up
    lr: float = 1e-3  # learning rate at the start
    lr_end: float = 1e-3  # learning rate after decay_images, along half a cosine
    decay_images: int = 0  # images over which the rate goes from lr to lr_end; 0 = it stays
    beta1: float = 0.9  # Adam
    beta2: float = 0.999  # Adam
    clip: float | None = None  # bound on the norm of the gradient

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.decay_images else {"lr_end": "the rate stays; give --recipe.decay-images"}

    def build(self, model: Model, faces: ImageSpec) -> VAE:
        return VAE(self, variational(model, "A VAE learns by encoding."))


def variational(model: Model, why: str) -> VariationalModel:
    """The model, if it has an encoder that returns mean and log-variance. Raises UsageError, with why it is needed."""
    if not isinstance(model, VariationalModel):
        raise UsageError(
            "This recipe needs a model with an encoder that returns mean and log-variance.",
            f"{why} This {type(model).__name__} has none.",
            "Use a VAE's model, or a CPPN without --model.no-encoder.",
        )
    return model
