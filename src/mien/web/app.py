"""The explorer's application: its routes from one table, behind one guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mien.errors import MienError
from mien.web.limits import Full
from mien.web.queue import Stale
from mien.web.registry import Registry
from mien.web.responses import NO_STORE, ApiRoute, JSONResponse, handle_error
from mien.web.routes_directions import DirectionRoutes
from mien.web.routes_draw import DrawRoutes
from mien.web.routes_photo import PhotoRoutes
from mien.web.routes_runs import RunRoutes
from mien.web.security import Access, Guard, Refused
from mien.web.service import Service
from mien.web.static_files import StaticFiles


class Explorer:
    """Everything that answers, by concept."""

    def __init__(self, registry: Registry) -> None:
        self.service = Service(registry)
        self.draw, self.photo, self.runs = DrawRoutes(self.service), PhotoRoutes(self.service), RunRoutes(self.service)
        self.directions = DirectionRoutes(self.service)
        self.files = StaticFiles()

    @property
    def closing(self) -> asyncio.Event:
        """Set when the server is to stop."""
        return self.runs.closing

    def table(self) -> list[ApiRoute]:
        """Every route but the page's files."""
        described = ApiRoute("/api/description", self.described, "this description, as OpenAPI")
        return [*self.runs.routes(), *self.draw.routes(), *self.photo.routes(), *self.directions.routes(), described]

    async def described(self, request: Request) -> Response:
        """This description."""
        from mien.web.openapi import describe

        return JSONResponse(describe(self.table()), headers=NO_STORE)

    async def page(self, request: Request) -> Response:
        """The page and its files: a fixed table, read at the start."""
        return self.files.answer(
            request.path_params.get("name", "index.html"), request.headers.get("if-none-match", "")
        )


def application(registry: Registry, access: Access) -> tuple[Guard, Explorer]:
    """The guarded application, and what its routes share."""
    explorer = Explorer(registry)

    async def end() -> None:
        await explorer.closing.wait()
        explorer.service.queue.close()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (explorer.service.queue.work, explorer.service.warm, end)]
        try:
            yield
        finally:
            explorer.closing.set()
            explorer.runs.training.close()
            for task in tasks:
                task.cancel()

    routes = [Route(d.path, d.handler, methods=[d.method]) for d in explorer.table()]
    routes += [Route("/", explorer.page), Route("/{name:str}", explorer.page)]
    handled: tuple[Any, ...] = (Full, Stale, Refused, ClientDisconnect, MienError, HTTPException, Exception)
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(handled, handle_error))
    inner.router.redirect_slashes = False
    return Guard(inner, access), explorer
