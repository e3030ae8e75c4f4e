"""What a newcomer meets in Python: names, representations, equality, scores by name, interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import mien
from mien import presets
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import override
from mien.data.pack import Pack
from mien.errors import Interrupted, MienError, UsageError
from mien.metrics.scores import Score, Scores
from mien.report.grid import read_recipe, to_bytes
from mien.report.progress import ProgressLine
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage import provenance
from mien.training import experiment
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny


@pytest.fixture
def sampler(blob_pack: Pack) -> Sampler:
    plan = ResolvedRun(
        tiny(presets.PRESETS["quick"]), blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs"
    )
    return Sampler(plan.initial_state(World()).inference_model.eval(), plan.header, plan.context, "")


def test_dir_lists_the_public_names() -> None:
    assert set(dir(mien)) == set(mien.__all__) >= {"load", "train", "evaluate", "presets", "save_grid", "DrawOptions"}


def test_a_sampler_is_one_short_line(sampler: Sampler) -> None:
    text = repr(sampler.with_options(DrawOptions(truncation=0.7)))
    assert "\n" not in text and len(text) < 160, text
    for part in ("Sampler(quick", "16x16 px", "parameters", "latent 8", "cpu fp32", "truncation=0.7"):
        assert part in text, text


def test_samplers_and_batches_are_compared_and_hashed(sampler: Sampler) -> None:
    twin = Sampler(sampler.model, sampler.header, sampler.device_context, "")
    assert sampler == sampler and sampler != twin and len({sampler, twin}) == 2
    batch = mien.Batch(images=torch.zeros(2, 3, 4, 4))
    assert batch == batch and batch != mien.Batch(images=torch.zeros(2, 3, 4, 4)) and len({batch}) == 1


def test_presets_is_a_package_and_a_function() -> None:
    assert mien.presets() == list(mien.presets.PRESETS) and "quick" in mien.presets()  # type: ignore[operator]
    assert mien.presets("quick") == presets.PRESETS["quick"]  # type: ignore[operator]
    with pytest.raises(UsageError, match="quick"):
        mien.presets("quikc")  # type: ignore[operator]
    code = "import mien; print(len(mien.presets()))"  # before anything else has imported the package
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(presets.PRESETS)


def test_every_preset_is_in_one_group() -> None:
    groups = presets.groups()
    assert sorted(run.preset for runs in groups.values() for run in runs) == sorted(presets.PRESETS)
    titles = list(groups)
    assert titles[0] == "Today's best" and titles[-1] == "Label-conditional"
    years = [int(title[-5:-1]) for title in titles[1:-1]]
    assert years == sorted(years) and "Reproductions: BEGAN (2017)" in titles
    assert [run.preset for run in groups["Label-conditional"]] == ["cgan"]
    assert {"quick", "gan"} <= {run.preset for run in groups["Today's best"]}


def test_a_grid_is_saved(tmp_path: Path) -> None:
    path = mien.save_grid(torch.zeros(5, 3, 8, 8), str(tmp_path / "deep" / "grid.png"), columns=5)
    assert path.is_file() and read_recipe(path)["synthetic"] is True


def test_scores_are_found_by_metric_and_by_name() -> None:
    fid, kid = (Score(metric=m, name=f"{m}10k_train", value=v, low=v, high=v) for m, v in (("fid", 3.0), ("kid", 0.1)))
    scores = Scores([fid, kid])
    assert scores["fid"] is fid and scores["kid10k_train"] is kid and scores[1] is kid and scores[:1] == [fid]
    with pytest.raises(KeyError, match="fid, kid"):
        scores["lpips"]


def test_images_alone_replace_the_minutes_of_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python as on the command line."""
    quick = presets.PRESETS["quick"]
    assert quick.minutes is not None
    assert override(quick, {"images": 32}).minutes is None and override(quick, {"images": 32}).images == 32
    assert override(quick, {"images": 32, "minutes": 3.0}).minutes == 3.0
    runs = []
    monkeypatch.setattr(experiment, "execute", lambda run, *_: runs.append(run) or Path("run"))
    mien.train("quick", images=32)
    mien.train("quick", minutes=2.0, scale=0.25)
    assert runs[0].images == 32 and runs[0].minutes is None
    assert runs[1].minutes == 2.0 and runs[1].model.width < quick.model.width  # type: ignore[attr-defined]


