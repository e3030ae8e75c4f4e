"""`mien benchmark`: train presets for the same time on this machine, and rank them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter

from mien import presets
from mien.cli.model_options import ComputeDevice
from mien.cli.result import Result
from mien.cli.scoring import Protocol, protocol_of
from mien.core.distributed import World
from mien.core.run import Device, Run, override
from mien.data import open_data
from mien.data.pack import Pack
from mien.downloads import weights
from mien.errors import DataError, Diverged, Interrupted, Locked, Mismatch, Preempted, StorageError, UsageError
from mien.metrics.evaluate import MAX_SAMPLES
from mien.metrics.features import BLOCK, Extractor, InceptionFeatures
from mien.report.comparison import Board, Entry, compared
from mien.report.formatting import duration
from mien.report.leaderboard import write_leaderboard
from mien.report.run_reader import read_record
from mien.report.sample_rows import draw_sample_row
from mien.report.table_text import as_json, as_text
from mien.storage import atomic
from mien.storage.bounded_json import dumps
from mien.storage.run_directory import RunDirectory
from mien.training import signals
from mien.training.baseline import NAME as BASELINE
from mien.training.baseline import fit_baseline
from mien.training.find_run import existing_run
from mien.training.resolve import resolve_run

AGAIN = "Run the same command again to go on."
TOLERANCE = 1.05  # times --minutes that a run found in its directory may have trained


@dataclass
class Contender:
    """One run of the benchmark: a preset with a seed, and its directory."""

    preset: str  # as `mien train` takes it
    run: Run
    seed: int
    path: Path
    failure: str = ""  # why it has no model, or none to evaluate
    seconds: float = 0.0  # of training done already
    finished: bool = False

    @property
    def code(self) -> Path | None:
        """The Python file of a user's own preset."""
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
    device: ComputeDevice = "auto",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
) -> Result:
    """Train presets for the same time on this machine, one after another, and write their leaderboard.

    Measures quality per compute on your machine. The same command again resumes. Examples:

        mien benchmark faces.pack --minutes 10 --presets quick,vae,dcgan-2015
        mien benchmark faces.pack --minutes 30 --presets quick,began-zhao --repeats 3 --baseline
        mien benchmark faces.pack --minutes 10 --presets quick,my_model.py:tiny --dry-run

    Parameters
    ----------
    pack
        Pack, or folder or ZIP of photographs; `drawn` for the built-in drawn faces.
    minutes
        Training time of each run, in minutes.
    presets
        Presets separated by commas, or FILE.py:NAME.
    repeats
        Number of runs of each preset, with seeds 0 to K-1; the table has their mean and range.
    out
        Folder for runs/, leaderboard.html and leaderboard.json; by default benchmark/ and a folder named by pack and minutes.
    metrics
        Metrics: fid, kid, mind, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        Number of samples of each run to evaluate; by default as many as there are real images, at most 10,000.
    baseline
        Add a row for eigenfaces, a Gaussian over principal components: a linear model.
    threads
        CPU threads of torch, in training and evaluation; 0 = all cores.
    extractor
        FILE.py:NAME instead of Inception, as for `mien evaluate`.
    dry_run
        Print the plan with the estimated time, and stop.
    """
    if not 0 < minutes < inf:
        raise UsageError("minutes must be a positive number.", f"{minutes} is not.", "Give --minutes 5.")
    if repeats < 1 or threads < 0:
        raise UsageError(
            "repeats must be a positive integer, and threads must not be negative.",
            f"They are {repeats} and {threads}.",
            "Give --repeats 1 or more, and --threads 0 for all cores.",
        )
    named = named_presets(presets)
    protocol = protocol_of(metrics, samples, extractor, device, download=False)
    data = open_data(pack, None)
    home = out or Path("benchmark") / f"{Path(pack).stem}{data.side}-{minutes:g}min"
    contenders = line_up(named, repeats, home)
    if not dry_run:
        protocol = protocol_of(metrics, samples, extractor, device)  # fails before hours of training, not after
    for contender in contenders:
        check_directory(contender, data, minutes, threads, device)
    if dry_run:
        return plan(contenders, protocol, data, minutes, home)
    if threads:
        torch.set_num_threads(threads)
    with signals.handled(stop_between):
        board = train_and_evaluate(contenders, protocol, data, baseline, minutes, threads, device, home)
    return Result(f"{as_text(board)}\n\n{home / 'leaderboard.html'}", {**as_json(board), "out": str(home)})


