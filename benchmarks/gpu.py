"""Everything that needs a GPU, in one command of at most 35 minutes: for a machine that has one for an hour.

    python benchmarks/gpu.py OUT --data64 CELEBA64.pack --data128 CELEBA128.pack [--r3gan CHECKOUT]
    python benchmarks/gpu.py OUT --device cpu --toy          every part at toy size, in minutes

Parts, in order: `checks` (steps against the CPU's, resuming, augmentation, two processes on the GPU), `speed` (images a second and
share of the measured peak; layouts and torch.compile; a profile), `r3gan` (beside its authors' code), `train64` and `train128`
(`gan` at the best scale, FID of 10,000), `base128` (goes on with the 128 px run until the time is over, and keeps its model).

Each result is a line of OUT/results.jsonl as soon as it is there. The same command again leaves out the parts that are done;
--only takes some, for a machine that allows ten minutes at a time. A part that fails leaves its error, and the next one starts.
`python benchmarks/gpu_bundle.py` makes the wheels that a machine with nothing but torch lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from benchmarks import kills, r3gan_speed
from safetensors.torch import load_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override, scale_run
from mien.data.pack import is_pack
from mien.recipes.augmentation import DRAWS, Augment, Augmentation
from mien.training.ema import EMA
from mien.training.train_state import TrainState

ROOT = Path(__file__).parent.parent
RESERVE = 60.0  # seconds at the end, for files to be kept
ROWS = 12  # of a profile


@dataclass(frozen=True)
class Sizes:
    """How large the parts are."""

    scales: tuple[float, ...]
    sides: tuple[int, ...]
    batches: tuple[int, ...]  # the largest that fits is used
    steps: int  # that are timed, three times
    minutes: float  # of training at each side
    samples: int


FULL = Sizes((1.0, 4.0, 16.0), (64, 128), (512, 256, 128, 64), 10, 11.0, 10_000)
TOY = Sizes((0.25, 0.5), (16,), (16,), 1, 0.05, 64)


@dataclass
class Session:
    """One use of the machine: where results go, and when its time is over."""

    out: Path
    device: torch.device
    sizes: Sizes
    given: argparse.Namespace
    end: float  # time.monotonic()

    def note(self, part: str, **result: Any) -> None:
        """Write a result at once, so that it stays whatever comes."""
        line = json.dumps({"part": part, **result})
        print(line, flush=True)
        with (self.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def results(self, part: str) -> list[dict[str, Any]]:
        """What is noted of a part."""
        path = self.out / "results.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if line["part"] == part]

    @property
    def left(self) -> float:
        """Seconds until the files must be kept."""
        return self.end - time.monotonic() - RESERVE

    def mien(self, *words: object, processes: int = 1) -> str:
        """Run a command of mien and return what it prints. Raises CalledProcessError, with its last lines."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        start = launcher if processes > 1 else []
        line = [sys.executable, *start, "-m", "mien", *map(str, words)]
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        with (self.out / "commands.log").open("a") as log:
            log.write(f"$ mien {' '.join(map(str, words))}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise RuntimeError(f"mien {words[0]} ended with {done.returncode}: {done.stderr[-400:]}")
        return done.stdout


def state_of(run: Run, context: DeviceContext) -> TrainState:
    """A fresh state of training, equal on every device."""
    faces = ImageSpec(side=run.side)
    torch.manual_seed(0)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    context.place(recipe)
    recipe.train()
    return TrainState(recipe, EMA(model, run.ema) if run.ema else None, context, World(), 0)


def batches(run: Run, context: DeviceContext, seed: int = 0) -> Iterator[Batch]:
    """The same random images on every device, without end."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(run.batch, 3, run.side, run.side, generator=generator) * 2 - 1
    batch = context.batch(Batch(images))
    while True:
        yield batch


def gan(side: int, scale: float, batch: int) -> Run:
    """`gan` at a scale."""
    run = presets.PRESETS["gan"]
    sized = run if scale == 1.0 else scale_run(run, scale)
    return override(sized, {"side": side, "batch": batch, "recipe.augment.mode": "none"})


def noise(path: Path, count: int, side: int) -> Path:
    """A pack of noise, as an earlier call has left it or new."""
    return path if is_pack(path) else kills.write_noise(path, count, side)


# --- (a) checks


def checks(session: Session) -> None:
    side = session.sizes.sides[0]
    run = gan(side, session.sizes.scales[0], 8)
    for precision in ("fp32", "bf16"):
        found = {
            place.type: moved(run, DeviceContext(place, precision)) for place in (torch.device("cpu"), session.device)
        }
        one, other = found["cpu"], found[session.device.type]
        session.note(
            "checks", check=f"5 steps in {precision} against the CPU's",
            relative_distance=float((one - other).norm() / one.norm()), weights=len(one),
        )  # fmt: skip
    session.note("checks", check="resume to the bit", equal=resumes(run, DeviceContext(session.device, "bf16")))
    session.note("checks", check="double backward of augmentation", largest_gap=augmented(session.device))
    session.note("checks", check="two processes on one device", **shared_device(session))


def moved(run: Run, context: DeviceContext) -> Tensor:
    """How far 5 steps move the model's weights, flat, on the CPU."""
    state, source = state_of(run, context), batches(run, context)

    def flat() -> Tensor:
        return torch.cat([weight.detach().float().flatten().cpu() for weight in state.recipe.model.parameters()])

    before = flat()
    for _ in range(5):
        state.step(source)
    return flat() - before


def resumes(run: Run, context: DeviceContext) -> bool:
    """Whether 3 steps, a checkpoint and 3 steps give what 6 steps give, in every bit of the state."""
    whole, source = state_of(run, context), batches(run, context)
    for _ in range(3):
        whole.step(source)
    again = state_of(run, context)
    again.restore({name: tensor.cpu().clone() for name, tensor in whole.tensors().items()}, whole.counters())
    for state in (whole, again):
        for _ in range(3):
            state.step(source)
    one, other = whole.tensors(), again.tensors()
    return all(torch.equal(one[name], other[name]) for name in one)


def augmented(device: torch.device) -> float:
    """The largest difference between the device's and the CPU's gradient of a gradient penalty behind augmentation."""
    found = []
    for place in (torch.device("cpu"), device):
        module = Augment(Augmentation(mode="ramp", colour=1.0)).to(place, torch.float64)
        module.p.fill_(1.0)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64).to(place).requires_grad_()
        numbers = torch.randn(4, DRAWS, generator=generator)
        changed = module(images, numbers)
        slope = torch.autograd.grad(changed.pow(3).sum(), images, create_graph=True)[0]
        found.append(torch.autograd.grad(slope.square().sum(), images)[0].cpu())
    return float((found[0] - found[1]).abs().max())


