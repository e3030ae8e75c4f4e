"""Losses as pure functions of logits and images. Logits are large for real; everything is computed in at least fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def full(value: Tensor) -> Tensor:
    """At least fp32: bf16 has eight bits of fraction, too few for a loss."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def judged_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against "real" (Goodfellow et al. 2014; the generator's non-saturating loss)."""
    return F.softplus(-full(logits)).mean()


def judged_fake(logits: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against "fake"."""
    return F.softplus(full(logits)).mean()


def judged(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of the logits `[n]` against targets `[n]` in [0, 1], 1 for "real"."""
    logits, targets = full(logits), targets.to(full(logits))
    return (targets * F.softplus(-logits) + (1.0 - targets) * F.softplus(logits)).mean()


def offset_judged_real(logits: Tensor, offset: float) -> Tensor:
    """-log(D + offset) for the probability D of "real": bounded, where the cross-entropy is not (Larsen et al. 2016)."""
    return -torch.log(torch.sigmoid(full(logits)) + offset).mean()


def offset_judged_fake(logits: Tensor, offset: float) -> Tensor:
    """-log(1 - D + offset)."""
    return -torch.log(torch.sigmoid(-full(logits)) + offset).mean()


def relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    """softplus(loser - winner), paired by row (Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441)."""
    return F.softplus(full(loser) - full(winner)).mean()


def zero_centred_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of the squared norm of d logits / d images: R1 on reals, R2 on fakes (arXiv:1801.04406, eq. 9 and 10).

    `images` `[n, C, H, W]` must require gradients and lie in the graph of `logits` `[n]`.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return full(gradient).square().sum((1, 2, 3)).mean()


def reconstruction(images: Tensor, wanted: Tensor, norm: str = "l2") -> Tensor:
    """Mean over all pixels of |a - b| (l1) or of its square (l2); gradients flow into both."""
    gap = full(images) - full(wanted)
    return gap.abs().mean() if norm == "l1" else gap.square().mean()


def pixel_cross_entropy(images: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy of pixel values, both in [-1, 1] and read as probabilities from 0 to 1."""
    p, q = (full(images) + 1.0) / 2.0, (full(wanted) + 1.0) / 2.0
    return -(q * torch.log(p.clamp(min=1e-7)) + (1.0 - q) * torch.log((1.0 - p).clamp(min=1e-7))).mean()


def haar_bands(images: Tensor) -> list[Tensor]:
    """Images `[n, C, H, W]` in the orthonormal Haar basis: three kinds of detail a halving, finest first, and the rest.

    Halving stops when the side is odd or 4. Orthonormal: squares sum to what they sum to in the image.
    """
    bands = []
    while images.shape[-1] % 2 == 0 and images.shape[-1] > 4:
        a, b, c, d = (images[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        bands += [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        images = (a + b + c + d) / 2
    return [*bands, images]
