"""`mien benchmark`: equal time for every preset, a leaderboard, and going on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mien.cli import benchmark as verb
from mien.report.run_reader import read_record
from tests.conftest import ROOT, write_pack
from tests.test_cli import PRINTED, call

pytestmark = pytest.mark.usefixtures("warm_starts")

OWN = """
import dataclasses
from mien import Update
from mien.core.run import override


class Broken(Reconstruct):
    def step(self, batches):
        for update in super().step(batches):
            yield Update(update.optimizer, update.loss * float("inf"))


@dataclass(frozen=True, kw_only=True)
class BrokenConfig(ReconstructConfig):
    def build(self, model, faces):
        return Broken(self, model)


tiny = PRESETS["tiny"]
PRESETS["slow"] = dataclasses.replace(override(tiny, {"recipe.lr": 1e-5}), preset="slow")
PRESETS["broken"] = dataclasses.replace(tiny, preset="broken", recipe=BrokenConfig())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pack that `quick` cannot make, presets, and cheap eyes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    write_pack(tmp_path / "faces.pack", count=80, side=24)
    (tmp_path / "own.py").write_text((ROOT / "docs" / "own_model.py").read_text() + OWN)
    (tmp_path / "eye.py").write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    return tmp_path


def words(presets: str, minutes: float, *more: str) -> list[str]:
    eye = ("--extractor", "eye.py:pixels", "--metrics", "kid", "--samples", "32")
    return ["benchmark", "faces.pack", "--minutes", str(minutes), "--presets", presets, "--out", "off", *eye, *more]


def status(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("off", "runs", name, "status.json").read_text())
    return found


def test_every_preset_has_its_row_and_what_is_done_is_left_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = words("own.py:tiny,quick,own.py:broken", 0.01, "--threads", "1", "--baseline", "--json")
    said = call(*line)
    assert said.code == 0, said.err
    board = json.loads(said.out)
    rows = {row["name"]: row for row in board["rows"]}
    assert set(rows) == {"eigenfaces", "tiny-s0", "quick-s0", "broken-s0"}
    assert board["rows"][0]["name"] == "eigenfaces"
    row = rows["tiny-s0"]
    assert row["seconds"] >= 0.6 and row["images_per_second"] > 0 and not row["failure"]
    assert set(row["scores"]) == set(rows["eigenfaces"]["scores"]) == {"kid32_train_pixels-32"}
    assert "24 px" in rows["quick-s0"]["failure"] and rows["quick-s0"]["runs"] == []
    assert rows["broken-s0"]["failure"].startswith("diverged")
    assert board["machine"]["threads"] == ["1"]
    page = Path("off", "leaderboard.html").read_text(encoding="utf-8")
    assert "tiny-s0: faces of seeds 0 to 7" in page and "24 px" in page
    assert json.loads(Path("off", "leaderboard.json").read_text())["rows"] == board["rows"]

    before = {path: path.read_bytes() for path in Path("off", "runs").rglob("*.*") if path.is_file()}
    monkeypatch.setattr(verb.subprocess, "Popen", None)  # nothing is trained again
    again = call(*line)
    assert again.code == 0, again.err
    assert json.loads(again.out)["rows"] == board["rows"]
    assert {path: path.read_bytes() for path in before} == before

    planned = json.loads(call(*line, "--dry-run").out)
    assert {run["name"]: run["state"].split(":")[0].split(",")[0] for run in planned["runs"]} == {
        "tiny-s0": "finished", "quick-s0": "left out", "broken-s0": "left out",
    }  # fmt: skip
    assert planned["training_seconds"] == 0 and planned["evaluation_seconds"] > 0
    text = call(*[word for word in line if word != "--json"]).out
    assert "eigenfaces" in text and "quick-s0: " in text and "off/leaderboard.html" in text
    less = call(*words("own.py:tiny", 0.0001))
    assert less.code == 0, "a run of half a second more than asked for is within reason"


