"""The explorer where people meet it elsewhere: behind a reverse proxy, and inside a notebook's page."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

import mien
from mien.errors import DataError, UsageError
from mien.web.background import behind
from mien.web.security import Proxy
from tests.conftest import write_model, write_pack
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served, serving, short_run

BASE = "/faces/of/mine"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return write_model("quick", root, write_pack(root / "blobs.pack"))


@contextmanager
def web_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A real server on a free port, while the block runs; it is given to `answer` before it serves."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def pass_on(request: BaseHTTPRequestHandler, port: int, path: str, **headers: str) -> None:
    """What a reverse proxy does: the same request to the server behind it, its answer as it comes."""
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {**{n: v for n, v in request.headers.items() if n.lower() != "connection"}, **headers}
    connection.request(request.command, path, body or None, sent)
    answer = connection.getresponse()
    request.send_response(answer.status)
    for name, value in answer.getheaders():
        if name.lower() not in ("transfer-encoding", "connection"):
            request.send_header(name, value)
    request.send_header("Connection", "close")
    request.end_headers()
    while piece := answer.read1(1 << 16):
        request.wfile.write(piece)
        request.wfile.flush()
    connection.close()


@contextmanager
def proxied(paths: list[Path], strips: bool, keeps_host: bool) -> Iterator[tuple[str, Served]]:
    """An explorer behind a reverse proxy that serves it below BASE: its origin for browsers."""
    behind_it: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        if not request.path.startswith(BASE):
            request.send_error(404)
            return
        host = {} if keeps_host else {"Host": f"127.0.0.1:{behind_it[0]}"}
        path = request.path.removeprefix(BASE) if strips else request.path
        pass_on(request, behind_it[0], path or "/", **host, **{"X-Forwarded-For": "192.0.2.9"})

    with web_server(answer) as port:
        name = f"faces.localhost:{port}"
        with serving(paths, proxy=Proxy(hosts=(name,), base_path=BASE)) as served:
            behind_it.append(served.port)
            yield f"http://{name}", served


@pytest.mark.parametrize(("strips", "keeps_host"), [(True, True), (False, True), (False, False)])
def test_the_page_behind_a_reverse_proxy(browser: Any, tmp_path: Path, strips: bool, keeps_host: bool) -> None:  # noqa: F811
    short_run("quick", write_pack(tmp_path / "blobs.pack").path, tmp_path / "runs" / "00000-quick")
    with proxied([tmp_path / "runs"], strips, keeps_host) as (origin, served):
        context = browser.new_context()
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{origin}{BASE}/#token={TOKEN}")
        page.wait_for_selector('#face[data-at][aria-busy="false"]', timeout=60_000)
        before = page.get_attribute("#face", "data-at")
        page.keyboard.press(" ")
        page.wait_for_selector(f'#face[aria-busy="false"]:not([data-at="{before}"])', timeout=60_000)
        page.click("#tab-training")  # its events are a stream
        page.wait_for_selector("#run-buttons:not([hidden])", timeout=60_000)
        page.wait_for_selector("#samples:not([hidden])", timeout=60_000)
        assert not faults and all(url.startswith((f"{origin}{BASE}/", "blob:", "data:")) for url in asked), asked
        page.goto("about:blank")
        page.goto(
            f"{origin}{BASE}" if not strips else f"{origin}{BASE}/"
        )  # the slash is added; the tab keeps its token
        page.wait_for_selector('#face[data-at][aria-busy="false"]', timeout=60_000)
        context.close()
        other = browser.new_context().new_page()
        other.goto(f"{origin}{BASE}/")
        other.wait_for_selector(".toast.fault")
        assert "token" in other.inner_text(".toast.fault")
        other.context.close()
        assert served.ask("/api/models")[0] == 401, "whoever comes to it directly needs the token too"


def test_an_open_explorer_does_not_serve_a_proxy_that_nobody_announced(model: Path) -> None:
    with serving([model]) as served:

        def answer(request: BaseHTTPRequestHandler) -> None:
            host = f"127.0.0.1:{served.port}"
            pass_on(request, served.port, request.path, Host=host, **{"X-Forwarded-For": "192.0.2.9"})

        assert served.ask("/api/models")[0] == 200
        with web_server(answer) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/api/models")
            response = connection.getresponse()
            assert response.status == 401 and "token" in json.loads(response.read())["error"]["message"]


def test_explore_returns_at_once_and_shows_its_page_in_a_notebook(browser: Any, model: Path) -> None:  # noqa: F811
    def notebook(request: BaseHTTPRequestHandler) -> None:
        frame = explorer if request.path == "/" else None
        content = (
            f"<!doctype html>{frame._repr_html_()}" if frame else f'<iframe src="{served.own}/" width="600"></iframe>'
        )
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.end_headers()
        request.wfile.write(content.encode())

    with mien.explore(model, device="cpu") as explorer, serving([model]) as served, web_server(notebook) as port:
        assert explorer.url.startswith("http://127.0.0.1:") and explorer.url in repr(explorer)
        page = browser.new_context().new_page()
        page.goto(f"http://localhost:{port}/")
        frame = page.frame_locator("iframe")
        frame.locator('#face[data-at][aria-busy="false"]').wait_for(timeout=60_000)
        frame.locator("#new").click()
        frame.locator("#undo:not([disabled])").wait_for(timeout=60_000)
        assert page.get_by_role("link", name="in a tab of its own").get_attribute("href") == explorer.url
        page.goto(f"http://localhost:{port}/refused")  # an explorer of the command line is in nobody's page
        page.wait_for_timeout(500)
        assert page.frame_locator("iframe").locator("#face").count() == 0
        page.context.close()
    assert "closed" in repr(explorer) and "closed" in explorer._repr_html_()
    explorer.close()  # twice is as good as once
    with pytest.raises(OSError):
        http.client.HTTPConnection("127.0.0.1", int(explorer.url.split(":")[2].split("/")[0]), timeout=5).request(
            "GET", "/"
        )


def test_what_holds_no_model_is_refused_in_python_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        mien.explore(tmp_path / "nothing" / "here")
    with pytest.raises(DataError, match="holds no model"):
        mien.explore(tmp_path)


def test_the_proxies_of_notebooks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert behind(Proxy(framed=True), 8040) == Proxy(framed=True)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    with pytest.raises(UsageError, match="name of this JupyterHub"):
        behind(Proxy(framed=True), 8040)
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://hub.example.org/user/me/")
    found = behind(Proxy(framed=True), 8040)
    assert found.address() == "https://hub.example.org/user/me/proxy/8040/" and found.framed
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    output = types.ModuleType("google.colab.output")
    address = {"google.colab.kernel.proxyPort(8040)": "https://x-8040-colab.googleusercontent.com/"}
    vars(output)["eval_js"] = address.__getitem__
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    assert behind(Proxy(framed=True), 8040).address() == "https://x-8040-colab.googleusercontent.com/"
    named = Proxy(hosts=("me.example",), framed=True)
    assert behind(named, 8040) == named
