"""Rules that balance the players of a GAN or the terms of a loss. Each uses losses averaged over all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.core import distributed


def mean_over_ranks(value: Tensor) -> float:
    """The mean over all ranks as a number. Decisions use it, so that every rank takes the same."""
    return float(distributed.mean(value))


def margin(real: Tensor, fake: Tensor, low: float, high: float) -> tuple[bool, bool]:
    """Which player moves under the margin rule of "Generating Faces with Torch": (critic, generator).

    `real` and `fake` are the critic's losses R and F on the two halves of its batch before its step. The critic pauses where
    min(R, F) < `low`, the generator where max(R, F) > `high`; if both would pause, both move.
    """
    r, f = mean_over_ranks(real), mean_over_ranks(fake)
    critic, generator = min(r, f) >= low, max(r, f) <= high
    return (critic, generator) if critic or generator else (True, True)


class AdaptiveL2(nn.Module):
    """The blog's third rule: the critic's weight decay grows while the generator's loss is high, and shrinks while it is low."""

    coefficient: Tensor

    def __init__(self, low: float, high: float, step: float) -> None:
        super().__init__()
        self.low, self.high, self.step = low, high, step
        self.register_buffer("coefficient", torch.zeros((), dtype=torch.float64))

    def update(self, generator_loss: Tensor) -> None:
        """Change the coefficient by one step, never below zero."""
        loss = mean_over_ranks(generator_loss)
        if loss > self.high:
            self.coefficient += self.step
        elif loss < self.low:
            self.coefficient.sub_(self.step).clamp_(min=0.0)

    def penalty(self, critic: nn.Module) -> Tensor:
        """coefficient / 2 times the squared norm of the critic's parameters: the gradient is coefficient times each parameter."""
        return 0.5 * self.coefficient.float() * squared_norm(critic)


def calibrated_nll(error: Tensor) -> Tensor:
    """-log N(x; mean, v) in nats a value, up to a constant, at the variance v that fits the batches of all ranks best.

    `error` is the mean squared error here; the best v is its mean over all ranks (sigma-VAE, arXiv:2006.13202, section 3.2).
    """
    variance = distributed.mean(error).clamp(min=1e-8)
    return 0.5 * (error / variance + variance.log())


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """Clamps each dimension's KL `[dimensions]` from below at `nats`, by the mean over all ranks (arXiv:1606.04934, C.8)."""
    return torch.where(distributed.mean(kl) > nats, kl, torch.full_like(kl, nats) + 0.0 * kl)


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of the squares of a network's parameters."""
    return torch.stack([parameter.square().sum() for parameter in network.parameters()]).sum()


def absolute_norm(network: nn.Module) -> Tensor:
    """The sum of the magnitudes of a network's parameters."""
    return torch.stack([parameter.abs().sum() for parameter in network.parameters()]).sum()


class ProportionalControl(nn.Module):
    """BEGAN's proportional control (arXiv:1703.10717, section 3.4) of k_t, the weight of fakes in the critic's loss.

    k_{t+1} = clamp(k_t + lambda_k (gamma L(x) - L(G(z))), 0, 1) and M = L(x) + |gamma L(x) - L(G(z))|.
    """

    k: Tensor

    def __init__(self, gamma: float, step: float) -> None:
        super().__init__()
        self.gamma, self.step = gamma, step
        self.register_buffer("k", torch.zeros(()))

    def update(self, real: Tensor, fake: Tensor) -> Tensor:
        """Update k_t from the reconstruction errors L(x) and L(G(z)) of a step. Returns the measure of convergence M."""
        real, fake = distributed.mean(real), distributed.mean(fake)
        imbalance = self.gamma * real - fake
        self.k.add_(self.step * imbalance.to(self.k)).clamp_(0.0, 1.0)
        return real + imbalance.abs()


class PlateauDetector(nn.Module):
    """Detects that a measure no longer falls: its mean over `steps` is not below `tolerance` times the reference.

    The reference is the mean over the `steps` before. Two habits of sicongzhao's code make it less sensitive: `whole_history`
    averages over everything since the first step, and `lazy_mark` updates the reference only when a plateau is detected.
    """

    memory: Tensor  # checks so far, measures in the current mean, their mean, the reference

    def __init__(self, steps: int, tolerance: float, whole_history: bool = False, lazy_mark: bool = False) -> None:
        super().__init__()
        self.steps, self.tolerance, self.whole_history, self.lazy_mark = steps, tolerance, whole_history, lazy_mark
        self.register_buffer("memory", torch.zeros(4))

    def update(self, measure: Tensor) -> bool:
        """Take one measure, equal on all ranks; returns whether a plateau is detected now."""
        if not self.steps:
            return False
        checks, count, mean, reference = self.memory.tolist()
        count += 1
        mean += (float(measure) - mean) / count
        plateau = False
        if count % self.steps == 0:
            plateau = checks > 0 and mean > self.tolerance * reference
            reference = mean if plateau or checks == 0 or not self.lazy_mark else reference
            checks += 1
            if not self.whole_history:
                count, mean = 0.0, 0.0
        self.memory.copy_(torch.tensor([checks, count, mean, reference], dtype=torch.float64))
        return plateau
