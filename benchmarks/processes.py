"""What training with several processes costs: one table, in one command. Needs the right to make network namespaces.

    python benchmarks/processes.py [--presets quick gan] [--rate 1gbit] [--delay 5ms] [--steps 10]

For each preset: its parameters, the bytes of a step's gradient averages, and the time that a step spends in them, with 2 and 4
processes on this machine, and with 2 processes in two network namespaces whose cable has the rate and the delay (`tc netem`). The
averages are those of `core/distributed.py`. `--plan` prints what follows for 64 GPUs, without running anything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.distributed as dist

from mien import presets
from mien.core import distributed
from mien.core.contracts import ImageSpec
from mien.core.run import Run, scale_run

FILE = Path(__file__)
CABLE = "10.78.0"
PORT = "29531"


def players(run: Run, side: int) -> list[int]:
    """The parameters of each network that an update of a step moves: the generator's and the critic's."""
    faces = ImageSpec(side=side)
    with torch.device("meta"):
        model = run.model.build(faces)
        recipe = run.recipe.build(model, faces)
    own = sum(parameter.numel() for parameter in model.parameters())
    return [own, sum(parameter.numel() for parameter in recipe.parameters()) - own]


def average(sizes: list[int], steps: int) -> float:
    """Median seconds that a step spends in its averages: one message for each network."""
    gradients = [torch.randn(size) for size in sizes if size]
    loss, spent = torch.zeros(()), []
    for _ in range(steps + 1):
        distributed.barrier()
        started = time.perf_counter()
        for gradient in gradients:
            distributed.average_gradients(loss, [gradient])
        spent.append(time.perf_counter() - started)
    return sorted(spent[1:])[steps // 2]


def work(words: list[str]) -> None:
    """One rank: measures the average and, in the first rank, writes it to a file."""
    steps, out, *sizes = words
    torch.set_num_threads(1)
    with distributed.world("cpu") as world:
        found = average([int(size) for size in sizes], int(steps))
        if world.first:
            Path(out).write_text(
                json.dumps({"seconds": found, "backend": dist.get_backend() if world.size > 1 else ""})
            )


def launch(
    processes: int, words: list[str], place: list[str], before: list[str], more: dict[str, str]
) -> subprocess.Popen[bytes]:
    """The launcher of one node."""
    line = [
        *before,
        sys.executable,
        "-m",
        "torch.distributed.run",
        *place,
        "--nproc-per-node",
        str(processes),
        str(FILE),
    ]
    path = os.pathsep.join([str(FILE.parent.parent / "src"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}
    return subprocess.Popen([*line, "--rank", *words], env=env, stderr=subprocess.DEVNULL)


def on_this_machine(processes: int, sizes: list[int], steps: int) -> float:
    """Seconds of a step in averages, of processes on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        job = launch(processes, [str(steps), str(out), *map(str, sizes)], ["--standalone"], [], {})
        assert job.wait(1200) == 0, "a process failed"
        return float(json.loads(out.read_text())["seconds"])


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def over_a_cable(sizes: list[int], steps: int, rate: str, delay: str) -> float:
    """Seconds of a step in averages, of two processes on two machines: namespaces with a cable of this rate and delay."""
    names = [f"mienbench{os.getpid()}{letter}" for letter in "ab"]
    ends = [f"mb{os.getpid() % 10**6}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "cable")
            ip("-n", name, "addr", "add", f"{CABLE}.{number}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
            shape = [
                "tc",
                "qdisc",
                "add",
                "dev",
                "cable",
                "root",
                "netem",
                "delay",
                delay,
                "rate",
                rate,
                "limit",
                "100000",
            ]
            if subprocess.run(["ip", "netns", "exec", name, *shape]).returncode:
                return math.nan  # this kernel has no netem
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            place = ["--nnodes", "2", "--master-addr", f"{CABLE}.1", "--master-port", PORT]
            words, jobs = [str(steps), str(out), *map(str, sizes)], []
            for rank, name in enumerate(names):
                before = ["ip", "netns", "exec", name]
                more = {"GLOO_SOCKET_IFNAME": "cable"}
                jobs.append(launch(1, words, [*place, "--node-rank", str(rank)], before, more))
            assert [job.wait(1200) for job in jobs] == [0, 0], "a process failed"
            return float(json.loads(out.read_text())["seconds"])
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def plan() -> None:
    """64 GPUs, `gan --scale 16` at 128 px: bytes of a step, and the efficiency that follows."""
    sizes = players(scale_run(presets.PRESETS["gan"], 16.0), 128)
    message = 4 * sum(sizes)
    ring = 2 * message * 63 / 64  # bytes that each process sends in a ring all-reduce
    print(f"gan --scale 16 at 128 px: {sizes[0]:,} + {sizes[1]:,} parameters, {message / 1e6:.1f} MB a step")
    print(f"64 processes in a ring: each sends {ring / 1e6:.1f} MB a step")
    for name, rate in (("10 Gbit/s", 1.25e9), ("100 Gbit/s", 12.5e9), ("400 Gbit/s", 50e9)):
        spent = ring / rate
        words = ", ".join(f"{step:.2g} s: {step / (step + spent):.0%}" for step in (0.1, 0.3, 1.0))
        print(f"  {name}: {1000 * spent:.1f} ms; efficiency of a step of {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["quick", "gan"])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", default="5ms")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--plan", action="store_true")
    given = parser.parse_args()
    if given.plan:
        plan()
        return
    print("| preset | parameters | bytes a step | 2 processes | 4 processes | 2 machines |\n|---|---|---|---|---|---|")
    for name in given.presets:
        sizes = players(presets.PRESETS[name], given.side)
        here = [on_this_machine(count, sizes, given.steps) for count in (2, 4)]
        far = over_a_cable(sizes, given.steps, given.rate, given.delay)
        times = " | ".join("no netem here" if math.isnan(s) else f"{1000 * s:.0f} ms" for s in (*here, far))
        print(f"| `{name}` | {sum(sizes):,} | {4 * sum(sizes) / 1e6:.1f} MB | {times} |", flush=True)


if __name__ == "__main__":
    work(sys.argv[2:]) if sys.argv[1:2] == ["--rank"] else main()