def shared_device(session: Session) -> dict[str, Any]:
    """Train with one process and with two; in fp64, so that only the order of sums differs."""
    pack = noise(session.out / "random.pack", 64, 16)
    small = ("dcgan-2015", "--model.width", 4, "--recipe.critic.width", 4, "--model.latent", 8, "--batch", 8)
    fixed = (
        *small,
        "--precision",
        "fp64",
        "--threads",
        1,
        "--images",
        80,
        "--device",
        session.device.type,
        "--data",
        pack,
    )
    found = []
    for processes in (1, 2):
        run = session.out / f"by{processes}"
        shutil.rmtree(run, ignore_errors=True)
        session.mien("train", *fixed, "--out", run, processes=processes)
        found.append(load_file(run / "checkpoints" / "0000000080" / "state.safetensors"))
    gaps = [float((found[0][n].double() - found[1][n].double()).abs().max()) for n in found[0] if found[0][n].numel()]
    return {"largest_gap": max(gaps), "tensors": len(gaps)}


# --- (b) speed


def speed(session: Session) -> None:
    device, sizes = session.device, session.sizes
    most = r3gan_speed.peak(device)
    session.note("speed", peak_tflops=most / 1e12)
    for side in sizes.sides:
        for scale in sizes.scales:
            if session.left < 60:
                return
            try:
                session.note("speed", **timed(session, side, scale, most))
            except Exception as error:
                session.note("speed", side=side, scale=scale, error=f"{type(error).__name__}: {str(error)[:300]}")
    side, scale = sizes.sides[0], sizes.scales[-1]
    for name in ("contiguous", "compile", "cuda-graphs"):
        if session.left < 120:
            return
        if name == "cuda-graphs" and device.type != "cuda":
            continue
        try:
            session.note("speed", variant=name, **timed(session, side, scale, most, name))
        except Exception as error:  # an answer too: the variant does not work there
            session.note("speed", variant=name, error=f"{type(error).__name__}: {str(error)[:300]}")
    session.note("speed", side=side, scale=scale, profile=profiled(gan(side, scale, sizes.batches[-1]), device))


