"""How fast `began-zhao` learns, beside the original repository's own code.

    OMP_NUM_THREADS=1 python benchmarks/zhao_speed.py PATH_OF_CHECKOUT [--threads 1] [--repeats 5] [--steps 3] [--only fp32]

PATH_OF_CHECKOUT is a checkout of sicongzhao/Face-Generation-and-Interpolation-with-BEGAN; its `model.py` is run. Its `train.py`
does not parse as committed, so what it does in each step is done here, line for line in the same order: the same calls of
the same classes on the same layout (NCHW, fp32), its default Adam, its k, its M and its history of M. What it does between steps
(printing, saving, pictures, its data loader, which decodes every photograph again) is left out on both sides.

Ours is the step of `mien train began-zhao`: the recipe, the routing of gradients, the finite check, the moves and the moving
average, which the original has not. All sides take turns step by step in one process on as many threads; five repeats,
medians. Time is counted by the clock and by processor: where another process shares the core, believe the second.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, has_bf16_units
from mien.core.distributed import World
from mien.core.run import override
from mien.training.ema import EMA
from mien.training.train_state import TrainState


def original_classes(checkout: Path) -> ModuleType:
    """The checkout's `model.py`, as a module of its own."""
    spec = importlib.util.spec_from_file_location("zhao_original_model", checkout / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def original(checkout: Path, side: int, images: torch.Tensor) -> Callable[[], None]:
    """One iteration of the original's loop at its default parameters but side and batch; `images` are in [0, 1]."""
    classes = original_classes(checkout)
    nc, ndf, ngf, layers, hidden, gamma, lambda_k = 3, 64, 64, 2, 64, 0.75, 0.001
    torch.manual_seed(0)
    critic = classes.Discriminator(nc, ndf, ngf, layers, hidden, side, side, False, False)
    generator = classes.Generator(nc, ngf, layers, hidden, side, False)
    critic.weight_init(0, 0.002)
    generator.weight_init(0, 0.002)
    move_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.999))
    move_d = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.5, 0.999))
    k, history, rolling = 0.0, [], deque(maxlen=100)

    def step() -> None:
        nonlocal k
        real = images * 2 - 1
        z = torch.empty(real.size(0), hidden).uniform_(-1, 1)
        move_d.zero_grad()
        fake_d = generator(z)
        judged_fake = critic(fake_d.detach())
        judged_real = critic(real)
        loss_real = torch.mean(torch.abs(judged_real - real))
        loss_fake = torch.mean(torch.abs(judged_fake - fake_d))
        (loss_real - k * loss_fake).backward()
        move_d.step()
        move_g.zero_grad()
        fake = generator(z)
        torch.mean(torch.abs(critic(fake) - fake)).backward()
        move_g.step()
        tension = torch.mean(gamma * loss_real - loss_fake)
        k = min(max(k + lambda_k * tension.item(), 0), 1)
        measure = (loss_real + torch.abs(tension)).data
        history.append(measure)
        rolling.append(measure.cpu().numpy())

    return step


def ours(side: int, images: torch.Tensor, precision: str) -> Callable[[], None]:
    """One step of `began-zhao`; `images` are in [0, 1]."""
    run = override(presets.PRESETS["began-zhao"], {"side": side})
    faces = ImageSpec(side=side)
    torch.manual_seed(0)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    engine = DeviceContext(torch.device("cpu"), precision)
    engine.place(recipe)
    recipe.train()
    learner = TrainState(recipe, EMA(model, run.ema) if run.ema else None, engine, World(), 0)
    batch = Batch(images.mul(2).sub(1).contiguous(memory_format=torch.channels_last))

    def step() -> None:
        learner.step(repeat(batch))

    return step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of each side in one repeat")
    parser.add_argument("--only", choices=("fp32", "bf16"), help="one precision of ours")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    images = torch.rand(asked.batch, 3, asked.side, asked.side)
    sides = {"original": original(asked.checkout, asked.side, images)}
    for precision in (asked.only,) if asked.only else ("fp32", "bf16"):
        sides[precision] = ours(asked.side, images, precision)
    for step in sides.values():
        step()
    clock: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(asked.repeats):
        spent = {name: [0.0, 0.0] for name in sides}
        for index in range(asked.steps):
            for name in list(sides)[:: -1 if index % 2 else 1]:
                started, busy = time.perf_counter(), time.process_time()
                sides[name]()
                spent[name][0] += time.perf_counter() - started
                spent[name][1] += time.process_time() - busy
        for name, (seconds, worked) in spent.items():
            clock[name].append(seconds)
            processor[name].append(worked)
    pictures = asked.steps * asked.batch
    print(f"began-zhao at {asked.side} px, batch {asked.batch}, {asked.threads} threads, torch {torch.__version__}")
    for name in sides:
        rate, share = (pictures / statistics.median(times[name]) for times in (clock, processor))
        ratios = [
            statistics.median(a / b for a, b in zip(times["original"], times[name], strict=True))
            for times in (clock, processor)
        ]
        print(
            f"{name:9} {rate:7.2f} images/s by the clock, {share:7.2f} by processor; "
            f"{ratios[0]:.2f} and {ratios[1]:.2f} times the original"
        )
    print(f"bf16 in hardware: {has_bf16_units('cpu')}, in matrix units: {torch.cpu._is_amx_tile_supported()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
