"""Run by `photo.decode` in a process of its own: one picture from stdin, its middle square as raw RGB to stdout.

It imports nothing of mien's, has bounds on memory and time, opens no file and no connection, and drops all metadata but the
orientation. Exit code 1: damaged; 3: too many pixels; 4: too few.
"""

from __future__ import annotations

import io
import sys

MOST_PIXELS = 25_000_000
MEMORY = 1 << 30  # bytes of address space beyond what is used at the start
SECONDS = 8  # of computing


def main() -> int:
    side = int(sys.argv[1])
    content = sys.stdin.buffer.read()
    from PIL import Image, ImageOps

    try:
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    except (ImportError, OSError, ValueError):  # not on every platform: the parent's clock still holds
        pass
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            return 3
        if min(width, height) < 16:
            return 4
        image.draft("RGB", (side * 2, side * 2))
        upright = ImageOps.exif_transpose(image)
        square = ImageOps.fit(upright.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    sys.stdout.buffer.write(square.tobytes())
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:  # whatever a file does to the decoder
        code = 1
    sys.exit(code)
