"""`--from`: a new run with the weights of another model. What fits is taken, what does not is named, resuming needs no parent."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mien import presets
from mien.__main__ import main
from mien.core.contracts import ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.eager_optimizer import eager_step
from mien.core.run import Run
from mien.data.pack import Pack
from mien.data.planning import Preparation
from mien.data.preparation import prepare
from mien.data.source_kinds import find_source
from mien.errors import Mismatch, UsageError
from mien.presets.defaults import RunContext, apply_defaults
from mien.report.card import card
from mien.report.run_reader import read_record
from mien.sampling import bundled
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory
from mien.training import experiment, framing, growing
from mien.training.find_run import cut_before
from mien.training.framing import framed
from mien.training.parent import adopt, inherit, read_parent
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny, write_pack
from tests.test_resume import Nothing

#: One preset of every family that is trained by descent.
FAMILIES = (
    *("gan", "cgan", "r3gan-2024", "dcgan-2015", "torch-gan-2015", "homogan-15", "began-2017", "began-zhao"),
    *("vae", "vae-torch-2015", "vae-simpsons-2023", "vaegan-2016", "vaegan-torch-2015", "flow", "cppn-2016"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, without reports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "Report", Nothing)
    monkeypatch.setattr(experiment, "TensorBoard", Nothing)
    return tmp_path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "labelled.pack", labels=("Smiling", "Male"))


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "larger.pack", side=32, labels=("Smiling", "Male"))


def plan_of(run: Run, pack: Pack, **more: Any) -> ResolvedRun:
    return ResolvedRun(run, pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs", **more)


def small(preset: str, pack: Pack, **changes: Any) -> Run:
    return dataclasses.replace(tiny(presets.PRESETS[preset]), side=pack.side, precision="fp32", **changes)


def trained(preset: str, pack: Pack, out: str = "parent", **changes: Any) -> Path:
    """A run of two steps."""
    run = small(preset, pack, **changes)
    return experiment.execute(dataclasses.replace(run, images=16), None, pack.path, out, "auto")


def state_of(run: Path) -> dict[str, torch.Tensor]:
    found, _ = checkpoint.newest(run / "checkpoints")
    assert found is not None
    return checkpoint.read_state(found)[0]


@pytest.mark.parametrize("preset", FAMILIES)
def test_every_family_starts_with_all_weights_of_its_parent(preset: str, blob_pack: Pack, labelled: Pack) -> None:
    """And draws its parent's faces, before it moves; optimizers start anew."""
    pack = labelled if presets.PRESETS[preset].conditional else blob_pack
    parent = trained(preset, pack)
    run = dataclasses.replace(small(preset, pack), images=8, seed=5)
    child = experiment.execute(run, None, pack.path, "child", "auto", parent)
    first = checkpoint.read_state(child / "checkpoints" / "0000000000")[0]
    theirs = state_of(parent)
    networks = [name for name in theirs if name.startswith(("recipe.model.", "recipe.critic.", "ema."))]
    assert len(networks) > 4 and all(torch.equal(first[name], theirs[name]) for name in networks)
    assert not any(name.startswith("optimizer.") for name in first)
    drawn = [
        Sampler.load(path, device="cpu", code=None).sample(
            range(4), labels=None if pack is blob_pack else {"Male": 1.0}
        )
        for path in (parent, child / "checkpoints" / "0000000000")
    ]
    assert torch.equal(*drawn)
    described = json.loads((child / "run.json").read_text())
    assert described["parent"] == checkpoint.file_hash(checkpoint.find_model(parent))
    assert (
        state_of(child)["recipe.model." + next(iter(Sampler.load(child, device="cpu").model.state_dict()))] is not None
    )


def test_a_child_of_an_assisted_run_is_assisted(blob_pack: Pack) -> None:
    """What a network of other photographs has taught a parent stays in its weights; a clean parent has a clean child."""
    parents = {
        helped: trained("dcgan-2015", blob_pack, f"parent-{helped}", assisted=helped) for helped in (False, True)
    }
    for helped, parent in parents.items():
        run = dataclasses.replace(small("dcgan-2015", blob_pack), images=8)
        child = experiment.execute(run, None, blob_pack.path, f"child-{helped}", "auto", parent)
        described = json.loads((child / "run.json").read_text())
        assert described["assisted"] is helped
        assert ("other photographs" in card(read_record(child))) is helped


