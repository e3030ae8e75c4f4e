"""Quick checks on a few dozen faces without a network: the number of different faces, copies of training images, and the
information in a latent. They take a few milliseconds on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mien.core.families import VariationalModel
from mien.data.pack import Pack

COARSE, FINE = 8, 16  # pixels a side: to search for copies, to tell faces apart
GRID = 64  # faces in one check
MAX_IMAGES = 20_000  # training images that are searched for copies, evenly spread
NEIGHBOURS = 50  # what is near for a face is measured by its nearest training images
PART = 64  # training images in floats at a time: with 1,024 of 128 px a check took 4 GB (LOG 2026-12-01)
REALS = 512  # real faces that calibrate how near two different faces may be
#: Of the distance of neighbours: nearer training images are one picture twice, perhaps saved again. Measured (LOG 2026-11-30):
#: the nearest of 600 drawn faces are at 0.14, of 1,500 photographs at 0.38, JPEGs of quality 75 at 0.03 to 0.14.
DUPLICATE = 0.15
ACTIVE = (
    0.01  # nats that a dimension of the latent carries on average, if it is used (as arXiv:1509.00519, section 5.2)
)


def small(images: Tensor, side: int) -> Tensor:
    """`[n, C, H, W]` -> the mean colours of `side` by `side` fields, `[n, 3 * side * side]`, in the range of the images."""
    images = images.float().expand(-1, 3, -1, -1)
    return torch.nn.functional.adaptive_avg_pool2d(images, side).flatten(1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """`[n, d]` and `[m, d]` -> `[n, m]`, in the precision of the arguments."""
    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
    return squared.clamp(min=0.0)


def spread(faces: Tensor) -> float:
    """Root mean square difference of two faces `[n, d]` in [-1, 1], in grey levels of 255."""
    return float(2.0 * faces.double().var(0).mean()) ** 0.5 * 127.5 if len(faces) > 1 else 0.0


def different(faces: Tensor) -> float:
    """The effective number of different faces `[n, d]`, from 1 (all equal) to n (all different), relative to their spread.

    The Vendi score (Friedman and Dieng 2023, arXiv:2210.02410): the exponential of the entropy of the eigenvalues of K / n,
    here with K = exp(-2 d^2 / m), m the mean d^2 of two faces. Two modes give 2, whether their faces are good or grey; faces
    that vary freely give more than half of n, from the first steps of a training on.
    """
    squared = squared_distances(faces.double(), faces.double())
    width = max(float(squared.sum()) / max(len(faces) * (len(faces) - 1), 1), 1e-9)
    weights = torch.linalg.eigvalsh(torch.exp(-2.0 * squared / width) / len(faces)).clamp(min=1e-12)
    return float(torch.exp(-(weights * weights.log()).sum()))


class RealFaces:
    """The reference: training images at two small sizes, read on first use."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        rows = pack.rows("train")
        self.rows = rows if len(rows) <= MAX_IMAGES else rows[np.arange(MAX_IMAGES) * len(rows) // MAX_IMAGES]

    def images(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Some rows of the pack as float images `[n, 3, H, W]` in [-1, 1]."""
        return torch.from_numpy(np.asarray(self.pack.images[rows])).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def spread_rows(self, count: int) -> npt.NDArray[np.int64]:
        """At most `count` rows, evenly spread over those in use."""
        count = min(count, len(self.rows))
        return self.rows[np.arange(count) * len(self.rows) // count]

    @cached_property
    def some(self) -> Tensor:
        """`GRID` real faces, `[n, 3, H, W]` in [-1, 1]."""
        return self.images(self.spread_rows(GRID))

    @cached_property
    def labels(self) -> Tensor | None:
        """The labels of `some`."""
        rows = self.spread_rows(GRID)
        return None if self.pack.labels is None else torch.from_numpy(np.array(self.pack.labels[rows]))

    @cached_property
    def different(self) -> float:
        """The effective number of different faces among as many real ones."""
        return different(small(self.some, FINE))

    @cached_property
    def small_images(self) -> Tensor:
        """All rows in use at `COARSE` pixels, `[n, d]`."""
        found = torch.empty(len(self.rows), 3 * COARSE**2)
        for at in range(0, len(self.rows), PART):
            found[at : at + PART] = small(self.images(self.rows[at : at + PART]), COARSE)
        return found

    def distances_to_training(self, faces: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The distance of faces `[n, 3, H, W]` to the nearest training image over the mean of the nearest `NEIGHBOURS`, and
        which that is. `own` are places in `rows` that do not count, one a face.

        Near 0 for a copy. A blurred face is near many and no nearer to one, where the bare distance would call it a
        copy (Carlini et al. 2023, arXiv:2301.13188, section 4.2, divide for the same reason). A mirrored copy is a copy.
        """
        straight, mirrored = (small(images, COARSE) for images in (faces, faces.flip(3)))
        squared = torch.minimum(
            squared_distances(straight, self.small_images), squared_distances(mirrored, self.small_images)
        )
        if own is not None:
            squared[torch.arange(len(faces)), own] = torch.inf
        neighbours = max(1, min(NEIGHBOURS, len(self.rows) - 1))
        nearest, places = squared.topk(neighbours, largest=False)
        distances = nearest.sqrt()
        return distances[:, 0] / distances.mean(1).clamp(min=1e-9), places[:, 0]

    @cached_property
    def copy_bound(self) -> float:
        """The distances_to_training under which a face is a copy: half of what 1 in 100 real faces has to the others.

        Duplicates do not count: with one in a hundred, the bound would be 0 and nothing a copy.
        """
        places = torch.arange(min(REALS, len(self.rows))) * len(self.rows) // min(REALS, len(self.rows))
        parts = [places[at : at + PART] for at in range(0, len(places), PART)]
        found = torch.cat([self.distances_to_training(self.images(self.rows[p.numpy()]), p)[0] for p in parts])
        found = found[found > DUPLICATE]
        return float(found.quantile(0.01)) / 2.0 if len(found) else 0.0

    def copies(self, faces: Tensor) -> float:
        """The share of faces `[n, C, H, W]` in [-1, 1] that are copies of training images."""
        distances_to_training, _ = self.distances_to_training(faces.float().expand(-1, 3, -1, -1))
        return float((distances_to_training < self.copy_bound).double().mean())


@dataclass(frozen=True)
class LatentUse:
    """The information that the latent of an autoencoder transmits."""

    kept: float  # share of the difference between two faces that the latent preserves: 0 if it is ignored, 1 at best
    nats: float  # of information in a latent, on average
    active: int  # dimensions that carry some
    dimensions: int


@torch.no_grad()
def latent_use(model: VariationalModel, images: Tensor, labels: Tensor | None = None) -> LatentUse:
    """Encode and decode real faces `[n, 3, H, W]`, once with their own latents and once with each other's.

    An ignored latent gives the same errors for both.
    """
    like = next(model.parameters())
    images = images.to(like)
    conditions = None if labels is None or not model.label_dim else labels.to(like)
    codes = model.posterior(images, conditions).mean
    own, swapped = (model.decode_code(some, conditions) for some in (codes, codes.roll(1, 0)))
    errors = [float((made - images).double().square().mean()) for made in (own, swapped)]
    kl = model.kl_per_dimension(images, conditions).double().mean(0)
    kept = 1.0 - errors[0] / max(errors[1], 1e-12)
    return LatentUse(kept, float(kl.sum()), int((kl > ACTIVE).sum()), len(kl))
