"""mien: train, evaluate, explore and serve generators of faces.

import mien

run = mien.train("quick", minutes=5)
faces = mien.load(run).sample(seeds=range(64))  # [64, 3, 64, 64] in [-1, 1]
scores = mien.evaluate(run, metrics=("fid", "kid"))
mien.save_grid(faces, "faces.png")
print(scores["fid"].value, mien.presets())
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Waiting threads yield their core. Spinning, OpenMP's default, gains little on an idle machine and made training up to 14 times
# slower on a busy one (docs/LOG.md). torch reads this when it loads, so it must be set before any import of torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from mien import presets
    from mien.core.contracts import (
        Batch,
        ImageSpec,
        Model,
        ModelConfig,
        NetworkConfig,
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
    from mien.report.grid import save_grid
    from mien.sampling.options import DrawOptions
    from mien.sampling.sampler import Sampler
    from mien.training.experiment import train
    from mien.training.trained_run import TrainedRun
    from mien.web.background import explore

    load = Sampler.load

_CONTRACTS = (
    *("Batch", "ImageSpec", "Model", "ModelConfig", "NetworkConfig", "Observer", "Prior"),
    *("Progress", "Recipe", "RecipeConfig", "Update"),
)
_MODULES = {
    **dict.fromkeys(_CONTRACTS, "mien.core.contracts"),
    "EMAConfig": "mien.core.run",
    "Invertible": "mien.core.families",
    "Run": "mien.core.run",
    "DrawOptions": "mien.sampling.options",
    "Sampler": "mien.sampling.sampler",
    "evaluate": "mien.metrics.api",
    "explore": "mien.web.background",
    "save_grid": "mien.report.grid",
    "TrainedRun": "mien.training.trained_run",
    "train": "mien.training.experiment",
}
__all__ = [
    "Batch",
    "DrawOptions",
    "EMAConfig",
    "ImageSpec",
    "Invertible",
    "Model",
    "ModelConfig",
    "NetworkConfig",
    "Observer",
    "Prior",
    "Progress",
    "Recipe",
    "RecipeConfig",
    "Run",
    "Sampler",
    "TrainedRun",
    "Update",
    "__version__",
    "evaluate",
    "explore",
    "load",
    "presets",
    "save_grid",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `mien --help` never waits for torch."""
    if name == "presets":  # a package that can be called
        return importlib.import_module("mien.presets")
    if name == "load":
        return importlib.import_module("mien.sampling.sampler").Sampler.load
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
