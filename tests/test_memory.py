"""Freed memory is kept while a training on a CPU runs, and given back after it."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from mien.core import memory
from mien.training import experiment

CYCLES = """
import resource, torch
from contextlib import nullcontext
from mien.core.memory import freed_memory_kept, give_back_freed

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

for way in (nullcontext, freed_memory_kept):
    base = resident()
    with way():
        for cycle in range(11):
            if cycle == 1:
                before = faults()
            blocks = [torch.ones(12 << 20) for _ in range(4)]  # 48 MiB each
            del blocks
        print(faults() - before, resident() - base)
    print(resident() - base)

with freed_memory_kept():
    base = resident()
    blocks = [torch.ones(12 << 20) for _ in range(4)]
    del blocks
    give_back_freed()
    print(resident() - base)
"""


def cycles() -> list[int]:
    """Of ten cycles that allocate 192 MiB: faults, MiB more than before that are held in the end, and after it; then the same with
    freed memory kept; then what is held after it was given back."""
    result = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, text=True, check=True)
    return [int(word) for word in result.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_a_step_does_not_fault_in_what_the_step_before_had() -> None:
    without, _, _, faults, held, after, given_back = cycles()
    assert faults < without / 10
    assert held > 150
    assert after < 50 and given_back < 50


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with memory.freed_memory_kept() as kept:
        assert not kept
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with memory.freed_memory_kept() as kept:
        assert not kept


HEAPS = """
import threading, torch
from mien.core.memory import freed_memory_kept

def place():
    return torch.ones(1 << 14).data_ptr()

with freed_memory_kept():
    found = [place()]
    thread = threading.Thread(target=lambda: found.append(place()))
    thread.start()
    thread.join()
heap = next(line.split()[0] for line in open("/proc/self/maps") if "[heap]" in line)
start, end = (int(word, 16) for word in heap.split("-"))
print(*(start <= address < end for address in found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_threads_that_share_a_batch_do_not_wait_for_one_heap() -> None:
    """The main thread has the process's heap, another its own. In one heap `gan` made a tenth fewer images on two threads."""
    result = subprocess.run([sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_a_training_keeps_it(monkeypatch: pytest.MonkeyPatch, mien) -> None:  # type: ignore[no-untyped-def]
    entered: list[str] = []

    @contextmanager
    def noted():  # type: ignore[no-untyped-def]
        entered.append("in")
        yield True
        entered.append("out")

    monkeypatch.setattr(experiment, "freed_memory_kept", noted)
    assert mien("train", "quick", "--images", "16", "--side", "16", "--out", "run").code == 0
    assert entered == ["in", "out"]
