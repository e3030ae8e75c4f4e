"""The control file of a run: requests to save, pause, resume, stop or step it while it runs.

A file rather than a signal, because it works across containers and restarts. It can only contain one of seven words, and
whoever may write into the run's directory could stop the run anyway.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection

from mien.core.contracts import JSON
from mien.errors import DataError, UsageError
from mien.storage.run_directory import RunDirectory, read_json

NAME = "control.json"
#: Requests for one step of a run that pauses before and after it, and who moves in it.
STEPS = {"step": "all", "step-critic": "critic", "step-generator": "generator"}
REQUESTS = ("save", "pause", "resume", "stop", *STEPS)
POLL = 0.25  # seconds between two reads of the file
SAVE, PAUSE, STOP = 1, 2, 75  # as numbers, so that all ranks follow the largest


def send(home: RunDirectory, request: str) -> None:
    """Send a request to the process that trains a run.

    Raises UsageError for another word, DataError if no process trains it or it has no such player.
    """
    if request not in REQUESTS:
        raise UsageError(
            f"`{request[:40]}` is not a request that a run understands.",
            f"There are {len(REQUESTS)} of them.",
            f"Use {', '.join(REQUESTS)}.",
        )
    if owner(home) is None:
        raise DataError("This run is not running.", "No process trains it.", "Start it with `mien train --resume RUN`.")
    if STEPS.get(request, "all") not in ("all", *players(home)):
        raise DataError("This run has no critic.", "Its networks learn together.", "Ask for a whole step.")
    home.write_json(NAME, {"request": request, "id": time.time_ns()})


def players(home: RunDirectory) -> list[str]:
    """Who can move alone in a run, as its process has written it: `critic` and `generator`, or nobody."""
    found = home.status.get("players")
    return [name for name in STEPS.values() if isinstance(found, list) and name in found]


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
        self.pending = ""  # for the next pause; it came during a step

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

    def wait(self, leave: Callable[[], bool], players: Collection[str]) -> str:
        """Wait for a request to resume, to stop, or for a step that one of the players can make; empty once `leave()` is true."""
        possible = {"resume", "stop", *(request for request, player in STEPS.items() if player in ("all", *players))}
        request, self.pending = self.pending, ""
        while not leave():
            if request in possible:
                return request
            time.sleep(POLL / 2)
            request = self.request()
        return ""

    def code(self) -> int:
        """The request as a number for the loop; 0 for none. A step is for a run that pauses: `wait` returns it then."""
        request = self.request()
        if request:
            self.pending = request if request in ("resume", *STEPS) else ""
        return {"save": SAVE, "pause": PAUSE, "stop": STOP, **dict.fromkeys(STEPS, PAUSE)}.get(request, 0)


__all__ = ["PAUSE", "REQUESTS", "SAVE", "STEPS", "STOP", "Control", "owner", "players", "send"]
