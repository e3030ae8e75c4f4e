"""Device, precision and memory layout."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from mien.core.contracts import Batch
from mien.core.cores import cores
from mien.core.distributed import local_rank, threaded
from mien.core.run import Device, Precision
from mien.errors import DeviceError


def has_bf16_units(device: str) -> bool:
    """Whether this device computes bf16 in hardware, so that it is faster than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@cache
def fit_threads() -> None:
    """Give torch no more threads than there are cores, once in a process.

    torch sees the machine's cores and not the quota of a container: 64 threads that share two cores' time wait for each other.
    OMP_NUM_THREADS, `--threads` and torch.set_num_threads with fewer win.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > (most := cores()):
        torch.set_num_threads(most)


@dataclass(frozen=True)
class DeviceContext:
    """A device, a precision, and the channels-last layout, in which the networks here are fastest."""

    device: torch.device
    precision: str  # bf16, fp32 or fp64

    @staticmethod
    def choose(device: Device = "auto", precision: Precision = "auto") -> DeviceContext:
        """Resolve `auto`; under torchrun each process of a machine takes the next GPU. torch's threads are fitted to the cores.

        Raises DeviceError for a device that is not available.
        """
        fit_threads()
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        kind = next(name for name in ("cuda", "mps", "cpu") if available[name]) if device == "auto" else device
        if not available[kind]:
            here = [name for name, yes in available.items() if yes]
            raise DeviceError(
                f"Device {kind} is not available.",
                f"torch {torch.__version__} finds {', '.join(here)}.",
                f"Use --device {here[-1]} or --device auto.",
            )
        if precision == "auto":
            precision = "bf16" if has_bf16_units(kind) else "fp32"
        place = torch.device("cuda", local_rank() % torch.cuda.device_count()) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            torch.cuda.set_device(place)
        return DeviceContext(place, precision)

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast for one forward pass. Enter it anew for each: its cached casts must not outlive a parameter update."""
        if self.precision != "bf16":
            return nullcontext()
        # The cache of casts belongs to the process: one thread would empty another's in the middle of its pass.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=not threaded())

    def place(self, module: torch.nn.Module) -> None:
        """Move a module to the device, in place, in this layout and precision."""
        module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.precision == "fp64":
            module.double()

    def batch(self, batch: Batch) -> Batch:
        """Move a batch to the device."""
        dtype = torch.float64 if self.precision == "fp64" else torch.float32
        images = batch.images.to(self.device, dtype, non_blocking=True, memory_format=torch.channels_last)
        labels = batch.labels if batch.labels is None else batch.labels.to(self.device, dtype, non_blocking=True)
        return Batch(images, labels)


def mix(*numbers: int) -> int:
    """A 63-bit seed from integers, by BLAKE2b: similar inputs give unrelated seeds."""
    digest = hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore torch's random state afterwards, so that evaluation cannot change the training."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
