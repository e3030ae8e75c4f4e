"""Self-attention between the places of a feature map (Zhang et al. 2018, arXiv:1805.08318)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """x + gain * what each place gathers from all others, `[n, C, h, w]` of even sides; the gain starts at zero (section 3).

    As in the authors' code, keys and values are pooled by two, queries have an eighth of the maps and values half of them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, half = max(1, width // 8), max(1, width // 2)
        self.query, self.key = nn.Conv2d(width, narrow, 1), nn.Conv2d(width, narrow, 1)
        self.value, self.out = nn.Conv2d(width, half, 1), nn.Conv2d(half, width, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # [n, C/8, h w]
        key, value = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(2)  # [n, h w, h w / 4]
        gathered = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.out(gathered)  # type: ignore[no-any-return]
