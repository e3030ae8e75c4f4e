"""Four steps of every preset, number by number: a wrong factor anywhere in a step makes one of these files differ.

`python tests/write_golden.py` writes the files anew, on purpose; the diff is then read like code. Values stand in the order
in which networks and optimizers are registered, and stats under their names, so that a renamed stat is a readable diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien import presets
from mien.core.contracts import JSON, Update
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.training import train_state as learning
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny, write_pack

GOLDEN = Path(__file__).parent / "golden" / "trajectories"
STEPS = 4
SEEN = 30_000  # images before the first step: schedules, ramps and averages are on their way, and it is not the first epoch
DEVIATION = 0.03  # of the noise on fresh weights: what starts at zero would hide what depends on it
#: How far a number may lie from the golden one, relatively: losses and weights; distances and moments. Kernels differ between
#: processors (measured with those for SSE, AVX2 and AVX-512), and a step divides noise by noise where a gradient is zero. In
#: bf16 this grows with every step, so that only the first one and the distances are compared.
TOLERANCE = {"fp32": (1e-4, 2e-3), "bf16": (0.02, 0.1)}
NEGLIGIBLE = {"fp32": 1e-6, "bf16": 1e-3}  # differences of numbers near zero

#: What the presets' own settings leave out of the first steps, by preset: the margin rule lets the generator rest, labels
#: and augmentation wait for the data that has them, and equal weights hide which is which.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "ramp": {"recipe.augment.mode": "ramp"},
        "adaptive": {"recipe.augment.mode": "adaptive", "recipe.augment.target": -1.0, "recipe.augment.images": 400},
        "adaptive, at rest": {
            "recipe.augment.mode": "adaptive",
            "recipe.augment.target": 0.0,
            "recipe.augment.images": 400,
        },
        "every 2nd, on all rows": {"recipe.reg_interval": 2, "recipe.reg_fraction": 1.0},
    },
    "cgan": {"mixing": {"recipe.style_mixing": 0.5, "recipe.label_dropout": 0.3}},
    "torch-gan-2015": {
        "wide margin": {"recipe.margin": (0.6, 0.8)},
        "adaptive-l2": {"recipe.balance": "adaptive-l2", "recipe.l2_target": (0.1, 0.2), "recipe.l2_step": 1e-3},
        "constant decay": {"recipe.balance": "none", "recipe.l1": 1e-3, "recipe.l2": 1e-2, "recipe.critic_steps": 2},
    },
    "dcgan-2015": {"new fakes": {"recipe.resample_fakes": True, "recipe.critic_steps": 2}},
    "homogan-07": {"noise": {"recipe.generator_noise": 0.1, "recipe.critic_noise": 0.2, "recipe.generator_steps": 2}},
    "began-2017": {
        "figure": {"model.layout": "figure", "recipe.latents": "shared", "recipe.plateau_steps": 2, "recipe.norm": "l2"}
    },
    "began-zhao-2020": {"stalls": {"recipe.plateau_steps": 1, "recipe.plateau_tolerance": 0.0}},
    "vae": {
        "calibrated": {"recipe.likelihood": "calibrated", "model.couplings": 0, "recipe.free_nats": 0.05},
        "warm-up": {"recipe.warmup_images": 100_000, "recipe.kl_weight": 2.0},
    },
    "vaegan-2016": {
        "no balance": {"recipe.balance": "none", "recipe.similarity_weight": 0.01, "recipe.real_weight": 0.3},
        "reconstructions as fakes": {
            "recipe.balance": "none",
            "recipe.reconstructions_as_fakes": True,
            "recipe.kl_weight": 2.0,
        },
    },
    "cppn-residual-2016": {
        "conditional": {
            "conditional": True,
            "recipe.critic_moves_above": -1.0,
            "recipe.fake_accuracy_below": 2.0,
            "recipe.fake_accuracy_enough": 2.0,
        }
    },
    "flow": {"conditional": {"conditional": True, "recipe.label_dropout": 0.3, "recipe.warmup_images": 100_000}},
}


def runs_of(preset: str) -> dict[str, Run]:
    """The preset at contract size, and its variants."""
    run = tiny(presets.PRESETS[preset])
    return {"preset": run} | {name: override(run, changes) for name, changes in VARIANTS.get(preset, {}).items()}


def norm(tensors: Iterable[Tensor]) -> float:
    """The norm of tensors together, summed in fp64."""
    return float(sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5)


def shaken(network: nn.Module) -> None:
    """Add the same noise to the weights on every machine."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.as_tensor(DEVIATION * rng.standard_normal(parameter.shape)).to(parameter))