def test_a_parent_that_does_not_fit_is_refused_with_the_list(blob_pack: Pack) -> None:
    parent = trained("dcgan-2015", blob_pack)
    with pytest.raises(Mismatch) as refused:
        experiment.execute(small("gan", blob_pack), None, blob_pack.path, "child", "auto", parent)
    assert refused.value.exit_code == 9
    assert not Path("child").exists(), "it leaves no dead run"
    text = str(refused.value.why)
    assert "0 of" in text and "is not in the parent" in text and "..." in text


def test_the_parents_networks_are_the_childs_unless_flags_say_otherwise(blob_pack: Pack) -> None:
    """A preset's own widths would fit nothing of a parent of other widths."""
    run = small("gan", blob_pack)
    model = dataclasses.replace(run.model, width=8, max_width=16, group=4)  # type: ignore[call-arg]
    critic = dataclasses.replace(run.recipe.critic, width=16, max_width=16)  # type: ignore[attr-defined]
    wide = dataclasses.replace(run, model=model, recipe=dataclasses.replace(run.recipe, critic=critic))  # type: ignore[call-arg]
    parent = read_parent(experiment.execute(dataclasses.replace(wide, images=8), None, blob_pack.path, "p", "auto"))
    found = inherit(run, parent, 16, {})
    assert found.model == model and found.recipe.critic == critic  # type: ignore[attr-defined]
    assert inherit(run, parent, 16, {"model.width": 4}).model.width == 4  # type: ignore[attr-defined]
    assert "recipe.freeze" in found.by_rule
    assert "recipe.freeze" not in inherit(run, parent, 32, {}).by_rule, "the finest layers are new and have to move"


def test_a_burn_in_is_not_repeated_and_few_images_hold_half_of_the_critic(blob_pack: Pack) -> None:
    run = small("gan", blob_pack)
    recipe = dataclasses.replace(run.recipe, lr=1e-3, lr_end=2e-4, beta2=0.9, beta2_end=0.99, gamma=1.6, gamma_end=0.4)  # type: ignore[call-arg]
    parent = read_parent(trained("gan", blob_pack))
    tuned = inherit(dataclasses.replace(run, recipe=recipe), parent, 16, {})
    found: Any = apply_defaults(tuned, RunContext(100, 16, "cpu", fine_tuned=True)).recipe
    assert (found.lr, found.beta2, found.gamma, found.freeze) == (2e-4, 0.99, 0.4, 1)
    large: Any = apply_defaults(tuned, RunContext(100, 64, "cpu", fine_tuned=True)).recipe
    assert large.freeze == 2
    many: Any = apply_defaults(tuned, RunContext(10_000, 16, "cpu", fine_tuned=True)).recipe
    assert many.freeze == 0
    named = inherit(dataclasses.replace(run, recipe=recipe), parent, 16, {"recipe.lr": 7e-4})
    said: Any = apply_defaults(named, RunContext(100, 16, "cpu", fine_tuned=True)).recipe
    assert said.lr == 7e-4
    alone: Any = apply_defaults(dataclasses.replace(run, recipe=recipe), RunContext(100, 16, "cpu")).recipe
    assert (alone.lr, alone.freeze) == (1e-3, 0)