def stop_between(code: int) -> None:
    """End what happens between two trainings: what is done stays, and the same command goes on."""
    raise stop_of([code])(
        "Stopped between two trainings.", "The process received a signal; finished runs are kept.", AGAIN
    )


def stop_of(codes: Sequence[int]) -> type[Interrupted] | type[Preempted]:
    """The error of the first exit code."""
    return Interrupted if codes[:1] == [Interrupted.exit_code] else Preempted


def train_and_evaluate(
    contenders: Sequence[Contender],
    protocol: Protocol,
    data: Pack,
    baseline: bool,
    minutes: float,
    threads: int,
    device: Device,
    home: Path,
) -> Board:
    """Train and evaluate each run that lacks it, and write the leaderboard after each."""
    started = [fit_baseline(data, home / "runs" / BASELINE)] if baseline else []
    for fitted in started:
        protocol.measure(fitted, str(data.path))
    for contender in contenders:
        was_finished = contender.finished
        if not contender.failure and not was_finished:
            train(contender, data, minutes, threads, device)
        if not contender.failure:
            evaluate(contender, protocol, data)
        started += [contender.path] if (contender.path / "run.json").is_file() else []
        if not was_finished:
            write(board_of(started, contenders), contenders, home, minutes)
    board = board_of(started, contenders)
    write(board, contenders, home, minutes)
    return board


