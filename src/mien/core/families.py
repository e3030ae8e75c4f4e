"""Families of models: what some models can do beyond `decode`. Verbs and metrics ask for a family, never for a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mien.core.contracts import Model

if TYPE_CHECKING:
    from mien.nn.ode import Solution


class StyleModel(Model):
    """A model whose stages, coarse to fine, each get a style: a face can have those of two latents.

    Truncation happens among styles (Karras et al. 2018, arXiv:1812.04948, section 3.2 and appendix B).
    """

    style_count: int  # stages that have a style

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
        return self.decode_styles([self.styles(z)] * self.style_count, labels)

    def decode_truncated(self, z: Tensor, truncation: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_styles([self._typical(self.styles(z), truncation)] * self.style_count, labels)

    def decode_mixed(
        self, z: Tensor, other: Tensor, shares: Tensor, truncation: float | Tensor = 1.0, labels: Tensor | None = None
    ) -> Tensor:
        """Faces of `z` with styles of `other`, both `[n, *latent_shape]`: of each stage a share in `[n, style_count]`."""
        own, others = self.styles(z), self.styles(other)
        mixed = [torch.lerp(own, others, share[:, None].to(own)) for share in shares.unbind(1)]
        return self.decode_styles([self._typical(style, truncation) for style in mixed], labels)

    def _typical(self, style: Tensor, truncation: float | Tensor) -> Tensor:
        """Styles `[n, width]` moved toward their mean; to the bit the same for a truncation of 1."""
        if not isinstance(truncation, Tensor) and truncation == 1.0:
            return style
        mean = self.mean_style.to(style)
        return mean + truncation * (style - mean)


class Invertible(Model):
    """A model that also finds the latent of a given face (VAE, VAE/GAN, BEGAN with its autoencoder, flow)."""

    @abstractmethod
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> latents `[n, *latent_shape]`."""

    def decode_encoding(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What `encode` gave -> images. The same as `decode`, but for a model whose encodings have a decoder of their own."""
        return self.decode(z, labels)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images -> what the model makes of them, both `[n, C, H, W]` in [-1, 1]."""
        return self.decode_encoding(self.encode(images, labels), labels)


@dataclass(frozen=True)
class Gaussian:
    """Normal distributions with independent dimensions, one a row."""

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
    """A model whose encoder tells how sure it is of each code (VAE, VAE/GAN).

    A code is what the encoder gives and `render` takes. Codes are the latents themselves, unless the model learns where codes
    lie: then a flow leads from N(0, I), the latents, to codes, and back.
    """

    encoder: nn.Module
    decoder: nn.Module
    heads: tuple[nn.Module, ...] = ()  # the encoder's last layers, where weight decay must leave them alone

    @abstractmethod
    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        """Where the codes of images `[n, C, H, W]` in [-1, 1] lie."""

    def render(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes `[n, *latent_shape]` -> images."""
        return self.decode(codes, labels)

    def latents_of(self, codes: Tensor) -> Tensor:
        """Codes -> the latents that `decode` makes the same images of."""
        return codes

    def information(self, posterior: Gaussian, codes: Tensor) -> Tensor:
        """What codes drawn from the posterior tell, in nats: KL from where codes lie without a face, `[n, dimensions]`.

        In closed form; of a learned prior by the draw `codes`, and for all dimensions together, `[n, 1]`.
        """
        return posterior.divergence().flatten(1)

    def carried(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Nats that each number of a face's latent tells beyond those before it, `[n, dimensions]`: their sum is the KL."""
        return self.posterior(images, labels).divergence().flatten(1)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latent of the posterior's mean, so that the same face always has the same latent."""
        return self.latents_of(self.posterior(images, labels).mean)


class AutoencoderCriticModel(Invertible):
    """A model that keeps the autoencoder that judged its generator (BEGAN): the one decodes latents, the other faces."""

    generator: nn.Module  # what `decode` runs
    autoencoder: nn.Module  # what `reconstruct` runs
    carry: Tensor  # scalar buffer in [0, 1]: how much of its input each residual layer passes on unchanged


class FlowModel(Invertible):
    """A model that carries noise to faces along a velocity field, and faces back (flow matching).

    Latents are as large as images. Time runs from 0, noise, to 1, faces.
    """

    solution: Solution  # how `decode` follows the field
    guidance: float  # of `decode`: over 1, faces show more of what is asked for, and vary less

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """dx/dt `[n, C, H, W]` at places `[n, C, H, W]` and times `[n]`."""

    @abstractmethod
    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        """`decode` with another solver, or led further toward what the labels ask (arXiv:2207.12598)."""

    @abstractmethod
    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        """What `decode_by` comes by: the noise, the face in the making after each step, and the face last."""


class ResolutionFreeModel(Model):
    """A model that paints a plane rather than pixels (CPPN): the same latent at any side."""

    @abstractmethod
    def decode_at(self, z: Tensor, side: int, labels: Tensor | None = None) -> Tensor:
        """`[n, *latent_shape]` -> images `[n, C, side, side]` in [-1, 1]."""


class FeatureCritic(nn.Module, ABC):
    """A critic whose inner features can be compared: a learned measure of likeness (VAE/GAN)."""

    @abstractmethod
    def perceive(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `[n, C, H, W]` in [-1, 1] -> logits `[n]`, large for real, and features `[n, ...]`."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits alone."""
        return self.perceive(images)[0]
