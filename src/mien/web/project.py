"""The face of a photograph in a model: by its encoder, or by descent, whose steps are told as they are taken."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator

from torch import Tensor

from mien.core.contracts import JSON
from mien.core.families import Invertible
from mien.errors import MienError
from mien.sampling.address import given
from mien.sampling.inversion import Step, absolute
from mien.sampling.sampler import Sampler
from mien.web.pictures import png

EVERY = 0.15  # seconds between two pictures of a descent


def encoded(sampler: Sampler, image: Tensor) -> JSON:
    """The address of a photograph `[1, 3, side, side]` in [-1, 1], and how far the model's picture of it is off.

    Raises UsageError for a model whose encodings are not latents of its generator.
    """
    face = shades(sampler, image)
    z = sampler.encode(face, middle_of(sampler))
    return found(sampler, z, face, sampler.decode(z, middle_of(sampler)))


async def descended(sampler: Sampler, image: Tensor, steps: int, more: JSON) -> AsyncIterator[bytes]:
    """Server-sent events: `step` with a picture now and then, and `found` at the end, with `more`. Closing it ends the descent."""
    loop, news, stop = asyncio.get_running_loop(), asyncio.Queue[tuple[str, JSON]](), threading.Event()
    face, last = shades(sampler, image), 0.0

    def hear(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            told = {"step": step.step, "steps": steps, "error": float(step.errors[0]), "image": uri(step.images[0])}
            loop.call_soon_threadsafe(news.put_nowait, ("step", told))

    def work() -> None:
        try:
            inversion = sampler.invert(face, steps, labels=middle_of(sampler), on_step=hear, cancel=stop.is_set)
            told = found(sampler, inversion.latents, face, sampler.decode(inversion.latents, middle_of(sampler)))
            if isinstance(sampler.model, Invertible):  # an autoencoder beside the generator, as BEGAN has
                told["reconstruction"] = uri(sampler.reconstruct(face, middle_of(sampler))[0])
            event, told = "found", {**told, **more}
        except MienError as error:
            told, event = {"message": error.what, "why": error.why, "hint": error.remedy}, "failed"
        loop.call_soon_threadsafe(news.put_nowait, (event, told))

    thread = threading.Thread(target=work, name="descent", daemon=True)
    thread.start()
    try:
        event = "step"
        while event == "step":
            event, told = await news.get()
            yield f"event: {event}\ndata: {json.dumps(told)}\n\n".encode()
    finally:
        stop.set()


def middle_of(sampler: Sampler) -> Tensor | None:
    """The label row that an unlabelled face is looked at with: the mean of the training data's."""
    if not sampler.model.label_dim:
        return None
    return sampler.label_rows.nanmean(0, keepdim=True)


def shades(sampler: Sampler, image: Tensor) -> Tensor:
    """A photograph with the model's own number of channels."""
    return image.mean(1, keepdim=True) if sampler.image_spec.channels == 1 else image


def found(sampler: Sampler, z: Tensor, face: Tensor, made: Tensor) -> JSON:
    """What the page is told of a latent that was found."""
    error = float(absolute(made, face)[0])
    return {"at": str(given(z[0])), "error": error, "image": uri(made[0]), "original": uri(face[0])}


def uri(image: Tensor) -> str:
    """A picture inside an address."""
    return "data:image/png;base64," + base64.b64encode(png(image, {"shown": "a photograph's face"})).decode()
