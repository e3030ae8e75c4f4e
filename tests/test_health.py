"""Health: what a glance tells, verdicts and their remedies, the observer, `mien doctor RUN`, and planted faults."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import faults
from benchmarks.health import Throttled
from torch import Tensor

import mien
from mien import presets
from mien.__main__ import main
from mien.core.contracts import ImageSpec, Model, Progress
from mien.core.families import Gaussian, VariationalModel
from mien.core.run import Run, config_fields, override, to_json
from mien.data.pack import Pack
from mien.errors import Diverged
from mien.metrics import health, quick_checks
from mien.metrics.health import Symptom, Window, diagnose
from mien.metrics.quick_checks import LatentUse, RealFaces
from mien.metrics.suggestions import remedy
from mien.report.health_observer import HealthCheck
from mien.report.page import write_report
from mien.storage import checkpoint
from mien.training import experiment
from tests.conftest import ROOT, blobs, tiny, write_pack

FAULTS = ROOT / "benchmarks" / "faults.py"


def faces_of(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """400 noisy blobs at 16 px: no two are alike."""
    from mien.data.pack import Entry, PackWriter

    rng = np.random.default_rng(3)
    images = blobs(400, 16).astype(int) + rng.normal(0, 40, (400, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(int)
    with PackWriter(tmp_path_factory.mktemp("data") / "noisy.pack", 16) as writer:
        writer.append(images.clip(0, 255).astype(np.uint8), None, [Entry(f"{i}.png") for i in range(400)])
        return writer.commit({})


@pytest.fixture(scope="module")
def reals(pack: Pack) -> RealFaces:
    return RealFaces(pack)


# A glance


def test_how_many_different_faces() -> None:
    """By hand: equal faces are one, two halves two, far ones nearly as many as they are; however large their difference."""
    two = torch.tensor([[0.0] * 6, [0.01] * 6])
    assert quick_checks.different(two[:1].repeat(64, 1)) == pytest.approx(1.0)
    close = float(np.exp(-4.0 * 63 / 64))  # K between the halves: d^2 over its mean is 2 x 63/64
    entropy = -sum(w * np.log(w) for w in ((1 + close) / 2, (1 - close) / 2))
    for scale in (1.0, 1e3):
        assert quick_checks.different(two.repeat(32, 1) * scale) == pytest.approx(np.exp(entropy), rel=1e-6)
    assert 15 < quick_checks.different(torch.eye(20)) < 20
    uneven = torch.cat([two[:1].repeat(58, 1), torch.rand(6, 6, generator=torch.Generator().manual_seed(0))])
    assert quick_checks.different(uneven) < 3


def test_how_far_apart_faces_are() -> None:
    black_and_white = torch.tensor([[-1.0] * 9, [1.0] * 9])
    assert quick_checks.spread(black_and_white) == pytest.approx(255.0)
    assert (
        quick_checks.spread(black_and_white[:1]) == 0.0 and quick_checks.spread(black_and_white[:1].repeat(5, 1)) == 0.0
    )


def test_real_faces_are_many(reals: RealFaces) -> None:
    assert 15 < reals.different < quick_checks.GRID and 0 < reals.copy_bound < 1
    for modes in (1, 2, 3):
        made = quick_checks.different(quick_checks.small(reals.some[torch.arange(64) % modes], quick_checks.FINE))
        assert modes - 0.3 < made < modes + 0.1


def test_copies_are_found_and_blurred_faces_are_not(reals: RealFaces, pack: Pack) -> None:
    training = faces_of(np.array(pack.images[:64]))
    unseen = faces_of(blobs(64, 16, seed=9)) + torch.nn.functional.interpolate(
        torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.3, scale_factor=4
    )
    assert reals.copies(training) == 1.0 and reals.copies(training.flip(3)) == 1.0
    assert reals.copies(training + 0.02) == 1.0
    assert reals.copies(unseen) == 0.0
    blurred = training.mean(0, keepdim=True) + 0.1 * (unseen - training.mean(0, keepdim=True))
    assert reals.copies(blurred) == 0.0, "near the middle of all, and nearer to none"
    some = torch.cat([training[:6], unseen[:58]])
    assert reals.copies(some) == pytest.approx(6 / 64)
    assert reals.distances_to_training(training[:3])[1].tolist() == [0, 1, 2]


def test_a_check_holds_few_training_images_at_once(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had a thousand in floats, and temporaries beside them: 4 GB for photographs of 128 px."""
    held, images = [], RealFaces.images

    def counted(self: RealFaces, rows: Any) -> torch.Tensor:
        held.append(len(rows))
        return images(self, rows)

    monkeypatch.setattr(RealFaces, "images", counted)
    fresh = RealFaces(pack)
    assert fresh.copies(faces_of(np.array(pack.images[:64]))) == 1.0
    assert sum(held) == len(fresh.rows) + min(quick_checks.REALS, len(fresh.rows)) and max(held) <= 64
    assert torch.equal(fresh.small_images, quick_checks.small(images(fresh, fresh.rows), quick_checks.COARSE))


