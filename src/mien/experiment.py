"""One experiment from its description to its end: resolve the run, find or make its directory, compose the observers, go."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import torch

from mien import checkpoint, directory, parallel, presets
from mien.average import Average
from mien.core import JSON, Faces, Model, Observer
from mien.data import open_data
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.directory import RunDirectory
from mien.engine import Engine, mix
from mien.errors import DataError, MienError, Mismatch, UsageError
from mien.learner import Learner
from mien.metrics.during import EvaluateDuring, name_best, out_of_patience, prepare
from mien.metrics.features import Extractor
from mien.metrics.glance import RealFaces
from mien.parallel import World
from mien.presets import Code
from mien.report.checkup import HealthCheck
from mien.report.encodings import MEASURED, Look, Reconstructions, look
from mien.report.observers import Report, SampleGrids, TensorBoard
from mien.report.progress import MetricsLog, ProgressLine
from mien.run import Run, differences, fingerprint, from_json, identity, to_json, turn
from mien.sampler import Sampler
from mien.trainer import BatchSource
from mien.trainer import train as learn

RUNS = Path("runs")
GRID_SEEDS = range(64)
FEW = 500  # examples of yes or of no, under which a label is hard to learn
LABEL_ROWS = 4096  # how many rows of training labels a conditional model carries


@dataclass(frozen=True)
class Plan:
    """A run with its data and its place: everything decided before the first step."""

    run: Run
    pack: Pack
    engine: Engine
    code: Code | None
    source: str  # what --data said

    @property
    def faces(self) -> Faces:
        """The images of the pack, and its labels where the run is told them."""
        return Faces(side=self.pack.side, label_dim=len(self.pack.label_names) if self.run.conditional else 0)

    @property
    def identity(self) -> JSON:
        """What must be equal for a run to go on; resolved, since `auto` differs from machine to machine."""
        resolved = {"precision": self.engine.precision, "device": self.engine.device.type}
        return {**identity(self.run), **resolved, "data": self.pack.fingerprint}

    @property
    def header(self) -> JSON:
        """The header of model.safetensors: enough to sample anywhere, and nothing that executes."""
        header: JSON = {
            "format": 1,
            "preset": self.run.preset,
            "config": to_json(self.run.model),
            "faces": to_json(self.faces),
            "data": {"fingerprint": self.pack.fingerprint, "count": len(self.pack), **self.framing},
            "run_fingerprint": fingerprint(self.identity),
        }
        if self.faces.label_dim and self.pack.labels is not None:
            header["labels"] = list(self.pack.label_names)
            rows = self.pack.labels[:LABEL_ROWS].round(4).tolist()
            header["label_rows"] = [
                [None if isnan(value) else value for value in row] for row in rows
            ]  # JSON has no NaN
        if self.code is not None:
            header["code"] = self.code.header
        return header

    @property
    def framing(self) -> JSON:
        """How the pack's pictures were cut, so that another photograph can be cut alike."""
        recipe = self.pack.meta.get("recipe", {})
        names = ("crop", "resampler", "eye_distance", "eye_height")
        told = {name: recipe[name] for name in names if recipe.get(name) is not None}
        return {"framing": told} if told else {}

    def known_faces(self, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Faces of the pack `[count, C, H, W]` in [-1, 1], unseen ones where some are held out, and their labels if told."""
        held_out = self.pack.rows("holdout")
        rows = (held_out if len(held_out) else self.pack.rows("train"))[:count]
        images = torch.from_numpy(self.pack.images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        told = self.pack.labels if self.faces.label_dim else None
        return images, None if told is None else torch.from_numpy(told[rows])

    def learner(self, world: World) -> Learner:
        """The fresh state of the run, a pure function of its seed."""
        torch.manual_seed(mix(self.run.seed, 0))
        try:
            model = self.run.model.build(self.faces)
            recipe = self.run.recipe.build(model, self.faces)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"These knobs of `{self.run.preset}` make no networks.",
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
                "Turn back the --model and --recipe knobs.",
            ) from error
        self.engine.place(recipe)
        recipe.train()
        recipe.rank, recipe.world = world.rank, world.size
        parallel.broadcast_module(recipe)
        average = Average(recipe.model, self.run.average) if self.run.average else None
        return Learner(recipe, average, self.engine, world, self.run.seed)


def train(
    preset: str | Run = "quick",
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str = "auto",
    **changes: Any,
) -> Path:
    """Teach a generator faces, and return the run's directory.

    `changes` turn knobs by name: `train("quick", minutes=2)`; dotted names go in a mapping: `**{"recipe.lr": 1e-3}`.
    Calling it again with the same arguments resumes, as on the command line.
    """
    run, code = (preset, None) if isinstance(preset, Run) else presets.find(preset)
    return execute(turn(run, changes), code, data, out, resume)


def execute(run: Run, code: Code | None, data: str | Path | None, out: str | Path | None, resume: str) -> Path:
    """Run one experiment to its end. Raises MienError with the state saved wherever there is one."""
    with ExitStack() as stack:
        kind = Engine.choose(run.device, run.precision).device.type
        world = stack.enter_context(parallel.world(kind))
        plan = make_plan(run, code, data, world)
        extractor = make_extractor(plan, world)
        place = parallel.agree(find_place(plan, out, resume) if world.first else None)
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
        start = parallel.agree(open_run(plan, home, place) if world.first else None)
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

        def batches(position: int) -> BatchSource:
            return Loader(
                plan.pack, batch=run.batch, seed=run.seed, rank=world.rank, world=world.size,
                flip=run.flip, position=position, threads=run.loader_threads,
            )  # fmt: skip

        try:
            learn(run, home, learner, batches, observers, plan.header, start, judge)
        except MienError as error:
            if world.first:
                home.update_status(reason=error.what, exit_code=error.exit_code)
            raise
    return home.path


def make_plan(run: Run, code: Code | None, data: str | Path | None, world: World) -> Plan:
    """Open the data and resolve what depends on it. The first process prepares what has to be prepared."""
    engine = Engine.choose(run.device, run.precision, world.local_rank)
    if not world.first:
        parallel.barrier()
    pack = open_data(data, run.side)
    if world.first:
        parallel.barrier()
    if pack.side != run.side:
        if world.first:
            print(
                f"mien: the pack is {pack.side} px, and so is this run (the preset's {run.side} px gives way)",
                file=sys.stderr,
            )
        run = turn(run, {"side": pack.side})
    if run.conditional and not pack.label_names:
        raise DataError(
            f"{data or 'The data'} has no labels.", f"`{run.preset}` is told them.", "Prepare a pack with --labels."
        )
    if run.conditional and world.first:
        for line in scarce(pack):
            print(f"mien: {line}", file=sys.stderr)
    return Plan(run, pack, engine, code, str(data) if data else "drawn")


def scarce(pack: Pack) -> list[str]:
    """A line for every label with few examples of yes or of no in what is trained on."""
    if pack.labels is None:
        return []
    labels = pack.labels[pack.rows()]
    lines = []
    for name, column in zip(pack.label_names, labels.T, strict=True):
        yes, no = int((column > 0.5).sum()), int((column <= 0.5).sum())  # what is not known is neither
        if min(yes, no) < FEW:
            word, count = ("yes", yes) if yes < no else ("no", no)
            lines.append(f"the label {name} has {count:,} examples of {word}: too few to be learned well")
    return lines


def make_extractor(plan: Plan, world: World) -> Extractor | None:
    """What looks at the faces of a run that is evaluated. The first process fetches what has to be fetched."""
    if not plan.run.evaluate_every:
        return None
    if not world.first:
        parallel.barrier()
    extractor = prepare(plan.run, plan.pack, plan.faces, plan.engine.device.type)
    if world.first:
        parallel.barrier()
    return extractor


@dataclass(frozen=True)
class Place:
    """Where a run lives, and what stands there already."""

    path: Path
    new: bool
    finished: bool = False
    checkpoint: Path | None = None  # named by the user: never another


def find_place(plan: Plan, out: str | Path | None, resume: str) -> Place:
    """The directory to run in: the one named, the newest unfinished one of the same run, or a new one.

    Raises Mismatch when the one named holds another run, DataError when there is nothing that must be resumed.
    """
    if resume not in ("auto", "must", "never"):
        place = named_place(plan, Path(resume))
        if out is not None and Path(out).resolve() != place.path.resolve():
            raise UsageError(
                f"--resume names {place.path}, --out names {out}.", "A run stays where it is.", "Leave out --out."
            )
        return place
    if out is not None:
        home = RunDirectory(Path(out))
        if home.run_json is None:
            if resume == "must":
                raise DataError(
                    f"{out} holds no run.", "--resume must goes on with one.", "Leave it out to start there."
                )
            return Place(directory.create(home.path).path, new=True)
        if resume == "never":
            raise UsageError(f"{out} holds a run already.", "--resume never starts a new one.", "Choose another --out.")
        return existing_place(plan, home)
    if resume != "never":
        for home in directory.all_runs(RUNS):
            same = home.run_json is not None and known_identity(home.run_json, plan) == plan.identity
            if same and not is_finished(plan.run, home):
                return existing_place(plan, home)
    if resume == "must":
        raise DataError(
            f"No unfinished run of `{plan.run.preset}` with this configuration and data is in {RUNS}/.",
            "--resume must goes on with one.",
            "Leave it out to start one, or name the run with --out.",
        )
    slug = f"{plan.run.preset}-{Path(plan.source).stem}{plan.pack.side}-s{plan.run.seed}"
    return Place(directory.create_numbered(RUNS, slug).path, new=True)


def named_place(plan: Plan, path: Path) -> Place:
    """The place of a run directory or checkpoint that --resume names."""
    path = checkpoint.follow(path)
    is_checkpoint = path.is_dir() and path.resolve().parent.name == "checkpoints"
    home = RunDirectory(path.resolve().parent.parent if is_checkpoint else path)
    if home.run_json is None:
        raise DataError(
            f"{path} is not a run or a checkpoint.",
            "--resume takes either.",
            "Name runs/NAME or runs/NAME/checkpoints/SEEN.",
        )
    place = existing_place(plan, home)
    if not is_checkpoint:
        return place
    checkpoint.read_state(path)  # an explicit path is valid or refused: exit 8
    return Place(place.path, new=False, finished=False, checkpoint=path.resolve())


def existing_place(plan: Plan, home: RunDirectory) -> Place:
    """A directory that holds a run, if it is this run. Raises Mismatch with the differences."""
    known = home.run_json
    assert known is not None
    told = known_identity(known, plan)
    if told != plan.identity:
        lines = differences(told, plan.identity)
        what = (
            "The data has changed"
            if lines == [line for line in lines if line.startswith("data:")]
            else "This is another run"
        )
        raise Mismatch(
            f"{what}: {home.path} holds {told['preset']}.",
            "; ".join(lines[:6]) or "the versions differ",
            "Use the same command and data to resume, or another --out to start anew.",
        )
    return Place(home.path, new=False, finished=is_finished(plan.run, home))


def known_identity(run_json: JSON, plan: Plan) -> JSON:
    """What made the run of a run.json itself, told as this version tells it: a knob that came later stands at its default.

    Without this every new knob would orphan the runs of older versions. A run that cannot be told so keeps its own words.
    """
    stored: JSON = run_json["identity"]
    kinds = {**presets.KINDS, **(presets.kinds_of(plan.code.presets.values()) if plan.code else {})}
    knobs = {name: value for name, value in stored.items() if name != "data"}
    try:
        return {**identity(from_json(Run, knobs, kinds)), "data": stored["data"]}
    except (Mismatch, UsageError, LookupError, TypeError):
        return stored


def is_finished(run: Run, home: RunDirectory) -> bool:
    """Whether a run has reached the goal that is asked for now."""
    status = home.status
    if status["state"] != "done":  # killed while closing, perhaps: the next process writes its report
        return False
    if out_of_patience(run, home):
        return True
    if run.minutes is None:
        found = checkpoint.all_of(home.checkpoints)
        return bool(found) and int(found[0].name) >= run.images
    return bool(status["seconds"] >= run.minutes * 60.0)


def open_run(plan: Plan, home: RunDirectory, place: Place) -> Path | None:
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
    environment = directory.environment(plan.engine.device.type, plan.engine.precision, torch.get_num_threads())
    old = directory.read_json(home.path / "env.json")
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


def compose(plan: Plan, home: RunDirectory, start: Path | None) -> list[Observer]:
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
        Report(home.path),
    ]


def titles(plan: Plan) -> list[str] | None:
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


def describe(plan: Plan) -> JSON:
    """The resolved run with the parameters of each network: what --dry-run shows."""
    learner = plan.learner(World())
    networks = {"model": plan_count(learner.recipe.model)}
    for name, child in learner.recipe.named_children():
        if name != "model" and (count := plan_count(child)):
            networks[name] = count
    run = {**to_json(plan.run), "precision": plan.engine.precision, "device": plan.engine.device.type}
    return {"run": run, "parameters": networks, "data": {"count": len(plan.pack), "fingerprint": plan.pack.fingerprint}}


def plan_count(module: torch.nn.Module) -> int:
    """The number of trained parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters())
