"""A run's directory: status, metrics, numbers, names, and its lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.errors import Locked, StorageError
from mien.report.run_reader import sample_grids
from mien.storage import checkpoint, run_directory
from mien.storage.bounded_json import read_lines
from mien.storage.regular_file import append_text, read_own
from mien.storage.run_directory import RunDirectory


@pytest.fixture
def home(tmp_path: Path) -> RunDirectory:
    return run_directory.create(tmp_path / "run")


def test_an_odd_name_blocks_no_number(tmp_path: Path) -> None:
    """`99999-old` made every number six digits long: "runs is full", with one folder in it."""
    for name in ("99999-old", "00000-a", "1234567-b", "٠٠٠٠٩-c", "00001"):
        (tmp_path / name).mkdir()
    assert run_directory.create_numbered(tmp_path, "x").path.name == "00001-x"
    assert run_directory.create_numbered(tmp_path, "x").path.name == "00002-x"


def test_a_new_directory_has_a_status_and_no_run(home: RunDirectory) -> None:
    assert home.run_json is None
    assert home.status == {"state": "new", "seen": 0, "seconds": 0.0, "resumes": 0}
    assert list(home.path.iterdir()) == []  # the probe has gone


def test_status_keeps_what_is_not_changed(home: RunDirectory) -> None:
    home.update_status(state="running", seen=8)
    home.update_status(seen=16)
    assert home.status["state"] == "running" and home.status["seen"] == 16


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00\x00", '{"a": 1'])
def test_torn_json_is_as_if_it_were_not_there(home: RunDirectory, content: str) -> None:
    (home.path / "run.json").write_text(content)
    (home.path / "status.json").write_text(content)
    assert home.run_json is None and home.status["state"] == "new"


def test_metrics_are_cut_at_the_checkpoint_and_where_they_are_torn(home: RunDirectory) -> None:
    lines = [json.dumps({"seen": seen, "loss": 0.5}) for seen in (8, 16, 24)]
    for tail in ("", '{"seen": 32, "lo', "\x00" * 64, '{"seen": 32, "lo\n'):
        home.metrics.write_text("\n".join(lines) + "\n" + tail)
        home.cut_metrics(24)
        assert home.metrics.read_text() == "\n".join(lines) + "\n"
        home.cut_metrics(16)
        assert home.metrics.read_text() == "\n".join(lines[:2]) + "\n"
    home.cut_metrics(0)
    assert home.metrics.read_text() == ""


def test_metrics_that_are_no_text_are_cut_there(home: RunDirectory) -> None:
    """What a disk leaves after a power cut may be anything."""
    home.metrics.write_bytes(b'{"seen": 8}\n\xff\xfe\x00garbage')
    home.cut_metrics(8)
    assert home.metrics.read_text() == '{"seen": 8}\n'


def test_cutting_nothing_makes_nothing(home: RunDirectory) -> None:
    home.cut_metrics(5)
    assert not home.metrics.exists()


def test_what_kills_left_half_written_is_removed_and_nothing_else(
    home: RunDirectory, owner: subprocess.Popen[str]
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    names = (
        "samples/.0000001024.png.{}.tmp.png",
        "eval/.scores.json.{}.tmp.json",
        ".status.json.{}.tmp.json",
        ".LATEST.{}.tmp",
    )
    kept = [
        home.path / "eval" / f".film.mp4.{owner.pid}.tmp.mp4",  # still being written by another process
        home.path / "samples" / "0000001024.png",
        home.path / ".notes.tmp",
        home.path / ".tmp.txt",
    ]
    (home.path / ".folder.1.tmp").mkdir()
    left = [home.path / name.format(process) for name in names for process in (dead.pid, os.getpid())]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    home.clean()
    assert not [path for path in left if path.exists()] and all(path.exists() for path in kept)
    assert (home.path / ".folder.1.tmp").is_dir()
    home.clean()


def test_the_log_never_stops_anything(home: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    home.log("one")
    assert (home.path / "log.txt").read_text().endswith(" one\n")
    (home.path / "log.txt").unlink()
    (home.path / "log.txt").mkdir()
    home.log("two")
    assert "log.txt could not be written" in capsys.readouterr().err


def test_numbers_go_up_and_are_never_used_twice(tmp_path: Path) -> None:
    made = [run_directory.create_numbered(tmp_path / "runs", slug).path.name for slug in ("a", "b", "a")]
    assert made == ["00000-a", "00001-b", "00002-a"]
    (tmp_path / "runs" / "00041-by-hand").mkdir()
    assert run_directory.create_numbered(tmp_path / "runs", "c").path.name == "00042-c"
    assert [run.path.name for run in run_directory.all_runs(tmp_path / "runs")][:2] == ["00042-c", "00041-by-hand"]
    assert run_directory.all_runs(tmp_path / "nowhere") == []


def test_a_place_that_cannot_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for call in (
        lambda: run_directory.create(tmp_path / "file"),
        lambda: run_directory.create(tmp_path / "file" / "run"),
    ):
        with pytest.raises(StorageError):
            call()
    with pytest.raises(StorageError):
        run_directory.create_numbered(tmp_path / "file", "x")


@pytest.mark.parametrize(
    "name", ["a b", "é", "e\u0301", "脸", "💥", "مرحبا", ".dot", "'quoted\"", "100%", "#1", "x" * 240, "dot.", "CON"]
)
def test_names_of_every_kind(tmp_path: Path, name: str) -> None:
    home = run_directory.create(tmp_path / name)
    with home.locked():
        home.update_status(state="running")
        home.log("here")
    assert RunDirectory(tmp_path / name).status["state"] == "running"


OWNER = """
import sys, time
from pathlib import Path
from mien.storage.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(home: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the run."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(home.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_lock_names_its_owner_and_dies_with_it(home: RunDirectory, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(Locked) as caught, home.locked():
        pass
    assert f"Process {owner.pid} on " in caught.value.why and caught.value.exit_code == 7
    owner.kill()
    owner.wait()
    started = time.monotonic()
    with home.locked():
        assert time.monotonic() - started < 2
    with home.locked():  # and it is given back
        pass


# A run from elsewhere

needs_fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="SKIPPED FIFOS: this system has none")


