"""Routes about models and runs: what there is, a run as it happens, requests to a run."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from mien.errors import DataError
from mien.report.film import training_film
from mien.report.run_reader import sample_grids
from mien.sampling import bundled
from mien.storage import control
from mien.storage.regular_file import read_own
from mien.web import run_events
from mien.web.limits import Limit, LimitedStream
from mien.web.neighbours import pack_of
from mien.web.params import RequestParams
from mien.web.photo import can_level
from mien.web.registry import capabilities, overview
from mien.web.responses import NO_STORE, ApiRoute, JSONResponse, body, parameters, require_token, without_paths
from mien.web.routes_draw import FILMS, film_installed
from mien.web.service import Service
from mien.web.training import Training

STREAMS = 40  # live pages at a time
MOST_GRID = 64 << 20  # bytes of one picture


class RunRoutes:
    """Routes about models and runs; those that change a run need the token."""

    def __init__(self, service: Service) -> None:
        self.service, self.registry = service, service.registry
        self.closing = asyncio.Event()  # set when the server is to stop: streams end then
        self.training = Training(self.registry)
        self.streams, self.films, self.uploads = Limit(STREAMS), Limit(1), Limit(1)

    def routes(self) -> list[ApiRoute]:
        """A browser stores nothing of these but grids of samples."""
        run = "/api/run/{id:str}"
        return [
            ApiRoute("/api/models", self.models, "runs and models"),
            ApiRoute("/api/model/{id:str}", self.model, "what a model can do"),
            ApiRoute(run, self.run, "where a run stands, and its curves"),
            ApiRoute(f"{run}/samples/{{seen:int}}", self.samples, "a grid of samples", media_type="image/png"),
            ApiRoute(
                f"{run}/reconstructions/{{seen:int}}",
                self.reconstructions,
                "a grid of reconstructions",
                media_type="image/png",
            ),
            ApiRoute(f"{run}/film", self.film, "samples over training as a film", media_type="video/mp4"),
            ApiRoute(f"{run}/events", self.events, "a run as it happens", media_type="text/event-stream"),
            ApiRoute(
                f"{run}/control",
                self.control,
                "save, pause, resume or stop a run, or let it make one step",
                ("request",),
                "POST",
                needs_token=True,
            ),
            ApiRoute(
                "/api/train",
                self.train,
                "train on drawn faces or own photographs, from noise or from a bundled model",
                ("minutes", "photographs", "from"),
                "POST",
                needs_token=True,
            ),
            ApiRoute(
                "/api/train/ready",
                self.ready,
                "begin the process of the next run before it is known what it trains",
                method="POST",
                needs_token=True,
            ),
            ApiRoute(
                "/api/photographs",
                self.photograph,
                "add a photograph to train on; the body is the file",
                method="POST",
                needs_token=True,
            ),
        ]

    async def models(self, request: Request) -> Response:
        """What there is."""
        RequestParams.query(request.query_params).end()
        started = self.training.started()
        if started is not None and started["alive"]:  # a page may wait for its first step
            await asyncio.to_thread(self.registry.refresh, now=True)
        found = await asyncio.to_thread(overview, self.registry)
        if started is not None:
            started["error"] = without_paths(started["error"])
        return JSONResponse(
            {**found, "trusted": request.scope["trusted"], "started": started, "parents": bundled.names()},
            headers=NO_STORE,
        )

    async def model(self, request: Request) -> Response:
        """What a model can do, and what is known of its run."""
        RequestParams.query(request.query_params).end()
        id, sampler = request.path_params["id"], await self.service.sampler(request)
        model = self.registry.model(id)
        run = self.registry.runs.get(model.run or "")
        found = {
            **await asyncio.to_thread(capabilities, model, sampler, run),
            "neighbours": run is not None and await asyncio.to_thread(pack_of, run) is not None,
            "formats": [*FILMS] if film_installed() else ["webp", "gif"],
            "levels": can_level(),
            "scores": run_events.scores_of(run).get(model.seen, []) if run is not None else [],
        }
        card = bundled.card_of(model.file)
        if card is not None:
            found["card"] = card
        return JSONResponse(found, headers=NO_STORE)

    async def run(self, request: Request) -> Response:
        """Where a run stands, and its curves."""
        RequestParams.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        found = await asyncio.to_thread(lambda: {**run_events.state_of(run), "curves": run_events.curves(run)})
        return JSONResponse(found, headers=NO_STORE)

    async def samples(self, request: Request) -> Response:
        """The grid of samples that was drawn at some number of images seen."""
        return await self.grid(request, "samples")

    async def reconstructions(self, request: Request) -> Response:
        """The grid of real faces, and what the model made of them at some number of images seen."""
        return await self.grid(request, "reconstructions")

    async def grid(self, request: Request, kind: Literal["samples", "reconstructions"]) -> Response:
        """One grid of a run."""
        RequestParams.query(request.query_params).end()
        run, seen = self.registry.run(request.path_params["id"]), request.path_params["seen"]
        found = dict(sample_grids(run.path, kind)).get(seen)
        if found is None:
            raise DataError(
                "There is no such grid.", f"None was drawn at {seen} images.", "Choose from the run's samples."
            )
        try:
            content = await asyncio.to_thread(read_own, found, MOST_GRID)
        except OSError as error:
            raise DataError("This grid cannot be read.", f"{error.strerror}.", "Choose another one.") from error
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=60"})

    async def film(self, request: Request) -> Response:
        """The samples over training as a film: mp4, or webp where that cannot be written."""
        RequestParams.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        kind = "mp4" if film_installed() else "webp"

        def write() -> bytes:
            with tempfile.TemporaryDirectory(prefix="mien-") as folder:
                return training_film(run.path, Path(folder) / f"training.{kind}").read_bytes()

        with self.films.held():
            content = await asyncio.to_thread(write)
        return Response(content, media_type=FILMS[kind], headers=NO_STORE)

    async def events(self, request: Request) -> Response:
        """Where a run stands, sent whenever it changes."""
        RequestParams.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        end = self.streams.take()
        events = run_events.events(self.registry, run.id, self.closing)
        return LimitedStream(events, end, media_type="text/event-stream", headers=NO_STORE)

    async def control(self, request: Request) -> Response:
        """Ask a run to save, pause, resume or stop."""
        require_token(request)
        run, params = self.registry.run(request.path_params["id"]), await parameters(request)
        action = params.word("request", control.REQUESTS, "")
        params.end()
        if action == "resume" and control.owner(run.home) is None:
            await asyncio.to_thread(self.training.resume, run)
        else:
            control.send(run.home, action)
        return JSONResponse({"request": action}, status_code=202, headers=NO_STORE)

    async def train(self, request: Request) -> Response:
        """Train, to watch: from noise or on from a bundled model, on drawn faces or the photographs that were added."""
        require_token(request)
        params = await parameters(request)
        minutes = params.number("minutes", 5.0, 0.1, 600.0)
        own = params.word("photographs", ("0", "1"), "0") == "1"
        parent = params.word("from", ("", *bundled.names()), "")
        params.end()
        self.training.start(minutes, own, parent)
        return JSONResponse({"minutes": minutes}, status_code=202, headers=NO_STORE)

    async def ready(self, request: Request) -> Response:
        """Begin the process of the next run: a page is about to ask for one."""
        require_token(request)
        (await parameters(request)).end()
        self.training.get_ready()
        return JSONResponse({}, status_code=202, headers=NO_STORE)

    async def photograph(self, request: Request) -> Response:
        """Add a photograph to those that the next run is trained on."""
        require_token(request)
        RequestParams.query(request.query_params).end()
        with self.uploads.held():
            content = await body(request)
            count = await asyncio.to_thread(self.training.photographs.add, content)
        return JSONResponse({"count": count}, status_code=202, headers=NO_STORE)
