"""Batches from a pack: endless, shuffled, flipped, sharded by rank.

The stream is one line of positions over all ranks and epochs. What stands at a position is a pure function of (seed,
epoch, index), so neither the number of threads, nor the number of ranks, nor a restart changes what is learned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien.core.contracts import Batch
from mien.data.pack import Images, Pack
from mien.errors import DataError, UsageError

AHEAD = 2  # batches that each thread prepares in advance


class Loader(Iterator[Batch]):
    """An endless iterator of batches.

    Parameters
    ----------
    batch
        Images a step, over all ranks; this rank receives the `rank`-th of `world` equal contiguous slices.
    flip
        Mirror half of the images, another half each epoch.
    random_crop
        Enlarge images by this factor, and cut a random part of their own side out, another one each epoch; 1 = whole images.
    channels
        3, or 1 for the luminance of ITU-R BT.601.
    position
        Images consumed before, over all ranks: the stream goes on from there, to the bit.
    threads
        Threads that prepare batches ahead; 0 prepares each on demand. The result does not depend on it.

    Raises UsageError when `batch` does not divide among the ranks, DataError when the split is empty.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        flip: bool = True,
        random_crop: float = 1.0,
        channels: int = 3,
        position: int = 0,
        threads: int = 1,
        split: str = "train",
    ) -> None:
        if batch < 1 or batch % world:
            raise UsageError(
                f"A batch of {batch} cannot be shared by {world} processes.",
                "Every process takes the same number of images.",
                f"Use a batch that is a multiple of {world}.",
            )
        self.pack, self.batch, self.seed, self.flip, self.channels = pack, batch, seed, flip, channels
        self.enlarging = enlarging(pack.side, round(pack.side * random_crop)) if random_crop > 1.0 else None
        self.position = position  # images the caller has consumed, over all ranks; never what was merely prepared
        self.waited = 0.0  # seconds that the caller waited for data
        self._rows = pack.rows(split)
        if not len(self._rows):
            raise DataError(
                f"The {split} split of {pack.path} is empty.",
                "There is nothing to learn from.",
                "Prepare the pack again.",
            )
        self._share = batch // world
        self._offset = rank * self._share
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._corners = lru_cache(maxsize=2)(self._draw_corners)
        self._prepared: deque[Future[Batch]] = deque()
        self._next_position = position
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader") if threads else None
        self._ahead = threads * AHEAD

    def __next__(self) -> Batch:
        started = time.perf_counter()
        if self._pool is None:
            batch = self._make(self.position)
        else:
            while len(self._prepared) < self._ahead:
                self._prepared.append(self._pool.submit(self._make, self._next_position))
                self._next_position += self.batch
            batch = self._prepared.popleft().result()
        self.position += self.batch
        self.waited += time.perf_counter() - started
        return batch

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _draw_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The order of an epoch, as rows of the pack `[n]`, and which of them are mirrored `[n]`."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self._rows))
        mirrored = np.random.default_rng([self.seed, epoch, 1]).random(len(self._rows)) < 0.5
        return self._rows[order], mirrored & self.flip

    def _draw_corners(self, epoch: int) -> NDArray[np.int64]:
        """Where an epoch's parts begin in the enlarged images, row and column, by index `[n, 2]`: never at 0, as in Torch7."""
        assert self.enlarging is not None
        spare = len(self.enlarging) - self.pack.side
        return np.random.default_rng([self.seed, epoch, 2]).integers(1, max(1, spare) + 1, (len(self._rows), 2))

    def _make(self, position: int) -> Batch:
        """This rank's slice of the global batch that begins at `position`."""
        rows, mirrored, corners = [], [], []
        start, stop = position + self._offset, position + self._offset + self._share
        while start < stop:
            epoch, index = divmod(start, len(self._rows))
            order, mirrors = self._epoch(epoch)
            length = min(stop - start, len(order) - index)
            rows.append(order[index : index + length])
            mirrored.append(mirrors[index : index + length])
            if self.enlarging is not None:
                corners.append(self._corners(epoch)[index : index + length])
            start += length
        row = np.concatenate(rows)
        labels = None if self.pack.labels is None else torch.from_numpy(self.pack.labels[row])
        images = self.pack.images[row]
        floats = None if self.enlarging is None else parts(images, self.enlarging, np.concatenate(corners))
        return Batch(to_tensor(images if floats is None else floats, np.concatenate(mirrored), self.channels), labels)


def enlarging(side: int, larger: int) -> NDArray[np.float32]:
    """`[larger, side]`: bilinear interpolation in which the corners meet, as Torch7's `image.scale` enlarges."""
    places = np.arange(larger) * (side - 1) / max(1, larger - 1)
    distance = np.abs(places[:, None] - np.arange(side))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32)


def parts(images: Images, matrix: NDArray[np.float32], corners: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of images `[n, side, side, 3]`, enlarged by `matrix` `[larger, side]`, the parts that begin at `corners` `[n, 2]`."""
    side = images.shape[1]
    found = np.empty(images.shape, np.float32)
    for at, (top, left) in enumerate(corners):
        rows, columns = matrix[top : top + side], matrix[left : left + side]
        found[at] = np.einsum("yh,hwc,xw->yxc", rows, images[at].astype(np.float32), columns, optimize="greedy")
    return found


def grey(images: NDArray[Any]) -> NDArray[np.float32]:
    """RGB `[n, H, W, 3]` -> luminance `[n, H, W, 1]` (ITU-R BT.601, as Pillow's mode L), not rounded."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return (images.astype(np.float32) @ weights)[..., None]


def to_tensor(images: NDArray[Any], mirrored: NDArray[np.bool_] | None = None, channels: int = 3) -> torch.Tensor:
    """Images `[n, H, W, 3]` in [0, 255] -> a tensor `[n, channels, H, W]` in [-1, 1], channels-last in memory."""
    if mirrored is not None:
        images[mirrored] = images[mirrored, :, ::-1]
    if channels == 1:
        images = grey(images)
    # numpy, not torch: its single thread leaves torch's threads to training, and it releases the interpreter's lock
    floats = np.divide(images, np.float32(127.5), dtype=np.float32)  # divided, so that 255 is exactly 1
    floats -= np.float32(1)
    return torch.from_numpy(floats).permute(0, 3, 1, 2)
