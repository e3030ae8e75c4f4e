"""Runs as JSON, as flags, and as identities."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mien import presets
from mien.core.contracts import ImageSpec
from mien.core.run import (
    EMAConfig,
    Run,
    config_fields,
    differences,
    fingerprint,
    from_json,
    identity,
    override,
    to_json,
)
from mien.errors import Mismatch, UsageError
from mien.presets.citations import BIBTEX

GOLDEN = Path(__file__).parent / "golden"
DATED = [name for name in presets.PRESETS if name.rpartition("-")[2].isdigit()]


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_run_survives_json(name: str) -> None:
    run = presets.PRESETS[name]
    assert from_json(Run, json.loads(json.dumps(to_json(run))), presets.KINDS) == run


def test_no_two_configs_share_a_name() -> None:
    """A file names a config's class: a model's and a recipe's must differ."""
    classes = {cls for run in presets.PRESETS.values() for cls in presets.configs_in(run)}
    assert len({cls.__name__ for cls in classes}) == len(classes)


@pytest.mark.parametrize("name", DATED)
def test_dated_presets_are_frozen(name: str) -> None:
    """Compare with the golden file; a dated preset never changes, whatever improves around it."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert differences(golden, identity(presets.PRESETS[name])) == []


@pytest.mark.parametrize("name", DATED)
def test_dated_presets_spell_out_every_constant(name: str) -> None:
    """Each field of model and recipe stands in the preset's own source: a changed default cannot move it."""
    import inspect

    modules = [module for module in vars(presets).values() if inspect.ismodule(module) and "PRESETS" in vars(module)]
    (home,) = (module for module in modules if any(run.preset == name for run in module.PRESETS))
    source = inspect.getsource(home)
    run = presets.PRESETS[name]
    names = {knob.name.rpartition(".")[2] for knob in config_fields(run) if knob.name.startswith(("model.", "recipe."))}
    assert not [field for field in names if f"{field}=" not in source]


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_cites_and_tells(name: str) -> None:
    run = presets.PRESETS[name]
    keys = [key for cls in presets.configs_in(run) for key in cls.cites]  # type: ignore[attr-defined]
    assert keys and all(key in BIBTEX for key in keys)
    assert run.story and run.notes and run.preset == name


def test_files_cannot_name_code() -> None:
    for kind in ("os.system", "Path", "subprocess.Popen", "Run"):
        with pytest.raises(Mismatch):
            from_json(None, {"kind": kind, "args": "x"}, presets.KINDS)
    with pytest.raises(Mismatch, match="no field"):
        from_json(None, {"kind": "TorchGeneratorConfig", "evil": 1}, presets.KINDS)


def test_turn() -> None:
    run = presets.PRESETS["torch-gan-2015"]
    changed = override(run, {"recipe.lr": 0.5, "recipe.critic.width": 7, "batch": 3})
    assert (changed.recipe.lr, changed.recipe.critic.width, changed.batch) == (0.5, 7, 3)  # type: ignore[attr-defined]
    assert run.recipe.lr == 1e-3  # type: ignore[attr-defined]
    assert differences(identity(run), identity(changed)) == [
        "batch: 64 -> 3", "recipe.critic.width: 32 -> 7", "recipe.lr: 0.001 -> 0.5",
    ]  # fmt: skip


def test_identity_leaves_out_places_periods_and_lengths() -> None:
    run = presets.PRESETS["quick"]
    same = dataclasses.replace(
        run,
        images=7,
        minutes=3.0,
        save_every=1,
        sample_every=1,
        log_every=1,
        threads=2,
        loader_threads=4,
        evaluate_every=5,
        evaluate_metrics="kid",
        evaluate_samples=9,
        evaluate_extractor="a.py:b",
        keep_best="kid",
        patience=2,
    )
    assert fingerprint(identity(run)) == fingerprint(identity(same))
    for change in ({"seed": 9}, {"batch": 9}, {"ema": None}, {"flip": False}, {"precision": "fp64"}):
        assert fingerprint(identity(run)) != fingerprint(identity(dataclasses.replace(run, **change)))


@pytest.mark.parametrize("bad", [{"batch": 0}, {"minutes": -1.0}, {"save_every": -1}, {"side": 0}, {"images": 0}])
def test_impossible_values_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(presets.PRESETS["quick"], **bad)


def test_averaging_half_life() -> None:
    with pytest.raises(UsageError):
        EMAConfig(half_life=0)


@pytest.mark.parametrize(
    "flag, value",
    [
        ("recipe.critic.patch", -1),
        ("recipe.critic.patch", 3),
        ("model.patch", 0),
        ("model.patch", 64),
        ("model.patch", -2),
    ],
)
def test_patches_that_no_network_has_are_refused(flag: str, value: int) -> None:
    with pytest.raises(UsageError):
        run = override(presets.PRESETS["quick"], {flag: value})
        run.recipe.build(run.model.build(ImageSpec(side=64)), ImageSpec(side=64))


@pytest.mark.parametrize(
    "preset, flag, value",
    [
        ("torch-gan-2015", "model.dropout", float("nan")),
        ("torch-gan-2015", "recipe.critic.dropout", float("inf")),
        ("quick", "recipe.lr", float("nan")),
        ("quick", "recipe.critic.blocks", -1),
        ("quick", "ema.warmup", float("nan")),
        ("quick", "minutes", float("nan")),
    ],
)
def test_impossible_numbers_are_refused_by_name(preset: str, flag: str, value: float) -> None:
    with pytest.raises(UsageError, match=r"must (be|not be) "):
        override(presets.PRESETS[preset], {flag: value})


@pytest.mark.parametrize("batch", [2**20 + 1, 10**30])
def test_a_batch_without_end_is_refused(batch: int) -> None:
    """A batch of 10**30 was made for as long as one waited."""
    with pytest.raises(UsageError, match="batch must be an integer from 1 to 1048576"):
        dataclasses.replace(presets.PRESETS["quick"], batch=batch)
