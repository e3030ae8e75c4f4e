"""docs/own_model.py: a model of one's own in one file trains, resumes, samples and takes flags."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import kills

import mien
from mien import presets
from mien.__main__ import main
from mien.core.contracts import ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import override, to_json
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import Mismatch
from mien.sampling.sampler import Sampler
from mien.storage.run_directory import RunDirectory
from mien.training import loop
from mien.training.resolve import ResolvedRun
from tests.conftest import ROOT

FILE = ROOT / "docs" / "own_model.py"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A command in this process, in a folder that holds a copy of the file."""
    shutil.copy(FILE, tmp_path / "own_model.py")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> SimpleNamespace:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out.strip(), err=said.err)

    return call


def train(own: Callable[..., Any], pack: Pack, images: int, *more: object) -> Any:
    line = ("train", "own_model.py:tiny", "--data", pack.path, "--out", "run", "--batch", "8", "--precision", "fp32")
    return own(*line, "--images", images, "--threads", "1", "--log-every", "8", *more)


def test_the_file_is_short_and_needs_nothing_private() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) < 60
    imports = [line for line in lines if line.startswith(("import ", "from ")) and "mien" in line]
    assert imports == [
        "from mien import Batch, ImageSpec, Invertible, ModelConfig, Recipe, RecipeConfig, Run, Update",
        "from mien.nn.priors import Normal",
    ]


def test_it_learns(blob_pack: Pack) -> None:
    """The error of reconstruction falls to a fraction, through the same loop as every preset."""
    run, _ = presets.find(f"{FILE}:tiny")
    run = override(dataclasses.replace(run, batch=16), {"recipe.lr": 3e-3})
    learner = ResolvedRun(run, blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs").initial_state(
        World()
    )
    loader = Loader(blob_pack, batch=16, seed=0, threads=0)
    losses = [float(learner.step(loader)["loss"].detach()) for _ in range(150)]
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    model = learner.recipe.model
    assert isinstance(model, mien.Invertible)
    images = next(loader).images
    assert model.encode(images).shape == (16, 32) and model.decode(model.encode(images)).shape == images.shape


def test_it_trains_resumes_and_samples(own: Callable[..., Any], blob_pack: Pack) -> None:
    first = train(own, blob_pack, 48, "--recipe.lr", "1e-3")
    assert first.code == 0 and first.out == "run", first.err
    run_json = RunDirectory(Path("run")).run_json
    assert run_json is not None and run_json["recipe"]["lr"] == 1e-3 and run_json["preset"] == "tiny"
    other = train(own, blob_pack, 96, "--recipe.lr", "2e-3")
    assert other.code == 9 and "recipe.lr: 0.001 -> 0.002" in other.err
    again = train(own, blob_pack, 96, "--recipe.lr", "1e-3")
    assert again.code == 0 and RunDirectory(Path("run")).status["started_from"] == 48
    shutil.move("run", "halves")
    assert train(own, blob_pack, 96, "--recipe.lr", "1e-3").code == 0
    assert kills.digest(Path("halves")) == kills.digest(Path("run"))

    drawn = own("sample", "run", "--code", "own_model.py", "--seeds", "0-3", "-o", "grid.png")
    assert drawn.code == 0 and Path("grid.png").stat().st_size > 100
    missing = own("sample", "run", "--seeds", "0-3")
    assert missing.code == 2 and "own_model.py" in missing.err and "Add --code own_model.py." in missing.err
    Path("own_model.py").write_text(FILE.read_text() + "\n# changed\n")
    changed = own("sample", "run", "--code", "own_model.py", "--seeds", "0-3", "-o", "grid.png")
    assert changed.code == 0 and "own_model.py has changed since this model was trained" in changed.err
    Path("own_model.py").write_text(FILE.read_text().replace("LinearConfig", "OtherConfig"))
    renamed = own("sample", "run", "--code", "own_model.py")
    assert renamed.code == 9 and "LinearConfig" in renamed.err
    assert own("walk", "run", "--code", "nowhere.py").code == 3
    assert Sampler.load("run", device="cpu", code=FILE).image_spec == ImageSpec(side=16)


