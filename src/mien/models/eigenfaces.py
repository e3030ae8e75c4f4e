"""Eigenfaces (Sirovich and Kirby 1987; Turk and Pentland 1991): a Gaussian over principal components of the pixels.

What a linear model makes of a pack, fitted in seconds without a gradient: the row that every learned model must beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mien.core.contracts import ImageSpec, ModelConfig
from mien.core.families import Invertible
from mien.errors import DataError, UsageError
from mien.nn.priors import Normal

SPARE = 16  # directions beyond those wanted, which make the wanted ones converge
ROUNDS = 6  # of power iteration: each costs two passes over the images


class Eigenfaces(Invertible):
    """The mean face, plus components weighted by independent normal numbers."""

    def __init__(self, config: EigenfacesConfig, faces: ImageSpec) -> None:
        super().__init__()
        self.shape = (faces.channels, faces.side, faces.side)
        pixels = faces.channels * faces.side**2
        self.latent_shape = (config.components,)
        self.prior = Normal()
        self.mean = nn.Parameter(torch.zeros(pixels))
        self.components = nn.Parameter(torch.zeros(config.components, pixels))  # orthonormal rows
        self.deviations = nn.Parameter(torch.ones(config.components))  # of the images along each, the largest first

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        flat = self.mean + (z * self.deviations) @ self.components
        return flat.reshape(-1, *self.shape).clamp(-1.0, 1.0)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return (images.flatten(1) - self.mean) @ self.components.T / self.deviations


@dataclass(frozen=True, kw_only=True)
class EigenfacesConfig(ModelConfig):
    """How many directions of the pixels vary."""

    components: int = 64

    def __post_init__(self) -> None:
        if self.components < 1:
            raise UsageError(f"{self.components} components are not possible.", "They count.", "Give 1 or more.")

    def build(self, faces: ImageSpec) -> Eigenfaces:
        return Eigenfaces(self, faces)


@torch.no_grad()
def fit(config: EigenfacesConfig, faces: ImageSpec, passes: Callable[[], Iterator[Tensor]]) -> Eigenfaces:
    """The model of the images `[n, C, H, W]` in [-1, 1] whose blocks each call of `passes` gives.

    Power iteration of a seeded subspace (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4), so that neither the images
    nor their covariance need fit in memory. Raises DataError for no more images than components.
    """
    model = config.build(faces)
    pixels, wanted = model.mean.numel(), config.components
    count, total = 0, torch.zeros(pixels, dtype=torch.float64)
    for block in passes():
        count += len(block)
        total += block.flatten(1).double().sum(0)
    if count <= wanted or pixels < wanted:
        raise DataError(
            f"{count} images of {pixels} numbers have no {wanted} principal components.",
            "Each component needs an image, and one is needed for the mean.",
            "Give a larger pack.",
        )
    mean = (total / count).float()
    width = min(wanted + SPARE, pixels, count)
    basis = torch.linalg.qr(torch.randn(pixels, width, generator=torch.Generator().manual_seed(0)))[0]
    for _ in range(ROUNDS):
        turned = torch.zeros_like(basis)
        for block in passes():
            centred = block.flatten(1) - mean
            turned += centred.T @ (centred @ basis)
        basis = torch.linalg.qr(turned)[0]
    inside = torch.cat([(block.flatten(1) - mean) @ basis for block in passes()])  # [n, width]
    _, singular, rows = torch.linalg.svd(inside, full_matrices=False)
    components = rows[:wanted] @ basis.T
    signs = components.gather(
        1, components.abs().argmax(1, keepdim=True)
    ).sign()  # else the sign is the library's choice
    model.mean.copy_(mean)
    model.components.copy_(components * signs)
    model.deviations.copy_((singular[:wanted] / (count - 1) ** 0.5).clamp_min(1e-8))
    return model.eval()