def test_an_interruption_is_no_ordinary_exception() -> None:
    error = Interrupted("Stopped at 5 images, state saved.", "A signal asked for it.", "Run it again.")
    assert isinstance(error, KeyboardInterrupt) and not isinstance(error, Exception | MienError)
    assert error.exit_code == 130 and str(error).startswith("Stopped at 5 images") and error.remedy == "Run it again."
    with pytest.raises(KeyboardInterrupt):
        try:
            raise error
        except Exception:
            pytest.fail("a loop that goes on after any Exception must stop here")


def test_an_interrupted_command_reports_its_state(capsys: pytest.CaptureFixture[str]) -> None:
    from mien import __main__ as command_line

    def stop(*_: object) -> None:
        raise Interrupted("Stopped at 5 images, state saved.", "A signal asked for it.", "Run it again.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "run_verb", stop)
        assert command_line.main(["doctor"]) == 130
    assert "state saved" in capsys.readouterr().err


# Drawing options


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("truncation", float("nan"), "truncation must be a finite number"),
        ("guidance", -1.0, "guidance must be a number from 0 to 100"),
        ("size", 1, "size must be a whole number of pixels from 2 to 4096"),
        ("size", 9999, "size must be"),
        ("style", "42:thin", "names no styles"),
        ("solver", "rk5", "not a solver"),
    ],
)
def test_impossible_options_say_what_is_allowed(field: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DrawOptions(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DrawOptions(size=32), "16 px only"),
        (DrawOptions(solver="euler:2"), "not a flow"),
        (DrawOptions(guidance=2.0), "has no labels to follow"),
        (DrawOptions(style="42:9"), "no stages 9"),
    ],
)
def test_options_that_a_model_does_not_have(sampler: Sampler, options: DrawOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sampler.with_options(options)


def test_options_are_plain_values(sampler: Sampler) -> None:
    options = DrawOptions(truncation=0.5, style="42:fine")
    assert options == DrawOptions(truncation=0.5, style="42:fine") and len({options, DrawOptions()}) == 2
    assert options.metadata == {"truncation": 0.5, "style": "42:fine"} and DrawOptions().metadata == {}
    set_once = sampler.with_options(options)
    assert set_once.metadata(seeds=[3])["style"] == "42:fine"
    assert torch.equal(
        set_once.sample([3], truncation=1.0), sampler.with_options(DrawOptions(style="42:fine")).sample([3])
    )


# In a notebook


def test_a_sampler_is_a_picture_and_scores_are_a_table(sampler: Sampler, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(sampler._repr_png_())
    marks = provenance.read(tmp_path / "a.png")
    assert marks.source == provenance.Claim.SYNTHETIC.uri and marks.recipe == sampler.metadata(seeds=list(range(16)))
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (32, 128, 3)
    assert (pixels[16:, 16:32] == to_bytes(sampler.sample([9]))[0].numpy()).all(), "the second of the second row"
    table = Scores([Score(metric="fid", name="fid<1k>", value=3.0, low=2.0, high=4.0)])._repr_html_()
    assert "<td>fid&lt;1k&gt;</td><td>3</td><td>2 to 4</td>" in table


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    line = ProgressLine()
    step = SimpleNamespace(seen=32, goal=64, stats={"loss": 0.5}, images_per_second=10.0)
    line.after_step(step, None)  # type: ignore[arg-type]
    assert line.bar.n == 32 and line.bar.total == 64
    line.after_step(SimpleNamespace(**{**vars(step), "seen": 64}), None)  # type: ignore[arg-type]
    assert line.bar.n == 64
    line.close("done")
    assert line.bar is None and "images" in capsys.readouterr().err


def test_a_trained_run_stands_wherever_a_path_does(tmp_path: Path) -> None:
    run = mien.TrainedRun(tmp_path)
    assert os.fspath(run) == str(run) == str(tmp_path) and run.report == run / "report.html" == tmp_path / "report.html"
    (tmp_path / "eval").mkdir()
    score = Score(metric="fid", name="fid2k_train", value=30.0, low=29.0, high=31.0, protocol={"samples": 2000})
    lines = [
        {"seen": 10, **score.json(), "value": 99.0},
        {"seen": 20, **score.json()},
        {"seen": 20, "metric": "convergence"},
    ]
    (tmp_path / "eval" / "during.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.scores == [score] and run.scores["fid"].value == 30.0 and "fid2k_train" in run._repr_html_()
