"""`mien train`: the flags are the fields of the preset that the arguments name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from mien import presets
from mien.cli.dry_run import dry_run_text
from mien.cli.result import Result
from mien.core import distributed
from mien.core.distributed import World
from mien.core.run import ConfigField, Run, config_fields, override, scale_run
from mien.errors import UsageError
from mien.storage.run_directory import RunDirectory
from mien.training.experiment import execute, warn
from mien.training.parent import read_parent
from mien.training.resolve import describe, resolve_run

#: Shorter names for fields that are set often.
SHORT = {"recipe.augment.mode": ("--augment",)}

#: The help shows these first, in this order; fields of the run beside flags of the verb.
FIRST = ("preset", "data", "minutes", "images", "out", "scale", "parent", "seed", "device", "dry_run", "resume")

#: Then the other fields of the run by what they are about, and the parts of the recipe and the model.
GROUPS: dict[str, tuple[str, ...]] = {
    "Training": (
        "side",
        "batch",
        "flip",
        "random_crop",
        "channels",
        "conditional",
        "precision",
        "threads",
        "loader_threads",
    ),
    "Saving and logging": ("save_every", "keep", "sample_every", "log_every", "film", "track"),
    "Evaluation": (
        *("evaluate_every", "evaluate_metrics", "evaluate_samples", "evaluate_extractor"),
        *("keep_best", "patience"),
    ),
    "Moving average of the weights": ("ema",),
    "Model": ("model",),
    "Recipe": ("recipe",),
}
MAIN = Group("Main flags", sort_key=0)
TITLED = {title: Group(title, sort_key=place) for place, title in enumerate(GROUPS, 1)}


def group_of(name: str) -> Group:
    """The help group of a run's field."""
    if name in FIRST:
        return MAIN
    part = name.partition(".")[0]
    return TITLED[next((title for title, names in GROUPS.items() if part in names), "Training")]


def command(arguments: list[str]) -> tuple[Callable[..., Result | None], list[str]]:
    """The verb: its flags are the fields of the preset that the arguments begin with, or of `quick`."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else "quick"
    run, code = presets.find(name)

    def function(preset: str = "quick", /, **values: Any) -> Result | None:
        if preset != name:
            raise UsageError(
                f"PRESET must come first: `{preset}` stands behind flags.",
                "The flags of `mien train` depend on the preset.",
                f"Write mien train {preset} ...",
            )
        data, out = values.pop("data", None), values.pop("out", None)
        resume, dry_run = values.pop("resume", "auto"), values.pop("dry_run", False)
        scale, parent = values.pop("scale", 1.0), values.pop("parent", None)
        sized = run if scale == 1.0 else scale_run(run, scale)
        changes = {name.replace("__", "."): value for name, value in values.items()}
        changed = override(sized, changes)
        warn(changed, changes)
        if dry_run:
            ancestor = read_parent(parent) if parent is not None else None
            description = describe(resolve_run(changed, code, data, World(), ancestor, changes))
            return Result(dry_run_text(description), description)
        path = execute(changed, code, data, out, resume, parent, changes)
        if distributed.rank():
            return None  # only the first process prints
        status = RunDirectory(path).status
        return Result(str(path), {"run": str(path), "seen": status["seen"], "state": status["state"]})

    function.__name__ = "train"
    function.__doc__ = (
        f"Train a generator of faces with the preset `{run.preset}`: {run.story}.\n\n"
        "The same command again resumes. Examples:\n\n"
        "    mien train --data photos/ --minutes 30\n"
        "    mien train gan --data fifty/ --from runs/00007-gan    # fine-tuning\n"
        "    mien train torch-gan-2015 --recipe.balance adaptive-l2\n"
        "    mien train my_model.py:tiny --recipe.lr 1e-3\n"
    )
    flags = parameters(run)
    function.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    function.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return function, arguments


def parameters(run: Run) -> list[inspect.Parameter]:
    """The flags in the order of the help: the main ones, then the fields of the run by group."""
    preset = Annotated[
        str, Parameter(name="PRESET", help="preset, or FILE.py:NAME for your own; comes first", group=MAIN)
    ]
    data = "pack, or folder or ZIP of photographs; without it, built-in drawn faces"
    out = "directory of the run; without it, a new numbered one under runs/"
    scale = "cost of an image relative to the preset's; widths follow"
    origin = "start with the weights of this model: a run, checkpoint, file, hf://OWNER/NAME, or a bundled model"
    dry = "print data, time, memory and what the rules decide, measured on a few steps; train nothing"
    resume = "auto, must, never, or the path of a run or checkpoint"
    verb = {
        "data": parameter("data", str | None, None, ("--data",), data, MAIN),
        "out": parameter("out", Path | None, None, ("--out",), out, MAIN),
        "scale": parameter("scale", float, 1.0, ("--scale",), scale, MAIN),
        "parent": parameter("parent", str | None, None, ("--from",), origin, MAIN),
        "dry_run": parameter("dry_run", bool, False, ("--dry-run",), dry, MAIN),
        "resume": parameter("resume", str, "auto", ("--resume",), resume, MAIN),
    }
    fields = {field.name: field_parameter(field) for field in config_fields(run)}
    known = {**verb, **fields}
    first = [known[name] for name in FIRST if name in known]
    rest = [flag for name, flag in fields.items() if name not in FIRST]
    positional = inspect.Parameter("preset", inspect.Parameter.POSITIONAL_ONLY, default="quick", annotation=preset)
    return [positional, *first, *rest]


def field_parameter(field: ConfigField) -> inspect.Parameter:
    """The flag of a run's field."""
    names = (f"--{field.name.replace('_', '-')}", *SHORT.get(field.name, ()))
    return parameter(field.name.replace(".", "__"), field.hint, field.value, names, field.help, group_of(field.name))


def parameter(name: str, hint: Any, default: Any, names: tuple[str, ...], help: str, group: Group) -> inspect.Parameter:
    """One keyword-only parameter of a function whose flags are made from data."""
    negative = "no-" if hint is bool and default is not False else ()
    annotation = Annotated[hint, Parameter(name=names, help=help, group=group, negative_bool=negative)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
