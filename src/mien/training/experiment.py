"""From a Run to a finished run: resolve it, find or create its directory, compose the observers, train."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import torch

from mien import presets
from mien.core import distributed
from mien.core.contracts import Model, Observer
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.memory import freed_memory_kept, give_back_freed
from mien.core.run import (
    CONVERGENCE,
    Run,
    differences,
    fingerprint,
    override,
    scale_run,
    to_json,
    without_effect,
)
from mien.data.loader import Loader
from mien.data.open import check_source
from mien.errors import DataError, Interrupted, MienError
from mien.metrics.features import Extractor
from mien.metrics.online import BestByConvergence, OnlineEvaluator, prepare, update_best
from mien.metrics.quick_checks import RealFaces
from mien.presets import Code
from mien.presets.defaults import keep_changes
from mien.report.health_observer import HealthCheck
from mien.report.observers import Report, SampleGrids, TensorBoard
from mien.report.progress import MetricsLog, ProgressLine
from mien.report.reconstructions import MEASURED, Reconstructed, Reconstructions, reconstruct
from mien.report.trackers import Tracking, require
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint, run_directory
from mien.storage.run_directory import RunDirectory
from mien.training import growing, loop
from mien.training.find_run import RunLocation, cut_before, find_run, fine_tuned
from mien.training.loop import BatchSource
from mien.training.parent import Adopted, adopt, read_parent
from mien.training.resolve import ResolvedRun, resolve_run
from mien.training.run_options import RunOptions
from mien.training.signals import handled, stop_now
from mien.training.train_state import TrainState, evaluating
from mien.training.trained_run import TrainedRun

GRID_SEEDS = range(64)


def train(
    preset: str | Run = "quick",
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str = "auto",
    scale: float = 1.0,
    parent: str | Path | None = None,
    **changes: Unpack[RunOptions],
) -> TrainedRun:
    """Train a generator. The result has `.sampler()`, `.scores` and `.report`, and stands wherever a path does.

    `parent` names a model whose weights the run starts with: a run, a checkpoint, a file, `hf://OWNER/NAME`, or a bundled model.

    `scale` multiplies the compute per image of the preset's networks: widths follow. `changes` set other fields by name:
    `train("quick", minutes=2)`; dotted names go in a mapping: `**{"recipe.lr": 1e-3}`.
    The same call again resumes, as on the command line.
    """
    if isinstance(preset, Run):
        run, code = keep_changes(preset, presets.PRESETS.get(preset.preset, preset)), None
    else:
        run, code = presets.find(preset)
    sized = run if scale == 1.0 else scale_run(run, scale)
    changed = override(sized, changes)
    warn(changed, changes)
    return TrainedRun(execute(changed, code, data, out, resume, parent, changes))


def warn(run: Run, changes: Iterable[str]) -> None:
    """Print a line for each changed field that has no effect in this run."""
    for line in without_effect(run, changes) if not distributed.rank() else ():
        print(f"mien: {line}", file=sys.stderr)


def execute(
    run: Run,
    code: Code | None,
    data: str | Path | None,
    out: str | Path | None,
    resume: str,
    parent: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Train one run to its end. Raises MienError; the state is saved first, if training had begun.

    `parent` is the model of --from, and `changes` are the fields that the user set, which win over the parent's.
    """
    require(run.track)
    with ExitStack() as stack:
        stack.enter_context(handled(stop_now))
        kind = DeviceContext.choose(run.device, run.precision).device.type
        if kind == "cpu":
            stack.enter_context(freed_memory_kept())
        world = stack.enter_context(distributed.world(kind))
        check_source(data)
        ancestor = read_parent(parent) if parent is not None else None
        if ancestor is None:
            run = fine_tuned(run, out, resume, changes or {})
        data = cut_before(data, out, resume)
        plan = resolve_run(run, code, data, world, ancestor, changes)
        run = plan.run  # as the rules have set it
        if run.threads:
            torch.set_num_threads(run.threads)  # before env.json records them
        # Before a directory is made: a network that cannot be built, or a parent that does not fit, leaves no dead run.
        state = plan.initial_state(world)
        adopted = adopt(state, ancestor) if ancestor is not None else None
        extractor = make_extractor(plan, world)
        location = distributed.broadcast(find_run(plan, out, resume) if world.first else None)
        if location is None:
            raise DataError("The run could not be set up.", "Rank 0 failed.", "Read its message.")
        home = RunDirectory(location.path)
        if world.first:
            stack.enter_context(home.locked())
        if location.finished:
            reason = home.status.get("reason")
            how = f"it {reason}; use a larger --patience, or 0," if reason else "use more --images or --minutes"
            if world.first:
                print(f"mien: {home.path} is finished; {how} to continue", file=sys.stderr)
            return home.path
        start = distributed.broadcast(open_run(plan, home, location, world) if world.first else None)
        if start is None and run.parent:
            start = first_checkpoint(plan, home, state, world, adopted)
        if run.conditional and not state.recipe.model.label_dim and world.first:
            print(
                f"mien: the generator of `{run.preset}` is not label-conditional: `mien sample --label` will not work",
                file=sys.stderr,
            )
        observers = compose(plan, home, start, state) if world.first else []
        evaluator = None
        if extractor is not None:
            evaluator = OnlineEvaluator(home, plan.run, plan.pack, plan.header, plan.context, extractor)
            observers += [evaluator] if world.first else []
        elif run.keep_best == CONVERGENCE and world.first:
            observers.append(BestByConvergence(home, plan.run))

        def batches(position: int) -> BatchSource:
            return Loader(
                plan.pack, batch=run.batch, seed=run.seed, rank=world.rank, world=world.size,
                flip=run.flip, random_crop=run.random_crop, channels=run.channels,
                position=position, threads=run.loader_threads,
            )  # fmt: skip

        try:
            loop.train(run, home, state, batches, observers, plan.header, start, evaluator)
        except (MienError, Interrupted) as error:
            if world.first:
                home.update_status(reason=error.what, exit_code=error.exit_code)
            raise
    return home.path


