"""What changes while a run goes on, in closed form: each schedule of every preset at several numbers of images seen."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sin
from typing import Any

import pytest
import torch

from mien import presets
from mien.core.contracts import ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import EMAConfig, override
from mien.core.schedules import cosine, linear
from mien.data.pack import Pack
from mien.recipes.began import BEGANConfig
from mien.recipes.flow import FlowMatchingConfig
from mien.recipes.relativistic_gan import RelativisticGANConfig
from mien.recipes.torch_gan import TorchGANConfig
from mien.recipes.vae import VAEConfig
from mien.recipes.vaegan import VAEGANConfig
from mien.training.ema import EMA
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny, write_pack

SEEN = (0, 700, 13_000, 40_000, 333_333, 1_000_000, 12_345_678, 60_000_000)

RUNS = {name: tiny(run) for name, run in presets.PRESETS.items()} | {
    "quick, turned": override(
        tiny(presets.PRESETS["quick"]),
        {"recipe.gamma_end": 0.1, "recipe.beta2_end": 0.9, "recipe.augment.mode": "ramp"},
    ),
    "vae, warm-up": override(tiny(presets.PRESETS["vae"]), {"recipe.warmup_images": 50_000, "recipe.kl_weight": 2.0}),
    "torch-gan-2015, floor": override(tiny(presets.PRESETS["torch-gan-2015"]), {"recipe.lr_floor": 5e-4}),
}


def half_wave(start: float, end: float, share: float) -> float:
    """Half a cosine from start to end, written with a sine."""
    return start + (end - start) * sin(pi / 2 * min(share, 1.0)) ** 2


def straight(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(share, 1.0)


def relativistic(c: RelativisticGANConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    share = seen / c.decay_images
    pixels = (16 / c.gamma_side) ** 2 if c.gamma_side else 1.0
    (group,) = recipe.optimizers["critic"].param_groups
    found = {
        "rate": (group["lr"], half_wave(c.lr, c.lr_end, share)),
        "beta1": (group["betas"][0], c.beta1),
        "beta2": (group["betas"][1], half_wave(c.beta2, c.beta2_end, share)),
        "gamma": (recipe.gamma, pixels * half_wave(c.gamma, c.gamma_end, share)),
    }
    if c.augment.mode == "ramp":
        found["augmentation"] = (float(recipe.augment.p), half_wave(0.0, c.augment.p, seen / c.augment.images))
    return found


def flow(c: FlowMatchingConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    rate = half_wave(c.lr, c.lr_end, seen / c.decay_images) * min(1.0, seen / c.warmup_images)
    return {"rate": (recipe.optimizers["field"].param_groups[0]["lr"], rate)}


def variational(c: VAEConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    share = seen / c.decay_images if c.decay_images else 0.0
    weight = straight(0.0, c.kl_weight, seen / c.warmup_images) if c.warmup_images else c.kl_weight
    rate = recipe.optimizers["autoencoder"].param_groups[0]["lr"]
    return {"rate": (rate, half_wave(c.lr, c.lr_end, share)), "weight of KL": (recipe.beta, weight)}


def beyond_pixels(c: VAEGANConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    begun = seen // c.epoch_images * c.epoch_images if c.epoch_images else seen
    done = min(1.0, begun / c.decay_images) ** c.decay_power if c.decay_images else 0.0
    wanted = c.lr * (1.0 - done) + c.lr_end * done
    if c.lr_decay < 1.0:
        wanted = epochs(c.lr, c.lr_decay, seen // c.epoch_images + 1, c.lr_end)
    return {name: (o.param_groups[0]["lr"], wanted) for name, o in recipe.optimizers.items()}


def epochs(lr: float, decay: float, epoch: int, floor: float) -> float:
    """Whole in epoch 1, then lr times decay as often as the epoch counts."""
    for _ in range(epoch if epoch > 1 else 0):
        lr = max(lr * decay, floor)
    return lr


def torch_gan(c: TorchGANConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    return {"rate": (recipe.lr, epochs(c.lr, c.lr_decay, seen // c.lr_decay_images + 1, c.lr_floor))}


def equilibrium(c: BEGANConfig, recipe: Any, seen: int) -> dict[str, tuple[float, float]]:
    left = straight(1.0, 0.0, seen / c.carry_images) if c.carry_images else 0.0
    return {"carry": (float(recipe.model.carry), left)}


CLOSED: dict[type, Callable[[Any, Any, int], dict[str, tuple[float, float]]]] = {
    RelativisticGANConfig: relativistic,
    FlowMatchingConfig: flow,
    VAEConfig: variational,
    VAEGANConfig: beyond_pixels,
    TorchGANConfig: torch_gan,
    BEGANConfig: equilibrium,
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Pack]:
    folder = tmp_path_factory.mktemp("packs")
    return {False: write_pack(folder / "plain", 8), True: write_pack(folder / "labelled", 8, labels=("Hat",))}


@pytest.mark.parametrize("name", RUNS)
def test_schedules_of_every_preset(name: str, packs: dict[bool, Pack]) -> None:
    run = RUNS[name]
    learner = ResolvedRun(
        run, packs[run.conditional], DeviceContext(torch.device("cpu"), "fp32"), None, ""
    ).initial_state(World())
    recipe, closed = learner.recipe, CLOSED.get(type(run.recipe))
    before = {n: [dict(group, params=0) for group in o.param_groups] for n, o in recipe.optimizers.items()}
    for seen in SEEN:
        recipe.schedule(seen)
        if closed is None:  # a recipe whose rates stay
            after = {n: [dict(group, params=0) for group in o.param_groups] for n, o in recipe.optimizers.items()}
            assert after == before
            continue
        for what, (found, wanted) in closed(run.recipe, recipe, seen).items():
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-12), (what, seen)


@pytest.mark.parametrize("name", [name for name, run in presets.PRESETS.items() if run.ema])
def test_averages_of_every_preset(name: str) -> None:
    config = presets.PRESETS[name].ema
    assert config is not None
    average = EMA(tiny(presets.PRESETS["dcgan-2015"]).model.build(ImageSpec(side=16)), config)
    for seen in SEEN[1:]:
        for batch in (1, 16, 512):
            assert average.decay(batch, seen) == pytest.approx(0.5 ** (batch / half_life(config, seen)), rel=1e-6)


def half_life(config: EMAConfig, seen: int) -> float:
    """In images, after `seen` of them."""
    full = half_wave(0.0, config.half_life, seen / config.ramp) if config.ramp else float(config.half_life)
    return min(full, config.warmup * seen) if config.warmup else full


def test_ends_of_both_curves() -> None:
    for curve in (cosine, linear):
        assert [curve(3.0, 1.0, seen, 100) for seen in (0, 50, 100, 150, 10**9)] == pytest.approx([3, 2, 1, 1, 1])
    assert cosine(0.0, 1.0, 25, 100) == pytest.approx(0.1464466) and linear(0.0, 1.0, 25, 100) == 0.25
