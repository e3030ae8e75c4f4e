"""`mien train --from`: what a run takes over from another model, what starts new, and what the rules of such a run decide."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mien import presets
from mien.core.contracts import JSON
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import DataError, Mismatch, UsageError
from mien.presets.defaults import defaults_of
from mien.sampling import bundled
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory
from mien.training import experiment, growing
from mien.training.resolve import ResolvedRun, describe, resolve_run
from tests.conftest import tiny, write_model, write_pack
from tests.test_resume import Nothing

LABELS = ("Smiling", "Male")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without reports, which have tests of their own."""
    for name in ("Report", "TensorBoard", "HealthCheck", "Reconstructions", "SampleGrids"):
        monkeypatch.setattr(experiment, name, Nothing)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("labelled") / "blobs.pack", labels=LABELS)


def run_of(name: str, **changes: Any) -> Run:
    """A small run in one thread, in full precision."""
    return override(tiny(presets.PRESETS[name]), {"device": "cpu", "precision": "fp32", "threads": 1, **changes})


def plan_of(run: Run, pack: Pack, parent: Path, *explicit: str) -> ResolvedRun:
    return resolve_run(run, None, pack.path, World(), parent, explicit)


def trained(path: Path, run: Run, pack: Pack, **more: Any) -> Path:
    return experiment.execute(run, None, pack.path, path, "auto", **more)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest, _ = checkpoint.newest(run / "checkpoints")
    assert newest is not None
    return checkpoint.read_state(newest)[0]


@pytest.mark.parametrize("name", [name for name, run in presets.PRESETS.items() if name != "cgan"])
def test_every_preset_starts_as_its_parent(name: str, tmp_path: Path, blob_pack: Pack, labelled: Pack) -> None:
    run = run_of(name)
    pack = labelled if run.conditional else blob_pack
    file = write_model(name, tmp_path, pack)
    plan = plan_of(replace(run, seed=1), pack, file)
    state = plan.initial_state(World())
    transfer = plan.inherit(state)
    assert transfer.share("model") == 1.0 and not [name for name in transfer.new if name.startswith("model.")]
    parent = Sampler.load(file, device="cpu")
    for key, tensor in state.inference_model.state_dict().items():
        assert torch.equal(tensor, parent.model.state_dict()[key]), key
    assert plan.run.parent == parent.model_hash == plan.identity["parent"] == plan.header["parent"]


@pytest.mark.parametrize("name", ["gan", "dcgan-2015", "began-2017", "vaegan-2016", "torch-gan-2015", "cppn-2016"])
def test_a_runs_critic_comes_along(name: str, tmp_path: Path, blob_pack: Pack, quiet: None) -> None:
    run = run_of(name, images=8)
    parent = trained(tmp_path / "parent", run, blob_pack)
    plan = plan_of(replace(run, seed=1), blob_pack, parent)
    state = plan.initial_state(World())
    transfer = plan.inherit(state)
    assert transfer.taken == transfer.total and transfer.new == {}
    theirs = weights(parent)
    for key, tensor in state.recipe.named_parameters():
        assert torch.equal(tensor, theirs[f"recipe.{key}"]), key
    if state.ema:
        assert all(torch.equal(t, theirs[f"ema.{key}"]) for key, t in state.ema.model.state_dict().items())
    if name == "began-2017":
        assert torch.equal(state.recipe.state_dict()["control.k"], theirs["recipe.control.k"])


def test_labels_are_added_to_a_parent_without(tmp_path: Path, blob_pack: Pack, labelled: Pack) -> None:
    """The first faces are the parent's, whatever the labels: what reads them starts at zero, and the labels' own layers new."""
    file = write_model("gan", tmp_path, blob_pack)
    plan = plan_of(run_of("cgan"), labelled, file)
    state = plan.initial_state(World())
    transfer = plan.inherit(state)
    assert "model.mapping.weight" in transfer.widened and "model.labelled.weight" in transfer.new
    parent, z = Sampler.load(file, device="cpu").model, torch.randn(4, 8)
    for rows in (torch.zeros(4, 2), torch.ones(4, 2)):
        assert torch.allclose(state.inference_model.decode(z, rows), parent.decode(z), atol=1e-6)
    mapping = state.recipe.model.mapping.weight  # type: ignore[union-attr]
    gradient = torch.autograd.grad(state.recipe.model.decode(z, torch.ones(4, 2)).square().sum(), mapping)[0]  # type: ignore[arg-type]
    assert gradient[:, 8:].abs().sum() > 0


