"""Faces on request: how networks are told labels, unknown ones among them, and how labels are asked for on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien import presets
from mien.cli.arguments import Combinations, interpolate_labels, parse_labels
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.families import VariationalModel
from mien.core.run import Run, override
from mien.data.pack import Entry, PackWriter
from mien.errors import UsageError
from mien.nn.labels import LabelledLatent, LabelProjection
from mien.recipes.relativistic_gan import spread
from mien.sampling.sampler import Sampler
from mien.training.experiment import GRID_SEEDS
from mien.training.resolve import ResolvedRun, scarce
from mien.training.train_state import TrainState
from tests.conftest import Outcome, blobs, tiny, write_pack

NAN = float("nan")
NAMES = ("Eyeglasses", "Male", "Bald")
TOLD = [
    ("cgan", {}),
    ("cgan", {"model.conditioning": "channel", "recipe.critic.conditioning": "channel", "recipe.label_weight": 0.0}),
    ("dcgan-2015", {}),
    ("torch-gan-2015", {}),
    ("vae", {}),
    ("vae", {"model.conditioning": "channel"}),
    ("homogan-10", {}),
    ("homogan-15", {}),
    ("r3gan-2024", {}),
]
every_way = pytest.mark.parametrize(("name", "knobs"), TOLD, ids=str)


def told(name: str, knobs: dict[str, Any]) -> Run:
    return override(tiny(presets.PRESETS[name]), {"conditional": True, **knobs})


def source(labels: Tensor | None = None) -> Iterator[Batch]:
    """Faces that are bright where the first label is yes, with some of their labels not known."""
    generator = torch.Generator().manual_seed(0)
    while True:
        rows = torch.randint(0, 2, (8, 3), generator=generator).float()
        images = (rows[:, :1, None, None] * 1.2 - 0.6) + 0.1 * torch.randn(8, 3, 16, 16, generator=generator)
        rows[::4, 1] = NAN
        yield Batch(images, rows if labels is None else labels)


def learner_of(run: Run) -> TrainState:
    torch.manual_seed(0)
    faces = ImageSpec(side=16, label_dim=3)
    recipe = run.recipe.build(run.model.build(faces), faces).train()
    return TrainState(recipe, None, DeviceContext(torch.device("cpu"), "fp32"), World(), 0)


@every_way
def test_a_step_with_unknown_labels(name: str, knobs: dict[str, str]) -> None:
    learner = learner_of(told(name, knobs))
    assert learner.recipe.model.label_dim == 3
    stats = learner.step(source())
    assert stats and all(torch.isfinite(value) for value in stats.values())


@every_way
def test_labels_change_the_face_and_each_does_something_else(name: str, knobs: dict[str, str]) -> None:
    model = learner_of(told(name, knobs)).recipe.model.eval()
    for module in model.modules():  # what begins at zero says nothing yet
        for parameter in module.parameters(recurse=False):
            if not parameter.any():
                torch.nn.init.normal_(parameter, 0.0, 0.1)
    z = model.prior.draw([1], model.latent_shape).expand(4, *model.latent_shape)
    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with torch.no_grad():
        faces = model.decode(z, rows).flatten(1)
        distances = torch.cdist(faces, faces)
        assert float(distances[~torch.eye(4, dtype=torch.bool)].min()) > 1e-4
        assert torch.isfinite(model.decode(z, torch.full((4, 3), NAN))).all()
        assert torch.isfinite(model.decode(z)).all()  # nobody asked for anything


@pytest.mark.parametrize("way", ["projection", "channel"])
def test_critics_hold_faces_against_their_labels(way: str) -> None:
    run = told("cgan", {"recipe.critic.conditioning": way, "recipe.label_weight": 0.0})
    critic = learner_of(run).recipe.critic
    images = torch.randn(4, 3, 16, 16)
    yes, no, unknown = (torch.full((4, 3), value) for value in (1.0, 0.0, NAN))
    with torch.no_grad():
        logits = [critic(images, labels) for labels in (yes, no, unknown, torch.full((4, 3), 0.5))]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    assert torch.allclose(logits[2], logits[3])
    if way == "projection":  # yes and no are equally far from what is not known
        assert torch.allclose((logits[0] + logits[1]) / 2, logits[2], atol=1e-5)


def test_projection_is_a_sum_over_labels() -> None:
    torch.manual_seed(0)
    project = LabelProjection(2, 5)
    x = torch.randn(3, 5)
    both, first, second = (project(x, torch.tensor([row] * 3)) for row in ([1.0, 0.0], [1.0, NAN], [NAN, 0.0]))
    assert torch.allclose(both, first + second, atol=1e-6)
    assert torch.equal(project(x), torch.zeros(3))


def test_the_margin_of_a_label_is_what_its_opposite_would_cost() -> None:
    critic = learner_of(told("cgan", {})).recipe.critic
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([[1.0, 0.0, 0.25]] * 3 + [[0.0, NAN, 1.0]])
    with torch.no_grad():
        margins = critic.project.margins(critic.features(images, labels), labels)
        for column in range(3):
            turned = labels.clone()
            turned[:, column] = 1.0 - labels[:, column]
            assert torch.allclose(margins[:, column], critic(images, labels) - critic(images, turned), atol=1e-5)
    assert margins[3, 1] == 0.0 and (margins[:3].abs() > 1e-6).all()


def test_the_critic_is_taught_every_label_of_its_reals() -> None:
    losses, stats = {}, {}
    images, labels = torch.randn(8, 3, 16, 16), torch.randint(0, 2, (8, 3)).float()
    for weight in (0.0, 1.0, 3.0):
        learner = learner_of(override(told("cgan", {}), {"recipe.label_weight": weight, "recipe.label_dropout": 0.0}))
        learner.recipe.shared_noise.manual_seed(0)
        critic, generator = learner.recipe.step(iter([Batch(images, labels)]))
        losses[weight], stats[weight] = (critic.loss, generator.loss), critic.stats
        if weight:
            judge = learner.recipe.critic
            margins = judge.project.margins(judge.features(images, labels), labels)
            assert torch.allclose(stats[weight]["label_loss"], torch.log1p(torch.exp(-margins)).mean(), atol=1e-6)
    assert "label_loss" not in stats[0.0]
    for weight in (1.0, 3.0):
        assert torch.allclose(losses[weight][0], losses[0.0][0] + weight * stats[weight]["label_loss"], atol=1e-5)
        assert torch.equal(losses[weight][1], losses[0.0][1]), "the generator's loss is what it was"


def test_a_weight_of_labels_below_nothing() -> None:
    with pytest.raises(UsageError, match="Give 0 or more"):
        override(told("cgan", {}), {"recipe.label_weight": -1.0})


@pytest.mark.parametrize(
    ("name", "way"), [("cgan", {"recipe.critic.conditioning": "channel"}), ("r3gan-2024", {"conditional": True})]
)
def test_a_critic_that_compares_nothing_with_labels_has_no_weight_for_them(name: str, way: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="label-weight 2 is not possible"):
        learner_of(override(told(name, way), {"recipe.label_weight": 2.0}))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_withheld_from_a_share_of_faces_and_from_both_players_alike(share: float) -> None:
    recipe = learner_of(override(told("cgan", {}), {"recipe.label_dropout": share, "recipe.label_weight": 0.0})).recipe
    heard: dict[str, list[Tensor]] = {"generator": [], "critic": []}
    decode = recipe.model.decode

    def listening(z: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        heard["generator"].append(labels)
        return decode(z, labels)

    recipe.model.decode = listening  # type: ignore[method-assign]
    recipe.critic.register_forward_pre_hook(lambda _, given: heard["critic"].append(given[1]))  # type: ignore[union-attr]
    labels = torch.tensor([[1.0, 0.0, 1.0]]).expand(4000, 3)
    next(iter(recipe.step(iter([Batch(torch.zeros(4000, 3, 16, 16), labels)]))))
    asked = heard["generator"][0]
    both = heard["critic"][0]
    assert torch.equal(both.nan_to_num(9.0), torch.cat([asked, asked]).nan_to_num(9.0))
    some = asked[spread(4000, recipe.config.reg_fraction)]  # type: ignore[union-attr, arg-type]
    penalised = heard["critic"][1]
    assert torch.equal(penalised.nan_to_num(9.0), torch.cat([some, some]).nan_to_num(9.0))
    gone = asked.isnan()
    assert torch.equal(gone.any(1), gone.all(1)) and float(gone.float().mean()) == pytest.approx(share, abs=0.03)


def test_labels_begin_more_quietly_than_the_latent_beside_them() -> None:
    torch.manual_seed(0)
    labelled = LabelledLatent(6, 64)
    z = torch.randn(500, 64)
    rows = torch.randint(0, 2, (500, 6)).float()
    whole = labelled(z, rows).detach()
    assert torch.equal(whole[:, :64], z) and float(whole[:, 64:].std()) == pytest.approx(0.3, abs=0.05)


WIDER = {"model.width": 8, "model.max_width": 16, "recipe.lr_end": 5e-3, "recipe.lr": 5e-3}
PLAIN = {"recipe.likelihood": "calibrated"}  # the coarsest of the bands learns slowest, and tones are all there is
LIVELY = {"recipe.critic.width": 8, "recipe.critic.max_width": 16, "recipe.gamma": 0.01, "recipe.gamma_end": 0.01}


@pytest.mark.parametrize(("name", "knobs"), [("cgan", WIDER | LIVELY), ("vae", WIDER | PLAIN)])
def test_a_label_is_learned(name: str, knobs: dict[str, float]) -> None:
    """Faces are bright where the first label is yes; soon so is what is asked for."""
    learner = learner_of(override(told(name, {}), knobs))
    batches = source()
    for _ in range(120):
        learner.step(batches)
    model = learner.recipe.model.eval()
    z = model.prior.draw(range(16), model.latent_shape)
    with torch.no_grad():
        bright, dark = (model.decode(z, torch.tensor([[value, 0.5, 0.5]] * 16)).mean() for value in (1.0, 0.0))
    assert float(bright - dark) > 0.3


# CriticConditioning


@pytest.fixture(scope="module")
def cgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is told three labels."""
    folder = tmp_path_factory.mktemp("cgan")
    pack = write_pack(folder / "faces.pack", labels=NAMES)
    plan = ResolvedRun(told("cgan", {}), pack, DeviceContext(torch.device("cpu"), "fp32"), None, "faces")
    learner = plan.initial_state(World())
    for parameter in learner.recipe.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.1)
    file = folder / "model.safetensors"
    file.write_bytes(dataclasses.replace(learner, ema=None).snapshot(plan.header).model)
    return file


