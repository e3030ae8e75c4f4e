"""Keeping players and terms level: rules that watch losses over all ranks, and decide who moves or what weighs how much."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.core import distributed


def agreed(value: Tensor) -> float:
    """The mean over all ranks as a number: what a decision must rest on, so that every rank takes the same."""
    return float(distributed.mean(value))


def margin(real: Tensor, fake: Tensor, low: float, high: float) -> tuple[bool, bool]:
    """Who moves under the margin rule of "Generating Faces with Torch": (critic, generator).

    `real` and `fake` are the critic's losses on either half of its batch before it moves. A critic that finds one half easy
    (below `low`) rests; a generator rests while the critic struggles (above `high`); if both would rest, both move.
    """
    r, f = agreed(real), agreed(fake)
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
        loss = float(distributed.mean(generator_loss))
        if loss > self.high:
            self.coefficient += self.step
        elif loss < self.low:
            self.coefficient.sub_(self.step).clamp_(min=0.0)

    def penalty(self, critic: nn.Module) -> Tensor:
        """coefficient / 2 times the squared norm of the critic's parameters: its gradient is coefficient times each."""
        return 0.5 * self.coefficient.float() * squared_norm(critic)


def calibrated(error: Tensor) -> Tensor:
    """-log N(x; mean, v) in nats a value, up to a constant, at the variance v that fits the batches of all ranks best.

    `error` is the mean squared error here; the best v is its mean over all ranks (sigma-VAE, arXiv:2006.13202, section 3.2).
    """
    variance = distributed.mean(error).clamp(min=1e-8)
    return 0.5 * (error / variance + variance.log())


def free(kl: Tensor, nats: float) -> Tensor:
    """The divergence `[dimensions]`, this rank's mean, where all ranks' mean is above what is free (arXiv:1606.04934, C.8)."""
    return torch.where(distributed.mean(kl) > nats, kl, torch.full_like(kl, nats) + 0.0 * kl)


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of the squares of a network's parameters."""
    return torch.stack([parameter.square().sum() for parameter in network.parameters()]).sum()


def absolute_norm(network: nn.Module) -> Tensor:
    """The sum of the magnitudes of a network's parameters."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters()]).sum()


class Equilibrium(nn.Module):
    """BEGAN's proportional control (arXiv:1703.10717, section 3.4): k_t, how much a critic cares for telling fakes apart."""

    k: Tensor

    def __init__(self, gamma: float, step: float) -> None:
        super().__init__()
        self.gamma, self.step = gamma, step
        self.register_buffer("k", torch.zeros(()))

    def update(self, real: Tensor, fake: Tensor) -> Tensor:
        """Move k_t after a step with these reconstruction errors, within [0, 1]. Returns the measure of convergence M."""
        real, fake = distributed.mean(real), distributed.mean(fake)
        tension = self.gamma * real - fake
        self.k.add_(self.step * tension.to(self.k)).clamp_(0.0, 1.0)
        return real + tension.abs()


class Stall(nn.Module):
    """Notices that a measure has stopped falling: its mean over `steps` is no less than `tolerance` times the mark.

    The mark is the mean at the look before. `whole` averages over everything since the beginning instead, and `lazy` moves
    the mark only when a stall is noticed: two habits of sicongzhao's code, which blunt it.
    """

    memory: Tensor  # looks so far, measures since the mean began, their mean, the mark

    def __init__(self, steps: int, tolerance: float, whole: bool = False, lazy: bool = False) -> None:
        super().__init__()
        self.steps, self.tolerance, self.whole, self.lazy = steps, tolerance, whole, lazy
        self.register_buffer("memory", torch.zeros(4))

    def update(self, measure: Tensor) -> bool:
        """Take one measure, equal on all ranks; whether a stall is noticed now."""
        if not self.steps:
            return False
        looks, count, mean, mark = self.memory.tolist()
        count += 1
        mean += (float(measure) - mean) / count
        stalled = False
        if count % self.steps == 0:
            stalled = looks > 0 and mean > self.tolerance * mark
            mark = mean if stalled or looks == 0 or not self.lazy else mark
            looks += 1
            if not self.whole:
                count, mean = 0.0, 0.0
        self.memory.copy_(torch.tensor([looks, count, mean, mark], dtype=torch.float64))
        return stalled