def first_checkpoint(
    plan: ResolvedRun, home: RunDirectory, state: TrainState, world: World, adopted: Adopted | None
) -> Path:
    """Grow what the state has of its parent, and save it before the first step, so that resuming needs no parent.

    Raises DataError if the run was stopped before it had them, and --from is not given.
    """
    if plan.parent is None or adopted is None:
        raise DataError(
            f"{home.path} has no checkpoint yet, and its parent's weights are needed.",
            "It starts with the weights of another model.",
            "Repeat the command with --from.",
        )
    error = None
    if plan.parent.side not in (0, plan.pack.side):
        loader = Loader(  # the same on all ranks: a model may take means over them
            plan.pack, batch=growing.BATCH, seed=plan.run.seed, flip=plan.run.flip, channels=plan.run.channels
        )
        if world.first:
            what = f"{growing.STEPS} steps first, in which new layers learn to imitate {plan.parent.side} px enlarged"
            print(f"mien: {what}", file=sys.stderr, flush=True)
        try:
            error = growing.imitate(state, plan.run, plan.faces, loader, plan.parent.networks, plan.parent.side)
        finally:
            loader.close()
        give_back_freed()  # imitation takes a whole batch at once
    distributed.broadcast_module(state.recipe)
    if not world.first:
        return distributed.broadcast(None)  # type: ignore[no-any-return]
    grown = [] if error is None else [f"new layers imitate {plan.parent.side} px enlarged: mean error {error:.3f} of 2"]
    for line in (f"from {plan.parent.name} ({plan.parent.hash[:12]})", *adopted.lines(), *grown):
        print(f"mien: {line}", file=sys.stderr)
        home.log(line)
    prints = {"run": plan.header["run_fingerprint"], "data": plan.pack.fingerprint}
    saved = checkpoint.commit(home.checkpoints, state.snapshot(plan.header), prints, plan.run.keep)
    return distributed.broadcast(saved)  # type: ignore[no-any-return]


def make_extractor(plan: ResolvedRun, world: World) -> Extractor | None:
    """The feature extractor of a run with evaluation. Rank 0 downloads its weights; the others wait."""
    if not plan.run.evaluate_every:
        return None
    if not world.first:
        distributed.barrier()
    extractor = prepare(plan.run, plan.pack, plan.faces, plan.context.device.type)
    if world.first:
        distributed.barrier()
    return extractor