def test_parse_labels() -> None:
    assert parse_labels(["Eyeglasses=1", "Bald=0.5"]) == {"Eyeglasses": 1.0, "Bald": 0.5}
    for bad in ("Bald=2", "Bald=-0.1", "Bald", "Bald=nan", "Bald=x", "="):
        with pytest.raises(UsageError):
            parse_labels([bad])


def test_unknown_labels_list_those_that_are_known(cgan: Path) -> None:
    with pytest.raises(UsageError, match="Eyeglass") as error:
        Sampler.load(cgan, device="cpu").labels([0], {"Eyeglass": 1.0})
    assert "Eyeglasses, Male, Bald" in error.value.why


@pytest.mark.parametrize("bad", ["", ":", "A,A", "A:A", "A,B,C,D,E,F,G"])
def test_tables_that_make_no_sense(bad: str) -> None:
    with pytest.raises(UsageError):
        Combinations.parse(bad)


def test_combinations_share_a_latent(cgan: Path) -> None:
    sampler = Sampler.load(cgan, device="cpu")
    table = Combinations.parse("Eyeglasses:Male")
    places, rows, called = table.cells_of(sampler, [3, 9], {"Bald": 0.25})
    assert (table.columns, table.cells) == (2, 4)
    assert places.tolist() == [0] * 4 + [1] * 4
    assert rows.tolist() == [[a, b, 0.25] for _ in range(2) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    assert called[:2] == ["no Eyeglasses, no Male", "no Eyeglasses, Male"] and len(called) == 8


def test_interpolate_labels(cgan: Path) -> None:
    sampler = Sampler.load(cgan, device="cpu")
    rows = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    led = interpolate_labels(sampler, rows, {"Eyeglasses": 0.0}, {"Eyeglasses": 1.0, "Bald": 0.5})
    assert led is not None
    assert led.tolist() == [[0.0, 1.0, 0.0], [0.5, 1.0, 0.25], [1.0, 0.0, 0.5]]
    assert interpolate_labels(sampler, None, {}, {}) is None
    with pytest.raises(UsageError, match="no labels"):
        interpolate_labels(sampler, None, {"Bald": 1.0}, {})
    with pytest.raises(UsageError, match="Hat"):
        interpolate_labels(sampler, rows, {"Hat": 1.0}, {})


def test_asking_on_the_command_line(cgan: Path, mien: Callable[..., Outcome], tmp_path: Path) -> None:
    mien("sample", cgan, "--seeds", "0-1", "--combine", "Eyeglasses,Male", "-o", "table.png")
    mien(
        "walk",
        cgan,
        "--seeds",
        "3",
        "--frames",
        "3",
        "--label-from",
        "Bald=0",
        "--label-to",
        "Bald=1",
        "-o",
        "bald.png",
    )
    assert (tmp_path / "table.png").exists() and (tmp_path / "bald.png").exists()
    told = mien("sample", cgan, "--label", "Hat=1", code=2).stderr
    assert "Eyeglasses, Male, Bald" in told
    for words in (
        ["--label", "Bald=2"],
        ["--combine", "Bald,Bald"],
        ["--combine", "Hat"],
        ["--combine", "Bald", "-o", "x/"],
    ):
        mien("sample", cgan, *words, code=2)


# At the start of a run


def test_scarce_labels_are_told(tmp_path: Path) -> None:
    import numpy as np

    labels = np.zeros((1200, 3), dtype=np.float32)
    labels[:600, 0], labels[:246, 1], labels[:, 2] = 1.0, 1.0, np.nan
    with PackWriter(tmp_path / "p.pack", 16, NAMES) as writer:
        writer.append(blobs(1200, 16), labels, [Entry(f"{i}.png") for i in range(1200)])
        pack = writer.commit({})
    lines = scarce(pack)
    assert lines[0].startswith("the label Male has 246 positive examples") and len(lines) == 2
    assert lines[1].startswith("the label Bald has 0 negative examples")


def test_tiles_are_called_by_what_they_are_asked_for(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "p.pack", labels=("Hat", "Smile"))
    engine = DeviceContext(torch.device("cpu"), "fp32")
    plan = ResolvedRun(told("cgan", {}), pack, engine, None, "p")
    called = plan.titles(GRID_SEEDS)
    assert called is not None and set(called) == {"-", "Hat", "Smile", "Hat, Smile"} and len(called) == 64
    model = plan.initial_state(World()).inference_model
    rows = Sampler(model, plan.header, engine, "").labels(range(64))
    assert rows is not None
    assert [("Hat" in words, "Smile" in words) for words in called] == [(bool(a), bool(b)) for a, b in rows.tolist()]
    assert ResolvedRun(tiny(presets.PRESETS["quick"]), pack, engine, None, "p").titles(GRID_SEEDS) is None


def test_an_autoencoder_in_a_game_is_told_too() -> None:
    """The recipe of VAE/GAN hands labels to whatever model can be told."""
    from mien.models.dcgan import DCGANDiscriminatorConfig

    run = tiny(presets.PRESETS["vaegan-torch-2015"])
    run = dataclasses.replace(run, model=tiny(presets.PRESETS["vae"]).model, conditional=True)
    run = override(run, {"recipe.critic": DCGANDiscriminatorConfig(width=4)})
    learner = learner_of(run)
    seen: list[Tensor | None] = []
    model = learner.recipe.model
    assert isinstance(model, VariationalModel)
    decode_code = model.decode_code  # of reconstructions, and on the way of fakes
    model.decode_code = lambda codes, labels=None: (seen.append(labels), decode_code(codes, labels))[1]  # type: ignore
    stats = learner.step(source())
    assert all(torch.isfinite(value) for value in stats.values())
    assert len(seen) == 2 and all(labels is not None and labels.shape == (8, 3) for labels in seen)


def test_a_generator_that_cannot_be_told_says_so(mien: Callable[..., Outcome], tmp_path: Path) -> None:
    write_pack(tmp_path / "p.pack", labels=("Hat",))
    small = ["--model.width", "4", "--model.latent", "8", "--model.encoder-width", "4", "--images", "8", "--batch", "8"]
    said = mien("train", "vae-torch-2015", "--data", "p.pack", "--conditional", "--model.hidden", "16", *small).stderr
    assert "is not label-conditional" in said and "the label Hat has" in said
