"""Photographs on the command line: cropped, projected to latents, compared with their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mien.cli.arguments import positive
from mien.core.families import Invertible
from mien.data.crops import find_crop
from mien.data.photo import Photo, read_bytes, read_photo
from mien.downloads import weights
from mien.errors import UsageError
from mien.metrics.features import PerceptualFeatures
from mien.metrics.framing import framing_of
from mien.sampling.directions import Space
from mien.sampling.inversion import Distance, Step, absolute
from mien.sampling.sampler import Sampler

STEPS = 200  # of gradient descent, by default
BATCH = 8  # photographs that are projected at a time


@dataclass(frozen=True)
class Latents:
    """Latents of some faces, and where they come from."""

    z: Tensor  # [n, *shape]
    space: Space
    labels: Tensor | None
    method: str  # encoder, seeds, or the steps of gradient descent


def read_photos(sampler: Sampler, paths: Sequence[Path], crop: str | None = None) -> tuple[list[Photo], Tensor]:
    """Photographs cropped as the model's training data was, and as images `[n, C, H, W]` in [-1, 1]."""
    if not paths:
        raise UsageError("No photograph is named.", "At least one is needed.", "Name one or more files.")
    photos = [read_photo(path, sampler.image_spec.side, crop, framing_of(sampler)) for path in paths]
    return photos, to_images(sampler, photos)


def check_photos(paths: Sequence[Path], crop: str | None = None, steps: int | None = None) -> None:
    """Raises DataError or UsageError for what cannot be projected, before a model is downloaded or loaded."""
    for path in paths:
        read_bytes(path)
    if crop is not None:
        find_crop(crop)
    positive("steps", steps)


def to_images(sampler: Sampler, photos: Sequence[Photo]) -> Tensor:
    """Photographs as images `[n, C, H, W]` in [-1, 1], with the model's channels."""
    images = torch.stack([torch.from_numpy(photo.pixels.copy()) for photo in photos]).permute(0, 3, 1, 2) / 127.5 - 1.0
    return images.mean(1, keepdim=True) if sampler.image_spec.channels == 1 else images


def find_latents(
    sampler: Sampler,
    images: Tensor,
    *,
    steps: int | None = None,
    space: Space | None = None,
    labels: Mapping[str, float] | None = None,
    perceptual: bool = False,
    numbers: Sequence[int] | None = None,
    progress: bool = True,
) -> Latents:
    """The latents of photographs: by the encoder, or by `steps` of gradient descent, whichever gives latents of `space`.

    Descent starts at the encoding if that is a latent, else at the prior's first seeds; `perceptual` adds LPIPS to its loss.
    Label rows that are not named are chosen by `numbers`, by default the places of the photographs.
    """
    rows = sampler.labels(range(len(images)) if numbers is None else numbers, labels)
    encodes = isinstance(sampler.model, Invertible)
    if steps is None and encodes and space in (None, sampler.encoding_space):
        return Latents(sampler.encode(images, rows), sampler.encoding_space, rows, "encoder")
    if space == "encoding":
        raise UsageError(
            "Gradient descent finds latents of the generator.",
            "These directions are of encodings, which have a decoder of their own.",
            "Leave out --steps.",
        )
    steps = STEPS if steps is None else steps
    start = sampler.encode(images, rows) if encodes and sampler.encoding_space == "latent" else None
    distance = with_lpips(images) if perceptual else absolute
    found = []
    total, hidden = steps * -(-len(images) // BATCH), None if progress else True
    with tqdm(total=total, desc="descent", unit=" steps", leave=False, disable=hidden) as bar:

        def on_step(step: Step) -> None:
            bar.set_postfix(l1=f"{float(step.errors.mean()):.4f}", refresh=False)
            bar.update()

        for first in range(0, len(images), BATCH):
            part = slice(first, first + BATCH)
            found.append(
                sampler.invert(
                    images[part],
                    steps,
                    labels=None if rows is None else rows[part],
                    start=None if start is None else start[part],
                    distance=distance,
                    on_step=on_step,
                ).latents
            )
    return Latents(torch.cat(found), "latent", rows, f"{steps} steps of gradient descent")


def with_lpips(images: Tensor) -> Distance:
    """Mean absolute difference plus LPIPS. Downloads the weights of LPIPS if they are not cached."""
    network = PerceptualFeatures("alex", images.device.type)

    def distance(made: Tensor, faces: Tensor) -> Tensor:
        lpips: Tensor = (network.embed(made) - network.embed(faces)).square().sum(1)
        return absolute(made, faces) + 0.5 * lpips

    return distance


def pixel_errors(images: Tensor, reconstructions: Tensor) -> list[dict[str, Any]]:
    """For each photograph: l1 of pixels in [0, 1], and psnr in dB."""
    squares = ((images - reconstructions) / 2).square().flatten(1).mean(1)
    return [
        {"l1": round(l1, 5), "psnr": round(-10 * log10(square), 3) if square else inf}
        for l1, square in zip(absolute(images, reconstructions).tolist(), squares.tolist(), strict=True)
    ]


def errors(images: Tensor, reconstructions: Tensor) -> list[dict[str, Any]]:
    """The errors of pixels, and lpips if its weights are cached."""
    found = pixel_errors(images, reconstructions)
    if weights.here("lpips-alex"):
        network = PerceptualFeatures("alex")
        with torch.inference_mode():
            lpips = (network.embed(images) - network.embed(reconstructions)).square().sum(1).tolist()
        for entry, value in zip(found, lpips, strict=True):
            entry["lpips"] = round(value, 5)
    return found


def error_text(entry: Mapping[str, Any]) -> str:
    """Errors as text."""
    parts = [f"L1 {entry['l1']:.4f}", f"PSNR {entry['psnr']:.2f} dB"]
    return ", ".join([*parts, *([f"LPIPS {entry['lpips']:.4f}"] if "lpips" in entry else [])])
