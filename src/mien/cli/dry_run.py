"""What `mien train --dry-run` prints: data, time, memory and what the rules decided; then the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from mien.cli.flags import plain
from mien.cli.result import readable
from mien.core.contracts import JSON

WIDTH = 100  # characters a line


def dry_run_text(description: JSON) -> str:
    """A description of `mien.training.resolve.describe` for a reader: the answer first."""
    run, estimate = description["run"], description["estimate"]
    lines = [
        *answer(run, description["data"], description["parameters"], estimate),
        *(f"From     {line}" for line in description.get("parent", {}).get("adopted", ())),
        "",
        "Rules",
        *rule_lines(description["rules"]),
        "",
        "How it was measured",
        *measurement(run, estimate),
        "",
        "The whole run",
        readable(run, "  "),
    ]
    return "\n".join(lines)


def answer(run: JSON, data: JSON, parameters: JSON, estimate: JSON) -> Iterator[str]:
    """Data, time, memory, disk and size of the networks, a line each."""
    side, images, passes = run["side"], estimate["images"], estimate["passes"]
    yield f"Data     {data['count']:,} images of {side}x{side} px"
    if run["minutes"] is None:
        yield f"Time     {duration(estimate['seconds'])} for {images:,} images, {passes:,} passes over the data"
    else:
        yield f"Time     {run['minutes']:g} minutes: about {images:,} images, {passes:,} passes over the data"
    if estimate["memory"]:
        where = "of GPU memory" if run["device"] == "cuda" else "of memory"
        yield f"Memory   {size(estimate['memory'])} {where}, {size(estimate['grown'])} of it for networks, optimizers and steps"
    yield f"Disk     {size(estimate['disk'])} for checkpoints of {size(estimate['checkpoint'])} each"
    counts = ", ".join(f"{name} {count:,}" for name, count in parameters.items())
    yield f"Networks parameters: {counts}"
    yield f"Device   {run['device']}, {run['precision']}"


def rule_lines(rules: list[JSON]) -> Iterator[str]:
    """The value of each field that has a rule, who set it, and the reason of the rule."""
    for rule in rules:
        field, value = rule["field"], plain(rule["value"])
        if rule["decided_by"] == "rule":
            line = f"{field} {value}: set by the rule"
        elif rule["value"] == rule["rule"]:
            line = f"{field} {value}: set by the preset or a flag, as the rule would"
        else:
            line = f"{field} {value}: set by the preset or a flag; the rule would set {plain(rule['rule'])}"
        yield f"  {line}"
        yield from wrap(rule["reason"], WIDTH, initial_indent="    ", subsequent_indent="    ")


def measurement(run: JSON, estimate: JSON) -> Iterator[str]:
    """How time and memory were measured, and what they leave out."""
    speed = estimate["images_per_second"]
    yield f"  {speed:,} images per second, over {estimate['steps']} steps of {estimate['batch']} images on this machine."
    if estimate["batch"] != run["batch"]:
        yield f"  A batch of {run['batch']} would take too long to try, and needs more memory than was measured."
    if estimate["share"] < 0.9:
        alone = f"about {speed / max(estimate['share'], 0.01):,.0f}"
        yield f"  Other programs took {100 - 100 * estimate['share']:.0f}% of the processors; without them it would be {alone}."
    yield "  Sampling and saving add a few per cent; evaluations add their own time."


def duration(seconds: float) -> str:
    """A time in its largest fitting unit."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def size(count: int) -> str:
    """Bytes as MB or GB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
