"""The routes that look for a face: a photograph's own in the model, and those of the training data most like one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from torch import Tensor

from mien.errors import DataError
from mien.sampling.sampler import Sampler
from mien.web import params as request_params
from mien.web import photo, project
from mien.web.neighbours import Neighbours
from mien.web.params import Given
from mien.web.queue import Full
from mien.web.responses import UNKEPT, Door, body, parameters
from mien.web.service import Desk

DESCENTS = 1  # at a time


class Likeness:
    """Questions that begin with a face, and end with another."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.neighbours = Neighbours()
        self.descents = 0  # that are going on

    def doors(self) -> list[Door]:
        """Photographs come as the body itself."""
        model = "/api/model/{id:str}"
        face = ("at", "label", "direction", "truncation", "style", "size", "solver", "guidance")
        told = "a photograph's face; the body is the file"
        return [
            Door(f"{model}/neighbours", self.nearest, "the nearest training images", face),
            Door(f"{model}/neighbours", self.nearest, "the nearest training images", face, "POST"),
            Door(f"{model}/project", self.project, told, ("steps", "align"), method="POST"),
        ]

    async def project(self, request: Request) -> Response:
        """A photograph's own face in the model: encoded at once, or found by `steps` of descent, told as they are taken."""
        params = Given.query(request.query_params)
        steps, align = (
            params.count("steps", 0, 0, request_params.MOST_STEPS),
            params.word("align", ("0", "1"), "0") == "1",
        )
        params.end()
        sampler = await self.desk.sampler(request)
        given = await photo.decode(
            await body(request), sampler.image_spec.side, photo.framing_of(sampler) if align else None
        )
        if steps:
            if self.descents >= DESCENTS:
                raise Full
            stream = self.descend(request, sampler, given.image, steps, given.cut)
            return StreamingResponse(stream, media_type="text/event-stream", headers=UNKEPT)
        found = await self.desk.queue.alone(lambda: project.encoded(sampler, given.image))
        return JSONResponse({**found, "cut": given.cut}, headers=UNKEPT)

    async def descend(
        self, request: Request, sampler: Sampler, image: Tensor, steps: int, cut: photo.Cut
    ) -> AsyncIterator[bytes]:
        """The events of a descent, which ends when nobody listens any more."""
        self.descents += 1
        try:
            async for event in project.descended(sampler, image, steps, {"cut": cut}):
                if await request.is_disconnected():
                    break
                yield event
        finally:
            self.descents -= 1

    async def nearest(self, request: Request) -> Response:
        """The training images that are most like a face."""
        params = await parameters(request)
        address, look = params.address(), params.look()
        params.end()
        shown_model = self.desk.registry.model(request.path_params["id"])
        if shown_model.run is None:
            raise DataError("What this model learned from is not known.", "It is a single file.", "Name its run.")
        run = self.desk.registry.run(shown_model.run)
        images = await self.desk.faces(request, [address], look)
        return JSONResponse(await asyncio.to_thread(self.neighbours.of, run, images[0]), headers=UNKEPT)
