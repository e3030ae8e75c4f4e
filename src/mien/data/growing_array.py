"""A .npy file that grows along its first axis, with checksums of the whole and of its blocks."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.storage.regular_file import open_regular

BLOCK_BYTES = 1 << 17  # of rows that a reader over the network fetches at once: 10 images of 64 px


class GrowingArray:
    """A .npy file that grows along its first axis; its header is completed when it is closed."""

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self.count = 0
        self.rows = max(1, BLOCK_BYTES // max(1, dtype.itemsize * math.prod(row_shape)))  # of a block
        self.sums = bytearray()  # SHA-256 of every block that is complete
        self._dtype, self._row_shape = dtype, row_shape
        self._file = path.open("w+b")
        self._write_header()
        self._hash, self._block = hashlib.sha256(), hashlib.sha256()

    def _write_header(self) -> None:
        # numpy pads the header so that the growing axis can be rewritten in place
        described = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.count, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, rows: NDArray[Any]) -> None:
        assert rows.dtype == self._dtype and rows.shape[1:] == self._row_shape, (rows.dtype, rows.shape)
        data = np.ascontiguousarray(rows).data.cast("B") if rows.size else b""
        self._file.write(data)
        self._hash.update(data)
        first = 0
        while first < len(rows):  # parts that end where a block ends, or the rows do
            part = rows[first : first + self.rows - self.count % self.rows]
            self._block.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
            self.count += len(part)
            first += len(part)
            if self.count % self.rows == 0:
                self._end_block()

    def _end_block(self) -> None:
        self.sums += self._block.digest()
        self._block = hashlib.sha256()

    def close(self) -> str:
        """Complete the file and the sums of its blocks. Returns the SHA-256 of its rows, without the header."""
        if not self._file.closed:
            if self.count % self.rows:
                self._end_block()
            self._file.seek(0)
            self._write_header()
            self._file.close()
        return self._hash.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file; of an .npy only its rows, so that the header's padding does not matter."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        if path.suffix == ".npy":
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
