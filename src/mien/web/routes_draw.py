"""The routes that draw: a face, many on a sheet, children, the path of a flow, a film."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from mien.errors import UsageError
from mien.report.film import film
from mien.report.grid import picture
from mien.sampling.address import Address, Move, SeedPoint
from mien.storage.provenance import Claim, Provenance
from mien.web import params as request_params
from mien.web.limits import Limit
from mien.web.params import FaceParams, RequestParams
from mien.web.pictures import along, png, rgba, tiled
from mien.web.responses import NO_STORE, ApiRoute, Handler, parameters, picture_response, wants_json
from mien.web.service import Service

FILMS = {"webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
FILMS_AT_ONCE = 2


class DrawRoutes:
    """Routes that answer with a picture."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.films = Limit(FILMS_AT_ONCE)

    def routes(self) -> list[ApiRoute]:
        """Each by GET and by POST, each also as JSON."""
        face = ("label", "direction", "layers", "truncation", "style", "size", "solver", "guidance")
        rows: tuple[tuple[str, Handler, str, tuple[str, ...], str], ...] = (
            ("image", self.image, "a face", ("at", "quick"), "image/png"),
            (
                "preview",
                self.preview,
                "a face while something moves, as RGBA bytes",
                ("at", "drag"),
                "application/octet-stream",
            ),
            ("sheet", self.sheet, "many faces", ("at", "first", "count", "columns", "quick"), "image/png"),
            ("children", self.children, "nine children", ("at", "first", "strength", "quick"), "image/png"),
            ("path", self.path, "how a flow comes to a face", ("at", "columns"), "image/png"),
            (
                "walk",
                self.walk,
                "a film through faces",
                ("at", "frames", "fps", "loop", "format", "zoom"),
                "image/webp",
            ),
        )
        pictures = [
            ApiRoute(f"/api/model/{{id:str}}/{name}", handler, summary, (*own, *face), media_type=kind)
            for name, handler, summary, own, kind in rows
        ]
        posted = [ApiRoute(d.path, d.handler, d.summary, d.parameters, "POST", d.media_type) for d in pictures]
        twins = [
            ApiRoute(f"{d.path}.json", d.handler, f"{d.summary}, as JSON", d.parameters, d.method)
            for d in (*pictures, *posted)
        ]
        return [*pictures, *posted, *twins]

    async def face(self, request: Request, params: RequestParams) -> FaceParams:
        """How a route that serves thumbnails too draws its faces; its other parameters have been read."""
        quick, face = params.word("quick", ("0", "1"), "0") == "1", params.face()
        params.end()
        return await self.service.as_thumbnail(request, face) if quick else face

    async def image(self, request: Request) -> Response:
        """One face."""
        params = await parameters(request)
        address, face = params.address(), await self.face(request, params)
        key = f"{request.path_params['id']} {address} {face}"
        content, recipe = self.service.cache.get(key), {}
        if content is None or wants_json(request):
            images = await self.service.faces(request, [address], face)
            sampler = (await self.service.sampler(request)).with_options(face.options)
            recipe = sampler.metadata(at=str(address), **face.metadata)
            content = await asyncio.to_thread(png, images[0], recipe, Claim.of_addresses([str(address)]))
            self.service.cache.put(key, content)
        return picture_response(request, content, "image/png", recipe)

    async def preview(self, request: Request) -> Response:
        """A face within 2/255, or a flow's in few steps: without the time that a PNG takes, and never stored."""
        params = await parameters(request)
        address, face, drag = params.address(), params.face(), params.text("drag", "")[:32]
        params.end()
        (image,) = await self.service.faces(request, [address], face, drag)
        response = picture_response(request, rgba(image), "application/octet-stream", {})
        response.headers.update(NO_STORE)
        return response

    async def sheet(self, request: Request) -> Response:
        """Faces of consecutive seeds, or at some addresses, on one sheet without gaps."""
        params = await parameters(request)
        named = params.addresses("at", request_params.MAX_SHEET)
        first = params.count("first", 0, 0, 2**53 - 1 - request_params.MAX_SHEET)
        count = params.count("count", 100, 1, request_params.MAX_SHEET)
        columns, face = params.count("columns", 10, 1, 20), await self.face(request, params)
        places = named or [Address(SeedPoint(first + step)) for step in range(count)]
        key = f"{request.path_params['id']} sheet {' '.join(map(str, places))} {columns} {face}"
        where = {"at": [str(place) for place in named]} if named else {"seeds": [first, first + count - 1]}
        sampler = (await self.service.sampler(request)).with_options(face.options)
        recipe = sampler.metadata(**where, columns=columns, **face.metadata)
        claim = Claim.of_addresses([str(place) for place in named])
        content = self.service.cache.get(key)
        if content is None:
            images = await self.service.faces(request, places, face)
            content = await asyncio.to_thread(lambda: png(tiled(images, columns), recipe, claim))
            self.service.cache.put(key, content)
        return picture_response(request, content, "image/png", recipe)

    async def children(self, request: Request) -> Response:
        """Nine children of a face, each a step toward another seed, on one sheet; their addresses in the JSON twin."""
        params = await parameters(request)
        parent, first = params.address(), params.count("first", 0, 0, 2**53 - 10)
        strength, face = params.number("strength", 0.35, 0.0, 1.0), await self.face(request, params)
        litter = [
            Address(parent.start, (*parent.moves, Move(Address(SeedPoint(first + n)), round(strength, 4))))
            for n in range(9)
        ]
        images = await self.service.faces(request, litter, face)
        sampler = (await self.service.sampler(request)).with_options(face.options)
        recipe = sampler.metadata(at=[str(child) for child in litter], columns=3, **face.metadata)
        content = await asyncio.to_thread(png, tiled(images, 3), recipe, Claim.of_addresses(recipe["at"]))
        return picture_response(request, content, "image/png", recipe)

    async def path(self, request: Request) -> Response:
        """From noise to a face: what the solver has after each step on one sheet, noise first; how many in the JSON twin."""
        params = await parameters(request)
        address, columns, face = params.address(), params.count("columns", 8, 1, 20), params.face()
        params.end()
        (stages,) = await self.service.faces(request, [address], face, stages=True)
        sampler = (await self.service.sampler(request)).with_options(face.options)
        recipe = sampler.metadata(at=str(address), stages=len(stages), columns=columns, **face.metadata)
        content = await asyncio.to_thread(png, tiled(stages, columns), recipe, Claim.of_addresses([recipe["at"]]))
        return picture_response(request, content, "image/png", recipe)

    async def walk(self, request: Request) -> Response:
        """A film through faces."""
        params = await parameters(request)
        stops = params.addresses("at", request_params.MAX_STOPS)
        frames, fps = params.count("frames", 96, 2, request_params.MAX_FRAMES), params.number("fps", 24.0, 1.0, 60.0)
        loop, kind = params.word("loop", ("0", "1"), "1") == "1", params.word("format", FILMS, "webp")
        zoom, face = params.count("zoom", 4, 1, 8), params.face()
        params.end()
        if not 2 <= len(stops) <= frames:
            raise UsageError(
                "A walk needs two faces, and a frame for each.", "It has too few.", "Give `at` twice or more."
            )
        sampler = (await self.service.sampler(request)).with_options(face.options)
        side = sampler.image_spec.side * zoom
        if side > request_params.MAX_SIDE:
            raise UsageError(
                f"{side} px is too large for a film here.", "", f"Up to {request_params.MAX_SIDE} px; use `mien walk`."
            )
        metadata = sampler.metadata(
            walk=[str(stop) for stop in stops], frames=frames, fps=fps, loop=loop, zoom=zoom, **face.metadata
        )
        provenance = Provenance(metadata, Claim.of_addresses(metadata["walk"]))
        with self.films.held():
            images = await self.service.faces(request, along(stops, frames, loop), face)

            def write() -> bytes:
                with tempfile.TemporaryDirectory(prefix="mien-") as folder:
                    path = Path(folder) / f"walk.{kind}"
                    pictures = (picture(image).resize((side, side), 2 if zoom > 1 else None) for image in images)
                    film(pictures, path, provenance, fps)
                    return path.read_bytes()

            content = await asyncio.to_thread(write)
        return picture_response(request, content, FILMS[kind], metadata)


def film_installed() -> bool:
    """Whether mp4 can be written."""
    from importlib.util import find_spec

    return find_spec("av") is not None