@pytest.mark.parametrize("noise", [0, 4])
def test_duplicates_do_not_hide_copies(noise: int, pack: Pack, tmp_path: Path) -> None:
    """With 3% of the faces twice, the bound was 0 and a copier clean; with ones saved again, a copier as exact as those."""
    from mien.data.pack import Entry, PackWriter

    def again(images: Any) -> Any:
        changed = images + np.random.default_rng(0).integers(-noise, noise + 1, images.shape)
        return changed.clip(0, 255).astype(np.uint8)

    images = np.concatenate([pack.images, again(pack.images[:12])])
    with PackWriter(tmp_path / "twice.pack", 16) as writer:
        writer.append(images, None, [Entry(f"{i}.png") for i in range(len(images))])
        reals = RealFaces(writer.commit({}))
    assert reals.copy_bound > 0 and reals.copies(faces_of(again(np.array(pack.images[100:164])))) > 0.95


def test_a_pack_of_one_face_is_no_error(tmp_path: Path) -> None:
    alone = RealFaces(write_pack(tmp_path / "one.pack", count=1))
    assert alone.different == pytest.approx(1.0, abs=0.01)
    assert 0.0 <= alone.copies(alone.some) <= 1.0


class Ignorant(VariationalModel):
    """Encodes by the mean colours, or not at all."""

    def __init__(self, deaf: bool) -> None:
        super().__init__()
        self.deaf, self.latent_shape, self.weight = deaf, (48,), torch.nn.Parameter(torch.ones(()))

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        mean = quick_checks.small(images, 4) * (0.0 if self.deaf else 1.0)
        return Gaussian(mean, torch.zeros_like(mean) if self.deaf else torch.full_like(mean, -4.0))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.nn.functional.interpolate(z.unflatten(1, (3, 4, 4)), scale_factor=4)


def test_what_passes_through_a_latent(reals: RealFaces) -> None:
    hears = quick_checks.latent_use(Ignorant(deaf=False), reals.some)
    assert hears.kept > 0.5 and hears.active == 48 and hears.nats > 10
    deaf = quick_checks.latent_use(Ignorant(deaf=True), reals.some)
    assert deaf == LatentUse(kept=0.0, nats=0.0, active=0, dimensions=48)


# Verdicts


def window(*lines: dict[str, float]) -> Window:
    found = Window()
    for line in lines:
        found.add(line)
    return found


def test_a_window_passes_over_what_is_not_a_number() -> None:
    found = window({"loss": 1.0, "k": 0.5}, {"loss": float("nan")}, {"loss": 3.0})
    assert found.mean("loss") == 2.0 and found.presence("k") == pytest.approx(1 / 3) and found.mean("none") is None
    assert window({"critic_loss": -4.0, "generator_loss": 1.0, "kl": 99.0}).loss_size == 4.0


LATE = health.SETTLING


