"""`mien presets`: list the presets by group, show one, or compare two."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch.utils.flop_counter import FlopCounterMode

from mien import presets as known
from mien.cli.flags import plain
from mien.cli.result import Result, readable
from mien.core.contracts import JSON, ImageSpec
from mien.core.run import Run, config_fields, differences, identity, to_json
from mien.errors import MienError

DESCRIPTION = ("story", "notes", "after", "change", "prepare")  # fields that are shown as text above the others


def presets(
    name: str | None = None, /, *, diff: Annotated[tuple[str, str] | None, Parameter(name="--diff")] = None
) -> Result:
    """List the presets by group, with what each costs; show one with every field; or compare two.

    A preset names its sources, and which faults of its original it reproduces. Examples:

        mien presets
        mien presets torch-gan-2015
        mien presets homogan-08                    # what it changes, and the data it needs
        mien presets --diff quick cgan             # two presets side by side

    Parameters
    ----------
    name
        Preset, or FILE.py:NAME for your own.
    diff
        Two presets A B: the fields that differ, side by side.
    """
    if diff is not None:
        return side_by_side(known.find(diff[0])[0], known.find(diff[1])[0])
    if name is None:
        return listing()
    run, _ = known.find(name)
    config = {key: value for key, value in to_json(run).items() if key not in DESCRIPTION}
    cost = cost_text(cost_of(run, flops=True))
    notes = "\n".join(f"- {note}" for note in run.notes)
    parts = [f"{run.preset}: {run.story}", f"Cost: {cost}.", *change(run), readable(config), notes]
    return Result("\n\n".join(parts).rstrip(), {"name": run.preset, **to_json(run)})


def listing() -> Result:
    """All presets by group."""
    width = max(map(len, known.PRESETS))
    lines: list[str] = []
    rows: list[Any] = []
    for title, runs in known.groups().items():
        lines += ["", title]
        for run in runs:
            cost = cost_of(run)
            labels = " Label-conditional." if run.conditional else ""
            lines += [f"  {run.preset:<{width}}  {run.story}.{labels}", f"  {'':<{width}}  {cost_text(cost)}"]
            rows.append({"name": run.preset, "group": title, "story": run.story, "side": run.side, "cost": cost})
    lines += [
        "",
        "Training length is a default: --minutes and --images set it. `mien train PRESET --dry-run` measures time and memory here.",
    ]
    return Result("\n".join(lines[1:]), rows)


def cost_of(run: Run, flops: bool = False) -> JSON:
    """Trained parameters of the model, the default length of training, and with `flops` what an image costs to draw.

    Networks are built without memory; what cannot be counted so is None.
    """
    spec = ImageSpec(side=run.side, label_dim=1 if run.conditional else 0)
    cost: JSON = {"parameters": None, "images": None if run.minutes else run.images, "minutes": run.minutes}
    with suppress(MienError, RuntimeError):
        cost["parameters"] = sum(p.numel() for p in run.model.outline(spec).parameters() if p.requires_grad)
    if flops:
        from torch._subclasses.fake_tensor import FakeTensorMode  # tensors with a shape and no numbers

        cost["flops_per_image"] = None
        with suppress(MienError, RuntimeError), FakeTensorMode(), torch.inference_mode():
            model = run.model.build(spec).eval()
            labels = torch.empty(1, 1) if model.label_dim else None
            with FlopCounterMode(display=False) as counter:
                model.decode(torch.empty(1, *model.latent_shape), labels)
            cost["flops_per_image"] = counter.get_total_flops()
    return cost


def cost_text(cost: JSON) -> str:
    """A cost in one line."""
    length = f"{cost['minutes']:g} minutes" if cost["minutes"] else f"{cost['images']:,} images"
    parts = [f"{length} of training"]
    if cost["parameters"] is not None:
        parts.append(f"{cost['parameters'] / 1e6:.1f} M parameters")
    if cost.get("flops_per_image"):
        parts.append(f"{cost['flops_per_image'] / 1e9:.2g} GFLOP to draw an image")
    return ", ".join(parts)


def side_by_side(a: Run, b: Run) -> Result:
    """The fields in which two presets differ."""
    left, right = ({field.name: field.value for field in config_fields(run)} for run in (a, b))
    names = [name for name in {**left, **right} if left.get(name, "-") != right.get(name, "-")]
    rows = [(name, *(plain(side[name]) if name in side else "-" for side in (left, right))) for name in names]
    for part in ("model", "recipe"):
        kinds = [type(getattr(run, part)).__name__.removesuffix("Config") for run in (a, b)]
        if kinds[0] != kinds[1]:
            rows.insert(0, (part, kinds[0], kinds[1]))
    table = [("", a.preset, b.preset), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {first:<{widths[1]}}  {second}".rstrip() for name, first, second in table]
    data = {name: [first, second] for name, first, second in rows}
    return Result("\n".join(lines if rows else [f"{a.preset} and {b.preset} do not differ."]), data)


def change(run: Run) -> list[str]:
    """What a preset changes against the one before it, as text and as fields, and the commands that prepare its data."""
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
