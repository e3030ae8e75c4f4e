"""The explorer as a process: a port, a token, deadlines for slow clients, and an end within seconds."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
import webbrowser
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mien.errors import UsageError
from mien.web.app import Explorer, application
from mien.web.registry import Registry
from mien.web.security import DIRECT, Access, Guard, Proxy

HEAD_SECONDS = 5.0  # from the connection, or the last answer, to a whole head
ANSWER_SECONDS = 30.0  # for a client to take the next piece of its answer
CONNECTIONS = 600
BACKLOG = 2048
FAREWELL = 5  # seconds that answers get once the server is to stop


class Deadlines(H11Protocol):
    """HTTP whose clients must send their heads in time, and take their answers: a byte now and then does not keep a connection."""

    timer: asyncio.TimerHandle | None = None
    stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        between = self.conn.their_state is h11.IDLE
        if between and self.conn.trailing_data[0]:  # a piece of a head
            self.timer = self.timer or self.loop.call_later(HEAD_SECONDS, self.transport.close)
        elif self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def pause_writing(self) -> None:
        """The client takes too little of its answer: the rest waits, for a while."""
        super().pause_writing()
        self.stalled = self.stalled or self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.timer, self.stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A server that tells its streams to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, explorer: Explorer) -> None:
        super().__init__(config)
        self.explorer = explorer

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.explorer.closing.set()
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # uvicorn would raise them again at the end: being stopped is no failure here


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket: at `port`, or at 8040 or the next free one. Raises UsageError when there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    fault = ""
    for candidate in [port] if port is not None else [*range(8040, 8060), 0]:
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: asyncio then sends at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(BACKLOG)  # who comes before the server is ready waits, and is not refused
            return listener
        except (OSError, OverflowError) as error:
            listener.close()
            fault = str(error)
    raise UsageError(f"{host}:{port} cannot be listened at.", fault, "Choose another --port, or leave it out.")


def build(
    listener: socket.socket, registry: Registry, host: str, token: str, proxy: Proxy = DIRECT
) -> tuple[Server, Explorer]:
    """A server around a listening socket."""
    access = Access.at(host, listener.getsockname()[1], token, proxy)
    guard: Guard
    guard, explorer = application(registry, access)
    config = uvicorn.Config(
        guard,
        http=Deadlines,
        ws="none",
        log_level="warning",
        access_log=False,  # privacy: what people look at is not logged
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=FAREWELL,
        h11_max_incomplete_event_size=64 << 10,
        lifespan="on",
    )
    return Server(config, explorer), explorer


def serve(registry: Registry, host: str, port: int | None, browser: bool, proxy: Proxy = DIRECT) -> str:
    """Serve until a signal says stop. Returns the address."""
    listener, token = bind(host, port), secrets.token_urlsafe(18)
    server, _ = build(listener, registry, host, token, proxy)
    address = own_address(host, listener)
    print(f"{proxy.address() or address}#token={token}", flush=True)
    behind = f" The reverse proxy passes requests on to {address}" if proxy.hosts else ""
    print(
        f"mien: the explorer is at this address; what stands after # lets it control runs.{behind} Ctrl-C ends it.",
        file=sys.stderr,
    )
    if browser and not proxy.hosts:
        webbrowser.open(f"{address}#token={token}")
    asyncio.run(server.serve(sockets=[listener]))
    return address


def own_address(host: str, listener: socket.socket) -> str:
    """The address of a listening socket, for a browser on this machine."""
    name = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    return f"http://{name}:{listener.getsockname()[1]}/"
