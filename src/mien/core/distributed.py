"""Several processes under torchrun, or several threads of one process: average, broadcast. Alone, each function is the identity.

In a thread group a rank is a thread, and what ranks exchange stays in memory.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from mien.errors import Disconnected

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

STEP_TIMEOUT = timedelta(minutes=10)  # of a gradient average: a rank that hangs that long is dead
#: Of what ranks agree on. They may wait for rank 0 for hours while it prepares data, downloads, or is paused; if it dies, its
#: connection closes and they fail at once.
CONTROL_TIMEOUT = timedelta(days=30)
_control: Any = None  # the gloo group for small objects and barriers
_here = threading.local()  # .member: the ThreadGroup and the rank of this thread


@dataclass(frozen=True)
class World:
    """The rank of this process among all processes."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0


def rank() -> int:
    """This process's rank under torchrun, also before and after the process group exists; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number on its machine under torchrun; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def world(device: str) -> Iterator[World]:
    """Create the process group under torchrun: NCCL for GPUs, gloo otherwise. Without torchrun, a world of one process."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield World()
        return
    # The functions of this module keep the present process group as their default argument. If a compiler or an optimizer
    # loaded it later, it would keep our group alive at exit, where a gloo thread that frees a tensor aborts the process.
    import torch.distributed.nn.functional
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    global _control
    own_gpu = device == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    backend = "nccl" if own_gpu else "gloo"  # NCCL refuses two ranks on one GPU
    with connected():
        store, rank, size = next(rendezvous("env://", timeout=STEP_TIMEOUT))
        own = of_this_attempt(store, rank, size) if restarted() else PrefixStore("default_pg", store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=STEP_TIMEOUT)
        _control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        _control = None
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun may have started these processes again, with the store of those before."""
    own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return own and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def of_this_attempt(store: Store, rank: int, size: int) -> Store:
    """A part of the store where no earlier processes have left anything.

    torchrun 2.13 gives restarted processes the store in which the addresses of the dead ones stand: three of five restarts failed.
    Its count of restarts is no name for the part, since each machine has its own. So rank 0 invents one, and answers whoever
    greets it until all have said that they know it; the greetings of the dead do no harm.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    name = uuid.uuid4().hex
    if rank:
        store.set(f"mien/greeting/{rank}", name)
        name = store.get(f"mien/answer/{name}").decode()
        store.set(f"mien/known/{name}/{rank}", "")
        return PrefixStore(f"mien/{name}", store)
    missing, end = list(range(1, size)), time.monotonic() + STEP_TIMEOUT.total_seconds()
    while missing:
        for other in missing:
            if store.check([f"mien/greeting/{other}"]):
                store.set(f"mien/answer/{store.get(f'mien/greeting/{other}').decode()}", name)
        missing = [other for other in missing if not store.check([f"mien/known/{name}/{other}"])]
        if time.monotonic() > end:
            raise dist.DistStoreError(f"Of {size} processes {len(missing)} did not come")
        time.sleep(0.02)
    return PrefixStore(f"mien/{name}", store)


@contextmanager
def connected() -> Iterator[None]:
    """Raises Disconnected where torch reports that another process is gone: that is no fault of this one."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):  # gloo has no exception of its own
            raise
        why = re.sub(r"^\[\S*\] ", "", str(error)).partition(". ")[0].splitlines()[0]
        raise Disconnected(
            "The connection to another process of this command is lost.",
            f"{why.rstrip('.')}.",
            "Its own message says why it ended, if it had time. The same command goes on with what is saved.",
        ) from error


class ThreadGroup:
    """Threads of one process that share the rows of a batch, and take means over them in the order of their ranks."""

    def __init__(self, size: int, cores: int = 1) -> None:
        self.size, self.cores, self.barrier = size, cores, threading.Barrier(size)
        self.values: tuple[list[Any], ...] = ([None] * size, [None] * size)
        self.turns = [0] * size

    @contextmanager
    def joined(self, rank: int) -> Iterator[None]:
        """This thread is that rank within the block. An exception releases the threads that wait for it."""
        _here.member = self, rank
        try:
            yield
        except BaseException:
            self.barrier.abort()
            raise
        finally:
            _here.member = None

    def gather(self, rank: int, value: Any) -> list[Any]:
        """The values of all threads, by rank. Raises threading.BrokenBarrierError if another thread has failed."""
        values = self.values[self.turns[rank] % 2]  # a thread may write its next value while another still reads these
        self.turns[rank] += 1
        values[rank] = value
        self.barrier.wait()
        return list(values)

    def sum(self, rank: int, value: Tensor) -> Tensor:
        """The sum over all threads. They exchange copies: autograd may overwrite a gradient that another thread still reads."""
        return _total(self.gather(rank, value.clone()))

    def average(self, rank: int, loss: Tensor, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The mean loss and the mean gradients; each thread computes a share of the means."""
        everyone = self.gather(rank, (loss.detach(), gradients))
        mean = _total([theirs for theirs, _ in everyone]) / self.size
        shares = self.gather(rank, _averages([tensors[rank :: self.size] for _, tensors in everyone]))
        found: list[Tensor] = [mean] * len(gradients)
        for start, share in enumerate(shares):
            found[start :: self.size] = share
        return mean, found