def test_labels_are_taken_from_a_parent_that_has_some(tmp_path: Path, blob_pack: Pack, labelled: Pack) -> None:
    file = write_model("cgan", tmp_path, labelled)
    parent, z = Sampler.load(file, device="cpu").model, torch.randn(4, 8)
    plan = plan_of(run_of("gan"), blob_pack, file)
    state = plan.initial_state(World())
    plan.inherit(state)
    assert torch.allclose(state.inference_model.decode(z), parent.decode(z), atol=1e-6)  # labels that are unknown
    other = write_pack(tmp_path / "other.pack", labels=("Smiling", "Glasses"))
    plan = plan_of(run_of("cgan"), other, file)
    state = plan.initial_state(World())
    assert "model.labelled.weight" in plan.inherit(state).new  # as many labels, but others
    plan = plan_of(run_of("cgan"), labelled, file)
    assert [name for name in plan.inherit(plan.initial_state(World())).new if name.startswith("model.")] == []


def test_a_parent_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, blob_pack: Pack) -> None:
    file = write_model("flow", tmp_path, blob_pack)
    with pytest.raises(Mismatch) as caught:
        trained(tmp_path / "run", run_of("gan"), blob_pack, parent=file)
    assert caught.value.exit_code == 9 and not (tmp_path / "run").exists()
    assert "kind: FlowConfig -> ResidualGeneratorConfig" in caught.value.why and "`flow`" in caught.value.remedy


def test_networks_are_the_parents_and_flags_win(tmp_path: Path, blob_pack: Pack) -> None:
    file = write_model("gan", tmp_path, blob_pack, **{"model.width": 6})
    run = run_of("gan")
    plan = plan_of(run, blob_pack, file)
    assert plan.run.model.width == 6 and plan.run.recipe.critic.width == 4  # type: ignore[attr-defined]
    assert plan_of(run, blob_pack, file, "model").run.model.width == 4  # type: ignore[attr-defined]
    shown = {rule["field"]: rule for rule in describe(plan)["rules"]}
    assert shown["model.width"]["decided_by"] == "rule" and "parent's" in shown["model.width"]["reason"]
    assert shown["recipe.lr"]["value"] == run.recipe.lr_end  # type: ignore[attr-defined]
    parent = describe(plan)["parent"]
    assert parent["shares"] == {"model": 1.0, "critic": 0.0} and "critic.last.weight" in parent["new"]


def test_schedules_start_at_their_ends(tmp_path: Path, blob_pack: Pack) -> None:
    file = write_model("gan", tmp_path, blob_pack)
    recipe: Any = plan_of(run_of("gan", **{"recipe.gamma_end": 0.1}), blob_pack, file).run.recipe
    assert (recipe.lr, recipe.gamma, recipe.beta2) == (recipe.lr_end, 0.1, recipe.beta2_end)
    given = plan_of(run_of("gan", **{"recipe.lr": 1e-5}), blob_pack, file, "recipe.lr").run
    assert (given.recipe.lr, given.recipe.lr_end) == (1e-5, 1e-5)  # type: ignore[attr-defined]
    assert given.average is not None and given.average.warmup == 0.0
    flow = plan_of(run_of("flow"), blob_pack, write_model("flow", tmp_path, blob_pack)).run.recipe
    assert flow.warmup_images == 5_000 and flow.lr == flow.lr_end  # type: ignore[attr-defined]


