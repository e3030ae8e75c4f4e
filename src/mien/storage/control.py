"""What a run is asked to do while it runs: save, pause, resume or stop, through a file in its directory.

A file, not a signal: it works across containers and restarts, it can only say one of four words, and whoever may write into
the run's directory may stop the run anyway.
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
WISHES = ("save", "pause", "resume", "stop")
LOOK = 0.25  # seconds between two looks at the file
SAVE, PAUSE, STOP = 1, 2, 75  # as numbers, so that processes agree on the largest


def ask(home: RunDirectory, wish: str) -> None:
    """Ask the process that owns a run. Raises UsageError for another word, DataError when nobody owns it."""
    if wish not in WISHES:
        raise UsageError(f"`{wish[:40]}` is not possible.", "A run knows four words.", f"Say {', '.join(WISHES)}.")
    if owner(home) is None:
        raise DataError("This run is not running.", "No process owns it.", "Start it with `mien train --resume`.")
    home.write_json(NAME, {"wish": wish, "id": time.time_ns()})


def owner(home: RunDirectory) -> JSON | None:
    """The process that owns a run now, or None. Another machine's is believed; on this one it must be alive."""
    found = read_json(home.path / "owner.json")
    if found is None or found.get("host") != socket.gethostname() or os.name == "nt":
        return found
    try:
        os.kill(int(found["pid"]), 0)  # asks, and sends nothing
    except PermissionError:
        return found
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return None  # killed before it could tidy up
    return found


class Control:
    """The side of the run: reads the file, at most a few times a second. Who takes the run's lock removes an older one."""

    def __init__(self, home: RunDirectory) -> None:
        self.home, self.path = home, home.path / NAME
        self.looked = time.monotonic()
        self.handled: object = None

    def _read(self) -> JSON:
        return read_json(self.path) or {}

    def wish(self) -> str:
        """A wish that was not heard before, or nothing."""
        if time.monotonic() - self.looked < LOOK:
            return ""
        self.looked = time.monotonic()
        if not os.path.exists(self.path):  # noqa: PTH110 - a tenth of Path.exists, four times a second
            return ""
        said = self._read()
        if said.get("id") == self.handled:
            return ""
        self.handled = said.get("id")
        return str(said.get("wish", ""))

    def wait(self, leave: Callable[[], bool]) -> int:
        """Until a wish to resume or stop comes, or `leave` says so: STOP, or 0."""
        while not leave():
            said = self.wish()
            if said in ("resume", "stop"):
                return STOP if said == "stop" else 0
            time.sleep(LOOK / 2)
        return 0

    def code(self) -> int:
        """The wish as a number for the loop, 0 for none."""
        return {"save": SAVE, "pause": PAUSE, "stop": STOP}.get(self.wish(), 0)


__all__ = ["PAUSE", "SAVE", "STOP", "WISHES", "Control", "ask", "owner"]
