"""What `mien train --dry-run` says: the run that would be, what rules say of it, and what it would cost, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from mien.cli.result import readable
from mien.core.contracts import JSON

WIDTH = 100  # characters a line


def planned(plan: JSON) -> str:
    """A plan of `mien.training.resolve.describe` for a reader."""
    resolved = readable({name: plan[name] for name in ("run", "parameters", "data")})
    return "\n".join([resolved, "rules", *rules(plan["rules"]), "estimate", *estimate(plan["run"], plan["estimate"])])


def rules(found: list[JSON]) -> Iterator[str]:
    """What the run does, what the rule says, and why."""
    for ruling in found:
        knob, stands, says = ruling["knob"], ruling["value"], ruling["rule"]
        if ruling["decided_by"] == "rule":
            told = f"{knob} {stands}, by rule"
        elif stands == says:
            told = f"{knob} {stands}, as the rule says"
        else:
            told = f"{knob} {stands}, as the preset or you say; the rule says {says}"
        yield f"  {told}"
        yield from wrap(ruling["reason"], WIDTH, initial_indent="    ", subsequent_indent="    ")


def estimate(run: JSON, told: JSON) -> Iterator[str]:
    """Speed, time, memory and disk."""
    speed, images = told["images_per_second"], told["images"]
    yield f"  {speed:,} images a second, measured on {told['steps']} steps of {told['batch']} images here"
    if told["batch"] != run["batch"]:
        yield f"    a full batch of {run['batch']} would have taken too long to try, and needs more memory than this did"
    if told["share"] < 0.9:
        alone = f"alone it would make about {speed / max(told['share'], 0.01):,.0f}"
        yield f"    other programs were at work, and this one had {100 * told['share']:.0f}% of its processors: {alone}"
    if run["minutes"] is None:
        yield f"  {images:,} images: {lasting(told['seconds'])}, {told['passes']:,} passes over the data"
    else:
        yield f"  {run['minutes']:g} minutes: about {images:,} images, {told['passes']:,} passes over the data"
    yield "    drawing, saving and evaluating come on top: a few per cent, evaluations as often as they are asked for"
    where = "of the GPU's memory" if run["device"] == "cuda" else "of memory"
    if told["memory"]:
        yield f"  {size(told['memory'])} {where} at most, {size(told['grown'])} of it for networks, optimizers and steps"
    yield f"  {size(told['checkpoint'])} a checkpoint, {size(told['disk'])} of disk for those that stay"


def lasting(seconds: float) -> str:
    """A time in the units that one would say it in."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def size(count: int) -> str:
    """Bytes as MB or GB."""
    return (
        f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
    )
