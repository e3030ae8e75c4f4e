"""Photographs that a visitor brings to train on: files in one folder of mien's cache, never decoded in this process."""

from __future__ import annotations

import secrets
from pathlib import Path

from mien.downloads.weights import cache_folder
from mien.errors import DataError, StorageError
from mien.storage import atomic

MAX_PHOTOGRAPHS = 5000
MAX_BYTES = 4 << 30
SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"RIFF": ".webp"}  # by the first bytes of a file


class PhotographSet:
    """A new folder for each set; names are numbers, so that no name from a request becomes a path."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.count = self.bytes = 0

    def add(self, content: bytes) -> int:
        """Store one photograph. Returns how many there are. Raises DataError for what is no photograph, or one too many."""
        suffix = next((suffix for magic, suffix in SUFFIXES.items() if content.startswith(magic)), None)
        if suffix is None:
            raise DataError("This file is no photograph.", "It is neither JPEG, PNG nor WebP.", "Choose another file.")
        if self.count >= MAX_PHOTOGRAPHS or self.bytes + len(content) > MAX_BYTES:
            raise DataError(
                "There are too many photographs.", f"A page takes {MAX_PHOTOGRAPHS:,}, of {MAX_BYTES >> 30} GB in all.",
                "Train on a folder with `mien train --data`.",
            )  # fmt: skip
        try:
            if self.folder is None:
                # the last name is a part of the run's, which people read
                self.folder = cache_folder() / "photographs" / secrets.token_hex(8) / "photographs"
                self.folder.parent.parent.mkdir(parents=True, exist_ok=True)
                self.folder.parent.mkdir(mode=0o700)
                self.folder.mkdir(mode=0o700)
            atomic.create_bytes(self.folder / f"{self.count:05d}{suffix}", content)
        except OSError as error:
            raise StorageError(
                "The photograph cannot be stored.", error.strerror or "The disk fails.", "Free some space."
            ) from error
        self.count, self.bytes = self.count + 1, self.bytes + len(content)
        return self.count

    def take(self) -> Path:
        """The folder, for a run; the next photograph begins a new set. Raises DataError if there is none."""
        if self.folder is None:
            raise DataError("There are no photographs yet.", "A run needs something to learn from.", "Choose some.")
        folder, self.folder, self.count, self.bytes = self.folder, None, 0, 0
        return folder
