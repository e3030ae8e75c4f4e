"""Find the directory of a run: the one given with --out, the newest unfinished one of the same run, or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mien import presets
from mien.core.contracts import JSON
from mien.core.run import NOT_IDENTITY, Run, differences, from_json, identity, override
from mien.data.open import is_cached
from mien.errors import DataError, MienError, Mismatch, UsageError
from mien.metrics.online import out_of_patience
from mien.storage import checkpoint, run_directory
from mien.storage.run_directory import RunDirectory
from mien.training.resolve import ResolvedRun

RUNS = Path("runs")


@dataclass(frozen=True)
class RunLocation:
    """The directory of a run, and what is there already."""

    path: Path
    new: bool
    finished: bool = False
    checkpoint: Path | None = None  # given by the user: no other may be used


def find_run(plan: ResolvedRun, out: str | Path | None, resume: str) -> RunLocation:
    """The directory to train in: the one given, the newest unfinished one of the same run, or a new one.

    Raises Mismatch if the one given contains another run, DataError if --resume must finds nothing to resume.
    """
    if resume not in ("auto", "must", "never"):
        place = named_run(plan, Path(resume))
        if out is not None and Path(out).resolve() != place.path.resolve():
            raise UsageError(
                f"--resume is {place.path}, but --out is {out}.", "A run cannot be moved.", "Leave out --out."
            )
        return place
    if out is not None:
        home = RunDirectory(Path(out))
        if home.run_json is None:
            if resume == "must":
                raise DataError(
                    f"{out} contains no run.",
                    "--resume must continues an existing one.",
                    "Leave it out to start there.",
                )
            return RunLocation(run_directory.create(home.path).path, new=True)
        if resume == "never":
            raise UsageError(
                f"{out} contains a run already.", "--resume never starts a new one.", "Choose another --out."
            )
        return existing_run(plan, home)
    if resume != "never":
        for home in run_directory.all_runs(RUNS):
            same = home.run_json is not None and known_identity(home.run_json, plan) == plan.identity
            if same and not is_finished(plan.run, home):
                return existing_run(plan, home)
    if resume == "must":
        raise DataError(
            f"No unfinished run of `{plan.run.preset}` with this configuration and data is in {RUNS}/.",
            "--resume must continues an existing run.",
            "Leave it out to start one, or give the run with --out.",
        )
    slug = f"{plan.run.preset}-{Path(plan.photographs or plan.source).stem}{plan.pack.side}-s{plan.run.seed}"
    return RunLocation(run_directory.create_numbered(RUNS, slug).path, new=True)


def named_run(plan: ResolvedRun, path: Path) -> RunLocation:
    """The run directory or checkpoint given with --resume."""
    path = checkpoint.follow(path)
    is_checkpoint = path.is_dir() and path.resolve().parent.name == "checkpoints"
    home = RunDirectory(path.resolve().parent.parent if is_checkpoint else path)
    if home.run_json is None:
        raise DataError(
            f"{path} is not a run or a checkpoint.",
            "--resume accepts either.",
            "Give runs/NAME or runs/NAME/checkpoints/SEEN.",
        )
    place = existing_run(plan, home)
    if not is_checkpoint:
        return place
    checkpoint.read_state(path)  # a path given explicitly must be valid: exit 8
    return RunLocation(place.path, new=False, finished=False, checkpoint=path.resolve())


def existing_run(plan: ResolvedRun, home: RunDirectory) -> RunLocation:
    """A directory that contains this run. Raises Mismatch with the differences if it contains another."""
    known = home.run_json
    assert known is not None
    stored = known_identity(known, plan)
    if stored != plan.identity:
        lines = differences(stored, plan.identity)
        what = (
            "The data has changed"
            if lines == [line for line in lines if line.startswith("data:")]
            else "This is another run"
        )
        raise Mismatch(
            f"{what}: {home.path} contains `{stored.get('preset', 'no run of mien')}`.",
            "; ".join(lines[:6]) or "the versions differ",
            "Use the same command and data to resume, or another --out to start a new run.",
        )
    return RunLocation(home.path, new=False, finished=is_finished(plan.run, home))


def known_identity(run_json: JSON, plan: ResolvedRun) -> JSON:
    """The identity stored in run.json, in the terms of this version: fields that were added later have their defaults.

    Without this, every new field would make older runs unresumable. An identity that cannot be read so is returned as stored.
    """
    stored = run_json.get("identity")
    if not isinstance(stored, dict):  # not a run of ours
        return {}
    kinds = {**presets.KINDS, **(presets.kinds_of(plan.code.presets.values()) if plan.code else {})}
    fields = {name: value for name, value in stored.items() if name != "data"}
    try:
        return {**identity(from_json(Run, fields, kinds)), "data": stored["data"]}
    except (AttributeError, LookupError, Mismatch, TypeError, UsageError):
        return stored


def is_finished(run: Run, home: RunDirectory) -> bool:
    """Whether a run has reached the present --images or --minutes."""
    status = home.status
    if status["state"] != "done":  # perhaps killed while closing: the next process writes its report
        return False
    if out_of_patience(run, home):
        return True
    if run.minutes is None:
        found = checkpoint.all_of(home.checkpoints)
        return bool(found) and int(found[0].name) >= run.images
    return bool(status["seconds"] >= run.minutes * 60.0)


def fine_tuned(run: Run, out: str | Path | None, resume: str, changes: Mapping[str, Any]) -> Run:
    """The run as run.json describes it, if that run started with a parent's weights and goes on without --from.

    Its checkpoints have all that it took. A field that the user set and that differs is refused later, as in any run.
    """
    home = directory_of(out, resume)
    known = home and home.run_json
    if not known or not known.get("parent") or known.get("preset") != run.preset:
        return run
    names = [part.name for part in fields(Run) if part.name not in NOT_IDENTITY]
    try:
        stored = from_json(Run, {name: known[name] for name in names}, presets.KINDS)
    except (AttributeError, LookupError, MienError, TypeError):
        return run
    return override(replace(run, **{name: getattr(stored, name) for name in names}, by_rule=()), changes)


def cut_before(data: str | Path | None, out: str | Path | None, resume: str) -> str | Path | None:
    """`data`, or the pack in the cache that the run to go on with has made of these photographs."""
    home = directory_of(out, resume)
    known = (home and run_directory.read_json(home.path / "data.json")) or {}
    if data is None or known.get("photographs") != str(data):
        return data
    made = Path(str(known.get("name")))
    return made if is_cached(made) else data


def directory_of(out: str | Path | None, resume: str) -> RunDirectory | None:
    """The run that the user names to go on with, if it is there."""
    path = Path(resume) if resume not in ("auto", "must", "never") else Path(out) if out is not None else None
    homes = (RunDirectory(place) for place in (path, path.parent.parent)) if path else ()
    return next((home for home in homes if home.run_json), None)
