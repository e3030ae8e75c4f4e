"""Scores while a run learns: what is written, what is kept, when it ends, and that none of it moves what is learned."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import kills

import mien
from mien import presets
from mien.__main__ import main
from mien.cli.evaluate import evaluate as verb
from mien.core.contracts import ImageSpec, Progress
from mien.core.device import DeviceContext
from mien.core.run import Run
from mien.data.pack import Pack
from mien.downloads import weights
from mien.errors import DataError, UsageError
from mien.metrics.api import of_model
from mien.metrics.features import PixelFeatures
from mien.metrics.online import (
    RANKING_SCORES,
    OnlineEvaluator,
    best_of,
    history,
    out_of_patience,
    prepare,
    ranking,
    update_best,
)
from mien.report.run_reader import read_record
from mien.report.series import panels
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory
from mien.training import experiment
from tests.conftest import tiny, write_pack
from tests.forked_ranks import forked
from tests.test_parallel import environment
from tests.test_resume import Nothing

pytestmark = pytest.mark.usefixtures("warm_starts")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with its own cache and without reports; `eye.py:pixels` takes Inception's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(experiment, "Report", Nothing)
    monkeypatch.setattr(experiment, "TensorBoard", Nothing)
    (tmp_path / "eye.py").write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    return tmp_path


LOOK = ("--evaluate-samples", 20, "--evaluate-extractor", "eye.py:pixels", "--evaluate-metrics", "fid,kid")


@pytest.fixture
def train(blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`mien train` in this process: its exit code, and what it said."""

    def run(*more: object, data: Path = blob_pack.path, out: str = "run", images: int = 96) -> SimpleNamespace:
        line = ["train", *kills.small("quick"), "--side", 16, "--data", data, "--out", out, "--images", images, *more]
        capsys.readouterr()
        code = main([str(word) for word in line])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return SimpleNamespace(code=code, out=said.out.strip(), err=said.err)

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def status(out: str | Path) -> dict[str, Any]:
    return RunDirectory(Path(out)).status


def test_scores_are_written_where_they_are_looked_for(
    train: Callable[..., SimpleNamespace], here: Path, blob_pack: Pack
) -> None:
    said = train("--evaluate-every", 32, *LOOK)
    assert said.code == 0, said.err
    assert "mien: fid20_train_pixels-32 " in said.err and " at 96 images (" in said.err
    scores = lines(here / "run" / "eval" / "during.jsonl")
    assert [(score["seen"], score["metric"]) for score in scores] == [
        (seen, metric) for seen in (32, 64, 96) for metric in ("fid", "kid")
    ]
    assert all(score["protocol"]["seeds"] == [0, 19] and score["low"] <= score["high"] for score in scores)
    logged = {line["seen"]: line for line in lines(here / "run" / "metrics.jsonl")}
    assert {seen for seen, line in logged.items() if "fid20_train_pixels-32" in line} == {32, 64, 96}
    assert "critic_loss" in logged[32] or len(logged[32]) > 6  # beside the stats of the same line
    assert logged[64]["fid20_train_pixels-32"] == pytest.approx(scores[2]["value"], rel=1e-5)
    record = read_record(here / "run")
    titles = [panel.key for panel in panels(record)]
    assert titles.count("score-fid20_train_pixels-32") == 1 and not any("fid" in key for key in titles[:-4])
    assert len(titles) == len(set(titles))
    # `mien evaluate` gives the same scores for the same checkpoint, to the bit.
    again = mien.evaluate(here / "run", samples=20, metrics="fid,kid", extractor=PixelFeatures())
    assert [(score.name, score.value) for score in again] == [(score["name"], score["value"]) for score in scores[-2:]]


def test_what_is_learned_is_the_same(train: Callable[..., SimpleNamespace], here: Path) -> None:
    assert train(out="plain").code == train("--evaluate-every", 24, *LOOK, out="judged").code == 0
    assert len(lines(here / "judged" / "eval" / "during.jsonl")) == 2 * 4
    digests = [checkpoint.file_hash(checkpoint.find_model(here / out)) for out in ("plain", "judged")]
    assert digests[0] == digests[1] and kills.digest(here / "plain") == kills.digest(here / "judged")