def trajectory(run: Run, pack: Pack, precision: str) -> JSON:
    """What a run's first steps compute: losses, stats and rates of each, and the norms of its state before and after."""
    learner = ResolvedRun(run, pack, DeviceContext(torch.device("cpu"), precision), None, "blobs").initial_state(
        World()
    )
    recipe = learner.recipe
    networks = [child for child in recipe.children() if any(True for _ in child.parameters())]
    fresh = [norm(network.parameters()) for network in networks]
    shaken(recipe)
    if learner.ema:
        learner.ema.model.load_state_dict(recipe.model.state_dict())
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    served = [p.detach().clone() for p in learner.inference_model.parameters()]
    learner.seen = SEEN
    loader = Loader(
        pack, batch=run.batch, seed=run.seed, flip=run.flip, random_crop=run.random_crop, position=SEEN, threads=0
    )
    places = {id(optimizer): place for place, optimizer in enumerate(recipe.optimizers.values())}
    steps: list[JSON] = []
    apply_updates = learning.apply_updates

    def watched(group: tuple[Update, ...], rate: float = 1.0) -> None:
        for update in group:
            steps[-1]["updates"].append(
                {
                    "optimizer": places[id(update.optimizer)],
                    "rate": update.optimizer.param_groups[0]["lr"],
                    "loss": float(update.loss.detach()),
                    "clip": update.clip,
                    "stats": {name: float(value.detach()) for name, value in update.stats.items()},
                }
            )
        apply_updates(group, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "apply_updates", watched)
        for _ in range(STEPS):
            steps.append({"updates": []})
            learner.step(loader)
            steps[-1]["seen"] = learner.seen
    apart = {id(buffer) for network in networks for buffer in network.buffers()}
    memory = [norm([buffer]) for buffer in recipe.buffers() if id(buffer) not in apart]
    return {
        "steps": steps,
        "networks": [
            {
                "fresh": start,
                "moved": norm(p - q for p, q in zip(network.parameters(), old, strict=True)),
                "weights": norm(network.parameters()),
                "buffers": norm(network.buffers()),
            }
            for network, start, old in zip(networks, fresh, before, strict=True)
        ],
        "memory": [value for value in memory if value],  # of balances and schedules; one that is off is zero
        "optimizers": [
            {
                "betas": list(optimizer.param_groups[0].get("betas", ())),
                "state": state_norms(optimizer),
            }
            for optimizer in recipe.optimizers.values()
        ],
        "ema": {
            "moved": norm(p - q for p, q in zip(learner.inference_model.parameters(), served, strict=True)),
            "weights": norm(learner.inference_model.parameters()),
            "buffers": norm(learner.inference_model.buffers()),
        }
        if learner.ema
        else None,
    }


def state_norms(optimizer: torch.optim.Optimizer) -> list[float]:
    """The norms of what an optimizer remembers, each kind over all parameters, in its order."""
    kinds: dict[str, list[Tensor]] = {}
    for state in optimizer.state.values():
        for name, value in state.items():
            kinds.setdefault(name, []).append(torch.as_tensor(value))
    return [norm(tensors) for tensors in kinds.values()]


