"""`mien edit`: move faces along named directions, before and after, or as a strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from mien.cli.arguments import parse_labels, parse_seeds, within
from mien.cli.model_options import Drawing, Labels, Loading, LoadOptions, ModelPath, Signing, SignOptions
from mien.cli.photos import Latents, check_photos, find_latents, read_photos
from mien.cli.project import check_png
from mien.cli.result import Result
from mien.errors import DataError, Mismatch, UsageError
from mien.report.grid import grid, save_png
from mien.sampling.directions import Space, amounts_of
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.sampling.sidecar import parse
from mien.storage.provenance import Claim

MAX_FACES = 64  # rows of one picture
MAX_STRIP = 101  # columns


def edit(
    model: ModelPath,
    /,
    *,
    direction: Annotated[Sequence[str], Parameter(negative=())] = (),
    seed: Annotated[Sequence[str], Parameter(consume_multiple=1, negative=())] = (),
    photo: Annotated[Sequence[Path], Parameter(consume_multiple=1, negative=())] = (),
    latent: Path | None = None,
    strip: int = 2,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("edit.png"),
    crop: str | None = None,
    steps: int | None = None,
    layers: str = "",
    label: Labels = (),
    options: Drawing = DrawOptions(),
    loading: Loading = LoadOptions(),
    signing: Signing = SignOptions(),
) -> Result:
    """Move faces along named directions, in standard deviations: before and after, or a strip.

    `mien directions MODEL` finds and lists directions. Examples:

        mien edit RUN --seed 42 --direction Smiling=1.5
        mien edit RUN --seed 0-7 --direction Smiling=2 --direction Male=-1 -o edit.png
        mien edit RUN --photo me.jpg --direction Eyeglasses=2 --strip 7
        mien edit RUN --seed 42 --direction Smiling=1.5 --layers coarse

    Parameters
    ----------
    direction
        NAME=AMOUNT in standard deviations; repeat to move along several at once.
    seed
        Seeds to edit, as for `mien sample`; by default 42.
    photo
        Photographs instead of seeds: encoded, or projected by gradient descent.
    latent
        Latents that `mien project --save-latent` wrote, instead of seeds.
    strip
        Faces in a row: 2 is before and after; 7 is seven equal steps from minus the amount to plus the amount.
    out
        A .png, a row for each face.
    crop
        How photographs are cropped, as for `mien project`.
    steps
        Project a photograph by that many steps of gradient descent, instead of the encoder.
    layers
        Style stages in which the face moves, for a model that has them (quick, gan): coarse, middle, fine, or by number, such
        as 2-3, the first the coarsest. By default, all.
    """
    check_png(out)
    sign = signing.ready()
    if bool(seed) + bool(photo) + (latent is not None) > 1:
        raise UsageError(
            "More than one of --seed, --photo and --latent is given.",
            "Each names the faces to edit.",
            "Give one of them.",
        )
    within("strip", strip, 2, MAX_STRIP, "It is the number of faces in a row.", "Try --strip 7.")
    amounts, labels, seeds = amounts_of(direction), parse_labels(label), parse_seeds(seed or ("42",))
    check_photos(photo, crop, steps)
    if latent is not None:
        check_latents(latent)
    sampler = loading.load(model, options)
    if not amounts:
        names = ", ".join(sampler.directions) or "none yet: mien directions MODEL --unsupervised 10"
        raise UsageError("No direction is named.", f"This model has {names}.", "Write --direction NAME=1.5.")
    spaces = {sampler.directions[name].space for name in amounts}
    if len(spaces) > 1:
        raise UsageError(
            "These directions are in two spaces.",
            "Some are of latents and some of encodings, which have a decoder of their own.",
            "Give directions of one space.",
        )
    (space,) = spaces
    if photo:
        check_count(len(photo))
        points = find_latents(sampler, read_photos(sampler, photo, crop)[1], steps=steps, space=space, labels=labels)
        inputs: object = [path.name for path in photo]
    elif latent is not None:
        points, inputs = read_latents(sampler, latent, labels), latent.name
        check_count(len(points.z))
    else:
        check_count(len(seeds))
        points, inputs = latents_of_seeds(sampler, seeds, space, labels), seeds
    shares = [0.0, 1.0] if strip == 2 else torch.linspace(-1.0, 1.0, strip).tolist()
    columns = [
        sampler.decode(
            sampler.edit(points.z, {name: share * amount for name, amount in amounts.items()}, points.space, layers),
            points.labels,
            points.space,
        )
        for share in shares
    ]
    cells = torch.stack(columns, 1).flatten(0, 1)
    metadata = sampler.metadata(
        verb="edit", of=inputs, directions=amounts, labels=labels, strip=strip, truncation=options.truncation,
        **({"layers": layers} if layers else {}),
    )  # fmt: skip
    if photo or latent is not None:
        save_png(grid(cells, strip), out, {**metadata, "synthetic": False}, Claim.FROM_PHOTOGRAPH)
    else:
        save_png(grid(cells, strip), out, metadata)
    sign(out)
    return Result(
        str(out), {"file": str(out), "of": inputs, "directions": amounts, "strip": strip, "method": points.method}
    )


def check_count(count: int) -> None:
    """Raises UsageError for more faces than one picture has rows."""
    if not 1 <= count <= MAX_FACES:
        raise UsageError(
            f"{count} faces do not fit into one picture.", f"It has 1 to {MAX_FACES} rows.", "Name fewer faces."
        )


def latents_of_seeds(sampler: Sampler, seeds: Sequence[int], space: Space, labels: dict[str, float]) -> Latents:
    """The latents of seeds, or, for directions of encodings, the encodings of their faces."""
    z, rows = sampler.latents(seeds), sampler.labels(seeds, labels)
    if space == "latent":
        return Latents(z, "latent", rows, "seeds")
    return Latents(sampler.encode(sampler.decode(z, rows), rows), "encoding", rows, "encodings of the seeds' faces")


def check_latents(path: Path) -> None:
    """Raises DataError where there is no file of latents."""
    if not path.is_file():
        raise DataError(
            f"There is no regular file {path}.", "`mien project --save-latent` writes it.", "Check the spelling."
        )


def read_latents(sampler: Sampler, path: Path, labels: dict[str, float]) -> Latents:
    """The latents in a file of `mien project --save-latent`. Raises Mismatch for another model's."""
    extra = parse(path)
    z, space = extra.tensors.get("latents"), extra.header.get("space")
    fits = (
        isinstance(z, Tensor)
        and z.ndim > 1
        and (space == "encoding" or tuple(z.shape[1:]) == sampler.model.latent_shape)
    )
    if extra.header.get("kind") != "latents" or z is None or not fits or space not in ("latent", "encoding"):
        raise Mismatch(
            f"{path} holds no latents of this model.", "Its header or shape differs.", "Project the photographs again."
        )
    if extra.header.get("model_sha256") != sampler.model_hash:
        raise Mismatch(
            f"{path} belongs to another model.",
            f"It is of {str(extra.header.get('model_sha256'))[:12]}, this is {sampler.model_hash[:12]}.",
            "Project the photographs again with this model.",
        )
    return Latents(z.float(), space, sampler.labels(range(len(z)), labels), "latents")
