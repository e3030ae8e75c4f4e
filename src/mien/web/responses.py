"""What a request says and what it is answered: bodies read once, pictures with their twins in JSON, errors in three parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from mien.core.contracts import JSON
from mien.errors import MienError, UsageError
from mien.web.params import Given
from mien.web.queue import Full, Stale
from mien.web.security import Refused, token_missing

UNKEPT = {"cache-control": "no-store"}
STATUS = {2: 400, 3: 404, 4: 503, 6: 500, 7: 409, 8: 422, 9: 409}  # by the exit code of an error

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


def twin(request: Request) -> bool:
    """Whether a picture is asked for as JSON."""
    return request.url.path.endswith(".json")


def shown(request: Request, content: bytes, kind: str, recipe: JSON) -> Response:
    """A picture, or its twin in JSON. It never changes: a model's id is the hash of its weights."""
    if twin(request):
        return JSONResponse(
            {"media_type": kind, "base64": base64.b64encode(content).decode(), "recipe": recipe}, headers=UNKEPT
        )
    keep = "private, max-age=86400, immutable" if request.method == "GET" else "no-store"
    return Response(content, media_type=kind, headers={"cache-control": keep})


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
