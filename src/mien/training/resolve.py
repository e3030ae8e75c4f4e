"""A run with its data and its device: everything decided before the first step, and what that amounts to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

import torch

from mien.core import distributed
from mien.core.contracts import JSON, ImageSpec
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import Run, fingerprint, identity, override, to_json
from mien.data import open_data
from mien.data.loader import Loader, to_tensor
from mien.data.pack import Pack
from mien.errors import DataError, DeviceError, UsageError
from mien.presets import Code
from mien.presets.defaults import RunContext, ruled, rulings
from mien.training.ema import EMA
from mien.training.profile import measure
from mien.training.train_state import TrainState

FEW = 500  # examples of yes or of no, under which a label is hard to learn
LABEL_ROWS = 4096  # how many rows of training labels a conditional model carries


@dataclass(frozen=True)
class ResolvedRun:
    """A run with its data and its place: everything decided before the first step."""

    run: Run
    pack: Pack
    engine: DeviceContext
    code: Code | None
    source: str  # what --data said

    @property
    def faces(self) -> ImageSpec:
        """The images of the pack, and its labels where the run is told them."""
        label_dim = len(self.pack.label_names) if self.run.conditional else 0
        return ImageSpec(side=self.pack.side, channels=self.run.channels, label_dim=label_dim)

    @property
    def circumstances(self) -> RunContext:
        """What rules look at."""
        return RunContext(len(self.pack.rows("train")), self.pack.side, self.engine.device.type)

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
        images = to_tensor(self.pack.images[rows], channels=self.run.channels)
        told = self.pack.labels if self.faces.label_dim else None
        return images, None if told is None else torch.from_numpy(told[rows])

    def learner(self, world: World) -> TrainState:
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
        distributed.broadcast_module(recipe)
        average = EMA(recipe.model, self.run.average) if self.run.average else None
        return TrainState(recipe, average, self.engine, world, self.run.seed)


def resolve_run(run: Run, code: Code | None, data: str | Path | None, world: World) -> ResolvedRun:
    """Open the data and resolve what depends on it. The first process prepares what has to be prepared."""
    engine = DeviceContext.choose(run.device, run.precision, world.local_rank)
    if not world.first:
        distributed.barrier()
    pack = open_data(data, run.side)
    if world.first:
        distributed.barrier()
    if pack.side != run.side:
        if world.first:
            print(
                f"mien: the pack is {pack.side} px, and so is this run (the preset's {run.side} px gives way)",
                file=sys.stderr,
            )
        run = override(run, {"side": pack.side})
    if run.conditional and not pack.label_names:
        raise DataError(
            f"{data or 'The data'} has no labels.", f"`{run.preset}` is told them.", "Prepare a pack with --labels."
        )
    if run.conditional and world.first:
        for line in scarce(pack):
            print(f"mien: {line}", file=sys.stderr)
    plan = ResolvedRun(run, pack, engine, code, str(data) if data else "drawn")
    return replace(plan, run=ruled(run, plan.circumstances))


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


def describe(plan: ResolvedRun) -> JSON:
    """The resolved run with the parameters of each network, what rules say of it, and a measured estimate: --dry-run."""
    learner = plan.learner(World())
    networks = {"model": plan_count(learner.recipe.model)}
    for name, child in learner.recipe.named_children():
        if name != "model" and (count := plan_count(child)):
            networks[name] = count
    run = {**to_json(plan.run), "precision": plan.engine.precision, "device": plan.engine.device.type}
    del learner
    return {
        "run": run,
        "parameters": networks,
        "data": {"count": len(plan.pack), "fingerprint": plan.pack.fingerprint},
        "rules": [ruling.told for ruling in rulings(plan.run, plan.circumstances)],
        "estimate": estimated(plan),
    }


def estimated(plan: ResolvedRun) -> JSON:
    """Time, memory and disk of the whole run, from a few of its steps."""
    run, rows = plan.run, len(plan.pack.rows("train"))

    def batches(count: int) -> Loader:
        return Loader(
            plan.pack, batch=count, seed=run.seed, flip=run.flip, random_crop=run.random_crop,
            channels=run.channels, threads=run.loader_threads,
        )  # fmt: skip

    threads = torch.get_num_threads()
    if run.threads:
        torch.set_num_threads(run.threads)
    try:
        found = measure(lambda: plan.learner(World()), batches, run.batch)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "The device has too little memory for this run.",
            str(error).splitlines()[0],
            "Lower --batch or --side.",
        ) from error
    finally:
        torch.set_num_threads(threads)
    images = run.images if run.minutes is None else round(60.0 * run.minutes * found.images_per_second)
    return {
        **found.told,
        "images": images,
        "seconds": round(found.seconds(images), 1),
        "passes": round(images / max(1, rows), 2),
        "disk": found.checkpoint * (run.keep + (1 if run.evaluate_every else 0)),
    }


def plan_count(module: torch.nn.Module) -> int:
    """The number of trained parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters())
