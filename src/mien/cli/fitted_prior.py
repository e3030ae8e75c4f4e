"""Latents that are drawn from a density of real faces' encodings: fitted on first use, kept with the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from mien.cli.encodings import encoded
from mien.core.families import Invertible
from mien.errors import UsageError
from mien.metrics.api import home_of, open_pack, own_data
from mien.sampling import sidecar
from mien.sampling.density import Density, Kind, fit, tensors_of
from mien.sampling.sampler import Sampler

Latents = Literal["prior", "fitted"]
MOST = 20_000  # faces that a density is fitted to


def drawing(sampler: Sampler, latents: Latents, kind: Kind, data: str | None, model: Path) -> Sampler:
    """The sampler that draws as asked. Raises UsageError without an encoder or without data, Mismatch for a stale density."""
    if latents == "prior":
        return sampler
    if not isinstance(sampler.model, Invertible):
        raise UsageError(
            "This model has no encoder.", "Fitted latents are a density of encodings.", "Leave out --latents fitted."
        )
    assert sampler.home is not None
    there = (sampler.home / f"{kind}.safetensors").is_file()
    if there and (data is None or sidecar.belongs(sampler.home, kind, sampler.model_hash)):
        return sampler.fitted(kind)
    if data is None and home_of(model) is None:
        return sampler.fitted(kind)  # which says what is missing
    density = fitted_to(sampler, kind, data if data is not None else own_data(model))
    facts = density.told
    print(
        f"mien: {kind} fitted to {facts['count']:,} encodings: {facts['held_out']:.4f} nats a dimension on unseen ones, "
        f"{facts['gaussian']:.4f} for one normal distribution",
        file=sys.stderr,
    )
    again = f"mien sample MODEL --latents fitted --density {kind} --data PACK"
    told = {"shape": list(density.shape), "fit": dict(facts)}
    sidecar.write(sampler.home, kind, kind, sampler.model_hash, tensors_of(density), again, **told)
    return sampler.fitted(kind)


def fitted_to(sampler: Sampler, kind: Kind, data: str) -> Density:
    """A density of the encodings of a pack's training images."""
    pack = open_pack(data, sampler)
    rows = pack.rows("train")[:MOST].tolist()
    encodings = encoded(sampler, pack, rows, noisy=True)
    return fit(encodings, kind, lambda line: print(f"mien: {line}", file=sys.stderr) if sys.stderr.isatty() else None)
