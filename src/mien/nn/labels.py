"""What a network is told of a face: labels in [0, 1], of which some may not be known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
