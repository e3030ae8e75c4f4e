"""Losses as pure functions of logits and images. Logits are large for real; all losses are computed in at least fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def full(value: Tensor) -> Tensor:
    """At least fp32: bf16 has eight bits of fraction, too few for a loss."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def bce_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against "real" (Goodfellow et al. 2014; the generator's non-saturating loss)."""
    return F.softplus(-full(logits)).mean()


def bce_fake(logits: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against "fake"."""
    return F.softplus(full(logits)).mean()


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against targets `[n]` in [0, 1], 1 for "real"."""
    logits, targets = full(logits), targets.to(full(logits))
    return (targets * F.softplus(-logits) + (1.0 - targets) * F.softplus(logits)).mean()


def offset_bce_real(logits: Tensor, offset: float) -> Tensor:
    """-log(D + offset) for the probability D of "real": bounded, where the cross-entropy is not (Larsen et al. 2016)."""
    return -torch.log(torch.sigmoid(full(logits)) + offset).mean()


def offset_bce_fake(logits: Tensor, offset: float) -> Tensor:
    """-log(1 - D + offset)."""
    return -torch.log(torch.sigmoid(-full(logits)) + offset).mean()


def relativistic_loss(higher: Tensor, lower: Tensor) -> Tensor:
    """softplus(lower - higher) of logits `[n]`, paired by row; descending it makes `higher` the higher ones.

    Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441.
    """
    return F.softplus(full(lower) - full(higher)).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of the squared norm of d logits / d images: R1 on reals, R2 on fakes (arXiv:1801.04406, eq. 9 and 10).

    `images` `[n, C, H, W]` must require gradients and lie in the graph of `logits` `[n]`.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return full(gradient).square().sum((1, 2, 3)).mean()


def reconstruction(images: Tensor, target: Tensor, norm: str = "l2") -> Tensor:
    """Mean over all pixels of |a - b| (l1) or of its square (l2); gradients flow into both."""
    error = full(images) - full(target)
    return error.abs().mean() if norm == "l1" else error.square().mean()


def pixel_cross_entropy(images: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of pixel values, both in [-1, 1] and scaled to probabilities from 0 to 1."""
    p, q = (full(images) + 1.0) / 2.0, (full(target) + 1.0) / 2.0
    return -(q * torch.log(p.clamp(min=1e-7)) + (1.0 - q) * torch.log((1.0 - p).clamp(min=1e-7))).mean()


def haar_bands(images: Tensor) -> list[Tensor]:
    """Images `[n, C, H, W]` in the orthonormal Haar basis: three bands of detail for each halving, finest first, and the rest.

    Halving stops when the side is odd or 4. The bands' squares sum to the image's.
    """
    bands = []
    while images.shape[-1] % 2 == 0 and images.shape[-1] > 4:
        a, b, c, d = (images[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        bands += [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        images = (a + b + c + d) / 2
    return [*bands, images]
