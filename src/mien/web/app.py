"""The explorer's application: one route, one question to a sampler, and for each picture a twin in JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from torch import Tensor

from mien import control
from mien.address import Address, Move, Place
from mien.core import JSON
from mien.errors import DataError, MienError, UsageError
from mien.priors import positions
from mien.report.film import film
from mien.report.grid import picture
from mien.report.record import sample_grids
from mien.sampler import Sampler
from mien.web import asked, live, photo, project
from mien.web.asked import Given, Look
from mien.web.guard import Doors, Guard, Refused, token_missing
from mien.web.nearest import Neighbours
from mien.web.pictures import Kept, png
from mien.web.queue import Full, Kind, Queue, Stale
from mien.web.registry import Registry, abilities, overview
from mien.web.static_files import StaticFiles
from mien.web.training import Training

FILMS = {"webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
STREAMS = 40  # live pages at a time
FILMS_AT_ONCE = 2
DESCENTS = 1  # at a time

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Door:
    """A route: its path, what it is for, and its parameters, in words for the description."""

    path: str
    answer: Answer
    summary: str
    parameters: tuple[str, ...] = ()
    method: Literal["GET", "POST"] = "GET"
    gives: str = "application/json"
    token: bool = False


@dataclass
class Explorer:
    """Everything the routes share."""

    registry: Registry
    doors: Doors
    kept: Kept = field(default_factory=Kept)
    streams: int = 0
    films: int = 0
    descents: int = 0

    def __post_init__(self) -> None:
        self.queue = Queue(self.draw)
        self.closing = asyncio.Event()
        self.files = StaticFiles()
        self.neighbours = Neighbours()
        self.training = Training()

    # Drawing

    def draw(self, kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the queue runs in its thread."""
        sampler = self.registry.sampler(str(kind.model)).at(kind.size).truncated(kind.truncation).styled(kind.style)
        return sampler.decode(z, labels) if kind.exact else sampler.preview(z, labels)

    async def sampler(self, request: Request) -> Sampler:
        """The model that a path names."""
        return await self.queue.alone(lambda: self.registry.sampler(request.path_params["id"]))

    def place(self, sampler: Sampler, address: Address, look: Look) -> tuple[Tensor, Tensor | None]:
        """What a face is drawn from."""
        sampler.at(look.size).styled(look.style)
        return sampler.place(address, look.labels, look.directions)

    async def faces(
        self, request: Request, addresses: Sequence[Address], look: Look, drag: str | None = None
    ) -> Tensor:
        """Images `[n, C, H, W]` at some addresses."""
        sampler = await self.sampler(request)
        placed = [self.place(sampler, address, look) for address in addresses]
        rows = [labels for _, labels in placed if labels is not None]
        kind = Kind(request.path_params["id"], look.size, look.truncation, look.style, exact=drag is None)
        return await self.queue.faces(kind, torch.cat([z for z, _ in placed]), torch.cat(rows) if rows else None, drag)

    async def image(self, request: Request) -> Response:
        """One face."""
        params = await parameters(request)
        (address,) = params.addresses("at", 1) or [Address(Place(0))]
        look, drag = params.look(), params.text("drag", "")[:32] or None
        params.end()
        key = f"{request.path_params['id']} {address} {look}"
        content, recipe = self.kept.get(key), {}
        if content is None or request.url.path.endswith(".json"):
            images = await self.faces(request, [address], look, drag)
            recipe = (await self.sampler(request)).at(look.size).recipe(at=str(address), **look.recipe)
            content = await asyncio.to_thread(png, images[0], recipe)
            if drag is None:
                self.kept.put(key, content)
        return shown(request, content, "image/png", recipe)

    async def sheet(self, request: Request) -> Response:
        """Faces of consecutive seeds, or at some addresses, on one sheet without gaps."""
        params = await parameters(request)
        given = params.addresses("at", asked.MOST_SHEET)
        first, count = (
            params.count("first", 0, 0, 2**53 - 1 - asked.MOST_SHEET),
            params.count("count", 100, 1, asked.MOST_SHEET),
        )
        columns, look = params.count("columns", 10, 1, 20), params.look()
        params.end()
        places = given or [Address(Place(first + step)) for step in range(count)]
        key = f"{request.path_params['id']} sheet {' '.join(map(str, places))} {columns} {look}"
        told = {"at": [str(place) for place in given]} if given else {"seeds": [first, first + count - 1]}
        recipe = {**told, "columns": columns, **look.recipe}
        content = self.kept.get(key)
        if content is None:
            images = await self.faces(request, places, look)
            content = await asyncio.to_thread(lambda: png(tiled(images, columns), recipe))
            self.kept.put(key, content)
        return shown(request, content, "image/png", recipe)

    async def children(self, request: Request) -> Response:
        """Nine children of a face, each a step toward another seed, on one sheet; their addresses in the JSON twin."""
        params = await parameters(request)
        (parent,) = params.addresses("at", 1) or [Address(Place(0))]
        first, strength = params.count("first", 0, 0, 2**53 - 10), params.number("strength", 0.35, 0.0, 1.0)
        look = params.look()
        params.end()
        litter = [
            Address(parent.start, (*parent.moves, Move(Address(Place(first + n)), round(strength, 4))))
            for n in range(9)
        ]
        images = await self.faces(request, litter, look)
        recipe = {"at": [str(child) for child in litter], **look.recipe}
        return shown(request, await asyncio.to_thread(lambda: png(tiled(images, 3), recipe)), "image/png", recipe)

    async def walk(self, request: Request) -> Response:
        """A film through faces."""
        params = await parameters(request)
        stops = params.addresses("at", asked.MOST_STOPS)
        frames, fps = params.count("frames", 96, 2, asked.MOST_FRAMES), params.number("fps", 24.0, 1.0, 60.0)
        loop, kind = params.word("loop", ("0", "1"), "1") == "1", params.word("format", FILMS, "webp")
        zoom, look = params.count("zoom", 4, 1, 8), params.look()
        params.end()
        if not 2 <= len(stops) <= frames:
            raise UsageError(
                "A walk needs two faces, and a frame for each.", "It has too few.", "Give `at` twice or more."
            )
        sampler = (await self.sampler(request)).at(look.size)
        side = sampler.faces.side * zoom
        if side > asked.LARGEST:
            raise UsageError(
                f"{side} px is too large for a film here.", "", f"Up to {asked.LARGEST} px; use `mien walk`."
            )
        if self.films >= FILMS_AT_ONCE:
            raise Full
        self.films += 1
        try:
            images = await self.faces(request, along(stops, frames, loop), look)

            def write() -> bytes:
                with tempfile.TemporaryDirectory(prefix="mien-") as folder:
                    path = Path(folder) / f"walk.{kind}"
                    film((picture(image).resize((side, side), 2 if zoom > 1 else None) for image in images), path, fps)
                    return path.read_bytes()

            content = await asyncio.to_thread(write)
        finally:
            self.films -= 1
        return shown(request, content, FILMS[kind], sampler.recipe(walk=[str(stop) for stop in stops], **look.recipe))

    async def project(self, request: Request) -> Response:
        """A photograph's own face in the model: encoded at once, or found by `steps` of descent, told as they are taken."""
        params = Given.query(request.query_params)
        steps = params.count("steps", 0, 0, asked.MOST_STEPS)
        params.end()
        sampler = await self.sampler(request)
        image = await photo.decode(await body(request), sampler.faces.side)
        if steps:
            if self.descents >= DESCENTS:
                raise Full
            stream = self.descend(request, sampler, image, steps)
            return StreamingResponse(stream, media_type="text/event-stream", headers=UNKEPT)
        return JSONResponse(await self.queue.alone(lambda: project.encoded(sampler, image)), headers=UNKEPT)

    async def descend(self, request: Request, sampler: Sampler, image: Tensor, steps: int) -> AsyncIterator[bytes]:
        """The events of a descent, which ends when nobody listens any more."""
        self.descents += 1
        try:
            async for event in project.descended(sampler, image, steps):
                if await request.is_disconnected():
                    break
                yield event
        finally:
            self.descents -= 1

    async def nearest(self, request: Request) -> Response:
        """The training images that are most like a face."""
        params = await parameters(request)
        (address,) = params.addresses("at", 1) or [Address(Place(0))]
        look = params.look()
        params.end()
        shown_model = self.registry.model(request.path_params["id"])
        if shown_model.run is None:
            raise DataError("What this model learned from is not known.", "It is a single file.", "Name its run.")
        run = self.registry.run(shown_model.run)
        images = await self.faces(request, [address], look)
        return JSONResponse(await asyncio.to_thread(self.neighbours.of, run, images[0]), headers=UNKEPT)

    # Looking

    async def models(self, request: Request) -> Response:
        """What there is."""
        Given.query(request.query_params).end()
        found = await asyncio.to_thread(overview, self.registry)
        return JSONResponse({**found, "trusted": request.scope["trusted"]}, headers=UNKEPT)

    async def model(self, request: Request) -> Response:
        """What a model can do."""
        Given.query(request.query_params).end()
        sampler = await self.sampler(request)
        return JSONResponse(await asyncio.to_thread(self.abilities, request.path_params["id"], sampler), headers=UNKEPT)

    def abilities(self, id: str, sampler: Sampler) -> JSON:
        """What a model can do, and what is known of its run."""
        model = self.registry.model(id)
        run = self.registry.runs.get(model.run or "")
        return {
            **abilities(model, sampler, run),
            "neighbours": run is not None and self.neighbours.pack_of(run) is not None,
            "formats": [*FILMS] if film_installed() else ["webp", "gif"],
        }

    async def run(self, request: Request) -> Response:
        """Where a run stands, and its curves."""
        Given.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        found = await asyncio.to_thread(lambda: {**live.state_of(run), "curves": live.curves(run)})
        return JSONResponse(found, headers=UNKEPT)

    async def samples(self, request: Request) -> Response:
        """The grid of samples that was drawn at some number of images seen."""
        Given.query(request.query_params).end()
        run, seen = self.registry.run(request.path_params["id"]), request.path_params["seen"]
        found = dict(sample_grids(run.path)).get(seen)
        if found is None:
            raise DataError(
                "There is no such grid.", f"None was drawn at {seen} images.", "Choose from the run's samples."
            )
        content = await asyncio.to_thread(found.read_bytes)
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=60"})

    async def events(self, request: Request) -> Response:
        """Where a run stands, sent whenever it changes."""
        Given.query(request.query_params).end()
        run = self.registry.run(request.path_params["id"])
        if self.streams >= STREAMS:
            raise Full

        async def stream() -> AsyncIterator[bytes]:
            self.streams += 1
            try:
                async for event in live.events(self.registry, run.id, self.closing):
                    yield event
            finally:
                self.streams -= 1

        return StreamingResponse(stream(), media_type="text/event-stream", headers=UNKEPT)

    async def control(self, request: Request) -> Response:
        """Ask a run to save, pause, resume or stop."""
        trusted(request)
        run, said = self.registry.run(request.path_params["id"]), await parameters(request)
        wish = said.word("wish", control.WISHES, "")
        said.end()
        if wish == "resume" and control.owner(run.home) is None:
            self.training.resume(run)
        else:
            control.ask(run.home, wish)
        return JSONResponse({"asked": wish}, status_code=202, headers=UNKEPT)

    async def train(self, request: Request) -> Response:
        """Teach the quick preset drawn faces, to watch."""
        trusted(request)
        said = await parameters(request)
        minutes = said.number("minutes", 5.0, 0.1, 600.0)
        said.end()
        self.training.start(minutes)
        return JSONResponse({"minutes": minutes}, status_code=202, headers=UNKEPT)

    async def page(self, request: Request) -> Response:
        """The page and its files: a fixed table, read at the start."""
        return self.files.answer(
            request.path_params.get("name", "index.html"), request.headers.get("if-none-match", "")
        )

    async def described(self, request: Request) -> Response:
        """This description."""
        from mien.web.described import describe

        return JSONResponse(describe(self.table()), headers=UNKEPT)

    def table(self) -> list[Door]:
        """Every route but the page's files."""
        look = ("label", "direction", "truncation", "style", "size")
        film = ("at", "frames", "fps", "loop", "format", "zoom", *look)
        model = "/api/model/{id:str}"
        run = "/api/run/{id:str}"
        pictures = [
            Door(f"{model}/image", self.image, "a face", ("at", "drag", *look), gives="image/png"),
            Door(f"{model}/sheet", self.sheet, "many faces", ("at", "first", "count", "columns", *look), gives="image/png"),
            Door(f"{model}/children", self.children, "nine children", ("at", "first", "strength", *look), gives="image/png"),
            Door(f"{model}/walk", self.walk, "a film through faces", film, gives="image/webp"),
        ]  # fmt: skip
        posted = [Door(d.path, d.answer, d.summary, d.parameters, "POST", d.gives) for d in pictures]
        return [
            Door("/api/models", self.models, "runs and models"),
            Door(model, self.model, "what a model can do"),
            *pictures,
            *posted,
            *(Door(f"{d.path}.json", d.answer, f"{d.summary}, as JSON", d.parameters, d.method) for d in (*pictures, *posted)),
            Door(f"{model}/neighbours", self.nearest, "the nearest training images", ("at", *look)),
            Door(f"{model}/neighbours", self.nearest, "the nearest training images", ("at", *look), "POST"),
            Door(f"{model}/project", self.project, "a photograph's face; the body is the file", ("steps",), method="POST"),
            Door(run, self.run, "where a run stands, and its curves"),
            Door(f"{run}/samples/{{seen:int}}", self.samples, "a grid of samples", gives="image/png"),
            Door(f"{run}/events", self.events, "a run as it happens", gives="text/event-stream"),
            Door(f"{run}/control", self.control, "save, pause, resume or stop a run", ("wish",), "POST", token=True),
            Door("/api/train", self.train, "teach the quick preset drawn faces", ("minutes",), "POST", token=True),
            Door("/api/description", self.described, "this description, as OpenAPI"),
        ]  # fmt: skip


