"""The script that makes the bundled models: what it writes, what it refuses, and the card."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import mien
from mien import presets
from mien.__main__ import main
from mien.core.contracts import ImageSpec, RecipeConfig
from mien.core.run import from_json, override
from mien.data.pack import Entry, PackWriter
from mien.sampling import bundled, order
from mien.storage import checkpoint
from mien.training.experiment import train
from tests.conftest import ROOT, blobs, load_script, tiny
from tests.test_evaluate import write_folder

pytestmark = pytest.mark.usefixtures("warm_starts")

LABELS = ("age_20-29", "age_30-39", "gender_Male")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(ROOT / "benchmarks" / "base_models.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on labelled blobs, some of them held out."""
    folder = tmp_path_factory.mktemp("trained")
    rows = torch.eye(2)[torch.arange(96) % 2]
    labels = torch.cat([rows, (torch.arange(96) % 3 == 0).float()[:, None]], 1).numpy()
    entries = [Entry(f"{i:05d}.png", split="holdout" if i >= 80 else "train") for i in range(96)]
    with PackWriter(folder / "blobs.pack", 16, LABELS) as writer:
        writer.append(blobs(96, 16), labels, entries)
        writer.commit({})
    changes = {"images": 48, "device": "cpu"}
    train(override(tiny(presets.PRESETS["gan"]), changes), data=folder / "blobs.pack", out=folder / "run")
    return folder / "run"


@pytest.fixture
def base(script: ModuleType, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The candidate of that run, with a judgement in which nothing is memorised."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "package")
    base = script.Base("faces", tmp_path, None, run, 32, 1.0)
    script.half(base)
    judged(base, 0.0)
    return base


def judged(base: Any, low: float) -> None:
    """Write what judging would have found."""
    scores = [
        {"metric": "fid", "name": "fid32_train", "value": 30.0, "low": 29.0, "high": 31.0},
        {"metric": "memorisation_pixels", "name": "memorisation_pixels", "value": 0.01, "low": low, "high": 0.02},
    ]
    known = {"model": base.sampler.model_hash, "samples": base.samples, "found": scores}
    (base.work / "faces-judge.json").write_text(json.dumps(known))


def test_the_critic_fits_the_recipe_of_the_run(base: Any, run: Path) -> None:
    """With the generator, it is all that fine-tuning starts from."""
    model = mien.load(run).model
    tensors, _ = checkpoint.read_state(checkpoint.find_model(run).parent)
    file = bundled.critic_file(base.candidate / bundled.MODEL)
    assert file is not None
    critic = bundled.read_critic(file)
    assert critic.header["model_sha256"] == base.sampler.model_hash
    recipe = from_json(RecipeConfig, critic.header["recipe"], presets.KINDS).build(model, ImageSpec(side=16))
    missing, unexpected = recipe.load_state_dict(dict(critic.tensors), strict=False)
    assert not unexpected
    assert all(name.startswith("model.") for name in missing)
    weight = recipe.state_dict()["critic.last.weight"]
    assert torch.allclose(weight, tensors["recipe.critic.last.weight"], rtol=1e-3, atol=1e-6)


def test_a_candidate_that_memorises_is_not_bundled(script: ModuleType, base: Any) -> None:
    judged(base, 0.005)
    with pytest.raises(SystemExit, match="faces is not bundled: it memorises"):
        script.install(base)
    assert bundled.names() == ()


def test_a_candidate_is_bundled_with_its_card_and_extras(script: ModuleType, base: Any) -> None:
    order.store(base.sampler, torch.arange(8, dtype=torch.int32))
    script.sheet(base)
    script.card(base)
    script.install(base)
    sampler = mien.load("faces")
    assert sampler.model_hash == base.sampler.model_hash
    assert order.quality_order(sampler) == list(range(8))
    files = {str(path.relative_to(bundled.FOLDER / "faces")) for path in bundled.FOLDER.rglob("*") if path.is_file()}
    assert files == {bundled.MODEL, bundled.CRITIC, bundled.CARD, bundled.SHEET, "extras/order.safetensors"}
    card = (bundled.FOLDER / "faces" / bundled.CARD).read_text(encoding="utf-8")
    assert "Kärkkäinen and Joo" in card and "CC BY 4.0, cropped and aligned" in card
    assert "| fid32_train | 30 | 29 to 31 |" in card
    assert "48 images in" in card
    assert "| age 20-29 | 50.0% |" in card


def test_the_classifier_gives_each_face_one_age(script: ModuleType, base: Any) -> None:
    found = script.coverage(base)
    ages = [entry["samples"] for name, entry in found["labels"].items() if name.startswith("age_")]
    assert sum(ages) == pytest.approx(1.0)
    assert set(found["accuracy"]) == {"age", "gender_Male"}
    assert found["held_out"] + len(base.data.rows("train")) >= 80


def test_a_changed_run_makes_another_candidate(script: ModuleType, base: Any) -> None:
    (base.candidate / "extras").mkdir()
    script.half(base)
    assert (base.candidate / "extras").exists(), "the model is the same"
    (base.candidate / bundled.MODEL).write_bytes(b"of another checkpoint")
    script.half(base)
    assert not (base.candidate / "extras").exists()


@pytest.mark.parametrize("name", ["faces", "drawn"])
def test_it_trains_the_preset_with_flags_that_the_command_line_knows(
    script: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `pack` and `train` run, on drawn pictures in place of FairFace, and only planned."""
    photographs = write_folder(tmp_path / "photographs", blobs(40, 64))
    codes: list[int] = []

    def command(*words: object) -> str:
        planned = ("--dry-run",) if words[0] == "train" else ()
        codes.append(main([str(word) for word in (*words, *planned)]))
        return ""

    monkeypatch.setattr(script, "command", command)
    base = script.Base(name, tmp_path, photographs, None, 32, 1.0)
    script.pack(base)
    script.train(base)
    assert codes == ([0, 0] if name == "faces" else [0])
