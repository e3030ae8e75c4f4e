"""Are planted faults found, and are healthy runs left in peace? Resumable; one table at the end.

    python benchmarks/health.py WORK_DIR                       50 runs, 25 minutes of training on a busy core
    python benchmarks/health.py WORK_DIR --real PACK           some of them on a pack of photographs at 32 px
    python benchmarks/health.py WORK_DIR --only two-modes vae  those whose name holds a word

A fault counts as found when its alarm stands at the first or second look after it shows; what is drawn is not judged before
`SETTLING` images. Bounds were set on the runs of half A alone; half B is the report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mien
from mien import Batch
from mien.data import open_data
from mien.data.loader import Loader
from mien.errors import Diverged
from mien.metrics import health
from mien.training import experiment

FAULTS = Path(__file__).parent / "faults.py"
LOOK = 1_000  # images between two looks
LONG, SHORT = 4_100, 3_200  # images of a healthy run, and of one with a fault
GUARDED = (
    health.COLLAPSE,
    health.MEMORY,
    health.POSTERIOR,
    health.BALANCE,
    health.CRITIC,
)  # not judged before SETTLING

QUICK = {"model.width": 16, "model.max_width": 32, "recipe.critic.width": 16, "recipe.critic.max_width": 32}
DCGAN = {"model.width": 16, "recipe.critic.width": 16}
TORCH = {"model.width": 32, "recipe.critic.width": 8, "recipe.critic.hidden": 128}
BEGAN = {"model.width": 16, "model.encoder_width": 16}
VAE = {"model.width": 16, "model.max_width": 32, "model.latent": 32}
TORCH_VAE = {"model.width": 32, "model.encoder_width": 8, "model.hidden": 128, "model.latent": 64}
VAEGAN = {"model.width": 16, "model.hidden": 128, "recipe.critic.width": 8, "recipe.critic.hidden": 64}


@dataclass(frozen=True)
class Case:
    """One run: what is trained on what, and which fault is to be found, if any."""

    name: str
    preset: str
    data: str  # drawn16, drawn32 or real
    changes: dict[str, Any]
    fault: str = ""
    onset: int = 0  # real images seen before the fault shows
    throttled: bool = False


class Throttled(Loader):
    """A loader whose disk takes its time."""

    def _make(self, position: int) -> Batch:
        time.sleep(0.4)
        return super()._make(position)


def planted(name: str, fault: str, data: str, changes: dict[str, Any], onset: int = 0) -> Case:
    """A run of benchmarks/faults.py. Its onset counts faces drawn: two for an image in `quick`'s game, one in DCGAN's."""
    preset = name.rsplit(" ", 1)[0]
    drawn = onset * (1 if "dcgan" in name else 2)
    return Case(name, f"{FAULTS}:{preset}", data, {"batch": 64, **changes, "model.onset": drawn}, fault, onset)


def faulty() -> list[Case]:
    """Thirty runs with a fault; each kind alternates between the halves."""
    critic = {name: value for name, value in QUICK.items() if "critic" in name}
    small = {"recipe.critic.width": 16}
    began = {**BEGAN, "batch": 32}
    collapse, memory = health.COLLAPSE, health.MEMORY
    return [
        planted("constant 0", collapse, "drawn16", {**critic, "seed": 0}),
        planted("constant 1", collapse, "real", {**critic, "seed": 1}, 2_000),
        planted("constant 2", collapse, "drawn32", {**critic, "seed": 2}, 2_000),
        planted("dcgan-constant 3", collapse, "real", {**small, "seed": 3}),
        planted("dcgan-constant 4", collapse, "drawn16", {**small, "seed": 4}, 2_000),
        planted("two-modes 0", collapse, "real", {**critic, "seed": 0}),
        planted("two-modes 1", collapse, "drawn16", {**critic, "seed": 1}, 2_000),
        planted("two-modes 2", collapse, "drawn32", {**critic, "seed": 2}),
        planted("dcgan-two-modes 3", collapse, "real", {**small, "seed": 3}, 2_000),
        planted("dcgan-two-modes 4", collapse, "drawn16", {**small, "seed": 4}),
        planted("some-copies 0", memory, "drawn16", {**critic, "seed": 0}),
        planted("some-copies 1", memory, "real", {**critic, "seed": 1}, 2_000),
        planted("dcgan-some-copies 2", memory, "drawn32", {**small, "seed": 2}, 2_000),
        planted("all-copies 3", memory, "real", {**critic, "seed": 3}),
        planted("all-copies 4", memory, "drawn16", {**critic, "seed": 4}, 2_000),
        Case("beta 0", "vae", "drawn16", {**VAE, "recipe.kl_weight": 1e3, "seed": 0}, health.POSTERIOR),
        Case("beta 1", "vae", "real", {**VAE, "recipe.kl_weight": 1e3, "seed": 1}, health.POSTERIOR),
        Case("beta 2", "vae", "drawn32", {**VAE, "recipe.kl_weight": 1e3, "seed": 2}, health.POSTERIOR),
        Case("beta 3", "vae-torch-2015", "real", {**TORCH_VAE, "recipe.kl_weight": 1e3, "seed": 3}, health.POSTERIOR),
        Case("k at 0, 0", "began-zhao", "drawn16", {**began, "recipe.gamma": 0.0, "seed": 0}, health.BALANCE),
        Case("k at 0, 1", "began-zhao", "real", {**began, "recipe.gamma": 0.0, "seed": 1}, health.BALANCE),
        Case("k at 0, 2", "began-2017", "drawn16", {**began_2017(), "recipe.gamma": 0.0, "seed": 2}, health.BALANCE),
        Case("k at 0, 3", "began-zhao", "drawn32", {**began, "recipe.gamma": 0.0, "seed": 3}, health.BALANCE),
        planted("nan-for-good 0", health.DIVERGENCE, "drawn16", {**critic, "seed": 0}, 2_000),
        planted("nan-at-times 1", health.DIVERGENCE, "real", {**critic, "seed": 1, "save_every": 1_000}, 2_000),
        planted("dcgan-nan-at-times 2", health.DIVERGENCE, "drawn16",
                {**small, "seed": 2, "batch": 32, "save_every": 1_000}, 2_000),
        planted("nan-for-good 3", health.DIVERGENCE, "real", {**critic, "seed": 3}),
        Case("throttled 0", "quick", "drawn16", {**QUICK, "seed": 0, "batch": 64}, health.STARVATION, throttled=True),
        Case("throttled 1", "vae", "real", {**VAE, "seed": 1, "batch": 64}, health.STARVATION, throttled=True),
        Case("throttled 2", "dcgan-2015", "drawn16", {**DCGAN, "seed": 2, "batch": 64}, health.STARVATION, throttled=True),
    ]  # fmt: skip


def began_2017() -> dict[str, Any]:
    """The paper's BEGAN made small."""
    return {"model.width": 16, "model.hidden": 32, "model.latent": 32, "recipe.carry_images": 2_000}


