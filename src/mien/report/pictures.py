"""Compresses sample grids for a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mien.storage.provenance import Claim, Provenance

MOST = 60  # grids in one page
MOST_BYTES = 66_000  # of each, so that a page stays below 6 MB


@dataclass(frozen=True)
class Picture:
    """A compressed grid for a page."""

    seen: int
    source: str  # data URI
    width: int
    height: int


Compressed = dict[Path, tuple[float, Picture]]  # with the time of the file's last change


def pictures(
    grids: Sequence[tuple[int, Path]],
    compressed: Compressed,
    most: int = MOST,
    most_bytes: int = MOST_BYTES,
    claim: Claim = Claim.SYNTHETIC,
) -> list[Picture]:
    """At most `most` grids, evenly spaced, including first and last; unreadable files are skipped.

    The step is a power of two, so that a growing run reuses most of its compressed pictures.
    """
    step = 1
    while len(grids) > step * (most - 1):
        step *= 2
    chosen = [*grids[:-1:step], *grids[-1:]]
    result = []
    for seen, path in chosen:
        try:
            changed = path.stat().st_mtime
            if path not in compressed or compressed[path][0] != changed:
                compressed[path] = (changed, compress(seen, path, most_bytes, claim))
        except (OSError, SyntaxError):  # truncated by a crash, or being replaced
            continue
        result.append(compressed[path][1])
    return result


def compress(seen: int, path: Path, most_bytes: int, claim: Claim) -> Picture:
    """Compress a grid for a page, to at most `most_bytes` large."""
    with Image.open(path) as image:
        source, width, height = inline(image, most_bytes, Provenance({"seen": seen}, claim))
    return Picture(seen, source, width, height)


def inline(image: Image.Image, most_bytes: int, provenance: Provenance) -> tuple[str, int, int]:
    """A picture as the data URI of a WebP of at most `most_bytes`, width and height: first quality, then size is reduced."""
    rgb = image.convert("RGB")
    while True:
        for quality in (84, 70, 55):
            content = provenance.encode(rgb, "WEBP", quality=quality, method=2)
            if len(content) <= most_bytes:
                return f"data:image/webp;base64,{base64.b64encode(content).decode()}", *rgb.size
        rgb = rgb.resize((round(rgb.width * 0.75), round(rgb.height * 0.75)), Image.Resampling.LANCZOS)
