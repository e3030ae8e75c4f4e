"""One experiment from its description to its end: resolve the run, find or make its directory, compose the observers, go."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from mien import presets
from mien.core import distributed
from mien.core.contracts import Model, Observer
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import CONVERGENCE, Run, differences, fingerprint, override, scale_run, to_json, without_effect
from mien.data.loader import Loader
from mien.errors import DataError, MienError
from mien.metrics.features import Extractor
from mien.metrics.online import BestByMeasure, EvaluateDuring, name_best, prepare
from mien.metrics.quick_checks import RealFaces
from mien.presets import Code
from mien.report.health_observer import HealthCheck
from mien.report.observers import Report, SampleGrids, TensorBoard
from mien.report.progress import MetricsLog, ProgressLine
from mien.report.reconstructions import MEASURED, Look, Reconstructions, look
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint, run_directory
from mien.storage.run_directory import RunDirectory
from mien.training.find_run import RunLocation, find_run
from mien.training.loop import BatchSource
from mien.training.loop import train as learn
from mien.training.resolve import LABEL_ROWS, ResolvedRun, resolve_run

GRID_SEEDS = range(64)


def train(
    preset: str | Run = "quick",
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str = "auto",
    dial: float = 1.0,
    **changes: Any,
) -> Path:
    """Teach a generator faces, and return the run's directory.

    With `dial`, the preset's networks cost that many times as much an image.

    `changes` turn knobs by name: `train("quick", minutes=2)`; dotted names go in a mapping: `**{"recipe.lr": 1e-3}`.
    Calling it again with the same arguments resumes, as on the command line.
    """
    run, code = (preset, None) if isinstance(preset, Run) else presets.find(preset)
    sized = run if dial == 1.0 else scale_run(run, dial)
    changed = override(sized, changes)
    warn(changed, changes)
    return execute(changed, code, data, out, resume)


def warn(run: Run, changes: Iterable[str]) -> None:
    """Name what was asked for and does nothing in this run."""
    for line in without_effect(run, changes) if not distributed.rank() else ():
        print(f"mien: {line}", file=sys.stderr)


def execute(run: Run, code: Code | None, data: str | Path | None, out: str | Path | None, resume: str) -> Path:
    """Run one experiment to its end. Raises MienError with the state saved wherever there is one."""
    with ExitStack() as stack:
        kind = DeviceContext.choose(run.device, run.precision).device.type
        world = stack.enter_context(distributed.world(kind))
        plan = resolve_run(run, code, data, world)
        extractor = make_extractor(plan, world)
        place = distributed.agree(find_run(plan, out, resume) if world.first else None)
        if place is None:
            raise DataError("The run could not be set up.", "The first process failed.", "Read its message.")
        home = RunDirectory(place.path)
        if world.first:
            stack.enter_context(home.locked())
        if place.finished:
            reason = home.status.get("reason")
            how = f"it {reason}; give more --patience, or 0," if reason else "give more --images or --minutes"
            print(f"mien: {home.path} is finished; {how} to go on", file=sys.stderr)
            return home.path
        if run.threads:
            torch.set_num_threads(run.threads)  # before env.json tells them
        start = distributed.agree(open_run(plan, home, place) if world.first else None)
        learner = plan.learner(world)
        if run.conditional and not learner.recipe.model.label_dim and world.first:
            print(
                f"mien: the generator of `{run.preset}` is not told labels: faces cannot be asked for", file=sys.stderr
            )
        observers = compose(plan, home, start) if world.first else []
        judge = None
        if extractor is not None:
            judge = EvaluateDuring(home, plan.run, plan.pack, plan.header, plan.engine, extractor)
            observers += [judge] if world.first else []
        elif run.keep_best == CONVERGENCE and world.first:
            observers.append(BestByMeasure(home, plan.run))

        def batches(position: int) -> BatchSource:
            return Loader(
                plan.pack, batch=run.batch, seed=run.seed, rank=world.rank, world=world.size,
                flip=run.flip, random_crop=run.random_crop, channels=run.channels,
                position=position, threads=run.loader_threads,
            )  # fmt: skip

        try:
            learn(run, home, learner, batches, observers, plan.header, start, judge)
        except MienError as error:
            if world.first:
                home.update_status(reason=error.what, exit_code=error.exit_code)
            raise
    return home.path


def make_extractor(plan: ResolvedRun, world: World) -> Extractor | None:
    """What looks at the faces of a run that is evaluated. The first process fetches what has to be fetched."""
    if not plan.run.evaluate_every:
        return None
    if not world.first:
        distributed.barrier()
    extractor = prepare(plan.run, plan.pack, plan.faces, plan.engine.device.type)
    if world.first:
        distributed.barrier()
    return extractor


def open_run(plan: ResolvedRun, home: RunDirectory, place: RunLocation) -> Path | None:
    """Write what describes the run, or check and tidy what a killed process left. Returns the checkpoint to go on from."""
    home.clean()
    checkpoint.clean(home.checkpoints)
    start = place.checkpoint
    if start is not None:
        for newer in checkpoint.all_of(home.checkpoints):
            if int(newer.name) > int(start.name):
                newer.rename(newer.with_name(f"superseded-{newer.name}-{time.time_ns():x}"))
    else:
        start, reports = checkpoint.newest(home.checkpoints)
        for line in reports:
            print(f"mien: {line}", file=sys.stderr)
            home.log(line)
    run_json = {
        "format": 1,
        "command": " ".join(sys.argv[1:]),
        "fingerprint": fingerprint(plan.identity),
        "identity": plan.identity,
        **to_json(plan.run),
    }
    environment = run_directory.environment(plan.engine.device.type, plan.engine.precision, torch.get_num_threads())
    old = run_directory.read_json(home.path / "env.json")
    if old is not None and start is not None and (changed := differences(old, environment)):
        print(f"mien: resuming elsewhere, valid but not to the bit: {'; '.join(changed)}", file=sys.stderr)
        home.log(f"environment changed: {'; '.join(changed)}")
    labels = list(plan.pack.label_names)
    data = {
        "name": plan.source,
        "fingerprint": plan.pack.fingerprint,
        "count": len(plan.pack),
        "side": plan.pack.side,
        "labels": labels,
    }
    home.write_json("env.json", environment)
    home.write_json("data.json", data)
    home.write_json("run.json", run_json)
    seen = int(start.name) if start else 0
    home.cut_metrics(seen)
    name_best(plan.run, home)
    resumes = home.status["resumes"] + (0 if place.new else 1)
    seconds = home.status["seconds"] if start else 0.0
    home.update_status(
        state="running", seen=seen, started_from=seen, seconds=seconds, resumes=resumes, reason="", exit_code=None
    )
    word = f"resuming {home.path} at {seen:,} images" if start else f"starting {home.path}"
    print(
        f"mien: {word} ({plan.run.preset}, {plan.engine.device.type}, {plan.engine.precision})",
        file=sys.stderr,
        flush=True,
    )
    home.log(word)
    return start


def compose(plan: ResolvedRun, home: RunDirectory, start: Path | None) -> list[Observer]:
    """What watches a run: metrics, the progress line, grids of fixed seeds, its health, TensorBoard, the report."""

    def draw(model: Model) -> torch.Tensor:
        return Sampler(model, plan.header, plan.engine, "").sample(GRID_SEEDS)

    faces, labels = plan.known_faces(MEASURED)

    def see(model: Model) -> Look | None:
        return look(Sampler(model, plan.header, plan.engine, ""), faces, labels)

    recipe = {"preset": plan.run.preset, "seeds": [GRID_SEEDS[0], GRID_SEEDS[-1]], "synthetic": True}
    seen = int(start.name) if start else 0
    line, grids = ProgressLine(), SampleGrids(home.path, draw=draw, recipe=recipe, titles=titles(plan))
    return [
        MetricsLog(home),
        line,
        grids,
        HealthCheck(home.path, lambda: grids.faces, RealFaces(plan.pack), to_json(plan.run), seen, line.say),
        Reconstructions(home.path, faces, see=see, recipe={"preset": plan.run.preset, "synthetic": False}),
        TensorBoard(home.path, purge_step=seen),
        Ending(home),
        Report(home.path, film=plan.run.film),
    ]


def titles(plan: ResolvedRun) -> list[str] | None:
    """What each face of the sample grid is asked to have; None where nothing is asked."""
    if not plan.faces.label_dim or plan.pack.labels is None:
        return None
    rows = plan.pack.labels[:LABEL_ROWS]
    asked = [rows[mix(seed) % len(rows)] for seed in GRID_SEEDS]
    return [
        ", ".join(n for n, value in zip(plan.pack.label_names, row, strict=True) if value > 0.5) or "-" for row in asked
    ]


class Ending:
    """Writes how a run ended into status.json."""

    CODES: Mapping[str, int] = {"done": 0, "preempted": 75, "interrupted": 130, "diverged": 5, "failed": 1}

    def __init__(self, home: RunDirectory) -> None:
        self.home = home

    def after_step(self, progress: Any, model: Model) -> None: ...

    def after_commit(self, progress: Any, checkpoint: Path) -> None: ...

    def close(self, outcome: str) -> None:
        self.home.update_status(state=outcome, exit_code=self.CODES[outcome])
        self.home.log(f"ended: {outcome}")
