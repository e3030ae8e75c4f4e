"""Decodes an uploaded photograph in a process of its own, under limits; it is never stored."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mien.data.photo import can_align
from mien.errors import UsageError
from mien.web.security import Refused

SECONDS = 12.0
AT_ONCE = 2  # decoders that run at a time
KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WEBP"}

#: whole: its middle square. levelled: by the face that was found. known: as the model's data was cut. Else the middle square,
#: because no face was found, or because nothing here can find one.
Cut = Literal["whole", "levelled", "known", "no face", "no aligner"]
CUTS: dict[bytes, Cut] = {b"w": "whole", b"l": "levelled", b"k": "known", b"n": "no face", b"x": "no aligner"}
ROOT = Path(__file__).parents[2]  # what the child imports mien from

_turns = asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True)
class DecodedPhoto:
    """A photograph as a model takes it."""

    image: Tensor  # [1, 3, side, side] in [-1, 1]
    cut: Cut


async def decode(content: bytes, side: int, framing: Mapping[str, Any] | None = None) -> DecodedPhoto:
    """A square of a JPEG, PNG or WebP: the middle, or with `framing`, how a model's data was cut, the levelled face.

    Raises UsageError for another format, Refused for a file that does not decode within the limits.
    """
    if not any(content.startswith(start) for start in KINDS):
        raise UsageError("This is no photograph.", "Its bytes are no JPEG, PNG or WebP.", "Choose one of these.")
    words = [str(side)] if framing is None else [str(side), str(ROOT), json.dumps(dict(framing))]
    async with _turns:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(__file__).with_name("decode_worker.py")),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            out, _ = await asyncio.wait_for(child.communicate(content), SECONDS)
        except TimeoutError:
            out = b""
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    if child.returncode or len(out) != 1 + side * side * 3:
        reasons = {3: "It is larger than 25 megapixels.", 4: "It is smaller than 16 pixels."}
        raise Refused(
            422,
            "This photograph cannot be read.",
            reasons.get(child.returncode or 0, "It is damaged, or takes too much to decode."),
            "Choose another, or save it anew as JPEG.",
        )
    pixels = np.frombuffer(out, np.uint8, offset=1).reshape(1, side, side, 3)
    return DecodedPhoto(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float().div(127.5).sub(1.0), CUTS[out[:1]])


@cache
def can_level() -> bool:
    """Whether faces can be found here; looked up once."""
    return can_align()