def test_a_stopped_benchmark_saves_and_goes_on(here: Path) -> None:
    command = [sys.executable, "-m", "mien", *words("own.py:tiny,own.py:slow", 20)]
    parent = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    metrics = Path("off", "runs", "tiny-s0", "metrics.jsonl")
    until = time.monotonic() + 300
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)  # as from a terminal: to the whole group
    assert parent.wait(timeout=300) == 130
    assert status("tiny-s0")["state"] == "interrupted"
    assert read_record(Path("off", "runs", "tiny-s0")).seen > 0 and not Path("off", "runs", "slow-s0").exists()
    planned = call(*words("own.py:tiny,own.py:slow", 20, "--dry-run"))
    assert "tiny-s0  resumes" in planned.out and "slow-s0  20 min" in planned.out

    seconds = status("tiny-s0")["seconds"]
    goal = (seconds + 0.5) / 60
    done = call(*words("own.py:tiny", goal, "--json"))
    assert done.code == 0, done.err
    after = status("tiny-s0")
    assert after["state"] == "done" and after["resumes"] == 1 and after["seconds"] >= seconds + 0.4
    assert json.loads(done.out)["rows"][0]["scores"]


def test_a_signal_between_two_trainings_ends_with_its_code(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the process by the signal itself: a scheduler that starts again on exit code 75 did not."""
    old = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    monkeypatch.setattr(verb, "train", lambda *_: None)
    for number, code in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        monkeypatch.setattr(verb, "evaluate", lambda *_, number=number: os.kill(os.getpid(), number))
        stopped = call(*words("own.py:tiny", 0.0001))
        assert stopped.code == code and "between two trainings" in stopped.err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == old


def test_a_signal_while_a_training_begins_reaches_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child was left to train on, alone."""
    children, start = [], subprocess.Popen

    def interrupted_start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        children.append(start(*arguments, **options))
        return children[0]

    monkeypatch.setattr(verb.subprocess, "Popen", interrupted_start)
    stopped = call(*words("own.py:tiny", 20))
    assert stopped.code == 75 and "Stopped in tiny-s0" in stopped.err
    assert children[0].returncode is not None


def test_seeds_come_in_turns(here: Path) -> None:
    planned = json.loads(call(*words("own.py:tiny,own.py:slow", 3, "--repeats", "2", "--dry-run", "--json")).out)
    assert [run["name"] for run in planned["runs"]] == ["tiny-s0", "slow-s0", "tiny-s1", "slow-s1"]
    assert planned["training_seconds"] == 4 * 180 and not Path("off").exists()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (words("quikc", 1), 2, "quick"),
        (words(",", 1), 2, "empty"),
        (words("own.py:tiny,own.py:tiny", 1), 2, "twice"),
        (words("own.py:none", 1), 2, "tiny"),
        (words("nowhere.py:tiny", 1), 3, "nowhere.py"),
        (words("own.py:tiny", 0), 2, "--minutes"),
        (words("own.py:tiny", 1, "--repeats", "0"), 2, "--repeats"),
        (words("own.py:tiny", 1, "--threads", "-1"), 2, "--threads"),
        (["benchmark", "nowhere", "--minutes", "1", "--presets", "quick"], 3, "nowhere"),
        (["benchmark", "faces.pack", "--presets", "quick"], 2, "--help"),
    ],
)
def test_mistakes_are_three_lines(here: Path, given: list[str], code: int, said: str) -> None:
    refused = call(*given)
    assert refused.code == code and PRINTED.fullmatch(refused.err) and said in refused.err, refused.err
    assert not Path("off").exists()


def test_another_run_in_the_place_is_refused(here: Path) -> None:
    Path("off", "runs", "tiny-s0").mkdir(parents=True)
    run = {"fingerprint": "another", "identity": {"preset": "tiny", "seed": 7}}
    Path("off", "runs", "tiny-s0", "run.json").write_text(json.dumps(run))
    refused = call(*words("own.py:tiny", 1))
    assert refused.code == 9 and PRINTED.fullmatch(refused.err), refused.err


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ('{"error": {"code": 4, "message": "a", "why": "b", "hint": "c"}}\n', 4, "a b c"),
        ("", -9, "killed by signal 9"),
        ("[1]\n", 1, "exit code 1"),
    ],
)
def test_what_a_child_says_is_passed_on(said: str, code: int, words: str) -> None:
    assert words in " ".join(verb.child_error(said, code))
