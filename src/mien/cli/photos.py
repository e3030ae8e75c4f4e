"""Photographs on the command line: read and cut, brought to a model's latents, compared with what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mien.core.families import Invertible
from mien.data.photo import Photo, read_photo
from mien.downloads import weights
from mien.errors import UsageError
from mien.metrics.features import PerceptualFeatures
from mien.sampling.directions import Space
from mien.sampling.inversion import Distance, Step, absolute
from mien.sampling.sampler import Sampler

STEPS = 200  # of a descent, where none are asked for
TOGETHER = 8  # photographs that descend at a time


@dataclass(frozen=True)
class Known:
    """Faces by their latents."""

    z: Tensor  # [n, *shape]
    space: Space
    labels: Tensor | None
    how: str  # encoder, or the steps of a descent


def read_photos(sampler: Sampler, paths: Sequence[Path], crop: str | None = None) -> tuple[list[Photo], Tensor]:
    """Photographs cut as the model's own data, and as images `[n, C, H, W]` in [-1, 1]."""
    if not paths:
        raise UsageError("There is no photograph.", "None was named.", "Name one or more files.")
    data = sampler.header.get("data")
    framing = data.get("framing") if isinstance(data, dict) else None
    side = sampler.faces.side
    photos = [read_photo(path, side, crop, framing if isinstance(framing, dict) else None) for path in paths]
    images = torch.stack([torch.from_numpy(photo.pixels.copy()) for photo in photos]).permute(0, 3, 1, 2) / 127.5 - 1.0
    return photos, images.mean(1, keepdim=True) if sampler.faces.channels == 1 else images


def find(
    sampler: Sampler,
    images: Tensor,
    *,
    steps: int | None = None,
    space: Space | None = None,
    labels: Mapping[str, float] | None = None,
    perceptual: bool = False,
) -> Known:
    """The latents of photographs: by the encoder, or by `steps` of descent, or by either as `space` needs.

    A descent begins at the encoding where that is a latent, else at the prior's first seeds; `perceptual` adds LPIPS to what it
    descends.
    """
    rows = sampler.labels(range(len(images)), labels)
    encodes = isinstance(sampler.model, Invertible)
    if steps is None and encodes and space in (None, sampler.encoding_space):
        return Known(sampler.encode(images, rows), sampler.encoding_space, rows, "encoder")
    if space == "encoding":
        raise UsageError(
            "A descent finds latents of the generator.",
            "What is asked for is of encodings, which have a decoder of their own.",
            "Leave out --steps.",
        )
    steps = STEPS if steps is None else steps
    start = sampler.encode(images, rows) if encodes and sampler.encoding_space == "latent" else None
    distance = with_lpips(images) if perceptual else absolute
    found = []
    with tqdm(
        total=steps * -(-len(images) // TOGETHER), desc="descent", unit=" steps", leave=False, disable=None
    ) as bar:

        def hear(step: Step) -> None:
            bar.set_postfix(l1=f"{float(step.errors.mean()):.4f}", refresh=False)
            bar.update()

        for first in range(0, len(images), TOGETHER):
            part = slice(first, first + TOGETHER)
            found.append(
                sampler.invert(
                    images[part],
                    steps,
                    labels=None if rows is None else rows[part],
                    start=None if start is None else start[part],
                    distance=distance,
                    on_step=hear,
                ).latents
            )
    return Known(torch.cat(found), "latent", rows, f"{steps} steps of descent")


def with_lpips(images: Tensor) -> Distance:
    """Absolute difference plus LPIPS, which sees what looks different. Downloads its weights if they are not here."""
    eye = PerceptualFeatures("alex", images.device.type)

    def distance(made: Tensor, faces: Tensor) -> Tensor:
        apart: Tensor = (eye.embed(made) - eye.embed(faces)).square().sum(1)
        return absolute(made, faces) + 0.5 * apart

    return distance


def errors(images: Tensor, made: Tensor) -> list[dict[str, Any]]:
    """Of each photograph: l1 of pixels in [0, 1], psnr in dB, and lpips where its weights are on this machine."""
    squares = ((images - made) / 2).square().flatten(1).mean(1)
    found: list[dict[str, Any]] = [
        {"l1": round(l1, 5), "psnr": round(-10 * log10(square), 3) if square else inf}
        for l1, square in zip(absolute(images, made).tolist(), squares.tolist(), strict=True)
    ]
    if weights.here("lpips-alex"):
        eye = PerceptualFeatures("alex")
        with torch.inference_mode():
            apart = (eye.embed(images) - eye.embed(made)).square().sum(1).tolist()
        for entry, value in zip(found, apart, strict=True):
            entry["lpips"] = round(value, 5)
    return found


def spoken(entry: Mapping[str, Any]) -> str:
    """Errors in words."""
    said = [f"L1 {entry['l1']:.4f}", f"PSNR {entry['psnr']:.2f} dB"]
    return ", ".join([*said, *([f"LPIPS {entry['lpips']:.4f}"] if "lpips" in entry else [])])
