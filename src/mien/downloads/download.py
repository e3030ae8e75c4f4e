"""Downloads one file over HTTP: with resume, timeouts and a checksum. The target name appears only when the file is complete.

The bytes go to `NAME.part`. `NAME.part.json` beside it records their version: a digest of the address, and the server's ETag
or Last-Modified. A resumed download requests only the rest of that version (Range with If-Range).
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from mien import __version__
from mien.downloads.connection import (
    RetryableError,
    RetryPolicy,
    content_range,
    describe_error,
    host,
    open_response,
    to_number,
    version_tag,
    web_page_error,
)
from mien.errors import DataError, Locked, StorageError, Untrusted
from mien.storage import bounded_json
from mien.storage.atomic import fsync, rename

BLOCK = 1 << 20  # bytes
PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)


def transfer(
    address: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    secret: Mapping[str, str] | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """Download `address` to `target`, continuing where an earlier try stopped.

    `secret` headers go to the first server only, never to the target of a redirect. Without `sha256`, an archive must be
    readable to its end. Raises DataError when the server does not deliver the file, Untrusted when it delivers a different
    file, StorageError for the disk, Locked when another process downloads the same file.
    """
    retry = retry or RetryPolicy()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"), timeout=0)
    try:
        with lock:
            if not target.exists():
                _receive_with_retries(address, part, size, dict(secret or {}), retry)
                verify(part, target.name, sha256, size)
                rename(part, target)
                _state_path(part).unlink(missing_ok=True)
            else:
                verify(target, target.name, sha256, size, keep=True)
    except filelock.Timeout:
        raise Locked(
            f"{target.name} is being downloaded by another process.",
            f"It holds the lock {lock.lock_file}.",
            "Wait until it ends, or choose another folder with --out.",
        ) from None
    return target


def verify(file: Path, name: str, sha256: str | None, size: int | None, *, keep: bool = False) -> None:
    """Raise Untrusted when the file does not match `sha256` and `size`; delete it unless `keep`."""
    why = ""
    if size is not None and file.stat().st_size != size:
        why = f"It has {file.stat().st_size} bytes, but {size} are expected."
    elif sha256 is None:
        why = _archive_error(file, name)
    else:
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != sha256.lower():
            why = f"Its SHA-256 is {actual[:16]}…, but {sha256[:16].lower()}… is expected."
    if not why:
        return
    if not keep:
        file.unlink()
        _state_path(file).unlink(missing_ok=True)
    remedy = (
        f"Delete {file} and fetch it again."
        if keep
        else "It was deleted. Fetch it again, or give another address with --url."
    )
    raise Untrusted(f"{name} is not the expected file.", why, remedy)


def _archive_error(file: Path, name: str) -> str:
    """Why an archive cannot be read to its end, or an empty string. Used where no checksum is known."""
    try:
        with file.open("rb") as stream:
            if PAGE.match(stream.read(512)):
                return "It is a web page."
        if name.endswith(".zip"):
            zipfile.ZipFile(file).close()  # the directory is at the end of the file
        elif name.endswith((".gz", ".tgz")):
            with gzip.open(file) as packed:
                while packed.read(BLOCK):
                    pass
        elif not file.stat().st_size:
            return "It is empty."
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        return f"It cannot be read to its end: {error}."
    return ""


def _receive_with_retries(
    address: str, part: Path, size: int | None, secret: dict[str, str], retry: RetryPolicy
) -> None:
    """Retry until `part` is complete, or until `attempts` tries in a row brought no new bytes."""
    failures, furthest = 0, _length(part)
    while True:
        try:
            _receive(address, part, size, secret, retry)
            return
        except RetryableError as reason:
            # Bytes that arrive too slowly do not count as progress: otherwise a very slow server would never time out.
            failures = 1 if _length(part) > furthest and not reason.slow else failures + 1
            furthest = max(furthest, _length(part))
            if failures >= retry.attempts:
                remedy = (
                    f"{_length(part)} bytes are saved: run the same command again to resume." if _length(part) else ""
                )
                raise DataError(
                    f"{host(address)} did not deliver {part.stem}.",
                    f"{reason}, {failures} times in a row.",
                    remedy or "Try again later, or give another address with --url.",
                ) from reason
            time.sleep(min(max(retry.pause * 2 ** (failures - 1), reason.pause), retry.longest_pause))


def _receive(address: str, part: Path, size: int | None, secret: dict[str, str], retry: RetryPolicy) -> None:
    """One request: append the rest to `part`, or restart it. Raises RetryableError for a temporary failure, else MienError."""
    state = _read_state(part, address)
    start = _length(part) if state else 0
    request = urllib.request.Request(
        address, headers={"User-Agent": f"mien/{__version__}", "Accept-Encoding": "identity"}
    )
    for name, value in secret.items():
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", state["version"])
    with open_response(request, part, start, retry) as response:
        headers = response.headers
        if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise web_page_error(address, part.stem)
        total = to_number(headers.get("Content-Length"))
        if response.status == 206:
            first, end = content_range(headers.get("Content-Range", ""))
            if first != start or (size or end) != end:
                part.unlink()  # the server resumed at another offset than requested: start again
                raise RetryableError("the server resumed at another offset than requested")
            total = end
        else:
            part.unlink(missing_ok=True)  # before the state file, so that old bytes never pair with a new version
            start = 0
        if total is not None and size is not None and total != size:
            raise DataError(
                f"{host(address)} offers a file of another size than {part.stem}.",
                f"It announces {total} bytes, but {size} are expected.",
                "The file may have moved or changed: give its address with --url.",
            )
        _require_space(part, (total or size or 0) - start)
        version = version_tag(headers)
        _state_path(part).write_text(
            json.dumps({"address": _address_digest(address), "version": version}) if version else "{}", encoding="utf-8"
        )
        received = _write(response, part, start, total, address, retry)
    if total is not None and received != total:
        raise RetryableError(f"the connection ended at {received} of {total} bytes")


def _write(response: Any, part: Path, start: int, total: int | None, address: str, retry: RetryPolicy) -> int:
    """Truncate `part` to `start` bytes and append the body. Returns the new length."""
    received = start
    with _storage_errors(part), part.open("ab") as file:
        file.truncate(start)
        with tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None, leave=False
        ) as bar:
            since, then = received, time.monotonic()
            while True:
                try:
                    block = response.read1(BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise RetryableError(
                        f"the connection broke at {received} bytes: {describe_error(error)}"
                    ) from error
                if received == 0 and PAGE.match(block):
                    raise web_page_error(address, part.stem)
                if not block:
                    break
                received += len(block)
                if total is not None and received > total:
                    raise RetryableError("the server sent more bytes than it announced")
                file.write(block)
                bar.update(len(block))
                if (elapsed := time.monotonic() - then) > retry.window:
                    if received - since < retry.slowest * elapsed:
                        raise RetryableError(
                            f"the server sent {received - since} bytes in {elapsed:.0f} seconds", slow=True
                        )
                    since, then = received, time.monotonic()
        file.flush()
        fsync(file.fileno())
    return received


@contextmanager
def _storage_errors(part: Path) -> Iterator[None]:
    """Turn an OSError of the file system into a StorageError. Network failures are RetryableError before they get here."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{part.stem} could not be written.",
            f"{part.parent}: {error.strerror or error}.",
            "Free space or choose another folder with --out; then run the same command again to resume.",
        ) from error


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise StorageError(
            f"There is not enough disk space for {part.stem}.",
            f"{needed} more bytes are needed, but {part.parent} has {free}.",
            "Free space or choose another folder with --out.",
        )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, address: str) -> dict[str, str]:
    """The recorded version of `part`, or an empty dict: then the download cannot be resumed."""
    try:
        state = bounded_json.read_object(_state_path(part), 1 << 20)
    except (OSError, ValueError):
        return {}
    known = state.get("address") == _address_digest(address) and isinstance(state.get("version"), str)
    return state if known else {}


def _address_digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()  # addresses may hold signed tokens, so only a digest is written
