"""Packs on a server: the same rows as on a disk, whatever the server does, within a cache of bounded size."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from mien.__main__ import main
from mien.data import remote_pack
from mien.data.loader import Loader
from mien.data.open_pack import open_pack
from mien.data.pack import Pack
from mien.data.pack_shape import BLOCKS
from mien.data.remote_rows import RemoteRows
from mien.downloads import remote
from mien.errors import DataError, Mismatch, Untrusted, UsageError
from mien.storage.run_directory import RunDirectory
from tests.conftest import blobs, write_pack
from tests.test_parallel import environment
from tests.test_resume import has_namespaces

pytest.importorskip("aiohttp")
pytest.importorskip("s3fs")

Fault = Callable[["Handler", bytes, int], bool]  # whether it has answered; content that was requested, and its start


class Handler(BaseHTTPRequestHandler):
    """A static server that knows ranges, as S3 and the Hub do, with faults."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        """What the Hub says of files by name."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.list_files()

    def list_files(self) -> None:
        """What the Hub says of the files of a folder."""
        files = sorted((self.server.folder / "faces.pack").iterdir())
        rows = [
            {"type": "file", "path": f"faces.pack/{path.name}", "size": path.stat().st_size, "oid": "0" * 40}
            for path in files
        ]
        self.answer(200, json.dumps(rows).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/api/datasets/somebody/something/tree/"):
            self.list_files()
            return
        if self.path.startswith("/api/"):
            word = {
                "id": "somebody/something",
                "sha": "0" * 40,
                "private": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
            }
            self.answer(200, json.dumps(word).encode(), Content_Type="application/json")
            return
        name = self.path.partition("faces.pack/")[2] or self.path.removeprefix("/data/")  # as a hostile server would
        path = self.server.folder / "faces.pack" / name
        if not name or not path.is_file():
            self.answer(404, b"")
            return
        whole = path.read_bytes()
        wanted = self.headers.get("Range", "")
        start, stop = 0, len(whole)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(len(whole), int(last) + 1) if last else len(whole)
        content = whole[start:stop]
        self.server.sent[name] += len(content)
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults and name == self.server.of else None
        if fault is not None and fault(self, content, start):
            return
        place = {"Content_Range": f"bytes {start}-{start + len(content) - 1}/{len(whole)}"} if wanted else {}
        self.answer(206 if wanted else 200, content, ETag=f'"{len(whole)}"', **place)


class Server(ThreadingHTTPServer):
    """Serves `folder`/faces.pack. Each fault is used once, for the file `of`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.faults, self.of, self.lock = folder, list[Fault](), "images.npy", threading.Lock()
        self.sent: Counter[str] = Counter()
        self.address = f"http://127.0.0.1:{self.server_port}/data/faces.pack"

    def handle_error(self, *words: Any) -> None:
        pass  # a client that has hung up


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A pack of 400 labelled faces of 16 px, in 3 blocks of 170 rows at most."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    write_pack(tmp_path / "faces.pack", 400, 16, ("Smiling", "Male"))
    server = Server(tmp_path)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a reader would have waited."""
    found: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=found.append, monotonic=time.monotonic))
    return found


def test_rows_of_any_kind_are_those_of_the_disk(server: Server, tmp_path: Path) -> None:
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    assert isinstance(there.images, RemoteRows) and there.images.blocks == 3 and there.name == "faces.pack"
    assert (there.fingerprint, there.side, there.label_names) == (here.fingerprint, here.side, here.label_names)
    assert len(there) == len(here) and there.images.nbytes == here.images.nbytes and there.entries == here.entries
    assert here.labels is not None and there.labels is not None and np.array_equal(here.labels, there.labels)
    mask = np.arange(400) % 3 == 0
    for key in (0, -1, 399, np.int64(7), slice(None), slice(160, 350), slice(399, 0, -7), slice(5, 5), mask):
        assert np.array_equal(here.images[key], there.images[key])
    for rows in ([3, 399, 3, -400, 170], np.array([[1, 2], [300, 4]]), np.zeros(0, np.int64)):
        assert np.array_equal(here.images[np.asarray(rows)], there.images[rows])
    for outside in (400, -401, [0, 400]):
        with pytest.raises(IndexError):
            there.images[outside]
    there.images[0:2][:] = 0  # a copy, as the loader needs it
    assert np.array_equal(here.images[0:2], there.images[0:2])
    there.verify()