def _total(values: Sequence[Tensor]) -> Tensor:
    """The sum in this order, whoever computes it."""
    total = values[0].clone()
    for value in values[1:]:
        total += value
    return total


def _averages(lists: Sequence[list[Tensor]]) -> list[Tensor]:
    """The mean of the first tensors of all lists, of the second, and so on."""
    if not lists[0]:
        return []
    total = list(torch._foreach_add(lists[0], lists[1]))
    for others in lists[2:]:
        torch._foreach_add_(total, others)
    torch._foreach_div_(total, len(lists))
    return total


def _member() -> tuple[ThreadGroup, int] | None:
    return getattr(_here, "member", None)


def once(action: Callable[[], None]) -> None:
    """Call it in the first thread of a group, on all of the group's cores, when all are here and wait. Elsewhere, call it."""
    member = _member()
    if member is None:
        action()
        return
    group, rank = member
    group.barrier.wait()
    if rank == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(group.cores)
        action()
        torch.set_num_threads(threads)
    group.barrier.wait()


def threaded() -> bool:
    """Whether this thread shares a batch with others of its process."""
    return _member() is not None


def joined() -> bool:
    """Whether there is more than one process, or thread of a group."""
    return _member() is not None or processes()


def processes() -> bool:
    """Whether there is more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, without gradient."""
    value = value.detach()
    if member := _member():
        return member[0].sum(member[1], value) / member[0].size
    if not processes():
        return value
    total = value.clone()
    with connected():
        dist.all_reduce(total)
    return total / dist.get_world_size()


def maximum(value: float) -> float:
    """The maximum of a number over all ranks. Ranks use it to stop or save together."""
    if not processes():
        return value
    largest = torch.tensor(value, dtype=torch.float64)
    with connected():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=_control)
    return float(largest)


def average_gradients(loss: Tensor, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The mean loss and the mean gradients over all ranks, in one message. It includes the loss so that all ranks see a NaN."""
    if member := _member():
        return member[0].average(member[1], loss, gradients)
    if not processes():
        return loss.detach(), gradients
    flat = torch.cat([loss.detach().reshape(1).to(gradients[0].dtype), *(g.reshape(-1) for g in gradients)])
    with connected():
        dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = torch.split(flat[1:], [g.numel() for g in gradients])
    return flat[0], [torch.empty_like(g).copy_(piece.view(g.shape)) for piece, g in zip(pieces, gradients, strict=True)]


def broadcast_module(module: torch.nn.Module) -> None:
    """Copy the parameters and buffers of rank 0 to every rank."""
    if processes():
        for tensor in module.state_dict().values():
            with connected():
                dist.broadcast(tensor, src=0)


def broadcast(value: Any) -> Any:
    """The value of rank 0, on every rank. It is pickled, which is safe between our own processes."""
    if not processes():
        return value
    box = [value]
    with connected():
        dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def barrier() -> None:
    """Wait for all ranks."""
    if processes():
        with connected():
            dist.barrier(group=_control)


class _Sum(torch.autograd.Function):
    """A sum over ranks. Its gradient is the sum of the gradients of all ranks, and is differentiable again."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        if member := _member():
            return member[0].sum(member[1], value.detach())
        total = value.clone(memory_format=torch.contiguous_format)
        with connected():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return differentiable_sum(gradient)


def differentiable_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, differentiable twice."""
    return _Sum.apply(value) if joined() else value  # type: ignore[no-untyped-call]
