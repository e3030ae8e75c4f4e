"""What training with several processes costs, in one command. Needs the right to make network namespaces.

    python benchmarks/processes.py [--cases gan:1:64 gan:4:64] [--only-averages gan:16:128] [--rate 1gbit] [--delay 5]

A case is PRESET:SCALE:SIDE. For 2 and 4 processes on one machine, on machines with a virtual cable, and on machines with links of
that rate and delay (`benchmarks/link.py`): what a step spends in its gradient averages, which are those of `core/distributed.py`,
what each process sends, and what bytes, rate and delay predict. Then the processor time of a step beside it, and what sending
gradients in several pieces, at once or during the backward pass, would save. `--plan` prints what follows for 64 GPUs, without
running anything.

Where processes share a core, the time of a step says nothing about machines that have one each. So the averages are measured
alone, and a step's computing by processor time, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist

from link import ADDRESS, Network
from mien import presets
from mien.core import distributed
from mien.core.contracts import Batch, ImageSpec
from mien.core.run import Run, scale_run

FILE = Path(__file__).resolve()
PORT = "29531"
PAUSE = 0.5  # seconds between two averages: a step's computing, after which TCP starts slowly
PIECE = 1 << 20  # bytes that gloo sends at a time; for each, the receiver says first that it is ready


def run_of(case: str) -> tuple[Run, int]:
    """The run and the side that PRESET:SCALE:SIDE names."""
    name, scale, side = case.split(":")
    run = presets.PRESETS[name]
    return (run if float(scale) == 1 else scale_run(run, float(scale))), int(side)


def players(run: Run, side: int) -> list[int]:
    """The parameters of each network that an update of a step moves: the generator's and the critic's."""
    faces = ImageSpec(side=side)
    with torch.device("meta"):
        model = run.model.build(faces)
        recipe = run.recipe.build(model, faces)
    own = sum(parameter.numel() for parameter in model.parameters())
    return [own, sum(parameter.numel() for parameter in recipe.parameters()) - own]


def sent(device: str) -> int:
    """Bytes that a network device of this machine has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            return int(numbers.split()[8])
    return 0


@dataclass(frozen=True)
class Task:
    """What the processes of one place do: averages of these networks, with a pause before each step."""

    sizes: list[int]
    steps: int
    pause: float = 0.0
    pieces: int = (
        0  # of a gradient, sent one after another while the pause stands for the backward pass; 0 = no such trial
    )


def average(task: Task) -> Iterator[float]:
    """Seconds that each step spends in its averages: one message for each network."""
    gradients = [torch.randn(size) for size in task.sizes if size]
    loss = torch.zeros(())
    for _ in range(task.steps + 1):
        time.sleep(task.pause)
        distributed.barrier()
        started = time.perf_counter()
        for gradient in gradients:
            distributed.average_gradients(loss, [gradient])
        yield time.perf_counter() - started


def overlapped(task: Task) -> Iterator[float]:
    """Seconds of an average that are left after a backward pass that frees a gradient piece by piece, and sends each at once."""
    for _ in range(task.steps + 1):
        distributed.barrier()
        left = 0.0
        for size in task.sizes:
            pieces = list(torch.randn(size).chunk(task.pieces))
            started = time.perf_counter()
            jobs = []
            for piece in pieces:
                time.sleep(task.pause / task.pieces)
                jobs.append(dist.all_reduce(piece, async_op=True))
            for job in jobs:
                job.wait()
            left += time.perf_counter() - started - task.pause
        yield left


def work(out: Path, tasks: list[Task]) -> None:
    """One rank: does the tasks and, in the first rank, writes what they took to a file."""
    torch.set_num_threads(1)
    device = os.environ["GLOO_SOCKET_IFNAME"]
    with distributed.world("cpu") as world:
        results = []
        for task in tasks:
            times = iter(overlapped(task) if task.pieces else average(task))
            next(times)  # connections and memory are made
            before, cpu = sent(device), time.process_time()
            seconds = list(times)
            cpu = (time.process_time() - cpu) / task.steps
            results.append({"seconds": seconds, "bytes": (sent(device) - before) / task.steps, "cpu": cpu})
            distributed.barrier()
        if world.first:
            out.write_text(json.dumps(results))


