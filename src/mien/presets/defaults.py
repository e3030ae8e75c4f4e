"""Defaults that follow from the data, the image size and the device: batch, regularisation, averaging.

A field that a preset lists in `Run.by_rule` is set by its rule before the run has its identity, so that run.json holds plain
numbers; any other field keeps the preset's value. `mien train --dry-run` shows every rule beside the value of the run.
No rule depends on a run's length: a run that is extended is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mien.core.contracts import JSON
from mien.core.run import Run, config_fields, override
from mien.errors import UsageError

#: Fields that have a rule in runs that start with a parent's weights.
FINE_TUNING = (
    "ema.warmup", "recipe.lr", "recipe.gamma", "recipe.beta2", "recipe.carry_images", "recipe.warmup_images", "recipe.freeze",
)  # fmt: skip
VERY_FEW = 500  # images: with fewer, half of the critic is held
FEW = 3_000  # images: the default length of `gan`, a million, is over 300 passes over them, and augmentation pays from there on


@dataclass(frozen=True)
class RunContext:
    """The inputs of the rules."""

    count: int  # training images
    side: int  # pixels
    device: str  # cpu, cuda or mps
    fine_tuned: bool = False  # the run starts with the weights of a parent
    jpeg: str = ""  # how the files were compressed, in the notation of core/compression.py


@dataclass(frozen=True)
class DefaultRule:
    """One field as a function of the run so far and its context."""

    field: str
    value: Callable[[Run, RunContext], Any]
    reason: str


@dataclass(frozen=True)
class Default:
    """The value that a rule gives for a field of a run, and the value that the run has."""

    field: str
    by_rule: Any
    value: Any
    reason: str
    applied: bool  # whether the run leaves the field to the rule

    @property
    def as_json(self) -> JSON:
        by = "rule" if self.applied else "preset"
        return {"field": self.field, "value": self.value, "rule": self.by_rule, "decided_by": by, "reason": self.reason}


def batch(run: Run, here: RunContext) -> int:
    """16 on a CPU; on a GPU 256 at 64 px and as many pixels at other sides, 16 to 256. At most an eighth of the data."""
    target = 16 if here.device == "cpu" else max(16, min(256, 256 * 64**2 // here.side**2))
    limit = max(2, here.count // 8)
    return target if target <= limit else 1 << (limit.bit_length() - 1)


def half_life(run: Run, here: RunContext) -> int:
    if getattr(run.recipe, "critic", None) is None:
        return 10_000 * run.batch // 32
    return (2_000 if run.conditional else 10_000 if here.fine_tuned else 20_000) * run.batch // 32


def reg_interval(run: Run, here: RunContext) -> int:
    return 4


def reg_fraction(run: Run, here: RunContext) -> float:
    return 0.25 if here.device == "cpu" else 1.0


def augmentation(run: Run, here: RunContext) -> str:
    return "adaptive" if here.count < FEW else "none"


def at_the_end(name: str) -> Callable[[Run, RunContext], Any]:
    """The rule of a scheduled field of the recipe: its value at the end of the schedule."""
    return lambda run, here: getattr(run.recipe, f"{name}_end", getattr(run.recipe, name))


def fine_tuning_rate(run: Run, here: RunContext) -> float:
    """The rate at the end of the schedule, or a tenth of that at its start where the schedule ends near 0."""
    start = float(getattr(run.recipe, "lr", 0.0))
    return max(float(getattr(run.recipe, "lr_end", start)), start / 10)


def warmup_images(run: Run, here: RunContext) -> int:
    """0 for the weight of a KL; a rate warms up again, since its optimizer starts anew."""
    return 0 if hasattr(run.recipe, "kl_weight") else int(getattr(run.recipe, "warmup_images", 0))


def freeze(run: Run, here: RunContext) -> int:
    patch = getattr(getattr(run.recipe, "critic", None), "patch", 0)
    stages = (here.side // patch // 4).bit_length() if patch else 0
    return min(2, stages // 2) if here.count < VERY_FEW else 0


BURNT_IN = "A trained pair of networks needs no burn-in: the schedule starts where it ends."

#: In this order: later rules see the values that earlier ones set.
RULES = (
    DefaultRule(
        "batch",
        batch,
        "A CPU is nearly as fast per image with a small batch, and takes more steps: gan has FID 48 with a batch of 16 and 61 "
        "with 32 after as many images (docs/LOG.md). A GPU needs a large batch. A batch of more than an eighth of the data "
        "repeats itself.",
    ),
    DefaultRule(
        "ema.half_life",
        half_life,
        "An average over a fixed number of steps: 10,000 images at a batch of 32 (the rule of arXiv:2006.06676's code), and twice "
        "that with a critic, where rates do not end near 0 (docs/LOG.md), unless it starts as a parent's, which it would keep for "
        "longer. While few images are seen, ema.warmup shortens it. A tenth with a label-conditional critic: a longer average "
        "makes faces of one label more alike, and FID no better.",
    ),
    DefaultRule(
        "recipe.reg_interval",
        reg_interval,
        "A gradient penalty differentiates twice. Every fourth step, four times as strong, it costs a quarter (lazy "
        "regularization, arXiv:1912.04958, section 3.1, with every sixteenth step).",
    ),
    DefaultRule(
        "recipe.reg_fraction",
        reg_fraction,
        "On a CPU the cost of a penalty grows with its images, and a quarter of the batch estimates it well enough; a quarter of a "
        "batch leaves a GPU idle.",
    ),
    DefaultRule(
        "recipe.augment.mode",
        augmentation,
        f"With under {FEW:,} images a critic overfits (arXiv:2006.06676), and FID rises again: after 1,000 passes over 1,000 "
        "images FID 35.6, with augmentation 22.7. In under 300 passes augmentation only slows training (docs/LOG.md).",
    ),
    DefaultRule(
        "model.jpeg",
        lambda run, here: here.jpeg if run.random_crop == 1.0 else "",  # else blocks lie anywhere
        "Where nearly all files were compressed alike, at about the size of the faces, every face has the marks of it, which no "
        "small generator draws: two fifths of KID on CelebA at half size, six sevenths on FairFace at 128 px (docs/LOG.md). So "
        "what it draws after training is compressed as the files were.",
    ),
    DefaultRule(
        "ema.warmup",
        lambda run, here: 0.0,
        "The average starts as the parent's, so nothing in it has to be forgotten quickly.",
    ),
    DefaultRule(
        "recipe.lr",
        fine_tuning_rate,
        f"{BURNT_IN} Where a schedule ends near 0, a tenth of the rate at its start: with less nothing would be learned.",
    ),
    DefaultRule("recipe.gamma", at_the_end("gamma"), BURNT_IN),
    DefaultRule("recipe.beta2", at_the_end("beta2"), BURNT_IN),
    DefaultRule(
        "recipe.carry_images",
        lambda run, here: 0,
        "A trained BEGAN has no vanishing residuals left: with them it draws noise again.",
    ),
    DefaultRule(
        "recipe.warmup_images", warmup_images, "A trained encoder needs no warm-up of its KL; a rate warms up again."
    ),
    DefaultRule(
        "recipe.freeze",
        freeze,
        f"With under {VERY_FEW} images a critic forgets what its parent knew of edges and textures: its two finest stages are "
        "held (FreezeD, arXiv:2002.10964).",
    ),
)


def defaults_of(run: Run, here: RunContext) -> Iterator[Default]:
    """Every rule that has a field in this run. Raises UsageError if the run lists a field in `by_rule` that has no rule."""
    unknown = sorted(set(run.by_rule) - {rule.field for rule in RULES})
    if unknown:
        raise UsageError(
            f"There is no rule for {', '.join(unknown)}.",
            f"`{run.preset}` lists it in by_rule.",
            f"There are rules for {', '.join(rule.field for rule in RULES)}.",
        )
    for rule in RULES:
        value = next((field.value for field in config_fields(run) if field.name == rule.field), None)
        if value is None or (rule.field in FINE_TUNING and not here.fine_tuned):
            continue
        by_rule, applied = rule.value(run, here), rule.field in run.by_rule
        if by_rule == value == "":
            continue  # it has nothing to say of these data
        if applied:
            run = with_rules(run, {rule.field: by_rule})
        yield Default(rule.field, by_rule, by_rule if applied else value, rule.reason, applied)


def keep_changes(run: Run, preset: Run) -> Run:
    """The run without rules for the fields in which it differs from its preset, as `dataclasses.replace` leaves them."""
    known = {field.name: field.value for field in config_fields(preset)}
    changed = {field.name for field in config_fields(run) if known.get(field.name) != field.value}
    return replace(run, by_rule=tuple(name for name in run.by_rule if name not in changed))


def apply_defaults(run: Run, here: RunContext) -> Run:
    """The run with every field of `by_rule` set by its rule; `by_rule` stays."""
    return with_rules(run, {default.field: default.by_rule for default in defaults_of(run, here) if default.applied})


def with_rules(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with fields set by rules, which stay in `by_rule`."""
    return replace(override(run, changes), by_rule=run.by_rule)