def test_a_frozen_critic_moves_in_its_coarse_layers_alone(blob_pack: Pack) -> None:
    parent = trained("gan", blob_pack)
    run = small("gan", blob_pack)
    assert len(plan_of(run, blob_pack).initial_state(World()).recipe.critic.stages) == 2  # type: ignore[union-attr, arg-type]
    child = experiment.execute(
        dataclasses.replace(run, images=64), None, blob_pack.path, "child", "auto", parent, {"recipe.freeze": 1}
    )
    before, after = state_of(parent), state_of(child)
    shift = "recipe.critic.last.bias"  # of all logits: it changes no difference of two, so it does not move
    held = {name for name in before if name.startswith("recipe.critic.") and torch.equal(before[name], after[name])} - {
        shift
    }
    moved = {name for name in before if name.startswith("recipe.critic.")} - held
    assert held == {name for name in before if name.startswith(("recipe.critic.first.", "recipe.critic.stages.0."))}
    assert any(name.startswith("recipe.critic.stages.1.") for name in moved)
    for stages, preset in ((2, "gan"), (5, "gan")):
        with pytest.raises(UsageError, match=f"freeze {stages}"):
            changed = dataclasses.replace(run.recipe, freeze=stages)  # type: ignore[call-arg]
            plan_of(dataclasses.replace(small(preset, blob_pack), recipe=changed), blob_pack).initial_state(World())


def test_labels_may_be_added_and_the_faces_stay(blob_pack: Pack, labelled: Pack) -> None:
    """The label's weights are zero at first: every label draws the parent's face."""
    parent = trained("quick", blob_pack)
    run = dataclasses.replace(small("quick", labelled), conditional=True, images=8)
    child = experiment.execute(run, None, labelled.path, "child", "auto", parent)
    first = Sampler.load(child / "checkpoints" / "0000000000", device="cpu")
    before = Sampler.load(parent, device="cpu").sample(range(4))
    assert torch.allclose(first.sample(range(4), labels={"Male": 1.0}), before, atol=1e-5)
    assert "new: labelled.weight" in (child / "log.txt").read_text()


def test_labels_may_be_left_out_and_the_faces_stay(blob_pack: Pack, labelled: Pack) -> None:
    """The first faces are those that the parent draws when it is given no labels."""
    parent = trained("cgan", labelled)
    run = dataclasses.replace(small("quick", blob_pack), images=8)
    child = experiment.execute(run, None, blob_pack.path, "child", "auto", parent)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    faces = [
        Sampler.load(path, device="cpu").model.decode(z) for path in (child / "checkpoints" / "0000000000", parent)
    ]
    assert torch.allclose(*faces, atol=1e-5)


def test_schedules_of_a_beginning_are_not_repeated(blob_pack: Pack) -> None:
    """A schedule that ends near 0 leaves a rate that moves; an average, a KL and vanishing residuals do not begin again."""
    here = RunContext(10_000, 16, "cpu", fine_tuned=True)

    def tuned(preset: str, **changes: Any) -> Run:
        run = small(preset, blob_pack)
        run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **changes))  # type: ignore[type-var]
        return apply_defaults(inherit(run, read_parent(trained(preset, blob_pack, preset)), 16, {}), here)

    hybrid: Any = tuned("vaegan-2016", lr=0.025 / 64, lr_end=1e-5 / 64).recipe
    assert hybrid.lr == pytest.approx(0.0025 / 64)
    encoder = tuned("vae", warmup_images=5_000)
    assert encoder.recipe.warmup_images == 0 and encoder.ema is not None and encoder.ema.warmup == 0.0  # type: ignore[attr-defined]
    other = inherit(small("gan", blob_pack), read_parent(trained("gan", blob_pack, "wide")), 16, {"model.width": 6})
    assert (
        ema := apply_defaults(other, here).ema
    ) is not None and ema.warmup == 0.1  # it begins with layers that are new
    grown = inherit(small("gan", blob_pack), read_parent(trained("gan", blob_pack, "wide")), 32, {})
    assert (ema := apply_defaults(grown, here).ema) is not None and ema.warmup == 0.1  # so does a larger one
    same = inherit(small("gan", blob_pack), read_parent(trained("gan", blob_pack, "wide")), 16, {})
    ruled = apply_defaults(dataclasses.replace(same, by_rule=("batch", "ema.half_life", *same.by_rule)), here)
    assert ruled.batch == 16 and ruled.ema is not None
    assert (ruled.ema.warmup, ruled.ema.half_life) == (0.0, 5_000)  # half as long as without a parent
    began: Any = tuned("began-2017", carry_images=256_000).recipe
    assert began.carry_images == 0
    flow: Any = tuned("flow", warmup_images=5_000).recipe
    assert flow.warmup_images == 5_000