def test_its_flags_and_its_help(own: Callable[..., Any], blob_pack: Pack) -> None:
    shown = own("train", "own_model.py:tiny", "--help")
    assert shown.code == 0 and "--model.latent" in shown.out and "--recipe.lr" in shown.out
    plan = own("train", "own_model.py:tiny", "--data", blob_pack.path, "--model.latent", "4", "--dry-run", "--json")
    assert json.loads(plan.out)["parameters"] == {"model": 768 * 4 + 4 + 4 * 768 + 768}
    wrong = own("train", "own_model.py:tinny")
    assert wrong.code == 2 and "Did you mean tiny?" in wrong.err
    assert own("presets", "own_model.py:tiny").code == 0
    assert json.loads(own("presets", "own_model.py:tiny", "--json").out)["name"] == "tiny"


def test_cite_finds_it(own: Callable[..., Any], blob_pack: Pack) -> None:
    train(own, blob_pack, 8)
    assert own("cite", "run", "--code", "own_model.py").code == 0
    said = own("cite", "run")
    assert said.code == 2 and "tiny" in said.err


def test_from_python(own: Callable[..., Any], blob_pack: Pack) -> None:
    """`mien.train` takes the same names, and a Run of one's own making."""
    path = mien.train("own_model.py:tiny", data=blob_pack.path, out="api", images=16, batch=8, **{"recipe.lr": 1e-3})
    assert path.path == Path("api")
    assert mien.load(path, code=Path("own_model.py"), device="cpu").sample([1]).shape == (1, 3, 16, 16)


def test_the_trainer_knows_no_model() -> None:
    assert "LinearFaces" not in Path(loop.__file__).read_text()


@pytest.mark.parametrize(
    "preset",
    ["{here}/evil.py:tiny", "evil.py:tiny", "./evil.py:tiny", "../{name}/evil.py:tiny", 5, None, ["evil.py:tiny"]],
)
@pytest.mark.parametrize("code", [(), ("--code", "harmless.py")])
def test_no_verb_runs_the_file_that_a_run_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    preset: object,
    code: tuple[str, ...],
) -> None:
    """`mien cite RUN` ran the file of a downloaded run.json whose preset was `/path/evil.py:tiny`."""
    monkeypatch.chdir(tmp_path)
    text = "from mien.presets import PRESETS as P\nPRESETS = {'tiny': P['quick']}\n"
    (tmp_path / "harmless.py").write_text(text)
    (tmp_path / "evil.py").write_text(f"open('mark', 'w').close()\n{text}")
    if isinstance(preset, str):
        preset = preset.format(here=tmp_path, name=tmp_path.name)
    (tmp_path / "run").mkdir()
    described = {**to_json(presets.PRESETS["quick"]), "preset": preset, "command": f"train {preset}"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    assert main(["cite", "run", *code]) == 2
    said = capsys.readouterr().err
    assert "no preset" in said or "no name of a preset" in said
    for line in (["doctor", "run"], ["sample", "run", *code], ["compare", "run", "run", "-o", "c.html", *code]):
        assert main(line) != 1
    assert not (tmp_path / "mark").exists()
    described["preset"] = "tiny"
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    assert main(["cite", "run", *code]) == (0 if code else 2)


@pytest.mark.parametrize(
    "header", [{"path": "evil.py"}, {"file": 5, "sha256": "x"}, "evil.py", 5, ["evil.py"], {"file": "evil.py"}]
)
def test_a_header_whose_code_has_another_shape_is_refused(header: Any) -> None:
    """It was exit code 1."""
    for code in (None, FILE):
        with pytest.raises(Mismatch, match="does not describe a model"):
            presets.kinds_for(header, code)