UNKEPT = {"cache-control": "no-store"}


def film_installed() -> bool:
    """Whether mp4 can be written."""
    from importlib.util import find_spec

    return find_spec("av") is not None


def trusted(request: Request) -> None:
    """Raises Refused for a request without the token."""
    if not request.scope["trusted"]:
        raise token_missing()


async def body(request: Request) -> bytes:
    """The whole body; the guard has bounded it."""
    return b"".join([part async for part in request.stream()])


async def parameters(request: Request) -> Given:
    """The parameters of a query, or for POST of a flat JSON object whose values are text, numbers or lists of them."""
    if request.method == "GET":
        return Given.query(request.query_params)
    Given.query(request.query_params).end()
    try:
        said = json.loads(await body(request))
    except (ValueError, RecursionError) as error:
        raise UsageError("The body is not JSON.", str(error)[:100], "Send a JSON object.") from error
    pairs = []
    for name, value in (said if isinstance(said, dict) else {"": None}).items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise UsageError(
                    "The body does not fit.", f"`{str(name)[:40]}` is no text or number.", "Send a flat JSON object."
                )
            pairs.append((str(name), str(item)))
    return Given(pairs)


def shown(request: Request, content: bytes, kind: str, recipe: JSON) -> Response:
    """A picture, or its twin in JSON. It never changes: a model's id is the hash of its weights."""
    if request.url.path.endswith(".json"):
        return JSONResponse(
            {"media_type": kind, "base64": base64.b64encode(content).decode(), "recipe": recipe}, headers=UNKEPT
        )
    keep = "private, max-age=86400, immutable" if request.method == "GET" else "no-store"
    return Response(content, media_type=kind, headers={"cache-control": keep})