def named_presets(words: str) -> dict[str, Run]:
    """The presets of `A,B`. Raises UsageError for an unknown one or one that is named twice."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UsageError("--presets is empty.", "There is nothing to train.", "Write --presets quick,vae.")
    runs = {name: presets.find(name)[0] for name in names}
    labels = [run.preset for run in runs.values()]
    if len(set(labels)) < len(names):
        raise UsageError(
            "A preset is named twice.",
            f"--presets is {words}.",
            "Name each once; --repeats trains it with more seeds.",
        )
    return runs


def line_up(runs: Mapping[str, Run], repeats: int, home: Path) -> list[Contender]:
    """Every run in the order of training: the first seed of all presets, then the next."""
    return [
        Contender(name, run, seed, home / "runs" / f"{run.preset}-s{seed}")
        for seed in range(repeats)
        for name, run in runs.items()
    ]


def check_directory(contender: Contender, data: Pack, minutes: float, threads: int, device: Device) -> None:
    """Read the state of a run's directory, and check that its networks can be built.

    Raises Mismatch if another run is there, or one that has trained for longer.
    """
    changes: dict[str, Any] = {"seed": contender.seed, "minutes": minutes, "side": data.side, "threads": threads}
    try:
        run, code = presets.find(contender.preset)
        plan = resolve_run(override(run, {**changes, "device": device}), code, data.path, World())
        plan.initial_state(World())
    except (UsageError, DataError) as error:
        contender.failure = f"{error.what} {error.why}"
        return
    home = RunDirectory(contender.path)
    if home.run_json is None:
        return
    place, status = existing_run(plan, home), home.status
    contender.seconds, contender.finished = float(status["seconds"]), place.finished
    if status["state"] == "diverged":
        contender.failure = f"diverged: {status.get('reason') or 'a loss stayed NaN or infinite'}"
    if contender.seconds > TOLERANCE * minutes * 60 + 5:
        raise Mismatch(
            f"{contender.path} has trained for {duration(contender.seconds)}.",
            f"This benchmark gives each run {duration(minutes * 60)}.",
            "Give more --minutes, or choose another --out.",
        )


def train(contender: Contender, data: Pack, minutes: float, threads: int, device: Device) -> None:
    """Train one run as `mien train` does, in its own process; it resumes by itself. A failure is noted.

    Raises Interrupted or Preempted if it was stopped, Locked or StorageError if the next run would fail too.
    """
    print(f"mien: {contender.path.name}, {duration(minutes * 60)}", file=sys.stderr, flush=True)
    words = ["train", contender.preset, "--data", data.path, "--minutes", f"{minutes:g}", "--seed", contender.seed]
    words += ["--out", contender.path, *(["--threads", threads] if threads else [])]
    words += ["--json", *(["--device", device] if device != "auto" else [])]
    command = [sys.executable, "-m", "mien", *map(str, words)]
    stops = signals.ForwardedStops()
    with signals.handled(stops.receive):
        # In its own session, so that Ctrl-C reaches it once, through this process: a second one would end it without saving.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        stops.to(child)
        output, _ = child.communicate()
    if stops.codes or child.returncode in (Interrupted.exit_code, Preempted.exit_code):
        kind = stop_of(stops.codes)
        raise kind(f"Stopped in {contender.path.name}.", "The process received a signal; the state is saved.", AGAIN)
    if child.returncode == 0:
        return
    what, why, remedy = child_error(output, child.returncode)
    for fatal in (StorageError, Locked, Mismatch):
        if child.returncode == fatal.exit_code:
            raise fatal(what, why, remedy)
    contender.failure = f"diverged: {what}" if child.returncode == Diverged.exit_code else f"{what} {why}"
    print(f"mien: {contender.path.name}: {contender.failure}", file=sys.stderr, flush=True)


def child_error(output: str, code: int) -> tuple[str, str, str]:
    """The three parts of the error that a child printed with --json."""
    try:
        error = json.loads(output.splitlines()[-1])["error"]
        return error["message"], error["why"], error["hint"]
    except (ValueError, KeyError, IndexError, TypeError):
        how = f"It was killed by signal {-code}." if code < 0 else f"It ended with exit code {code}."
        return how, "It printed no error; memory may have run out.", "Run `mien train` with the same flags to see."


def evaluate(contender: Contender, protocol: Protocol, data: Pack) -> None:
    """Measure the scores that a finished run lacks. A run that cannot be evaluated is noted, and the others go on."""
    try:
        warnings = replace(protocol, code=contender.code).measure(contender.path, str(data.path))
    except (DataError, Mismatch) as error:
        contender.failure = f"{error.what} {error.why}"
        return
    for warning in warnings:
        print(f"mien: {contender.path.name}: {warning}", file=sys.stderr)


def board_of(started: Sequence[Path], contenders: Sequence[Contender]) -> Board:
    """The comparison so far, with a row for each preset that failed before it had a directory."""
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
    atomic.replace_text(home / "leaderboard.json", dumps(as_json(board), indent=1) + "\n")
    write_leaderboard(board, strips, home / "leaderboard.html", f"Benchmark, {minutes:g} minutes each")


def plan(contenders: Sequence[Contender], protocol: Protocol, data: Pack, minutes: float, home: Path) -> Result:
    """The runs to do, and how long they would take."""
    lines, training, evaluated = [], 0.0, 0
    for contender in contenders:
        remaining = 0.0 if contender.finished or contender.failure else max(0.0, minutes * 60 - contender.seconds)
        state = f"resumes, {duration(remaining)} to go" if contender.seconds else duration(remaining)
        if contender.failure:
            state = f"left out: {contender.failure}"
        elif contender.finished:
            state = f"finished, {duration(contender.seconds)}"
        training += remaining
        evaluated += not contender.failure
        lines.append((contender.path.name, state))
    count = protocol.samples or min(len(data.rows("train")), MAX_SAMPLES)
    ready = not isinstance(protocol.extractor, InceptionFeatures) or weights.here("inception")
    evaluation = seconds_per_image(protocol.extractor, data.side) * count * evaluated if ready else None
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{width}}  {state}" for name, state in lines)
    cost = "a download of its network's weights" if evaluation is None else f"about {duration(evaluation)}"
    total = f"{duration(training)} of training, and {cost} to evaluate {count:,} samples of each."
    found = {
        "runs": [{"name": name, "state": state} for name, state in lines],
        "training_seconds": training,
        "evaluation_seconds": evaluation,
        "out": str(home),
    }
    return Result(f"{text}\n\n{total}\nAll files go to {home}.", found)


def seconds_per_image(extractor: Extractor, side: int) -> float:
    """Seconds that the extractor takes per image, measured on its second block."""
    block = np.zeros((BLOCK, side, side, 3), np.uint8)
    extractor(block)
    started = time.perf_counter()
    extractor(block)
    return (time.perf_counter() - started) / BLOCK
