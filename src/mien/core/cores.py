"""How many processor cores this process may use: those of its affinity, and no more than its container's quota."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path, PurePosixPath

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """The number of cores for this process: its allowed cores, divided by the processes that a launcher started here."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    if limit is not None:
        usable = min(usable, ceil(limit))
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def quota(mounted: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Cores' worth of time that control groups allow, as by `docker run --cpus` or a Kubernetes limit; None without a limit.

    The smallest quota of this process's group and of those above it counts. Inside a container its own group is mounted as the
    root, whatever `own` says; both versions of control groups are read.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    limits = []
    for _, controllers, name in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(name.lstrip("/"))
        for above in (group, *group.parents):
            for root in (
                (mounted / controllers, mounted / "cpu", mounted) if controllers else (mounted, mounted / "unified")
            ):
                limits += _limit(root / above)
    return min(limits, default=None)


def _limit(folder: Path) -> list[float]:
    """The quota that a group's files name, over its period: one number, or none."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            used, period = (float(n) for n in " ".join((folder / file).read_text() for file in files).split())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if used > 0 and period > 0:  # -1 is no limit
            return [used / period]
    return []
