"""Resolve a run: open its data, choose its device, apply the defaults that depend on both; and --dry-run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import torch

from mien.core import distributed
from mien.core.contracts import JSON, ImageSpec
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import Run, fingerprint, identity, override, to_json
from mien.data import open_data
from mien.data.loader import Loader, to_tensor
from mien.data.open import is_prepared
from mien.data.pack import Pack
from mien.errors import DataError, DeviceError, UsageError
from mien.presets import Code
from mien.presets.defaults import RunContext, apply_defaults, defaults_of
from mien.training.ema import EMA
from mien.training.framing import framed
from mien.training.parent import Parent, adopt, inherit
from mien.training.profile import measure
from mien.training.replicas import threads_for
from mien.training.train_state import TrainState

FEW = 500  # examples; a label with fewer positive or negative ones is hard to learn
LABEL_ROWS = 4096  # rows of training labels that the header of a conditional model contains


@dataclass(frozen=True)
class ResolvedRun:
    """A run with its data and its device: all that is decided before the first step."""

    run: Run
    pack: Pack
    context: DeviceContext
    code: Code | None
    source: str  # the value of --data, or the pack that was made of it
    parent: Parent | None = None  # whose weights a new run starts with
    photographs: str = ""  # the value of --data, where they were cut as the parent's faces are

    @property
    def faces(self) -> ImageSpec:
        """The shape of the pack's images, and of its labels if the run is label-conditional."""
        label_dim = len(self.pack.label_names) if self.run.conditional else 0
        return ImageSpec(side=self.pack.side, channels=self.run.channels, label_dim=label_dim)

    @property
    def run_context(self) -> RunContext:
        """What the defaults depend on."""
        count, device = len(self.pack.rows("train")), self.context.device.type
        jpeg = str(self.pack.meta.get("jpeg", ""))
        return RunContext(count, self.pack.side, device, fine_tuned=bool(self.run.parent), jpeg=jpeg)

    @property
    def identity(self) -> JSON:
        """What must be equal to resume a run. `auto` is resolved, because it differs between machines."""
        resolved = {"precision": self.context.precision, "device": self.context.device.type}
        return {**identity(self.run), **resolved, "data": self.pack.fingerprint}

    @property
    def header(self) -> JSON:
        """The header of model.safetensors: all that sampling needs, and nothing that executes."""
        header: JSON = {
            "format": 1,
            "preset": self.run.preset,
            "config": to_json(self.run.model),
            "recipe": to_json(self.run.recipe),
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
        if self.run.parent:
            header["parent"] = self.run.parent
        if self.run.assisted:
            header["assisted"] = True
        if self.code is not None:
            header["code"] = self.code.header
        return header

    @property
    def framing(self) -> JSON:
        """How the pack's images were cropped, so that another photograph can be cropped the same way."""
        recipe = self.pack.meta.get("recipe", {})
        names = ("crop", "resampler", "eye_distance", "eye_height")
        found = {name: recipe[name] for name in names if recipe.get(name) is not None}
        return {"framing": found} if found else {}

    def known_faces(self, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images of the pack `[count, C, H, W]` in [-1, 1], held-out ones if there are any, and their labels if conditional."""
        held_out = self.pack.rows("holdout")
        rows = (held_out if len(held_out) else self.pack.rows("train"))[:count]
        images = to_tensor(self.pack.images[rows], channels=self.run.channels)
        labels = self.pack.labels if self.faces.label_dim else None
        return images, None if labels is None else torch.from_numpy(labels[rows])

    def titles(self, seeds: Sequence[int]) -> list[str] | None:
        """The labels that each seed draws from those of the pack; None if the run is not label-conditional."""
        if not self.faces.label_dim or self.pack.labels is None:
            return None
        rows, names = self.pack.labels[:LABEL_ROWS], self.pack.label_names
        chosen = [rows[mix(seed) % len(rows)] for seed in seeds]
        return [", ".join(n for n, value in zip(names, row, strict=True) if value > 0.5) or "-" for row in chosen]

    def initial_state(self, world: World) -> TrainState:
        """The state before the first step, a pure function of the run's seed."""
        torch.manual_seed(mix(self.run.seed, 0))
        try:
            model = self.run.model.build(self.faces)
            recipe = self.run.recipe.build(model, self.faces)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(
                f"The networks of `{self.run.preset}` cannot be built with these settings.",
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
                "Change the --model and --recipe flags back.",
            ) from error
        self.context.place(recipe)
        recipe.train()
        recipe.rank, recipe.world = world.rank, world.size
        distributed.broadcast_module(recipe)
        ema = EMA(recipe.model, self.run.ema) if self.run.ema else None
        alone = world.size == 1 and self.context.device.type == "cpu"
        threads = threads_for(recipe, self.run.batch, self.run.side) if alone else 1
        return TrainState(recipe, ema, self.context, world, self.run.seed, threads=threads)


def resolve_run(
    run: Run,
    code: Code | None,
    data: str | Path | None,
    world: World,
    parent: Parent | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ResolvedRun:
    """Open the data and resolve what depends on it. Rank 0 prepares what has to be prepared; the others wait.

    With a parent the run has its networks, and `changes`, the fields that the user set, are set again.
    """
    context = DeviceContext.choose(run.device, run.precision)
    photographs, data = data, distributed.broadcast(reframed(data, run.side, parent) if world.first else None)
    if not world.first:
        distributed.barrier()
    pack = open_data(data, run.side)
    if world.first:
        distributed.barrier()
    if pack.side != run.side:
        if world.first:
            print(
                f"mien: this run has {pack.side} px, the size of the pack, instead of the preset's {run.side} px",
                file=sys.stderr,
            )
        run = override(run, {"side": pack.side})
    if world.first and not is_prepared(photographs):
        for remark in pack.meta.get("remarks", ()):
            print(f"mien: {remark}", file=sys.stderr)
    if run.conditional and not pack.label_names:
        raise DataError(
            f"{data or 'The data'} has no labels.",
            f"`{run.preset}` is label-conditional.",
            "Prepare a pack with --labels.",
        )
    if run.conditional and world.first:
        for line in scarce(pack):
            print(f"mien: {line}", file=sys.stderr)
    if parent is not None:
        run = inherit(run, parent, pack.side, changes or {})
    source, shown = str(data) if data else "drawn", str(photographs) if photographs != data else ""
    plan = ResolvedRun(run, pack, context, code, source, parent, shown)
    return replace(plan, run=apply_defaults(run, plan.run_context))


def reframed(data: str | Path | None, side: int, parent: Parent | None) -> str | Path | None:
    """`data`, or the pack of its photographs that is cut as the parent's faces are."""
    pack = framed(data, side, parent) if parent is not None else None
    return data if pack is None else pack.path


def scarce(pack: Pack) -> list[str]:
    """A line for every label with few positive or few negative examples in the training split."""
    if pack.labels is None:
        return []
    labels = pack.labels[pack.rows()]
    lines = []
    for name, column in zip(pack.label_names, labels.T, strict=True):
        yes, no = int((column > 0.5).sum()), int((column <= 0.5).sum())  # unknown values count as neither
        if min(yes, no) < FEW:
            word, count = ("positive", yes) if yes < no else ("negative", no)
            lines.append(f"the label {name} has {count:,} {word} examples: too few to be learned well")
    return lines


def describe(plan: ResolvedRun) -> JSON:
    """The resolved run, the parameters of each network, the defaults, and a measured estimate: --dry-run."""
    state = plan.initial_state(World())
    networks = {"model": parameter_count(state.recipe.model)}
    for name, child in state.recipe.named_children():
        if name != "model" and (count := parameter_count(child)):
            networks[name] = count
    run = {**to_json(plan.run), "precision": plan.context.precision, "device": plan.context.device.type}
    adopted = list(adopt(state, plan.parent).lines()) if plan.parent else []
    del state
    return {
        **(
            {"parent": {"name": plan.parent.name, "sha256": plan.parent.hash, "adopted": adopted}}
            if plan.parent
            else {}
        ),
        "run": run,
        "parameters": networks,
        "data": {"count": len(plan.pack), "fingerprint": plan.pack.fingerprint},
        "rules": [default.as_json for default in defaults_of(plan.run, plan.run_context)],
        "estimate": estimated(plan),
    }


def estimated(plan: ResolvedRun) -> JSON:
    """Time, memory and disk space of the whole run, measured on a few of its steps."""
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
        found = measure(lambda: plan.initial_state(World()), batches, run.batch)
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
        **found.json,
        "images": images,
        "seconds": round(found.seconds(images), 1),
        "passes": round(images / max(1, rows), 2),
        # the newest, at most one for each power of 4, and the best
        "disk": found.checkpoint * (run.keep + (images.bit_length() + 1) // 2 + (1 if run.evaluate_every else 0)),
    }


def parameter_count(module: torch.nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters())
