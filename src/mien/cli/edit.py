"""`mien edit`: a face moved along named directions, before and after, or as a strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from mien.cli.arguments import parse_labels, parse_seeds
from mien.cli.photos import Known, find, read_photos
from mien.cli.project import check_png
from mien.cli.result import Result
from mien.core.run import Device, Precision
from mien.errors import DataError, Mismatch, UsageError
from mien.report.grid import FROM_PHOTOGRAPH, SYNTHETIC, grid, save_png
from mien.sampling.directions import Space, amounts_of
from mien.sampling.sampler import Sampler
from mien.sampling.sidecar import parse

MOST = 64  # faces in one picture
LONGEST = 101  # faces of a strip


def edit(
    model: Path,
    /,
    *,
    direction: Annotated[Sequence[str], Parameter(negative=())] = (),
    seed: Annotated[Sequence[str], Parameter(consume_multiple=True, negative=())] = (),
    photo: Annotated[Sequence[Path], Parameter(consume_multiple=True, negative=())] = (),
    latent: Path | None = None,
    strip: int = 2,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("edit.png"),
    truncation: float = 1.0,
    crop: str | None = None,
    steps: int | None = None,
    label: Annotated[Sequence[str], Parameter(negative=())] = (),
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
) -> Result:
    """Move faces along named directions, in standard deviations: before and after, or a strip.

    `mien directions MODEL` finds and lists directions. Examples:

        mien edit RUN --seed 42 --direction Smiling=1.5
        mien edit RUN --seed 0-7 --direction Smiling=2 --direction Male=-1 -o edit.png
        mien edit RUN --photo me.jpg --direction Eyeglasses=2 --strip 7

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    direction
        NAME=AMOUNT in standard deviations; repeat to move along several at once.
    seed
        Which faces, as for `mien sample`; 42 where nothing else is named.
    photo
        Photographs in place of seeds, encoded, or found by descent.
    latent
        Latents that `mien project --save-latent` wrote, in place of seeds.
    strip
        Faces in a row: 2 is before and after, 7 goes evenly from minus the amount to plus the amount.
    out
        A .png, a row for each face.
    truncation
        How much of the way from the mean face is gone, the step included.
    crop
        How photographs are cut, as for `mien project`.
    steps
        Descend so many steps to the latent of a photograph, in place of the encoder.
    label
        NAME=VALUE in [0, 1], for a model that is told labels; repeat for more.
    device
        Where to compute.
    precision
        fp32 gives the same faces everywhere; bf16 is faster.
    code
        The file of a model of your own.
    """
    check_png(out)
    if bool(seed) + bool(photo) + (latent is not None) > 1:
        raise UsageError(
            "Faces are named in two ways.", "--seed, --photo and --latent are each one.", "Leave the others out."
        )
    if not 2 <= strip <= LONGEST:
        raise UsageError(f"--strip {strip} is not possible.", "It counts the faces of a row.", f"Give 2 to {LONGEST}.")
    amounts = amounts_of(direction)
    sampler = Sampler.load(model, device=device, precision=precision, code=code).truncated(truncation)
    if not amounts:
        there = ", ".join(sampler.directions) or "none yet: mien directions MODEL --unsupervised 10"
        raise UsageError("No direction is named.", f"This model has {there}.", "Write --direction NAME=1.5.")
    spaces = {sampler.directions[name].space for name in amounts}
    if len(spaces) > 1:
        raise UsageError(
            "These directions do not go together.",
            "Some are of latents and some of encodings, which have a decoder of their own.",
            "Move along those of one kind.",
        )
    asked = parse_labels(label)
    seeds = parse_seeds(seed or ("42",))
    (space,) = spaces
    if photo:
        check_count(len(photo))
        known = find(sampler, read_photos(sampler, photo, crop)[1], steps=steps, space=space, labels=asked)
        of: object = [path.name for path in photo]
    elif latent is not None:
        known, of = read_latents(sampler, latent, asked), latent.name
        check_count(len(known.z))
    else:
        check_count(len(seeds))
        known, of = of_seeds(sampler, seeds, space, asked), seeds
    shares = [0.0, 1.0] if strip == 2 else torch.linspace(-1.0, 1.0, strip).tolist()
    steps_of_strip = [{name: share * amount for name, amount in amounts.items()} for share in shares]
    columns = [
        sampler.decode(sampler.edit(known.z, part, known.space), known.labels, known.space) for part in steps_of_strip
    ]
    cells = torch.stack(columns, 1).flatten(0, 1)
    recipe = sampler.recipe(of=of, directions=amounts, strip=strip, truncation=truncation)
    photographed = bool(photo) or latent is not None
    told = {**recipe, "synthetic": False} if photographed else recipe
    save_png(grid(cells, strip), out, told, FROM_PHOTOGRAPH if photographed else SYNTHETIC)
    return Result(str(out), {"file": str(out), "of": of, "directions": amounts, "strip": strip, "how": known.how})


def check_count(count: int) -> None:
    """Raises UsageError for more faces than a picture has rows for."""
    if not 1 <= count <= MOST:
        raise UsageError(f"{count} faces do not fit.", "Each is a row of one picture.", f"Name 1 to {MOST}.")


def of_seeds(sampler: Sampler, seeds: Sequence[int], space: Space, asked: dict[str, float]) -> Known:
    """The latents of seeds, or, for directions of encodings, the encodings of their faces."""
    z, rows = sampler.latents(seeds), sampler.labels(seeds, asked)
    if space == "latent":
        return Known(z, "latent", rows, "seeds")
    return Known(sampler.encode(sampler.decode(z, rows), rows), "encoding", rows, "encodings of the seeds' faces")


def read_latents(sampler: Sampler, path: Path, asked: dict[str, float]) -> Known:
    """What `mien project --save-latent` wrote. Raises Mismatch for another model's."""
    if not path.is_file():
        raise DataError(f"There is no {path}.", "`mien project --save-latent` writes it.", "Check the spelling.")
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
    return Known(z.float(), space, sampler.labels(range(len(z)), asked), "latents")
