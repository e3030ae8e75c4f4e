"""One file over HTTP: resumable, bounded in time, checked, and under its own name only when it is whole.

The bytes go to `NAME.part`. `NAME.part.json` beside it says which version they belong to: a digest of the address, and
the server's mark (ETag or Last-Modified). Another try asks for the rest of that version only (Range with If-Range).
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import filelock
from tqdm import tqdm

from mien import __version__
from mien.errors import DataError, Locked, MienError, StorageError, Untrusted
from mien.storage import bounded_json
from mien.storage.atomic import fsync, rename

BLOCK = 1 << 20  # bytes
PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a slow or failing server is borne with."""

    timeout: float = 30.0  # seconds for one answer or block
    attempts: int = 5  # tries in a row that bring no new byte
    pause: float = 1.0  # seconds before the second of them, doubled every time
    longest_pause: float = 60.0  # seconds, also when the server asks for more
    slowest: float = 1000.0  # bytes a second, on the mean of one `window`
    window: float = 60.0  # seconds


class Again(Exception):
    """A failure that may pass: the reason, the pause in seconds that the server asks for, whether it was only slow."""

    def __init__(self, reason: str, pause: float = 0.0, *, slow: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.slow = pause, slow


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the same protocol or from HTTP to HTTPS: no page leads to a file or strips encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in schemes:
            raise _elsewhere(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(
    address: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    secret: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download `address` to `target`, continuing where an earlier try stopped.

    `secret` headers go to the first server only, never to one that it redirects to. Without `sha256`, an archive must
    read to its end. Raises DataError when the server does not give the file, Untrusted when it gives another,
    StorageError for the disk, Locked when another process is at it.
    """
    patience = patience or Patience()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"), timeout=0)
    try:
        with lock:
            if not target.exists():
                _receive_all(address, part, size, dict(secret or {}), patience)
                verify(part, target.name, sha256, size)
                rename(part, target)
                _note(part).unlink(missing_ok=True)
            else:
                verify(target, target.name, sha256, size, keep=True)
    except filelock.Timeout:
        raise Locked(
            f"{target.name} is being downloaded by another process.",
            f"It holds the lock {lock.lock_file}.",
            "Wait for it, or choose another folder with --out.",
        ) from None
    return target


def verify(file: Path, name: str, sha256: str | None, size: int | None, *, keep: bool = False) -> None:
    """Raise Untrusted, and delete the file unless `keep`, when it is not the one that `sha256` and `size` describe."""
    why = ""
    if size is not None and file.stat().st_size != size:
        why = f"It has {file.stat().st_size} bytes, and {size} are expected."
    elif sha256 is None:
        why = _flaw(file, name)
    else:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256.lower():
            why = f"Its SHA-256 is {found[:16]}…, and {sha256[:16].lower()}… is expected."
    if not why:
        return
    if not keep:
        file.unlink()
        _note(file).unlink(missing_ok=True)
    remedy = (
        f"Delete {file} and fetch it again."
        if keep
        else "It was deleted. Fetch it again, or give another address with --url."
    )
    raise Untrusted(f"{name} is not the file it should be.", why, remedy)


def host(address: str) -> str:
    """The server of an address, without what else an address may carry: users, passwords, signed tokens."""
    return urlsplit(address).hostname or address[:40]


def _flaw(file: Path, name: str) -> str:
    """Why an archive does not read to its end, or nothing: the check where no checksum is known."""
    try:
        with file.open("rb") as stream:
            if PAGE.match(stream.read(512)):
                return "It is a web page."
        if name.endswith(".zip"):
            zipfile.ZipFile(file).close()  # its directory stands at the end
        elif name.endswith((".gz", ".tgz")):
            with gzip.open(file) as packed:
                while packed.read(BLOCK):
                    pass
        elif not file.stat().st_size:
            return "It is empty."
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        return f"It does not read to its end: {error}."
    return ""


def _receive_all(address: str, part: Path, size: int | None, secret: dict[str, str], patience: Patience) -> None:
    """Try until `part` is whole, or until `attempts` tries in a row brought nothing new."""
    failures, furthest = 0, _length(part)
    while True:
        try:
            _receive(address, part, size, secret, patience)
            return
        except Again as reason:
            # Bytes that came too slowly are no progress: a drip would otherwise go on for ever.
            failures = 1 if _length(part) > furthest and not reason.slow else failures + 1
            furthest = max(furthest, _length(part))
            if failures >= patience.attempts:
                kept = f"{_length(part)} bytes are saved: the same command resumes there." if _length(part) else ""
                raise DataError(
                    f"{host(address)} did not deliver {part.stem}.",
                    f"{reason}, {failures} times in a row.",
                    kept or "Try again later, or give another address with --url.",
                ) from reason
            time.sleep(min(max(patience.pause * 2 ** (failures - 1), reason.pause), patience.longest_pause))


def _receive(address: str, part: Path, size: int | None, secret: dict[str, str], patience: Patience) -> None:
    """One request: append the rest to `part`, or begin it anew. Raises Again for what may pass, MienError otherwise."""
    note = _read_note(part, address)
    start = _length(part) if note else 0
    request = urllib.request.Request(
        address, headers={"User-Agent": f"mien/{__version__}", "Accept-Encoding": "identity"}
    )
    for name, value in secret.items():
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", note["mark"])
    with _open(request, part, start, patience) as response:
        headers = response.headers
        if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise _page(address, part.stem)
        total = _number(headers.get("Content-Length"))
        if response.status == 206:
            first, end = _range(headers.get("Content-Range", ""))
            if first != start or (size or end) != end:
                part.unlink()  # the server resumed at another offset than requested: start again
                raise Again("the server resumed at another offset than requested")
            total = end
        else:
            part.unlink(missing_ok=True)  # before the note, so that no old bytes ever stand beside a new mark
            start = 0
        if total is not None and size is not None and total != size:
            raise DataError(
                f"{host(address)} offers another file than {part.stem}.",
                f"It announces {total} bytes, and {size} are expected.",
                "The file may have moved or changed: give its address with --url.",
            )
        _require_space(part, (total or size or 0) - start)
        mark = _mark(headers)
        _note(part).write_text(
            json.dumps({"address": _digest(address), "mark": mark}) if mark else "{}", encoding="utf-8"
        )
        received = _write(response, part, start, total, address, patience)
    if total is not None and received != total:
        raise Again(f"the connection ended at {received} of {total} bytes")


def _open(request: urllib.request.Request, part: Path, start: int, patience: Patience) -> Any:
    """The server's answer, 200 or 206."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Redirects(),
    ):  # no handler for file:, ftp: or data:
        opener.add_handler(handler)
    try:
        return opener.open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, request.full_url, part, start) from error
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, request.full_url) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(error, request.full_url) from error


