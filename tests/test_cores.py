"""How many cores a process has: a container's quota, in either version of control groups, and torch's threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mien.core import cores as module
from mien.core.cores import cores, quota


def groups(folder: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    """A file system of control groups and the process's line in /proc."""
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text)
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("files", "own", "wanted"),
    [
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2.0),  # a container with a namespace of its own
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 0.5),  # the one above is tighter
        ({"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "150000 100000\n"}, "0::/a/b\n", 1.5),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            "4:memory:/docker/0\n3:cpu,cpuacct:/docker/0\n0::/\n",
            3.0,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", None),
        ({"cpu/pod/cpu.cfs_quota_us": "100000\n", "cpu/pod/cpu.cfs_period_us": "50000\n"}, "1:cpu:/pod\n", 2.0),
        ({"memory/cpu.max": "100000 100000\n"}, "1:memory:/\n", None),
        ({"cpu.max": "torn"}, "0::/\nnonsense\n", None),
    ],
)
def test_a_quota_of_either_version(tmp_path: Path, files: dict[str, str], own: str, wanted: float | None) -> None:
    assert quota(*groups(tmp_path, files, own)) == wanted


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path, tmp_path / "own") is None


@pytest.mark.parametrize(
    ("limit", "processes", "wanted"), [(1.5, 1, 2), (0.2, 1, 1), (4.0, 2, 2), (99.0, 1, 8), (None, 4, 2)]
)
def test_cores_are_shared_with_the_processes_of_a_launcher(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, processes: int, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(module, "quota", lambda: limit)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert cores() == wanted


FITTED = """
import sys
import torch
torch.set_num_threads(64)
from mien.core import cores
cores.quota = lambda: 1.0
from mien.core.device import DeviceContext
DeviceContext.choose("cpu")
first = torch.get_num_threads()
torch.set_num_threads(3)  # as --threads does afterwards
DeviceContext.choose("cpu")
print(first, torch.get_num_threads())
"""


@pytest.mark.parametrize(("given", "wanted"), [(None, "1 3"), ("64", "64 3")])
def test_torch_has_as_many_threads_as_cores(given: str | None, wanted: str) -> None:
    """In a container with one core's time on a machine of 64, torch starts 64 threads, which wait for each other."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", FITTED],
        env=environment | ({"OMP_NUM_THREADS": given} if given else {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == wanted, done.stderr
