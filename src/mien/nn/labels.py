"""What a network is told of a face: labels in [0, 1], of which some may not be known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Telling = Literal["norm", "channel"]  # how a generator is told labels
Asking = Literal["projection", "channel"]  # how a critic is

QUIETLY = 0.3  # the deviation of what labels say beside a latent, whose own is 1


def known(labels: Tensor | None, like: Tensor, label_dim: int) -> Tensor:
    """Labels `[n, label_dim]` for the `n` rows of `like`; one that is not known is 0.5, as far from yes as from no.

    Without labels nothing is known of any.
    """
    if labels is None:
        return torch.full((len(like), label_dim), 0.5, dtype=like.dtype, device=like.device)
    return labels.nan_to_num(0.5).to(like.dtype)


class LabelChannel(nn.Module):
    """Labels as one more feature map, a linear map of them: `[n, C, side, side]` -> `[n, C + 1, side, side]`.

    With `embedding`, each label first becomes that many numbers: those of its yes, those of its no, or between them. No
    `nn.Linear`, so that a spectral norm of the layers beside leaves it alone: over so many pixels nothing would be left of it.
    """

    table: nn.Parameter

    def __init__(self, label_dim: int, side: int, embedding: int = 0) -> None:
        super().__init__()
        self.label_dim, self.side, self.embedding = label_dim, side, embedding
        if embedding:
            self.table = nn.Parameter(torch.empty(label_dim, 2, embedding).uniform_(-0.05, 0.05))  # as Keras
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(side**2, embedding or label_dim)))
        self.bias = nn.Parameter(torch.zeros(side**2))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        told = known(labels, x, self.label_dim)
        if self.embedding:
            told = (1 - told) @ self.table[:, 0] + told @ self.table[:, 1]
        return torch.cat([x, F.linear(told, self.weight, self.bias).view(-1, 1, self.side, self.side)], 1)


class LabelledLatent(nn.Module):
    """A latent with an embedding of the labels beside it, equally wide: `[n, latent]` -> `[n, 2 latent]` (as in arXiv:2501.05441).

    Yes and no are 1 and -1; a label that is not known says nothing. At the start labels speak QUIETLY: as loud as the latent,
    they would be half of what a face is made from, and faces of one label would vary less (docs/LOG.md).
    """

    def __init__(self, label_dim: int, latent: int) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.weight = nn.Parameter(QUIETLY * torch.randn(latent, label_dim) / label_dim**0.5)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        signs = 2.0 * known(labels, z, self.label_dim) - 1.0
        return torch.cat([z, F.linear(signs, self.weight).to(z.dtype)], 1)


class LabelProjection(nn.Module):
    """How well features `[n, f]` fit the labels, `[n]`: what a critic adds to its logit (Miyato and Koyama 2018, arXiv:1802.05637).

    Each label that is known adds or subtracts its own direction's share; one that is not says nothing.
    """

    def __init__(self, label_dim: int, features: int) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.weight = nn.Parameter(torch.randn(features, label_dim) / (features * label_dim) ** 0.5)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        signs = 2.0 * known(labels, x, self.label_dim) - 1.0
        return (x * F.linear(signs, self.weight)).sum(1)
