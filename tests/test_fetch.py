"""Downloads against a small server on this machine that injects one fault at a time."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mien.__main__ import main
from mien.downloads import connection
from mien.downloads import datasets as table
from mien.downloads import download as transfers
from mien.downloads.connection import RetryPolicy
from mien.downloads.download import transfer
from mien.errors import DataError, Locked, MienError, StorageError, Untrusted, UsageError

QUICK = RetryPolicy(timeout=0.5, attempts=3, pause=0.01, longest_pause=0.2, slowest=50_000, window=0.4)


def archive() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0)
    with zipfile.ZipFile(buffer, "w") as opened:
        for index in range(4):
            opened.writestr(f"{index}.bin", noise.bytes(100_000))
    return buffer.getvalue()


BODY = archive()
HALF = len(BODY) // 2
SHA256 = hashlib.sha256(BODY).hexdigest()


class Reply:
    """One request, and the means to answer it well or badly."""

    def __init__(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        self.handler, self.number = handler, number  # the number of the request, from 1
        asked = handler.headers.get("Range")
        self.start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.if_range = handler.headers.get("If-Range")

    def head(self, status: int, **headers: object) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), str(value))
        self.handler.end_headers()

    def whole(self, body: bytes = BODY, *, stop: int | None = None, tag: str = '"one"', ranges: bool = True) -> None:
        """Serve `body`, or its rest when that is asked of the same version; break off after `stop` bytes of it."""
        if self.start and ranges and self.if_range == tag:
            span = f"bytes {self.start}-{len(body) - 1}/{len(body)}"
            self.head(206, Content_Length=len(body) - self.start, Content_Range=span, ETag=tag)
            self.send(body[self.start : stop])
        else:
            self.head(200, Content_Length=len(body), ETag=tag)
            self.send(body[:stop])

    def send(self, content: bytes) -> None:
        try:
            self.handler.wfile.write(content)
            self.handler.wfile.flush()
        except OSError:
            return  # the client has hung up, as it should on some faults


class Server:
    """Answers with `script`, and remembers what was asked."""

    def __init__(self) -> None:
        self.script: Callable[[Reply], None] = lambda reply: reply.whole()
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append({"path": self.path, **dict(self.headers.items())})
                self.close_connection = True
                outer.script(Reply(self, len(outer.asked)))

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/faces.zip"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def redirect(location: str) -> Callable[[Reply], None]:
    return lambda reply: reply.head(302, Location=location, Content_Length=0)


def status(code: int, **headers: object) -> Callable[[Reply], None]:
    return lambda reply: reply.head(code, Content_Length=0, **headers)


def drip(reply: Reply) -> None:
    reply.head(200, Content_Length=len(BODY), ETag='"one"')
    for index in range(200):
        reply.send(BODY[index : index + 1])
        time.sleep(0.02)


def stall(reply: Reply) -> None:
    reply.head(200, Content_Length=len(BODY), ETag='"one"')
    reply.send(BODY[:HALF])
    time.sleep(1.2)


def page(kind: str) -> Callable[[Reply], None]:
    def answer(reply: Reply) -> None:
        body = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
        reply.head(200, Content_Length=len(body), Content_Type=kind)
        reply.send(body)

    return answer


def too_short_a_length(reply: Reply) -> None:
    reply.head(200, Content_Length=HALF, ETag='"one"')
    reply.send(BODY)


def no_length_and_cut(reply: Reply) -> None:
    reply.head(200)
    reply.send(BODY[:HALF])


def cut_chunks(reply: Reply) -> None:
    reply.head(200, Transfer_Encoding="chunked")
    reply.send(b"%x\r\n" % HALF + BODY[:HALF] + b"\r\n")


def wrong_place(reply: Reply) -> None:
    if not reply.start:
        reply.whole(stop=HALF)
        return
    reply.head(206, Content_Length=HALF, Content_Range=f"bytes 0-{HALF - 1}/{len(BODY)}", ETag='"one"')
    reply.send(BODY[:HALF])


class Fault(NamedTuple):
    script: Callable[[Reply], None]
    error: type[MienError]
    says: str
    requests: int


ATTEMPTS = QUICK.attempts
FAULTS: dict[str, Fault] = {
    "the connection is always cut": Fault(lambda r: r.whole(stop=HALF), DataError, f"ended at {HALF} of", ATTEMPTS),
    "cut, and no resuming": Fault(lambda r: r.whole(stop=HALF, ranges=False), DataError, "ended at", ATTEMPTS),
    "the rest begins elsewhere": Fault(wrong_place, DataError, "times in a row", ATTEMPTS),
    "wrong checksum": Fault(lambda r: r.whole(BODY[:-1] + b"!"), Untrusted, "SHA-256", 1),
    "a login page": Fault(page("text/html; charset=utf-8"), DataError, "web page", 1),
    "a login page that says it is a file": Fault(page("application/zip"), DataError, "web page", 1),
    "a length that is too short": Fault(too_short_a_length, Untrusted, "SHA-256", 1),
    "no length, and cut": Fault(no_length_and_cut, Untrusted, "SHA-256", 1),
    "cut between chunks": Fault(cut_chunks, DataError, "broke at", ATTEMPTS),
    "a redirect loop": Fault(redirect("/faces.zip"), DataError, "loop", 0),
    "a redirect to another protocol": Fault(redirect("ftp://127.0.0.1/faces.zip"), DataError, "ftp://", 1),
    "a redirect to a local file": Fault(redirect("file:///etc/passwd"), DataError, "another protocol", 1),
    "not allowed": Fault(status(403), DataError, "403", 1),
    "login required": Fault(status(401, WWW_Authenticate="Basic"), DataError, "login", 1),
    "not there": Fault(status(404), DataError, "404", 1),
    "the server fails": Fault(status(500), DataError, "500", ATTEMPTS),
    "too many requests": Fault(status(429, Retry_After=0), DataError, "429", ATTEMPTS),
    "silence": Fault(lambda r: time.sleep(1.2), DataError, "no answer in time", ATTEMPTS),
    "silence in the middle": Fault(stall, DataError, "no answer in time", ATTEMPTS),
    "a drip": Fault(drip, DataError, "bytes in", ATTEMPTS),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_has_a_clear_outcome(kind: str, server: Server, tmp_path: Path) -> None:
    fault, target = FAULTS[kind], tmp_path / "faces.zip"
    server.script = fault.script
    begun = time.monotonic()
    with pytest.raises(fault.error) as raised:
        transfer(server.address, target, sha256=SHA256, retry=QUICK)
    assert time.monotonic() - begun < 10
    assert not target.exists(), "a piece must never have the name of the whole"
    assert fault.says in str(raised.value)
    assert all((raised.value.what, raised.value.why, raised.value.remedy))
    if fault.requests:
        assert len(server.asked) == fault.requests
    # The server recovers: the same call now succeeds, whatever the fault left behind.
    server.script = lambda reply: reply.whole()
    assert transfer(server.address, target, sha256=SHA256, retry=QUICK).read_bytes() == BODY
    assert not list(tmp_path.glob("*.part*"))


def test_at_least_twelve_faults_are_injected() -> None:
    assert len(FAULTS) >= 12


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.script = lambda reply: reply.whole(stop=HALF) if reply.number == 1 else reply.whole()
    assert transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK).read_bytes() == BODY
    assert server.asked[1]["Range"] == f"bytes={HALF}-" and server.asked[1]["If-Range"] == '"one"'


def test_steady_small_progress_is_not_given_up(server: Server, tmp_path: Path) -> None:
    step = len(BODY) // 20
    server.script = lambda reply: reply.whole(stop=(reply.start or 0) + step)
    assert transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK).read_bytes() == BODY
    assert len(server.asked) > 20


def test_a_changed_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    newer = BODY[::-1]
    server.script = lambda reply: reply.whole(stop=HALF) if reply.number == 1 else reply.whole(newer, tag='"two"')
    digest = hashlib.sha256(newer).hexdigest()
    assert transfer(server.address, tmp_path / "faces.bin", sha256=digest, retry=QUICK).read_bytes() == newer


def test_a_piece_of_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.script = lambda reply: reply.whole(stop=HALF)
    with pytest.raises(DataError):
        transfer(server.address + "?old", tmp_path / "faces.zip", retry=QUICK)
    server.script = lambda reply: reply.whole()
    transfer(server.address, tmp_path / "faces.zip", retry=QUICK)
    assert "Range" not in server.asked[-1]


def test_a_piece_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    server.script = lambda reply: reply.whole(stop=HALF)
    with pytest.raises(DataError):
        transfer(server.address, tmp_path / "faces.zip", retry=QUICK)
    with (tmp_path / "faces.zip.part").open("ab") as piece:
        piece.write(bytes(len(BODY)))

    def answer(reply: Reply) -> None:
        if reply.start >= len(BODY):
            reply.head(416, Content_Length=0, Content_Range=f"bytes */{len(BODY)}")
        else:
            reply.whole()

    server.script = answer
    assert transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK).read_bytes() == BODY


def test_the_server_may_ask_for_a_pause(server: Server, tmp_path: Path) -> None:
    server.script = lambda reply: reply.whole() if reply.number > 1 else status(429, Retry_After=3600)(reply)
    begun = time.monotonic()
    transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK)
    assert 0.2 <= time.monotonic() - begun < 5  # as long as it asks, but never longer than `longest_pause`


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/faces.zip"
    with pytest.raises(DataError, match="cannot be reached"):
        transfer(address, tmp_path / "faces.zip", retry=QUICK)
    with pytest.raises(DataError, match="cannot be reached"):
        transfer("http://name.invalid/faces.zip", tmp_path / "faces.zip", retry=QUICK)


def test_the_announced_size_must_be_the_known_one(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="announces"):
        transfer(server.address, tmp_path / "faces.zip", size=len(BODY) + 1, retry=QUICK)
    assert not (tmp_path / "faces.zip.part").exists()


@pytest.mark.parametrize("kind", ["cut archive", "page", "empty", "cut gzip"])
def test_without_a_checksum_the_archive_must_read_to_its_end(kind: str, server: Server, tmp_path: Path) -> None:
    import gzip

    bodies = {
        "cut archive": BODY[:-50],
        "page": b"<html>log in",
        "empty": b"",
        "cut gzip": gzip.compress(BODY)[:-50],
    }
    name = "faces.tgz" if kind == "cut gzip" else "faces.zip"
    server.script = lambda reply: reply.whole(bodies[kind])
    with pytest.raises((Untrusted, DataError)):
        transfer(server.address, tmp_path / name, retry=QUICK)
    assert not (tmp_path / name).exists()
    server.script = lambda reply: reply.whole(gzip.compress(BODY) if kind == "cut gzip" else BODY)
    transfer(server.address, tmp_path / name, retry=QUICK)


def test_a_full_disk_keeps_the_piece(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match="not enough disk space"):
        transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK)
    monkeypatch.undo()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfers, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as raised:
        transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK)
    assert raised.value.exit_code == 6 and not (tmp_path / "faces.zip").exists()
    monkeypatch.undo()
    assert transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK).read_bytes() == BODY


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_download_is_continued(server: Server, tmp_path: Path) -> None:
    def slow(reply: Reply) -> None:
        reply.head(200, Content_Length=len(BODY), ETag='"one"')
        for begin in range(0, len(BODY), 20_000):
            reply.send(BODY[begin : begin + 20_000])
            time.sleep(0.05)

    server.script = slow
    code = (
        "import sys; from pathlib import Path; from mien.downloads.download import transfer;"
        "transfer(sys.argv[1], Path(sys.argv[2]))"
    )
    target = tmp_path / "faces.zip"
    child = subprocess.Popen([sys.executable, "-c", code, server.address, str(target)])
    piece = tmp_path / "faces.zip.part"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (piece.exists() and piece.stat().st_size > 40_000):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = piece.stat().st_size
    assert 0 < kept < len(BODY) and not target.exists()
    server.script = lambda reply: reply.whole()
    assert transfer(server.address, target, sha256=SHA256, retry=QUICK).read_bytes() == BODY
    assert server.asked[-1]["Range"] == f"bytes={kept}-"


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    import filelock

    with filelock.FileLock(tmp_path / ".faces.zip.lock"), pytest.raises(Locked):
        transfer(server.address, tmp_path / "faces.zip", retry=QUICK)


def test_a_whole_file_is_not_fetched_again_and_a_wrong_one_not_taken(server: Server, tmp_path: Path) -> None:
    target = transfer(server.address, tmp_path / "faces.zip", sha256=SHA256, retry=QUICK)
    transfer(server.address, target, sha256=SHA256, retry=QUICK)
    assert len(server.asked) == 1
    target.write_bytes(BODY[:-1])
    with pytest.raises(Untrusted, match="Delete"):
        transfer(server.address, target, sha256=SHA256, retry=QUICK)
    assert target.exists()  # it is the user's: named, not deleted


def test_credentials_stay_with_the_first_server(server: Server, tmp_path: Path) -> None:
    other = Server()
    try:
        server.script = redirect(other.address)
        transfer(server.address, tmp_path / "faces.zip", secret={"Authorization": "Bearer key"}, retry=QUICK)
    finally:
        other.http.shutdown()
        other.http.server_close()
    assert server.asked[0]["Authorization"] == "Bearer key"
    assert "Authorization" not in other.asked[0]


@pytest.mark.parametrize(
    "from_, to, followed",
    [("https", "https", True), ("http", "https", True), ("http", "http", True), ("https", "http", False),
     ("http", "file", False), ("https", "ftp", False)],
)  # fmt: skip
def test_a_redirect_never_leaves_encryption(from_: str, to: str, followed: bool) -> None:
    request = urllib.request.Request(f"{from_}://a.example/faces.zip")
    handler, headers = connection.RedirectHandler(), http.client.HTTPMessage()
    target = f"{to}://b.example/faces.zip"
    if followed:
        further = handler.redirect_request(request, io.BytesIO(), 302, "Found", headers, target)
        assert further is not None and further.full_url == target
    else:
        with pytest.raises(DataError, match="another protocol"):
            handler.redirect_request(request, io.BytesIO(), 302, "Found", headers, target)


def test_nothing_secret_is_written_down(server: Server, tmp_path: Path) -> None:
    server.script = lambda reply: reply.whole(stop=HALF)
    with pytest.raises(DataError) as raised:
        transfer(
            server.address + "?token=hush",
            tmp_path / "faces.zip",
            secret={"Authorization": "Bearer hush"},
            retry=QUICK,
        )
    written = (tmp_path / "faces.zip.part.json").read_text()
    assert "hush" not in written and "hush" not in str(raised.value)


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "kaggle"
    folder.mkdir()
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
    return folder


def test_credentials_come_from_the_environment_or_kaggles_file(
    no_credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table.kaggle_credentials() == {}
    file = no_credentials / "kaggle.json"
    file.write_text(json.dumps({"username": "ada", "key": "secret"}))
    expected = {"Authorization": "Basic " + base64.b64encode(b"ada:secret").decode()}
    assert table.kaggle_credentials() == expected
    (no_credentials / ".git").mkdir()
    with pytest.raises(DataError, match="work tree"):
        table.kaggle_credentials()
    (no_credentials / ".git").rmdir()
    file.write_text('{"username": "ada", "key": hush}')
    with pytest.raises(DataError) as raised:
        table.kaggle_credentials()
    assert "hush" not in str(raised.value)
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert table.kaggle_credentials() == expected
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    assert table.kaggle_credentials() == {"Authorization": "Bearer token"}


def test_an_address_with_a_password_is_refused(tmp_path: Path) -> None:
    for address in (
        "http://ada:secret@127.0.0.1/a.zip",
        "ftp://127.0.0.1/a.zip",
        "file:///etc/passwd",
        "faces.zip",
        "http://[",
    ):
        with pytest.raises(UsageError) as raised:
            table.fetch("lfw", tmp_path, accept_licence=True, address=address)
        assert "secret" not in str(raised.value)


def test_every_data_set_says_its_terms() -> None:
    for name, entry in table.DATA_SETS.items():
        assert entry.address.startswith("https://") and entry.page.startswith("https://")
        assert len(entry.licence) > 10 and entry.file.endswith((".zip", ".tgz"))
        with pytest.raises(UsageError) as raised:
            table.fetch(name, accept_licence=False)
        assert entry.licence in raised.value.why and "--accept-licence" in raised.value.remedy


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def mien(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: Any) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def test_the_verb_lists_asks_and_fetches(
    mien: Callable[..., Outcome], server: Server, tmp_path: Path, no_credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = mien("data", "fetch", "--json")
    names = [entry["name"] for entry in json.loads(listing.out)["data_sets"]]
    assert "celeba" in names and listing.code == 0
    asked = mien("data", "fetch", "celeba")
    assert asked.code == 2 and "non-commercial" in asked.err and not server.asked
    assert mien("data", "fetch", "celebra").err.count("\n") == 3
    fetched = mien("data", "fetch", "celeba", "--accept-licence", "--url", server.address, "--out", tmp_path, "--json")
    assert fetched.code == 0 and Path(json.loads(fetched.out)["path"]).read_bytes() == BODY
    again = mien("data", "fetch", "celeba", "--accept-licence", "--url", server.address, "--out", tmp_path)
    assert again.code == 0 and "mien data prepare" in again.out and len(server.asked) == 1
    (tmp_path / "faces.zip").unlink()
    server.script = page("text/html")
    refused = mien("data", "fetch", "celeba", "--accept-licence", "--url", server.address, "--out", tmp_path)
    assert refused.code == 3 and refused.err.count("\n") == 3 and "Traceback" not in refused.err


def test_the_verb_keeps_a_weights_file_that_is_given(mien: Callable[..., Outcome], tmp_path: Path) -> None:
    wrong = tmp_path / "yunet.onnx"
    wrong.write_bytes(b"no")
    assert mien("data", "fetch", "weights:yunet", "--file", wrong).code == 8
    assert mien("data", "fetch", "weights:yunet", "--file", tmp_path / "none").code == 3
    assert mien("data", "fetch", "weights:yunnet").code == 2
    assert mien("data", "fetch", "weights:yunet", "--out", tmp_path).code == 2
    assert mien("data", "fetch", "lfw", "--file", wrong).code == 2
