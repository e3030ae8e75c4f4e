"""Autoencoding variational Bayes (Kingma and Welling 2013, arXiv:1312.6114): reconstruct, and stay close to the prior."""

from __future__ import annotations

from collections.abc import Iterator
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
ACTIVE = 0.01  # nats a dimension must carry to count as active (Burda et al. 2015, arXiv:1509.00519, in their spirit)


def draw(posterior: Gaussian, noise: Tensor) -> Tensor:
    """The reparameterisation trick: mean + deviation x noise."""
    return full(posterior.mean) + torch.exp(0.5 * full(posterior.log_variance)) * noise


class VariationalBayes(Recipe):
    """One move of encoder and decoder together, down the negative evidence lower bound."""

    model: VariationalModel

    def __init__(self, config: VariationalBayesConfig, model: VariationalModel) -> None:
        super().__init__(model)
        self.config = config
        self.optimizers["autoencoder"] = optimizers.build(
            "adam", model.parameters(), config.lr, (config.beta1, config.beta2)
        )
        self.price = config.kl_weight

    def schedule(self, seen: int) -> None:
        c = self.config
        self.price = linear(0.0, c.kl_weight, seen, c.warmup_images) if c.warmup_images else c.kl_weight
        optimizers.set_rate(
            self.optimizers["autoencoder"], cosine(c.lr, c.lr_end, seen, c.lr_images) if c.lr_images else c.lr
        )

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        c = self.config
        batch = next(batches)
        images, labels = batch.images, self.labels_of(batch)
        posterior = self.model.posterior(images, labels)
        codes = draw(posterior, self.noise(posterior.mean))
        copies = self.model.render(codes.to(images.dtype), labels)
        error, kl = reconstruction(copies, images), self.model.information(posterior, codes).mean(0)
        distortion = self.distortion(copies, images, error)
        dimensions = posterior.mean[0].numel()
        paid = balance.free(kl, c.free_nats * dimensions / len(kl))
        # Both terms of the bound are counted by the pixel value, so that a clip means the same at any side.
        information = paid.sum() / (dimensions if c.kl == "mean" else images[0].numel())
        loss = distortion + self.price * information
        stats = {"reconstruction": error, "kl": kl.sum(), "loss": loss}
        if len(kl) == dimensions:
            stats["active_dimensions"] = (kl > ACTIVE).float().sum()
        yield Update(self.optimizers["autoencoder"], loss, clip=c.clip, stats=stats)

    def distortion(self, copies: Tensor, images: Tensor, error: Tensor) -> Tensor:
        """-log p(x|z), up to a constant, in nats a pixel value; "mean" is the squared error as it is."""
        match self.config.likelihood:
            case "mean":
                return error
            case "unit":
                return 0.5 * error
            case "calibrated":
                return balance.calibrated(error)
            case "bands":
                bands = [(band.square().mean(), band.numel()) for band in haar_bands(full(copies) - full(images))]
                total = sum(count for _, count in bands)
                return torch.stack([balance.calibrated(error) * (count / total) for error, count in bands]).sum()


@dataclass(frozen=True, kw_only=True)
class VariationalBayesConfig(RecipeConfig):
    """What a pixel's error costs, what a latent's information costs, and the optimizer."""

    cites: ClassVar[tuple[str, ...]] = ("vae2013", "sigma2021", "freebits2016")

    likelihood: Likelihood = (
        "bands"  # mean: squared error; unit: N(x, 1); calibrated: N(x, best variance); bands: one a Haar band
    )
    kl: Literal["sum", "mean"] = "sum"  # over the latent's dimensions; sum is the bound
    kl_weight: float = 1.0  # beta: the price of information; 1 is the bound
    free_nats: float = 0.0  # of information in each dimension, on average, that cost nothing
    warmup_images: int = 0  # over which the price rises from 0
    lr: float = 1e-3  # of encoder and decoder
    lr_end: float = 1e-3  # after lr_images, along half a cosine
    lr_images: int = 0  # over which the rate goes to lr_end; 0 = it stays
    beta1: float = 0.9  # Adam
    beta2: float = 0.999  # Adam
    clip: float | None = None  # bound on the norm of the gradient

    def build(self, model: Model, faces: ImageSpec) -> VariationalBayes:
        if not isinstance(model, VariationalModel):
            raise UsageError(
                "This recipe needs a model with an encoder that knows its doubt.",
                "A VAE learns where latents lie and how surely.",
                "Use a VAE's model.",
            )
        return VariationalBayes(self, model)
