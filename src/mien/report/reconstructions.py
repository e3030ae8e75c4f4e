"""Reconstructions during training: real faces beside their reconstructions, and KL of each latent dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien.core.contracts import Model, Observer, Progress
from mien.core.families import FlowModel, Invertible, VariationalModel
from mien.report.best_effort import BestEffort
from mien.report.grid import grid, save_png
from mien.report.run_reader import sample_grids
from mien.sampling.sampler import Sampler
from mien.storage import atomic
from mien.storage.bounded_json import dumps
from mien.storage.provenance import Claim

FOLDER = "reconstructions"
GRID = 16  # faces of the picture
TOGETHER = 32  # faces encoded at a time
MEASURED = 256  # faces that the information of each dimension is the mean over


@dataclass(frozen=True)
class Reconstructed:
    """Reconstructions of some real faces."""

    images: Tensor  # [n, C, H, W] in [-1, 1]: reconstructions
    kl: Tensor | None  # [d] nats per latent dimension, for an encoder that returns mean and log-variance


def reconstruct(sampler: Sampler, images: Tensor, labels: Tensor | None) -> Reconstructed | None:
    """Reconstructions of the first faces and KL over all faces; None for a model without an encoder.

    Flows are excluded: they are invertible by construction, and their encodings cost hundreds of function evaluations.
    """
    model = sampler.model
    if not isinstance(model, Invertible) or isinstance(model, FlowModel):
        return None
    rows = None if labels is None else labels[:GRID]
    return Reconstructed(sampler.reconstruct(images[:GRID], rows), kl_per_dimension(sampler, images, labels))


@torch.inference_mode()
def kl_per_dimension(sampler: Sampler, images: Tensor, labels: Tensor | None) -> Tensor | None:
    """KL of each latent dimension given the earlier ones, in nats, `[d]`, the mean over faces; None without a posterior."""
    model, context = sampler.model, sampler.device_context
    if not isinstance(model, VariationalModel):
        return None
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    parts = []
    for start in range(0, len(images), TOGETHER):
        rows = slice(start, start + TOGETHER)
        content = None if labels is None else labels[rows].to(context.device, dtype)
        with context.autocast():
            parts.append(model.kl_per_dimension(images[rows].to(context.device, dtype), content).double())
    return torch.cat(parts).mean(0).cpu()


class Reconstructions(Observer):
    """Writes, at each sample period, the same real faces above their reconstructions, and encodings.json."""

    def __init__(
        self,
        run_dir: Path,
        images: Tensor,
        reconstruct_with: Callable[[Model], Reconstructed | None],
        recipe: Mapping[str, Any],
    ) -> None:
        """`images` `[n, C, H, W]` in [-1, 1] are the faces that `reconstruct_with` reconstructs."""
        self.run_dir, self.images, self.reconstruct_with, self.recipe = run_dir, images, reconstruct_with, recipe
        self.best_effort = BestEffort(run_dir)

    def after_step(self, progress: Progress, model: Model) -> None:
        if not progress.show or (seen := self.reconstruct_with(model)) is None:
            return
        rows = [
            row
            for start in range(0, len(seen.images), 8)
            for row in (self.images[start : start + 8], seen.images[start : start + 8])
        ]
        with self.best_effort(FOLDER):
            for old, path in sample_grids(self.run_dir, FOLDER):
                if old > progress.seen:  # of a future that a rollback or a resume took back
                    path.unlink()
            file = self.run_dir / FOLDER / f"{progress.seen:010d}.png"
            picture = grid(torch.cat(rows), columns=min(8, len(seen.images)))
            save_png(picture, file, {**self.recipe, "seen": progress.seen}, Claim.BESIDE_PHOTOGRAPH)
            if seen.kl is not None:
                content = {"seen": progress.seen, "kl": [round(value, 6) for value in seen.kl.tolist()]}
                atomic.replace_text(self.run_dir / "encodings.json", dumps(content))
