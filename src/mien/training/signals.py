"""Signals: Ctrl-C means "interrupted, save and exit with 130", SIGTERM, SIGUSR1 and SIGHUP "preempted, save and exit with 75"."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mien.errors import Interrupted, Preempted

CODES = dict.fromkeys(("SIGTERM", "SIGUSR1", "SIGHUP"), Preempted.exit_code) | {"SIGINT": Interrupted.exit_code}


@contextmanager
def handled(receive: Callable[[int], None]) -> Iterator[None]:
    """Call `receive` with the exit code of every signal in CODES, and restore the old handlers afterwards."""
    old = {}
    for name in CODES:
        if name in signal.Signals.__members__:  # Windows has neither SIGUSR1 nor SIGHUP
            number = signal.Signals[name]
            if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:  # by nohup
                continue
            try:
                old[number] = signal.signal(number, lambda number, _: receive(CODES[signal.Signals(number).name]))
            except ValueError:  # not the main thread: the caller's program handles signals
                break
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def stop_now(code: int) -> None:
    """End what happens before the first step: data that are prepared go on from where they are at the next command."""
    kind = Interrupted if code == Interrupted.exit_code else Preempted
    raise kind(
        "Stopped before the first training step.",
        "The process received a signal.",
        "Run the same command again: nothing was lost.",
    )


class StopFlag:
    """A flag that the loop reads between two steps. A second signal exits at once, without saving."""

    def __init__(self) -> None:
        self.code = 0

    def receive(self, code: int) -> None:
        if self.code:
            os._exit(code)
        self.code = code


class ForwardedStops:
    """Sends the stops of this process on to a child, which saves its state; one that came before the child too."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.child: subprocess.Popen[str] | None = None

    def receive(self, code: int) -> None:
        self.codes.append(code)
        if self.child:
            self._send(self.child, code)

    def to(self, child: subprocess.Popen[str]) -> None:
        """Name the child, and send it what came before."""
        self.child = child
        for code in self.codes:
            self._send(child, code)

    @staticmethod
    def _send(child: subprocess.Popen[str], code: int) -> None:
        child.send_signal(signal.SIGINT if code == Interrupted.exit_code else signal.SIGTERM)
