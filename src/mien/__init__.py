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

from mien._version import __version__

# Threads that wait yield their core. Spinning, which is OpenMP's default, wins little on an idle machine and made training up
# to 14 times slower on one with other work (docs/LOG.md). Read when torch loads, so it must stand before any import of it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from mien.core import (
        Batch,
        Faces,
        Invertible,
        Model,
        ModelConfig,
        Observer,
        Prior,
        Progress,
        Recipe,
        RecipeConfig,
        Update,
    )
    from mien.experiment import train
    from mien.metrics.subjects import evaluate
    from mien.run import Averaging, Run
    from mien.sampler import Sampler

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
        "mien.core",
    ),
    "Averaging": "mien.run",
    "Run": "mien.run",
    "Sampler": "mien.sampler",
    "evaluate": "mien.metrics.subjects",
    "train": "mien.experiment",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `mien --help` never waits for torch."""
    if name == "load":
        return importlib.import_module("mien.sampler").Sampler.load
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")