def on(network: Network | None, processes: int, tasks: list[Task]) -> list[dict[str, Any]]:
    """What each task took, in processes of this machine or on a machine each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        out = Path(folder) / "found.json"
        words = [sys.executable, str(FILE), "--rank", str(out), json.dumps([asdict(task) for task in tasks])]
        path = os.pathsep.join([str(FILE.parent.parent / "src"), os.environ.get("PYTHONPATH", "")])
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "WORLD_SIZE": str(processes), "MASTER_PORT": PORT}
        own |= {"GLOO_SOCKET_IFNAME": "cable" if network else "lo"}
        own |= {"MASTER_ADDR": ADDRESS.format(1) if network else "127.0.0.1"}
        jobs = []
        for rank in range(processes):
            before = network.inside(network.names[rank]) if network else []
            job = subprocess.Popen([*before, *words], env={**os.environ, **own, "RANK": str(rank)})
            stack.callback(job.kill)
            jobs.append(job)
        assert not any(job.wait(1800) for job in jobs), "a process failed"
        found: list[dict[str, Any]] = json.loads(out.read_text())
        return found


def ring(sizes: list[int], processes: int, rate: float, delay: float) -> float:
    """Seconds of averages in a ring: each process sends 2 (n - 1) / n of a message, in 2 (n - 1) rounds, each with the delay."""
    share = 2 * (processes - 1) / processes
    return sum(share * 4 * size / rate + 2 * (processes - 1) * delay for size in sizes if size)


def in_pieces(sent: float, rate: float, delay: float) -> float:
    """Seconds of averages where each of gloo's pieces waits until the receiver has said that it is ready."""
    return sent / rate + sent / PIECE * 2 * delay


def bytes_per_second(rate: str) -> float:
    """A rate as `tc` writes it, in bytes a second."""
    for unit, factor in (("gbit", 1.25e8), ("mbit", 1.25e5)):
        if rate.endswith(unit):
            return float(rate.removesuffix(unit)) * factor
    raise SystemExit(f"{rate}: give a rate in gbit or mbit")


def step_seconds(run: Run, side: int, batch: int, steps: int) -> tuple[float, float]:
    """Processor time of a step's computing and, of it, of its backward passes: medians, on one thread."""
    torch.set_num_threads(1)
    faces = ImageSpec(side=side)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces).train()
    images = Batch(torch.rand(batch, 3, side, side).mul(2).sub(1).contiguous(memory_format=torch.channels_last))
    recipe.to(memory_format=torch.channels_last)
    whole, backward = [], []
    for _ in range(steps + 1):
        started, passes = time.process_time(), 0.0
        for update in recipe.step(iter([images] * 4)):
            weights = [weight for group in update.optimizer.param_groups for weight in group["params"]]
            before = time.process_time()
            gradients = torch.autograd.grad(update.loss, weights, allow_unused=True)
            passes += time.process_time() - before
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = None if gradient is None else torch.empty_like(weight).copy_(gradient)
            update.optimizer.step()
        whole.append(time.process_time() - started)
        backward.append(passes)
    return statistics.median(whole[1:]), statistics.median(backward[1:])


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 0.1 else f"{1000 * seconds:,.0f} ms"