def test_began_keeps_its_balance(blob_pack: Pack) -> None:
    parent = trained("began-zhao", blob_pack)
    run = dataclasses.replace(small("began-zhao", blob_pack), images=8)
    child = experiment.execute(run, None, blob_pack.path, "child", "auto", parent)
    first = checkpoint.read_state(child / "checkpoints" / "0000000000")[0]
    assert first["recipe.control.k"] > 0
    assert torch.equal(first["recipe.control.k"], state_of(parent)["recipe.control.k"])


def test_a_parent_of_half_the_side_is_grown(blob_pack: Pack, larger: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every resolution that both have is the parent's, the first faces are the parent's enlarged, and its critic's logits hold."""
    rates: list[float] = []

    def step(optimizer: torch.optim.Optimizer) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        eager_step(optimizer)

    monkeypatch.setattr(growing, "eager_step", step)
    run = small("gan", blob_pack)
    wide: dict[str, Any] = {"width": 16, "max_width": 16, "full_res_width": 8}
    model = dataclasses.replace(run.model, **wide)
    critic = dataclasses.replace(run.recipe.critic, **wide)  # type: ignore[attr-defined]
    run = dataclasses.replace(
        run, model=model, recipe=dataclasses.replace(run.recipe, critic=critic, lr=1e-3), images=400
    )  # type: ignore[call-arg]
    parent = experiment.execute(run, None, blob_pack.path, "parent", "auto")
    child = experiment.execute(dataclasses.replace(run, side=32, images=16), None, larger.path, "child", "auto", parent)
    found = json.loads((child / "run.json").read_text())
    assert (found["model"]["width"], found["recipe"]["critic"]["width"]) == (8, 8)
    before, after = state_of(parent), checkpoint.read_state(child / "checkpoints" / "0000000000")[0]
    pairs = {"recipe.model.stages.1.0.widen.weight": "recipe.model.stages.1.0.widen.weight"}
    pairs |= {"recipe.critic.stages.0.0.widen.weight": "recipe.critic.stages.1.0.widen.weight"}
    pairs |= {name: name for name in ("recipe.critic.last.weight", "recipe.model.mapping.weight")}
    assert all(torch.equal(before[old], after[new]) for old, new in pairs.items())
    source = Sampler.load(parent, device="cpu")
    raw = {name.removeprefix("recipe.model."): t for name, t in before.items() if name.startswith("recipe.model.")}
    source.model.load_state_dict(raw)  # training goes on from the weights themselves, not from their average
    small_faces = source.sample(range(16))
    faces = Sampler.load(child / "checkpoints" / "0000000000", device="cpu").sample(range(16))
    reduced = torch.nn.functional.avg_pool2d(faces, 2)
    own = (reduced - small_faces).abs().mean()
    other = (reduced - small_faces.roll(1, 0)).abs().mean()
    assert own < 0.15 and own < 0.5 * other, (own, other)
    assert "imitate 16 px enlarged" in (child / "log.txt").read_text()
    assert rates[:2] == [2e-3, 1e-3] and rates[-1] == pytest.approx(1e-3 / growing.STEPS)
    logits = []
    for side, state, images in ((16, before, reduced), (32, after, faces)):
        config = run.recipe.critic if side == 16 else run.recipe.critic.resized(16, 32)  # type: ignore[attr-defined]
        judge = config.build(ImageSpec(side=side))
        judge.load_state_dict(
            {n.removeprefix("recipe.critic."): t for n, t in state.items() if n.startswith("recipe.critic.")}
        )
        logits.append(judge(images).detach())
    assert (logits[1] - logits[0]).square().mean() < 0.5 * logits[0].square().mean(), logits


def test_resuming_needs_no_parent_and_is_exact(blob_pack: Pack) -> None:
    parent = trained("gan", blob_pack)
    copy = shutil.copytree(parent, "copy")
    run = dataclasses.replace(small("gan", blob_pack), images=48)
    whole = experiment.execute(run, None, blob_pack.path, "whole", "auto", copy)
    part = experiment.execute(dataclasses.replace(run, images=24), None, blob_pack.path, "part", "auto", copy)
    shutil.rmtree(copy)
    again = experiment.execute(run, None, blob_pack.path, "part", "auto")
    assert again == part
    left, right = state_of(whole), state_of(part)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_that_was_killed_before_it_had_the_weights_asks_for_the_parent(blob_pack: Pack) -> None:
    parent = trained("gan", blob_pack)
    run = small("gan", blob_pack)
    child = experiment.execute(dataclasses.replace(run, images=8), None, blob_pack.path, "child", "auto", parent)
    shutil.rmtree(child / "checkpoints")
    with pytest.raises(Exception, match="no checkpoint yet"):
        experiment.execute(run, None, blob_pack.path, "child", "auto")
    experiment.execute(run, None, blob_pack.path, "child", "auto", parent)
    assert RunDirectory(child).status["seen"] == 64


def test_another_parent_is_another_run(blob_pack: Pack) -> None:
    one, two = trained("gan", blob_pack, "one"), trained("gan", blob_pack, "two", seed=3)
    run = dataclasses.replace(small("gan", blob_pack), images=8)
    experiment.execute(run, None, blob_pack.path, "child", "auto", one)
    with pytest.raises(Mismatch, match="another run"):
        experiment.execute(run, None, blob_pack.path, "child", "auto", two)


def test_a_file_has_no_critic_and_a_bundled_model_has_one(
    blob_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = trained("gan", blob_pack)
    lone = Path(shutil.copy(checkpoint.find_model(parent), tmp_path / "lone.safetensors"))
    state = plan_of(small("gan", blob_pack), blob_pack).initial_state(World())
    found = adopt(state, read_parent(lone))
    assert found.taken["model"] == found.total["model"] and found.taken["critic"] == 0
    assert "critic: nothing, it starts anew" in list(found.lines())
    assert "recipe.freeze" not in inherit(small("gan", blob_pack), read_parent(lone), 16, {}).by_rule
    folder = tmp_path / "models" / "faces"
    folder.mkdir(parents=True)
    shutil.copy(lone, folder / bundled.MODEL)
    networks = {
        name.removeprefix("recipe."): tensor.half()
        for name, tensor in state_of(parent).items()
        if name.startswith("recipe.critic.")
    }
    (folder / bundled.CRITIC).write_bytes(checkpoint.pack_tensors(networks, {"recipe": {}, "model_sha256": ""}))
    monkeypatch.setattr(bundled, "FOLDER", folder.parent)
    found = adopt(plan_of(small("gan", blob_pack), blob_pack).initial_state(World()), read_parent("faces"))
    assert found.taken == found.total


def test_the_command_line(blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    parent = trained("gan", blob_pack)
    line = ["train", "gan", "--data", str(blob_pack.path), "--from", str(parent), "--out", "child", "--images", "8"]
    assert main([*line, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        "From     model: all" in said and "From     critic: all" in said and "recipe.freeze 1: set by the rule" in said
    )
    assert main(line) == 0
    child = RunDirectory(Path("child"))
    assert child.run_json is not None and child.run_json["model"]["width"] == 4
    assert "started with the weights of the model" in card(read_record(Path("child")))
    assert main([*line[:5], "nowhere", "--out", "other"]) == 3
    assert "nowhere does not exist" in capsys.readouterr().err


def test_a_header_of_another_kind_is_read_without_harm(blob_pack: Pack) -> None:
    """A parent's header is data: configurations of unknown kinds, of wrong types and none at all change nothing."""
    parent = read_parent(trained("gan", blob_pack))
    run = small("gan", blob_pack)
    for header in ({}, {"config": 5, "recipe": []}, {"config": {"kind": "Popen"}, "recipe": {"critic": {"kind": 3}}}):
        found = inherit(run, dataclasses.replace(parent, header=header), 16, {})
        assert found.model == run.model and found.recipe.critic == run.recipe.critic  # type: ignore[attr-defined]


def test_a_header_cannot_ask_for_a_network_larger_than_its_file(blob_pack: Pack) -> None:
    parent = read_parent(trained("gan", blob_pack))
    run = small("gan", blob_pack)
    model = {**parent.header["config"], "width": 4096, "max_width": 4096}
    critic = {**parent.header["recipe"]["critic"], "blocks": 10**9}
    header = {**parent.header, "config": model, "recipe": {**parent.header["recipe"], "critic": critic}}
    lone = {name: tensor for name, tensor in parent.networks.items() if name.startswith("model.")}
    for networks in (parent.networks, lone):
        found = inherit(run, dataclasses.replace(parent, header=header, networks=networks), 16, {})
        assert found.model == run.model and found.recipe.critic == run.recipe.critic  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve faces, each in the middle of a larger picture, and one picture without a face."""
    folder = tmp_path_factory.mktemp("photographs")
    faces = Sampler.load("faces").sample(range(40, 52)).add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1)
    for number, face in enumerate(faces.numpy()):
        picture = Image.new("RGB", (400, 300), (90, 120, 150))
        picture.paste(Image.fromarray(face).resize((128, 128)), (136, 86))
        picture.save(folder / f"{number:02}.png")
    Image.new("RGB", (400, 300)).save(folder / "none.png")
    return folder


def test_photographs_are_cut_as_the_parents_faces_are(
    photographs: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mien.metrics.framing.SEEDS", range(24))  # as many as a user's run looks at
    run = dataclasses.replace(tiny(presets.PRESETS["gan"]), images=8)
    out = experiment.execute(run, None, photographs, "child", "auto", "faces", {"images": 8})
    said = capsys.readouterr().err
    assert "by --crop face with the eyes 0.44 of the side apart" in said
    assert "in the middle square of a photograph they are 0.19 apart" in said, (
        "0.44 of 128 of the shorter side's 300 px"
    )
    assert "1 of 13 pictures show no face" in said
    data = json.loads((out / "data.json").read_text())
    assert (data["count"], data["photographs"]) == (12, str(photographs))
    recipe = Pack.open(Path(data["name"])).meta["recipe"]
    assert (recipe["crop"], recipe["eye_distance"], recipe["eye_height"]) == ("face", 0.442, 0.352)
    capsys.readouterr()
    # What goes on needs no parent, and finds the pack again.
    longer = dataclasses.replace(run, images=16)
    assert experiment.execute(longer, None, photographs, "child", "auto", None, {"images": 16}) == out
    assert RunDirectory(out).status["seen"] == 16
    # A pack that one has prepared is taken as it is, and so is a folder of faces as large as the parent's.
    pack = prepare(find_source(photographs), here / "own.pack", Preparation(side=64))
    assert pack is not None
    assert framed(pack.path, 64, read_parent("faces")) is None
    close = here / "close"
    close.mkdir()
    for path in photographs.glob("[0-9]*.png"):
        Image.open(path).crop((136, 86, 264, 214)).save(close / path.name)
    assert framed(close, 64, read_parent("faces")) is None


def test_photographs_without_faces_are_cut_as_they_are(here: Path) -> None:
    folder = here / "trees"
    folder.mkdir()
    for number in range(4):
        Image.effect_noise((80, 80), 60 + number).convert("RGB").save(folder / f"{number}.png")
    assert framed(folder, 64, read_parent("faces")) is None
    assert framed("drawn", 64, read_parent("faces")) is None
    assert framed(None, 64, read_parent("faces")) is None


def test_without_the_networks_that_find_faces_a_sentence_says_so(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(framing, "can_align", lambda: False)
    assert framed(photographs, 64, read_parent("faces")) is None
    assert "with the extra `faces`" in capsys.readouterr().err


def test_a_run_names_no_pack_outside_the_cache(here: Path, photographs: Path, labelled: Pack) -> None:
    home = RunDirectory(here / "run")
    home.path.mkdir()
    home.write_json("run.json", {"preset": "gan"})
    home.write_json("data.json", {"name": str(labelled.path), "photographs": str(photographs)})
    assert cut_before(photographs, home.path, "auto") == photographs
