"""Keeps training running when a picture or log cannot be written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mien.errors import MienError
from mien.storage.run_directory import RunDirectory


class BestEffort:
    """Turns write errors of pictures and logs into one warning per kind and a count in status.json."""

    def __init__(self, run_dir: Path) -> None:
        self.directory = RunDirectory(run_dir)
        self.counts: dict[str, int] = {}

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        try:
            yield
        except (OSError, MienError) as error:
            if kind not in self.counts:
                print(f"mien: {kind} cannot be written, training goes on: {error}", file=sys.stderr)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            with suppress(OSError):  # the same disk
                known = self.directory.status.get("warnings", {})
                self.directory.update_status(warnings={**known, **self.counts})
