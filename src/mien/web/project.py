"""The face of a photograph in a model: by its encoder, or by descent, whose steps are sent as they are taken."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncGenerator

from torch import Tensor

from mien.core.contracts import JSON
from mien.core.families import Invertible
from mien.errors import MienError
from mien.sampling.address import address_of
from mien.sampling.inversion import Step, absolute
from mien.sampling.sampler import Sampler
from mien.storage.bounded_json import dumps
from mien.storage.provenance import Claim
from mien.web.pictures import png

EVERY = 0.15  # seconds between two pictures of a descent


def encoded(sampler: Sampler, image: Tensor) -> JSON:
    """The address of a photograph `[1, 3, side, side]` in [-1, 1], and how far the model's picture of it is off.

    Raises UsageError for a model whose encodings are not latents of its generator.
    """
    face = match_channels(sampler, image)
    z = sampler.encode(face, mean_labels(sampler))
    return result_of(sampler, z, face, sampler.decode(z, mean_labels(sampler)))


async def descended(sampler: Sampler, image: Tensor, steps: int, more: JSON) -> AsyncGenerator[bytes, None]:
    """Server-sent events: `step` with a picture now and then, and `found` at the end, with `more`. Closing it ends the descent."""
    loop, news, stop = asyncio.get_running_loop(), asyncio.Queue[tuple[str, JSON]](), threading.Event()
    face, last = match_channels(sampler, image), 0.0

    def on_step(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            payload = {"step": step.step, "steps": steps, "error": float(step.errors[0]), "image": uri(step.images[0])}
            loop.call_soon_threadsafe(news.put_nowait, ("step", payload))

    def work() -> None:
        try:
            inversion = sampler.invert(face, steps, labels=mean_labels(sampler), on_step=on_step, cancel=stop.is_set)
            payload = result_of(
                sampler, inversion.latents, face, sampler.decode(inversion.latents, mean_labels(sampler))
            )
            if isinstance(sampler.model, Invertible):  # an autoencoder beside the generator, as BEGAN has
                payload["reconstruction"] = uri(sampler.reconstruct(face, mean_labels(sampler))[0])
            event, payload = "found", {**payload, **more}
        except MienError as error:
            payload, event = {"message": error.what, "why": error.why, "hint": error.remedy}, "failed"
        except Exception as error:  # the client waits for an event
            payload, event = (
                {"message": "The descent failed.", "why": type(error).__name__, "hint": "Report it."},
                "failed",
            )
        loop.call_soon_threadsafe(news.put_nowait, (event, payload))

    thread = threading.Thread(target=work, name="descent", daemon=True)
    thread.start()
    try:
        event = "step"
        while event == "step":
            event, payload = await news.get()
            yield f"event: {event}\ndata: {dumps(payload)}\n\n".encode()
    finally:
        stop.set()


def mean_labels(sampler: Sampler) -> Tensor | None:
    """The label row that an unlabelled face is looked at with: the mean of the training data's."""
    if not sampler.model.label_dim:
        return None
    return sampler.label_rows.nanmean(0, keepdim=True)


def match_channels(sampler: Sampler, image: Tensor) -> Tensor:
    """A photograph with the model's own number of channels."""
    return image.mean(1, keepdim=True) if sampler.image_spec.channels == 1 else image


def result_of(sampler: Sampler, z: Tensor, face: Tensor, made: Tensor) -> JSON:
    """The answer for a latent that was found."""
    error = float(absolute(made, face)[0])
    return {
        "at": str(address_of(z[0])),
        "error": error,
        "image": uri(made[0], Claim.FROM_PHOTOGRAPH),
        "original": uri(face[0], Claim.INPUT),
    }


def uri(image: Tensor, claim: Claim = Claim.FROM_PHOTOGRAPH) -> str:
    """A picture inside an address."""
    return "data:image/png;base64," + base64.b64encode(png(image, {"source": "a photograph's face"}, claim)).decode()
