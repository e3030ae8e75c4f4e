"""`mien directions`: find what to add to a latent so that its face smiles, and keep it with the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from mien.cli.encodings import encoded
from mien.cli.result import Result
from mien.core.families import FlowModel, Invertible
from mien.core.run import Device, Precision
from mien.errors import DataError, Mismatch, UsageError, did_you_mean
from mien.metrics.api import open_pack
from mien.nn.ode import Solution
from mien.sampling import sidecar
from mien.sampling.directions import PICTURES, Direction, Directions, Purity, by_labels, components
from mien.sampling.sampler import Sampler

FACES = range(64, 257)  # that are looked at for directions without labels: as many as the operations allow
OPERATIONS = 3e12  # for that, about: under half a minute of one core with bf16 units
ROUGHLY = Solution(method="midpoint", steps=4)  # how a flow is followed there


def directions(
    model: Path,
    /,
    *,
    data: str | None = None,
    labels: str = "",
    purity: Purity = "plain",
    images: int = 10_000,
    split: Literal["train", "holdout", "all"] = "train",
    unsupervised: Annotated[int | None, Parameter(negative=())] = None,
    device: Device = "auto",
    code: Path | None = None,
) -> Result:
    """Find named directions of a model's latents; without --data or --unsupervised, list those that it has.

    They are kept in extras/ of the run, bound to the model's hash; `mien edit` moves along them. Examples:

        mien directions RUN --data celeba.pack --labels Smiling,Male,Eyeglasses
        mien directions RUN --data celeba.pack --purity joint
        mien directions RUN --unsupervised 10
        mien directions RUN

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    data
        A pack with labels, whose faces the model encodes: the direction of a label is the mean encoding with it minus without.
    labels
        Which of the pack's labels, with commas; all by default.
    purity
        plain: the difference of means; joint: what a label adds while the others stay, by least squares over all of the pack's
        labels; orthogonal: the difference without its share in those of the other chosen labels.
    images
        How many faces are encoded, at most: the first ones.
    split
        The part of the pack.
    unsupervised
        So many directions without labels: where the picture changes most, called component-1 and so on.
    device
        Where to compute.
    code
        The file of a model of your own.
    """
    precision: Precision = "fp32" if unsupervised is None else "auto"  # how faces change is an estimate anyhow
    sampler = Sampler.load(model, device=device, precision=precision, code=code)
    if data is None and unsupervised is None:
        if not sampler.directions:
            raise UsageError(
                "This model has no directions yet.",
                "They are found from a pack's labels, or without.",
                "Add --data PACK for a model with an encoder, or --unsupervised 10 for any.",
            )
        return shown(sampler.directions, [])
    if data is not None and unsupervised is not None:
        raise UsageError("--data and --unsupervised are two ways.", "Each run finds by one.", "Leave one out.")
    warnings: list[str] = []
    if unsupervised is not None:
        found, again = changes(sampler, unsupervised), f"mien directions MODEL --unsupervised {unsupervised}"
    else:
        assert data is not None
        if images < 4:
            raise UsageError(f"--images {images} is not possible.", "It counts faces.", "Give 1,000 or more.")
        found, warnings = supervised(sampler, data, labels, purity, images, split)
        chosen = ",".join(direction.name for direction in found)
        again = f"mien directions MODEL --data PACK --labels {chosen} --purity {purity}"
    kept = known(sampler).joined(found)
    assert sampler.extras_folder is not None
    path = sidecar.write(
        sampler.extras_folder,
        "directions",
        "directions",
        sampler.model_hash,
        kept.tensors(),
        again,
        directions=kept.told(),
    )
    for line in warnings:
        print(f"mien: {line}", file=sys.stderr)
    return shown(Directions(tuple(found)), warnings, path)


def known(sampler: Sampler) -> Directions:
    """The directions that this very model has already: those of another are not carried over."""
    try:
        return sampler.directions
    except Mismatch:
        return Directions()


def changes(sampler: Sampler, count: int) -> list[Direction]:
    """Directions without labels."""
    model, engine = sampler.model, sampler.device_context
    like = next(model.parameters())

    def decode(z: Tensor) -> Tensor:
        rows = sampler.labels(range(len(z)))
        told = None if rows is None else rows.to(z)
        with engine.autocast():
            return model.decode_by(z, ROUGHLY, 1.0, told) if isinstance(model, FlowModel) else model.decode(z, told)

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        decode(model.prior.draw([0], model.latent_shape).to(like))
    affordable = OPERATIONS / (1 + PICTURES) / max(1, counter.get_total_flops())
    faces = int(min(max(affordable, FACES[0]), FACES[-1]))
    with tqdm(total=faces, desc="components", unit=" faces", leave=False, disable=None) as bar:
        return components(
            decode, model.prior, model.latent_shape, count, like=like, faces=faces, told=lambda n: void(bar.update(n))
        )


def void(_: object) -> None:
    """What a listener answers."""


def supervised(
    sampler: Sampler, data: str, labels: str, purity: Purity, images: int, split: str
) -> tuple[list[Direction], list[str]]:
    """Directions of a pack's labels, and warnings."""
    if not isinstance(sampler.model, Invertible):
        raise UsageError(
            "This model has no encoder.",
            "Directions of labels come from encodings of labelled faces, and descending to thousands takes hours.",
            "Find some without labels: --unsupervised 10.",
        )
    pack = open_pack(data, sampler)
    if pack.labels is None:
        raise DataError(
            f"{data} has no labels.",
            "It was prepared without.",
            "Prepare a pack with --labels, or use --unsupervised 10.",
        )
    chosen = [word.strip() for word in labels.split(",") if word.strip()] or list(pack.label_names)
    for name in chosen:
        if name not in pack.label_names:
            raise UsageError(
                f"There is no label `{name}`.", f"{data} has others.", did_you_mean(name, pack.label_names)
            )
    rows = pack.rows(split)[:images]
    if len(rows) < 4:
        raise DataError(f"{data} has {len(rows)} {split} images.", "A direction needs faces.", "Use --split all.")
    encodings = encoded(sampler, pack, rows.tolist())
    told = torch.from_numpy(pack.labels[rows])
    # What the labels that were not chosen explain is not theirs either.
    names = chosen if purity != "joint" else list(pack.label_names)
    columns = [pack.label_names.index(name) for name in names]
    found, warnings = by_labels(encodings, told[:, columns], names, sampler.encoding_space, purity)
    found = [direction for direction in found if direction.name in chosen]
    warnings = [line for line in warnings if line.partition(":")[0] in chosen]
    if not found:
        raise DataError(
            "No label has a direction.", "; ".join(warnings), "Choose labels that some faces have and some lack."
        )
    return found, warnings


def shown(found: Directions, warnings: list[str], path: Path | None = None) -> Result:
    """A line for each direction."""
    width = max(map(len, found))
    lines = []
    for name, direction in found.items():
        told = direction.told
        if told.get("found") == "labels":
            auc = "unknown" if told.get("auc") is None else f"{told['auc']:.3f}"
            said = f"{told['with']:>6,} with {told['without']:>6,} without, {told['apart']:5.2f} deviations apart, AUC {auc}"
        else:
            said = f"{100 * told['share']:.1f}% of the change" if "share" in told else ""
        lines.append(f"{name:<{width}}  {said}")
    files = [str(path)] if path else []
    return Result("\n".join([*lines, *files]), {"directions": found.told(), "warnings": warnings, "files": files})
