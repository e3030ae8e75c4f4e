"""Runs that are killed, stopped, moved, starved of disk or named wrongly: nothing saved is lost, nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import kills

from mien.__main__ import main
from mien.data.pack import Pack
from mien.storage import atomic, checkpoint, regular_file
from mien.storage.run_directory import RunDirectory
from mien.training import experiment
from tests.conftest import ROOT, write_pack

pytestmark = pytest.mark.usefixtures("warm_starts")

IMAGES = 160


class Nothing:
    """An observer that does not look: reports have tests of their own."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def begin(self, *_: object) -> None: ...

    def after_step(self, *_: object) -> None: ...

    def after_commit(self, *_: object) -> None: ...

    def close(self, *_: object) -> None: ...


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, without reports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "Report", Nothing)
    monkeypatch.setattr(experiment, "TensorBoard", Nothing)
    return tmp_path


@pytest.fixture
def train(here: Path, blob_pack: Pack, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`mien train` in this process: its exit code, and what it said."""

    def run(
        *more: object, data: Path = blob_pack.path, out: Path | str | None = "run", images: int = 48
    ) -> SimpleNamespace:
        place = () if out is None else ("--out", out)
        line = ["train", *kills.small("quick"), "--data", data, *place, "--images", images, *more]
        capsys.readouterr()
        code = main([str(word) for word in line])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return SimpleNamespace(code=code, out=said.out.strip(), err=said.err)

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Path:
    """A run of IMAGES images that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    kills.finish("quick", blob_pack.path, out, IMAGES)
    return out


def status(out: Path) -> dict[str, Any]:
    return RunDirectory(out).status


def wait_for(true: Callable[[], object], process: subprocess.Popen[bytes] | None = None, seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        assert process is None or process.poll() is None, "it ended"
        time.sleep(0.005)


# Kills and signals: processes of their own


def test_killed_twice(tmp_path: Path, blob_pack: Pack, undisturbed: Path) -> None:
    end = kills.storm("quick", blob_pack.path, tmp_path / "run", IMAGES, 2, random.Random(0))
    assert end.kills == 2 and len(end.started_from) == 2 and min(end.started_from) > 0
    assert end.digest == kills.digest(undisturbed)
    assert end.logged == kills.logged(undisturbed) == tuple(range(8, IMAGES + 1, 8))
    final = status(tmp_path / "run")
    assert (final["state"], final["seen"], final["resumes"], final["exit_code"]) == ("done", IMAGES, 2, 0)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_thirty_killed_runs_of_thirty() -> None:
    line = [sys.executable, ROOT / "benchmarks" / "kills.py", "--runs", "30"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 of 30 runs" in done.stdout and " 0 while saving" not in done.stdout


def test_stopped_by_signals_it_saves_and_goes_on(
    tmp_path: Path, blob_pack: Pack, undisturbed: Path, train: Callable[..., SimpleNamespace]
) -> None:
    out = tmp_path / "run"
    last = 0
    for number, code, state in ((signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "interrupted")):
        process = kills.start("quick", blob_pack.path, out, IMAGES)
        wait_for(lambda after=last + 8: kills.checkpoints(out)[-1:] > [after], process)
        process.send_signal(number)
        assert process.wait(60) == code
        here = kills.checkpoints(out)[-1]
        words = out.with_suffix(".txt").read_text().splitlines()[-3:]
        assert words[0] == f"mien: Stopped at {here} images; the state is saved."
        assert last < here < IMAGES and checkpoint.verify(out / "checkpoints" / f"{here:010d}") is None
        now = status(out)
        assert (now["state"], now["seen"], now["exit_code"], now["started_from"]) == (state, here, code, last)
        last = here
    assert train(out=out, images=IMAGES).code == 0
    assert status(out)["started_from"] == last
    assert kills.digest(out) == kills.digest(undisturbed) and kills.logged(out) == kills.logged(undisturbed)


SLOW_MODEL = """
import time
from pathlib import Path
from docs_model import PRESETS as OWN, Reconstruct, ReconstructConfig, dataclass
from mien.core.run import override
import dataclasses

class Slow(Reconstruct):
    def step(self, batches):
        yield from super().step(batches)
        Path(__file__).with_name("stepping").touch()
        time.sleep(60)

@dataclass(frozen=True, kw_only=True)
class SlowConfig(ReconstructConfig):
    def build(self, model, faces):
        return Slow(self, model)

PRESETS = {"slow": dataclasses.replace(OWN["tiny"], preset="slow", recipe=SlowConfig())}
"""


@pytest.fixture
def slow(tmp_path: Path, blob_pack: Pack) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a step that takes a minute."""
    shutil.copy(ROOT / "docs" / "own_model.py", tmp_path / "docs_model.py")
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    line = [
        sys.executable,
        "-m",
        "mien",
        "train",
        "slow.py:slow",
        "--data",
        blob_pack.path,
        "--out",
        "run",
        "--device",
        "cpu",
    ]
    with (tmp_path / "run.txt").open("wb") as words:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(list(map(str, line)), cwd=tmp_path, stdout=words, stderr=words, env=environment)
    try:
        wait_for(lambda: (tmp_path / "stepping").exists(), process)
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_second_signal_leaves_at_once(slow: subprocess.Popen[bytes]) -> None:
    slow.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert slow.poll() is None  # it finishes its step
    started = time.monotonic()
    slow.send_signal(signal.SIGTERM)
    assert slow.wait(10) == 75 and time.monotonic() - started < 5


def test_one_process_owns_a_run_and_a_dead_one_does_not(
    slow: subprocess.Popen[bytes],
    tmp_path: Path,
    train: Callable[..., SimpleNamespace],
    blob_pack: Pack,
    monkeypatch: Any,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    line = ["train", "slow.py:slow", "--data", str(blob_pack.path), "--out", "run", "--device", "cpu"]
    started = time.monotonic()
    said = train_line(line)
    assert said.code == 7 and f"Process {slow.pid} on " in said.err and time.monotonic() - started < 5
    slow.kill()
    slow.wait()
    with RunDirectory(tmp_path / "run").locked():  # free at once
        assert json.loads((tmp_path / "run" / "owner.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / "owner.json").exists()


def train_line(line: list[str]) -> SimpleNamespace:
    import contextlib
    import io

    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        code = main(line)
    return SimpleNamespace(code=code, err=err.getvalue(), out=out.getvalue())


# Which run is meant


def test_the_same_command_again_resumes_and_a_finished_run_says_so(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    first = train()
    assert first.code == 0 and first.out == "run" and status(here / "run")["resumes"] == 0
    before = {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*") if path.is_file()}
    again = train()
    assert again.code == 0 and "run is finished; use more --images or --minutes" in again.err
    assert {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*") if path.is_file()} == before


def test_more_images_go_on_where_it_ended(train: Callable[..., SimpleNamespace], here: Path) -> None:
    train(images=48)
    grown = train(images=96)
    assert grown.code == 0 and "resuming run at 48 images" in grown.err
    assert status(here / "run")["started_from"] == 48
    train(images=96, out="whole")
    assert kills.digest(here / "run") == kills.digest(here / "whole")
    assert kills.logged(here / "run") == kills.logged(here / "whole")


def test_what_a_kill_left_half_written_goes_when_the_run_is_opened_again(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    assert train().code == 0
    left = here / "run" / "eval" / f".scores.json.{os.getpid()}.tmp.json"
    left.parent.mkdir(exist_ok=True)
    left.write_text("{")
    assert train(images=96).code == 0 and not left.exists()


def test_without_out_the_newest_unfinished_run_of_the_same_kind_goes_on(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    assert train(out=None).out == "runs/00000-quick-blobs16-s0"
    assert train(out=None).out == "runs/00001-quick-blobs16-s0"  # the first is finished
    assert train("--seed", 1, out=None).out == "runs/00002-quick-blobs16-s1"
    assert train(out=None, images=96).out == "runs/00001-quick-blobs16-s0"  # more images: the newest of its kind
    assert train("--resume", "never", out=None, images=96).out == "runs/00003-quick-blobs16-s0"


def test_a_knob_that_came_later_orphans_no_run(train: Callable[..., SimpleNamespace], here: Path) -> None:
    """A run.json of an older version lacks the newer knobs: they stand at their defaults."""
    train(images=48)
    file = here / "run" / "run.json"
    text = json.loads(file.read_text())
    for knob in ("reg_interval", "reg_fraction"):  # whose values in the preset are the defaults
        del text["identity"]["recipe"][knob]
    del text["identity"]["flip"]
    file.write_text(json.dumps({**text, "fingerprint": "of an older version"}))
    assert train(images=96).code == 0 and status(here / "run")["started_from"] == 48
    other = train("--recipe.reg-interval", 2, images=144)
    assert other.code == 9 and "recipe.reg_interval: 4 -> 2" in other.err


def test_a_knob_that_is_gone_makes_another_run(train: Callable[..., SimpleNamespace], here: Path) -> None:
    train(images=48)
    file = here / "run" / "run.json"
    text = json.loads(file.read_text())
    text["identity"]["recipe"]["momentum"] = 0.5
    file.write_text(json.dumps(text))
    refused = train(images=96)
    assert refused.code == 9 and "recipe.momentum: 0.5 -> None" in refused.err


def test_resume_must(train: Callable[..., SimpleNamespace], here: Path) -> None:
    missing = train("--resume", "must")
    assert missing.code == 3 and "contains no run" in missing.err and not (here / "run").exists()
    assert train("--resume", "must", out=None).code == 3
    train()
    assert train("--resume", "must", images=56).code == 0
    assert status(here / "run")["started_from"] == 48


def test_resume_never(train: Callable[..., SimpleNamespace], here: Path) -> None:
    assert train("--resume", "never").code == 0
    refused = train("--resume", "never", images=96)
    assert refused.code == 2 and "contains a run already" in refused.err
    assert status(here / "run")["seen"] == 48


def test_resume_from_a_path(train: Callable[..., SimpleNamespace], here: Path) -> None:
    """A checkpoint goes on from there, and what was newer is put aside; the end is the same."""
    train(images=96)
    whole, lines = kills.digest(here / "run"), kills.logged(here / "run")
    back = train("--resume", "run/checkpoints/0000000088", out=None, images=96)
    assert back.code == 0 and status(here / "run")["started_from"] == 88
    assert kills.digest(here / "run") == whole and kills.logged(here / "run") == lines
    assert len(list((here / "run" / "checkpoints").glob("superseded-0000000096-*"))) == 1
    assert train("--resume", "run", out=None, images=104).code == 0  # a run directory is its newest checkpoint
    assert status(here / "run")["started_from"] == 96


def test_an_explicit_path_never_falls_back(train: Callable[..., SimpleNamespace], here: Path) -> None:
    train()
    state = here / "run" / "checkpoints" / "0000000048" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(bytes(content))
    for bad, code in (("run/checkpoints/0000000048", 8), ("run/checkpoints/0000000007", 3), ("nowhere", 3), ("yes", 3)):
        assert train("--resume", bad, images=96).code == code, bad
    (state.parent / "MANIFEST.json").unlink()
    assert train("--resume", "run/checkpoints/0000000048", images=96).code == 8
    assert kills.checkpoints(here / "run") == [8, 16, 32, 40, 48]  # and touches nothing


def test_a_damaged_checkpoint_is_set_aside_and_the_end_is_the_same(
    train: Callable[..., SimpleNamespace], here: Path
) -> None:
    train(images=64)
    train(images=48, out="other")
    (here / "other" / "checkpoints" / "0000000048" / "model.safetensors").write_bytes(b"x")
    again = train(images=64, out="other")
    assert again.code == 0 and "checkpoint 0000000048: model.safetensors is 1 bytes" in again.err
    assert status(here / "other")["started_from"] == 40
    assert kills.digest(here / "other") == kills.digest(here / "run")
    assert kills.logged(here / "other") == kills.logged(here / "run")


def test_another_run_in_the_directory_is_a_mismatch(train: Callable[..., SimpleNamespace]) -> None:
    train()
    other = train("--recipe.lr", "5e-4", "--no-flip")
    assert other.code == 9 and "flip: True -> False; recipe.lr: " in other.err


CHANGES = {
    "add": {"count": 97},
    "edit": {"seed": 1},
    "labels": {"labels": ("Hat",)},
    "resize": {"side": 32},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_pack_is_refused(train: Callable[..., SimpleNamespace], here: Path, change: str) -> None:
    train(data=write_pack(here / "a" / "blobs.pack").path)
    options: Any = CHANGES[change]
    changed = train(data=write_pack(here / "b" / "blobs.pack", **options).path, images=96)
    lines = changed.err.strip().splitlines()[-3:]
    assert changed.code == 9 and "data: " in lines[1] and " -> " in lines[1], lines
    assert status(here / "run")["seen"] == 48


def test_a_moved_or_touched_pack_is_the_same(train: Callable[..., SimpleNamespace], here: Path) -> None:
    write_pack(here / "a" / "blobs.pack")
    train(data=here / "a" / "blobs.pack")
    (here / "a").rename(here / "b")
    for path in (here / "b" / "blobs.pack").iterdir():
        os.utime(path, (1, 1))
    assert train(data=here / "b" / "blobs.pack", images=56).code == 0
    assert status(here / "run")["started_from"] == 48


def test_a_run_killed_in_its_first_instant_starts_again(train: Callable[..., SimpleNamespace], here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "run.json").write_text('{"half')
    assert train().code == 0 and status(here / "run")["seen"] == 48


def test_torn_and_surplus_metrics_are_cut(train: Callable[..., SimpleNamespace], here: Path) -> None:
    train(images=48)
    with (here / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"seen": 56, "seconds": 1}\n{"seen": 64, "sec')
    train(images=96)
    assert kills.logged(here / "run") == tuple(range(8, 97, 8))


def test_a_directory_deleted_while_training_is_a_storage_error(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vandal(Nothing):
        def after_step(self, *_: object) -> None:
            shutil.rmtree(here / "run", ignore_errors=True)

    monkeypatch.setattr(experiment, "SampleGrids", Vandal)
    monkeypatch.setattr(experiment, "HealthCheck", Nothing)
    ended = train(images=48)
    assert ended.code == 6 and "was deleted" in ended.err
    assert not (here / "run" / "checkpoints").exists()


def test_latest_is_corrected_on_resume(train: Callable[..., SimpleNamespace], here: Path) -> None:
    """A kill between the rename of a checkpoint and that of LATEST leaves an older name there."""
    train(images=48)
    (here / "run" / "checkpoints" / "LATEST").write_text("0000000008\n")
    RunDirectory(here / "run").update_status(state="running")
    train(images=48)
    assert (here / "run" / "checkpoints" / "LATEST").read_text() == "0000000048\n"


def test_another_number_of_processes_is_said(
    train: Callable[..., SimpleNamespace], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(images=48)
    file = here / "run" / "env.json"
    environment = json.loads(file.read_text())
    assert environment["processes"] == 1
    file.write_text(json.dumps({**environment, "processes": 2}))
    again = train(images=96)
    assert "not bit-exact" in again.err and "processes" in again.err


def test_a_run_killed_while_closing_is_closed_by_the_next(train: Callable[..., SimpleNamespace], here: Path) -> None:
    """Its last checkpoint is there but its report is not: the same command writes it."""
    train()
    whole = kills.digest(here / "run")
    RunDirectory(here / "run").update_status(state="running")
    again = train()
    assert again.code == 0 and status(here / "run")["state"] == "done"
    assert kills.digest(here / "run") == whole


# Disks


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_samples_and_metrics_that_cannot_be_written_stop_nothing(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(images=96)
    (here / "other").mkdir()
    (here / "other" / "samples").write_text("a file where the folder should be")
    opened = regular_file._descriptor

    def no_metrics(path: Path, flags: int) -> int:
        if path.name in ("metrics.jsonl", "log.txt") and flags & os.O_APPEND:
            full()
        return opened(path, flags)

    monkeypatch.setattr(regular_file, "_descriptor", no_metrics)
    starved = train(images=96, out="other")
    assert starved.code == 0 and kills.digest(here / "other") == kills.digest(here / "run")
    assert starved.err.count("metrics.jsonl cannot be written") == 1  # one warning a kind
    assert starved.err.count("samples cannot be written") == 1
    assert status(here / "other")["warnings"] == {"samples": 2}  # the first grid, and the last


def test_status_that_cannot_be_written_stops_nothing(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    replace = atomic.replace_text
    started = False

    def no_status(path: Path, text: str) -> None:
        nonlocal started
        if path.name == "status.json":
            if started:
                full()
            started = True
        replace(path, text)

    monkeypatch.setattr(atomic, "replace_text", no_status)
    starved = train(out="other")
    assert starved.code == 0 and kills.digest(here / "other") == kills.digest(here / "run")


def test_two_failed_saves_are_survived(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    commit, calls = checkpoint.commit, 0

    def sometimes(*arguments: Any, **options: Any) -> Path:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            full()
        return commit(*arguments, **options)

    monkeypatch.setattr(checkpoint, "commit", sometimes)
    starved = train(out="other")
    assert starved.code == 0 and kills.digest(here / "other") == kills.digest(here / "run")
    assert starved.err.count("checkpoint not saved") == 2 and "MB needed" in starved.err


def test_a_disk_that_stays_full_stops_the_run_and_space_heals_it(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(images=96)
    commit = checkpoint.commit
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "commit", lambda d, snapshot, *f: full() if snapshot.seen > 24 else commit(d, snapshot, *f)
        )
        starved = train(images=96, out="other")
    assert starved.code == 6 and starved.err.strip().splitlines()[-3] == "mien: The checkpoint could not be saved."
    assert status(here / "other")["state"] == "failed"
    assert status(here / "other")["exit_code"] == 6
    assert kills.checkpoints(here / "other")[-1] == 24
    assert train(images=96, out="other").code == 0 and status(here / "other")["started_from"] == 24
    assert kills.digest(here / "other") == kills.digest(here / "run")


def test_a_signal_on_a_full_disk_does_not_claim_to_have_saved(
    train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [signal.SIGTERM]

    def stopped(*_: object, **__: object) -> None:
        if signals:
            os.kill(os.getpid(), signals.pop())
        full()

    monkeypatch.setattr(checkpoint, "commit", stopped)
    starved = train()
    assert starved.code == 6 and "state is saved" not in starved.err and "not saved" in starved.err
    assert status(here / "run")["reason"] == "The checkpoint could not be saved."


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_while_a_run_writes_its_last_pictures(
    signals: int, train: Callable[..., SimpleNamespace], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were cut with "Stopped before the first training step". A second signal still ends the process at once."""

    class Slow(Nothing):
        def close(self, *_: object) -> None:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
            (here / "written").touch()

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(experiment, "Report", Slow)
    monkeypatch.setattr(os, "_exit", leave)
    if signals == 2:
        with pytest.raises(SystemExit) as caught:
            train()
        assert caught.value.code == 75 and not (here / "written").exists()
        return
    done = train()
    assert done.code == 0 and (here / "written").exists() and "Stopped" not in done.err
    assert RunDirectory(here / "run").status["state"] == "done"


def tmpfs(size: str, folder: Path) -> list[str]:
    """The beginning of a command that runs with a small disk of its own at `folder`."""
    return ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "{folder}" && exec "$@"', "sh"]


def has_namespaces(folder: Path) -> bool:
    try:
        return subprocess.run([*tmpfs("64k", folder), "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def test_a_disk_that_is_really_too_small(tmp_path: Path, blob_pack: Pack) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not has_namespaces(disk):
        pytest.skip("this machine lets no user mount a tmpfs of its own (unshare -rm)")
    line = [
        sys.executable,
        "-m",
        "mien",
        "train",
        *kills.small("quick"),
        "--data",
        blob_pack.path,
        "--out",
        disk / "run",
        "--images",
        96,
    ]
    done = subprocess.run(
        [*tmpfs("200k", disk), *map(str, line)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr and len([x for x in done.stderr.splitlines() if x.startswith("  do:  ")]) == 1


def test_a_read_only_disk_is_refused_before_anything_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mien.errors import StorageError
    from mien.storage import run_directory

    monkeypatch.setattr(atomic, "write_bytes", full)
    with pytest.raises(StorageError):
        run_directory.create(tmp_path / "run")
    with pytest.raises(StorageError):
        run_directory.create_numbered(tmp_path / "runs", "quick")


def test_numbered_directories_are_never_shared(tmp_path: Path) -> None:
    """64 claims from 8 threads are 64 directories."""
    from concurrent.futures import ThreadPoolExecutor

    from mien.storage import run_directory

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_directory.create_numbered(tmp_path, "x").path, range(64)))
    assert len(set(made)) == 64 and len(list(tmp_path.glob("*.claim"))) == 0
