"""The HTTP connection of a download: redirects, retries, and what each failure means for the user."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mien.errors import DataError, MienError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Timeouts and retries for a slow or failing server."""

    timeout: float = 30.0  # seconds for one response or block
    attempts: int = 5  # tries in a row without a new byte
    pause: float = 1.0  # seconds before the second try, doubled each time
    longest_pause: float = 60.0  # seconds, even when the server requests a longer pause
    slowest: float = 1000.0  # bytes a second, averaged over one `window`
    window: float = 60.0  # seconds


class RetryableError(Exception):
    """A temporary failure: its reason, the pause in seconds that the server requests, and whether the server was only slow."""

    def __init__(self, reason: str, pause: float = 0.0, *, slow: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.slow = pause, slow


class RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirects within one protocol or from HTTP to HTTPS, so never to file: and never away from encryption."""

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
            raise _redirect_error(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def host(address: str) -> str:
    """The host of an address, without user names, passwords or signed tokens."""
    return urlsplit(address).hostname or address[:40]


def open_response(request: urllib.request.Request, part: Path, start: int, retry: RetryPolicy) -> Any:
    """The server's response, status 200 or 206."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        RedirectHandler(),
    ):  # no handler for file:, ftp: or data:
        opener.add_handler(handler)
    try:
        return opener.open(request, timeout=retry.timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _status_error(error, request.full_url, part, start) from error
    except urllib.error.URLError as error:
        raise _connection_error(error.reason, request.full_url) from error
    except (OSError, http.client.HTTPException) as error:
        raise _connection_error(error, request.full_url) from error


def _status_error(error: urllib.error.HTTPError, address: str, part: Path, start: int) -> Exception:
    """The error for an HTTP status."""
    server, name = host(address), part.stem
    if error.code == 416:
        part.unlink(missing_ok=True)
        return RetryableError("the server cannot send the rest of the file")
    if error.code in (401, 403):
        return DataError(
            f"{server} refuses to send {name} (HTTP {error.code}).",
            "It needs a login, or a licence that you accept on its web page.",
            "`mien data fetch` without a name lists where each data set is and which credentials it needs.",
        )
    if error.code in (408, 425, 429) or error.code >= 500:
        pause = to_number(error.headers.get("Retry-After")) or 0
        return RetryableError(f"the server answered HTTP {error.code} {error.reason}", pause)
    if 300 <= error.code < 400 and "loop" not in str(error.msg):
        return _redirect_error(address, error.headers.get("Location", "nowhere"))
    if 300 <= error.code < 400:
        return DataError(
            f"{server} redirects in a loop.",
            f"HTTP {error.code}, too many redirects.",
            "Give the file's final address with --url.",
        )
    return DataError(
        f"{server} does not have {name} (HTTP {error.code} {error.reason}).",
        "The file has moved or the address is wrong.",
        "Give its address with --url.",
    )


def _redirect_error(address: str, target: str) -> DataError:
    return DataError(
        f"{host(address)} redirects the download to another protocol.",
        f"It redirects to {target.split(':')[0]}://; only HTTPS, or HTTP to HTTP or HTTPS, is followed.",
        "Give the file's final address with --url.",
    )


def _connection_error(reason: Any, address: str) -> Exception:
    if isinstance(reason, MienError):
        return reason
    if isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError | http.client.InvalidURL | ValueError):
        return DataError(
            f"{host(address)} cannot be reached.", f"{describe_error(reason)}.", "Check the network and the address."
        )
    return RetryableError(f"the server cannot be reached: {describe_error(reason)}")


def web_page_error(address: str, name: str) -> DataError:
    return DataError(
        f"{host(address)} sent a web page instead of {name}.",
        "The page may ask for a login, a confirmation or a payment.",
        "Open the address in a browser, download the file there, and prepare it from that path.",
    )


def describe_error(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return str(reason) or type(reason).__name__


def version_tag(headers: http.client.HTTPMessage) -> str:
    """The version of the file: a strong ETag, else Last-Modified, else an empty string."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def content_range(header: str) -> tuple[int, int]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", header.strip())
    return (int(match[1]), int(match[3])) if match else (-1, -1)


def to_number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None