def timed(session: Session, side: int, scale: float, most: float, variant: str = "") -> dict[str, Any]:
    """Images a second of `gan` with the largest batch that fits, and its share of the peak."""
    for batch in session.sizes.batches:
        try:
            run = gan(side, scale, batch)
            context = DeviceContext(session.device, "bf16")
            state, source = state_of(run, context), batches(run, context)
            if variant == "contiguous":
                state.recipe.to(memory_format=torch.contiguous_format)
            elif (
                variant
            ):  # the generator alone: torch.compile has no double backward, which the critic's penalties need
                state.recipe.model.compile(mode="reduce-overhead" if variant == "cuda-graphs" else "default")
            steps = session.sizes.steps

            def work(state: TrainState = state, source: Iterator[Batch] = source) -> None:
                state.step(source)

            r3gan_speed.seconds(work, session.device, 2)
            times = [r3gan_speed.seconds(work, session.device, steps) for _ in range(3)]
            counter = FlopCounterMode(display=False)
            with contextlib.nullcontext() if variant else counter:
                work()
            rate = batch * steps / statistics.median(times)
            flops = counter.get_total_flops() * steps / statistics.median(times)
            share = {} if variant else {"share_of_peak": round(flops / most, 4)}
            memory = torch.cuda.max_memory_allocated() / 2**30 if session.device.type == "cuda" else 0.0
            return {
                "side": side, "scale": scale, "batch": batch, "images_per_second": round(rate, 2), **share,
                "seconds": [round(seconds, 4) for seconds in times], "memory_gib": round(memory, 2),
            }  # fmt: skip
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise MemoryError(f"no batch of {session.sizes.batches} fits")


def profiled(run: Run, device: torch.device) -> list[dict[str, Any]]:
    """The operations that take the most time in two steps."""
    context = DeviceContext(device, "bf16")
    state, source = state_of(run, context), batches(run, context)
    state.step(source)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        for _ in range(2):
            state.step(source)
        r3gan_speed.wait(device)
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(found.key_averages(), key=lambda row: -getattr(row, attribute))
    total = sum(getattr(row, attribute) for row in rows) or 1
    return [{"operation": row.key, "share": round(getattr(row, attribute) / total, 4)} for row in rows[:ROWS]]


def r3gan(session: Session) -> None:
    """`r3gan-2024` beside its authors' code, in a process of its own: their code changes global settings of torch."""
    if session.given.r3gan is None:
        session.note("r3gan", skipped="no --r3gan CHECKOUT")
        return
    toy = (
        ["--side", "64", "--width", "48", "--batch", "8", "--repeats", "1", "--steps", "1"] if session.given.toy else []
    )
    line = [
        sys.executable,
        ROOT / "benchmarks" / "r3gan_speed.py",
        session.given.r3gan,
        "--device",
        session.device.type,
    ]
    done = subprocess.run([*map(str, line), *toy], capture_output=True, text=True, timeout=max(60.0, session.left))
    session.note("r3gan", code=done.returncode, text=done.stdout.splitlines(), error=done.stderr[-400:])


# --- (c) and (d) training


def best_scale(session: Session, side: int) -> float:
    """The largest scale that shows a million images in the time of a training, or the smallest scale."""
    needed = 1e6 / (session.sizes.minutes * 60)
    found = {
        r["scale"]: r["images_per_second"]
        for r in session.results("speed")
        if r.get("side") == side and "images_per_second" in r
    }
    fast = [scale for scale, rate in found.items() if rate >= needed]
    return max(fast, default=session.sizes.scales[0])


