"""`mien walk`: from face to face along the prior's own path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mien.answer import Answer
from mien.errors import UsageError
from mien.report.film import film
from mien.report.grid import picture
from mien.run import Device, Precision
from mien.sampler import Sampler, parse_seeds
from mien.verbs.sample import parse_labels

LARGEST = 4096  # pixels, height and width of a film's frames


def walk(
    model: Path,
    /,
    *,
    seeds: Annotated[Sequence[str], Parameter(consume_multiple=True, negative=())] = ("0", "1", "2", "3"),
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("walk.webp"),
    frames: int = 120,
    fps: float = 24.0,
    loop: bool = False,
    zoom: int | None = None,
    size: int | None = None,
    label: Annotated[Sequence[str], Parameter(negative=())] = (),
    truncation: float = 1.0,
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
) -> Answer:
    """Move through faces, along great circles for normal latents and straight lines for uniform ones.

    Every seed is met exactly. Examples:

        mien walk RUN --seeds 3 42 7 -o walk.mp4
        mien walk RUN --seeds 3 42 --frames 12 -o strip.png
        mien walk RUN --seeds 0-5 --loop -o walk.gif
        mien walk CPPN --seeds 3 42 --size 720 -o walk.mp4

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    seeds
        The faces to go through, in order.
    out
        .mp4 (needs the extra `film`), .gif or .webp for a film; .png for a strip of all frames.
    frames
        In all.
    fps
        Frames a second of a film.
    loop
        Come back to the first face, so that the film repeats without a jump.
    zoom
        Whole-number magnification of a film's frames; 4, or 1 with --size.
    size
        Height and width of each frame in pixels, for a model that paints at any (a CPPN).
    label
        NAME=VALUE in [0, 1], for a model that is told labels; repeat for more.
    truncation
        Scale of the latents: under 1, faces are more typical and less varied.
    device
        Where to compute.
    precision
        fp32 gives the same faces everywhere; bf16 is faster.
    code
        The file of a model of your own.
    """
    stops = parse_seeds(seeds)
    sampler = Sampler.load(model, device=device, precision=precision, code=code).at(size)
    asked = parse_labels(label)
    zoom = zoom if zoom is not None else 1 if size else 4
    if not (zoom >= 1 and zoom * sampler.faces.side <= LARGEST and 0.1 <= fps <= 240):
        raise UsageError(
            f"A film of {fps} frames a second, {zoom} times as large, is not possible.",
            f"Films have 0.1 to 240 frames a second and up to {LARGEST} px.",
            "Try --fps 24 --zoom 4.",
        )
    times = 1 if out.suffix.lower() == ".png" else zoom
    images = sampler.walk(stops, frames, asked, truncation, loop)
    side = sampler.faces.side * times
    out.parent.mkdir(parents=True, exist_ok=True)
    film((picture(image).resize((side, side), 0 if times > 1 else None) for image in images), out, fps)
    return Answer(str(out), {"file": str(out), "seeds": stops, "frames": frames})