@pytest.mark.parametrize(
    ("symptom", "ill"),
    [
        (health.collapse(1.0, 30.0, 40.0, 40.0, LATE), True),
        (health.collapse(2.2, 30.0, 40.0, 40.0, LATE), True),
        (health.collapse(25.0, 30.0, 40.0, 60.0, LATE), False),
        (health.collapse(25.0, 30.0, 0.1, 0.1, LATE), True),
        (health.collapse(25.0, 30.0, 15.0, 60.0, LATE), True),
        (health.collapse(1.0, 30.0, 40.0, 40.0, LATE - 1), False),
        (health.memorisation(2 / 64, LATE), True),
        (health.memorisation(1 / 64, LATE), False),
        (health.posterior_collapse(LatentUse(0.001, 0.01, 0, 32), LATE), True),
        (health.posterior_collapse(LatentUse(0.0, 9.0, 20, 32), LATE), False),
        (health.critic_too_strong(window({"generator_loss": 12.0}), LATE), True),
        (health.critic_too_strong(window({"generator_loss": 1.2}), LATE), False),
        (health.critic_too_strong(window(*[{"critic_fake": 0.01}] * 40), LATE), True),
        (health.critic_too_strong(window({"generator_loss": 1.2}, *[{"critic_fake": 0.1}] * 3), LATE), False),
        (health.pinned(window({"k": 0.0}), LATE), True),
        (health.pinned(window({"k": 1.0}), LATE), True),
        (health.pinned(window({"k": 0.02}), LATE), False),
        (health.pinned(window(*[{"k": 0.0}] * 5, *[{"k": 1.0}] * 5), LATE), True),
        (health.divergence(1, Window(), ()), True),
        (health.divergence(0, Window(), (), drawn=False), True),
        (health.divergence(0, window({"loss": 5e4}), [0.5, 2.0, 3.0]), True),
        (health.divergence(0, window({"loss": 9.0}), [0.5, 2.0, 3.0]), False),
        (health.starvation(window(*[{"waiting": 0.6}] * health.LINES)), True),
        (health.starvation(window({"waiting": 0.1})), False),
        (health.disk(2_900, 1_000), True),
        (health.disk(3_100, 1_000), False),
    ],
)  # fmt: skip
def test_symptoms(symptom: Symptom, ill: bool) -> None:
    assert symptom.ill is ill and symptom.evidence.endswith(".") and symptom.name in health.NAMES
    (verdict,) = diagnose([symptom], (), to_json(presets.PRESETS["quick"]))
    sound = "pending" if symptom.early else "healthy"
    assert verdict.state == (("alarm" if symptom.fact else "warning") if ill else sound)
    assert verdict.evidence.lower().startswith(health.FAULTS[symptom.name].lower()) is ill
    assert bool(verdict.suggestion) is ill
    (again,) = diagnose([symptom], [symptom.name], to_json(presets.PRESETS["quick"]))
    assert again.state == ("alarm" if ill else sound)


def test_there_is_no_verdict_before_there_is_anything_to_judge() -> None:
    """A run of 11 steps had an alarm of its critic, and one of its reader, which was starting."""
    early = [
        health.collapse(1.0, 30.0, 40.0, 40.0, 11), health.memorisation(1.0, 11), health.pinned(window({"k": 0.0}), 11),
        health.critic_too_strong(window({"generator_loss": 12.0}), 11),
        health.critic_too_strong(window(*[{"critic_fake": 0.01}] * 11), 11),
        health.starvation(window(*[{"waiting": 0.9}] * (health.LINES - 1))),
    ]  # fmt: skip
    for verdict in diagnose([symptom for symptom in early if symptom], health.NAMES, {}):
        assert verdict.state == "pending" and not verdict.suggestion and "so far" in verdict.evidence, verdict
    assert len([symptom for symptom in early if symptom]) == 6
    assert not set(health.FAULTS) & set(health.FAULTS.values()), "no fault's name beside a good verdict"


