"""What the loop, the checkpoints and mixed precision cost or save.

    python benchmarks/loop.py            loop against a hand-written loop, checkpoint cost, bf16 against fp32
    python benchmarks/loop.py --only loop
    python benchmarks/loop.py --only threads     one thread, all cores on each layer, all cores on rows of the batch
    python benchmarks/loop.py --only memory      freed memory kept for the next step, against glibc's own way

Both sides of each comparison take turns in one process; medians of the rounds' ratios. A claim that fails prints FAIL and exits 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, has_bf16_units
from mien.core.distributed import World
from mien.core.memory import freed_memory_kept
from mien.core.run import EMAConfig, Run, override
from mien.recipes.losses import bce_fake, bce_real
from mien.storage import checkpoint
from mien.training.ema import EMA
from mien.training.replicas import threads_for
from mien.training.train_state import TrainState

HEADER = {"config": {}, "run_fingerprint": "", "data": {"fingerprint": ""}}


class Stream:
    """The same random batch again and again: data is not what is measured here."""

    def __init__(self, count: int, side: int) -> None:
        self.batch = Batch(torch.rand(count, 3, side, side).mul(2).sub(1).to(memory_format=torch.channels_last))

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        return self.batch


def learner_of(run: Run, precision: str, channels_last: bool = True) -> TrainState:
    torch.manual_seed(0)
    faces = ImageSpec(side=run.side)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    engine = DeviceContext(torch.device("cpu"), precision)
    if channels_last:
        engine.place(recipe)
    recipe.train()
    return TrainState(recipe, EMA(model, run.ema) if run.ema else None, engine, World(), 0)


def by_hand(learner: TrainState, stream: Stream) -> Callable[[], None]:
    """dcgan-2015 as one would write it in a notebook: same networks, optimizers, averaging and finite check."""
    generator, critic = learner.recipe.model, learner.recipe.critic
    move_g, move_c = learner.recipe.optimizers["generator"], learner.recipe.optimizers["critic"]
    average = learner.ema
    assert average is not None
    seen = 0

    def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if not bool(torch.isfinite(norm + loss.detach())):
            raise FloatingPointError
        optimizer.step()

    def step() -> None:
        nonlocal seen
        reals = next(stream).images
        fakes = generator(torch.randn(len(reals), *generator.latent_shape))
        for parameter in critic.parameters():
            parameter.requires_grad_(True)
        descend(move_c, bce_real(critic(reals)) + bce_fake(critic(fakes.detach())))
        for parameter in critic.parameters():
            parameter.requires_grad_(False)
        descend(move_g, bce_real(critic(fakes)))
        seen += len(reals)
        average.update(generator, len(reals), seen)

    return step


def interleaved(sides: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each side in each round; the sides take turns step by step, so that other work on the machine hits all."""
    for step in sides.values():
        for _ in range(2):
            step()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        sums = dict.fromkeys(sides, 0.0)
        for index in range(steps):
            for name in sorted(sides, reverse=bool(index % 2)):
                started = time.perf_counter()
                sides[name]()
                sums[name] += time.perf_counter() - started
        for name, total in sums.items():
            times[name].append(total / steps)
    return times


