"""Ingredients of the two-player game, for any networks: softened targets, noise behind activations, spectral norms.

What a network is given here it has only while it learns: the model that is exported has none of it.
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


def targets(count: int, real: bool, smooth: float, flip: float, generator: torch.Generator) -> Tensor:
    """What a critic is to say of `count` images, `[count]` in [0, 1]: 1 for real and 0 for fake, then less than plainly so.

    `smooth` is how far a target may lie from the truth, uniformly. Then of a share `flip`, rounded up and drawn with
    replacement, the opposite is asked.
    """
    softened = smooth * torch.rand(count, generator=generator)
    wanted = 1.0 - softened if real else softened
    if flip:
        chosen = torch.randint(count, (ceil(flip * count),), generator=generator)
        wanted[chosen] = 1.0 - wanted[chosen]
    return wanted


class Noise:
    """A hook behind a layer: adds numbers from N(0, deviation) to what it gives, while it learns."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.deviation * torch.randn_like(output) if layer.training else output


def add_noise(network: nn.Module, deviation: float) -> None:
    """Put noise behind every activation of a network. Raises UsageError for one whose activations are no layers."""
    if not deviation:
        return
    layers = [module for module in network.modules() if isinstance(module, ACTIVATIONS)]
    if not layers:
        raise UsageError(
            f"There is no place for noise in a {type(network).__name__}.",
            "It goes behind activations, and this network has none as layers.",
            "Leave the noise at 0, or take another network.",
        )
    for layer in layers:
        layer.register_forward_hook(Noise(deviation))


class SpectralNorm(nn.Module):
    """A weight over its largest singular value, as a map from inputs to outputs (Miyato et al. 2018, arXiv:1802.05957, 2.1).

    One iteration of the power method a forward; the vector it has come to is state.
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


def normalise_spectra(critic: nn.Module) -> None:
    """Give every convolution and linear layer a spectral norm of 1."""
    for module in list(critic.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))


@torch.no_grad()
def constrain_heights(critic: nn.Module, generator: torch.Generator) -> None:
    """homogan's constraint: divide each convolution's kernel by the largest singular value of its rows.

    The kernel is flattened behind its height: this is the norm of a matrix of five rows, and not of the map that the layer is.
    Five iterations from a fresh vector, after every move of the critic.
    """
    for module in critic.modules():
        if isinstance(module, nn.Conv2d):
            rows = module.weight.permute(2, 3, 1, 0).flatten(1)  # [height, width x inputs x outputs]
            u = torch.randn(len(rows), generator=generator).to(rows)
            for _ in range(ITERATIONS):
                v = F.normalize(rows.t() @ u, dim=0)
                u = F.normalize(rows @ v, dim=0)
            module.weight.div_((u @ (rows @ v)).clamp(min=1e-12))