def test_a_fine_tuned_run_goes_on_to_the_bit_without_its_parent(tmp_path: Path, blob_pack: Pack, quiet: None) -> None:
    run = run_of("gan", images=48, **{"recipe.augment.images": 100})
    parent = trained(tmp_path / "parent", run, blob_pack)
    child = replace(run, seed=3)
    whole = trained(tmp_path / "whole", child, blob_pack, parent=parent)
    started = trained(tmp_path / "pieces", replace(child, images=16, save_every=8), blob_pack, parent=parent)
    shutil.rmtree(parent)
    for path in checkpoint.all_of(started / "checkpoints")[:-1]:
        shutil.rmtree(path)  # as if killed early: what is left is the parent's weights
    assert [int(path.name) for path in checkpoint.all_of(started / "checkpoints")] == [0]
    assert trained(started, child, blob_pack) == started
    mine, theirs = weights(started), weights(whole)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    model = (checkpoint.all_of(path / "checkpoints")[0] / "model.safetensors" for path in (started, whole))
    assert len({file.read_bytes() for file in model}) == 1
    record: JSON = json.loads((whole / "parent.json").read_text())
    assert record["shares"] == {"model": 1.0, "critic": 1.0} and RunDirectory(whole).run_json["parent"]  # type: ignore[index]


def test_the_run_that_a_parent_belongs_to(tmp_path: Path, blob_pack: Pack, quiet: None) -> None:
    run = run_of("gan", images=8)
    parent = trained(tmp_path / "parent", run, blob_pack)
    child = trained(tmp_path / "child", run, blob_pack, parent=parent)
    assert trained(child, run, blob_pack, parent=parent) == child  # finished
    other = trained(tmp_path / "other", replace(run, seed=9), blob_pack)
    with pytest.raises(Mismatch, match="parent: "):
        trained(child, run, blob_pack, parent=other)
    with pytest.raises(Mismatch, match="parent"):
        trained(parent, run, blob_pack, parent=other)
    shutil.rmtree(child / "checkpoints")
    with pytest.raises(DataError, match="no checkpoint yet"):
        trained(child, replace(run, images=16), blob_pack)
    assert trained(child, replace(run, images=16), blob_pack, parent=parent) == child


def grown(tmp_path: Path, blob_pack: Pack, **changes: Any) -> tuple[Path, Pack, Run]:
    """A trained parent at 16 px whose faces differ, a pack at 32 px, and a run for it."""
    parent = trained(tmp_path / "parent", run_of("gan", images=96, **changes), blob_pack)
    return parent, write_pack(tmp_path / "large.pack", side=32), run_of("gan", side=32, images=8, **changes)


def test_a_run_of_twice_the_side_starts_with_its_parents_faces_enlarged(
    tmp_path: Path, blob_pack: Pack, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "STEPS", 60)
    parent, large, run = grown(tmp_path, blob_pack)
    plan = plan_of(run, large, parent)
    assert (plan.run.model.width, plan.run.recipe.critic.width) == (2, 2)  # type: ignore[attr-defined]
    state = plan.initial_state(World())
    transfer = plan.inherit(state)
    theirs = weights(parent)
    for mine, old in (
        ("model.stages.1.0.first.weight",) * 2,
        ("critic.stages.2.0.first.weight", "critic.stages.1.0.first.weight"),
    ):
        assert torch.equal(state.recipe.state_dict()[mine], theirs[f"recipe.{old}"])
    small = Sampler.load(parent, device="cpu").sample(range(16))

    def distance() -> float:
        large_ones = Sampler(state.inference_model, plan.header, plan.context, "").sample(range(16))
        return float((large_ones - growing.resized(small, 32)).abs().mean())

    before, source = distance(), Loader(large, batch=8, seed=0)
    held = {name: tensor.clone() for name, tensor in state.recipe.named_parameters() if name not in transfer.new}
    lines = growing.settle(state, plan.run, plan.faces, plan.parent, transfer, source)  # type: ignore[arg-type]
    source.close()
    assert distance() < 0.7 * before and len(lines) == 2 and state.seen == 0
    assert all(torch.equal(tensor, held[name]) for name, tensor in state.recipe.named_parameters() if name in held)
    path = trained(tmp_path / "child", run, large, parent=parent)
    assert len([line for line in (path / "log.txt").read_text().splitlines() if "imitate" in line]) == 2


