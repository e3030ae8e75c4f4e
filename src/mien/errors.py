"""What can go wrong, and the exit code that says so.

    MienError                 1   our bug, unless a subclass says otherwise
    ├── UsageError            2   unknown verb, flag, preset or label; a side that a network cannot make
    ├── DataError             3   a path that is missing, empty or not a pack; too many files refused
    ├── DeviceError           4   no such device, or not enough memory
    ├── Diverged              5   a loss or gradient stayed non-finite after every retry
    ├── StorageError          6   a disk that is full, read-only or failing
    ├── Locked                7   another process owns the run
    ├── Untrusted             8   a file that does not parse or fails its checksum
    ├── Mismatch              9   a valid file that does not fit this version, run or data
    ├── Disconnected         10   another process of the same command has ended or cannot be reached
    └── Preempted            75   stopped by a signal, state saved: queue me again
    KeyboardInterrupt
    └── Interrupted         130   stopped from the keyboard, state saved

Every error has three parts: what happened, why, and what to do about it. Interrupted is not a MienError: `except Exception`
must not catch it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class Message:
    """The three parts of an error, and the exit code of a command that fails with it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(what, why, remedy)  # type: ignore[call-arg]  # of the exception class beside this one
        self.what, self.why, self.remedy = what, why, remedy

    def __str__(self) -> str:
        return f"{self.what}\n{self.why}\n{self.remedy}"


class MienError(Message, Exception):
    """An error for the user."""


class UsageError(MienError):
    exit_code = 2


class DataError(MienError):
    exit_code = 3


class DeviceError(MienError):
    exit_code = 4


class Diverged(MienError):
    exit_code = 5


class StorageError(MienError):
    exit_code = 6


class Locked(MienError):
    exit_code = 7


class Untrusted(MienError):
    exit_code = 8


class Mismatch(MienError):
    exit_code = 9


class Disconnected(MienError):
    exit_code = 10


class Preempted(MienError):
    exit_code = 75


class Interrupted(Message, KeyboardInterrupt):
    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the closest known ones, or all of them."""
    import difflib  # imported late: the workers of a preparation start faster without it

    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(known) > 40:
        return "Check the spelling."
    return f"Known: {', '.join(known)}." if known else "There are none."
