"""Pictures as PNG bytes with their metadata inside, and a cache of the newest."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from PIL import Image, PngImagePlugin
from torch import Tensor

from mien import __version__
from mien.report.grid import RECIPE_KEY, SYNTHETIC, picture

CACHE_BYTES = 48 << 20


def png(image: Image.Image | Tensor, recipe: Mapping[str, Any], level: int = 1) -> bytes:
    """A picture, or an image `[C, H, W]` in [-1, 1], as PNG that says how it is made again and that it is synthetic."""
    drawn = picture(image) if isinstance(image, Tensor) else image
    notes = PngImagePlugin.PngInfo()
    notes.add_text(RECIPE_KEY, json.dumps(recipe, sort_keys=True))
    notes.add_text("Software", f"mien {__version__}")
    notes.add_text("Disclaimer", SYNTHETIC)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", pnginfo=notes, compress_level=level)
    return buffer.getvalue()


class ResponseCache:
    """Answers by question, the least used forgotten first; bounded in bytes."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self.most, self.bytes = most, 0
        self.answers: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The answer, if it is still here."""
        if key in self.answers:
            self.answers.move_to_end(key)
        return self.answers.get(key)

    def put(self, key: str, content: bytes) -> None:
        """Keep an answer, and forget old ones for it."""
        self.bytes += len(content) - len(self.answers.pop(key, b""))
        self.answers[key] = content
        while self.bytes > self.most:
            self.bytes -= len(self.answers.popitem(last=False)[1])
