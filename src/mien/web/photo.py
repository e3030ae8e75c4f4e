"""A photograph of a visitor's: decoded in a process of its own under limits, never stored, forgotten after the answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mien.errors import UsageError
from mien.web.guard import Refused

SECONDS = 10.0
AT_ONCE = 2  # decoders that run at a time
KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WEBP"}

_turns = asyncio.Semaphore(AT_ONCE)


async def decode(content: bytes, side: int) -> Tensor:
    """The middle square of a JPEG, PNG or WebP as an image `[1, 3, side, side]` in [-1, 1].

    Raises UsageError for another format, Refused for a file that does not decode within the limits.
    """
    if not any(content.startswith(start) for start in KINDS):
        raise UsageError("This is no photograph.", "Its bytes are no JPEG, PNG or WebP.", "Choose one of these.")
    async with _turns:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(__file__).with_name("photo_child.py")),
            str(side),
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
    if child.returncode or len(out) != side * side * 3:
        reasons = {3: "It is larger than 25 megapixels.", 4: "It is smaller than 16 pixels."}
        raise Refused(
            422,
            "This photograph cannot be read.",
            reasons.get(child.returncode or 0, "It is damaged, or takes too much to decode."),
            "Choose another, or save it anew as JPEG.",
        )
    pixels = np.frombuffer(out, np.uint8).reshape(1, side, side, 3)
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
