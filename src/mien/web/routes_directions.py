"""Routes that find directions in a model and name them; both write beside the model, so they need the token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from mien.core.contracts import JSON
from mien.errors import MienError
from mien.sampling import unsupervised
from mien.sampling.sampler import Sampler
from mien.storage.bounded_json import dumps
from mien.web.limits import Limit, LimitedStream
from mien.web.params import MAX_AMOUNT
from mien.web.responses import NO_STORE, ApiRoute, JSONResponse, parameters, require_token, without_paths
from mien.web.service import Service

MAX_FOUND = 40


class DirectionRoutes:
    """Directions found without labels, and directions with a name of one's own."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.searches = Limit(1)

    def routes(self) -> list[ApiRoute]:
        """Both by POST with the token."""
        model = "/api/model/{id:str}"
        return [
            ApiRoute(
                f"{model}/directions",
                self.name,
                "name the direction in which others lead together",
                ("name", "direction"),
                "POST",
                needs_token=True,
            ),
            ApiRoute(
                f"{model}/find-directions",
                self.find,
                "find directions without labels",
                ("count",),
                "POST",
                media_type="text/event-stream",
                needs_token=True,
            ),
        ]

    async def name(self, request: Request) -> Response:
        """Store a direction under a name."""
        require_token(request)
        params = await parameters(request)
        name, amounts = params.text("name", ""), params.amounts("direction", -MAX_AMOUNT, MAX_AMOUNT)
        params.end()
        id, sampler = request.path_params["id"], await self.service.sampler(request)

        def store() -> None:
            direction = unsupervised.named_direction(sampler, name, amounts)
            unsupervised.store(sampler, [direction], "mien explore")
            self.service.registry.reload(id)

        await self.service.queue.alone(store)  # one after the other: each reads what the last one wrote
        return JSONResponse({"name": name}, status_code=202, headers=NO_STORE)

    async def find(self, request: Request) -> Response:
        """Find directions without labels: events `step` with the share that is done, then `found` or `failed`."""
        require_token(request)
        params = await parameters(request)
        count = params.count("count", 10, 1, MAX_FOUND)
        params.end()
        end = self.searches.take()
        try:
            sampler = await self.service.sampler(request)
        except BaseException:
            end()
            raise
        return LimitedStream(
            self.search(request.path_params["id"], sampler, count),
            end,
            media_type="text/event-stream",
            headers=NO_STORE,
        )

    async def search(self, id: str, sampler: Sampler, count: int) -> AsyncIterator[bytes]:
        """The events of a search, which goes on to its end also when nobody listens."""
        loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[str, JSON]]()
        done = 0

        def work() -> None:
            payload: JSON
            try:
                faces = unsupervised.num_faces(sampler)

                def progress(n: int) -> None:
                    nonlocal done
                    done += n
                    loop.call_soon_threadsafe(news.put_nowait, ("step", {"done": done, "of": faces}))

                found = unsupervised.unsupervised_directions(sampler, count, faces, progress)
                unsupervised.store(sampler, found, f"mien directions MODEL --unsupervised {count}")
                self.service.registry.reload(id)
                payload = {"names": [direction.name for direction in found]}
                event = "found"
            except MienError as error:
                parts = (without_paths(part) for part in (error.what, error.why, error.remedy))
                event, payload = "failed", dict(zip(("message", "why", "hint"), parts, strict=True))
            except Exception as error:  # the client waits for an event
                payload = {"message": "The search failed.", "why": type(error).__name__, "hint": "Report it."}
                event = "failed"
            loop.call_soon_threadsafe(news.put_nowait, (event, payload))

        working = asyncio.create_task(asyncio.to_thread(work))
        event = "step"
        while event == "step":
            event, payload = await news.get()
            yield f"event: {event}\ndata: {dumps(payload)}\n\n".encode()
        await working
