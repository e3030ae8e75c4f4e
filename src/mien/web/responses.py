"""Request bodies, and responses: pictures, the same as JSON, errors in three parts."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse as StarletteJSON
from starlette.responses import Response

from mien.core.contracts import JSON
from mien.errors import MienError, UsageError
from mien.storage.bounded_json import InvalidJSON, dumps, loads
from mien.web.limits import Full
from mien.web.params import RequestParams
from mien.web.queue import Stale
from mien.web.security import Refused, token_missing

NO_STORE = {"cache-control": "no-store"}
STATUS = {2: 400, 3: 404, 4: 503, 6: 500, 7: 409, 8: 422, 9: 409}  # by the exit code of an error


class JSONResponse(StarletteJSON):
    """JSON in ASCII, so that a file name that is not UTF-8 does not fail."""

    def render(self, content: object) -> bytes:
        return dumps(content, separators=(",", ":")).encode()


Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ApiRoute:
    """A route: its path, what it is for, and its parameters, in words for the description."""

    path: str
    handler: Handler
    summary: str
    parameters: tuple[str, ...] = ()
    method: Literal["GET", "POST"] = "GET"
    media_type: str = "application/json"
    needs_token: bool = False


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives; it is cancelled when the client leaves. Raises ClientDisconnect."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def require_token(request: Request) -> None:
    """Raises Refused for a request without the token."""
    if not request.scope["trusted"]:
        raise token_missing()


async def body(request: Request) -> bytes:
    """The whole body; the guard has bounded it."""
    return b"".join([part async for part in request.stream()])


async def parameters(request: Request) -> RequestParams:
    """The parameters of a query, or for POST of a flat JSON object whose values are text, numbers or lists of them."""
    if request.method == "GET":
        return RequestParams.query(request.query_params)
    RequestParams.query(request.query_params).end()
    try:
        document = loads(await body(request), file_names=False)
    except InvalidJSON as error:
        raise UsageError("The body is not JSON.", str(error)[:100], "Send a JSON object.") from error
    pairs = []
    for name, value in (document if isinstance(document, dict) else {"": None}).items():
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | int | float) or isinstance(item, bool):
                raise UsageError(
                    "The body does not fit.", f"`{str(name)[:40]}` is no text or number.", "Send a flat JSON object."
                )
            pairs.append((str(name), str(item)))
    return RequestParams(pairs)


def wants_json(request: Request) -> bool:
    """Whether the path asks for a picture as JSON."""
    return request.url.path.endswith(".json")


def picture_response(request: Request, content: bytes, kind: str, recipe: JSON) -> Response:
    """A picture, or its twin in JSON. It never changes: a model's id is the hash of its weights."""
    if wants_json(request):
        return JSONResponse(
            {"media_type": kind, "base64": base64.b64encode(content).decode(), "recipe": recipe}, headers=NO_STORE
        )
    keep = "private, max-age=86400, immutable" if request.method == "GET" else "no-store"
    return Response(content, media_type=kind, headers={"cache-control": keep})


async def handle_error(request: Request, error: Exception) -> Response:
    """Every error as JSON in three parts."""
    if isinstance(error, Full):
        return error_response(
            503, "The server is busy.", "Its queue is full.", "Try again in a moment.", {"retry-after": "1"}
        )
    if isinstance(error, Stale):
        return Response(status_code=204, headers=NO_STORE)
    if isinstance(error, Refused):
        return error_response(error.status, error.what, error.why, error.hint, {"connection": "close"})
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    if isinstance(error, MienError):
        what, why, hint = (without_paths(part) for part in (error.what, error.why, error.remedy))
        return error_response(STATUS.get(error.exit_code, 500), what, why, hint)
    status = getattr(error, "status_code", 500)
    if status == 500:
        return error_response(
            500, "The server met a case it does not know.", type(error).__name__, "Run with --debug and report it."
        )
    return error_response(status, "There is nothing here.", f"HTTP {status}.", "Open the page at /.")


#: An address of the web; or a path from the root, the home or a drive, or below two folders, whose last name is a group.
PATH = re.compile(
    r"""(\w{2,}://\S+)|(?<![\w/:])(?:(?:[A-Za-z]:)?(?:~|\.{1,2})?[\\/](?:[^\s\\/'"`]+[\\/])+|(?:[\w.-]+[\\/]){2,})([^\s\\/'"`:,;]*)"""
)


def without_paths(text: str) -> str:
    """A sentence in which paths are their last names: folders of this machine are no client's business."""
    return PATH.sub(lambda found: found[1] or found[2], text)


def error_response(status: int, what: str, why: str, hint: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON."""
    fields = {"code": status, "message": what, "why": why, "hint": hint}
    return JSONResponse({"error": fields}, status_code=status, headers={**NO_STORE, **(headers or {})})