def test_a_new_critic_trains_before_the_generator_moves(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone file has no critic, and one at random would undo what the generator has."""
    monkeypatch.setattr(growing, "ALONE", 6)
    for name in ("gan", "torch-gan-2015"):
        plan = plan_of(run_of(name), blob_pack, write_model(name, tmp_path, blob_pack))
        state = plan.initial_state(World())
        transfer = plan.inherit(state)
        before = {key: tensor.clone() for key, tensor in state.tensors().items()}
        source = Loader(blob_pack, batch=8, seed=0)
        (line,) = growing.settle(state, plan.run, plan.faces, plan.parent, transfer, source)  # type: ignore[arg-type]
        source.close()
        moved = {key for key, tensor in state.tensors().items() if not torch.equal(tensor, before[key])}
        assert "critic is new" in line and moved and all(key.startswith("recipe.critic.") for key in moved)
        assert state.seen == 0 and not any(optimizer.state for optimizer in state.recipe.optimizers.values())


def test_few_images_hold_the_critics_finest_stages(tmp_path: Path, blob_pack: Pack, quiet: None) -> None:
    parent = trained(tmp_path / "parent", run_of("gan", images=16), blob_pack)
    plan = plan_of(run_of("gan"), blob_pack, parent)
    assert plan.run.recipe.freeze_critic == 1  # type: ignore[attr-defined]  # of two stages
    child = trained(tmp_path / "child", run_of("gan", images=16), blob_pack, parent=parent)
    mine, theirs = weights(child), weights(parent)
    same = {name for name in theirs if name.startswith("recipe.critic.") and torch.equal(mine[name], theirs[name])}
    held = ("recipe.critic.first.", "recipe.critic.stages.0.")
    assert same == {name for name in theirs if name.startswith(held)}
    off = plan_of(run_of("gan"), blob_pack, parent, "recipe.freeze_critic")
    assert off.run.recipe.freeze_critic == 0  # type: ignore[attr-defined]
    many = replace(plan.run_context, count=500)
    assert {rule.field: rule.by_rule for rule in defaults_of(plan.run, many, plan.rules)}["recipe.freeze_critic"] == 0
    lone = plan_of(run_of("gan"), blob_pack, write_model("gan", tmp_path, blob_pack))
    assert lone.run.recipe.freeze_critic == 0  # type: ignore[attr-defined]  # its critic is new


@pytest.mark.parametrize(("preset", "count"), [("gan", 2), ("dcgan-2015", 1)])
def test_what_cannot_be_frozen(preset: str, count: int, blob_pack: Pack) -> None:
    run = run_of("gan")
    critic = getattr(run_of(preset).recipe, "critic")  # noqa: B009
    run = replace(run, recipe=replace(run.recipe, critic=critic, freeze_critic=count))
    with pytest.raises(UsageError, match="freeze-critic"):
        resolve_run(run, None, blob_pack.path, World()).initial_state(World())


def test_a_bundled_models_critic_comes_along(tmp_path: Path, blob_pack: Pack, quiet: None) -> None:
    parent = trained(tmp_path / "parent", run_of("gan", images=16), blob_pack)
    file = checkpoint.find_model(parent)
    tensors, header = checkpoint.read_model(file)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / bundled.MODEL).write_bytes(checkpoint.pack_tensors({n: t.half() for n, t in tensors.items()}, header))
    critic = {n.removeprefix("recipe."): t.half() for n, t in weights(parent).items() if n.startswith("recipe.critic.")}
    about = {"recipe": RunDirectory(parent).run_json["recipe"], "model_sha256": ""}  # type: ignore[index]
    (bundle / bundled.CRITIC).write_bytes(checkpoint.pack_tensors(critic, about))
    plan = plan_of(run_of("gan"), blob_pack, bundle)
    assert plan.inherit(plan.initial_state(World())).share("critic") == 1.0
    assert plan.parent is not None and plan.parent.config.critic is not None
