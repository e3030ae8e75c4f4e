"""`mien directions`: find named directions in latent space, and store them with the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from tqdm import tqdm

from mien.cli.arguments import positive, within
from mien.cli.encodings import encoded
from mien.cli.model_options import CodeFile, ComputeDevice, ModelPath
from mien.cli.result import Result
from mien.core.families import Invertible
from mien.core.run import Precision
from mien.data.open import check_source
from mien.errors import DataError, UsageError, did_you_mean
from mien.metrics.api import open_pack
from mien.sampling.directions import Direction, Directions, Disentangle, by_labels
from mien.sampling.sampler import Sampler
from mien.sampling.unsupervised import num_faces, store, unsupervised_directions

COMPONENTS = 6  # beside the measured directions of faces without a mesh


def directions(
    model: ModelPath,
    /,
    *,
    data: str | None = None,
    labels: str = "",
    disentangle: Disentangle = "none",
    images: int = 10_000,
    split: Literal["train", "holdout", "all"] = "train",
    unsupervised: Annotated[int | None, Parameter(negative=())] = None,
    measured: Annotated[bool, Parameter(negative=())] = False,
    device: ComputeDevice = "auto",
    code: CodeFile = None,
) -> Result:
    """Find named directions in a model's latent space; without --measured, --data or --unsupervised, list its directions.

    They are stored in extras/ of the run, bound to the model's hash; `mien edit` moves along them. Examples:

        mien directions RUN --measured
        mien directions RUN --data celeba.pack --labels Smiling,Male,Eyeglasses
        mien directions RUN --data celeba.pack --disentangle joint
        mien directions RUN --unsupervised 10
        mien directions RUN

    Parameters
    ----------
    data
        Pack with labels: the direction of a label is the mean encoding of the faces with it, minus that of the faces without.
    labels
        Labels of the pack, separated by commas; by default all.
    disentangle
        none: the difference of means; joint: the effect of a label with all others of the pack fixed, by least squares;
        orthogonal: the difference of means projected off those of the other chosen labels.
    images
        Maximum number of faces to encode: the first ones.
    split
        Split of the pack: train, holdout or all.
    unsupervised
        Number of directions to find without labels: those along which images change most, named component-1 and so on.
    measured
        Find directions that change one measure of a face and leave the others: pose and expression by a face mesh (the extra
        `faces`), light and colour by pixels; for faces without a mesh, light, colour and components.
    """
    if data is None and (labels or disentangle != "none"):
        raise UsageError(
            "--labels and --disentangle need --data.",
            "They speak of the labels of a pack.",
            "Add --data PACK, or leave them out.",
        )
    if sum((data is not None, unsupervised is not None, measured)) > 1:
        raise UsageError(
            "Only one of --data, --unsupervised and --measured can be given.",
            "Each is a way to find directions.",
            "Run the command once for each: directions of other names are kept.",
        )
    within("images", images, 4, None, "It is a number of faces.", "Give --images 1000.")
    positive("unsupervised", unsupervised)
    check_source(data)
    found: list[Direction]
    precision: Precision = "auto" if measured or unsupervised is not None else "fp32"  # estimates: bf16 suffices
    sampler = Sampler.load(model, device=device, precision=precision, code=code)
    if data is None and unsupervised is None and not measured:
        if not sampler.directions:
            raise UsageError(
                "This model has no directions yet.",
                "They are found by measuring faces, with a pack's labels, or without labels.",
                "Add --measured, --data PACK for a model with an encoder, or --unsupervised 10.",
            )
        return listing(sampler.directions, [])
    warnings: list[str] = []
    if measured:
        from mien.cli.measured_directions import measured_directions

        found, warnings, mesh = measured_directions(sampler)
        again = "mien directions MODEL --measured"
        if not mesh:
            found += components_with_progress(sampler, min(COMPONENTS, torch.Size(sampler.model.latent_shape).numel()))
    elif unsupervised is not None:
        found, again = (
            components_with_progress(sampler, unsupervised),
            f"mien directions MODEL --unsupervised {unsupervised}",
        )
    else:
        assert data is not None
        found, warnings = supervised(sampler, data, labels, disentangle, images, split)
        chosen = ",".join(direction.name for direction in found)
        again = f"mien directions MODEL --data PACK --labels {chosen} --disentangle {disentangle}"
    path = store(sampler, found, again)
    for line in warnings:
        print(f"mien: {line}", file=sys.stderr)
    return listing(Directions(tuple(found)), warnings, path)


def components_with_progress(sampler: Sampler, count: int) -> list[Direction]:
    """Directions without labels, with a bar on a terminal."""
    faces = num_faces(sampler)
    with tqdm(total=faces, desc="components", unit=" faces", leave=False, disable=None) as bar:
        return unsupervised_directions(sampler, count, faces, lambda n: void(bar.update(n)))


def void(_: object) -> None:
    """Discards a value."""


def supervised(
    sampler: Sampler, data: str, labels: str, disentangle: Disentangle, images: int, split: str
) -> tuple[list[Direction], list[str]]:
    """Directions of a pack's labels, and warnings."""
    if not isinstance(sampler.model, Invertible):
        raise UsageError(
            "This model has no encoder.",
            "Directions of labels need encodings of labelled faces; gradient descent for thousands would take hours.",
            "Find directions without labels: --unsupervised 10.",
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
                f"There is no label `{name}`.", f"{data} does not have it.", did_you_mean(name, pack.label_names)
            )
    rows = pack.rows(split)[:images]
    if len(rows) < 4:
        raise DataError(f"{data} has {len(rows)} {split} images.", "A direction needs faces.", "Use --split all.")
    encodings = encoded(sampler, pack, rows.tolist())
    pack_labels = torch.from_numpy(pack.labels[rows])
    # joint: effects of the labels that were not chosen are removed too
    names = chosen if disentangle != "joint" else list(pack.label_names)
    columns = [pack.label_names.index(name) for name in names]
    found, warnings = by_labels(encodings, pack_labels[:, columns], names, sampler.encoding_space, disentangle)
    found = [direction for direction in found if direction.name in chosen]
    warnings = [line for line in warnings if line.partition(":")[0] in chosen]
    if not found:
        raise DataError(
            "No label has a direction.", "; ".join(warnings), "Choose labels that some faces have and some lack."
        )
    return found, warnings


def listing(found: Directions, warnings: list[str], path: Path | None = None) -> Result:
    """A line for each direction."""
    width = max(map(len, found))
    lines = []
    for name, direction in found.items():
        facts = direction.facts
        if facts.get("found") == "labels":
            auc = "unknown" if facts.get("auc") is None else f"{facts['auc']:.3f}"
            counts = f"{facts['with']:>6,} with {facts['without']:>6,} without"
            text = f"{counts}, {facts['apart']:5.2f} standard deviations apart, AUC {auc}"
        elif facts.get("found") == "measures":
            leak = f"{facts['leak']:.2f} ({facts['leaks_to']})" if facts["leaks_to"] else "none"
            text = f"correlation {facts['correlation']:.2f} on unseen faces, largest leak {leak}"
        else:
            text = f"{100 * facts['share']:.1f}% of the change" if "share" in facts else ""
        lines.append(f"{name:<{width}}  {text}")
    files = [str(path)] if path else []
    return Result(
        "\n".join([*lines, *files]), {"directions": found.descriptions(), "warnings": warnings, "files": files}
    )
