"""Run by `photo.decode` in a process of its own: one picture from stdin, a square of it as raw RGB to stdout.

With only a side as argument, it is the middle square, and nothing of mien's is imported. With a source root and a framing as JSON,
the face is levelled, as `mien project` does it. The first byte says how it was cut. Memory and time are bounded before the picture
is looked at, no connection is opened, and all metadata but the orientation is dropped.
Exit code 1: damaged; 3: too many pixels; 4: too few.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 25_000_000
MEMORY = 1 << 30  # bytes of address space beyond what is used at the start
SECONDS = 8  # of computing
FILES = 16
WHOLE, LEVELLED, KNOWN, NO_FACE, NO_LEVEL = b"wlknx"  # how the square was cut

Cut = Callable[[bytes, int], tuple[int, bytes]]


def main(words: list[str]) -> int:
    side = int(words[0])
    content = sys.stdin.buffer.read()
    cut: Cut = levelling(words[1], side, json.loads(words[2])) if len(words) == 3 else middle
    from PIL import Image

    bound()
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
        width, height = image.size
    if width * height > MOST_PIXELS:
        return 3
    if min(width, height) < 16:
        return 4
    how, pixels = cut(content, side)
    sys.stdout.buffer.write(bytes([how]) + pixels)
    return 0


def bound() -> None:
    """From here on, little more memory and time than is used already."""
    try:
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
        spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, spent + SECONDS))
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    except (ImportError, OSError, ValueError):  # not on every platform: the parent's clock still holds
        pass


def middle(content: bytes, side: int) -> tuple[int, bytes]:
    """The middle square."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
        image.draft("RGB", (side * 2, side * 2))
        upright: Image.Image = ImageOps.exif_transpose(image)
        return WHOLE, ImageOps.fit(upright.convert("RGB"), (side, side), Image.Resampling.LANCZOS).tobytes()


def levelling(root: str, side: int, framing: dict[str, object]) -> Cut:
    """What cuts as the model's own data was cut, by the face where that can be found; its networks are loaded already."""
    sys.path.insert(0, root)
    from mien.data.photo import can_align, frame
    from mien.data.preprocess import NO_FACE as UNSEEN

    able = can_align()
    if able:
        from mien.data.align import Aligner

        Aligner(side).load()

    def cut(content: bytes, side: int) -> tuple[int, bytes]:
        photo = frame("photograph", content, side, framing)
        if "cropped by face" in photo.notes:
            how = LEVELLED
        elif UNSEEN in photo.notes:
            how = NO_FACE
        elif "cropped by center" in photo.notes and not able:
            how = NO_LEVEL
        else:
            how = KNOWN
        return how, photo.pixels.tobytes()

    return cut


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except BaseException:  # whatever a file does to the decoder
        code = 1
    sys.exit(code)
