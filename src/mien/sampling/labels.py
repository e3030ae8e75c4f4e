"""Label rows: what a label-conditional model is conditioned on, from its training data or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.errors import Mismatch, UsageError, did_you_mean


def stored_rows(header: JSON, label_dim: int) -> Tensor:
    """Label rows of the training data `[k, label_dim]`, k > 0, from a model's header. Raises Mismatch if it has none."""
    rows: Any = header.get("label_rows")
    try:
        known = [[nan if value is None else value for value in row] for row in rows]
        stored = torch.tensor(known, dtype=torch.float32)
        if not stored.numel() or stored.shape[1:] != (label_dim,):
            raise ValueError(f"label rows of shape {tuple(stored.shape)}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mismatch(
            "This model is label-conditional, and its file has no label rows.",
            str(error),
            "Use a file written by mien.",
        ) from error
    return stored


def column_of(name: str, names: Sequence[str]) -> int:
    """The column of a label. Raises UsageError with the labels that exist."""
    if name not in names:
        raise UsageError(
            f"There is no label `{name}`.", f"The model has {', '.join(names) or 'none'}.", did_you_mean(name, names)
        )
    return list(names).index(name)


def with_values(rows: Tensor, values: Mapping[str, float] | None, names: Sequence[str]) -> Tensor:
    """A copy of label rows `[n, label_dim]`, with the named labels set."""
    rows = rows.clone()
    for name, value in (values or {}).items():
        rows[:, column_of(name, names)] = value
    return rows
