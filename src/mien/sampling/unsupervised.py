"""Directions without labels or data for any model, and directions that somebody named, stored with the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mien.core.contracts import JSON
from mien.core.families import FlowModel
from mien.errors import Mismatch, UsageError
from mien.nn.ode import Solution
from mien.sampling import sidecar
from mien.sampling.directions import PROBES, Direction, Directions, components
from mien.sampling.sampler import Sampler

FACES = range(64, 257)  # as many as MAX_FLOPS allows
MAX_FLOPS = 3e12  # under half a minute of one core with bf16 units
SOLVER = Solution(method="midpoint", steps=4)  # of a flow
DRAWN = range(1024)  # seeds whose latents say how long one standard deviation is
MAX_NAME = 40


def num_faces(sampler: Sampler) -> int:
    """How many faces `unsupervised_directions` uses: fewer for a model that costs more."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        decoder(sampler)(sampler.model.prior.draw([0], sampler.model.latent_shape).to(next(sampler.model.parameters())))
    affordable = MAX_FLOPS / (1 + PROBES) / max(1, counter.get_total_flops())
    return int(min(max(affordable, FACES[0]), FACES[-1]))


def unsupervised_directions(
    sampler: Sampler, count: int, faces: int, progress: Callable[[int], None] = lambda _: None
) -> list[Direction]:
    """`count` directions along which images change most; `progress` receives the number of faces done."""
    model = sampler.model
    like = next(model.parameters())
    return components(
        decoder(sampler), model.prior, model.latent_shape, count, like=like, faces=faces, progress=progress
    )


def decoder(sampler: Sampler) -> Callable[[Tensor], Tensor]:
    """The function from latents `[n, *latent_shape]` to images whose changes are measured."""
    model = sampler.model

    def decode(z: Tensor) -> Tensor:
        rows = sampler.labels(range(len(z)))
        labels = None if rows is None else rows.to(z)
        with sampler.device_context.autocast():
            return model.decode_by(z, SOLVER, 1.0, labels) if isinstance(model, FlowModel) else model.decode(z, labels)

    return decode


def named_direction(sampler: Sampler, name: str, amounts: Mapping[str, float]) -> Direction:
    """The direction in which some others lead together, as long as one standard deviation of the prior along it.

    Raises UsageError for a name that is taken or cannot be written, and for amounts that cancel each other.
    """
    directions, shape = known(sampler), sampler.model.latent_shape
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip() or name.startswith("__"):
        raise UsageError("This name cannot be used.", f"A name has 1 to {MAX_NAME} characters.", "Choose another name.")
    if name in directions:
        raise UsageError(f"There is a direction `{name}` already.", "It is kept.", "Choose another name.")
    vector = directions.move(torch.zeros(shape), amounts, "latent").double().flatten()
    if float(vector.norm()) < 1e-6:
        raise UsageError(
            "There is no direction to name.", "Every slider is in the middle.", "Move one or more of them."
        )
    unit = vector / vector.norm()
    scale = (sampler.model.prior.draw(DRAWN, shape).double().flatten(1) @ unit).std()
    facts: JSON = {"found": "named", "of": {key: round(value, 4) for key, value in amounts.items() if value}}
    return Direction(name, (unit * scale).float().reshape(shape), "latent", facts)


def known(sampler: Sampler) -> Directions:
    """The directions that this model has already; those of another model are not carried over."""
    try:
        return sampler.directions
    except Mismatch:
        return Directions()


def store(sampler: Sampler, found: list[Direction], again: str) -> Path:
    """Write directions beside those that the model has; `again` is the command that finds them."""
    joined = known(sampler).joined(found)
    assert sampler.extras_folder is not None
    return sidecar.write(
        sampler.extras_folder,
        "directions",
        "directions",
        sampler.model_hash,
        joined.tensors(),
        again,
        directions=joined.descriptions(),
    )