@needs_fifos
@pytest.mark.parametrize("odd", ["fifo", "link", "folder"])
def test_nothing_is_appended_to_what_is_no_file(odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resumed run had its log and metrics appended to any file that a link of it names, and waited for a FIFO."""
    home = run_directory.create(tmp_path / "run")
    secret = tmp_path / "secret"
    secret.write_text("mine\n")
    for name in ("log.txt", "metrics.jsonl"):
        path = home.path / name
        os.mkfifo(path) if odd == "fifo" else path.symlink_to(secret) if odd == "link" else path.mkdir()
    home.log("a line")
    with pytest.raises(OSError):
        append_text(home.metrics, "{}\n")
    assert secret.read_text() == "mine\n" and "log.txt could not be written" in capsys.readouterr().err


def test_appending_makes_the_file(tmp_path: Path) -> None:
    for line in ("ä\n", "b\n"):
        append_text(tmp_path / "new.txt", line)
    assert (tmp_path / "new.txt").read_bytes() == "ä\nb\n".encode()


def test_a_line_that_was_cut_off_spoils_only_itself(tmp_path: Path) -> None:
    """After a full disk, or a kill, the next line was joined to what was left of the last, and was lost with it."""
    path = tmp_path / "fid.jsonl"
    for cut in ('{"value": 1}\n{"val', '{"value": 1}\n'):
        path.write_text(cut)
        for value in (2, 3):
            append_text(path, json.dumps({"value": value}) + "\n")
        assert [line["value"] for line in read_lines(path)] == [1, 2, 3]


def test_what_is_handed_out_is_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("secret")
    assert read_own(tmp_path / "secret", 6) == b"secret"
    for path, most in ((tmp_path / "link", 6), (tmp_path / "secret", 5), (tmp_path, 6)):
        with pytest.raises(OSError):
            read_own(path, most)


@needs_fifos
@pytest.mark.parametrize("content", [b"0000000016", b"\xff\xfe", b"", "fifo", "link"])
def test_latest_is_mended_whatever_is_there(content: bytes | str, tmp_path: Path) -> None:
    """Bytes that are no text ended a resume with exit code 1."""
    latest, newest = tmp_path / "LATEST", tmp_path / "0000000032"
    newest.mkdir()
    if isinstance(content, bytes):
        latest.write_bytes(content)
    else:
        os.mkfifo(latest) if content == "fifo" else latest.symlink_to(tmp_path / "nowhere")
    checkpoint.point_latest(newest)
    assert latest.read_bytes() == b"0000000032\n" and not latest.is_symlink()


def test_names_that_only_look_like_numbers(tmp_path: Path) -> None:
    """`²` is a digit and no number: one such entry ended every verb with exit code 1."""
    for name in ("²", "00²", "0000000016"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "samples").mkdir(exist_ok=True)
        (tmp_path / "samples" / f"{name}.png").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "samples" / "0000000032.png").symlink_to(tmp_path / "secret")
    assert [path.name for path in checkpoint.all_of(tmp_path / "checkpoints")] == ["0000000016"]
    assert sample_grids(tmp_path) == [(16, tmp_path / "samples" / "0000000016.png")]