def _write(response: Any, part: Path, start: int, total: int | None, address: str, patience: Patience) -> int:
    """Append the body to `part`, cut to `start` bytes first. Returns the length reached."""
    received = start
    with _writing(part), part.open("ab") as file:
        file.truncate(start)
        with tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None, leave=False
        ) as bar:
            since, then = received, time.monotonic()
            while True:
                try:
                    block = response.read1(BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise Again(f"the connection broke at {received} bytes: {_say(error)}") from error
                if received == 0 and PAGE.match(block):
                    raise _page(address, part.stem)
                if not block:
                    break
                received += len(block)
                if total is not None and received > total:
                    raise Again("the server sent more bytes than it announced")
                file.write(block)
                bar.update(len(block))
                if (elapsed := time.monotonic() - then) > patience.window:
                    if received - since < patience.slowest * elapsed:
                        raise Again(f"the server sent {received - since} bytes in {elapsed:.0f} seconds", slow=True)
                    since, then = received, time.monotonic()
        file.flush()
        fsync(file.fileno())
    return received


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Turn what the file system refuses into a StorageError. Network failures became Again before they get here."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{part.stem} could not be written.",
            f"{part.parent}: {error.strerror or error}.",
            "Free space or choose another folder with --out; the same command goes on from there.",
        ) from error


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise StorageError(
            f"There is no room for {part.stem}.",
            f"{needed} more bytes are needed, and {part.parent} has {free}.",
            "Free space or choose another folder with --out.",
        )


def _refusal(error: urllib.error.HTTPError, address: str, part: Path, start: int) -> Exception:
    """What an HTTP status means for the user."""
    server, name = host(address), part.stem
    if error.code == 416:
        part.unlink(missing_ok=True)
        return Again("the server does not know the rest of the file")
    if error.code in (401, 403):
        return DataError(
            f"{server} does not give {name} to this request (HTTP {error.code}).",
            "It needs a login, or its licence accepted on its own page.",
            "`mien data fetch` without a name shows where each data set is and which credentials it takes.",
        )
    if error.code in (408, 425, 429) or error.code >= 500:
        pause = _number(error.headers.get("Retry-After")) or 0
        return Again(f"the server answered HTTP {error.code} {error.reason}", pause)
    if 300 <= error.code < 400 and "loop" not in str(error.msg):
        return _elsewhere(address, error.headers.get("Location", "nowhere"))
    if 300 <= error.code < 400:
        return DataError(
            f"{server} sends the download in circles.", f"HTTP {error.code}, redirected again and again.", "Try --url."
        )
    return DataError(
        f"{server} does not have {name} (HTTP {error.code} {error.reason}).",
        "The file has moved or the address is wrong.",
        "Give its address with --url.",
    )


def _elsewhere(address: str, target: str) -> DataError:
    return DataError(
        f"{host(address)} sends the download elsewhere.",
        f"It redirects to {target.split(':')[0]}://, which is not followed.",
        "Give the file's final address with --url.",
    )


def _unreachable(reason: Any, address: str) -> Exception:
    if isinstance(reason, MienError):
        return reason
    if isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError | http.client.InvalidURL | ValueError):
        return DataError(
            f"{host(address)} cannot be reached.", f"{_say(reason)}.", "Check the network and the address."
        )
    return Again(f"the server cannot be reached: {_say(reason)}")


def _page(address: str, name: str) -> DataError:
    return DataError(
        f"{host(address)} sent a web page instead of {name}.",
        "It asks for a login, a confirmation or a payment.",
        "Open the address in a browser, download the file there, and prepare it from where it lies.",
    )


def _say(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return str(reason) or type(reason).__name__


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, address: str) -> dict[str, str]:
    """What is known of the version that `part` is a piece of, or nothing: then it cannot be continued."""
    try:
        note = bounded_json.read_object(_note(part), 1 << 20)
    except (OSError, ValueError):
        return {}
    known = note.get("address") == _digest(address) and isinstance(note.get("mark"), str)
    return note if known else {}


def _mark(headers: http.client.HTTPMessage) -> str:
    """What names this version of the file: a strong ETag, else the date of change, else nothing."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()  # addresses may be signed: they are not written down


def _range(header: str) -> tuple[int, int]:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", header.strip())
    return (int(found[1]), int(found[3])) if found else (-1, -1)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None
