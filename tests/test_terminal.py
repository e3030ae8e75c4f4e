"""Commands whose terminal goes away, whose messages nobody reads, or which a signal ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mien.cli.terminal import Messages, Stopped, stops

if sys.platform == "win32":
    pytest.skip("signals and pseudo-terminals of POSIX", allow_module_level=True)

MIEN = (sys.executable, "-m", "mien")
QUICK = (
    "train",
    "quick",
    "--side",
    "16",
    "--threads",
    "1",
    "--model.width",
    "8",
    "--recipe.critic.width",
    "8",
    "--out",
    "run",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_until(holds: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """SIGHUP as a terminal has it, also for tests that themselves run under nohup, whose children would inherit that."""
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, old)


def state(folder: Path) -> tuple[str, int]:
    found = json.loads((folder / "run" / "status.json").read_text())
    return found["state"], found["seen"]


def saved(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "run" / "checkpoints").glob("[0-9]*"))


def test_a_reader_that_leaves_does_not_end_a_training(tmp_path: Path) -> None:
    """`mien train 2>&1 | head`: it was reported as success, and had saved nothing."""
    read, write = os.pipe()
    child = subprocess.Popen(
        [*MIEN, *QUICK, "--images", "320"], cwd=tmp_path, stdout=write, stderr=write, env=ENVIRONMENT
    )
    os.close(write)
    assert os.read(read, 5) == b"mien:"
    os.close(read)
    assert child.wait(120) == 0
    assert state(tmp_path) == ("done", 320) and saved(tmp_path)[-1] == 320


def test_a_terminal_that_is_closed_saves_the_run(tmp_path: Path) -> None:
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, [*MIEN, *QUICK, "--images", "100000"], ENVIRONMENT)
    said = b""
    while b"16 of 100,000 images" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    now, seen = state(tmp_path)
    assert now == "preempted" and saved(tmp_path)[-1] == seen >= 16


def test_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    child = subprocess.Popen(
        ["nohup", *MIEN, *QUICK, "--images", "100000"], cwd=tmp_path, stdout=-3, stderr=-3, env=ENVIRONMENT
    )
    wait_until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    child.send_signal(signal.SIGHUP)
    _, seen = state(tmp_path)
    wait_until(lambda: state(tmp_path)[1] > seen + 16)
    child.terminate()
    assert child.wait(60) == 75 and state(tmp_path)[0] == "preempted"


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_without_stderr_messages_go_nowhere(tmp_path: Path, closed: str) -> None:
    """They went to stdout, into the JSON, or ended the command; a file that is opened must not become stderr."""
    line = " ".join([*MIEN, *QUICK, "--images", "64", "--json", closed])
    done = subprocess.run(
        ["sh", "-c", f"exec {line}"], cwd=tmp_path, stdout=subprocess.PIPE, timeout=120, env=ENVIRONMENT
    )
    assert done.returncode == 0 and state(tmp_path) == ("done", 64)
    assert not done.stdout if ">&- " in closed[3:] else json.loads(done.stdout)


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    """They were exit code 1, "a bug in mien": a pipe of Windows, or a terminal with one byte a letter."""
    from PIL import Image

    for label in ("日本", "été"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), (90 * index, 0, 0)).save(tmp_path / "photos" / label / f"{index}.png")
    narrow = {**ENVIRONMENT, "PYTHONIOENCODING": "cp1252"}
    for words in (("data", "prepare", "photos", "a.pack", "--size", "16"), ("data", "info", "a.pack")):
        done = subprocess.run([*MIEN, *words], cwd=tmp_path, stdout=subprocess.PIPE, env=narrow, timeout=60)
        assert (
            done.returncode == 0
            and "\\u65e5\\u672c" in done.stdout.decode("cp1252")
            and "été" in done.stdout.decode("cp1252")
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "words",
    [("walk", "faces", "--seeds", "0-99", "-o", "film.mp4"), ("data", "prepare", "many", "--size", "256", "all.zip")],
)
def test_a_signal_leaves_no_temporary_file(tmp_path: Path, words: tuple[str, ...], number: signal.Signals) -> None:
    from PIL import Image

    (tmp_path / "many").mkdir()
    for index in range(1500):
        Image.new("RGB", (64, 64), (index % 256, index // 256, 0)).save(tmp_path / "many" / f"{index}.png")
    child = subprocess.Popen([*MIEN, *words], cwd=tmp_path, stdout=-3, stderr=subprocess.PIPE, env=ENVIRONMENT)
    wait_until(lambda: child.poll() is not None or list(tmp_path.glob(".*.tmp*")))
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 75 and b"mien: stopped by a signal" in said, said
    assert not list(tmp_path.glob(".*.tmp*")) and not (tmp_path / words[-1]).exists()


@pytest.fixture
def default_handlers() -> Iterator[None]:
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_handlers")
def test_handlers_of_others_stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    with stops():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one ends the process
    assert heard == [signal.SIGUSR1] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_messages_are_the_stream_they_wrap(tmp_path: Path) -> None:
    with (tmp_path / "words").open("w") as file:
        messages = Messages(file)
        print("said", file=messages, flush=True)
        assert not messages.isatty() and messages.fileno() == file.fileno()
    assert (tmp_path / "words").read_text() == "said\n"
