"""A shard: the results of some images that were decoded together. Its file exists until the pack is complete."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mien.storage import bounded_json
from mien.storage.atomic import replacing
from mien.storage.regular_file import open_regular

if TYPE_CHECKING:
    from mien.data.pack import Images

OUTCOME = ("positions", "geometry", "sizes", "outside", "hashes", "signatures", "refused", "notes", "jpeg")


@dataclass(frozen=True)
class Shard:
    """The results of one shard, in the order of its names."""

    side: int
    pixels: list[bytes] = field(default_factory=list)  # of the accepted images, one after another
    positions: list[int] = field(default_factory=list)  # of the accepted images in the shard
    geometry: list[str] = field(default_factory=list)  # of each accepted image, as are the next four
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of the upright source, in pixels
    outside: list[float] = field(default_factory=list)  # share outside the source, for `face`; empty for other crops
    hashes: list[str] = field(
        default_factory=list
    )  # SHA-256 of the pixels, for exact duplicates; empty without the search for duplicates
    signatures: list[str] = field(default_factory=list)  # for near-duplicates; empty likewise
    refused: list[tuple[int, str]] = field(default_factory=list)  # position and reason
    notes: dict[str, int] = field(default_factory=dict)  # how often each conversion was needed
    jpeg: dict[str, int] = field(default_factory=dict)  # how many accepted images were compressed in each way

    @property
    def images(self) -> Images:
        """`[accepted, side, side, 3]`."""
        import numpy as np  # workers do not import numpy and start faster

        return np.frombuffer(b"".join(self.pixels), dtype=np.uint8).reshape(-1, self.side, self.side, 3)

    def save(self, path: Path) -> None:
        """Write a line of JSON with a checksum, then the pixels. The write is atomic: a killed process leaves no partial shard."""
        outcome = {key: getattr(self, key) for key in OUTCOME}
        checksum = 0
        for row in self.pixels:
            checksum = zlib.crc32(row, checksum)
        with (
            replacing(path, durable=False) as temporary,
            temporary.open("wb") as file,
        ):  # fsync would cost 2% of the rate
            file.write(json.dumps({**outcome, "side": self.side, "crc32": checksum}).encode() + b"\n")
            file.writelines(self.pixels)

    @classmethod
    def load(cls, path: Path, pixels: bool = True) -> Shard:
        """Read a shard, with or without its pixels."""
        with open_regular(path) as file:
            outcome = bounded_json.loads_object(file.readline(bounded_json.MAX_BYTES))
            del outcome["crc32"]
            return cls(pixels=[file.read()] if pixels else [], **outcome)


def is_whole(path: Path) -> bool:
    """Whether a shard exists and matches its checksum. A power cut can damage it, although a kill cannot."""
    try:
        with open_regular(path) as file:
            return bool(
                bounded_json.loads_object(file.readline(bounded_json.MAX_BYTES))["crc32"] == zlib.crc32(file.read())
            )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}"
