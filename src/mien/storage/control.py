"""The control file of a run: requests to save, pause, resume or stop it while it runs.

A file rather than a signal, because it works across containers and restarts. It can only contain one of four words, and
whoever may write into the run's directory could stop the run anyway.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from mien.core.contracts import JSON
from mien.errors import DataError, UsageError
from mien.storage.run_directory import RunDirectory, read_json

NAME = "control.json"
REQUESTS = ("save", "pause", "resume", "stop")
POLL = 0.25  # seconds between two reads of the file
SAVE, PAUSE, STOP = 1, 2, 75  # as numbers, so that all ranks follow the largest


def send(home: RunDirectory, request: str) -> None:
    """Send a request to the process that trains a run. Raises UsageError for another word, DataError if no process does."""
    if request not in REQUESTS:
        raise UsageError(
            f"`{request[:40]}` is not a request that a run understands.",
            "There are four of them.",
            f"Use {', '.join(REQUESTS)}.",
        )
    if owner(home) is None:
        raise DataError("This run is not running.", "No process trains it.", "Start it with `mien train --resume RUN`.")
    home.write_json(NAME, {"request": request, "id": time.time_ns()})


def owner(home: RunDirectory) -> JSON | None:
    """The process that trains a run now, or None. On this machine it must be alive; another machine's entry is trusted."""
    found = read_json(home.path / "owner.json")
    if found is None or found.get("host") != socket.gethostname() or os.name == "nt":
        return found
    try:
        os.kill(int(found["pid"]), 0)  # signal 0 only tests whether the process exists
    except PermissionError:
        return found
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return None  # it was killed and left the file behind
    return found


class Control:
    """The reader in the training process: at most four reads a second. An older file is deleted when the run is locked."""

    def __init__(self, home: RunDirectory) -> None:
        self.home, self.path = home, home.path / NAME
        self.last_read = time.monotonic()
        self.handled: object = None

    def _read(self) -> JSON:
        return read_json(self.path) or {}

    def request(self) -> str:
        """A request that was not handled before, or the empty string."""
        if time.monotonic() - self.last_read < POLL:
            return ""
        self.last_read = time.monotonic()
        if not os.path.exists(self.path):  # noqa: PTH110 - a tenth of Path.exists, four times a second
            return ""
        content = self._read()
        if content.get("id") == self.handled:
            return ""
        self.handled = content.get("id")
        return str(content.get("request", ""))

    def wait(self, leave: Callable[[], bool]) -> int:
        """Wait for a request to resume (returns 0) or stop (returns STOP), or until `leave()` is true (returns 0)."""
        while not leave():
            request = self.request()
            if request in ("resume", "stop"):
                return STOP if request == "stop" else 0
            time.sleep(POLL / 2)
        return 0

    def code(self) -> int:
        """The request as a number for the loop; 0 for none."""
        return {"save": SAVE, "pause": PAUSE, "stop": STOP}.get(self.request(), 0)


__all__ = ["PAUSE", "REQUESTS", "SAVE", "STOP", "Control", "owner", "send"]