def healthy() -> list[Case]:
    """Twenty runs that learn as they should."""
    return [
        Case("quick 0", "quick", "drawn16", {**QUICK, "seed": 10}),
        Case("quick 1", "quick", "real", {**QUICK, "seed": 11}),
        Case("quick 2", "quick", "drawn32", {**QUICK, "seed": 12}),
        Case("quick 3", "quick", "real", {**QUICK, "seed": 13, "recipe.lr": 1e-3}),
        Case("quick 4", "quick", "drawn16", {**QUICK, "seed": 14, "ema": None}),
        Case("quick 5", "quick", "drawn32", {**QUICK, "seed": 15, "model.width": 8}),
        Case("dcgan 0", "dcgan-2015", "drawn16", {**DCGAN, "seed": 10, "batch": 32, "images": 6_100}),
        Case("dcgan 1", "dcgan-2015", "real", {**DCGAN, "seed": 11, "batch": 16, "images": 6_100}),
        Case("dcgan 2", "dcgan-2015", "drawn16", {**DCGAN, "seed": 12, "batch": 16}),
        Case("torch-gan 0", "torch-gan-2015", "drawn16", {**TORCH, "seed": 10, "batch": 16}),
        Case("torch-gan 1", "torch-gan-2015", "real", {**TORCH, "seed": 11, "batch": 32, "images": 6_100}),
        Case("torch-gan 2", "torch-gan-2015", "drawn16", {**TORCH, "seed": 12, "batch": 16, "recipe.balance": "adaptive-l2"}),
        Case("began 0", "began-zhao", "drawn16", {**BEGAN, "seed": 10}),
        Case("began 1", "began-zhao", "real", {**BEGAN, "seed": 11}),
        Case("vae 0", "vae", "drawn16", {**VAE, "seed": 10}),
        Case("vae 1", "vae", "real", {**VAE, "seed": 11}),
        Case("vae 2", "vae", "drawn32", {**VAE, "seed": 12}),
        Case("vae 3", "vae", "real", {**VAE, "seed": 13, "recipe.kl_weight": 2.0}),
        Case("vae-torch 0", "vae-torch-2015", "real", {**TORCH_VAE, "seed": 10, "batch": 32}),
        Case("vaegan 0", "vaegan-2016", "drawn16", {**VAEGAN, "seed": 10, "batch": 32}),
    ]  # fmt: skip


