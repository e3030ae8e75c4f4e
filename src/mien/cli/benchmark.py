"""`mien bench-off`: presets trained for the same time on this machine, and their leaderboard."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter

from mien import presets
from mien.cli.result import Result
from mien.cli.scoring import Protocol, protocol_of
from mien.core.distributed import World
from mien.core.run import Device, Run, override
from mien.data import open_data
from mien.data.pack import Pack
from mien.errors import DataError, Diverged, Interrupted, Locked, Mismatch, Preempted, StorageError, UsageError
from mien.metrics.evaluate import MOST_SAMPLES
from mien.metrics.features import BLOCK, Extractor
from mien.report.comparison import Board, Entry, compared
from mien.report.formatting import duration
from mien.report.leaderboard import write_leaderboard
from mien.report.run_reader import read_record
from mien.report.sample_rows import draw_sample_row
from mien.report.table_text import as_json, as_text
from mien.storage import atomic
from mien.storage.run_directory import RunDirectory
from mien.training.baseline import NAME as BASELINE
from mien.training.baseline import fit_baseline
from mien.training.find_run import existing_run
from mien.training.resolve import resolve_run

STOPS = {"SIGINT": Interrupted, "SIGTERM": Preempted}
OVER = 1.05  # times the asked minutes that a run found in its place may have trained


@dataclass
class Contender:
    """One run of the bench-off: a preset under a seed, and its place."""

    preset: str  # as `mien train` takes it
    run: Run
    seed: int
    path: Path
    failure: str = ""  # why it has no model, or none that is worth judging
    seconds: float = 0.0  # trained already
    finished: bool = False

    @property
    def code(self) -> Path | None:
        """The file of a preset of the user's own."""
        file = self.preset.rpartition(":")[0]
        return Path(file) if file else None


def benchmark(
    pack: str,
    /,
    *,
    minutes: float,
    presets: str,
    repeats: int = 1,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    metrics: str = "fid,kid,prdc",
    samples: int | None = None,
    baseline: Annotated[bool, Parameter(negative=())] = False,
    threads: int = 0,
    extractor: str | None = None,
    device: Device = "auto",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
) -> Result:
    """Train presets for the same time on this machine, one after another, and write their leaderboard.

    Quality per compute, measured by yourself. The same command again goes on where it stopped. Examples:

        mien bench-off faces.pack --minutes 10 --presets quick,vae,dcgan-2015
        mien bench-off faces.pack --minutes 30 --presets quick,began-zhao --repeats 3 --baseline
        mien bench-off faces.pack --minutes 10 --presets quick,my_model.py:tiny --dry-run

    Parameters
    ----------
    pack
        A pack, or a folder or ZIP of photographs; `drawn` for the built-in faces.
    minutes
        Training time of each run.
    presets
        Names with commas between them, or FILE.py:NAME.
    repeats
        Runs of each preset, with seeds 0 to K-1: the table has their mean and range.
    out
        Where runs/, leaderboard.html and leaderboard.json go; by default bench-off/ and a folder named by pack and minutes.
    metrics
        Of fid, kid, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        How many faces of each are judged; as many as there are real images by default, at most 10,000.
    baseline
        A row for eigenfaces, a Gaussian over principal components: what a linear model does.
    threads
        Of torch, in every run and in judging; 0 is all cores.
    extractor
        FILE.py:NAME in place of Inception, as for `mien evaluate`.
    device
        Where to compute.
    dry_run
        Print the plan with the estimated time, and stop.
    """
    if not 0 < minutes < inf:
        raise UsageError(f"--minutes {minutes} is not possible.", "It is training time.", "Give more than 0.")
    if repeats < 1 or threads < 0:
        raise UsageError("--repeats and --threads count.", f"They are {repeats} and {threads}.", "Give 1 or more.")
    data = open_data(pack, None)
    home = out or Path("bench-off") / f"{Path(pack).stem}{data.side}-{minutes:g}min"
    contenders = line_up(presets, repeats, home)
    protocol = protocol_of(metrics, samples, extractor, device)  # before hours of training, not after
    for contender in contenders:
        look(contender, data, minutes, threads, device)
    if dry_run:
        return plan(contenders, protocol, data, minutes, home)
    if threads:
        torch.set_num_threads(threads)
    fitted = fit_baseline(data, home / "runs" / BASELINE) if baseline else None
    if fitted:
        protocol.measure(fitted, str(data.path))
    started = [] if fitted is None else [fitted]
    for contender in contenders:
        before = contender.finished
        if not contender.failure and not before:
            train(contender, data, minutes, threads, device)
        if not contender.failure:
            judge(contender, protocol, data)
        started += [contender.path] if (contender.path / "run.json").is_file() else []
        if not before:
            write(board_of(started, contenders), contenders, home, minutes)
    board = board_of(started, contenders)
    write(board, contenders, home, minutes)
    text = "\n\n".join(
        [
            *(["\n".join(f"! {line}" for line in board.alarms)] if board.alarms else []),
            as_text(board),
            str(home / "leaderboard.html"),
        ]
    )
    return Result(text, {**as_json(board), "out": str(home)})


