"""Keeping two players level: rules that watch their losses over all ranks and decide who moves, or how hard a critic is held."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien import parallel


def margin(real: Tensor, fake: Tensor, low: float, high: float) -> tuple[bool, bool]:
    """Who moves under the margin rule of "Generating Faces with Torch": (critic, generator).

    `real` and `fake` are the critic's losses on either half of its batch before it moves. A critic that finds one half easy
    (below `low`) rests; a generator rests while the critic struggles (above `high`); if both would rest, both move.
    """
    r, f = (float(parallel.mean(loss)) for loss in (real, fake))
    critic, generator = min(r, f) >= low, max(r, f) <= high
    return (critic, generator) if critic or generator else (True, True)


class AdaptiveL2(nn.Module):
    """The blog's third rule: weight decay on the critic that grows while the generator loses and shrinks while it wins."""

    coefficient: Tensor

    def __init__(self, low: float, high: float, step: float) -> None:
        super().__init__()
        self.low, self.high, self.step = low, high, step
        self.register_buffer("coefficient", torch.zeros((), dtype=torch.float64))

    def update(self, generator_loss: Tensor) -> None:
        """Move the coefficient by one step, never below zero."""
        loss = float(parallel.mean(generator_loss))
        if loss > self.high:
            self.coefficient += self.step
        elif loss < self.low:
            self.coefficient.sub_(self.step).clamp_(min=0.0)

    def penalty(self, critic: nn.Module) -> Tensor:
        """coefficient / 2 times the squared norm of the critic's parameters: its gradient is coefficient times each."""
        return 0.5 * self.coefficient.float() * squared_norm(critic)


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of the squares of a network's parameters."""
    return torch.stack([parameter.square().sum() for parameter in network.parameters()]).sum()


def absolute_norm(network: nn.Module) -> Tensor:
    """The sum of the magnitudes of a network's parameters."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters()]).sum()
