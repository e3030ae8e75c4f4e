"""Memory that a CPU step frees stays with the process, in huge pages: the next step allocates the same again.

By itself glibc gives large blocks back as soon as they are freed, and the next step faults them in anew, page by page. That takes
15 to 30% of the time of a step of `gan` (docs/LOG.md). The numbers of a training do not depend on it.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # parameters of glibc's mallopt
#: Nothing is mapped by itself, and nothing is given back. Each thread has a heap: in one they would wait for each other.
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}
DEFAULTS = {MMAP_MAX: 65_536, TRIM_THRESHOLD: 128 << 10, TOP_PAD: 128 << 10}

RESERVED = 1 << 30  # bytes of addresses; memory is taken by what is used of them
HUGE_PAGE = 2 << 20  # bytes
MADV_HUGEPAGE = 14


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Keep what is freed inside, and give it back at the end. Yields whether this C library can; without glibc nothing happens."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):  # musl has none
        yield False
        return
    accepted = [library.mallopt(name, value) for name, value in KEPT.items()]
    reserve_huge_pages(library)
    try:
        yield all(accepted)
    finally:
        for name, value in DEFAULTS.items():
            library.mallopt(name, value)
        give_back_freed()


def give_back_freed() -> None:
    """Give back what is free now: memory of work that does not come again, more than a step needs."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(ctypes.c_size_t(0))


def reserve_huge_pages(library: ctypes.CDLL) -> None:
    """Let the heap grow by addresses alone, and ask for huge pages there. Where the system refuses either, nothing changes."""
    library.malloc.restype = ctypes.c_void_p
    start = library.malloc(ctypes.c_size_t(RESERVED))
    if start is None:
        return
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    size = start + RESERVED - first - mmap.PAGESIZE
    library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_HUGEPAGE)
    library.free(ctypes.c_void_p(start))
