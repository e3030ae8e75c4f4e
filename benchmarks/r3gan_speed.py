"""How fast `r3gan-2024` learns, beside the original repository's own code, and how near that is to what the device can do.

    python benchmarks/r3gan_speed.py CHECKOUT                                      on a GPU: 64 px, batch 256, as published
    OMP_NUM_THREADS=1 python benchmarks/r3gan_speed.py CHECKOUT --device cpu --width 48 --batch 8      toy size, without one

CHECKOUT is a checkout of brownvc/R3GAN, whose networks, losses and (where a compiler is there, without --plain) CUDA kernels are
run; it imports numpy. A step is what its training loop does in one: the critic's gradients,
then the generator's, each with reals and latents of its own, gradients cleared of NaN, both Adams, the moving average; its four
finest stages in bf16. Ours is the step of `mien train r3gan-2024`. Augmentation, loading and logging are left out on both
sides. The sides take turns in one process; the ratio is the median over repeats.

The share of the peak is the arithmetic of one step (counted by torch) over its time, against the fastest product of two large
matrices that is measured here, in bf16 if the device has units for it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from itertools import repeat
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.utils.flop_counter import FlopCounterMode

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, has_bf16_units
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.models.r3gan import widths_of
from mien.training.ema import EMA
from mien.training.train_state import TrainState

Step = Callable[[], None]
FINE_STAGES = 4  # that the original computes in bf16


def original(checkout: Path, run: Run, device: torch.device, images: torch.Tensor, plain: bool) -> tuple[Step, str]:
    """A step of the original's training loop, and how its own operations are computed."""
    sys.path.insert(0, str(checkout))
    stand_in()
    from R3GAN.Networks import Discriminator, Generator  # type: ignore[import-not-found]
    from R3GAN.Trainer import AdversarialTraining  # type: ignore[import-not-found]

    how = kernels(device, plain)
    widths, group = widths_of(run.side, run.model.width), run.model.group  # type: ignore[attr-defined]
    cardinalities = [2 * width // group for width in widths]
    blocks = [2] * len(widths)
    torch.manual_seed(0)
    generator = Generator(64, widths, cardinalities, blocks, 2).to(device)
    critic = Discriminator(widths[::-1], cardinalities[::-1], blocks, 2).to(device)
    for stage in range(1, FINE_STAGES + 1):
        generator.MainLayers[-stage].DataType = torch.bfloat16
        critic.MainLayers[stage - 1].DataType = torch.bfloat16
    average = deepcopy(generator).eval().requires_grad_(False)
    game = AdversarialTraining(generator, critic)
    moves = {player: torch.optim.Adam(player.parameters(), lr=2e-4, betas=(0.0, 0.9)) for player in (critic, generator)}
    n = len(images)

    def learn(player: torch.nn.Module, gradients: Step) -> None:
        generator.requires_grad_(player is generator)
        critic.requires_grad_(player is critic)
        moves[player].zero_grad(set_to_none=True)
        gradients()
        flat = torch.cat([weight.grad.flatten() for weight in player.parameters() if weight.grad is not None])
        torch.nan_to_num(flat, nan=0, posinf=1e5, neginf=-1e5, out=flat)
        sizes = [weight.numel() for weight in player.parameters()]
        for weight, part in zip(player.parameters(), torch.split(flat, sizes), strict=True):
            weight.grad = part.reshape(weight.shape)
        moves[player].step()

    def step() -> None:
        noise = torch.randn(2 * n, 64, device=device)
        learn(critic, lambda: game.AccumulateDiscriminatorGradients(noise[:n], images, None, 2.0))
        learn(generator, lambda: game.AccumulateGeneratorGradients(noise[n:], images, None))
        with torch.no_grad():
            for kept, weight in zip(average.parameters(), generator.parameters(), strict=True):
                kept.copy_(weight.lerp(kept, 0.999))

    return step, how


def stand_in() -> None:
    """What the original imports and a machine may lack: nothing of it is called in a step."""
    requests, resources = ModuleType("requests"), ModuleType("pkg_resources")
    resources.parse_version = lambda text: tuple(map(int, re.findall(r"\d+", text)[:3]))  # type: ignore[attr-defined]
    for module in (requests, resources):
        if importlib.util.find_spec(module.__name__) is None:
            sys.modules.setdefault(module.__name__, module)


def kernels(device: torch.device, plain: bool) -> str:
    """Build the original's own kernels, or turn to its plain operations, and say which. Its code does not turn by itself."""
    if device.type != "cuda":
        return "its plain operations: no CUDA device"
    why, modules = "", [importlib.import_module(f"torch_utils.ops.{name}") for name in ("bias_act", "upfirdn2d")]
    try:
        if not plain and all(module._init() for module in modules):
            return "its own CUDA kernels"
    except Exception as error:  # whatever its build runs into
        why = f": {type(error).__name__} when building its kernels"
    for module in modules:
        module._init = lambda: False  # type: ignore[attr-defined]
    return f"its plain operations{why}"


def ours(run: Run, device: torch.device, images: torch.Tensor, precision: str) -> Step:
    """A step of `mien train r3gan-2024`."""
    faces = ImageSpec(side=run.side)
    torch.manual_seed(0)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    engine = DeviceContext(device, precision)
    engine.place(recipe)
    recipe.train()
    learner = TrainState(recipe, EMA(model, run.ema) if run.ema else None, engine, World(), 0)
    batch = engine.batch(Batch(images))
    return lambda: void(learner.step(repeat(batch)))


def void(_: object) -> None:
    """Drop a result."""


def seconds(step: Step, device: torch.device, times: int = 1) -> float:
    """Time of some steps, from an idle device to an idle device."""
    wait(device)
    started = time.perf_counter()
    for _ in range(times):
        step()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Until nothing is left to compute."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(device: torch.device) -> float:
    """Operations a second of the fastest product of two matrices, of two sizes: in bf16, or in fp32 where no units compute it."""
    best, dtype = 0.0, torch.bfloat16 if has_bf16_units(device.type) else torch.float32
    for side in (4096, 8192) if device.type == "cuda" else (512, 1024):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product = lambda a=a, b=b: void(a @ b)  # noqa: E731
        seconds(product, device, 3)
        best = max(best, *(2 * side**3 * 5 / seconds(product, device, 5) for _ in range(3)))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each side in one repeat")
    parser.add_argument("--plain", action="store_true", help="the original without its CUDA kernels")
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    knobs = {"side": given.side, "batch": given.batch, "model.width": given.width, "recipe.critic.width": given.width}
    run = override(presets.PRESETS["r3gan-2024"], {**knobs, "recipe.augment.mode": "none"})
    images = torch.rand(given.batch, 3, given.side, given.side, device=device) * 2 - 1
    theirs, how = original(given.checkout, run, device, images, given.plain)
    sides = {"original": theirs, "mien": ours(run, device, images, "bf16")}
    for step in sides.values():
        seconds(step, device, 2)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.repeats):
        for name, step in sides.items():
            times[name].append(seconds(step, device, given.steps))
    counter = FlopCounterMode(display=False)
    with counter:
        sides["mien"]()
    print(
        f"r3gan-2024 at {given.side} px, width {given.width}, batch {given.batch}, {device}, torch {torch.__version__}"
    )
    print(f"the original runs {how}")
    for name, spent in times.items():
        print(f"{name:9} {given.batch * given.steps / statistics.median(spent):10.1f} images/s")
    ratio = statistics.median(a / b for a, b in zip(times["original"], times["mien"], strict=True))
    print(f"mien learns {ratio:.2f} times as fast")
    rate, most = counter.get_total_flops() * given.steps / statistics.median(times["mien"]), peak(device)
    print(f"{rate / 1e12:.3f} of {most / 1e12:.3f} TFLOP/s: {rate / most:.0%} of the measured peak")
    return 0


if __name__ == "__main__":
    sys.exit(main())
