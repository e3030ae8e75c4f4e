"""Normalizing flow on vectors: fixed random rotations and affine coupling layers (Real NVP, Dinh et al. 2016, arXiv:1605.08803).
Glow (arXiv:1807.03039) also rotates between couplings, with learned rotations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_LOG_SCALE = 2.0  # keeps outliers finite through all layers, in both directions


class Coupling(nn.Module):
    """A rotation, then an affine function of one half whose scale and shift depend on the other half. Starts as the rotation."""

    rotation: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.unchanged = width // 2
        self.register_buffer("rotation", nn.init.orthogonal_(torch.empty(width, width)))
        self.first, self.second = nn.Linear(self.unchanged, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 2 * (width - self.unchanged))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def scale_and_shift(self, unchanged: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scales and shifts, each `[n, width - unchanged]`."""
        scale, shift = self.last(F.silu(self.second(F.silu(self.first(unchanged))))).chunk(2, 1)
        return MAX_LOG_SCALE * torch.tanh(scale / MAX_LOG_SCALE), shift

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.rotation
        unchanged, transformed = x[:, : self.unchanged], x[:, self.unchanged :]
        scale, shift = self.scale_and_shift(unchanged)
        return torch.cat([unchanged, transformed * scale.exp() + shift], 1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The x that `forward` takes to y, and log |dx/dy| `[n]`."""
        unchanged, transformed = y[:, : self.unchanged], y[:, self.unchanged :]
        scale, shift = self.scale_and_shift(unchanged)
        return torch.cat([unchanged, (transformed - shift) * (-scale).exp()], 1) @ self.rotation.T, -scale.sum(1)


class CouplingFlow(nn.Module):
    """`[n, width]` -> `[n, width]`, invertible. Always in fp32 or fp64: in bf16 the inverse would be inexact."""

    def __init__(self, width: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(width, hidden) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        x = x.to(self.precision(x))
        for layer in self.layers:
            x = layer(x)
        return x

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The x that `forward` takes to y, and log |dx/dy| `[n]`."""
        if torch.is_autocast_enabled(y.device.type):
            with torch.autocast(y.device.type, enabled=False):
                return self.inverse(y)
        y = y.to(self.precision(y))
        volume = torch.zeros_like(y[:, 0])
        for layer in reversed(self.layers):
            assert isinstance(layer, Coupling)
            y, change = layer.inverse(y)
            volume = volume + change
        return y, volume

    @staticmethod
    def precision(x: Tensor) -> torch.dtype:
        """The precision of the computation."""
        return torch.float64 if x.dtype == torch.float64 else torch.float32
