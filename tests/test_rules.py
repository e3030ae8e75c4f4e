"""What follows from data, side and device; and what a few steps say of a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mien
from mien import presets
from mien.cli.dry_run import dry_run_text, duration, size
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import override
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import UsageError
from mien.presets.defaults import FINE_TUNING, RULES, RunContext, apply_defaults, defaults_of
from mien.training.experiment import execute
from mien.training.find_run import find_run
from mien.training.profile import measure, resident
from mien.training.resolve import ResolvedRun, resolve_run
from tests.conftest import tiny, write_pack
from tests.test_cli import call

QUICK = replace(presets.PRESETS["quick"], by_rule=())
LEFT = replace(QUICK, by_rule=("batch", "ema.half_life", "recipe.reg_fraction", "recipe.augment.mode"))
LAPTOP = RunContext(count=10_000, side=64, device="cpu")


@pytest.mark.parametrize(
    ("count", "side", "device", "batch"),
    [
        (10_000, 64, "cpu", 16), (10_000, 256, "cpu", 16), (100, 64, "cpu", 8), (10, 64, "cpu", 2), (1, 64, "cpu", 2),
        (10_000, 64, "cuda", 256), (10_000, 128, "cuda", 64), (10_000, 256, "cuda", 16), (10_000, 32, "cuda", 256),
        (1_000, 64, "cuda", 64),
    ],
)  # fmt: skip
def test_the_batch_follows_from_all_three(count: int, side: int, device: str, batch: int) -> None:
    assert apply_defaults(LEFT, RunContext(count, side, device)).batch == batch


def test_later_rules_look_at_what_earlier_ones_decided() -> None:
    run = apply_defaults(LEFT, RunContext(10_000, 64, "cuda"))
    assert run.batch == 256 and run.ema is not None and run.ema.half_life == 160_000
    assert {r.field: r.value for r in defaults_of(LEFT, RunContext(10_000, 64, "cuda"))} == {
        "batch": 256, "ema.half_life": 160_000, "recipe.reg_interval": 4, "recipe.reg_fraction": 1,
        "recipe.augment.mode": "none",
    }  # fmt: skip


@pytest.mark.parametrize(("count", "mode"), [(1_000, "adaptive"), (2_999, "adaptive"), (3_000, "none")])
def test_few_images_are_augmented_however_long_they_are_learned(count: int, mode: str) -> None:
    """Lengths may grow when a run goes on, so no rule for what a run is may look at them."""
    for name in ("gan", "quick", "cgan"):
        for length in ({"minutes": None, "images": 5_000}, {"minutes": None, "images": 50_000_000}, {"minutes": 5.0}):
            run = override(presets.PRESETS[name], length)
            recipe = apply_defaults(run, replace(LAPTOP, count=count)).recipe
            assert recipe.augment.mode == mode and recipe.augment.p == 0.6  # type: ignore[attr-defined]
            overridden = override(run, {"recipe.augment.mode": "none"})
            assert apply_defaults(overridden, replace(LAPTOP, count=count)).recipe.augment.mode == "none"  # type: ignore[attr-defined]


def test_what_is_spelled_out_wins() -> None:
    assert apply_defaults(QUICK, RunContext(100, 64, "cuda")) == QUICK
    overridden = override(LEFT, {"batch": 48, "recipe.augment.mode": "ramp"})
    assert overridden.by_rule == ("ema.half_life", "recipe.reg_fraction")
    run = apply_defaults(overridden, replace(LAPTOP, count=100))
    assert run.batch == 48 and run.recipe.augment.mode == "ramp"  # type: ignore[attr-defined]
    assert run.ema is not None and run.ema.half_life == 30_000
    found = {r.field: r for r in defaults_of(overridden, replace(LAPTOP, count=100))}
    assert not found["batch"].applied and found["batch"].value == 48 and found["batch"].by_rule == 8
    assert found["ema.half_life"].applied


def test_whoever_turns_a_part_turns_all_of_it() -> None:
    overridden = override(LEFT, {"ema": None})
    assert (
        overridden.by_rule == ("batch", "recipe.reg_fraction", "recipe.augment.mode")
        and apply_defaults(overridden, LAPTOP).ema is None
    )


@pytest.mark.parametrize("name", ["quick", "gan", "cgan"])
def test_our_own_game_follows_the_machine(name: str) -> None:
    run = presets.PRESETS[name]
    assert apply_defaults(run, LAPTOP) == run  # what the file says holds on a CPU
    there = apply_defaults(run, replace(LAPTOP, device="cuda"))
    assert (there.batch, there.recipe.reg_fraction) == (256, 1.0)  # type: ignore[attr-defined]
    assert apply_defaults(override(run, {"batch": 24}), LAPTOP).batch == 24


def test_faces_on_request_are_averaged_for_less_long() -> None:
    assert apply_defaults(override(LEFT, {"conditional": True}), LAPTOP).ema.half_life == 1_000  # type: ignore[union-attr]
    assert apply_defaults(presets.PRESETS["cgan"], replace(LAPTOP, device="cuda")).ema.half_life == 16_000  # type: ignore[union-attr]
    asked = {r.field: r.by_rule for r in defaults_of(override(presets.PRESETS["flow"], {"conditional": True}), LAPTOP)}
    assert asked["ema.half_life"] == 10_000  # no critic


def test_a_run_is_shown_only_rules_for_knobs_that_it_has() -> None:
    assert [r.field for r in defaults_of(presets.PRESETS["flow"], LAPTOP)] == ["batch", "ema.half_life"]
    assert [r.field for r in defaults_of(presets.PRESETS["dcgan-2015"], LAPTOP)] == ["batch"]
    assert all(len(rule.reason) > 40 for rule in RULES)


def test_a_rule_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no rule for model"):
        apply_defaults(replace(QUICK, by_rule=("model.width",)), LAPTOP)


def test_a_run_that_follows_rules_resumes(tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rules decide is written down as plain numbers, so that the same command finds the same run."""
    monkeypatch.chdir(tmp_path)
    left = replace(tiny(QUICK), by_rule=("batch",), images=24, device="cpu")
    plan = resolve_run(left, None, blob_pack.path, World())
    assert plan.run.batch == 8 and plan.identity["batch"] == 8 and "by_rule" not in plan.identity
    assert resolve_run(tiny(QUICK), None, blob_pack.path, World()).identity["batch"] == 8
    place = find_run(plan, tmp_path / "run", "auto")
    assert place.new