def test_what_does_not_apply_is_not_judged() -> None:
    assert health.critic_too_strong(window({"loss": 3.0}), LATE) is None, "no critic"
    assert health.critic_too_strong(window({"generator_loss": 0.1, "k": 0.2}), LATE) is None, (
        "an error, not a cross-entropy"
    )
    assert health.pinned(window({"loss": 3.0}), LATE) is None and health.starvation(Window()) is None


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_remedy_is_one_change_that_the_run_takes(preset: str) -> None:
    """A flag that is suggested exists, is not what the run has already, and the run can be built with it."""
    run = presets.PRESETS[preset]
    known = {knob.name: knob for knob in config_fields(run)}
    for name, value in itertools.product(health.NAMES, (0.0, 1.0)):
        text = remedy(name, to_json(run), value, 12_000)
        words = text.rstrip(".").replace(",", " ").replace(":", " ").split()
        flags = [index for index, word in enumerate(words) if word.startswith("--")]
        assert len(flags) <= 1 and text.endswith(".")
        for index in flags:
            knob = known[words[index].removeprefix("--").replace("-", "_")]
            if knob.hint is bool:
                assert knob.value is False
                continue
            new: Any = words[index + 1]
            new = new if isinstance(knob.value, str) else type(knob.value or 0)(float(new))
            assert override(run, {knob.name: new}) != run, f"{text} is what the run has"


def test_the_remedy_for_models_of_ones_own() -> None:
    assert remedy(health.COLLAPSE, {"recipe": {"kind": "Mine"}}, 0.0) == "Start again with half the learning rate."
    assert remedy(health.DIVERGENCE, {}, 0.0) == "Start again with half the learning rate."
    assert "--images 12000" in remedy(health.MEMORY, {"flip": True}, 0.5, 12_000)


# The observer


class Watch:
    """A HealthCheck with its faces and words, and steps to show it."""

    def __init__(self, folder: Path, reals: RealFaces, faces: Tensor, start: int = 0) -> None:
        self.folder, self.faces, self.words = folder, faces, list[str]()
        self.model = tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16)).eval()
        run = to_json(presets.PRESETS["quick"])
        self.check = HealthCheck(folder, lambda: self.faces, reals, run, start, self.words.append)

    def step(self, seen: int, show: bool = True, rollbacks: int = 0, **stats: float) -> dict[str, str]:
        progress = Progress(
            seen, 10_000, seen / 100, 100.0, stats, stats.pop("waiting", 0.0), show=show, rollbacks=rollbacks
        )
        self.check.after_step(progress, self.model)
        return self.states()

    def states(self) -> dict[str, str]:
        verdicts = json.loads((self.folder / "health.json").read_text())["verdicts"]
        return {verdict["name"]: verdict["state"] for verdict in verdicts}

    def looks(self) -> list[int]:
        return [json.loads(line)["seen"] for line in (self.folder / "health.jsonl").read_text().splitlines()]


def test_a_healthy_run_stays_quiet(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, faces_of(blobs(64, 16, seed=5)))
    for seen in range(1_000, 9_000, 1_000):
        states = watch.step(seen, generator_loss=1.0, waiting=0.01)
    assert set(states.values()) == {"healthy"} and watch.words == []
    assert list(states) == [name for name in health.NAMES if name in states], "in their order"


def test_a_warning_an_alarm_each_once_and_gone_again(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, torch.zeros(64, 3, 16, 16))
    assert watch.step(1_000)[health.COLLAPSE] == "pending", "too early to say"
    assert watch.step(4_000)[health.COLLAPSE] == "warning"
    assert watch.step(6_000)[health.COLLAPSE] == "alarm"
    assert watch.step(8_000)[health.COLLAPSE] == "alarm"
    assert [words.split(":")[1] for words in watch.words] == [" warning", " alarm"]
    assert all("--recipe.gamma 16" in words and "one face" in words for words in watch.words)
    watch.faces = faces_of(blobs(64, 16, seed=5))
    assert watch.step(9_000)[health.COLLAPSE] == "healthy"
    assert watch.looks() == [1_000, 4_000, 6_000, 8_000, 9_000]


def test_lines_between_looks_count(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, faces_of(blobs(64, 16, seed=5)))
    watch.step(100, waiting=0.0)
    for seen in range(200, 1_000, 100):
        watch.step(seen, show=False, waiting=0.9)
    assert watch.looks() == [100]
    assert watch.step(1_000, waiting=0.9)[health.STARVATION] == "warning"
    assert watch.step(1_100, waiting=0.0)[health.STARVATION] == "healthy"


