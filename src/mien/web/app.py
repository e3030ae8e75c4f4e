"""The explorer's application: its routes from one table, behind one guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mien.errors import MienError
from mien.web.queue import Full, Stale
from mien.web.registry import Registry
from mien.web.responses import UNKEPT, Door, failed
from mien.web.routes_draw import Drawing
from mien.web.routes_photo import Likeness
from mien.web.routes_runs import Watching
from mien.web.security import Doors, Guard, Refused
from mien.web.service import Desk
from mien.web.static_files import StaticFiles


class Explorer:
    """Everything that answers, by concept."""

    def __init__(self, registry: Registry) -> None:
        self.desk = Desk(registry)
        self.drawing, self.likeness, self.watching = Drawing(self.desk), Likeness(self.desk), Watching(self.desk)
        self.files = StaticFiles()

    @property
    def closing(self) -> asyncio.Event:
        """Set when the server is to stop."""
        return self.watching.closing

    def table(self) -> list[Door]:
        """Every route but the page's files."""
        described = Door("/api/description", self.described, "this description, as OpenAPI")
        return [*self.watching.doors(), *self.drawing.doors(), *self.likeness.doors(), described]

    async def described(self, request: Request) -> Response:
        """This description."""
        from mien.web.openapi import describe

        return JSONResponse(describe(self.table()), headers=UNKEPT)

    async def page(self, request: Request) -> Response:
        """The page and its files: a fixed table, read at the start."""
        return self.files.answer(
            request.path_params.get("name", "index.html"), request.headers.get("if-none-match", "")
        )


def application(registry: Registry, doors: Doors) -> tuple[Guard, Explorer]:
    """The guarded application, and what its routes share."""
    explorer = Explorer(registry)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (explorer.desk.queue.work, explorer.desk.warm)]
        try:
            yield
        finally:
            explorer.closing.set()
            for task in tasks:
                task.cancel()

    routes = [Route(d.path, d.answer, methods=[d.method]) for d in explorer.table()]
    routes += [Route("/", explorer.page), Route("/{name:str}", explorer.page)]
    handled: tuple[Any, ...] = (Full, Stale, Refused, ClientDisconnect, MienError, HTTPException, Exception)
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers=dict.fromkeys(handled, failed))
    inner.router.redirect_slashes = False
    return Guard(inner, doors), explorer
