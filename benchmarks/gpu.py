"""Everything that needs a GPU, in one command of at most 35 minutes: for a machine that has one for an hour.

    python benchmarks/gpu.py OUT --data64 CELEBA64.pack --data128 CELEBA128.pack [--r3gan CHECKOUT]
    python benchmarks/gpu.py OUT --device cpu --toy          every part at toy size, in minutes

Parts, in order: `checks` (steps against the CPU's, resuming, augmentation, two processes on the GPU), `speed` (images a second and
share of the measured peak; layouts and torch.compile; a profile), `r3gan` (beside its authors' code), `train64` and `train128`
(`gan` at the best scale, FID of 10,000), `base128` (goes on with the 128 px run until the time is over, and keeps its model).

Each result is a line of OUT/results.jsonl as soon as it is there. The same command again does what is missing: parts that failed,
or for which there was no time; --only takes some, for a machine that allows ten minutes at a time. A part that fails leaves its
error, and the next one starts. What is still running when the time is over gets SIGTERM: a training saves and ends.
`python benchmarks/gpu_bundle.py` makes the wheels that a machine with nothing but torch lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from benchmarks import kills, r3gan_speed
from safetensors.torch import load_file
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, has_bf16_units
from mien.core.distributed import World
from mien.core.run import Run, override, scale_run
from mien.data.pack import is_pack
from mien.presets.defaults import RunContext, apply_defaults
from mien.recipes.augmentation import DRAWS, Augment, Augmentation
from mien.training.ema import EMA
from mien.training.train_state import TrainState

ROOT = Path(__file__).parent.parent
RESERVE = 60.0  # seconds at the end, for files to be kept
GRACE = 45.0  # seconds between SIGTERM and SIGKILL: torchrun gives its processes 30
ENOUGH = 20.0  # seconds: a speed that was timed for so long is not timed again
MOST = {"speed": 330.0, "r3gan": 120.0}  # seconds: of all speeds, and of each way to run the original
ROWS = 12  # of a profile


class Skipped(Exception):
    """A part has nothing to work with, or no time. The next command tries it again."""


@dataclass(frozen=True)
class Sizes:
    """How large the parts are."""

    scales: tuple[float, ...]
    sides: tuple[int, ...]
    steps: int  # that are timed, three times: a multiple of the interval of the penalties
    minutes: float  # of training at each side
    samples: int


FULL = Sizes((1.0, 4.0, 16.0), (64, 128), 12, 11.0, 10_000)
TOY = Sizes((0.25, 0.5), (16,), 4, 0.05, 64)


class Contiguous(DeviceContext):
    """Without channels-last."""

    def place(self, module: torch.nn.Module) -> None:
        module.to(self.device)

    def batch(self, batch: Batch) -> Batch:
        return Batch(batch.images.to(self.device).contiguous())


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

    def mien(self, *words: object, processes: int = 1, variables: Mapping[str, str] | None = None) -> str:
        """Run a command of mien and return what it prints. Raises RuntimeError, with its last lines."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        line = [*(launcher if processes > 1 else []), "-m", "mien", *map(str, words)]
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        done = run_command(line, self.end - time.monotonic(), {"PYTHONPATH": path, **(variables or {})})
        with (self.out / "commands.log").open("a") as log:
            log.write(f"$ mien {' '.join(map(str, words))}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise RuntimeError(f"mien {words[0]} ended with {done.returncode}: {done.stderr[-400:]}")
        return done.stdout


def run_command(
    line: Sequence[object], limit: float, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command of this Python, which gets SIGTERM after `limit` seconds, and SIGKILL if it does not heed that."""
    words, environment = [sys.executable, *map(str, line)], {**os.environ, **(variables or {})}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for seconds, end in ((max(1.0, limit), process.terminate), (GRACE, process.kill)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=seconds)
                break
            end()
        said, errors = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, said, errors)


def free(device: torch.device) -> None:
    """Give back the memory of what is no longer used: the next measurement needs it, or another process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_full(error: RuntimeError) -> bool:
    """Whether the device has too little memory; its libraries have exceptions of their own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error) or "out of memory" in str(error)


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


def gan(side: int, scale: float, device: torch.device) -> Run:
    """`gan` at a scale, as it is trained on this device with data that are not few."""
    run = presets.PRESETS["gan"]
    sized = override(run if scale == 1.0 else scale_run(run, scale), {"side": side})
    return apply_defaults(sized, RunContext(100_000, side, device.type))


def precision_of(device: torch.device) -> str:
    """The precision in which `mien train` computes there."""
    return "bf16" if has_bf16_units(device.type) else "fp32"


def noise(path: Path, count: int, side: int) -> Path:
    """A pack of noise, as an earlier call has left it or new."""
    return path if is_pack(path) else kills.write_noise(path, count, side)


# --- (a) checks


def checks(session: Session) -> None:
    run = override(gan(session.sizes.sides[0], session.sizes.scales[0], session.device), {"batch": 8})
    for precision in ("fp64", "fp32", "bf16"):
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
        return torch.cat([weight.detach().double().flatten().cpu() for weight in state.recipe.model.parameters()])

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
    fixed = ("--precision", "fp64", "--threads", 1, "--images", 80, "--device", session.device.type, "--data", pack)
    one = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    found = []
    for processes in (1, 2):
        run = session.out / f"by{processes}"
        shutil.rmtree(run, ignore_errors=True)
        session.mien("train", *small, *fixed, "--out", run, processes=processes, variables=one)
        found.append(load_file(run / "checkpoints" / "0000000080" / "state.safetensors"))
    gaps = [float((found[0][n].double() - found[1][n].double()).abs().max()) for n in found[0] if found[0][n].numel()]
    return {"largest_gap": max(gaps), "tensors": len(gaps)}


# --- (b) speed


def speed(session: Session) -> None:
    device, sizes, end = session.device, session.sizes, time.monotonic() + MOST["speed"]
    peaks = [result["peak_tflops"] for result in session.results("speed") if "peak_tflops" in result]
    if not peaks:
        peaks = [r3gan_speed.peak(device) / 1e12]
        session.note("speed", peak_tflops=peaks[0])
    known = {tuple(result.get(key) for key in ("side", "scale", "variant")) for result in session.results("speed")}
    largest = (sizes.sides[0], sizes.scales[-1])
    variants = ("contiguous", "compile", *(["cuda-graphs"] if device.type == "cuda" else []), "profile")
    plain = [(side, scale, None) for side, scale in itertools.product(sizes.sides, sizes.scales)]
    for side, scale, variant in (*plain, *((*largest, name) for name in variants)):
        if (side, scale, variant) in known:
            continue
        if time.monotonic() > end or session.left < 60:
            raise Skipped("no time is left for all of it")
        about: dict[str, Any] = {"side": side, "scale": scale, **({"variant": variant} if variant else {})}
        try:
            run = gan(side, scale, device)
            session.note("speed", **about, **fitting(run, device, sizes.steps, variant, peaks[0]))
        except Exception as error:  # an answer too: it does not work there
            session.note("speed", **about, error=f"{type(error).__name__}: {str(error)[:300]}")


def fitting(run: Run, device: torch.device, steps: int, variant: str | None, peak: float) -> dict[str, Any]:
    """Measure a run with the largest batch that fits: its own, or a half, a quarter, an eighth."""
    for part in (1, 2, 4, 8):
        smaller = override(run, {"batch": max(1, run.batch // part)})
        try:
            return profiled(smaller, device) if variant == "profile" else timed(smaller, device, steps, variant, peak)
        except RuntimeError as error:
            if not is_full(error):
                raise
        finally:
            free(device)
    raise MemoryError(f"not even a batch of {smaller.batch} fits")


def timed(run: Run, device: torch.device, steps: int, variant: str | None, peak: float) -> dict[str, Any]:
    """Images a second, and the share of the peak in TFLOP/s; steps with and without penalties in their usual proportion."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    interval = run.recipe.reg_interval  # type: ignore[attr-defined]
    context = (Contiguous if variant == "contiguous" else DeviceContext)(device, precision_of(device))
    state, source = state_of(run, context), batches(run, context)
    if variant in ("compile", "cuda-graphs"):
        # The generator alone: torch.compile has no double backward, which the critic's penalties need.
        how = {"mode": "reduce-overhead" if variant == "cuda-graphs" else "default"} if device.type == "cuda" else {}
        backend = "inductor" if device.type == "cuda" else "aot_eager"  # which needs no C++ compiler
        state.recipe.model.decode = torch.compile(state.recipe.model.decode, backend=backend, **how)  # type: ignore[method-assign]

    def step() -> None:
        state.step(source)

    r3gan_speed.seconds(step, device, steps)
    times: list[float] = []
    while len(times) < 3 and sum(times) * steps < ENOUGH:
        times.append(r3gan_speed.seconds(step, device, steps) / steps)
    seconds = statistics.median(times)
    found = {"batch": run.batch, "precision": context.precision, "images_per_second": round(run.batch / seconds, 2)}
    found["seconds"] = [round(time, 5) for time in times]
    if variant is None:
        counter = FlopCounterMode(display=False)
        with counter:
            r3gan_speed.seconds(step, device, interval)
        found["share_of_peak"] = round(counter.get_total_flops() / interval / seconds / 1e12 / peak, 4)
    if device.type == "cuda":
        found["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def profiled(run: Run, device: torch.device) -> dict[str, Any]:
    """The operations that take the most time, one interval of the penalties long."""
    context = DeviceContext(device, precision_of(device))
    state, source = state_of(run, context), batches(run, context)
    interval = run.recipe.reg_interval  # type: ignore[attr-defined]
    for _ in range(interval):
        state.step(source)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        for _ in range(interval):
            state.step(source)
        r3gan_speed.wait(device)
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    # Each kernel's time stands in two rows: its own, and that of the operation that started it.
    rows = [row for row in found.key_averages() if row.device_type == DeviceType.CPU]
    rows.sort(key=lambda row: -getattr(row, attribute))
    total = sum(getattr(row, attribute) for row in rows) or 1
    shares = [{"operation": row.key, "share": round(getattr(row, attribute) / total, 4)} for row in rows[:ROWS]]
    return {"batch": run.batch, "seconds": round(total / 1e6 / interval, 5), "profile": shares}


def r3gan(session: Session) -> None:
    """`r3gan-2024` beside its authors' code, in processes of their own: it changes global settings of torch.

    With its kernels and then without them; on a CPU it has none.
    """
    if session.given.r3gan is None:
        raise Skipped("no --r3gan CHECKOUT")
    small = ("--side", 64, "--width", 48, "--batch", 8, "--repeats", 1, "--steps", 1) if session.given.toy else ()
    line = [ROOT / "benchmarks" / "r3gan_speed.py", session.given.r3gan, "--device", session.device.type, *small]
    failed = ""
    for plain in ([], ["--plain"]) if session.device.type == "cuda" else ([],):
        if session.left < 60:
            raise Skipped("no time is left for all of it")
        done = run_command([*line, *plain], min(MOST["r3gan"], session.left))
        session.note("r3gan", plain=bool(plain), text=done.stdout.splitlines())
        failed = failed or (done.returncode and f"ended with {done.returncode}: {done.stderr[-400:]}") or ""
    if failed:
        raise RuntimeError(failed)


# --- (c) and (d) training


def chosen(session: Session, side: int) -> tuple[float, int | None]:
    """The scale and the batch of a side's run.

    The largest scale that shows a million images in the time of a training, or the smallest; and the batch with which it was
    timed, so that it fits. A run that has begun keeps its own.
    """
    for begun in session.results(f"train{side}"):
        if "scale" in begun and (session.out / "runs" / f"gan{side}" / "run.json").exists():
            return begun["scale"], begun["batch"]
    found = {
        result["scale"]: result
        for result in session.results("speed")
        if result.get("side") == side and "images_per_second" in result and "variant" not in result
    }
    needed = 1e6 / (session.sizes.minutes * 60)
    scale = max((s for s in found if found[s]["images_per_second"] >= needed), default=session.sizes.scales[0])
    return scale, found[scale]["batch"] if scale in found else None


def train(session: Session, name: str, side: int, pack: Path | None, evaluate: bool = True) -> None:
    """Train `gan` in OUT/runs for the minutes of a part, note its FID and keep the model; without `evaluate`, go on with it."""
    run = session.out / "runs" / f"gan{side}"
    if pack is None:
        if not session.given.toy:
            raise Skipped(f"no --data{side}")
        pack = noise(session.out / f"random{side}.pack", 128, side)
    status = run / "status.json"
    spent = json.loads(status.read_text())["seconds"] / 60 if status.exists() else 0.0
    room = session.left / 60 - (1.5 if evaluate and not session.given.toy else 0.0)
    goal = min(session.sizes.minutes + (0.0 if evaluate else spent), spent + room)
    if room <= 0.0:
        raise Skipped("no time is left")
    scale, batch = chosen(session, side)
    session.note(name, side=side, scale=scale, batch=batch)
    more = ("--batch", batch) if batch else ()
    own = ("--threads", 1) if session.given.toy else ()
    started = time.monotonic()
    session.mien("train", "gan", "--scale", scale, "--side", side, "--data", pack, "--out", run,
                 "--minutes", round(goal, 3), "--device", session.device.type, *more, *own)  # fmt: skip
    done = json.loads(status.read_text())
    session.note(name, images=done["seen"], minutes=round(done["seconds"] / 60, 2),
                 seconds=round(time.monotonic() - started, 1))  # fmt: skip
    model = run / "checkpoints" / f"{done['seen']:010d}" / "model.safetensors"
    shutil.copy(model, session.out / f"{name}.safetensors")
    session.mien("sample", model, "--seeds", "0-63", "-o", session.out / f"{name}.png", "--device", session.device.type)
    if evaluate:
        session.note(name, samples=session.sizes.samples, **scored(session, run, name))
    if evaluate and goal < session.sizes.minutes:
        raise Skipped(f"{goal:.1f} of {session.sizes.minutes} minutes are trained")


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
    sides, packs = session.sizes.sides, {64: session.given.data64, 128: session.given.data128}

    def part(name: str, side: int, evaluate: bool = True) -> Callable[[Session], None]:
        return lambda session: train(session, name, side, packs.get(side), evaluate)

    return {f"train{side}": part(f"train{side}", side) for side in sides} | {
        f"base{sides[-1]}": part(f"base{sides[-1]}", sides[-1], evaluate=False)
    }


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
        except Skipped as reason:
            session.note(part, skipped=str(reason))
        except Exception as error:
            failed += 1
            (session.out / f"{part}-error.txt").write_text(traceback.format_exc())
            session.note(part, error=f"{type(error).__name__}: {str(error)[:400]}")
        finally:
            free(session.device)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
