"""Several processes under torchrun: set up, sum, average, broadcast. With one process everything here is the identity."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Who we are among the processes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # which of this machine's devices is ours

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0


def rank() -> int:
    """Which of torchrun's processes we are, also before and after they are joined; 0 when alone."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone. NCCL joins GPUs, gloo everything else."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield World()
        return
    # Its functions take the group of the moment as their default. Loaded later (compilers and optimizers do), they keep ours alive
    # beyond its end, and a thread of gloo that lets go of a tensor while Python ends aborts the process.
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=10))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def joined() -> bool:
    """Whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without gradient."""
    value = value.detach()
    if not joined():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def maximum(value: float) -> float:
    """The largest of a number over all ranks: how they agree to stop, or to save."""
    if not joined():
        return value
    largest = torch.tensor(value, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        largest = largest.cuda()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)


def average_gradients(loss: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The mean loss and mean gradients over all ranks, in one flat message; the loss rides along so that all ranks see a NaN."""
    if not joined():
        return loss.detach(), list(gradients)
    flat = torch.cat([loss.detach().reshape(1).to(gradients[0].dtype), *(g.reshape(-1) for g in gradients)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = torch.split(flat[1:], [g.numel() for g in gradients])
    return flat[0], [torch.empty_like(g).copy_(piece.view(g.shape)) for piece, g in zip(pieces, gradients, strict=True)]


def broadcast_module(module: torch.nn.Module) -> None:
    """Give every rank the first one's parameters and buffers."""
    if joined():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def agree(value: Any) -> Any:
    """The first rank's value of a small picklable object, on every rank (between our own processes only)."""
    if not joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait for all ranks."""
    if joined():
        dist.barrier()


class _Sum(torch.autograd.Function):
    """A sum over ranks whose gradient is the sum of the ranks' gradients, which again is differentiable."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return differentiable_sum(gradient)


def differentiable_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; differentiable, also twice."""
    return _Sum.apply(value) if joined() else value  # type: ignore[no-untyped-call]