def train(case: Case, work: Path, data: Path) -> Path:
    """Make the run, or what is left of it. Returns its directory."""
    out = work / case.name.replace(" ", "-").replace(",", "")
    status = out / "status.json"
    if status.exists() and json.loads(status.read_text())["state"] in ("done", "diverged"):
        return out
    shutil.rmtree(out, ignore_errors=True)  # the seconds of a run cut short are soon spent again
    copies = {"model.pack": str(data)} if "copies" in case.preset else {}
    every = {
        "images": SHORT if case.fault else LONG,
        "minutes": None,
        "sample_every": LOOK,
        "threads": 1,
        "device": "cpu",
    }
    slow = patch.object(experiment, "Loader", Throttled) if case.throttled else contextlib.nullcontext()
    with slow, contextlib.suppress(Diverged):
        mien.train(case.preset, data=data, out=out, **{**every, **copies, **case.changes})
    return out


def looks_of(run: Path) -> list[dict[str, Any]]:
    """What was found, look by look."""
    return [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]


def looks_needed(case: Case, run: Path) -> int | None:
    """After how many looks since the fault showed its alarm stood, or None for never."""
    start = max(case.onset, health.SETTLING if case.fault in GUARDED else 0)
    looks = looks_of(run)
    since = [look for look in looks if look["seen"] >= start]
    if case.fault == health.DIVERGENCE:  # a rollback takes the run, and its looks, back to before the fault
        since = [look for look in looks if look["rollbacks"]] or looks[-1:]
    states = [look["verdicts"].get(case.fault, {}).get("state") for look in since]
    return states.index("alarm") + 1 if "alarm" in states else None


def complaints(run: Path, state: str, but: str = "") -> list[str]:
    """The verdicts that were ever in a state, other than the planted one."""
    found = {name for look in looks_of(run) for name, known in look["verdicts"].items() if known["state"] == state}
    return sorted(found - {but})


#: The verdicts whose bounds were set here, and whether an ill value is a small one.
BOUNDED = ((health.COLLAPSE, True), (health.MEMORY, False), (health.POSTERIOR, True), (health.BALANCE, False),
           (health.STARVATION, False), (health.CRITIC, False))  # fmt: skip


def nearest(runs: Sequence[tuple[Path, int]], name: str, least: bool) -> str:
    """The value nearest to the bound from the healthy (`least`: the smallest) or the ill side, over the judged looks of runs,
    each with the images seen from which on they count.
    """
    values = [
        look["verdicts"][name]["value"]
        for run, start in runs
        for look in looks_of(run)
        if name in look["verdicts"] and look["seen"] >= (max(start, health.SETTLING) if name in GUARDED else start)
    ]
    return f"{(min if least else max)(values):.3g}" if values else "-"


def halves(cases: Sequence[Case], half: str) -> Iterator[Case]:
    """Every second case, by its place among all."""
    yield from cases[0 if half == "A" else 1 :: 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--real", type=Path, help="a pack of photographs; without it, drawn faces")
    parser.add_argument("--only", nargs="+", default=[""], help="words in the names of runs")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    data = {
        "drawn16": open_data("drawn", 16).path,
        "drawn32": open_data("drawn", 32, count=2_000).path,
        "real": given.real or open_data("drawn", 16, count=2_000).path,
    }
    chosen = [case for case in (*faulty(), *healthy()) if any(word in case.name for word in given.only)]
    runs = {}
    for case in chosen:
        started = time.process_time()
        runs[case.name] = train(case, given.work, data[case.data])
        needed = looks_needed(case, runs[case.name]) if case.fault else "-"
        alarms = complaints(runs[case.name], "alarm", case.fault)
        warnings = complaints(runs[case.name], "warning", case.fault)
        seconds = time.process_time() - started
        print(f"{case.name:<24} {case.data:<8} {case.fault or 'healthy':<20} looks {needed}  alarms {alarms}  warnings {warnings}"
              f"  {seconds:.0f} s", flush=True)  # fmt: skip
    for half in "AB":
        bad, good = ([c for c in halves(kind, half) if c in chosen] for kind in (faulty(), healthy()))
        found = [c for c in bad if (looks_needed(c, runs[c.name]) or 99) <= 2]
        false = [c.name for c in good if complaints(runs[c.name], "alarm")]
        print(
            f"half {half}: {len(found)} of {len(bad)} faults found within two looks; {len(good)} healthy runs, alarms in {false}"
        )
        for name, small in BOUNDED:
            ill = nearest([(runs[c.name], c.onset) for c in bad if c.fault == name], name, not small)
            sound = nearest([(runs[c.name], 0) for c in good], name, small)
            print(f"  {name:<20} nearest to its bound: {ill} in a run with the fault, {sound} in a healthy one")


if __name__ == "__main__":
    main()
