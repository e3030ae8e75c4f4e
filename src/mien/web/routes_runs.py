"""The routes that tell what there is: models and what they can do, runs as they happen, and what a run is asked."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from mien.errors import DataError
from mien.report.film import training_film
from mien.report.run_reader import sample_grids
from mien.storage import control
from mien.web import run_events
from mien.web.neighbours import pack_of
from mien.web.params import Given
from mien.web.photo import can_level
from mien.web.queue import Full
from mien.web.registry import abilities, overview
from mien.web.responses import UNKEPT, Door, parameters, trusted
from mien.web.routes_draw import FILMS, film_installed
from mien.web.service import Desk
from mien.web.training import Training

STREAMS = 40  # live pages at a time


class Watching:
    """Questions about models and runs; what changes a run needs the token."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.registry = desk, desk.registry
        self.closing = asyncio.Event()  # set when the server is to stop: streams end then
        self.training = Training()
        self.streams = 0
        self.filming = False

    def doors(self) -> list[Door]:
        """Nothing here is kept by a browser, but grids of samples."""
        run = "/api/run/{id:str}"
        return [
            Door("/api/models", self.models, "runs and models"),
            Door("/api/model/{id:str}", self.model, "what a model can do"),
            Door(run, self.run, "where a run stands, and its curves"),
            Door(f"{run}/samples/{{seen:int}}", self.samples, "a grid of samples", gives="image/png"),
            Door(f"{run}/reconstructions/{{seen:int}}", self.reconstructions, "a grid of reconstructions", gives="image/png"),
            Door(f"{run}/film", self.film, "samples over training as a film", gives="video/mp4"),
            Door(f"{run}/events", self.events, "a run as it happens", gives="text/event-stream"),
            Door(f"{run}/control", self.control, "save, pause, resume or stop a run", ("wish",), "POST", token=True),
            Door("/api/train", self.train, "teach the quick preset drawn faces", ("minutes",), "POST", token=True),
        ]  # fmt: skip

    async def models(self, request: Request) -> Response:
        """What there is."""
        Given.query(request.query_params).end()
        found = await asyncio.to_thread(overview, self.registry)
        return JSONResponse({**found, "trusted": request.scope["trusted"]}, headers=UNKEPT)

    async def model(self, request: Request) -> Response:
        """What a model can do, and what is known of its run."""
        Given.query(request.query_params).end()
        id, sampler = request.path_params["id"], await self.desk.sampler(request)
        model = self.registry.model(id)
        run = self.registry.runs.get(model.run or "")
        told = {
            **await asyncio.to_thread(abilities, model, sampler, run),
            "neighbours": run is not None and await asyncio.to_thread(pack_of, run) is not None,
            "formats": [*FILMS] if film_installed() else ["webp", "gif"],
            "levels": can_level(),
        }
        return JSONResponse(told, headers=UNKEPT)

    async def run(self, request: Request) -> Response:
        """Where a run stands, and its curves."""
        Given.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        found = await asyncio.to_thread(lambda: {**run_events.state_of(run), "curves": run_events.curves(run)})
        return JSONResponse(found, headers=UNKEPT)

    async def samples(self, request: Request) -> Response:
        """The grid of samples that was drawn at some number of images seen."""
        return await self.grid(request, "samples")

    async def reconstructions(self, request: Request) -> Response:
        """The grid of real faces, and what the model made of them at some number of images seen."""
        return await self.grid(request, "reconstructions")

    async def grid(self, request: Request, kind: Literal["samples", "reconstructions"]) -> Response:
        """One grid of a run."""
        Given.query(request.query_params).end()
        run, seen = self.registry.run(request.path_params["id"]), request.path_params["seen"]
        found = dict(sample_grids(run.path, kind)).get(seen)
        if found is None:
            raise DataError(
                "There is no such grid.", f"None was drawn at {seen} images.", "Choose from the run's samples."
            )
        content = await asyncio.to_thread(found.read_bytes)
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=60"})

    async def film(self, request: Request) -> Response:
        """The samples over training as a film: mp4, or webp where that cannot be written."""
        Given.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        if self.filming:
            raise Full
        self.filming = True
        kind = "mp4" if film_installed() else "webp"

        def write() -> bytes:
            with tempfile.TemporaryDirectory(prefix="mien-") as folder:
                return training_film(run.path, Path(folder) / f"training.{kind}").read_bytes()

        try:
            content = await asyncio.to_thread(write)
        finally:
            self.filming = False
        return Response(content, media_type=FILMS[kind], headers=UNKEPT)

    async def events(self, request: Request) -> Response:
        """Where a run stands, sent whenever it changes."""
        Given.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        if self.streams >= STREAMS:
            raise Full

        async def stream() -> AsyncIterator[bytes]:
            self.streams += 1
            try:
                async for event in run_events.events(self.registry, run.id, self.closing):
                    yield event
            finally:
                self.streams -= 1

        return StreamingResponse(stream(), media_type="text/event-stream", headers=UNKEPT)

    async def control(self, request: Request) -> Response:
        """Ask a run to save, pause, resume or stop."""
        trusted(request)
        run, said = self.registry.run(request.path_params["id"]), await parameters(request)
        wish = said.word("wish", control.REQUESTS, "")
        said.end()
        if wish == "resume" and control.owner(run.home) is None:
            self.training.resume(run)
        else:
            control.send(run.home, wish)
        return JSONResponse({"asked": wish}, status_code=202, headers=UNKEPT)

    async def train(self, request: Request) -> Response:
        """Teach the quick preset drawn faces, to watch."""
        trusted(request)
        said = await parameters(request)
        minutes = said.number("minutes", 5.0, 0.1, 600.0)
        said.end()
        self.training.start(minutes)
        return JSONResponse({"minutes": minutes}, status_code=202, headers=UNKEPT)
