"""Bounds how many modules and parameters a config may make: a file from elsewhere may ask for a thousand million blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.modules import module as hooks


@contextmanager
def limit_modules(most: int) -> Iterator[None]:
    """Inside the block, this thread registers at most `most` modules and parameters. Raises ValueError at the next one."""
    count, thread = 0, threading.get_ident()

    def registered(*_: object) -> None:
        nonlocal count
        if threading.get_ident() == thread:
            count += 1
            if count > most:
                raise ValueError(f"it makes more than {most:,} modules and parameters")

    handles = (
        hooks.register_module_module_registration_hook(registered),
        hooks.register_module_parameter_registration_hook(registered),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