def open_run(plan: ResolvedRun, home: RunDirectory, location: RunLocation, world: World) -> Path | None:
    """Write the files that describe the run, and clean up after a killed process. Returns the checkpoint to resume from."""
    home.clean()
    checkpoint.clean(home.checkpoints)
    start = location.checkpoint
    if start is not None:
        for newer in checkpoint.all_of(home.checkpoints):
            if int(newer.name) > int(start.name):
                newer.rename(newer.with_name(f"superseded-{newer.name}-{time.time_ns():x}"))
    else:
        start, reports = checkpoint.newest(home.checkpoints)
        for line in reports:
            print(f"mien: {line}", file=sys.stderr)
            home.log(line)
    if start is not None:
        checkpoint.point_latest(start)
    run_json = {
        "format": 1,
        "command": " ".join(sys.argv[1:]),
        "fingerprint": fingerprint(plan.identity),
        "identity": plan.identity,
        **to_json(plan.run),
    }
    environment = run_directory.environment(
        plan.context.device.type, plan.context.precision, torch.get_num_threads(), world.size
    )
    old = run_directory.read_json(home.path / "env.json")
    if old is not None and start is not None and (changed := differences(old, environment)):
        print(f"mien: the environment changed, so resuming is not bit-exact: {'; '.join(changed)}", file=sys.stderr)
        home.log(f"environment changed: {'; '.join(changed)}")
    labels = list(plan.pack.label_names)
    data = {
        "name": plan.source,
        "fingerprint": plan.pack.fingerprint,
        "count": len(plan.pack),
        "side": plan.pack.side,
        "labels": labels,
        **({"photographs": plan.photographs} if plan.photographs else {}),
    }
    home.write_json("env.json", environment)
    home.write_json("data.json", data)
    home.write_json("run.json", run_json)
    seen = int(start.name) if start else 0
    home.cut_metrics(seen)
    update_best(plan.run, home)
    resumes = home.status["resumes"] + (0 if location.new else 1)
    seconds = home.status["seconds"] if start else 0.0
    home.update_status(
        state="running", seen=seen, started_from=seen, seconds=seconds, resumes=resumes, reason="", exit_code=None
    )
    word = f"resuming {home.path} at {seen:,} images" if start else f"starting {home.path}"
    print(
        f"mien: {word} ({plan.run.preset}, {plan.context.device.type}, {plan.context.precision})",
        file=sys.stderr,
        flush=True,
    )
    home.log(word)
    return start


def compose(plan: ResolvedRun, home: RunDirectory, start: Path | None, state: TrainState) -> list[Observer]:
    """The observers of a run: metrics, progress line, sample grids, health checks, TensorBoard, report.

    Of a run that begins, the first grid is drawn here, before it learns: somebody waits for a picture.
    """

    def draw(model: Model) -> torch.Tensor:
        return Sampler(model, plan.header, plan.context, "").sample(GRID_SEEDS)

    faces, labels = plan.known_faces(MEASURED)

    def reconstruct_with(model: Model) -> Reconstructed | None:
        return reconstruct(Sampler(model, plan.header, plan.context, ""), faces, labels)

    recipe = {"preset": plan.run.preset, "seeds": [GRID_SEEDS[0], GRID_SEEDS[-1]], "synthetic": True}
    seen = int(start.name) if start else 0
    line, grids = ProgressLine(), SampleGrids(home.path, draw=draw, recipe=recipe, titles=plan.titles(GRID_SEEDS))
    if not seen and (plan.parent is not None or not plan.run.parent):  # else it goes on from its parent's checkpoint
        with evaluating(state.inference_model) as model:
            grids.begin(model)
    return [
        MetricsLog(home),
        line,
        grids,
        HealthCheck(home.path, lambda: grids.faces, RealFaces(plan.pack), to_json(plan.run), seen, line.say),
        Reconstructions(home.path, faces, reconstruct_with, recipe={"preset": plan.run.preset, "synthetic": False}),
        TensorBoard(home.path, purge_step=seen),
        ExitStatus(home),
        Report(home.path, film=plan.run.film),
        *tracking(plan, home),  # last: at the end it may wait for its server
    ]


def tracking(plan: ResolvedRun, home: RunDirectory) -> list[Tracking]:
    """The observer for --track, if there is one. It learns what the run is, and neither names nor paths of its data."""
    if plan.run.track is None:
        return []
    data = {"fingerprint": plan.pack.fingerprint, "count": len(plan.pack), "side": plan.pack.side}
    return [Tracking(home.path, plan.run.track, {**to_json(plan.run), "data": data})]


class ExitStatus(Observer):
    """Writes the outcome of a run into status.json."""

    CODES: Mapping[str, int] = {"done": 0, "preempted": 75, "interrupted": 130, "diverged": 5, "failed": 1}

    def __init__(self, home: RunDirectory) -> None:
        self.home = home

    def close(self, outcome: str) -> None:
        self.home.update_status(state=outcome, exit_code=self.CODES[outcome])
        self.home.log(f"ended: {outcome}")
