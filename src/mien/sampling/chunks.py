"""Evaluation in chunks of one size, so that a row of the result never depends on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mien.core.contracts import Model
from mien.core.device import DeviceContext
from mien.core.families import ResolutionFreeModel

#: Rows that are computed at a time: the kernels of a library may round differently for another batch size.
CHUNK = 8

Network = Callable[[Tensor, Tensor | None], Tensor]


def chunk_size(model: Model) -> int:
    """Rows of a chunk: one where a network is evaluated at every pixel, since a padded row would cost a whole image."""
    return 1 if isinstance(model, ResolutionFreeModel) else CHUNK


def in_chunks(
    network: Network, context: DeviceContext, rows: Tensor, labels: Tensor | None, size: int, padded: bool = True
) -> Iterator[Tensor]:
    """`network` of `rows` and label rows, float32 on the CPU, in chunks of `size`; the last is padded if `padded`."""
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        count = len(rows[part])
        missing = size - count if padded else 0
        chunk = pad(rows[part], missing).to(context.device, dtype)
        chunk_labels = None if labels is None else pad(labels[part], missing).to(context.device, dtype)
        with context.autocast():
            result = network(chunk, chunk_labels)
        yield result[:count].float().cpu().contiguous()


def pad(rows: Tensor, missing: int) -> Tensor:
    """Rows `[n, ...]` with the last one repeated `missing` times."""
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
