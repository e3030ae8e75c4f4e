"""An invertible network on vectors: rotations that stay as they were drawn, and affine couplings that learn (Real NVP,
Dinh et al. 2016, arXiv:1605.08803; Glow, arXiv:1807.03039, turns vectors between couplings too, and learns how).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BOUND = 2.0  # of the logarithm of a scale: a draw far out stays finite through every layer, both ways


class Coupling(nn.Module):
    """A rotation, then half of the numbers are scaled and shifted by what the other half says. Starts as the rotation alone."""

    rotation: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.kept = width // 2
        self.register_buffer("rotation", nn.init.orthogonal_(torch.empty(width, width)))
        self.first, self.second = nn.Linear(self.kept, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 2 * (width - self.kept))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def told(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the scales, and the shifts, `[n, width - kept]` each."""
        scale, shift = self.last(F.silu(self.second(F.silu(self.first(kept))))).chunk(2, 1)
        return BOUND * torch.tanh(scale / BOUND), shift

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.rotation
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self.told(kept)
        return torch.cat([kept, moved * scale.exp() + shift], 1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The x that `forward` takes to y, and log |dx/dy| `[n]`."""
        kept, moved = y[:, : self.kept], y[:, self.kept :]
        scale, shift = self.told(kept)
        return torch.cat([kept, (moved - shift) * (-scale).exp()], 1) @ self.rotation.T, -scale.sum(1)


class CouplingFlow(nn.Module):
    """`[n, width]` -> `[n, width]`, and exactly back. Always in fp32 or more: in bf16 there would be no way back."""

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
        """What it computes in."""
        return torch.float64 if x.dtype == torch.float64 else torch.float32
