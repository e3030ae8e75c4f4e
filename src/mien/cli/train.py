"""`mien train`: the flags are the knobs of the preset that the arguments name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mien import presets
from mien.cli.dry_run import planned
from mien.cli.result import Result
from mien.core import distributed
from mien.core.distributed import World
from mien.core.run import config_fields, override, scale_run
from mien.storage.run_directory import RunDirectory
from mien.training.experiment import execute, warn
from mien.training.resolve import describe, resolve_run

#: Shorter words for knobs that are turned often.
SHORT = {"recipe.augment.mode": ("--augment",)}


def command(arguments: list[str]) -> tuple[Callable[..., Result | None], list[str]]:
    """The verb: its flags are the knobs of the preset that the arguments name."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else "quick"
    rest = arguments[1:] if (name == "quick" and arguments[:1] == ["quick"]) or name != "quick" else arguments
    run, code = presets.find(name)
    known = {knob.name: knob for knob in config_fields(run)}

    def function(**given: Any) -> Result | None:
        data, out = given.pop("data", None), given.pop("out", None)
        resume, dry_run = given.pop("resume", "auto"), given.pop("dry_run", False)
        dial = given.pop("dial", 1.0)
        sized = run if dial == 1.0 else scale_run(run, dial)
        changes = {name.replace("__", "."): value for name, value in given.items()}
        changed = override(sized, changes)
        warn(changed, changes)
        if "images" in given and "minutes" not in given:
            changed = override(changed, {"minutes": None})  # --images alone replaces a preset's minutes
        if dry_run:
            plan = describe(resolve_run(changed, code, data, World()))
            return Result(planned(plan), plan)
        path = execute(changed, code, data, out, resume)
        if distributed.rank():
            return None  # the first process speaks for all
        status = RunDirectory(path).status
        return Result(str(path), {"run": str(path), "seen": status["seen"], "state": status["state"]})

    parameters = [
        parameter(
            "data", str | None, None, "--data", "a pack, or a folder or ZIP of photographs; without it, drawn faces"
        ),
        parameter("out", Path | None, None, "--out", "the run's directory; without it, a new numbered one under runs/"),
        parameter("resume", str, "auto", "--resume", "auto, must, never, or the path of a run or checkpoint"),
        parameter(
            "dry_run",
            bool,
            False,
            "--dry-run",
            "print the resolved run, what rules say of it, and an estimate of time and memory from a few steps; then stop",
        ),
        parameter("dial", float, 1.0, "--dial", "cost of an image, in multiples of the preset's: its widths follow"),
        *(
            parameter(
                knob.name.replace(".", "__"),
                knob.hint,
                knob.value,
                (f"--{knob.name.replace('_', '-')}", *SHORT.get(knob.name, ())),
                knob.help,
            )
            for knob in known.values()
        ),
    ]
    function.__name__ = "train"
    function.__doc__ = (
        f"Teach a generator faces with the preset `{run.preset}`: {run.story}.\n\n"
        "The same command again resumes. Examples:\n\n"
        "    mien train --data photos/ --minutes 30\n"
        "    mien train torch-gan-2015 --recipe.balance adaptive-l2\n"
        "    mien train my_model.py:tiny --recipe.lr 1e-3\n"
    )
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function, rest


def parameter(name: str, hint: Any, default: Any, flag: str | tuple[str, ...], help: str) -> inspect.Parameter:
    """One keyword-only parameter of a function whose flags are made from data."""
    annotation = Annotated[hint, Parameter(name=flag, help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
