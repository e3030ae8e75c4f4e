"""`mien project`: photographs, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from PIL import Image

from mien.cli.arguments import parse_labels
from mien.cli.photos import errors, find, read_photos, spoken
from mien.cli.result import Result
from mien.core.run import Device, Precision
from mien.errors import UsageError
from mien.report.grid import FROM_PHOTOGRAPH, grid, picture, save_png
from mien.sampling.sampler import Sampler
from mien.storage import atomic
from mien.storage.checkpoint import pack_tensors

CELL = 128  # pixels: smaller faces are enlarged, so that the words under them can be read
MOST = 512  # photographs at a time


def project(
    model: Path,
    /,
    *photos: Path,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("project.png"),
    crop: str | None = None,
    steps: int | None = None,
    lpips: Annotated[bool, Parameter(negative=())] = False,
    label: Annotated[Sequence[str], Parameter(negative=())] = (),
    save_latent: Path | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
) -> Result:
    """Show photographs beside what a model makes of them, with the error.

    A model with an encoder encodes and decodes; any other descends to the latent (Adam on z). Examples:

        mien project RUN me.jpg
        mien project RUN a.jpg b.png --steps 500 -o beside.png
        mien project RUN me.jpg --crop center --save-latent me.safetensors

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    photos
        Files of photographs, of any size and mode.
    out
        A .png: each photograph beside its reconstruction.
    crop
        How they are cut: face, center, squash, celeba-148 and so on. By default: as the model's data was, by the face where one
        can be found, else the centre.
    steps
        Descend so many steps to a latent of the generator; 200 for a model without an encoder.
    lpips
        Descend the perceptual distance too, which keeps more of the likeness; fetches its weights if they are not here.
    label
        NAME=VALUE in [0, 1], for a model that is told labels; repeat for more.
    save_latent
        A file for the latents, which `mien edit --latent` reads.
    device
        Where to compute.
    precision
        fp32 gives the same faces everywhere; bf16 is faster.
    code
        The file of a model of your own.
    """
    check_png(out)
    if len(photos) > MOST:
        raise UsageError(
            f"{len(photos)} photographs are too many.", "They stand in one picture.", f"Give up to {MOST}."
        )
    sampler = Sampler.load(model, device=device, precision=precision, code=code)
    read, images = read_photos(sampler, photos, crop)
    known = find(sampler, images, steps=steps, labels=parse_labels(label), perceptual=lpips)
    made = sampler.decode(known.z, known.labels, known.space)
    found = errors(images, made)
    zoom = max(1, -(-CELL // sampler.faces.side))
    pairs = [(picture(a), picture(b)) for a, b in zip(images, made, strict=True)]
    cells = [enlarged(cell, zoom) for cell in chain.from_iterable(pairs)]
    titles = list(chain.from_iterable((photo.name, f"L1 {e['l1']:.4f}") for photo, e in zip(read, found, strict=True)))
    columns = 2 * max(1, round((len(read) / 2) ** 0.5))
    recipe = sampler.recipe(photos=[photo.name for photo in read], how=known.how, errors=found)
    save_png(grid(cells, columns, titles), out, {**recipe, "synthetic": False}, FROM_PHOTOGRAPH)
    files = [str(out)]
    if save_latent is not None:
        header = {"kind": "latents", "model_sha256": sampler.model_hash, "space": known.space}
        save_latent.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(save_latent, pack_tensors({"latents": known.z}, header))
        files.append(str(save_latent))
    entries = [
        {"photo": str(path), **entry, "how": known.how, "notes": list(photo.notes)}
        for path, photo, entry in zip(photos, read, found, strict=True)
    ]
    lines = [f"{e['photo']}: {spoken(e)} ({e['how']}; {', '.join(e['notes'])})" for e in entries]
    return Result("\n".join([*lines, *files]), {"files": files, "photos": entries})


def check_png(out: Path) -> None:
    """Raises UsageError for a picture that is not called .png."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is not a .png.", "Pictures are written as PNG.", "Use -o picture.png.")


def enlarged(cell: Image.Image, times: int) -> Image.Image:
    """A picture with each pixel as a square."""
    return cell.resize((cell.width * times, cell.height * times), Image.Resampling.NEAREST) if times > 1 else cell