# The estimate


def test_an_estimate_counts_what_it_did(blob_pack: Pack) -> None:
    run = tiny(QUICK)
    plan = ResolvedRun(run, blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs")
    pulled = []

    def batches(count: int) -> Loader:
        pulled.append(count)
        return Loader(blob_pack, batch=count, seed=0, threads=0)

    found = measure(lambda: plan.initial_state(World()), batches, run.batch, budget=0.05)
    assert pulled == [4, 8] and found.batch == 8 and found.steps >= 1
    assert found.images_per_second > 0 and found.seconds(100) == pytest.approx(100 / found.images_per_second)
    state = plan.initial_state(World())
    state.step(batches(8))  # from then on the optimizers have a memory
    snapshot = state.snapshot(plan.header)
    assert found.checkpoint == pytest.approx(len(snapshot.model) + len(snapshot.state), rel=0.02)
    assert 0 < found.share <= 1
    if resident():
        assert found.memory >= resident() * 0.5 and 0 <= found.grown <= found.memory


def test_a_batch_that_takes_too_long_is_not_tried(blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from mien.training import profile as profile_module

    monkeypatch.setattr(profile_module, "MAX_STEP_SECONDS", 0.0)
    run = tiny(QUICK)
    plan = ResolvedRun(run, blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs")
    found = measure(
        lambda: plan.initial_state(World()), lambda n: Loader(blob_pack, batch=n, seed=0, threads=0), run.batch, 0.01
    )
    assert found.batch == 4


def test_dry_run_begins_with_the_answer(blob_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ("train", "quick", "--data", blob_pack.path, "--model.width", "4", "--model.max-width", "8",
            "--recipe.critic.width", "4", "--recipe.critic.max-width", "8",
            "--batch", "8", "--dry-run", "--device", "cpu")  # fmt: skip
    told = json.loads(call(*line, "--images", "960", "--json").out)
    assert [rule["field"] for rule in told["rules"]] == [
        rule.field for rule in RULES if rule.field not in {*FINE_TUNING, "model.jpeg"}
    ]
    assert told["rules"][0]["decided_by"] == "preset" and told["rules"][0]["rule"] == 8
    estimate = told["estimate"]
    assert estimate["images"] == 960 and estimate["passes"] == 10.0 and estimate["checkpoint"] > 10_000
    assert estimate["seconds"] == pytest.approx(
        960 / estimate["images_per_second"], rel=0.05, abs=0.06
    )  # it is told in tenths
    assert estimate["disk"] == (3 + 5) * estimate["checkpoint"]  # and the first of 1, 4, 16, 64, 256 images on
    text = dry_run_text(told)
    for words in (
        "batch 8: set by the preset or a flag, as the rule would",
        "images per second",
        "10.0 passes over the data",
        "for checkpoints of",
        "960 images",
    ):
        assert words in text, text
    lines = text.splitlines()  # the answer first, the whole run last
    assert [line.split()[0] for line in lines[:4]] == [
        "Data",
        "Time",
        "Memory",
        "Disk",
    ] and "96 images of 16x16 px" in lines[0]
    assert (
        lines.index("Rules")
        < lines.index("The whole run")
        < next(i for i, line in enumerate(lines) if "preset:" in line)
    )
    assert not list(tmp_path.iterdir())
    minutes = {**told, "run": {**told["run"], "minutes": 5.0, "batch": 64}, "estimate": {**estimate, "share": 0.25}}
    text = dry_run_text(minutes)
    assert "5 minutes: about" in text and "took 75% of the processors" in text and "A batch of 64" in text


def test_words_for_times_and_sizes() -> None:
    assert [duration(s) for s in (3, 89, 90, 5400, 200_000)] == [
        "3 seconds",
        "89 seconds",
        "1.5 minutes",
        "1.5 hours",
        "2.3 days",
    ]
    assert [size(n) for n in (1_500_000, 250_000_000, 3_210_000_000)] == ["1.5 MB", "250 MB", "3.2 GB"]


def test_what_the_rules_decide_is_what_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 images: the rule's batch is 4, and the run takes steps of 4, not of the preset's 16."""
    monkeypatch.chdir(tmp_path)
    pack = write_pack(tmp_path / "few.pack", count=40)
    run = replace(
        tiny(presets.PRESETS["quick"]), batch=16, by_rule=presets.PRESETS["quick"].by_rule, images=12, log_every=1
    )
    path = execute(run, None, pack.path, "run", "auto")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seen"] for line in lines] == [4, 8, 12]
    assert json.loads((path / "run.json").read_text())["batch"] == 4


def test_a_field_that_a_caller_replaced_is_not_set_by_a_rule(tmp_path: Path) -> None:
    """`dataclasses.replace` is how a Run is changed in Python: its batch is the one that trains, whatever the rule says."""
    pack = write_pack(tmp_path / "few.pack", count=40)
    run = replace(tiny(presets.PRESETS["quick"]), batch=8, images=16, log_every=1, device="cpu")
    assert "batch" in run.by_rule
    path = mien.train(run, data=pack.path, out=tmp_path / "run")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["seen"] for line in lines] == [8, 16]
