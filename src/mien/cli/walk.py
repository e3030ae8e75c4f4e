"""`mien walk`: interpolate between faces along the prior's path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from PIL import Image
from torch import Tensor

from mien.cli.arguments import interpolate_labels, parse_labels, parse_seeds, positive
from mien.cli.bulk import write_shards
from mien.cli.fitted_prior import FittedPrior, PriorOptions
from mien.cli.model_options import Drawing, Labels, Loading, LoadOptions, ModelPath, Signing, SignOptions
from mien.cli.photos import Latents, check_photos, find_latents, read_photos
from mien.cli.result import Result
from mien.errors import UsageError
from mien.nn.priors import check_walk
from mien.report.film import check_name, film
from mien.report.grid import enlarged, grid, picture, png_bytes, save_png
from mien.report.shards import Face, Seeds, ShardFormat
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage.provenance import Claim, Provenance

BLOCK = 64  # frames between two looks for a signal
MAX_SIDE = 4096  # pixels, height and width of a film's frames


def walk(
    model: ModelPath,
    /,
    *,
    seeds: Annotated[Sequence[str], Parameter(consume_multiple=1, negative=())] = (),
    photos: Annotated[Sequence[Path], Parameter(consume_multiple=1, negative=())] = (),
    mirror: Annotated[bool, Parameter(negative=())] = False,
    pairs: Annotated[bool, Parameter(negative=())] = False,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("walk.webp"),
    frames: int = 120,
    fps: float = 24.0,
    loop: bool = False,
    columns: int | None = None,
    zoom: int | None = None,
    label: Labels = (),
    label_from: Annotated[Sequence[str], Parameter(negative=())] = (),
    label_to: Annotated[Sequence[str], Parameter(negative=())] = (),
    crop: str | None = None,
    steps: int | None = None,
    data: str | None = None,
    format: ShardFormat | None = None,
    shard_size: int = 1000,
    options: Drawing = DrawOptions(),
    prior: FittedPrior = PriorOptions(),
    loading: Loading = LoadOptions(),
    signing: Signing = SignOptions(),
) -> Result | None:
    """Interpolate between faces: along great circles for normal latents, along straight lines for uniform ones.

    The walk passes exactly through every seed, and through the latent of every photograph. Examples:

        mien walk RUN --seeds 3 42 7 -o walk.mp4
        mien walk RUN --seeds 3 42 --frames 12 --columns 6 -o strip.png
        mien walk RUN --photos a.jpg b.jpg -o walk.mp4
        mien walk RUN --photos a.jpg b.jpg --mirror --frames 8 --steps 300 -o rows.png
        mien walk RUN --seeds 0-5 --loop -o walk.gif
        mien walk CPPN --seeds 3 42 --size 720 -o walk.mp4
        mien walk RUN --seeds 0-99 --frames 100000 --format tar -o frames/
        mien walk CGAN --seeds 3 --label-from Eyeglasses=0 --label-to Eyeglasses=1 -o glasses.gif

    Parameters
    ----------
    seeds
        Seeds to pass through, in order; by default 0 to 3.
    photos
        Photographs to pass through instead of seeds: encoded, or projected by gradient descent.
    mirror
        A row for each photograph, from it to its mirror image.
    pairs
        A row of the .png for every two faces; photographs stand at its ends.
    out
        .mp4 (needs the extra `film`), .gif or .webp for a film; .png for a strip of all frames.
    frames
        Number of frames; with --pairs or --mirror, of each row.
    fps
        Frames per second of a film.
    loop
        Return to the first face, so that the film repeats without a jump.
    columns
        Frames in a row of a .png; by default, as many as fit.
    zoom
        Integer magnification of a film's frames; by default 4, or 1 with --size or --format.
    label_from
        NAME=VALUE at the first seed, interpolated to --label-to; with one seed, only the labels change.
    label_to
        NAME=VALUE at the last seed.
    crop
        How photographs are cropped, as for `mien project`.
    steps
        Project photographs by that many steps of gradient descent, instead of the encoder.
    data
        Pack that a fitted prior is fitted to; by default, the run's own.
    format
        tar or parquet: a folder with the frames as shards. Under torchrun each process draws its part; the same command resumes.
    shard_size
        Frames in a shard of --format.
    """
    sign = signing.ready()
    if seeds and photos:
        raise UsageError(
            "--seeds and --photos are both given.", "A walk passes through one or the other.", "Leave one out."
        )
    if mirror and not photos:
        raise UsageError("--mirror needs photographs.", "--photos is empty.", "Add --photos, or leave out --mirror.")
    in_rows = mirror or pairs
    if (in_rows or columns is not None) and out.suffix.lower() != ".png":
        raise UsageError(
            f"{out} is not a .png.", "--mirror, --pairs and --columns arrange frames in rows.", "Use -o strip.png."
        )
    positive("columns", columns)
    positive("shard_size", shard_size)
    if format is not None and (photos or out.suffix or signing.sign is not None):
        raise UsageError(
            f"--format {format} writes the frames between seeds into a folder.",
            "--photos or --sign is given, or the name has an ending.",
            "Use --seeds and -o frames/.",
        )
    chosen = parse_seeds(seeds or (() if photos else ("0-3",)))
    values = parse_labels(label)
    zoom = zoom if zoom is not None else 1 if options.size or format else 4
    check_film(fps, zoom)
    if format is None:
        check_name(out)
    check_photos(photos, crop, steps)
    start, end = parse_labels(label_from), parse_labels(label_to)
    if (start or end) and photos:
        raise UsageError("--label-from and --label-to need seeds.", "--photos is given.", "Use --seeds.")
    if (start or end) and len(chosen) == 1:
        chosen = chosen * 2  # the same latent under other labels
    check_walk(2 if in_rows else len(chosen) or len(photos), frames)
    sampler = prior.apply(loading.load(model, options), data, model)
    check_film(fps, zoom, sampler.image_spec.side)
    images = None
    if photos:
        images = read_photos(sampler, photos, crop)[1]
        images = torch.stack([images, images.flip(3)], 1).flatten(0, 1) if mirror else images
        points = find_latents(sampler, images, steps=steps, labels=values)
    else:
        rows = interpolate_labels(sampler, sampler.labels(chosen, values), start, end)
        points = Latents(sampler.latents(chosen), sampler.space, rows, "seeds")
    inputs = {"photos": [path.name for path in photos]} if photos else {"seeds": chosen}
    result = Result(str(out), {"file": str(out), **inputs, "frames": frames})
    drawn: dict[str, object] = {
        "frames": frames, "fps": fps, "loop": loop, "columns": columns, "zoom": zoom, "label": list(label),
        "label_from": list(label_from), "label_to": list(label_to), "pairs": pairs, "mirror": mirror,
    }  # fmt: skip
    metadata = sampler.metadata(verb="walk", **inputs, **drawn, method=points.method)
    metadata = {**metadata, "synthetic": False} if photos else metadata
    if format is not None:
        described = {**metadata, "verb": "walk-frames"}

        def draw(part: Sequence[int]) -> Iterator[Face]:
            walked = sampler.interpolate(points.z, frames, points.labels, loop, points.space, part)
            for number, image in zip(part, walked, strict=True):
                png = enlarged(picture(image), zoom, Image.Resampling.NEAREST)
                yield Face(number, png_bytes(png, {**described, "frame": number}), {}, "frame")

        return write_shards(sampler, Seeds([range(frames)]), draw, described, out, format, shard_size, BLOCK, "frames")
    if in_rows:
        cells, width = walks_of_pairs(sampler, points, images, frames, loop)
        sign(save_png(grid(cells, width), out, metadata, Claim.BESIDE_PHOTOGRAPH if photos else Claim.SYNTHETIC))
        return result
    times = 1 if out.suffix.lower() == ".png" else zoom
    walked = sampler.interpolate(points.z, frames, points.labels, loop, points.space)
    pictures = (enlarged(picture(image), times, Image.Resampling.NEAREST) for image in walked)
    made = Provenance(metadata, Claim.FROM_PHOTOGRAPH if photos else Claim.SYNTHETIC)
    sign(film(pictures, out, made, fps, columns))
    return result


def check_film(fps: float, zoom: int, side: int = 1) -> None:
    """Raises UsageError for frames that no film has."""
    if not (zoom >= 1 and zoom * side <= MAX_SIDE and 0.1 <= fps <= 240):
        raise UsageError(
            f"A film with --fps {fps} and --zoom {zoom} cannot be made.",
            f"fps must be 0.1 to 240, zoom a positive integer, and the frame's side at most {MAX_SIDE} px.",
            "Try --fps 24 --zoom 4.",
        )


def walks_of_pairs(
    sampler: Sampler, points: Latents, images: Tensor | None, frames: int, loop: bool
) -> tuple[Tensor, int]:
    """A walk between every two latents, `[rows * width, C, H, W]`, and the width; photographs stand at the ends."""
    if len(points.z) % 2:
        raise UsageError(
            f"--pairs needs an even number of faces, not {len(points.z)}.",
            "A row has two ends.",
            "Name one more or less.",
        )
    rows = []
    for first in range(0, len(points.z), 2):
        pair = slice(first, first + 2)
        labels = None if points.labels is None else points.labels[pair]
        row = list(sampler.interpolate(points.z[pair], frames, labels, loop, points.space))
        rows.append(torch.stack(row if images is None else [images[first], *row, images[first + 1]]))
    return torch.cat(rows), len(rows[0])
