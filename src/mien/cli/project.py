"""`mien project`: find the latents of photographs, and show their reconstructions."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from PIL import Image

from mien.cli.arguments import parse_labels, positive
from mien.cli.model_options import Drawing, Labels, Loading, LoadOptions, ModelPath, Signing, SignOptions
from mien.cli.photos import check_photos, error_text, errors, find_latents, read_photos
from mien.cli.project_folder import FolderProjection, project_folder
from mien.cli.result import Result
from mien.data.source_kinds import find_source
from mien.errors import UsageError
from mien.report.grid import enlarged, grid, picture, save_png
from mien.report.shards import ShardFormat
from mien.sampling.options import DrawOptions
from mien.storage import atomic
from mien.storage.checkpoint import pack_tensors
from mien.storage.provenance import Claim

MIN_CELL = 128  # pixels: smaller faces are enlarged, so that the titles under them can be read
MAX_PHOTOS = 512


def project(
    model: ModelPath,
    /,
    *photos: Path,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    crop: str | None = None,
    steps: int | None = None,
    lpips: Annotated[bool, Parameter(negative=())] = False,
    label: Labels = (),
    save_latent: Path | None = None,
    format: ShardFormat | None = None,
    shard_size: int = 1000,
    options: Drawing = DrawOptions(),
    loading: Loading = LoadOptions(),
    signing: Signing = SignOptions(),
) -> Result | None:
    """Show photographs beside their reconstructions, with the error; or find the latents of a whole folder.

    A model with an encoder encodes and decodes; for any other, the latent is found by gradient descent (Adam on z). Examples:

        mien project RUN me.jpg
        mien project RUN a.jpg b.png --steps 500 -o beside.png
        mien project RUN me.jpg --crop center --save-latent me.safetensors
        torchrun --nproc-per-node 2 -m mien project RUN photos/ -o shards/

    Parameters
    ----------
    photos
        Image files of any size and colour mode; or one folder, or with --format whatever `mien data prepare` reads.
    out
        A .png with each photograph beside its reconstruction, by default project.png; for a folder, a folder of shards.
    crop
        Crop: face, center, squash, celeba-148 and so on. By default, that of the training data: aligned by the face if one is
        found, otherwise its centre.
    steps
        Find the latent by that many steps of gradient descent; by default 200 for a model without an encoder.
    lpips
        Add the perceptual distance LPIPS to the loss of gradient descent; downloads its weights if they are not cached.
    save_latent
        File for the latents, which `mien edit --latent` reads.
    format
        Of the shards of a folder: tar (WebDataset, the default) or parquet (needs the extra `tables`), with reconstruction,
        latent and errors of each photograph. Under torchrun each process projects its part. The same command again resumes.
    shard_size
        Photographs in a shard.
    """
    if format is not None or any(photo.is_dir() for photo in photos):
        if len(photos) != 1 or save_latent is not None or signing.sign is not None or (out and out.suffix):
            raise UsageError(
                "A folder is projected into a folder of shards.",
                "More than one source, --save-latent or --sign is given, or --out has an ending.",
                "Name one folder and -o shards/.",
            )
        positive("shard_size", shard_size)
        check_photos((), crop, steps)
        source, labels = find_source(photos[0]), parse_labels(label)
        chosen = FolderProjection(loading.load(model, options), source, labels, crop, steps, lpips)
        return project_folder(chosen, out or Path("projected"), format or "tar", shard_size)
    out = out or Path("project.png")
    check_png(out)
    sign = signing.ready()
    if len(photos) > MAX_PHOTOS:
        raise UsageError(
            f"{len(photos)} photographs are too many.", f"One picture shows at most {MAX_PHOTOS}.", "Name fewer."
        )
    check_photos(photos, crop, steps)
    labels = parse_labels(label)
    sampler = loading.load(model, options)
    native = sampler.with_options(replace(options, size=None))  # encoders and descent work at the training side
    read, images = read_photos(native, photos, crop)
    points = find_latents(sampler, images, steps=steps, labels=labels, perceptual=lpips)
    images = read_photos(sampler, photos, crop)[1] if options.size else images
    reconstructions = sampler.decode(points.z, points.labels, points.space)
    found = errors(images, reconstructions)
    zoom = max(1, -(-MIN_CELL // sampler.image_spec.side))
    pairs = [(picture(a), picture(b)) for a, b in zip(images, reconstructions, strict=True)]
    cells = [enlarged(cell, zoom, Image.Resampling.NEAREST) for cell in chain.from_iterable(pairs)]
    titles = list(chain.from_iterable((photo.name, f"L1 {e['l1']:.4f}") for photo, e in zip(read, found, strict=True)))
    columns = 2 * max(1, round((len(read) / 2) ** 0.5))
    metadata = sampler.metadata(
        verb="project", photos=[photo.name for photo in read], method=points.method, errors=found
    )
    sign(save_png(grid(cells, columns, titles), out, {**metadata, "synthetic": False}, Claim.BESIDE_PHOTOGRAPH))
    files = [str(out)]
    if save_latent is not None:
        header = {"kind": "latents", "model_sha256": sampler.model_hash, "space": points.space}
        save_latent.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(save_latent, pack_tensors({"latents": points.z}, header))
        files.append(str(save_latent))
    entries = [
        {"photo": str(path), **entry, "method": points.method, "notes": list(photo.notes)}
        for path, photo, entry in zip(photos, read, found, strict=True)
    ]
    lines = [f"{e['photo']}: {error_text(e)} ({e['method']}; {', '.join(e['notes'])})" for e in entries]
    return Result("\n".join([*lines, *files]), {"files": files, "photos": entries})


def check_png(out: Path) -> None:
    """Raises UsageError for a file name that does not end in .png."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is not a .png.", "Pictures are written as PNG.", "Use -o picture.png.")