def test_evaluations_are_no_training_time(train: Callable[..., SimpleNamespace], here: Path) -> None:
    slow = "import time\nfrom mien.metrics.features import PixelFeatures\n"
    slow += "class Slow(PixelFeatures):\n    def __call__(self, images):\n        time.sleep(0.2)\n"
    (here / "eye.py").write_text(slow + "        return super().__call__(images)\n\npixels = Slow\n")
    started = time.monotonic()
    assert train("--evaluate-every", 32, *LOOK).code == 0
    most = time.monotonic() - started - (6 + 3 * 2) * 0.2  # the blocks, each of 0.2 s
    assert status("run")["seconds"] < most
    found = lines(here / "run" / "metrics.jsonl")
    pairs = zip([0, *(line["seen"] for line in found)], found, strict=False)
    assert sum((line["seen"] - before) / line["images_per_second"] for before, line in pairs) < most


def test_a_run_goes_on_when_evaluations_are_turned_on_and_off(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    train(images=48)
    file = here / "run" / "run.json"
    older = {name: value for name, value in json.loads(file.read_text()).items() if "evaluate" not in name}
    file.write_text(json.dumps({name: value for name, value in older.items() if name not in ("patience", "keep_best")}))
    assert train("--evaluate-every", 40, *LOOK, images=96).code == 0 and status("run")["started_from"] == 48
    # 40 was never looked at: the first step makes up for it.
    assert sorted({score["seen"] for score in lines(here / "run" / "eval" / "during.jsonl")}) == [56, 80, 96]
    best = checkpoint.read_best(here / "run" / "checkpoints")
    assert train(images=160).code == 0 and checkpoint.read_best(here / "run" / "checkpoints") == best
    assert (here / "run" / "checkpoints" / f"{best['seen']:010d}").is_dir()
    train(out="whole", images=160)
    assert kills.digest(here / "run") == kills.digest(here / "whole")


def planned(here: Path, values: list[float], name: str = "eye.py") -> None:
    """An extractor under which the n-th evaluation's kid grows with the n-th value, whatever is drawn."""
    code = (
        "import numpy as np\n"
        f"VALUES = {values}\n"
        "class Planned:\n"
        "    name, hash, resizer, precision = 'planned', '', 'none', 'fp32'\n"
        "    count = 0\n"
        "    def __call__(self, images):\n"
        "        fake = images.std() < 1 or Planned.count >= 6\n"
        "        rng = np.random.default_rng(Planned.count)\n"
        "        shift = VALUES[min((Planned.count - 6) // 2, len(VALUES) - 1)] if Planned.count >= 6 else 0.0\n"
        "        Planned.count += 1\n"
        "        return (rng.normal(size=(len(images), 4)) * 0.01 + shift).astype(np.float32)\n"
        "pixels = Planned\n"
    )
    (here / name).write_text(code)


def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    """96 real images are six blocks, 20 drawn ones two: the plan says how good each evaluation will find the model."""
    planned(here, [3.0, 1.0, 2.0, 2.5, 2.0, 1.5])
    arguments = ("--evaluate-every", 16, *LOOK, "--keep-best", "kid", "--patience", 3)
    said = train(*arguments, images=400)
    assert said.code == 0, said.err
    now = status("run")
    assert (now["state"], now["seen"], now["exit_code"]) == ("done", 80, 0)
    assert now["reason"].startswith("stopped early at 80 images: kid20_train_planned was ")
    assert "at 32 images, and no better in 3 evaluations since" in now["reason"]
    assert "to continue" in said.err and "--patience" in said.err
    best = checkpoint.read_best(here / "run" / "checkpoints")
    assert (best["seen"], best["metric"], best["name"]) == (32, "kid", "kid20_train_planned")
    names = [path.name for path in checkpoint.all_of(here / "run" / "checkpoints")]
    # The three newest, the best, and the first after 4 and after 16 images.
    assert [int(name) for name in names] == [80, 72, 64, 32, 16, 8]
    named = checkpoint.find_model(here / "run" / "checkpoints" / "BEST")
    assert named == here / "run" / "checkpoints" / "0000000032" / "model.safetensors"
    assert checkpoint.find_model(here / "run" / "checkpoints" / "LATEST").parent.name == "0000000080"
    assert mien.load(here / "run" / "checkpoints" / "BEST").model_hash == checkpoint.file_hash(named)

    again = train(*arguments, images=400)  # it has run out of patience: finished
    assert again.code == 0 and "is finished; it stopped early" in again.err and status("run")["seen"] == 80
    more = train(*arguments[:-1], 0, images=104)
    assert more.code == 0 and "resuming run at 80 images" in more.err and status("run")["seen"] == 104
    assert status("run")["reason"] == ""


def test_going_on_from_the_best(train: Callable[..., SimpleNamespace], here: Path) -> None:
    planned(here, [3.0, 1.0, 2.0, 2.5, 0.5])
    assert train("--evaluate-every", 16, *LOOK, "--patience", 2, "--keep-best", "kid", images=400).code == 0
    assert status("run")["seen"] == 64
    said = train(
        *("--evaluate-every", 16, *LOOK, "--patience", 2, "--keep-best", "kid"),
        *("--resume", "run/checkpoints/BEST"),
        images=48,
    )
    assert said.code == 0 and "at 32 images (quick" in said.err, said.err
    assert [score["seen"] for score in lines(here / "run" / "eval" / "during.jsonl")] == [16, 16, 32, 32, 48, 48]


def judged_run(path: Path, values: list[float], every: int = 10) -> RunDirectory:
    """A run directory with a score and an empty checkpoint for each value."""
    (path / "eval").mkdir(parents=True)
    home = RunDirectory(path)
    with home.evaluations.open("w") as file:
        for index, value in enumerate(values, 1):
            score = {"seen": every * index, "metric": "fid", "name": "fid20_train", "value": value}
            file.write(json.dumps(score) + "\n")
            (home.checkpoints / f"{every * index:010d}").mkdir(parents=True)
    return home


QUICK = presets.PRESETS["quick"]


def test_patience_counts_evaluations_since_the_best(tmp_path: Path) -> None:
    run = dataclasses.replace(QUICK, evaluate_every=10, patience=2)
    for values, ends in (
        ([3, 2, 1], False), ([1, 2], False), ([1, 2, 3], True), ([1, 1, 1], True), ([3, 2, 4, 1, 2], False), ([], False),
        ([1, 2, 0.5, 2, 2], True),
    ):  # fmt: skip
        home = judged_run(tmp_path / str(len(list(tmp_path.iterdir()))), [float(value) for value in values])
        assert bool(out_of_patience(run, home)) == ends, values
        assert not out_of_patience(dataclasses.replace(run, patience=0), home)


def test_best_never_names_what_is_gone(tmp_path: Path) -> None:
    run = dataclasses.replace(QUICK, evaluate_every=10)
    home = judged_run(tmp_path / "run", [3.0, 1.0, 2.0, 1.0])
    update_best(run, home)
    assert checkpoint.read_best(home.checkpoints)["seen"] == 20  # the earlier of equals
    (home.checkpoints / "0000000020").rename(home.checkpoints / "damaged-0000000020-x")
    update_best(dataclasses.replace(run, evaluate_every=0), home)  # also where the run is evaluated no more
    assert checkpoint.read_best(home.checkpoints)["seen"] == 40
    home.cut_metrics(10)
    (home.checkpoints / "0000000040").rename(home.checkpoints / "superseded-0000000040-x")
    update_best(run, home)
    assert checkpoint.read_best(home.checkpoints)["seen"] == 10
    home.cut_metrics(0)
    update_best(run, home)
    assert not (home.checkpoints / "BEST").exists()
    with pytest.raises(DataError, match="does not name a checkpoint"):
        checkpoint.find_model(home.checkpoints / "BEST")
    (home.checkpoints / "BEST").write_text('{"seen": 70}')
    with pytest.raises(DataError, match="does not name a checkpoint"):
        checkpoint.find_model(home.checkpoints / "BEST")
    (home.checkpoints / "BEST").write_text("not JSON")
    assert checkpoint.read_best(home.checkpoints) == {}
    with pytest.raises(DataError, match="does not name a checkpoint"):
        checkpoint.find_model(home.checkpoints / "BEST")


def test_scores_of_another_protocol_are_not_compared(tmp_path: Path) -> None:
    home = judged_run(tmp_path / "run", [1.0, 2.0])
    with home.evaluations.open("a") as file:
        for seen, value in ((30, 9.0), (40, 8.0)):
            file.write(json.dumps({"seen": seen, "metric": "fid", "name": "fid500_train", "value": value}) + "\n")
    found = history(home, "fid")
    assert [line["value"] for line in found] == [9.0, 8.0] and best_of(found, "fid")["seen"] == 40


HIGHER_IS_BETTER = {
    "fid": False, "kid": False, "coverage": True, "precision": True, "recall": True, "density": True,
    "reconstruction_lpips": False, "reconstruction_l1": False, "ppl": False,
}  # fmt: skip


@pytest.mark.parametrize("score", RANKING_SCORES)
def test_which_way_is_better(score: str) -> None:
    values = [0.5, 0.9, 0.1, 0.9, 0.1]
    best = best_of([{"seen": seen, "value": value} for seen, value in enumerate(values)], score)
    assert best["seen"] == (1 if HIGHER_IS_BETTER.get(score, False) else 2)  # M, which no metric gives: lower


@pytest.mark.parametrize(
    "metrics, keep, score",
    [("fid,kid", "", "fid"), (" kid ", "", "kid"), ("diversity,prdc", "", "coverage"), ("memorisation", "", ""),
     ("fid,kid", "kid", "kid"), ("prdc", "recall", "recall")],
)  # fmt: skip
def test_what_checkpoints_are_ranked_by(metrics: str, keep: str, score: str) -> None:
    run = dataclasses.replace(QUICK, evaluate_every=1, evaluate_metrics=metrics, keep_best=keep)
    assert ranking(run) == score


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (("--evaluate-every", -1), 2, "evaluate_every must not be negative"),
        (("--evaluate-every", 8, "--evaluate-samples", 1), 2, "evaluate_samples must be an integer of 2 or more"),
        (("--patience", 3), 2, "never evaluated"),
        (("--keep-best", "fid"), 2, "never evaluated"),
        (("--evaluate-every", 8, "--evaluate-metrics", "fidd"), 2, "no metric `fidd`"),
        (("--evaluate-every", 8, "--evaluate-metrics", ","), 2, "--evaluate-metrics is empty"),
        (("--evaluate-every", 8, "--keep-best", "memorisation"), 2, "No checkpoint is the best by"),
        (("--evaluate-every", 8, "--keep-best", "recall"), 2, "is not measured"),
        (("--evaluate-every", 8, "--patience", 2, "--evaluate-metrics", "memorisation"), 2, "nothing to rank"),
        (("--evaluate-every", 8, "--evaluate-metrics", "reconstruction"), 2, "reconstructs nothing"),
        (("--evaluate-every", 8, "--evaluate-extractor", "nowhere.py:eye"), 3, "There is no regular file nowhere.py"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_there_is_a_run(
    train: Callable[..., SimpleNamespace], here: Path, flags: tuple[object, ...], code: int, words: str
) -> None:
    said = train(*flags)
    assert said.code == code and words in said.err, said.err
    assert len(said.err.strip().splitlines()) == 3 and not (here / "run").exists()


def test_missing_weights_are_refused_at_the_start(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str) -> Path:
        raise DataError(f"The weights `{name}` are not here.", "There is no network.", "Fetch them elsewhere.")

    monkeypatch.setattr(weights, "download", offline)
    said = train("--evaluate-every", 8)
    assert said.code == 3 and "The weights `inception` are not here." in said.err
    assert len(said.err.strip().splitlines()) == 3 and not (here / "run").exists()
    said = train("--evaluate-every", 8, "--evaluate-extractor", "eye.py:pixels", "--evaluate-metrics", "fid,diversity")
    assert said.code == 3 and "`lpips-alex`" in said.err and not (here / "run").exists()


def test_a_pack_of_one_image_is_refused(train: Callable[..., SimpleNamespace], here: Path) -> None:
    pack = write_pack(here / "one.pack", count=1)
    said = train("--evaluate-every", 8, *LOOK, data=pack.path)
    assert said.code == 3 and "one training image" in said.err and not (here / "run").exists()


def judge(home: Path, pack: Pack, run: Run) -> OnlineEvaluator:
    home.mkdir(exist_ok=True)
    header = {"faces": {"side": pack.side, "channels": 3, "label_dim": 0}}
    engine = DeviceContext(torch.device("cpu"), "bf16")
    extractor = prepare(run, pack, ImageSpec(side=pack.side), "cpu")
    return OnlineEvaluator(RunDirectory(home), run, pack, header, engine, extractor)


def test_a_generator_of_nan_is_reported_and_training_goes_on(
    here: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    run = dataclasses.replace(
        tiny(QUICK), evaluate_every=8, evaluate_samples=8, evaluate_extractor="eye.py:pixels", evaluate_metrics="kid"
    )
    judging = judge(here / "run", blob_pack, run)
    model = run.model.build(ImageSpec(side=16))
    found = judging.scores(8, model.eval(), lambda: False)
    assert list(found) == ["kid8_train_pixels-32"] and judging.last_seen == 8
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    capsys.readouterr()
    assert judging.scores(16, model, lambda: False) == {}
    said = capsys.readouterr().err
    assert "not evaluated at 16 images, training goes on: The model's face of seed 0 is not made of numbers." in said
    assert judging.last_seen == 8 and "not evaluated at 16" in (here / "run" / "log.txt").read_text()


def test_a_signal_ends_an_evaluation(here: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    run = dataclasses.replace(
        tiny(QUICK), evaluate_every=8, evaluate_samples=8, evaluate_extractor="eye.py:pixels", evaluate_metrics="kid"
    )
    judging = judge(here / "run", blob_pack, run)
    assert judging.scores(8, run.model.build(ImageSpec(side=16)).eval(), lambda: True) == {}
    assert not (here / "run" / "eval").exists() and capsys.readouterr().err == ""


def test_a_disk_that_is_full_is_reported(here: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    run = dataclasses.replace(
        tiny(QUICK), evaluate_every=8, evaluate_samples=8, evaluate_extractor="eye.py:pixels", evaluate_metrics="kid"
    )
    judging = judge(here / "run", blob_pack, run)
    (here / "run" / "eval").write_text("a file where the folder should be")
    assert judging.scores(8, run.model.build(ImageSpec(side=16)).eval(), lambda: False)
    assert "during.jsonl cannot be written" in capsys.readouterr().err
    judging.after_commit(Progress(8, 8, 0.0, 0.0, {}), here)  # no history: nothing is best
    assert not (here / "run" / "checkpoints" / "BEST").exists()


def test_killed_while_it_is_evaluated(here: Path, blob_pack: Pack, train: Callable[..., SimpleNamespace]) -> None:
    """A kill at the second evaluation: the third process's scores are those of a run that nobody disturbed."""
    arguments = ("--evaluate-every", 32, *LOOK)
    dying = "import os\nfrom pathlib import Path\nfrom mien.metrics.features import PixelFeatures\n"
    dying += "class Dying(PixelFeatures):\n    def __call__(self, images):\n"
    dying += "        if Path('run/eval/during.jsonl').exists():\n            os._exit(9)\n"
    (here / "eye.py").write_text(dying + "        return super().__call__(images)\n\npixels = Dying\n")
    line = ["train", *kills.small("quick"), "--data", blob_pack.path, "--out", "run", "--images", "96", *arguments]
    done = subprocess.run([sys.executable, "-m", "mien", *map(str, line)], cwd=here, capture_output=True, timeout=120)
    assert done.returncode == 9
    assert {score["seen"] for score in lines(here / "run" / "eval" / "during.jsonl")} == {32}
    (here / "eye.py").write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    assert train(*arguments).code == train(*arguments, out="whole").code == 0
    assert status("run")["started_from"] == 56  # the newest checkpoint before 64
    for file in ("eval/during.jsonl", "checkpoints/BEST"):
        assert (here / "run" / file).read_text() == (here / "whole" / file).read_text()
    assert kills.digest(here / "run") == kills.digest(here / "whole")


def test_evaluate_is_public(here: Path, train: Callable[..., SimpleNamespace], blob_pack: Pack) -> None:
    assert train(images=16).code == 0
    eye = PixelFeatures()
    by_run = mien.evaluate("run", metrics=("kid",), samples=20, extractor=eye)
    by_model = mien.evaluate(mien.load("run"), data=blob_pack.path, metrics="kid", samples=20, extractor=eye)
    assert by_run == by_model and by_run[0].name == "kid20_train_pixels-32"
    answer = verb(Path("run"), metrics="kid", samples=20, extractor="eye.py:pixels")
    assert answer is not None and answer.data["scores"] == [by_run[0].json()]
    with pytest.raises(UsageError, match="has no training data recorded"):
        mien.evaluate(mien.load("run"), metrics="kid", extractor=eye)
    with pytest.raises(UsageError, match="no metric `fidd`"):
        mien.evaluate("run", metrics="fidd", extractor=eye)
    judged = of_model(mien.load("run"), "it", write_pack(here / "other.pack", seed=5), "train", 8, eye)
    assert "other data" in judged.warnings[0]


def test_two_processes_evaluate_and_stop_together(here: Path, blob_pack: Pack) -> None:
    arguments = ("--evaluate-every", 16, *LOOK, "--keep-best", "fid", "--patience", 1)
    line = ["train", *kills.small("quick"), "--data", blob_pack.path, "--out", "run", "--images", 2000, *arguments]
    ranks = forked("--module", "mien", *line)
    done = subprocess.run(ranks, cwd=here, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    now = status("run")
    assert now["state"] == "done" and now["reason"].startswith("stopped early") and now["seen"] < 2000
    assert done.stderr.count("mien: stopped early") == 1
    scores = lines(here / "run" / "eval" / "during.jsonl")
    assert scores[-1]["seen"] == now["seen"] and len(scores) == 2 * now["seen"] // 16
    alone = mien.evaluate("run/checkpoints/BEST", samples=20, metrics="fid", extractor=PixelFeatures())
    best = checkpoint.read_best(here / "run" / "checkpoints")
    assert alone[0].value == pytest.approx(best["value"], rel=1e-6) and np.isfinite(best["value"])
