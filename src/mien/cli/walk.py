"""`mien walk`: from face to face along the prior's own path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

from mien.cli.arguments import on_the_way, parse_labels, parse_seeds
from mien.cli.fitted_prior import Latents, drawing
from mien.cli.photos import Known, find, read_photos
from mien.cli.result import Result
from mien.core.run import Device, Precision
from mien.errors import UsageError
from mien.nn.priors import check_walk
from mien.report.film import film
from mien.report.grid import FROM_PHOTOGRAPH, SYNTHETIC, grid, picture, save_png
from mien.sampling.density import Kind
from mien.sampling.sampler import Sampler
from mien.sampling.styles import Style

LARGEST = 4096  # pixels, height and width of a film's frames


def walk(
    model: Path,
    /,
    *,
    seeds: Annotated[Sequence[str], Parameter(consume_multiple=True, negative=())] = (),
    photos: Annotated[Sequence[Path], Parameter(consume_multiple=True, negative=())] = (),
    mirror: Annotated[bool, Parameter(negative=())] = False,
    pairs: Annotated[bool, Parameter(negative=())] = False,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("walk.webp"),
    frames: int = 120,
    fps: float = 24.0,
    loop: bool = False,
    columns: int | None = None,
    zoom: int | None = None,
    size: int | None = None,
    label: Annotated[Sequence[str], Parameter(negative=())] = (),
    label_from: Annotated[Sequence[str], Parameter(negative=())] = (),
    label_to: Annotated[Sequence[str], Parameter(negative=())] = (),
    truncation: float = 1.0,
    style: str | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    crop: str | None = None,
    steps: int | None = None,
    latents: Latents = "prior",
    density: Kind = "mixture",
    data: str | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
) -> Result:
    """Move through faces, along great circles for normal latents and straight lines for uniform ones.

    Every seed, and the latent of every photograph, is met exactly. Examples:

        mien walk RUN --seeds 3 42 7 -o walk.mp4
        mien walk RUN --seeds 3 42 --frames 12 --columns 6 -o strip.png
        mien walk RUN --photos a.jpg b.jpg -o walk.mp4
        mien walk RUN --photos a.jpg b.jpg --mirror --frames 8 --steps 300 -o rows.png
        mien walk RUN --seeds 0-5 --loop -o walk.gif
        mien walk CPPN --seeds 3 42 --size 720 -o walk.mp4
        mien walk CGAN --seeds 3 --label-from Eyeglasses=0 --label-to Eyeglasses=1 -o glasses.gif

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    seeds
        The faces to go through, in order; 0 to 3 where nothing is named.
    photos
        Photographs to go through in place of seeds: encoded, or found by descent.
    mirror
        Go from each photograph to its mirror image, a row each.
    pairs
        Take faces two by two, a row of the .png each, photographs at the ends of it.
    out
        .mp4 (needs the extra `film`), .gif or .webp for a film; .png for a strip of all frames.
    frames
        In all; of each row with --pairs or --mirror.
    fps
        Frames a second of a film.
    loop
        Come back to the first face, so that the film repeats without a jump.
    columns
        Frames in a row of a .png; all that fit by default.
    zoom
        Whole-number magnification of a film's frames; 4, or 1 with --size.
    size
        Height and width of each frame in pixels, for a model that paints at any (a CPPN).
    label
        NAME=VALUE in [0, 1], for a model that is told labels; repeat for more.
    label_from
        NAME=VALUE at the first seed, on the way to --label-to; with one seed, its face stays and the labels move.
    label_to
        NAME=VALUE at the last seed.
    truncation
        How much of the way from the mean face is gone: under 1, faces are more typical and less varied.
    style
        SEED:STAGES, as for `mien sample`: every face gets these styles of this seed.
    solver
        How a flow is followed: multistep:12, midpoint:6, euler:8, heun:12, rk4:6 or adaptive:1e-4. Fewer steps are faster, and
        coarser.
    guidance
        How far a flow that is told labels leans toward them: 1 is not at all.
    crop
        How photographs are cut, as for `mien project`.
    steps
        Descend so many steps to the latents of photographs, in place of the encoder.
    latents
        prior: as the model was taught; fitted: from a density of the encodings of real faces, fitted on first use and kept with the
        model.
    density
        Of fitted latents: a mixture of normal distributions, or a flow.
    data
        The pack that a density is fitted to; a run knows its own.
    device
        Where to compute.
    precision
        fp32 gives the same faces everywhere; bf16 is faster.
    code
        The file of a model of your own.
    """
    if seeds and photos:
        raise UsageError("Faces are named in two ways.", "A walk goes through seeds or photographs.", "Leave one out.")
    if mirror and not photos:
        raise UsageError(
            "There is nothing to mirror.", "--mirror is for photographs.", "Add --photos, or leave it out."
        )
    rows_alone = mirror or pairs
    if (rows_alone or columns is not None) and out.suffix.lower() != ".png":
        raise UsageError(f"{out} has no rows.", "--mirror, --pairs and --columns are for strips.", "Use -o strip.png.")
    if columns is not None and columns < 1:
        raise UsageError(f"--columns {columns} is not possible.", "It counts.", "Give 1 or more, or leave it out.")
    stops = parse_seeds(seeds or (() if photos else ("0-3",)))
    sampler = Sampler.load(model, device=device, precision=precision, code=code).at(size).by(solver, guidance)
    sampler = drawing(sampler.truncated(truncation).styled(Style.of(style)), latents, density, data, model)
    asked = parse_labels(label)
    zoom = zoom if zoom is not None else 1 if size else 4
    if not (zoom >= 1 and zoom * sampler.faces.side <= LARGEST and 0.1 <= fps <= 240):
        raise UsageError(
            f"A film of {fps} frames a second, {zoom} times as large, is not possible.",
            f"Films have 0.1 to 240 frames a second and up to {LARGEST} px.",
            "Try --fps 24 --zoom 4.",
        )
    start, end = parse_labels(label_from), parse_labels(label_to)
    if (start or end) and photos:
        raise UsageError("Photographs are no requests.", "--label-from leads seeds.", "Use --seeds.")
    if (start or end) and len(stops) == 1:
        stops = stops * 2  # the same face under other labels
    check_walk(2 if rows_alone else len(stops) or len(photos), frames)
    images = None
    if photos:
        images = read_photos(sampler, photos, crop)[1]
        images = torch.stack([images, images.flip(3)], 1).flatten(0, 1) if mirror else images
        known = find(sampler, images, steps=steps, labels=asked)
    else:
        labels = on_the_way(sampler, sampler.labels(stops, asked), start, end)
        known = Known(sampler.latents(stops), sampler.space, labels, "seeds")
    of = {"photos": [path.name for path in photos]} if photos else {"seeds": stops}
    answer = Result(str(out), {"file": str(out), **of, "frames": frames})
    out.parent.mkdir(parents=True, exist_ok=True)
    if rows_alone:
        told = sampler.recipe(**of, frames=frames, mirror=mirror, how=known.how)
        told = {**told, "synthetic": False} if photos else told
        cells, width = rows_of_pairs(sampler, known, images, frames, loop)
        save_png(grid(cells, width), out, told, FROM_PHOTOGRAPH if photos else SYNTHETIC)
        return answer
    times = 1 if out.suffix.lower() == ".png" else zoom
    side = sampler.faces.side * times
    walked = sampler.interpolate(known.z, frames, known.labels, loop, known.space)
    film((picture(image).resize((side, side), 0 if times > 1 else None) for image in walked), out, fps, columns)
    return answer


def rows_of_pairs(sampler: Sampler, known: Known, images: Tensor | None, frames: int, loop: bool) -> tuple[Tensor, int]:
    """A walk between every two faces, `[rows * width, C, H, W]`, and the width; photographs stand at the ends."""
    if len(known.z) % 2:
        raise UsageError("A face has no partner.", f"--pairs was given {len(known.z)}.", "Name an even number.")
    rows = []
    for first in range(0, len(known.z), 2):
        both = slice(first, first + 2)
        labels = None if known.labels is None else known.labels[both]
        row = list(sampler.interpolate(known.z[both], frames, labels, loop, known.space))
        rows.append(torch.stack(row if images is None else [images[first], *row, images[first + 1]]))
    return torch.cat(rows), len(rows[0])
