"""Parts that adversarial recipes share: a critic's statistics, label smoothing, noise behind activations, spectral norms.

Noise and norms are for training alone: the exported model has none of them.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from mien.errors import UsageError

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)
ITERATIONS = 5  # of the power method, in homogan's constraint


def accuracy(logits: Tensor, real: bool) -> Tensor:
    """The fraction of images, all real or all fake, that a critic with logits `[n]` classifies correctly."""
    return ((logits > 0) if real else (logits < 0)).float().mean()


def critic_stats(real_logits: Tensor, fake_logits: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """A critic's losses on reals and fakes, and its accuracies, for the log."""
    return {
        "critic_real": real,
        "critic_fake": fake,
        "real_accuracy": accuracy(real_logits, True),
        "fake_accuracy": accuracy(fake_logits, False),
    }


def targets(count: int, real: bool, smooth: float, flip: float, generator: torch.Generator) -> Tensor:
    """A critic's targets `[count]` in [0, 1] for images that are all real (1) or all fake (0), smoothed and partly flipped.

    Smoothing moves a target away from its label by U(0, `smooth`). Then a fraction `flip` of the targets, rounded up and drawn
    with replacement, is flipped: one drawn twice is flipped back, as in homogan.
    """
    smoothing = smooth * torch.rand(count, generator=generator)
    smoothed = 1.0 - smoothing if real else smoothing
    if flip:
        rows = torch.randint(count, (ceil(flip * count),), generator=generator)
        odd = torch.bincount(rows, minlength=count) % 2 == 1
        smoothed = torch.where(odd, 1.0 - smoothed, smoothed)
    return smoothed


class Noise:
    """A forward hook that adds noise from N(0, deviation^2) to feature maps of more than one pixel, in training alone."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        noisy = layer.training and output.dim() == 4 and output.shape[-1] > 1
        return output + self.deviation * torch.randn_like(output) if noisy else output


def add_noise(network: nn.Module, deviation: float) -> None:
    """Add noise behind every activation of feature maps. Raises UsageError where no activation is a layer.

    A single pixel gets none: homogan's generators have none behind the layer that the latent goes into.
    """
    if not deviation:
        return
    layers = [module for module in network.modules() if isinstance(module, ACTIVATIONS)]
    if not layers:
        raise UsageError(
            f"A {type(network).__name__} cannot have noise.",
            "Noise goes behind activation layers, and this network has none.",
            "Leave the noise at 0, or choose another network.",
        )
    for layer in layers:
        layer.register_forward_hook(Noise(deviation))


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value, as a map from inputs to outputs (Miyato et al. 2018, arXiv:1802.05957, 2.1).

    One iteration of the power method in each forward; its vector `u` is a buffer.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)  # [outputs, inputs x kernel]
            with torch.no_grad():
                v = F.normalize(matrix.t() @ self.u, dim=0)
                if self.training:
                    self.u.copy_(F.normalize(matrix @ v, dim=0))
                u = self.u.clone()
            return weight / (u @ (matrix @ v))


def add_spectral_norm(critic: nn.Module) -> None:
    """Give every convolution and linear layer a spectral norm of 1."""
    for module in list(critic.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))


@torch.no_grad()
def constrain_kernel_heights(critic: nn.Module, generator: torch.Generator) -> None:
    """homogan's constraint: divide each convolution's kernel by the largest singular value of its rows.

    A kernel of height 5 is flattened to a matrix of five rows. Its norm is not that of the layer as a linear map. Five
    iterations of the power method from a random vector, after every step of the critic.
    """
    for module in critic.modules():
        if isinstance(module, nn.Conv2d):
            rows = module.weight.permute(2, 3, 1, 0).flatten(1)  # [height, width x inputs x outputs]
            u = torch.randn(len(rows), generator=generator).to(rows)
            for _ in range(ITERATIONS):
                v = F.normalize(rows.t() @ u, dim=0)
                u = F.normalize(rows @ v, dim=0)
            module.weight.div_((u @ (rows @ v)).clamp(min=1e-12))
