"""Families of models: abilities beyond `decode`. Verbs and metrics test for a family, never for a particular model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor, nn

from mien.core.contracts import Model

if TYPE_CHECKING:
    from mien.core.compression import Compression
    from mien.nn.ode import Solution


class StyleModel(Model):
    """A model whose stages, coarse to fine, each take a style, so that styles of two latents can be mixed.

    Truncation is applied to styles (Karras et al. 2018, arXiv:1812.04948, section 3.2 and appendix B).
    """

    style_count: int  # number of stages

    @property
    @abstractmethod
    def mean_style(self) -> Tensor:
        """`[width]`: the mean of `styles` over the prior."""

    @abstractmethod
    def styles(self, z: Tensor) -> Tensor:
        """`[n, *latent_shape]` -> the style `[n, width]` that steers every stage."""

    @abstractmethod
    def decode_styles(self, styles: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """A style `[n, width]` for each stage -> images `[n, C, H, W]` in [-1, 1]."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_stages([z] * self.style_count, labels=labels)

    def decode_truncated(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_stages([z] * self.style_count, truncation, labels)

    def decode_stages(
        self, latents: Sequence[Tensor], truncation: float | Tensor = 1.0, labels: Tensor | None = None
    ) -> Tensor:
        """A latent `[n, *latent_shape]` for each stage -> images `[n, C, H, W]` in [-1, 1]."""
        once = {id(z): z for z in latents}  # usually one latent for all stages
        styles = {key: self._typical(self.styles(z), truncation) for key, z in once.items()}
        return self.decode_styles([styles[id(z)] for z in latents], labels)

    def decode_mixed(
        self, z: Tensor, other: Tensor, shares: Tensor, truncation: float | Tensor = 1.0, labels: Tensor | None = None
    ) -> Tensor:
        """Style mixing of `z` and `other`, both `[n, *latent_shape]`; `shares` `[n, style_count]` is the weight of `other`."""
        own, others = self.styles(z), self.styles(other)
        mixed = [torch.lerp(own, others, share[:, None].to(own)) for share in shares.unbind(1)]
        return self.decode_styles([self._typical(style, truncation) for style in mixed], labels)

    def _typical(self, style: Tensor, truncation: float | Tensor) -> Tensor:
        """Styles `[n, width]` moved towards their mean; bit-identical for a truncation of 1."""
        if not isinstance(truncation, Tensor) and truncation == 1.0:
            return style
        mean = self.mean_style.to(style)
        return mean + truncation * (style - mean)


class CompressionLayer(Protocol):
    """From images `[n, C, H, W]` in [-1, 1] to the same, compressed."""

    compression: Compression

    def __call__(self, images: Tensor) -> Tensor: ...


class CompressedModel(Model):
    """A model that may compress the images that it draws, outside of training, as the files of its training images were."""

    jpeg: CompressionLayer | None

    @property
    def compression(self) -> str:
        """In the notation of core/compression.py; empty = it does not compress."""
        return "" if self.jpeg is None else str(self.jpeg.compression)

    def uncompressed(self) -> Self:
        """The same model without that layer; the two share their weights."""
        bare = copy.copy(self)
        bare.__dict__["_modules"] = {**self._modules, "jpeg": None}
        return bare


class Invertible(Model):
    """A model with an encoder: images -> latents (VAE, VAE/GAN, BEGAN with its autoencoder, flow)."""

    @abstractmethod
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> latents `[n, *latent_shape]`."""

    def decode_encoding(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Encodings -> images. Calls `decode`, except in models with a separate decoder for encodings."""
        return self.decode(z, labels)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images -> reconstructions, both `[n, C, H, W]` in [-1, 1]."""
        return self.decode_encoding(self.encode(images, labels), labels)


@dataclass(frozen=True)
class Gaussian:
    """Diagonal Gaussians, one per row."""

    mean: Tensor  # [n, *latent_shape]
    log_variance: Tensor  # [n, *latent_shape], natural logarithm

    def divergence(self) -> Tensor:
        """KL from N(0, 1) in nats for each dimension, `[n, *latent_shape]` (arXiv:1312.6114, app. B), in at least fp32."""
        mean, log_variance = (
            value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
            for value in (self.mean, self.log_variance)
        )
        return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


class VariationalModel(Invertible):
    """A model whose encoder returns mean and log-variance (VAE, VAE/GAN).

    A code is what the encoder returns and `decode_code` takes. Codes equal latents, unless the model has a learned prior: then
    a normalizing flow maps latents, N(0, I), to codes and back.
    """

    encoder: nn.Module
    decoder: nn.Module
    heads: tuple[nn.Module, ...] = ()  # the encoder's last layers, where weight decay must leave them alone

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        """The distribution of the codes of images `[n, C, H, W]` in [-1, 1]. Default: an encoder that takes no labels."""
        return Gaussian(*self.encoder(images))

    def decode_code(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes `[n, *latent_shape]` -> images."""
        return self.decode(codes, labels)

    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes -> the latents of the same images."""
        return codes

    def kl(self, posterior: Gaussian, codes: Tensor) -> Tensor:
        """KL of the posterior from the prior, in nats, `[n, dimensions]`, in closed form.

        With a learned prior it is estimated from the samples `codes`, for all dimensions together, `[n, 1]`.
        """
        return posterior.divergence().flatten(1)

    def kl_per_dimension(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """KL of each latent dimension given the earlier ones, in nats, `[n, dimensions]`; the sum is the KL."""
        return self.posterior(images, labels).divergence().flatten(1)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latent of the posterior's mean, so that encoding is deterministic."""
        return self.latents_of(self.posterior(images, labels).mean)


class AutoencoderCriticModel(Invertible):
    """A generator together with the autoencoder that was its critic (BEGAN), which reconstructs images."""

    generator: nn.Module  # what `decode` runs
    autoencoder: nn.Module  # what `reconstruct` runs
    carry: Tensor  # scalar buffer in [0, 1]: the weight of the identity in each residual layer


class FlowModel(Invertible):
    """A velocity field whose ODE maps noise to faces and back (flow matching).

    Latents have the shape of images. Time is 0 at noise and 1 at faces.
    """

    solution: Solution  # the solver of `decode`
    guidance: float  # classifier-free guidance scale of `decode`; above 1, faces follow the labels more and vary less

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """dx/dt `[n, C, H, W]` at x `[n, C, H, W]` and times `[n]`."""

    @abstractmethod
    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        """`decode` with another solver or guidance scale (arXiv:2207.12598)."""

    @abstractmethod
    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        """The trajectory of `decode_by`: the noise, x after each step, and the face."""


class ResolutionFreeModel(Model):
    """An image as a function of pixel coordinates (CPPN): the same latent at any resolution."""

    @abstractmethod
    def decode_at(self, z: Tensor, side: int, labels: Tensor | None = None) -> Tensor:
        """`[n, *latent_shape]` -> images `[n, C, side, side]` in [-1, 1]."""


class FeatureCritic(nn.Module, ABC):
    """A critic whose features define a reconstruction error (VAE/GAN)."""

    @abstractmethod
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real, and features `[n, ...]`."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits alone."""
        return self.features(images)[0]