def test_rollbacks_are_facts_and_take_looks_back(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, faces_of(blobs(64, 16, seed=5)))
    watch.step(1_000)
    watch.step(2_000)
    assert watch.step(1_500, rollbacks=1)[health.DIVERGENCE] == "alarm"
    assert watch.looks() == [1_000, 1_500]
    assert watch.step(2_000, rollbacks=1)[health.DIVERGENCE] == "healthy"
    again = Watch(tmp_path, reals, watch.faces, start=1_600)
    assert again.looks() == [1_000, 1_500], "a resumed run takes back what lies ahead"
    assert again.step(1_800, rollbacks=1)[health.DIVERGENCE] == "healthy"
    again.check.close("done")
    assert again.states()[health.DIVERGENCE] == "healthy"
    again.check.close("diverged")
    assert again.states()[health.DIVERGENCE] == "alarm" and "ended" in again.words[-1]


def test_faces_that_are_not_numbers(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, torch.full((64, 3, 16, 16), torch.nan))
    assert watch.step(5_000)[health.DIVERGENCE] == "alarm"


def test_a_full_disk_is_seen_before_it_is_full(
    tmp_path: Path, reals: RealFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(tmp_path, reals, faces_of(blobs(64, 16, seed=5)))
    monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 2_500)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.safetensors").write_bytes(b"x" * 1_000)
    watch.check.after_commit(Progress(0, 1, 0.0, 0.0, {}), tmp_path / "checkpoint")
    assert watch.step(1_000)[health.DISK] == "alarm" and "room for 2 checkpoints" in watch.words[0]