def tiled(images: Tensor, columns: int) -> Tensor:
    """Images `[n, C, H, W]` side by side as one, what is left over black."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((rows * columns, channels, height, width), -1.0)
    sheet[:n] = images
    return sheet.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4).reshape(
        channels, rows * height, columns * width
    )  # fmt: skip


def along(stops: Sequence[Address], frames: int, loop: bool) -> list[Address]:
    """The addresses of a walk's frames: every stop is met, and the way between two is theirs."""
    line = [*stops, stops[0]] if loop else list(stops)
    found = []
    for t in positions(len(line), frames, loop):
        leg = min(int(t), len(line) - 2)
        here, there, share = line[leg], line[leg + 1], t - leg
        found.append(
            here if share == 0 else there if share == 1 else Address(here.start, (*here.moves, Move(there, share)))
        )
    return found


STATUS = {2: 400, 3: 404, 4: 503, 6: 500, 7: 409, 8: 422, 9: 409}


async def failed(request: Request, error: Exception) -> Response:
    """Every error as JSON in three parts."""
    if isinstance(error, Full):
        return said(503, "The server is busy.", "Its queue is full.", "Try again in a moment.", {"retry-after": "1"})
    if isinstance(error, Stale):
        return Response(status_code=204, headers=UNKEPT)
    if isinstance(error, Refused):
        return said(error.status, error.what, error.why, error.hint, {"connection": "close"})
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    if isinstance(error, MienError):
        return said(STATUS.get(error.exit_code, 500), error.what, error.why, error.remedy)
    status = getattr(error, "status_code", 500)
    if status == 500:
        return said(
            500, "The server met a case it does not know.", type(error).__name__, "Run with --debug and report it."
        )
    return said(status, "There is nothing here.", f"HTTP {status}.", "Open the page at /.")


def said(status: int, what: str, why: str, hint: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON."""
    fields = {"code": status, "message": what, "why": why, "hint": hint}
    return JSONResponse({"error": fields}, status_code=status, headers={**UNKEPT, **(headers or {})})


def application(registry: Registry, doors: Doors) -> tuple[Guard, Explorer]:
    """The guarded application, and what its routes share."""
    from starlette.exceptions import HTTPException

    explorer = Explorer(registry, doors)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(explorer.queue.work())
        try:
            yield
        finally:
            explorer.closing.set()
            worker.cancel()

    routes = [Route(d.path, d.answer, methods=[d.method]) for d in explorer.table()]
    routes += [Route("/", explorer.page), Route("/{name:str}", explorer.page)]
    handled: tuple[Any, ...] = (Full, Stale, Refused, ClientDisconnect, MienError, HTTPException, Exception)
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(handled, failed))
    inner.router.redirect_slashes = False
    return Guard(inner, doors), explorer
