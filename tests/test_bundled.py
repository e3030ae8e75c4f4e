"""Bundled models: found by name wherever a model is named, stored in half precision, and inside the wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import mien
from mien import presets
from mien.core.run import override
from mien.data.pack import Pack
from mien.errors import DataError, UsageError
from mien.metrics.features import PixelFeatures
from mien.sampling import bundled, order, sidecar
from mien.storage import checkpoint
from mien.training.experiment import train
from mien.web.photo import can_level
from tests.conftest import ROOT, steer, tiny, write_model
from tests.test_cli import call
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import serving

WHEEL_BYTES = 12_000_000
MODEL_BYTES = 4_000_000  # with its critic


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Path:
    """A short run of a tiny GAN."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(override(tiny(presets.PRESETS["gan"]), {"images": 48, "device": "cpu"}), data=blob_pack.path, out=out)
    return out


@pytest.fixture
def folder(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with one bundled model, `faces`, in half precision; the working directory is empty."""
    place = tmp_path / "package" / "faces"
    place.mkdir(parents=True)
    tensors, header = checkpoint.read_model(checkpoint.find_model(run))
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    (place / bundled.MODEL).write_bytes(checkpoint.pack_tensors(half, header))
    (place / bundled.CARD).write_text("# faces\n\nTrained on FairFace.\n")
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "package")
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield place
    can_level.cache_clear()  # it has looked into this test's cache


def test_a_name_is_a_model_for_every_verb(folder: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    assert torch.equal(mien.load("faces").sample([3]), mien.load(folder).sample([3]))
    for line in (
        "sample faces --seeds 0-3 -o a.png",
        "walk faces --seeds 3 7 --frames 4 --columns 4 -o b.png",
        "directions faces --unsupervised 2",
        "edit faces --direction component-1=2 -o c.png",
        "export faces --to hub",
        f"evaluate faces --data {blob_pack.path} --metrics memorisation --samples 4 --extractor {extractor(folder)}",
    ):
        assert call(*line.split()).code == 0, line
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png", "c.png", "faces-hub"]
    readme = Path("faces-hub/README.md").read_text(encoding="utf-8")
    assert "Trained on FairFace." in readme
    assert [path.name for path in Path("faces-hub/extras").iterdir()] == ["directions.safetensors"]


def extractor(folder: Path) -> str:
    """A feature extractor that needs no weights, as FILE:NAME."""
    file = folder.parent.parent / "own.py"
    file.write_text("from mien.metrics.features import PixelFeatures as own\n")
    return f"{file}:own"


def test_half_precision_is_widened_when_it_is_read(folder: Path, run: Path) -> None:
    with safe_open(folder / bundled.MODEL, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    tensors, _ = checkpoint.read_model(folder / bundled.MODEL)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    difference = mien.load("faces").sample(range(8)) - mien.load(run).sample(range(8))
    assert 0 < difference.abs().max() < 1 / 127.5  # less than one of 256 levels


def test_a_model_of_that_name_in_the_working_directory_wins(
    folder: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = mien.load("faces").model_hash
    Path("faces").mkdir()
    assert mien.load("faces").model_hash == ours  # a folder of photographs is no model
    write_model("gan", Path("faces"), blob_pack)
    assert mien.load("faces").model_hash != ours
    assert "faces is the model in this folder, not the bundled one" in capsys.readouterr().err


def test_an_unknown_name_lists_the_bundled_models(folder: Path) -> None:
    with pytest.raises(DataError) as error:
        mien.load("face")
    assert "face does not exist" in str(error.value)
    assert "or faces." in error.value.why
    assert error.value.remedy.endswith("Did you mean faces?")


def test_without_bundled_models_a_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)
    assert bundled.names() == ()
    with pytest.raises(DataError, match="faces does not exist"):
        mien.load("faces")


def test_a_model_in_memory_still_needs_its_data_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no training data recorded"):
        mien.evaluate(mien.load("faces"), extractor=PixelFeatures())
    with pytest.raises(UsageError, match="faces has no training data recorded"):
        mien.evaluate("faces", extractor=PixelFeatures())


def test_extras_of_a_bundled_model_are_written_to_the_cache(folder: Path, tmp_path: Path) -> None:
    steer(folder)
    (packaged,) = (tmp_path / "cache" / "extras").glob("*/directions.safetensors")
    (folder / "extras").mkdir()
    packaged.rename(folder / "extras" / packaged.name)  # as it comes with the wheel
    assert list(mien.load("faces").directions) == ["Smiling", "Age"]
    before = (folder / "extras" / packaged.name).read_bytes()
    assert call("directions", "faces", "--unsupervised", "1").code == 0
    assert list(mien.load("faces").directions) == ["Smiling", "Age", "component-1"]
    assert (folder / "extras" / packaged.name).read_bytes() == before
    sampler = mien.load("faces")
    assert sampler.extras_folder is not None
    assert sidecar.files_of(sampler.extras_folder, sampler.model_hash) == [packaged]


def test_the_critic_lies_beside_the_model(folder: Path) -> None:
    assert bundled.critic_file(bundled.model_file("faces")) is None
    (folder / bundled.CRITIC).write_bytes(b"")
    assert bundled.critic_file(bundled.model_file("faces")) == folder / bundled.CRITIC


def test_the_explorer_shows_bundled_models_where_nothing_is_named(folder: Path, run: Path) -> None:
    with serving([]) as served:
        (model,) = served.json("/api/models")["models"]
        assert model["name"] == "faces"
        able = served.json(f"/api/model/{model['id']}")
        assert able["name"] == "faces"
        assert "Trained on FairFace." in able["card"]
        assert served.ask(f"/api/model/{model['id']}/image?at=42")[0] == 200
    with serving([run]) as served:
        assert served.json("/api/models")["models"] == []


def test_the_quality_order_puts_dense_faces_first_and_loses_none() -> None:
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    features[7], features[150] = 50.0, -50.0  # torn
    seeds = order.by_density(features).tolist()
    assert sorted(seeds) == list(range(200))
    assert {7, 150} <= set(seeds[-20:])
    assert all(seeds[start : start + 20] == sorted(seeds[start : start + 20]) for start in range(0, 200, 20))
    middle = features[seeds[:20]].norm(dim=1).mean()
    assert middle < features[seeds[20:180]].norm(dim=1).mean()


def test_an_order_of_another_model_is_not_used(folder: Path, run: Path) -> None:
    sampler = mien.load("faces")
    assert order.quality_order(sampler) == []
    order.store(sampler, torch.tensor([3, 1, 2], dtype=torch.int32))
    assert order.quality_order(sampler) == [3, 1, 2]
    (written,) = sidecar.files_of(sampler.extras_folder or folder, sampler.model_hash)
    (run / "extras").mkdir(exist_ok=True)
    (run / "extras" / "order.safetensors").write_bytes(written.read_bytes())
    assert order.quality_order(mien.load(run)) == []
    (run / "extras" / "order.safetensors").unlink()


def test_the_explorer_starts_with_the_best_seeds_and_can_be_told_otherwise(browser: Any, folder: Path) -> None:  # noqa: F811
    best = [1000 + seed for seed in range(8)]
    order.store(mien.load("faces"), torch.tensor(best, dtype=torch.int32))
    with serving([]) as served:
        page = browser.new_context().new_page()
        page.goto(served.own)
        page.wait_for_selector("#face[data-at]")
        assert page.get_attribute("#face", "data-at") in ("1000", "1001")
        page.click("#tab-sheet")
        page.locator("#sheet .thumb").nth(99).wait_for()

        def shown() -> list[str]:
            return page.locator("#sheet .thumb").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")  # type: ignore[no-any-return]

        assert shown()[:9] == [*(f"Face {seed}" for seed in best), "Face 8"]
        page.uncheck("#order")
        page.locator("#sheet [aria-label='Face 0']").wait_for()
        assert shown() == [f"Face {seed}" for seed in range(100)]
        page.context.close()


def test_the_wheel_holds_the_bundled_models(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < WHEEL_BYTES
    inside = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
    assert "mien/web/static/index.html" in inside
    assert {name.split("/")[0] for name in inside if not name.startswith("mien-")} == {"mien"}
    sources = {
        f"mien/{path.relative_to(ROOT / 'src' / 'mien')}" for path in bundled.FOLDER.rglob("*") if path.is_file()
    }
    assert sources <= {*inside}
    for name in bundled.names():
        place = f"mien/sampling/{bundled.FOLDER.name}/{name}"
        assert {f"{place}/{file}" for file in (bundled.MODEL, bundled.CARD, bundled.SHEET)} <= {*inside}
        assert inside[f"{place}/{bundled.MODEL}"] + inside.get(f"{place}/{bundled.CRITIC}", 0) <= MODEL_BYTES
        sampler = mien.load(bundled.FOLDER / name)
        assert json.dumps(sampler.header)
        assert sampler.directions is not None  # they belong to this file, or this raises
