"""The quality order of a model: its first seeds, those whose faces hold first. A page may start with them; no seed is left out.

A torn face resembles few others. So faces are ranked by density: the mean distance to the nearest neighbours among the model's own
samples, in features of a network. Within each tenth the seeds keep their numbers' order: the densest faces alone are all alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mien.errors import MienError
from mien.sampling import sidecar
from mien.sampling.sampler import Sampler

KIND = "order"
SEEDS = 4096  # that are ranked
NEIGHBOURS = 10
CLASSES = 10


def by_density(features: Tensor) -> Tensor:
    """Seeds 0 to n-1 by density, int32 `[n]`, from features `[n, d]` of their faces; the densest tenth first."""
    count = len(features)
    near = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    distance = near.topk(min(NEIGHBOURS, count - 1), largest=False).values.mean(1)
    rank = torch.empty(count, dtype=torch.int64)
    rank[distance.argsort()] = torch.arange(count)
    return (rank * CLASSES // count).argsort(stable=True).int()


def store(sampler: Sampler, seeds: Tensor) -> None:
    """Write the order beside the model."""
    assert sampler.extras_folder is not None
    again = "python benchmarks/base_models.py NAME WORK_DIR --steps order"
    sidecar.write(sampler.extras_folder, KIND, KIND, sampler.model_hash, {"seeds": seeds}, again)


def quality_order(sampler: Sampler) -> list[int]:
    """Seeds, the best first; empty where the model has no order, or one of another model."""
    if sampler.extras_folder is None or not sampler.model_hash:
        return []
    try:
        extra = sidecar.read(sampler.extras_folder, KIND, KIND, sampler.model_hash)
    except MienError:
        return []
    seeds = None if extra is None else extra.tensors.get("seeds")
    if seeds is None or seeds.ndim != 1 or seeds.is_floating_point() or not 0 < len(seeds) <= SEEDS or seeds.min() < 0:
        return []
    return [int(seed) for seed in seeds]
