"""ASGI middleware in front of every route: Host, Origin, token, sizes, and security headers.

A server on loopback is reachable from every page that the same browser has open. So the Host must be ours (no rebinding), an
Origin must be ours (no other page, not `null`), what changes something needs an Origin or the token, controls need the token,
and off loopback, or through a reverse proxy, everything but the empty page does.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from mien.errors import UsageError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PHOTO_BYTES = 10 << 20
BODY_BYTES = 1 << 20
ADDRESS_BYTES = 16 << 10  # of path and query together
HEAD_BYTES = 32 << 10
BODY_SECONDS = 30.0
READING = ("GET", "HEAD")

#: Headers by which a reverse proxy says that a request is somebody else's.
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host")
HOST_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::\d{1,5})?")
BASE_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~@%-]+)*")

#: No script but our own files, nothing from or to elsewhere, never inside another page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The pages of notebooks: Jupyter on this machine or behind the same proxy, VS Code, Colab.
NOTEBOOKS = (
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* https://localhost:* vscode-webview: "
    "https://*.googleusercontent.com https://colab.research.google.com"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """How browsers reach a server other than at its own address."""

    hosts: tuple[str, ...] = ()  # names of a reverse proxy as browsers see them: NAME or NAME:PORT
    base_path: str = ""  # the path below which the proxy answers, as /faces
    framed: bool = False  # the page is shown inside a notebook

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_path", self.base_path.rstrip("/"))
        for host in self.hosts:
            if not HOST_NAME.fullmatch(host.lower()):
                raise UsageError(
                    f"`{host}` is not a name to allow.", "It is NAME or NAME:PORT, without http:// and without a path.",
                    "Write --allow-host faces.example.org.",
                )  # fmt: skip
        if not BASE_PATH.fullmatch(self.base_path):
            raise UsageError(
                f"`{self.base_path}` is not a base path.", "It begins with / and has letters, digits and - _ . ~ @ %.",
                "Write --base-path /faces.",
            )  # fmt: skip

    def address(self) -> str:
        """The address at which a browser reaches the page through the proxy; empty where no name is allowed."""
        return f"https://{self.hosts[0]}{self.base_path}/" if self.hosts else ""


DIRECT = Proxy()  # none


@dataclass(frozen=True, kw_only=True)
class Access:
    """Under which names this server answers, and to whom."""

    names: frozenset[str]  # host:port, in lower case
    token: str
    open: bool  # on loopback: looking needs no token
    proxied: frozenset[str] = frozenset()  # names of a reverse proxy, which may speak https
    base_path: str = ""
    framed: bool = False

    @staticmethod
    def at(host: str, port: int, token: str, proxy: Proxy = DIRECT) -> Access:
        """The access rules of a server bound to `host`."""
        loopback = host in ("127.0.0.1", "localhost", "::1")
        own = {"127.0.0.1", "localhost", "[::1]"} | ({f"[{host}]" if ":" in host else host.lower()} - {"0.0.0.0"})
        return Access(
            names=frozenset(f"{name}:{port}" for name in own),
            token=token,
            open=loopback and not proxy.hosts,
            proxied=frozenset(name.lower() for name in proxy.hosts),
            base_path=unquote(proxy.base_path),
            framed=proxy.framed,
        )

    @property
    def origins(self) -> set[str]:
        """The origins of our own page."""
        return {f"http://{name}" for name in self.names | self.proxied} | {f"https://{name}" for name in self.proxied}

    @property
    def headers(self) -> dict[str, str]:
        """The security headers of every answer."""
        if not self.framed:
            return HEADERS
        policy = POLICY.replace("frame-ancestors 'none'", NOTEBOOKS)
        return {**{k: v for k, v in HEADERS.items() if k != "x-frame-options"}, "content-security-policy": policy}

    def is_token(self, text: str) -> bool:
        """Whether a token is ours. An empty one never is, also where no token was set."""
        return bool(self.token) and hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())


class Refused(Exception):
    """A request that is answered with an error of the protocol."""

    def __init__(self, status: int, what: str, why: str, hint: str) -> None:
        super().__init__(what)
        self.status, self.what, self.why, self.hint = status, what, why, hint


class Guard:
    """ASGI middleware. Within the routes, `scope["trusted"]` says whether the request carried the token."""

    def __init__(self, app: App, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        started, headers = False, self.access.headers

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in headers.items() if n.encode() not in present]
                if reader.unread:  # a server would go on reading what nobody wants
                    extra.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        inside = self.below_base(scope)
        limit = PHOTO_BYTES if scope["path"].endswith(("/project", "/photographs")) else BODY_BYTES
        reader = BodyReader(scope, receive, limit)
        try:
            self.check(inside)
            if (
                scope["path"] == self.access.base_path != ""
            ):  # the page's own addresses are relative: it needs the last slash
                await redirect(dressed, scope.get("raw_path") or scope["path"].encode())
                return
            await self.app(inside, reader.receive, dressed)
        except Refused as error:
            if not started:
                await respond(dressed, error)

    def below_base(self, scope: Scope) -> Scope:
        """The request without the base path: some proxies take it away, some leave it."""
        base = self.access.base_path
        if not base or not scope["path"].startswith(f"{base}/"):
            return scope
        raw = (scope.get("raw_path") or b"").split(b"/")
        return {**scope, "path": scope["path"][len(base) :], "raw_path": b"/" + b"/".join(raw[base.count("/") + 1 :])}

    def check(self, scope: Scope) -> None:
        """Raises Refused for a request that does not come in."""
        headers: dict[str, str] = {}
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
            raise Refused(431, "The head is too large.", f"{HEAD_BYTES:,} bytes are the most.", "Send fewer headers.")
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in headers and key in ("host", "origin", "authorization", "content-length"):
                raise Refused(400, f"There are two {key} headers.", "Only one can be meant.", "Send one.")
            headers[key] = value.decode("latin-1")
        if headers.get("host", "").lower() not in self.access.names | self.access.proxied:
            raise Refused(
                421, "This server has another name.", "The Host header is not one of its addresses.",
                "Open the address that `mien explore` printed; behind a reverse proxy, start it with --allow-host NAME.",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self.access.origins:
            raise Refused(
                403, "Requests from other pages are refused.", "The Origin header is not this server's.",
                "Open the address that `mien explore` printed.",
            )  # fmt: skip
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and scope["path"] != "/":
            raise Refused(
                403, "Requests from other pages are refused.", "The browser says so.", "Open the page itself."
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > ADDRESS_BYTES:
            raise Refused(414, "The address is too long.", f"{ADDRESS_BYTES:,} bytes are the most.", "Send it as POST.")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        scope["trusted"] = scheme == "Bearer" and self.access.is_token(token)
        looking = self.access.open and not any(name in headers for name in FORWARDED)
        if not looking and not scope["trusted"] and scope["path"].startswith("/api"):
            raise token_missing()
        if scope["method"] not in READING and origin is None and not scope["trusted"]:
            raise Refused(
                403,
                "The request has no origin.",
                "There is neither an Origin nor the token.",
                "Send the token as Bearer.",
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Refused(400, "The length of the body is no number.", length[:40], "Leave it out.")


def token_missing() -> Refused:
    """The refusal of what needs the token."""
    return Refused(
        401, "This request needs the token.", "Only who started the server may do it.",
        "Open the whole address that `mien explore` printed, with what stands after #.",
    )  # fmt: skip


class BodyReader:
    """Receives a body, refusing at once what is larger than `limit` bytes or takes longer than BODY_SECONDS."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self.source, self.limit = receive, limit
        self.received, self.deadline = 0, time.monotonic() + BODY_SECONDS
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self.announced = int(length) if length.isdigit() and len(length) < 20 else 0
        self.unread = self.announced > 0 or b"transfer-encoding" in headers
        self.ended = False

    async def receive(self) -> Message:
        """The next message. Raises Refused."""
        too_large = Refused(413, "That is too large.", f"{self.limit:,} bytes are the most.", "Send a smaller one.")
        if self.announced > self.limit:
            raise too_large
        if self.ended:  # what comes now is only the end of the connection, and that may take its time
            return await self.source()
        try:
            message = await asyncio.wait_for(self.source(), max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            raise Refused(
                408, "The body takes too long.", f"{BODY_SECONDS:.0f} s are the most.", "Try again."
            ) from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)
            self.unread = not self.ended
            if self.received > self.limit:
                raise too_large
        return message


async def redirect(send: Send, path: bytes) -> None:
    """Send the browser to the same path with a slash at its end."""
    headers = [(b"location", b"./" + path.rpartition(b"/")[2] + b"/"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 308, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def respond(send: Send, error: Refused) -> None:
    """Send a refusal as JSON, and close the connection: what is left of the body is not read."""
    fields = {"code": error.status, "message": error.what, "why": error.why, "hint": error.hint}
    body = json.dumps({"error": fields}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
