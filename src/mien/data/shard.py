"""A shard: what became of some images that were decoded together, in a file until the pack is complete."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mien.storage import bounded_json
from mien.storage.atomic import replacing

if TYPE_CHECKING:
    from mien.data.pack import Images

OUTCOME = ("kept", "geometry", "sizes", "hashes", "signatures", "refused", "notes")


@dataclass(frozen=True)
class Shard:
    """The outcome of one shard, in the order of its names."""

    side: int
    pixels: list[bytes] = field(default_factory=list)  # of the kept images, one after another
    kept: list[int] = field(default_factory=list)  # positions in the shard
    geometry: list[str] = field(default_factory=list)  # of each kept image, as are the next three
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of the upright source, in pixels
    hashes: list[str] = field(default_factory=list)  # when asked for: of the finished pixels, for exact duplicates
    signatures: list[str] = field(default_factory=list)  # likewise: for near duplicates
    refused: list[tuple[int, str]] = field(default_factory=list)  # position and reason
    notes: dict[str, int] = field(default_factory=dict)  # how often something had to be done

    @property
    def images(self) -> Images:
        """[kept, side, side, 3]"""
        import numpy as np  # not for the workers, which start faster without

        return np.frombuffer(b"".join(self.pixels), dtype=np.uint8).reshape(-1, self.side, self.side, 3)

    def save(self, path: Path) -> None:
        """A line of JSON with a checksum, then the pixels. After a kill a shard is there completely or not at all."""
        outcome = {key: getattr(self, key) for key in OUTCOME}
        checksum = 0
        for row in self.pixels:
            checksum = zlib.crc32(row, checksum)
        with replacing(path, durable=False) as temporary, temporary.open("wb") as file:  # flushing took 2% of the rate
            file.write(json.dumps({**outcome, "side": self.side, "crc32": checksum}).encode() + b"\n")
            file.writelines(self.pixels)

    @classmethod
    def load(cls, path: Path, pixels: bool = True) -> Shard:
        """Read a shard, or all of it but its pixels."""
        with path.open("rb") as file:
            outcome = bounded_json.loads_object(file.readline(bounded_json.MAX_BYTES))
            del outcome["crc32"]
            return cls(pixels=[file.read()] if pixels else [], **outcome)


def is_whole(path: Path) -> bool:
    """Whether a shard is there as it was written: a power cut may have taken what a kill could not."""
    try:
        with path.open("rb") as file:
            return bool(
                bounded_json.loads_object(file.readline(bounded_json.MAX_BYTES))["crc32"] == zlib.crc32(file.read())
            )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:06d}"
