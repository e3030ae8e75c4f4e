"""Reads parts of files in a remote folder through fsspec: `https://`, `s3://` and `hf://`, bounded in bytes, with retries.

Only what was requested is held in memory. fsspec's own reads of HTTP take whatever a server sends, so here they are streams.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from mien.downloads.connection import RetryPolicy, content_range, describe_error, to_number
from mien.errors import DataError, UsageError

SCHEMES = ("https", "http", "s3", "hf")
PATIENT = RetryPolicy(attempts=8)  # of a block while a run trains: a server may be away for two minutes
BRIEF = RetryPolicy(attempts=3)  # of the first file: the address may be wrong
SLOWEST = 250.0  # bytes a second of one connection, on average; some sixteen share a line
BUSY = (408, 425, 429)  # HTTP statuses below 500 that go away


class WrongAnswer(Exception):
    """What a server sent instead of the bytes that were requested. Another try may succeed."""


def is_remote(source: object) -> bool:
    """Whether a source of data is an address: text, as a Path would lose one of its slashes."""
    return isinstance(source, str) and re.match(rf"({'|'.join(SCHEMES)})://", source) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on a server, without a slash at its end."""

    address: str
    retry: RetryPolicy = PATIENT

    @classmethod
    def of(cls, address: str) -> RemoteFolder:
        """The folder at an address. Raises UsageError for one that holds a password or a query."""
        parts = urlsplit(address)
        if parts.username or parts.password or parts.query or parts.fragment or not parts.netloc:
            raise UsageError(
                "The address of a pack is SCHEME://HOST/FOLDER.",
                "It has a password, a query, or no host; an address is stored in run.json.",
                "Credentials belong in ~/.netrc, the settings of AWS, or `hf auth login`.",
            )
        return cls(address.rstrip("/"))

    @property
    def scheme(self) -> str:
        return self.address.partition(":")[0]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.address.rpartition("/")[2]

    @cached_property
    def _files(self) -> Any:
        """The file system of fsspec. Raises UsageError where its packages are not installed."""
        seconds = self.retry.timeout
        try:
            import fsspec

            if self.scheme in ("http", "https"):
                import aiohttp

                patience = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
                settings: dict[str, Any] = {"timeout": patience, "trust_env": True}
                return fsspec.filesystem(self.scheme, client_kwargs=settings)
            if self.scheme == "s3":
                return fsspec.filesystem("s3", config_kwargs={"connect_timeout": seconds, "read_timeout": seconds})
            return fsspec.filesystem(self.scheme)
        except ImportError as error:
            raise UsageError(
                f"{self.scheme}:// cannot be read.", f"{error}.", "Install it: pip install 'mien[remote]'"
            ) from None

    def read(self, name: str, start: int, length: int, sha256: bytes | None = None) -> bytes:
        """Exactly these bytes of a file. Bytes with another SHA-256 are requested again."""

        def once() -> bytes:
            data = self._range(name, start, length)
            if len(data) != length:
                raise WrongAnswer(f"{len(data):,} of {length:,} bytes came")
            if sha256 is not None and hashlib.sha256(data).digest() != sha256:
                raise WrongAnswer("the bytes are others than the manifest says")
            return data

        return self._with_retries(name, once, self.retry)

    def read_all(self, name: str, most: int) -> bytes:
        """A whole file of at most `most` bytes."""

        def once() -> bytes:
            data = self._range(name, None, most + 1)
            if len(data) > most:
                raise ValueError(f"it has more than {most:,} bytes")
            return data

        return self._with_retries(name, once, BRIEF)

    def _range(self, name: str, start: int | None, length: int) -> bytes:
        """At most `length` bytes from `start`; without `start`, the beginning of the file."""
        path = f"{self.address}/{name}"
        if self.scheme not in ("http", "https"):
            options = {"cache_type": "none"} if self.scheme == "hf" else {}
            data: bytes = self._files.cat_file(path, start=start or 0, end=(start or 0) + length, **options)
            return data
        headers = {"Accept-Encoding": "identity"}
        if start is not None:
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        pieces, size, began = [], 0, time.monotonic()
        with self._files.open(path, "rb", block_size=0, size=1, headers=headers) as stream:  # a size: it need not ask
            answer = stream.r
            if self.scheme == "https" and answer.url.scheme != "https":
                raise ValueError("it is redirected away from HTTPS")
            if start is not None and answer.status != 206:
                raise ValueError("the server ignores ranges: it sends whole files only")
            if start is not None and content_range(answer.headers.get("Content-Range", ""))[0] != start:
                raise WrongAnswer("another range came")
            while size < length and (piece := stream.read(length - size)):
                pieces.append(piece)
                size += len(piece)
                if size < SLOWEST * (time.monotonic() - began - self.retry.timeout):
                    raise WrongAnswer(f"{size:,} of {length:,} bytes came in {time.monotonic() - began:.0f} s")
        return b"".join(pieces)

    def _with_retries(self, name: str, once: Callable[[], bytes], retry: RetryPolicy) -> bytes:
        """What `once` returns. Raises DataError if every attempt fails, or one in a way that will not change."""
        pause, requested, reason = retry.pause, 0, ""
        for attempt in range(retry.attempts):
            if attempt:
                time.sleep(min(max(pause, requested), retry.longest_pause))
                pause = min(2 * pause, retry.longest_pause)
            try:
                return once()
            except UsageError:
                raise
            except Exception as error:  # each file system has its own
                reason = describe_error(error)
                requested = to_number((getattr(error, "headers", None) or {}).get("Retry-After")) or 0
                if is_final(error):
                    break
        raise DataError(
            f"{self.address}/{name} cannot be read.",
            f"{attempt + 1} of {retry.attempts} attempts; the last: {reason[:300]}.",
            "Check the address, the network and the credentials. A run goes on with the same command.",
        )


def is_final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and error.__cause__ is None:  # a cause: aiohttp could not read the answer, and says 400
        return 400 <= status < 500 and status not in BUSY
    return isinstance(error, (FileNotFoundError, PermissionError, ValueError)) or "Credentials" in type(error).__name__
