"""`mien presets`: the named Runs."""

from __future__ import annotations

from typing import Any

from mien import presets as known
from mien.cli.result import Result, readable
from mien.core.run import Run, differences, identity, to_json

TOLD = ("story", "notes", "after", "change", "prepare")  # said in words above the knobs


def presets(name: str | None = None, /) -> Result:
    """List the presets, or show one with every knob.

    A preset says its sources and what it keeps of its original. Examples:

        mien presets
        mien presets torch-gan-2015
        mien presets homogan-08        # what it changes, and the data it needs

    Parameters
    ----------
    name
        A preset, or file.py:name for one of your own.
    """
    if name is None:
        width = max(map(len, known.PRESETS))
        lines = [f"{run.preset:<{width}}  {run.story}" for run in known.PRESETS.values()]
        rows: list[Any] = [{"name": run.preset, "story": run.story, "side": run.side} for run in known.PRESETS.values()]
        return Result("\n".join(lines), rows)
    run, _ = known.find(name)
    config = {key: value for key, value in to_json(run).items() if key not in TOLD}
    parts = [f"{run.preset}: {run.story}", *change(run), readable(config), "\n".join(f"- {note}" for note in run.notes)]
    return Result("\n\n".join(parts).rstrip(), {"name": run.preset, **to_json(run)})


def change(run: Run) -> list[str]:
    """What a preset changes against the one before it, in words and in knobs, and the commands that prepare its data."""
    parts = []
    if run.change:
        parts.append(
            f"Change against {run.after}: {run.change}." if run.after else f"{run.change[0].upper()}{run.change[1:]}."
        )
    if run.after in known.PRESETS:
        lines = differences(identity(known.PRESETS[run.after]), identity(run))
        parts.append("\n".join(f"  {line}" for line in lines if not line.startswith("preset:")))
    if run.prepare:
        parts.append("\n".join(["Its data:", *(f"  {command}" for command in run.prepare)]))
    return [part for part in parts if part]
