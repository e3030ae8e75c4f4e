"""Trackers: what Weights & Biases, MLflow and Trackio hold after a run and its resume, in their own local modes."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmarks import kills
from PIL import Image

import mien
from mien.__main__ import main
from mien.core.contracts import Progress
from mien.data.pack import Pack
from mien.errors import UsageError
from mien.report import trackers
from mien.report.trackers import Tracking, flat
from mien.storage.run_directory import RunDirectory
from mien.training import experiment
from tests.test_resume import Nothing

FIRST, BACK, SECOND = (640, 1280, 1920), 1280, (1920, 2560)
#: pytest makes every warning an error; those of the clients about their own libraries are theirs.
THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")
CONFIG = {"preset": "quick", "recipe": {"kind": "GANConfig", "lr": 2e-4}, "ema": None}


def progress(seen: int) -> Progress:
    return Progress(
        seen, 6400, seen / 100, 100.0, {"loss": seen / 1000}, 0.01, show=seen % 1280 == 0, scores={"fid": 9.0}
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """The directory of a run with three sample grids, and no tracker that could reach anything."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    directory = RunDirectory(tmp_path / "00007-quick")
    directory.samples.mkdir(parents=True)
    for seen in (1280, 2560):
        Image.new("RGB", (16, 16), (seen // 20, 0, 0)).save(directory.samples / f"{seen:010d}.png")
    return directory


def run_twice(home: RunDirectory, name: str) -> dict[str, Any]:
    """A run that is stopped after FIRST, resumes at BACK and computes SECOND. Returns what status.json knows of it."""
    for steps, outcome in ((FIRST, "preempted"), (SECOND, "done")):
        observer = Tracking(home.path, name, CONFIG)
        for seen in steps:
            observer.after_step(progress(seen), None)  # type: ignore[arg-type]
        observer.close(outcome)
        time.sleep(1.1 if name == "wandb" else 0)  # its offline directories are named by the second
    assert "warnings" not in home.status, home.status
    known: dict[str, Any] = home.status["trackers"][name]
    assert known["seen"] == 2560
    return known


def records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log format."""
    data, place, parts = file.read_bytes(), 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@THEIR_WARNINGS
def test_weights_and_biases(home: RunDirectory) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    known = run_twice(home, "wandb")
    rows, identities, config, names = [], set(), {}, set()
    for file in sorted((home.path / "wandb").glob("offline-run-*/run-*.wandb")):
        for data in records(file):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                rows.append({(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item})
            elif kind == "run":
                identities.add(record.run.run_id)
                names.add((record.run.project, record.run.display_name))
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert identities == {known["run"]} and names == {("mien", "00007-quick")}
    assert config["recipe"] == CONFIG["recipe"] and config["preset"] == "quick"
    assert [(row["seen"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (640, 0.64), (1280, 1.28), (1920, 1.92), (2560, 2.56)
    ]  # fmt: skip
    assert all(row["score/fid"] == 9.0 for row in rows if "train/loss" in row)
    pictures = [row["seen"] for row in rows if row.get("samples", row.get("samples/_type"))]
    assert pictures == [1280, 2560]
    assert len(list((home.path / "wandb").rglob("samples_*.png"))) == 2


@THEIR_WARNINGS
def test_mlflow(home: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    known = run_twice(home, "mlflow")
    assert (tmp_path / "mlflow.db").exists()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mien")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == known["run"] and run.info.run_name == "00007-quick" and run.info.status == "FINISHED"
    assert run.data.params == {"preset": "quick", "recipe.kind": "GANConfig", "recipe.lr": "0.0002", "ema": "None"}
    losses = [(point.step, point.value) for point in client.get_metric_history(known["run"], "train/loss")]
    assert losses == [(640, 0.64), (1280, 1.28), (1920, 1.92), (2560, 2.56)]
    pictures = [file.path for file in client.list_artifacts(known["run"], "images") if file.path.endswith(".png")]
    assert sorted(int(path.split("+")[2]) for path in (p.replace("%", "+") for p in pictures)) == [1280, 2560]


@pytest.mark.slow
@THEIR_WARNINGS
def test_trackio(home: RunDirectory, tmp_path: Path) -> None:
    """It holds Pillow below 13 and is not installed for the tests; the fake below has the same calls."""
    pytest.importorskip("trackio")
    known = run_twice(home, "trackio")
    with sqlite3.connect(tmp_path / "trackio" / "mien.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
    assert {name for name, _, _ in rows} == {known["run"]}
    values = [(step, json.loads(metrics)) for _, step, metrics in rows]
    losses = [(step, value["train/loss"]) for step, value in values if "train/loss" in value]
    assert losses == [(640, 0.64), (1280, 1.28), (1920, 1.92), (2560, 2.56)]
    assert [step for step, value in values if "samples" in value] == [1280, 2560]


class FakeTrackio(ModuleType):
    """Trackio's calls as mien uses them (0.43), with its rule that a run goes on by name."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.runs: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.configs: list[Mapping[str, Any]] = []
        self.Image = lambda image: image.size

    def init(self, project: str, name: str, config: Mapping[str, Any], resume: str, embed: bool) -> SimpleNamespace:
        assert (project, resume, embed) == ("mien", "allow", False)
        self.configs.append(config)
        rows = self.runs.setdefault(name, [])
        return SimpleNamespace(log=lambda metrics, step: rows.append((step, metrics)), finish=lambda: None)


def test_trackio_by_its_calls(home: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    known = run_twice(home, "trackio")
    assert list(fake.runs) == [known["run"]] and known["run"].startswith("00007-quick-")
    rows = fake.runs[known["run"]]
    assert [(step, row["train/loss"]) for step, row in rows if "train/loss" in row] == [
        (640, 0.64), (1280, 1.28), (1920, 1.92), (2560, 2.56)
    ]  # fmt: skip
    assert [(step, row["samples"]) for step, row in rows if "samples" in row] == [(1280, (16, 16)), (2560, (16, 16))]
    assert (
        fake.configs[0]
        == flat(CONFIG)
        == {"preset": "quick", "recipe.kind": "GANConfig", "recipe.lr": 2e-4, "ema": None}
    )


class Stubborn:
    """A tracker that fails in one call, or never returns from it."""

    def __init__(self, fails: str, hangs: bool = False) -> None:
        self.fails, self.hangs, self.calls = fails, hangs, []  # type: ignore[var-annotated]

    def _call(self, name: str) -> None:
        self.calls.append((name, threading.current_thread().name))
        if name == self.fails:
            if self.hangs:
                threading.Event().wait()
            raise RuntimeError("no route to the server")

    def start(self, directory: Path, known: str, config: object) -> str:
        self._call("start")
        return "one"

    def log(self, scalars: object, seen: int) -> None:
        self._call("log")

    def picture(self, image: object, seen: int) -> None:
        self._call("picture")

    def close(self, outcome: str) -> None:
        self._call("close")


@pytest.mark.parametrize("call", ["start", "log", "picture", "close"])
def test_a_tracker_that_fails_costs_one_warning(
    home: RunDirectory, call: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda: Stubborn(call))
    observer = Tracking(home.path, "wandb", CONFIG)
    for seen in (640, 1280, 1920):
        observer.after_step(progress(seen), None)  # type: ignore[arg-type]
    observer.close("done")
    said = capsys.readouterr().err
    assert said.count("wandb cannot be written, training goes on: RuntimeError: no route to the server") == 1
    assert home.status["warnings"] == {"wandb": 3 if call == "log" else 1}


def test_a_tracker_that_hangs_holds_nobody_up(
    home: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "PATIENCE", 0.1)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda: Stubborn("log", hangs=True))
    observer = Tracking(home.path, "wandb", CONFIG)
    started = time.monotonic()
    for seen in (640, 1280):
        observer.after_step(progress(seen), None)  # type: ignore[arg-type]
    observer.close("done")
    assert time.monotonic() - started < 5 and "did not answer" in capsys.readouterr().err


@pytest.mark.parametrize("known", [3, {"wandb": "x"}, {"wandb": {"run": 1, "seen": 2}}, {"wandb": {"run": "x"}}])
def test_a_status_that_says_nothing_usable_begins_a_run(
    home: RunDirectory, known: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda: Stubborn(""))
    home.update_status(trackers=known)
    observer = Tracking(home.path, "wandb", CONFIG)
    assert (observer.identity, observer.seen) == ("one", 0)
    observer.close("done")


def test_a_tracker_that_is_missing_is_named_before_anything_is_made(
    home: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="trackio is not installed"):
        mien.train("quick", track="trackio", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_training_is_tracked_and_learns_the_same(
    home: RunDirectory, tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mien train --track`: one run over a stop and a resume, with the configuration; the weights do not depend on it."""
    fake = FakeTrackio()
    fake.__spec__ = ModuleSpec("trackio", None)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.setattr(experiment, "Report", Nothing)

    def train(out: str, images: int, *more: str) -> None:
        line = [*kills.small("quick"), "--data", blob_pack.path, "--out", out, "--images", images, *more]
        assert main(["train", *map(str, line)]) == 0

    train("tracked", 48, "--track", "trackio")
    train("tracked", 96, "--track", "trackio")
    train("alone", 96)
    assert kills.digest(tmp_path / "tracked") == kills.digest(tmp_path / "alone")
    assert fake.configs[0]["preset"] == "quick" and fake.configs[0]["data.count"] == len(blob_pack)
    assert str(tmp_path) not in repr(fake.configs)
    (rows,) = fake.runs.values()
    logged = [json.loads(line) for line in (tmp_path / "tracked" / "metrics.jsonl").read_text().splitlines()]
    sent = [(step, row["train/critic_loss"]) for step, row in rows if "train/critic_loss" in row]
    assert sent == [(line["seen"], pytest.approx(line["critic_loss"], rel=1e-4)) for line in logged]
    assert [step for step, row in rows if "samples" in row][-1] == 96
