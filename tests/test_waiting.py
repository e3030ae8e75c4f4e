"""Ranks wait for rank 0 longer than an average of gradients may take: while it prepares data, evaluates, draws, saves or pauses.

Run as a module this file is one rank, with a limit of seconds where mien has ten minutes.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mien.__main__ import main
from mien.core import distributed
from mien.data.pack import Pack
from mien.storage import control
from mien.storage.run_directory import RunDirectory
from tests.conftest import ROOT, blobs
from tests.forked_ranks import forked
from tests.test_evaluate import write_folder
from tests.test_parallel import SMALL, environment

LIMIT, DELAY = 10.0, 22.0  # seconds: of a gradient average, and of what rank 0 does meanwhile
#: What rank 0 is slow at, as MODULE:FUNCTION or MODULE:CLASS.METHOD.
SLOW = {
    "prepares data": "mien.data.open:prepare",
    "downloads weights": "mien.training.experiment:prepare",
    "opens its trackers": "mien.training.experiment:compose",
    "evaluates": "mien.metrics.online:OnlineEvaluator.write",
    "draws its grids": "mien.report.observers:SampleGrids.after_step",
    "saves": "mien.training.loop:_Loop.commit",
    "trains": "mien.training.train_state:TrainState.step",
}


def delayed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes DELAY longer in rank 0."""

    @functools.wraps(function)
    def slow(*arguments: Any, **named: Any) -> Any:
        if not distributed.rank():
            time.sleep(DELAY)
        return function(*arguments, **named)

    return slow


def work(case: str, arguments: list[str]) -> int:
    """One rank's work."""
    distributed.STEP_TIMEOUT = timedelta(seconds=LIMIT)
    if case in SLOW:
        module, _, path = SLOW[case].partition(":")
        *owner, name = path.split(".")
        home = functools.reduce(getattr, owner, __import__(module, fromlist=["x"]))
        setattr(home, name, delayed(getattr(home, name)))
    return main(arguments)


def line(case: str, folder: Path, data: Path, *more: object) -> list[str]:
    """A training of two ranks."""
    (folder / "eye.py").write_text("from mien.metrics.features import PixelFeatures as pixels\n")
    evaluate = ("--evaluate-every", "40", "--evaluate-metrics", "kid", "--evaluate-samples", "8")
    evaluate += ("--evaluate-extractor", "eye.py:pixels")
    scores = () if case == "is paused" else evaluate
    words = ("--data", data, "--out", "run", "--side", "16", *scores, *more)
    return forked("--module", "tests.test_waiting", case, "train", *SMALL, *words)


def settings(folder: Path) -> dict[str, str]:
    own = {"MIEN_CACHE": str(folder / "cache"), "PYTHONPATH": f"{ROOT}:{environment()['PYTHONPATH']}"}
    return {**environment(), **own}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", SLOW)
def test_ranks_wait_for_the_first(case: str, tmp_path: Path, blob_pack: Pack) -> None:
    """More than twice the limit of a gradient average; in a step, where a rank that hangs is dead, the run ends."""
    data = write_folder(tmp_path / "photos", blobs(24, 16)) if case == "prepares data" else blob_pack.path
    began = time.monotonic()
    done = subprocess.run(
        line(case, tmp_path, data, "--images", 80), cwd=tmp_path, env=settings(tmp_path), capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert time.monotonic() - began > DELAY
    if case == "trains":
        assert done.returncode != 0 and not (tmp_path / "run" / "checkpoints" / "0000000080").exists()
        return
    assert done.returncode == 0, done.stderr
    status = RunDirectory(tmp_path / "run").status
    assert (status["state"], status["seen"]) == ("done", 80)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ranks_wait_while_the_run_is_paused(tmp_path: Path, blob_pack: Pack) -> None:
    home = RunDirectory(tmp_path / "run")

    def wait_for(state: str) -> None:
        end = time.monotonic() + 600
        while not (tmp_path / "run" / "status.json").exists() or home.status["state"] != state:
            assert time.monotonic() < end and job.poll() is None, (tmp_path / "said.txt").read_text()
            time.sleep(0.1)

    with (tmp_path / "said.txt").open("w") as said:
        job = subprocess.Popen(
            line("is paused", tmp_path, blob_pack.path, "--images", 10**7),
            cwd=tmp_path, env=settings(tmp_path), stdout=said, stderr=said,
        )  # fmt: skip
    try:
        wait_for("running")
        control.send(home, "pause")
        wait_for("paused")
        time.sleep(DELAY)
        seen = home.status["seen"]
        control.send(home, "resume")
        wait_for("running")
        control.send(home, "stop")
        job.wait(600)
        assert home.status["seen"] > seen, (tmp_path / "said.txt").read_text()
    finally:
        job.terminate()
        job.wait(60)


if __name__ == "__main__":
    sys.exit(work(sys.argv[1], sys.argv[2:]))
