"""Evaluation in chunks of one size, so that a row of the result never depends on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mien.core.device import DeviceContext

#: Rows that are computed at a time: the kernels of a library may round differently for another batch size.
CHUNK = 8

Network = Callable[[Tensor, Tensor | None], Tensor]


def in_chunks(
    network: Network, context: DeviceContext, rows: Tensor, labels: Tensor | None, padded: bool = True
) -> Iterator[Tensor]:
    """`network` of `rows` and label rows, float32 on the CPU, in chunks; the last is padded to full size if `padded`."""
    dtype = torch.float64 if context.precision == "fp64" else torch.float32
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        count = len(rows[part])
        missing = CHUNK - count if padded else 0
        chunk = pad(rows[part], missing).to(context.device, dtype)
        chunk_labels = None if labels is None else pad(labels[part], missing).to(context.device, dtype)
        with context.autocast():
            result = network(chunk, chunk_labels)
        yield result[:count].float().cpu().contiguous()


def pad(rows: Tensor, missing: int) -> Tensor:
    """Rows `[n, ...]` with the last one repeated `missing` times."""
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
