"""Latents from a density of real faces' encodings: fitted on first use, stored with the model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mien.cli.encodings import encoded
from mien.cli.model_options import Flat
from mien.core.families import Invertible
from mien.errors import UsageError
from mien.metrics.api import open_pack, run_of, training_data_of
from mien.sampling import sidecar
from mien.sampling.density import Density, DensityKind, fit, tensors_of
from mien.sampling.sampler import Sampler

MAX_FACES = 20_000  # that a density is fitted to


@dataclass(frozen=True, kw_only=True)
class PriorOptions:
    """Which distribution latents are drawn from.

    Parameters
    ----------
    prior
        model: the prior that the model was trained with; fitted: a density of the encodings of real faces, fitted on first use
        and stored with the model.
    density
        Of a fitted prior: gmm, a Gaussian mixture, or flow, a normalizing flow.
    """

    prior: Literal["model", "fitted"] = "model"
    density: DensityKind = "gmm"

    def apply(self, sampler: Sampler, data: str | None, model: Path) -> Sampler:
        """The sampler with this prior. Raises UsageError without an encoder or data, Mismatch for another model's density."""
        if self.prior == "model":
            return sampler
        if not isinstance(sampler.model, Invertible):
            raise UsageError(
                "This model has no encoder.",
                "A fitted prior is a density of encodings.",
                "Leave out --prior fitted.",
            )
        kind, folder = self.density, sampler.extras_folder
        assert folder is not None
        exists = sidecar.path_of(folder, kind, sampler.model_hash).is_file()
        if exists and (data is None or sidecar.belongs(folder, kind, sampler.model_hash)):
            return sampler.with_fitted_prior(kind)
        if data is None and run_of(model) is None:
            return sampler.with_fitted_prior(kind)  # its error says what is missing
        density = fit_density(sampler, kind, data if data is not None else training_data_of(model))
        facts = density.facts
        print(
            f"mien: {kind} fitted to {facts['count']:,} encodings: {facts['held_out']:.4f} nats a dimension on held-out ones, "
            f"{facts['gaussian']:.4f} for one normal distribution",
            file=sys.stderr,
        )
        again = f"mien sample MODEL --prior fitted --density {kind} --data PACK"
        header = {"shape": list(density.shape), "fit": dict(facts)}
        sidecar.write(folder, kind, kind, sampler.model_hash, tensors_of(density), again, **header)
        return sampler.with_fitted_prior(kind)


FittedPrior = Annotated[PriorOptions, Flat]


def fit_density(sampler: Sampler, kind: DensityKind, data: str) -> Density:
    """A density of the encodings of a pack's training images."""
    pack = open_pack(data, sampler)
    rows = pack.rows("train")[:MAX_FACES].tolist()
    encodings = encoded(sampler, pack, rows, noisy=True)
    return fit(encodings, kind, lambda line: print(f"mien: {line}", file=sys.stderr) if sys.stderr.isatty() else None)
