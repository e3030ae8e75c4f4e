"""mien: train, judge, explore and serve generators of faces.

import mien

run = mien.train("quick", minutes=5)
faces = mien.load(run).sample(seeds=range(64))  # [64, 3, 64, 64] in [-1, 1]
scores = mien.evaluate(run, metrics=("fid", "kid"))
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Threads that wait yield their core. Spinning, which is OpenMP's default, wins little on an idle machine and made training up
# to 14 times slower on one with other work (docs/LOG.md). Read when torch loads, so it must stand before any import of it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from mien.core.contracts import (
        Batch,
        ImageSpec,
        Model,
        ModelConfig,
        Observer,
        Prior,
        Progress,
        Recipe,
        RecipeConfig,
        Update,
    )
    from mien.core.families import Invertible
    from mien.core.run import EMAConfig, Run
    from mien.metrics.api import evaluate
    from mien.sampling.sampler import Sampler
    from mien.training.experiment import train

    load = Sampler.load

__all__ = [
    "Averaging",
    "Batch",
    "Faces",
    "Invertible",
    "Model",
    "ModelConfig",
    "Observer",
    "Prior",
    "Progress",
    "Recipe",
    "RecipeConfig",
    "Run",
    "Sampler",
    "Update",
    "__version__",
    "evaluate",
    "load",
    "train",
]

_HOMES = {
    **dict.fromkeys(
        (
            "Batch",
            "Faces",
            "Invertible",
            "Model",
            "ModelConfig",
            "Observer",
            "Prior",
            "Progress",
            "Recipe",
            "RecipeConfig",
            "Update",
        ),
        "mien.core.contracts",
    ),
    "Averaging": "mien.core.run",
    "Run": "mien.core.run",
    "Sampler": "mien.sampling.sampler",
    "evaluate": "mien.metrics.api",
    "train": "mien.training.experiment",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `mien --help` never waits for torch."""
    if name == "load":
        return importlib.import_module("mien.sampling.sampler").Sampler.load
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")
