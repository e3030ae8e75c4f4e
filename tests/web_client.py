"""An explorer in a thread of the test, and a client that says exactly what it is told to say."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien import presets
from mien.core.run import override
from mien.training.experiment import train
from mien.web.app import Explorer
from mien.web.registry import Registry
from mien.web.security import DIRECT, Proxy
from mien.web.serve import bind, build
from tests.conftest import tiny


def short_run(preset: str, pack: Path, out: Path) -> None:
    """A real run of a tiny preset, with three checkpoints and grids of samples."""
    changes = {"images": 48, "save_every": 16, "sample_every": 16, "device": "cpu"}
    train(override(tiny(presets.PRESETS[preset]), changes), data=pack, out=out)


TOKEN = "the-token-of-the-test"


@dataclass
class Served:
    """A running explorer."""

    port: int
    explorer: Explorer

    @property
    def own(self) -> str:
        """The origin of its own page."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(headers or {}):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body is not None:
                connection.send(body)
            response = connection.getresponse()
            return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def json(self, path: str, **more: Any) -> Any:
        """The JSON of a request that succeeds."""
        status, body, _ = self.ask(path, **more)
        assert status in (200, 202), (status, body[:400])
        return json.loads(body)

    def post(self, path: str, value: Any, token: bool = False, **headers: str) -> tuple[int, Any]:
        """A POST of JSON as the page sends it."""
        extra = {"Authorization": f"Bearer {TOKEN}"} if token else {}
        status, body, _ = self.ask(path, "POST", json.dumps(value).encode(), {"Origin": self.own, **extra, **headers})
        return status, json.loads(body) if body[:1] in (b"{", b"[") else body


@contextmanager
def serving(paths: Sequence[Path], host: str = "127.0.0.1", port: int = 0, proxy: Proxy = DIRECT) -> Iterator[Served]:
    """An explorer of some runs or files, while the block runs."""
    registry = Registry(paths, device="cpu")
    registry.refresh()
    listener = bind("127.0.0.1", port)
    port = listener.getsockname()[1]
    ready = threading.Event()
    kept: list[Any] = []

    def run() -> None:
        async def main() -> None:
            server, explorer = build(listener, registry, host, TOKEN, proxy)
            kept.extend([server, explorer])
            ready.set()
            await server.serve(sockets=[listener])

        asyncio.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    server, explorer = kept
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Served(port, explorer)
    finally:
        explorer.closing.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not stop"


def save_walk(page: Any, path: Path, frames: int) -> None:
    """Film a walk in the page's own browser, and save it in the format of the path."""
    page.click("#tab-walk")
    page.click("#walk-fill")
    page.fill("#frames", str(frames))
    page.select_option("#format", "apng" if path.suffix == ".png" else path.suffix[1:])
    with page.expect_download() as waited:
        page.click("#export")
    waited.value.save_as(path)
