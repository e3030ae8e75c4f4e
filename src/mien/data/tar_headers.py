"""The headers of a tar, of which none may take more memory than a name needs."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from mien.storage.regular_file import open_regular

MOST_HEADER = 4 << 20  # bytes of one name or extended header, whose records take ten times their place in memory
MOST_DIGITS = 255  # in a row, as in a name; Python before 3.11.10 and 3.12.6 takes hours for a million (CVE-2024-6232)


class HeaderFile(io.BufferedReader):
    """A tar of which only headers are read: one that promises a name of a terabyte is no reason to reserve it."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_regular(path).detach())

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_HEADER:
            raise tarfile.ReadError(f"A name or header of {size:,} bytes is in it")
        data = super().read(size)
        if len(data) > tarfile.BLOCKSIZE and any(len(number[0]) > MOST_DIGITS for number in re.finditer(rb"\d+", data)):
            raise tarfile.ReadError(f"A number of over {MOST_DIGITS} digits is in it")
        return data
