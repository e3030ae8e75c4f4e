"""`mien presets`: the named Runs."""

from __future__ import annotations

from typing import Any

from mien import presets as known
from mien.answer import Answer, readable
from mien.run import to_json


def presets(name: str | None = None, /) -> Answer:
    """List the presets, or show one with every knob.

    A preset says its sources and what it keeps of its original. Examples:

        mien presets
        mien presets torch-gan-2015

    Parameters
    ----------
    name
        A preset, or file.py:name for one of your own.
    """
    if name is None:
        width = max(map(len, known.PRESETS))
        lines = [f"{run.preset:<{width}}  {run.story}" for run in known.PRESETS.values()]
        rows: list[Any] = [{"name": run.preset, "story": run.story, "side": run.side} for run in known.PRESETS.values()]
        return Answer("\n".join(lines), rows)
    run, _ = known.find(name)
    config = {key: value for key, value in to_json(run).items() if key not in ("story", "notes")}
    notes = "\n".join(f"- {note}" for note in run.notes)
    return Answer(
        f"{run.preset}: {run.story}\n\n{readable(config)}\n\n{notes}".rstrip(), {"name": run.preset, **to_json(run)}
    )
