"""Pictures as PNG bytes with their metadata inside, sheets, the frames of a walk, and a cache of the newest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mien.nn.priors import positions
from mien.report.grid import picture
from mien.sampling.address import Address, Move
from mien.storage.provenance import Claim, Provenance

CACHE_BYTES = 48 << 20


def png(
    image: Image.Image | Tensor, recipe: Mapping[str, Any], claim: Claim = Claim.SYNTHETIC, level: int = 1
) -> bytes:
    """A picture, or an image `[C, H, W]` in [-1, 1], as PNG that says how it is made again and what it claims to be."""
    drawn = picture(image) if isinstance(image, Tensor) else image
    return Provenance(recipe, claim).encode(drawn, "PNG", compress_level=level)


def rgba(image: Tensor) -> bytes:
    """An image `[C, H, W]` in [-1, 1] as bytes, row by row: what a browser's ImageData holds."""
    return picture(image).convert("RGBA").tobytes()


def tiled(images: Tensor, columns: int) -> Tensor:
    """Images `[n, C, H, W]` side by side as one, what is left over black."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = torch.full((rows * columns, channels, height, width), -1.0)
    sheet[:n] = images
    return sheet.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4).reshape(
        channels, rows * height, columns * width
    )  # fmt: skip


def along(stops: Sequence[Address], frames: int, loop: bool) -> list[Address]:
    """The addresses of a walk's frames: every stop is met, and the way between two is theirs."""
    line = [*stops, stops[0]] if loop else list(stops)
    found = []
    for t in positions(len(line), frames, loop):
        leg = min(int(t), len(line) - 2)
        here, there, share = line[leg], line[leg + 1], t - leg
        found.append(
            here if share == 0 else there if share == 1 else Address(here.start, (*here.moves, Move(there, share)))
        )
    return found


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
