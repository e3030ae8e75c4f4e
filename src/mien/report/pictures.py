"""Sample grids small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST = 60  # grids in one page
MOST_BYTES = 66_000  # of each, so that a page stays below 6 MB


@dataclass(frozen=True)
class Picture:
    """A grid as a page shows it."""

    seen: int
    source: str  # data URI
    width: int
    height: int


Compressed = dict[Path, tuple[float, Picture]]  # with the time of the file's last change


def pictures(
    grids: Sequence[tuple[int, Path]], compressed: Compressed, most: int = MOST, most_bytes: int = MOST_BYTES
) -> list[Picture]:
    """At most `most` of them, evenly spaced, first and last among them; what does not open is left out.

    The step between them is a power of two, so that a growing run keeps most of its choice, and their compression.
    """
    step = 1
    while len(grids) > step * (most - 1):
        step *= 2
    chosen = [*grids[:-1:step], *grids[-1:]]
    found = []
    for seen, path in chosen:
        try:
            changed = path.stat().st_mtime
            if path not in compressed or compressed[path][0] != changed:
                compressed[path] = (changed, compress(seen, path, most_bytes))
        except (OSError, SyntaxError):  # torn by a crash, or being replaced
            continue
        found.append(compressed[path][1])
    return found


def compress(seen: int, path: Path, most_bytes: int) -> Picture:
    """A grid as a page shows it, at most `most_bytes` large."""
    with Image.open(path) as image:
        source, width, height = inline(image, most_bytes)
    return Picture(seen, source, width, height)


def inline(image: Image.Image, most_bytes: int) -> tuple[str, int, int]:
    """A picture as the data URI of a WebP of at most `most_bytes`, its width and its height: coarser first, then smaller."""
    rgb = image.convert("RGB")
    while True:
        for quality in (84, 70, 55):
            buffer = io.BytesIO()
            rgb.save(buffer, format="WEBP", quality=quality, method=2)
            if buffer.tell() <= most_bytes:
                return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", *rgb.size
        rgb = rgb.resize((round(rgb.width * 0.75), round(rgb.height * 0.75)), Image.Resampling.LANCZOS)
