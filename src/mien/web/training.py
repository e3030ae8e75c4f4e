"""Training runs that the page starts: processes of their own, which outlive the explorer."""

from __future__ import annotations

import os
import subprocess
import sys

from mien.errors import DataError, Locked
from mien.web.registry import ShownRun


class Training:
    """At most one run at a time is started from here."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, minutes: float) -> None:
        """Teach the quick preset the built-in drawn faces."""
        self._spawn(["train", "quick", "--minutes", f"{minutes:g}", "--resume", "never"])

    def resume(self, run: ShownRun) -> None:
        """Go on with a run that was stopped, with the command that started it."""
        described = run.home.run_json or {}
        words = str(described.get("command", "")).split(" ")
        if words[:1] != ["train"] or any(word.startswith(("--out", "--resume")) for word in words) or not plain(words):
            raise DataError(
                "This run cannot be resumed from here.", "Its command cannot be repeated as it was written down.",
                "Run the same command again where it was started.",
            )  # fmt: skip
        self._spawn([*words, "--resume", str(run.path)])

    def _spawn(self, words: list[str]) -> None:
        if self.child is not None and self.child.poll() is None:
            raise Locked("A run is being trained already.", "One at a time is started from here.", "Stop it, or wait.")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "mien", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name != "nt",
        )


def plain(words: list[str]) -> bool:
    """Whether a command that was joined by spaces can only have been these words."""
    return all(words) and not any(character in word for word in words for character in "'\"\\*?$`\t\n")