def line_up(words: str, repeats: int, home: Path) -> list[Contender]:
    """Every run in the order of training: the first seed of all presets, then the next.

    Raises UsageError for an unknown preset or one that is named twice.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UsageError("There is nothing to train.", "--presets is empty.", "Write --presets quick,vae.")
    runs = {name: presets.find(name)[0] for name in names}
    labels = [run.preset for run in runs.values()]
    if len(set(labels)) < len(names):
        raise UsageError(
            "A preset is named twice.",
            f"--presets is {words}.",
            "Name each once; --repeats trains it under more seeds.",
        )
    return [
        Contender(name, run, seed, home / "runs" / f"{run.preset}-s{seed}")
        for seed in range(repeats)
        for name, run in runs.items()
    ]


def look(contender: Contender, data: Pack, minutes: float, threads: int, device: Device) -> None:
    """Find out what stands in the place of a run, and whether its networks can be made.

    Raises Mismatch where another run stands there, or one that has trained for longer.
    """
    changes: dict[str, Any] = {"seed": contender.seed, "minutes": minutes, "side": data.side, "threads": threads}
    try:
        run, code = presets.find(contender.preset)
        plan = resolve_run(override(run, {**changes, "device": device}), code, data.path, World())
        plan.learner(World())
    except (UsageError, DataError) as error:
        contender.failure = f"{error.what} {error.why}"
        return
    home = RunDirectory(contender.path)
    if home.run_json is None:
        return
    place, status = existing_run(plan, home), home.status
    contender.seconds, contender.finished = float(status["seconds"]), place.finished
    if status["state"] == "diverged":
        contender.failure = f"diverged: {status.get('reason') or 'it stayed non-finite'}"
    if contender.seconds > OVER * minutes * 60 + 5:
        raise Mismatch(
            f"{contender.path} has trained for {duration(contender.seconds)}.",
            f"This bench-off gives each run {duration(minutes * 60)}.",
            "Give more --minutes, or choose another --out.",
        )


def train(contender: Contender, data: Pack, minutes: float, threads: int, device: Device) -> None:
    """Train one run as `mien train` does, in a process of its own; it resumes by itself. A failure is noted.

    Raises Interrupted or Preempted when it was stopped, Locked or StorageError where the next would fare no better.
    """
    print(f"mien: {contender.path.name}, {duration(minutes * 60)}", file=sys.stderr, flush=True)
    words = ["train", contender.preset, "--data", data.path, "--minutes", f"{minutes:g}", "--seed", contender.seed]
    words += ["--out", contender.path, *(["--threads", threads] if threads else [])]
    words += ["--json", *(["--device", device] if device != "auto" else [])]
    command = [sys.executable, "-m", "mien", *map(str, words)]
    # In a session of its own, so that Ctrl-C reaches it once, from here: twice would end it without saving.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with passing_on(child) as received:
        said, _ = child.communicate()
    again = "Run the same command again to go on."
    if received or child.returncode in (Interrupted.exit_code, Preempted.exit_code):
        kind = STOPS[received[0]] if received else Preempted
        raise kind(f"Stopped in {contender.path.name}.", "A signal asked for it; its state is saved.", again)
    if child.returncode == 0:
        return
    what, why, remedy = complaint(said, child.returncode)
    for fatal in (StorageError, Locked, Mismatch):
        if child.returncode == fatal.exit_code:
            raise fatal(what, why, remedy)
    contender.failure = f"diverged: {what}" if child.returncode == Diverged.exit_code else f"{what} {why}"
    print(f"mien: {contender.path.name}: {contender.failure}", file=sys.stderr, flush=True)


@contextmanager
def passing_on(child: subprocess.Popen[str]) -> Iterator[list[str]]:
    """Signals that ask this process to stop go to the child, which saves its state; yields their names."""
    received: list[str] = []

    def pass_on(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)
        child.send_signal(number)

    numbers = [signal.Signals[name] for name in STOPS]
    old = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def complaint(said: str, code: int) -> tuple[str, str, str]:
    """The three parts of what a child reported with --json."""
    try:
        error = json.loads(said.splitlines()[-1])["error"]
        return error["message"], error["why"], error["hint"]
    except (ValueError, KeyError, IndexError, TypeError):
        how = f"It was killed by signal {-code}." if code < 0 else f"It ended with exit code {code}."
        return how, "It left no word; perhaps there was too little memory.", "Run `mien train` by hand to see."


def judge(contender: Contender, protocol: Protocol, data: Pack) -> None:
    """Measure what a finished run lacks. What cannot be judged is noted, and the others go on."""
    try:
        warnings = replace(protocol, code=contender.code).measure(contender.path, str(data.path))
    except (DataError, Mismatch) as error:
        contender.failure = f"{error.what} {error.why}"
        return
    for warning in warnings:
        print(f"mien: {contender.path.name}: {warning}", file=sys.stderr)


def board_of(started: Sequence[Path], contenders: Sequence[Contender]) -> Board:
    """The comparison so far; a preset that failed before it had a directory is a row all the same."""
    reasons = {contender.path: contender.failure for contender in contenders if contender.failure}
    failed = [
        Entry(name=contender.path.name, preset=contender.run.preset, failure=contender.failure)
        for contender in contenders
        if contender.failure and contender.path not in started
    ]
    return compared([read_record(path) for path in started], failed, reasons)


def write(board: Board, contenders: Sequence[Contender], home: Path, minutes: float) -> None:
    """The leaderboard as a page and as JSON."""
    codes = {contender.path: contender.code for contender in contenders}
    strips = [draw_sample_row(record, codes.get(record.directory)) for record in board.records]
    home.mkdir(parents=True, exist_ok=True)
    atomic.replace_text(home / "leaderboard.json", json.dumps(as_json(board), indent=1) + "\n")
    write_leaderboard(board, strips, home / "leaderboard.html", f"Bench-off, {minutes:g} minutes each")


def plan(contenders: Sequence[Contender], protocol: Protocol, data: Pack, minutes: float, home: Path) -> Result:
    """What would be done, and how long it would take."""
    lines, training, judged = [], 0.0, 0
    for contender in contenders:
        left = 0.0 if contender.finished or contender.failure else max(0.0, minutes * 60 - contender.seconds)
        if contender.failure:
            state = f"left out: {contender.failure}"
        elif contender.finished:
            state = f"finished, {duration(contender.seconds)}"
        else:
            state = f"resumes, {duration(left)} to go" if contender.seconds else duration(left)
        training += left
        judged += not contender.failure
        lines.append((contender.path.name, state))
    count = protocol.samples or min(len(data.rows("train")), MOST_SAMPLES)
    judging = seconds_an_image(protocol.extractor, data.side) * count * judged
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{width}}  {state}" for name, state in lines)
    total = f"{duration(training)} of training, and about {duration(judging)} to judge {count:,} faces of each."
    found = {
        "runs": [{"name": name, "state": state} for name, state in lines],
        "training_seconds": training,
        "judging_seconds": judging,
        "out": str(home),
    }
    return Result(f"{text}\n\n{total}\nEverything goes to {home}.", found)


def seconds_an_image(extractor: Extractor, side: int) -> float:
    """What an image costs the extractor, from its second block."""
    block = np.zeros((BLOCK, side, side, 3), np.uint8)
    extractor(block)
    started = time.perf_counter()
    extractor(block)
    return (time.perf_counter() - started) / BLOCK
