"""Routes that search: the latent of a photograph, and the nearest training images of a face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from mien.errors import DataError
from mien.metrics.framing import framing_of
from mien.sampling.sampler import Sampler
from mien.web import params as request_params
from mien.web import photo, project
from mien.web.limits import Limit, LimitedStream
from mien.web.neighbours import Neighbours
from mien.web.params import RequestParams
from mien.web.responses import NO_STORE, ApiRoute, JSONResponse, body, parameters
from mien.web.service import Service

DESCENTS = 1  # at a time
PHOTOGRAPHS = 8  # that are received or decoded at a time: 10 MB each


class PhotoRoutes:
    """Projection of photographs, and nearest neighbours."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.neighbours = Neighbours()
        self.descents, self.photographs = Limit(DESCENTS), Limit(PHOTOGRAPHS)

    def routes(self) -> list[ApiRoute]:
        """Photographs come as the body itself."""
        model = "/api/model/{id:str}"
        face = ("at", "label", "direction", "layers", "truncation", "style", "size", "solver", "guidance")
        summary = "a photograph's face; the body is the file"
        return [
            ApiRoute(f"{model}/neighbours", self.nearest, "the nearest training images", face),
            ApiRoute(f"{model}/neighbours", self.nearest, "the nearest training images", face, "POST"),
            ApiRoute(f"{model}/project", self.project, summary, ("steps", "align"), method="POST"),
        ]

    async def project(self, request: Request) -> Response:
        """A photograph's own face in the model: encoded at once, or found by `steps` of descent, sent as they are taken."""
        params = RequestParams.query(request.query_params)
        steps, align = (
            params.count("steps", 0, 0, request_params.MAX_STEPS),
            params.word("align", ("0", "1"), "0") == "1",
        )
        params.end()
        end_descent = self.descents.take() if steps else lambda: None
        try:
            with self.photographs.held():
                sampler = await self.service.sampler(request)
                framing = await self.service.queue.alone(lambda: framing_of(sampler)) if align else None
                decoded = await photo.decode(await body(request), sampler.image_spec.side, framing)
            if steps:
                stream = self.descend(request, sampler, decoded.image, steps, decoded.cut)
                return LimitedStream(stream, end_descent, media_type="text/event-stream", headers=NO_STORE)
        except BaseException:
            end_descent()
            raise
        found = await self.service.queue.alone(lambda: project.encoded(sampler, decoded.image))
        return JSONResponse({**found, "cut": decoded.cut}, headers=NO_STORE)

    async def descend(
        self, request: Request, sampler: Sampler, image: Tensor, steps: int, cut: photo.Cut
    ) -> AsyncIterator[bytes]:
        """The events of a descent, which ends when nobody listens any more."""
        async with aclosing(project.descended(sampler, image, steps, {"cut": cut})) as events:
            async for event in events:
                if await request.is_disconnected():
                    break
                yield event

    async def nearest(self, request: Request) -> Response:
        """The training images that are most like a face."""
        params = await parameters(request)
        address, face = params.address(), params.face()
        params.end()
        entry = self.service.registry.model(request.path_params["id"])
        if entry.run is None:
            raise DataError("What this model learned from is not known.", "It is a single file.", "Name its run.")
        run = self.service.registry.run(entry.run)
        images = await self.service.faces(request, [address], face)
        return JSONResponse(await self.neighbours.search(run, images[0]), headers=NO_STORE)