def test_every_block_is_fetched_once_while_the_cache_holds_all(server: Server, tmp_path: Path) -> None:
    pack = open_pack(server.address)
    server.sent.clear()
    for _ in range(3):
        assert len(pack.images[:]) == 400
    assert server.sent == {"images.npy": pack.images.nbytes}
    again = open_pack(server.address)  # another process
    server.sent.clear()
    assert len(again.images[:]) == 400 and not server.sent


def test_the_cache_is_bounded(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block of three fits: the rows are right all the same, and older packs make room."""
    old = tmp_path / "cache" / "remote" / "old.pack"
    old.mkdir(parents=True)
    (old / "images.cache").write_bytes(b"x" * 100_000)
    monkeypatch.setenv("MIEN_CACHE_GB", "0.0002")
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    assert not old.exists() and isinstance(there.images, RemoteRows) and there.images.slots == 1
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = rng.integers(0, 400, 64)
        assert np.array_equal(here.images[rows], there.images[rows])
    files = (tmp_path / "cache" / "remote").rglob("*")
    assert sum(remote_pack.on_disk(path) for path in files if path.is_file()) < 200_000 + 3 * 4096
    monkeypatch.setenv("MIEN_CACHE_GB", "0.000001")
    with pytest.raises(DataError, match="does not fit the cache"):
        open_pack(server.address)
    monkeypatch.setenv("MIEN_CACHE_GB", "many")
    with pytest.raises(UsageError, match="must be a number"):
        open_pack(server.address)


def test_a_cache_smaller_than_a_block_keeps_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_CACHE_GB", "0.00008")  # its index and labels need 0.00002, a block of 170 rows 0.00013
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    assert isinstance(there.images, RemoteRows) and there.images.slots == 0
    for _ in range(2):
        assert np.array_equal(here.images[:], there.images[:])
    there.verify()


def test_a_pack_that_is_read_is_not_removed_to_make_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index went, and its images took room that nobody counted any more."""
    pytest.importorskip("fcntl")
    first = open_pack(server.address)
    assert len(first.images[:]) == 400
    shutil.rmtree(tmp_path / "faces.pack")
    other = write_pack(tmp_path / "faces.pack", 400, 16, ("Smiling", "Male"), seed=7)
    monkeypatch.setenv("MIEN_CACHE_GB", "0.0005")
    second = open_pack(server.address)
    assert len(first.entries) == 400 and len(first.images[:]) == 400 and first.path != second.path
    assert isinstance(second.images, RemoteRows) and second.images.slots == 0  # what is left
    assert np.array_equal(second.images[:], other.images[:])
    assert isinstance(first.images, RemoteRows)
    first.images._file.close()  # as when its process ends
    third = open_pack(server.address)
    assert not first.path.exists() and isinstance(third.images, RemoteRows) and third.images.slots == 3


CACHES = """
import subprocess, sys
from mien.cli.file_errors import remedy_of
from mien.data.open_pack import open_pack
address, cache = sys.argv[1:]

def rows():
    try:
        pack = open_pack(address)
    except OSError as error:
        return f"{error.strerror}, {error.filename.startswith(cache)}, {remedy_of(error)}"
    total = sum(int(pack.images[[row, 399 - row]].sum()) for row in range(0, 400, 25))
    pack.images._file.close()
    return total

for size in ("140k", "4k"):  # enough for labels, index and a block of images of three; too little for labels and index
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", cache], check=True)
    print(rows())
    subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
    print(rows())
"""


def test_a_cache_on_a_disk_that_is_full_or_read_only(server: Server, tmp_path: Path) -> None:
    """Images that do not fit are fetched again; what must be kept and cannot be is named, with the way out."""
    if not has_namespaces(tmp_path):
        pytest.skip("this machine lets no user mount a tmpfs of its own (unshare -rm)")
    cache, here = tmp_path / "small", Pack.open(tmp_path / "faces.pack")
    cache.mkdir()
    line = ["unshare", "-rm", sys.executable, "-c", CACHES, server.address, str(cache)]
    settings = {**environment(), "MIEN_CACHE": str(cache)}
    done = subprocess.run(line, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = sum(int(here.images[[row, 399 - row]].sum()) for row in range(0, 400, 25))
    remedy = "True, It is in mien's cache: set MIEN_CACHE to a folder that can be written."
    full, locked = (f"{text}, {remedy}" for text in ("No space left on device", "Read-only file system"))
    assert done.stdout.splitlines() == [str(rows), locked, full, locked]


def test_a_damaged_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    assert np.array_equal(here.images[:], there.images[:])
    with (there.path / "images.cache").open("r+b") as file:
        file.seek(5)
        file.write(b"torn")
    (there.path / "labels.npy").write_bytes(b"torn")
    assert np.array_equal(here.images[:], there.images[:])
    again = open_pack(server.address)
    assert np.array_equal(again.labels, here.labels)  # type: ignore[arg-type]


def busy(handler: Handler, content: bytes, start: int) -> bool:
    handler.answer(503, b"busy")
    return True


def cut(handler: Handler, content: bytes, start: int) -> bool:
    """Half of what is announced, and then the connection ends."""
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/999999")
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.close()
    return True


def short(handler: Handler, content: bytes, start: int) -> bool:
    handler.answer(206, content[:-7], Content_Range=f"bytes {start}-{start + len(content) - 8}/999999")
    return True


def other_range(handler: Handler, content: bytes, start: int) -> bool:
    handler.answer(206, content, Content_Range=f"bytes {start + 1}-{start + len(content)}/999999")
    return True


def other_bytes(handler: Handler, content: bytes, start: int) -> bool:
    """The right range by its header, and not by its content."""
    handler.answer(206, content[1:] + b"x", Content_Range=f"bytes {start}-{start + len(content) - 1}/999999")
    return True


def slow(handler: Handler, content: bytes, start: int) -> bool:
    """No answer within the reader's patience."""
    time.sleep(1.0)
    return False


def too_long(handler: Handler, content: bytes, start: int) -> bool:
    """More bytes than the header of the range and the length say."""
    handler.answer(206, content, Content_Range=f"bytes {start}-{start + len(content) - 1}/999999")
    handler.wfile.write(b"more")
    return True


def larger(handler: Handler, content: bytes, start: int) -> bool:
    """A longer range than was requested."""
    handler.answer(206, content + b"more", Content_Range=f"bytes {start}-{start + len(content) + 3}/999999")
    return True


FAULTS = {"503": busy, "cut": cut, "short": short, "wrong range": other_range, "wrong bytes": other_bytes, "slow": slow}
HARMLESS = {"more than its length": too_long, "more than the range": larger}


def garbled(handler: Handler, content: bytes, start: int) -> bool:
    """An answer that is no HTTP: its length stands there twice."""
    handler.answer(206, content, content_length=str(len(content)))
    return True


FAULTS["garbled"] = garbled


def in_drops(seconds: float, drops: int) -> Fault:
    """The right bytes, in drops with pauses between them."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/999999")
        handler.end_headers()
        size = -(-len(content) // drops)
        for first in range(0, len(content), size):
            handler.wfile.write(content[first : first + size])
            time.sleep(seconds)
        return True

    return fault


def test_a_slow_line_is_no_fault_while_bytes_arrive(
    server: Server, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times as long as a silent server may take. At 10 kB/s no block of a pack came within 30 s."""
    impatient = remote.RetryPolicy(timeout=0.4)
    monkeypatch.setattr(remote.RemoteFolder, "of", lambda address: remote.RemoteFolder(address, impatient))
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    server.faults = [in_drops(0.1, 12)] * 3
    assert np.array_equal(here.images[:], there.images[:]) and not pauses and not server.faults
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(remote, "SLOWEST", 1e6)
    server.faults = [in_drops(0.1, 12)]  # slower than anything that ends
    assert np.array_equal(here.images[0], open_pack(server.address).images[0]) and pauses == [1.0]


@pytest.mark.parametrize(("header", "pause"), [("7", 7), ("0", 1), ("86400", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 1)])
def test_a_busy_server_says_when_to_come_back(header: str, pause: int, server: Server, pauses: list[float]) -> None:
    def later(handler: Handler, content: bytes, start: int) -> bool:
        handler.answer(503, b"busy", Retry_After=header)
        return True

    pack = open_pack(server.address)
    server.faults = [later]
    assert len(pack.images[:]) == 400 and pauses == [pause]


@pytest.mark.parametrize("status", [401, 403, 404, 416])
def test_an_answer_that_will_not_change_is_named_at_once(status: int, server: Server, pauses: list[float]) -> None:
    def refuse(handler: Handler, content: bytes, start: int) -> bool:
        handler.answer(status, b"no")
        return True

    pack = open_pack(server.address)
    server.faults = [refuse] * 9
    with pytest.raises(DataError, match=r"images\.npy cannot be read") as caught:
        pack.images[0]
    assert "1 of 8 attempts" in caught.value.why and not pauses
    server.faults = []
    assert pack.images[0].shape == (16, 16, 3)  # nothing wrong is kept


def test_labels_that_arrive_damaged_are_fetched_again(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.faults, server.of = [other_bytes, busy, other_bytes], "labels.npy"
    found, expected = open_pack(server.address).labels, Pack.open(tmp_path / "faces.pack").labels
    assert found is not None and expected is not None and np.array_equal(found, expected)


@pytest.mark.parametrize("name", [*FAULTS, *HARMLESS])
def test_a_fault_that_passes_changes_nothing(
    name: str, server: Server, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "slow":
        quick = remote.RetryPolicy(attempts=8, timeout=0.3)
        monkeypatch.setattr(remote.RemoteFolder, "of", lambda address: remote.RemoteFolder(address, quick))
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    server.faults = [{**FAULTS, **HARMLESS}[name]] * 3
    assert np.array_equal(here.images[:], there.images[:])
    if name != "more than its length":  # what is left of it may or may not spoil the next answer of the connection
        assert bool(pauses) == (name in FAULTS)
    assert not server.faults


def test_a_fault_that_stays_is_named(server: Server, pauses: list[float]) -> None:
    pack = open_pack(server.address)
    server.faults = [busy] * 99
    with pytest.raises(DataError, match=r"images\.npy cannot be read") as caught:
        pack.images[0]
    assert "8 of 8 attempts" in caught.value.why and "503" in caught.value.why
    assert pauses == [1, 2, 4, 8, 16, 32, 60]  # two minutes: a run outlives a server that starts anew
    server.faults = [other_bytes] * 99
    with pytest.raises(DataError) as caught:
        pack.images[0]
    assert "others than the manifest says" in caught.value.why


def test_a_server_without_ranges_is_named_at_once(server: Server, pauses: list[float]) -> None:
    def whole(handler: Handler, content: bytes, start: int) -> bool:
        handler.answer(200, b"x" * 500_000)
        return True

    server.faults, server.of = [whole] * 9, "labels.npy"
    with pytest.raises(DataError) as caught:
        open_pack(server.address)
    assert "ignores ranges" in caught.value.why and not pauses


def test_no_more_is_read_than_was_requested(server: Server, pauses: list[float]) -> None:
    """A server that sends without end: only the length of a block is taken, and the file of the manifest has a limit."""

    def flood(handler: Handler, content: bytes, start: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/999999")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(4000):
            handler.wfile.write(b"x" * 65536)
            sent.append(65536)
        return True

    sent: list[int] = []
    pack = open_pack(server.address)
    server.faults = [flood]
    assert pack.images[0].shape == (16, 16, 3)
    assert sum(sent) < 100_000_000  # 262 MB were on offer; buffers of sockets take some
    with pytest.raises(DataError, match="cannot be read") as caught:
        remote.RemoteFolder.of(server.address).read_all("index.csv", 100)
    assert "more than 100 bytes" in caught.value.why


def test_what_does_not_exist_is_named_at_once(server: Server, pauses: list[float]) -> None:
    with pytest.raises(DataError, match=r"pack\.json cannot be read"):
        open_pack(server.address.replace("faces.pack", "none.pack"))
    assert not pauses
    for wrong in ("https://me:secret@host/a.pack", "https://host/a.pack?X-Amz-Signature=1", "s3:///a"):
        with pytest.raises(UsageError, match="The address of a pack"):
            open_pack(wrong)


def test_a_certificate_that_nobody_vouches_for_is_named_at_once(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    line = ["openssl", "req", *words, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(line, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(DataError, match=r"pack\.json cannot be read") as caught:
        open_pack(server.address.replace("http://", "https://"))
    assert "certificate" in caught.value.why.lower() and "1 of 3 attempts" in caught.value.why and not pauses


def redirected(to: str) -> Fault:
    """A redirect to a folder at the same server, or elsewhere."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        handler.answer(302, b"", Location=f"{to}/{handler.path.rpartition('/')[2]}")
        return True

    return fault


def test_redirects_are_followed_and_loops_are_named(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    """A hub redirects to where its files lie. One that redirects in a circle is mended within minutes or not at all."""
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    server.faults = [redirected(server.address)] * 3
    assert np.array_equal(here.images[:], there.images[:]) and not pauses
    shutil.rmtree(tmp_path / "cache")
    server.faults = [redirected(server.address)] * 999
    with pytest.raises(DataError, match=r"images\.npy cannot be read"):
        open_pack(server.address).images[0]
    server.faults, server.of = [redirected("file:///etc")] * 999, "pack.json"
    with pytest.raises(DataError, match=r"pack\.json cannot be read"):
        open_pack(server.address)


def test_https_is_never_left(server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asked for HTTPS, and the answer came from a plain address."""
    folder = remote.RemoteFolder.of(server.address)
    there = remote.RemoteFolder("https" + folder.address.removeprefix("http"))
    plain = SimpleNamespace(open=lambda path, *rest, **named: folder._files.open(f"http{path[5:]}", *rest, **named))
    monkeypatch.setitem(vars(there), "_files", plain)
    with pytest.raises(DataError) as caught:
        there.read_all("pack.json", 10**6)
    assert "away from HTTPS" in caught.value.why and not pauses


def test_another_pack_under_the_same_name(
    server: Server, tmp_path: Path, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """While it is open its blocks are refused; opened anew it is another pack, and no run goes on with it unnoticed."""
    line = [*SMALL, "--data", server.address, "--out", str(tmp_path / "run"), "--side", "16"]
    assert main(["train", *line, "--images", "40"]) == 0
    there = open_pack(server.address)
    shutil.rmtree(tmp_path / "cache")
    first = open_pack(server.address)
    shutil.rmtree(tmp_path / "faces.pack")
    other = write_pack(tmp_path / "faces.pack", 400, 16, ("Smiling", "Male"), seed=7)
    assert other.fingerprint != there.fingerprint
    with pytest.raises(DataError) as caught:
        first.images[0]
    assert "others than the manifest says" in caught.value.why
    assert np.array_equal(open_pack(server.address).images[:], other.images[:])
    capsys.readouterr()
    assert main(["train", *line, "--images", "80"]) not in (0, 1)
    assert "mien: " in capsys.readouterr().err
    assert RunDirectory(tmp_path / "run").status["seen"] == 40


@pytest.mark.parametrize(
    "change",
    [
        {"side": 10**6},
        {"side": 17},
        {"count": 10**15},
        {"count": 401},
        {"blocks": {"rows": 0, "sha256": "0"}},
        {"blocks": {"rows": 10**9, "sha256": "0"}},
        {"blocks": {"rows": 170, "sha256": "0" * 64}},
        {"blocks": [1]},
        {"bytes": {"images.npy": -1}},
        {"bytes": {"../../x": 10}},
        {"label_names": ["Smiling"]},
        {"sha256": {"images.npy": "0", "labels.npy": "0", "index.csv": "0"}},
    ],
)
def test_a_manifest_that_lies_is_refused(change: dict[str, Any], server: Server, tmp_path: Path) -> None:
    path = tmp_path / "faces.pack" / "pack.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((Untrusted, Mismatch, DataError)):
        open_pack(server.address).verify()
    assert not list((tmp_path / "cache").rglob("x"))


def test_a_manifest_cannot_name_files_outside_of_its_pack(server: Server, tmp_path: Path) -> None:
    """A server would write, with right sums and sizes, wherever it wants."""
    (tmp_path / "faces.pack" / "owned.txt").write_text("owned")
    path = tmp_path / "faces.pack" / "pack.json"
    meta = json.loads(path.read_text())
    meta["sha256"]["../owned.txt"] = hashlib.sha256(b"owned").hexdigest()
    meta["bytes"]["../owned.txt"] = 5
    path.write_text(json.dumps(meta))
    with pytest.raises(Untrusted, match="damaged") as caught:
        open_pack(server.address)
    assert "owned.txt" in caught.value.why
    assert not list((tmp_path / "cache").rglob("owned.txt"))
    with pytest.raises(Untrusted, match="damaged"):  # nor one to read, on a disk
        Pack.open(tmp_path / "faces.pack")


def test_a_pack_without_sums_says_what_to_do(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "faces.pack" / "pack.json"
    meta = json.loads(path.read_text())
    del meta["blocks"]
    path.write_text(json.dumps(meta))
    with pytest.raises(Mismatch, match="cannot be read in place") as caught:
        open_pack(server.address)
    assert "mien data prepare" in caught.value.remedy
    assert Pack.open(tmp_path / "faces.pack").images.shape == (400, 16, 16, 3)  # from a disk it is read as before


def test_sums_of_blocks_do_not_depend_on_how_rows_came(tmp_path: Path) -> None:
    from mien.data.growing_array import GrowingArray

    rows, found = blobs(400, 16), []
    for name, size in (("a", 400), ("b", 7), ("c", 170), ("d", 1)):
        array = GrowingArray(tmp_path / f"{name}.npy", np.dtype(np.uint8), (16, 16, 3))
        for start in range(0, 400, size):
            array.append(rows[start : start + size])
        found.append((array.close(), bytes(array.sums)))
    assert len(set(found)) == 1 and len(found[0][1]) == 3 * 32 == 32 * -(-400 // 170)


def test_the_order_of_a_resumed_loader_is_that_of_the_disk(server: Server, tmp_path: Path) -> None:
    """Loaders of both packs, one of them begun in the middle of the second epoch."""
    here, there = Pack.open(tmp_path / "faces.pack"), open_pack(server.address)
    first = Loader(here, batch=32, seed=3, threads=0)
    batches = [next(first) for _ in range(20)]
    second = Loader(there, batch=32, seed=3, threads=2, position=32 * 15)
    for expected in batches[15:]:
        batch = next(second)
        assert (batch.images == expected.images).all() and (batch.labels == expected.labels).all()  # type: ignore[union-attr]
    second.close()


SMALL = (
    *("dcgan-2015", "--model.width", "4", "--recipe.critic.width", "4", "--model.latent", "8", "--batch", "8"),
    *("--precision", "fp64", "--threads", "1"),
)


def test_a_run_goes_from_disk_to_server_to_the_bit(
    server: Server, tmp_path: Path, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Begun on the disk and gone on over a server with faults, a run is what it would have been on the disk."""
    disk = str(tmp_path / "faces.pack")
    server.faults = [busy, cut, other_bytes, busy]
    for out, data, images in (("a", disk, 160), ("b", disk, 80), ("b", server.address, 160)):
        line = ["train", *SMALL, "--data", data, "--out", str(tmp_path / out), "--images", str(images)]
        assert main(line) == 0, capsys.readouterr().err
    one, two = (load_file(tmp_path / out / "checkpoints/0000000160/state.safetensors") for out in "ab")
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
    assert pauses


def test_the_verbs_of_data_take_an_address(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", server.address, "--size", "16", "--workers", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["usable"] == 400 and report["source"]["name"] == "faces.pack"
    assert Path("faces-check.png").is_file()
    line = ["data", "prepare", server.address, "men.pack", "--where", "Male=1", "--workers", "1"]
    assert main(line) == 0, capsys.readouterr().err
    made, labels = Pack.open(Path("men.pack")), Pack.open(tmp_path / "faces.pack").labels
    assert labels is not None and len(made) == int(labels[:, 1].sum())
    capsys.readouterr()
    path = tmp_path / "faces.pack" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (tmp_path / "cache" / "remote").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(remote, "PATIENT", remote.RetryPolicy(attempts=2, pause=0.0))
    monkeypatch.setattr(remote.RemoteFolder, "of", lambda address: remote.RemoteFolder(address, remote.PATIENT))
    assert main(["data", "info", server.address]) == DataError.exit_code
    assert "others than the manifest says" in capsys.readouterr().err


CODE = """
import sys
from mien.data.open_pack import open_pack
pack = open_pack(sys.argv[1])
pack.verify()
print(len(pack), pack.images[399].sum())
"""


@pytest.mark.parametrize("address", ["s3://data/faces.pack", "hf://datasets/somebody/something/faces.pack"])
def test_object_stores(address: str, server: Server, tmp_path: Path) -> None:
    """Through fsspec, with the endpoint that the environment names, as for a bucket of one's own."""
    host = server.address.removesuffix("/data/faces.pack")
    own = {"AWS_ENDPOINT_URL": host, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "HF_ENDPOINT": host}
    own |= {"AWS_DEFAULT_REGION": "us-east-1", "MIEN_CACHE": str(tmp_path / "other"), "HF_HOME": str(tmp_path / "hf")}
    server.faults = [busy, cut]
    done = subprocess.run(
        [sys.executable, "-c", CODE, address], env={**environment(), **own}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    here = Pack.open(tmp_path / "faces.pack")
    assert done.stdout.split() == ["400", str(here.images[399].sum())] and server.sent[BLOCKS] == 96