def averages(cases: list[str], rate: str, delay: float, steps: int) -> dict[tuple[str, int], float]:
    """Print the table of averages. Returns the best over the slow link, after a pause, by case and number of processes."""
    print("| case | processes | link | each sends | average, median (best) | processor time | ring | ring in pieces |")
    print("|---" * 8 + "|")
    sizes = {"two numbers": [1, 1]} | {case: players(*run_of(case)) for case in cases}
    slow, seconds = f"{rate}, {1000 * delay:g} ms", bytes_per_second(rate)
    places = [
        ("one machine", "", 0.0),
        ("virtual cable", "", 0.0),
        (slow, rate, 0.0),
        (f"{slow}, after {PAUSE:g} s of computing", rate, PAUSE),
    ]
    found: dict[tuple[str, int], float] = {}
    for processes in (2, 4):
        for place, limit, pause in places:
            tasks = [Task(own, steps, pause) for own in sizes.values()]
            if place == "one machine":
                results = on(None, processes, tasks)
            else:
                with Network(processes, limit, delay if limit else 0.0) as network:
                    results = on(network, processes, tasks)
            for case, result in zip(sizes, results, strict=True):
                median, best = statistics.median(result["seconds"]), min(result["seconds"])
                models = (ring(sizes[case], processes, seconds, delay), in_pieces(result["bytes"], seconds, delay))
                predicted = " | ".join(map(milliseconds, models)) if limit else " | "
                words = f"{milliseconds(median)} ({milliseconds(best)}) | {milliseconds(result['cpu'])} | {predicted}"
                print(f"| `{case}` | {processes} | {place} | {result['bytes'] / 1e6:.1f} MB | {words} |", flush=True)
                if limit and pause:
                    found[case, processes] = best  # what else runs on the machine only adds
    return found


def steps_of(cases: list[str], found: dict[tuple[str, int], float], steps: int) -> dict[tuple[str, int], float]:
    """Print what the averages mean for a step of one core a process. Returns the backward passes' time by case and processes."""
    print(
        "\n| case | processes | rows each | computing | of it backward | average | step | speed |\n" + "|---" * 8 + "|"
    )
    passes: dict[tuple[str, int], float] = {}
    for case in cases:
        run, side = run_of(case)
        alone = 0.0
        for processes in (1, 2, 4):
            rows = run.batch // processes
            whole, backward = step_seconds(run, side, rows, steps)
            wait = found.get((case, processes), 0.0)
            alone = alone or whole
            passes[case, processes] = backward
            words = " | ".join(map(milliseconds, (whole, backward, wait, whole + wait)))
            print(f"| `{case}` | {processes} | {rows} | {words} | {alone / (whole + wait):.2f} |", flush=True)
    return passes


def pieces_of(cases: list[str], passes: dict[tuple[str, int], float], rate: str, delay: float, steps: int) -> None:
    """Print what is left of an average in pieces that are sent at once, or during the backward passes, whose time is slept."""
    counts = (1, 2, 4, 8)
    print("\n| case | processes | backward | 1 message | 2 | 4 | 8 |\n" + "|---" * 7 + "|")
    for processes in (2, 4):
        rows = [(case, seconds) for case in cases for seconds in (0.0, passes[case, processes])]
        tasks = [Task(players(*run_of(case)), steps, slept / 2, count) for case, slept in rows for count in counts]
        with Network(processes, rate, delay) as network:
            results = iter(on(network, processes, tasks))
        for case, slept in rows:
            left = " | ".join(milliseconds(statistics.median(next(results)["seconds"])) for _ in counts)
            print(f"| `{case}` | {processes} | {milliseconds(slept)} | {left} |", flush=True)


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
    parser.add_argument("--cases", nargs="+", default=["gan:1:64", "gan:4:64"], metavar="PRESET:SCALE:SIDE")
    parser.add_argument("--only-averages", nargs="*", default=["gan:16:128"], metavar="PRESET:SCALE:SIDE")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds, one way")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args()
    if options.plan:
        plan()
        return
    delay = options.delay / 1000
    found = averages([*options.cases, *options.only_averages], options.rate, delay, options.steps)
    passes = steps_of(options.cases, found, options.steps)
    pieces_of(options.cases, passes, options.rate, delay, options.steps)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        work(Path(sys.argv[2]), [Task(**task) for task in json.loads(sys.argv[3])])
    else:
        main()
