"""Label conditioning of generators and critics. Labels are in [0, 1]; NaN means unknown."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GeneratorConditioning = Literal["norm", "channel"]
CriticConditioning = Literal["projection", "channel"]

EMBEDDING_STD = 0.3  # initial standard deviation of a label embedding; that of the latent beside it is 1


def known(labels: Tensor | None, like: Tensor, label_dim: int) -> Tensor:
    """Labels `[n, label_dim]` for the `n` rows of `like`, with 0.5 for unknown ones; all are unknown if `labels` is None."""
    if labels is None:
        return torch.full((like.shape[0], label_dim), 0.5, dtype=like.dtype, device=like.device)
    return labels.nan_to_num(0.5).to(like.dtype)


def guided(labels: Tensor, guidance: float) -> Tensor:
    """Labels `[n, label_dim]` whose distance from unknown (0.5) is multiplied, so that what they change is too; NaN stays.

    Every conditioning here is linear in the labels, up to what follows it, so no second evaluation is needed as in
    classifier-free guidance (arXiv:2207.12598).
    """
    return labels if guidance == 1.0 else 0.5 + guidance * (labels - 0.5)


class LabelChannel(nn.Module):
    """Labels as one more channel, a linear function of them: `[n, C, side, side]` -> `[n, C + 1, side, side]`.

    With `embedding`, each label is first embedded in that many dimensions; fractional labels interpolate between the
    embeddings of 0 and 1. Glorot's weights make the channel small where it has many pixels: at most 0.04 at 64 px, beside
    pixels from -1 to 1. With `std`, weights are N(0, std), and a label of 0 starts as the opposite of a label of 1. The
    parameters are not an `nn.Linear`, so that spectral normalisation of the neighbouring layers skips them: over so many
    pixels it would scale the channel to almost nothing.
    """

    table: nn.Parameter

    def __init__(self, label_dim: int, side: int, embedding: int = 0, std: float | None = None) -> None:
        super().__init__()
        self.label_dim, self.side, self.embedding = label_dim, side, embedding
        if embedding:
            self.table = nn.Parameter(torch.empty(label_dim, 2, embedding).uniform_(-0.05, 0.05))  # as Keras
        weight, bias = torch.empty(side**2, embedding or label_dim), torch.zeros(side**2)
        if std is None:
            nn.init.xavier_uniform_(weight)
        else:
            weight = 2 * std * torch.randn(weight.shape)  # from -std to std for a label from 0 to 1
            bias = -weight.sum(1) / 2
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        values = known(labels, x, self.label_dim)
        if self.embedding:
            values = (1 - values) @ self.table[:, 0] + values @ self.table[:, 1]
        return torch.cat([x, F.linear(values, self.weight, self.bias).view(-1, 1, self.side, self.side)], 1)


class LabelledLatent(nn.Module):
    """Concatenates a latent and a label embedding of equal width: `[n, latent]` -> `[n, 2 latent]` (as in arXiv:2501.05441).

    Labels enter as 1 and -1, unknown ones as 0. The embedding starts with a small standard deviation: with that of the
    latent, labels would dominate, and faces of one label would vary less (docs/LOG.md).
    """

    def __init__(self, label_dim: int, latent: int) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.weight = nn.Parameter(EMBEDDING_STD * torch.randn(latent, label_dim) / label_dim**0.5)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        signs = 2.0 * known(labels, z, self.label_dim) - 1.0
        return torch.cat([z, F.linear(signs, self.weight).to(z.dtype)], 1)


class LabelProjection(nn.Module):
    """Projection conditioning of a critic (Miyato and Koyama 2018, arXiv:1802.05637).

    Features `[n, f]` -> `[n]`, which is added to the logit: the inner product of the features with a direction per label,
    signed by the label. Unknown labels contribute 0.
    """

    def __init__(self, label_dim: int, features: int) -> None:
        super().__init__()
        self.label_dim = label_dim
        self.weight = nn.Parameter(torch.randn(features, label_dim) / (features * label_dim) ** 0.5)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        signs = 2.0 * known(labels, x, self.label_dim) - 1.0
        return (x * F.linear(signs, self.weight)).sum(1)

    def margins(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """How much lower the logit would be with one label turned into its opposite, for each label, `[n, label_dim]`."""
        signs = 2.0 * known(labels, x, self.label_dim) - 1.0
        return 2.0 * signs * (x @ self.weight)
