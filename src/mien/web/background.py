"""The explorer from Python: a server in a thread, and its page inside a notebook."""

from __future__ import annotations

import asyncio
import atexit
import html
import importlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from mien.core.run import Device, Precision
from mien.errors import MienError, UsageError
from mien.web.registry import Registry, open_registry
from mien.web.security import Proxy

START_SECONDS = 30.0
END_SECONDS = 10.0
HEIGHT = 760  # pixels of the page inside a notebook


class RunningExplorer:
    """An explorer that serves until `close`, or until Python ends. In a notebook, it shows its page.

    `url` is its address, with the token that lets the page control runs.
    """

    def __init__(self, registry: Registry, port: int | None, proxy: Proxy, height: int) -> None:
        from mien.web.serve import bind, build, own_address

        listener, token = bind("127.0.0.1", port), secrets.token_urlsafe(18)
        proxy = behind(proxy, listener.getsockname()[1])
        self._server, self._explorer = build(listener, registry, "127.0.0.1", token, proxy)
        self._loop = asyncio.new_event_loop()
        self.height = height
        self.url = f"{proxy.address() or own_address('127.0.0.1', listener)}#token={token}"
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._server.serve(sockets=[listener])), daemon=True
        )
        self._thread.start()
        atexit.register(self.close)
        began = time.monotonic()
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() - began > START_SECONDS:
                raise MienError("The explorer does not start.", "Its server ended.", "Run `mien doctor`.")
            time.sleep(0.01)

    def close(self) -> None:
        """End the server. A run that was started from the page goes on."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._explorer.closing.set)
            self._server.should_exit = True
            self._thread.join(END_SECONDS)
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> RunningExplorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<mien explorer at {self.url}>" if self._thread.is_alive() else "<mien explorer, closed>"

    def _repr_html_(self) -> str:
        """In a notebook: the page, and a link to it."""
        if not self._thread.is_alive():
            return "<p>This explorer is closed.</p>"
        address = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{address}" title="mien explorer" width="100%" height="{self.height}" '
            'allow="clipboard-write; fullscreen" style="border: 0; border-radius: 8px"></iframe>'
            f'<p><a href="{address}" target="_blank" rel="noopener">Open the explorer in a tab of its own</a></p>'
        )


def explore(
    *runs: str | os.PathLike[str],
    port: int | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    code: Path | None = None,
    allow_host: Sequence[str] = (),
    base_path: str = "",
    height: int = HEIGHT,
) -> RunningExplorer:
    """Start the explorer and return at once; in a notebook, the page is shown below the cell.

    `runs` are as those of `mien explore`. `allow_host` and `base_path` say under which name and path a reverse proxy serves it; on
    Colab and, where its name is known, on a JupyterHub with jupyter-server-proxy, they are found. `height` is in pixels.
    """
    check_packages()
    registry = open_registry([os.fspath(run) for run in runs], code, device, precision)
    return RunningExplorer(registry, port, Proxy(hosts=tuple(allow_host), base_path=base_path, framed=True), height)


def check_packages() -> None:
    """Raises UsageError where the extra `web` is not installed."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UsageError(
            "The explorer needs two packages that are not installed.",
            "They are the extra `web`.",
            "pip install 'mien[web]'",
        )


def behind(proxy: Proxy, port: int) -> Proxy:
    """The proxy that this notebook's page is behind, if any: Colab's, or that of a JupyterHub."""
    if proxy.hosts:
        return proxy
    if "google.colab" in sys.modules:
        address = importlib.import_module("google.colab.output").eval_js(f"google.colab.kernel.proxyPort({port})")
        return Proxy(hosts=(urlsplit(str(address)).netloc,), framed=True)
    prefix, public = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", ""), os.environ.get("JUPYTERHUB_PUBLIC_URL", "")
    if prefix:
        if not urlsplit(public).netloc:
            raise UsageError(
                "The name of this JupyterHub is not known.", "The page is served under it, by jupyter-server-proxy.",
                "Name it: mien.explore(run, allow_host=['hub.example.org'], base_path='/user/me/proxy/8040', port=8040).",
            )  # fmt: skip
        path = proxy.base_path or f"{prefix.rstrip('/')}/proxy/{port}"
        return Proxy(hosts=(urlsplit(public).netloc,), base_path=path, framed=True)
    return proxy