def train(session: Session, name: str, side: int, pack: Path | None, minutes: float, evaluate: bool = True) -> None:
    """Train `gan` for some minutes in `OUT/name` (or go on with it), note FID and keep the model."""
    if minutes <= 0:
        session.note(name, skipped="no time is left")
        return
    run = session.out / "runs" / f"gan{side}"
    if pack is None:
        if not session.given.toy:
            session.note(name, skipped=f"no --data{side}")
            return
        pack = noise(session.out / f"random{side}.pack", 128, side)
    scale = best_scale(session, side)
    known = run / "run.json"
    spent = json.loads((run / "status.json").read_text())["seconds"] / 60 if known.exists() else 0.0
    toy = ("--batch", 16, "--threads", 1) if session.given.toy else ()
    started = time.monotonic()
    session.mien("train", "gan", "--scale", scale, "--side", side, "--data", pack, "--out", run,
                 "--minutes", round(spent + minutes, 3), "--device", session.device.type, *toy)  # fmt: skip
    status = json.loads((run / "status.json").read_text())
    session.note(name, side=side, scale=scale, images=status["seen"], seconds=round(time.monotonic() - started, 1))
    model = run / "checkpoints" / f"{status['seen']:010d}" / "model.safetensors"
    shutil.copy(model, session.out / f"{name}.safetensors")
    session.mien("sample", model, "--seeds", "0-63", "-o", session.out / f"{name}.png", "--device", session.device.type)
    if evaluate:
        session.note(name, side=side, samples=session.sizes.samples, **scored(session, run, name))


def scored(session: Session, run: Path, name: str) -> dict[str, Any]:
    """FID of a run. An error stays a result: a training is not repeated because the weights of Inception are not there."""
    own: tuple[str, ...] = ()
    if session.given.toy:
        eye = session.out / "pixels.py"
        eye.write_text("from mien.metrics.features import PixelFeatures as pixels\n")
        own = ("--extractor", f"{eye}:pixels")
    fixed = ("--metrics", "fid", "--samples", session.sizes.samples, "--device", session.device.type, "--json")
    try:
        return {"scores": json.loads(session.mien("evaluate", run, *fixed, *own))["scores"]}
    except RuntimeError as error:
        return {"error": str(error)}


def trainings(session: Session) -> dict[str, Callable[[Session], None]]:
    """The parts that train, smallest side first; the last goes on with the largest side until the time is over."""
    sides, given = session.sizes.sides, session.given
    packs = {64: given.data64, 128: given.data128}
    most = session.sizes.minutes

    def part(name: str, side: int) -> Callable[[Session], None]:
        return lambda s: train(s, name, side, packs.get(side), min(most, s.left / 60 - (0 if given.toy else 1.5)))

    found = {f"train{side}": part(f"train{side}", side) for side in sides}
    base = f"base{sides[-1]}"
    found[base] = lambda s: train(s, base, sides[-1], packs.get(sides[-1]), min(s.left / 60, most), evaluate=False)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--minutes", type=float, default=35.0, help="after which everything is kept")
    parser.add_argument("--data64", type=Path)
    parser.add_argument("--data128", type=Path)
    parser.add_argument("--r3gan", type=Path, help="a checkout of brownvc/R3GAN")
    parser.add_argument("--only", nargs="+", help="some parts; the others stay as they are")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.minutes * 60
    session = Session(given.out.resolve(), torch.device(given.device), TOY if given.toy else FULL, given, end)
    parts: dict[str, Callable[[Session], None]] = {
        "checks": checks,
        "speed": speed,
        "r3gan": r3gan,
        **trainings(session),
    }
    name = torch.cuda.get_device_name() if session.device.type == "cuda" else "CPU"
    session.note("machine", torch=torch.__version__, device=name, toy=given.toy)
    failed = 0
    for part, work in parts.items():
        done = any(result.get("finished") for result in session.results(part))
        if done or (given.only and part not in given.only):
            continue
        began = time.monotonic()
        try:
            work(session)
            session.note(part, finished=True, seconds=round(time.monotonic() - began, 1))
        except Exception as error:
            failed += 1
            (session.out / f"{part}-error.txt").write_text(traceback.format_exc())
            session.note(part, error=f"{type(error).__name__}: {str(error)[:400]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
