"""The images of a remote pack, read by row: blocks of rows are fetched, checked, and cached in a file of bounded size."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mien.downloads.remote import RemoteFolder

SUM_BYTES = 32  # of the SHA-256 of a block
CONNECTIONS = 16  # blocks that are fetched at a time


class RemoteRows:
    """`images[rows]` of images `[n, side, side, 3]` on a server, for an integer, a slice, or an array of integers or booleans.

    Block k is cached in slot k modulo the number of slots: rows are drawn at random, and then no other rule hits more often. A
    block is compared with its SHA-256 wherever it comes from. So processes share a cache without a lock, and a slot that
    another process is writing, or that a crash has left half written, is fetched again.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        folder: RemoteFolder,
        offset: int,
        shape: tuple[int, ...],
        rows: int,
        sums: bytes,
        cache: IO[bytes],
        most: int,
    ) -> None:
        """`offset` is where the first row begins in images.npy, `rows` how many a block has, `most` the bytes of `cache`."""
        self.folder, self.offset, self.shape, self.rows, self.sums = folder, offset, shape, rows, sums
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64))
        self.blocks = -(-shape[0] // rows)
        self.slots = min(self.blocks, most // (rows * self.row_bytes))
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="remote")
        self._file = cache
        self._file.truncate(self.slots * rows * self.row_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.row_bytes

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        if isinstance(key, slice):
            wanted = np.arange(*key.indices(len(self)))
        else:
            wanted = np.asarray(key)
            wanted = np.flatnonzero(wanted) if wanted.dtype == np.bool_ else wanted
        rows = wanted.reshape(-1).astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows go from 0 to {len(self) - 1}")
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        order = np.argsort(rows // self.rows, kind="stable")
        blocks, starts = np.unique(rows[order] // self.rows, return_index=True)

        def fill(block: int, places: NDArray[np.int64]) -> None:
            data = np.frombuffer(self.block(block), np.uint8).reshape(-1, *self.shape[1:])
            found[places] = data[rows[places] - block * self.rows]

        for _ in self._pool.map(fill, blocks.tolist(), np.split(order, starts[1:])):
            pass
        return found.reshape(*wanted.shape, *self.shape[1:])

    def block(self, number: int) -> bytes:
        """The bytes of a block: from the cache, or fetched. Raises DataError where the server does not deliver it."""
        size = self.rows * self.row_bytes
        start = number * size
        length = min(size, self.nbytes - start)
        sha256 = self.sums[number * SUM_BYTES : (number + 1) * SUM_BYTES]
        if self.slots:
            place = number % self.slots * size
            with self._lock:
                self._file.seek(place)
                data: bytes = self._file.read(length) or b""
            if hashlib.sha256(data).digest() == sha256:
                return data
        data = self.folder.read("images.npy", self.offset + start, length, sha256)
        if self.slots:
            with self._lock, suppress(OSError):  # a full disk: it is fetched again next time
                self._file.seek(place)
                self._file.write(data)
        return data

    def parts(self) -> Iterator[bytes]:
        """All blocks in order."""
        for first in range(0, self.blocks, CONNECTIONS):
            yield from self._pool.map(self.block, range(first, min(first + CONNECTIONS, self.blocks)))
