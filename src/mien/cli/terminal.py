"""A command and its surroundings: signals that end it, and a terminal or a pipe that goes away before it does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP")  # Windows has the first alone


class Stopped(BaseException):
    """A signal has ended the command. No `except Exception` may catch it on its way to the files that must be removed."""


@contextmanager
def stops() -> Iterator[None]:
    """Raise Stopped at a signal, so that temporary files and worker processes go as they do at an error.

    A second signal ends the process at once. What has its own way to stop, as training, replaces these handlers meanwhile.
    Signals that are ignored, as by nohup, or that the program around mien handles, stay as they are.
    """
    process = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != process:  # a fork: it has nothing to tidy
            os.kill(os.getpid(), number)
        raise Stopped

    mine = []
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread
                signal.signal(number, stop)
                mine.append(number)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


class Messages:
    """A text stream for messages, whose reader may leave: `mien train 2>&1 | head` trains on, and says nothing more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop what nobody reads."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_messages() -> Iterator[None]:
    """Until the end of the block, a lost terminal or a closed pipe behind stderr is no error, nor is a process without stderr."""
    stream = sys.stderr
    if None in (sys.stdin, sys.stdout, stream):  # `2>&-`: no file of ours may get a number that native code writes to
        while os.open(os.devnull, os.O_RDWR) <= 2:
            pass
    sys.stderr = Messages(stream or Path(os.devnull).open("w"))  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr = stream