def test_what_cannot_be_written_stops_nothing(
    tmp_path: Path, reals: RealFaces, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(tmp_path, reals, faces_of(blobs(64, 16, seed=5)))
    (tmp_path / "health.json").mkdir()
    progress = Progress(1_000, 10_000, 1.0, 1.0, {}, show=True)
    watch.check.after_step(progress, watch.model)
    assert "health cannot be written, training goes on" in capsys.readouterr().err


def test_the_report_shows_the_evidence(tmp_path: Path, reals: RealFaces) -> None:
    watch = Watch(tmp_path, reals, torch.zeros(64, 3, 16, 16))
    (tmp_path / "run.json").write_text(json.dumps({"preset": "quick"}))
    for seen in (4_000, 6_000):
        watch.step(seen)
    page = write_report(tmp_path).read_text()
    assert 'data-key="health-variety"' in page and "--recipe.gamma 16" in page and "Variety: the evidence" in page
    (tmp_path / "health.jsonl").write_text(
        '{"seen": 1, "rollbacks": 0, "loss_size": 1, "spread": 1, "verdicts": {"variety": 3}}\n[]\n{'
    )
    assert "Variety: the evidence" not in write_report(tmp_path).read_text()


# Whole runs


def call(*words: object) -> SimpleNamespace:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def test_eleven_steps_of_a_large_batch_are_too_few_as_well() -> None:
    """2,816 images of a batch of 256 had an alarm."""
    ill = health.collapse(1.0, 30.0, 40.0, 40.0, 11 * 256)
    assert ill.ill and health.settled(ill, 60 * 256, 256) == ill
    (verdict,) = diagnose([health.settled(ill, 11 * 256, 256)], [ill.name], {})
    assert verdict.state == "pending" and verdict.evidence == "Judged from 60 steps on; 11 so far."
    full = health.disk(0, 100)
    assert full.ill and health.settled(full, 8, 8) == full


def small(run: Run) -> Run:
    """A run of ten steps of 8 images with a look at every fourth image."""
    return dataclasses.replace(
        run, side=16, batch=8, images=80, minutes=None, sample_every=16, log_every=8, precision="fp32", device="cpu"
    )


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is judged from the first image on."""
    monkeypatch.setattr(health, "SETTLING", 0)
    monkeypatch.setattr(health, "SETTLING_STEPS", 0)


def plant(name: str, **changes: Any) -> Run:
    """A small run of benchmarks/faults.py."""
    code = presets.load_code(FAULTS)
    widths = {"recipe.critic.width": 4, **({"recipe.critic.max_width": 8} if "dcgan" not in name else {})}
    return override(small(code.presets[name]), {**widths, **changes})


def states_of(run: Path) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in (run / "health.jsonl").read_text().splitlines()]
    return [{name: known["state"] for name, known in line["verdicts"].items()} for line in lines]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("constant", health.COLLAPSE),
        ("dcgan-two-modes", health.COLLAPSE),
        ("some-copies", health.MEMORY),
    ],
)
def test_faults_of_what_is_drawn(name: str, fault: str, early: None, pack: Pack, tmp_path: Path) -> None:
    copies = {"model.pack": str(pack.path)} if "copies" in name else {}
    mien.train(plant(name, **copies), data=pack.path, out=tmp_path / "run")
    looks = states_of(tmp_path / "run")
    assert looks[0][fault] == "warning" and looks[1][fault] == "alarm"


@pytest.mark.parametrize("preset", ["vae", "vaegan-2016", "cppn-2016"])
def test_a_grey_run_with_an_encoder(preset: str, early: None, pack: Pack, tmp_path: Path) -> None:
    run = override(small(tiny(presets.PRESETS[preset])), {"channels": 1, "images": 48})
    mien.train(dataclasses.replace(run, sample_every=16), data=pack.path, out=tmp_path / "run")
    assert health.POSTERIOR in states_of(tmp_path / "run")[-1]


def test_a_beta_of_a_thousand(early: None, pack: Pack, tmp_path: Path) -> None:
    run = override(small(tiny(presets.PRESETS["vae"])), {"recipe.kl_weight": 1e3, "recipe.lr": 1e-2, "images": 640})
    mien.train(dataclasses.replace(run, sample_every=160), data=pack.path, out=tmp_path / "run")
    assert states_of(tmp_path / "run")[-1][health.POSTERIOR] == "alarm"


@pytest.mark.parametrize("changes", [{"recipe.gamma": 0.0}, {"recipe.gamma": 1.0, "recipe.k_step": 100.0}])
def test_k_at_an_end(changes: dict[str, Any], early: None, pack: Pack, tmp_path: Path) -> None:
    mien.train(override(small(tiny(presets.PRESETS["began-zhao"])), changes), data=pack.path, out=tmp_path / "run")
    assert states_of(tmp_path / "run")[-1][health.BALANCE] == "alarm"


def test_a_nan_for_good(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Diverged):
        mien.train(plant("nan-for-good", **{"model.onset": 80}), data=pack.path, out=tmp_path / "run")
    assert states_of(tmp_path / "run")[-1][health.DIVERGENCE] == "alarm"
    assert "mien: alarm: stability. Divergence: " in capsys.readouterr().err
    said = call("doctor", tmp_path / "run", "--strict", "--code", FAULTS)
    assert said.code == 5 and "alarm    stability" in said.out


def test_a_slow_reader(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "Loader", Throttled)
    slow = dataclasses.replace(small(tiny(presets.PRESETS["quick"])), images=120, sample_every=40)  # five lines a look
    mien.train(slow, data=pack.path, out=tmp_path / "run")
    states = [state[health.STARVATION] for state in states_of(tmp_path / "run")]
    assert states[-1] == "alarm", states
    verdicts = json.loads((tmp_path / "run" / "health.json").read_text())["verdicts"]
    (said,) = (verdict["suggestion"] for verdict in verdicts if verdict["name"] == health.STARVATION)
    assert "--loader-threads" in said or "faster disk" in said
    code = call("doctor", tmp_path / "run", "--strict").code
    assert code == 4, "the machine, not the learning"


# mien doctor RUN


@pytest.fixture(scope="module")
def trained(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without fault, as on a machine without other work."""
    out = tmp_path_factory.mktemp("runs") / "run"
    mien.train(dataclasses.replace(small(tiny(presets.PRESETS["vae"])), save_every=32), data=pack.path, out=out)
    lines = [{**json.loads(line), "waiting": 0.0} for line in (out / "metrics.jsonl").read_text().splitlines()]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


@pytest.fixture
def healthy(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def test_doctor_says_that_a_run_is_healthy(healthy: Path) -> None:
    said = call("doctor", healthy, "--strict")
    assert said.code == 0 and "alarm" not in said.out and said.out.count("pending ") == 3
    assert said.out.count("healthy ") + said.out.count("pending ") >= 5 and "2,000 images on; 80 so far" in said.out
    found = json.loads(call("doctor", healthy, "--json").out)
    assert found["seen"] == 80 and found["notes"] == [] and found["alarms"] == []
    assert {verdict["name"] for verdict in found["verdicts"]} >= {health.COLLAPSE, health.POSTERIOR, health.MEMORY}


def test_doctor_without_the_pack_judges_the_rest(healthy: Path, pack: Pack, tmp_path: Path) -> None:
    data = json.loads((healthy / "data.json").read_text())
    (healthy / "data.json").write_text(json.dumps({**data, "name": str(tmp_path / "gone.pack")}))
    said = call("doctor", healthy)
    assert said.code == 0 and "Name the pack with --data." in said.out and "the verdict is that of training" in said.out
    again = call("doctor", healthy, "--data", pack.path)
    assert again.code == 0 and "note" not in again.out
    other = write_pack(tmp_path / "other.pack", count=80, seed=4)
    assert "not the data that the run was trained on" in call("doctor", healthy, "--data", other.path).out


def test_doctor_of_a_killed_run(healthy: Path, early: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It left a torn line and no last word; the disk has filled since."""
    status = json.loads((healthy / "status.json").read_text())
    (healthy / "status.json").write_text(json.dumps({**status, "state": "running"}))
    with (healthy / "metrics.jsonl").open("a") as file:
        file.write('{"seen": 88, "lo')
    (healthy / "health.json").write_text("{")
    assert call("doctor", healthy).code == 0
    monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 10)
    said = call("doctor", healthy, "--strict")
    assert said.code in (5, 6) and "alarm    disk space" in said.out and "Free space" in said.out


def test_doctor_of_a_run_that_has_not_saved_yet(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(to_json(presets.PRESETS["quick"])))
    said = call("doctor", tmp_path, "--strict")
    assert said.code == 0 and "there is no valid checkpoint" in said.out


def test_doctor_tells_of_alarms_that_went_away(healthy: Path) -> None:
    lines = [json.loads(line) for line in (healthy / "health.jsonl").read_text().splitlines()]
    for line in lines[1:3]:
        line["verdicts"][health.COLLAPSE]["state"] = "alarm"
    (healthy / "health.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = call("doctor", healthy, "--strict")
    assert (
        said.code == 0
        and f"variety: alarm from {lines[1]['seen']} to {lines[2]['seen']} images, then it ended" in said.out
    )


@pytest.mark.parametrize(
    ("words", "code"), [("doctor nowhere", 3), ("doctor --strict", 2), ("doctor --data x", 2), ("doctor . --data 5", 3)]
)
def test_doctor_refuses_in_three_lines(words: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = call(*words.split())
    assert said.code == code and "\n  why: " in said.err and "\n  do:  " in said.err


def test_the_model_of_faults_is_honest_until_its_onset() -> None:
    config = dataclasses.replace(faults.PRESETS["constant"].model, onset=16)  # type: ignore[type-var]
    model: Model = config.build(ImageSpec(side=16)).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    z = model.prior.draw(range(8), model.latent_shape)
    with torch.no_grad():
        first, second = model.decode(z), model.decode(z)
    assert first.std(0).max() > 1e-3 and second.std(0).max() < 1e-5


def test_every_verdict_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "health.md").read_text()
    assert all(f"{name[0].upper()}{name[1:]}" in text for name in health.NAMES)
    assert all(word in text for word in ("health.json", "health.jsonl", "--strict", "benchmarks/health.py"))