def ratio_of(times: dict[str, list[float]], above: str, below: str) -> float:
    """The median over rounds of one side's time over another's."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def loop() -> bool:
    run = override(
        presets.PRESETS["dcgan-2015"],
        {"side": 32, "model.width": 32, "recipe.critic.width": 32, "batch": 32, "ema": EMAConfig()},
    )
    stream = Stream(run.batch, run.side)
    ours, theirs = learner_of(run, "fp32"), learner_of(run, "fp32")

    def step() -> None:
        ours.step(iter(stream))

    times = interleaved({"mien": step, "hand": by_hand(theirs, stream)}, rounds=9, steps=10)
    hand, ratio = statistics.median(times["hand"]), ratio_of(times, "mien", "hand")
    extra = hand * (ratio - 1)
    good = extra < max(0.03 * hand, 1e-3)
    print(
        f"loop: by hand {1e3 * hand:.2f} ms a step; mien takes {100 * (ratio - 1):+.1f}% ({1e3 * extra:+.2f} ms) more, "
        f"median of 9 {'ok' if good else 'FAIL'}"
    )
    return good


def checkpoints() -> bool:
    """At the default period a checkpoint waits until its cost is 2% of the time since the last: the cost itself is printed."""
    good = True
    for name in ("quick", "torch-gan-2015"):
        run = presets.PRESETS[name]
        learner = learner_of(run, "fp32")
        learner.step(iter(Stream(2, run.side)))
        with tempfile.TemporaryDirectory(dir=".") as folder:
            costs = []
            for index in range(5):
                started = time.perf_counter()
                learner.seen = index
                checkpoint.commit(Path(folder), learner.snapshot(HEADER), {})
                costs.append(time.perf_counter() - started)
        cost = statistics.median(costs)
        period = max(30.0, cost / 0.02)
        good &= cost / period <= 0.02
        print(
            f"checkpoint of {name}: {cost:.2f} s, at most every {period:.0f} s: {100 * cost / period:.2f}% of the time"
        )
    return good


def precision() -> bool:
    """torch-gan-2015 in bf16 and channels-last against plain fp32 NCHW."""
    if not has_bf16_units("cpu"):
        print("bf16: this CPU has no bf16 units; nothing to compare")
        return True
    run = override(presets.PRESETS["torch-gan-2015"], {"recipe.balance": "none"})
    stream = Stream(8, run.side)
    sides = {}
    for name, precision_, layout in (("bf16", "bf16", True), ("fp32", "fp32", True), ("plain", "fp32", False)):
        learner = learner_of(run, precision_, layout)
        if not layout:
            learner.context = PlainEngine(torch.device("cpu"), "fp32")
        sides[name] = lambda learner=learner: learner.step(iter(stream))
    times = interleaved(sides, rounds=5, steps=2)
    ratio = ratio_of(times, "plain", "bf16")
    matrix = bool(torch.cpu._is_amx_tile_supported())
    good = ratio >= 3 or not matrix
    print(
        f"bf16 channels-last: {ratio:.2f} times plain fp32 NCHW, fp32 channels-last {ratio_of(times, 'plain', 'fp32'):.2f} times "
        f"({'with' if matrix else 'without'} bf16 matrix units) {'ok' if good else 'FAIL'}"
    )
    return good


def threads() -> bool:
    """What all cores make of `gan`, `flow` and `vae` at 64 px: by splitting every layer, and by splitting the rows of a batch."""
    with freed_memory_kept():  # as a training has it
        found = [threads_of(name) for name in ("gan", "flow", "vae")]
    return all(found)


def threads_of(name: str) -> bool:
    """The same of one preset."""
    cores = torch.get_num_threads()
    run = presets.PRESETS[name]
    sides, stream = {}, Stream(run.batch, run.side)
    for side, count in (("one", 1), ("layers", cores), ("rows", cores)):
        learner = learner_of(run, "bf16" if has_bf16_units("cpu") else "fp32")
        learner.threads = threads_for(learner.recipe, run.batch, run.side) if side == "rows" else 1

        def step(learner: TrainState = learner, count: int = count, stream: Stream = stream) -> None:
            torch.set_num_threads(count)
            learner.step(stream)

        sides[side] = step
    torch.set_num_threads(cores)
    times = interleaved(sides, rounds=7, steps=4)
    rate = run.batch / statistics.median(times["one"])
    layers, rows = ratio_of(times, "one", "layers"), ratio_of(times, "one", "rows")
    print(
        f"{name}, {cores} cores: {rate:.0f} images/s on one thread; threads that split layers {layers:.2f} times as many, "
        f"threads that split rows {rows:.2f} times {'ok' if rows >= 1.8 else 'FAIL'}"
    )
    return rows >= 1.8


def memory() -> bool:
    """What it is worth that freed memory stays with the process, for some presets on one thread and `gan` on all."""
    cores, good = torch.get_num_threads(), True
    for name, side, count in (
        ("gan", 64, 1),
        ("gan", 64, cores),
        ("gan", 32, 1),
        ("vae", 64, 1),
        ("dcgan-2015", 64, 1),
    ):
        times: dict[str, list[float]] = {"kept": [], "given-back": []}
        for _ in range(3):  # a process each: once a heap has grown, glibc uses its addresses again
            for way, seconds in times.items():
                line = [sys.executable, __file__, "--steps", name, str(side), str(count), way]
                seconds.append(float(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout))
        ratio = ratio_of(times, "given-back", "kept")
        good &= ratio >= 1.0
        print(
            f"{name} at {side} px, {count} thread(s): {ratio:.2f} times as many images a second where freed memory is kept "
            f"{'ok' if ratio >= 1.0 else 'FAIL'}",
            flush=True,
        )
    return good


def steps(name: str, side: int, count: int, way: str) -> None:
    """Print the seconds of processors that six steps take, with freed memory kept or given back."""
    torch.set_num_threads(count)
    run = replace(presets.PRESETS[name], side=side)
    with freed_memory_kept() if way == "kept" else nullcontext():
        learner, stream = learner_of(run, "bf16" if has_bf16_units("cpu") else "fp32"), Stream(run.batch, side)
        learner.threads = threads_for(learner.recipe, run.batch, side)
        for _ in range(2):
            learner.step(stream)
        started = time.process_time()
        for _ in range(6):
            learner.step(stream)
        print(time.process_time() - started)


class PlainEngine(DeviceContext):
    """NCHW, as a plain script would have it."""

    def batch(self, batch: Batch) -> Batch:
        return Batch(batch.images.contiguous(), batch.labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("loop", "checkpoints", "precision", "threads", "memory"))
    parser.add_argument("--steps", nargs=4, metavar=("PRESET", "SIDE", "THREADS", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        steps(options.steps[0], int(options.steps[1]), int(options.steps[2]), options.steps[3])
        sys.exit()
    only = options.only
    checks = {"loop": loop, "checkpoints": checkpoints, "precision": precision, "threads": threads, "memory": memory}
    results = [check() for name, check in checks.items() if only in (None, name)]
    sys.exit(0 if all(results) else 1)