def packs_in(folder: Path) -> dict[bool, Pack]:
    """Small packs without and with labels."""
    return {False: write_pack(folder / "plain"), True: write_pack(folder / "labelled", labels=("Glasses", "Hat"))}


def recorded(preset: str, packs: dict[bool, Pack]) -> JSON:
    """The content of a preset's golden file. bf16 is computed without units for it too, only more slowly."""
    return {
        name: {precision: trajectory(run, packs[run.conditional], precision) for precision in ("fp32", "bf16")}
        for name, run in runs_of(preset).items()
    }


def differences(golden: Any, found: Any, precision: str, path: str = "") -> Iterator[str]:
    """A line for every place where two trajectories differ."""
    if isinstance(golden, dict) and isinstance(found, dict):
        for name in [*golden, *(name for name in found if name not in golden)]:
            yield from differences(golden.get(name, "absent"), found.get(name, "absent"), precision, f"{path}.{name}")
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for place, (a, b) in enumerate(zip(golden, found, strict=True)):
            yield from differences(a, b, precision, f"{path}[{place}]")
    elif isinstance(golden, float) and isinstance(found, float):
        tight, loose = TOLERANCE[precision]
        tolerance = loose if "moved" in path or "state" in path else tight
        if not isclose(golden, found, rel_tol=tolerance, abs_tol=NEGLIGIBLE[precision]):
            yield f"{path.lstrip('.')}: {golden:.6g} -> {found:.6g}"
    elif golden != found:
        yield f"{path.lstrip('.')}: {golden} -> {found}"


def compared(trajectory: JSON, precision: str) -> JSON:
    """The part of a trajectory that is alike on all machines."""
    if precision == "fp32":
        return trajectory
    moved = [network["moved"] for network in trajectory["networks"]]
    return {"steps": trajectory["steps"][:1], "moved": moved}


def gaps(golden: JSON, found: JSON) -> list[str]:
    """Where a preset's trajectories left the golden ones."""
    lines = [f"{name}: only in one of the two" for name in golden.keys() ^ found.keys()]
    for name in golden.keys() & found.keys():
        lines += [
            f"{name}, {precision}: only in one of the two" for precision in golden[name].keys() ^ found[name].keys()
        ]
        for precision in golden[name].keys() & found[name].keys():
            pair = (compared(each[name][precision], precision) for each in (golden, found))
            lines += [f"{name}, {precision}: {line}" for line in differences(*pair, precision)]
    return lines


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Pack]:
    return packs_in(tmp_path_factory.mktemp("packs"))


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_four_steps_are_what_they_were(preset: str, packs: dict[bool, Pack]) -> None:
    golden = json.loads((GOLDEN / f"{preset}.json").read_text())
    lines = gaps(golden, recorded(preset, packs))
    told = "\n".join([*lines[:20], f"... and {len(lines) - 20} more"] if len(lines) > 20 else lines)
    assert not lines, f"{told}\nif this is meant: python tests/write_golden.py {preset}, and read the diff"


def test_every_file_belongs_to_a_preset() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(presets.PRESETS)


def test_a_factor_is_seen_and_a_kernel_is_not() -> None:
    golden = {"preset": {"fp32": {"loss": 1.0, "stats": [0.5, 2]}}}
    assert gaps(golden, {"preset": {"fp32": {"loss": 1.00001, "stats": [0.5, 2]}}}) == []
    assert gaps(golden, {"preset": {"fp32": {"loss": 1.001, "stats": [0.5, 2]}}}) == ["preset, fp32: loss: 1 -> 1.001"]
    assert gaps(golden, {"preset": {"fp32": {"loss": 1.0, "stats": [0.5, 3]}}}) == ["preset, fp32: stats[1]: 2 -> 3"]
    assert gaps(golden, {"preset": {"fp32": {"loss": 1.0}}}) == ["preset, fp32: stats: [0.5, 2] -> absent"]
    assert gaps(golden, {"preset": {}}) == ["preset, fp32: only in one of the two"]
