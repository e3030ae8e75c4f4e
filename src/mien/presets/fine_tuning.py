"""Defaults of a run that starts with another model's weights: `mien train --from`.

Its networks are the parent's, its schedules start at their ends, and with few images the critic keeps its early layers. Each
is a rule as in `defaults.py`: `--dry-run` shows it with its reason, and a flag of the user wins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

from mien.core.contracts import ModelConfig, NetworkConfig
from mien.core.run import Run, config_fields, override
from mien.presets.defaults import RULES, DefaultRule, RunContext


@dataclass(frozen=True)
class ParentConfig:
    """What the rules depend on: the side, and the networks as far as they are known."""

    side: int
    model: ModelConfig
    critic: NetworkConfig | None = None


def last_rate(run: Run, here: RunContext) -> float:
    """A rate that the user gives is constant; else the schedule's end."""
    recipe: Any = run.recipe
    return recipe.lr_end if "recipe.lr" in run.by_rule else recipe.lr  # type: ignore[no-any-return]


def rate(run: Run, here: RunContext) -> float:
    recipe: Any = run.recipe
    falls = getattr(recipe, "decay_images", 0) and getattr(recipe, "lr_decay", 1.0) >= 1.0
    return recipe.lr_end if falls else recipe.lr  # type: ignore[no-any-return]


def end_of(name: str) -> Any:
    """The value of a recipe's field after its schedule."""
    return lambda run, here: getattr(run.recipe, f"{name}_end")


def frozen(run: Run, here: RunContext) -> int:
    """Half of the critic's stages, two at most."""
    critic = getattr(run.recipe, "critic", None)
    stages = (here.side // getattr(critic, "patch", 1) // 4).bit_length()
    return min(2, stages // 2) if here.count < VERY_FEW and hasattr(critic, "patch") else 0


VERY_FEW = 500  # images
SCHEDULE = "The parent has had the start of the schedule: large steps, or a loss that is not yet whole, would undo what it learned."
AVERAGED = "The average starts as the parent's and is good at once. A short half-life at the start would throw it away."
#: Fields of a recipe that is fine-tuned, in this order. The augmentation's rule is that of other runs.
SCHEDULES = (
    DefaultRule(
        "recipe.lr_end", last_rate, "The rate of the preset's last images; a rate given with --recipe.lr stays."
    ),
    DefaultRule("recipe.lr", rate, SCHEDULE),
    DefaultRule("recipe.gamma", end_of("gamma"), SCHEDULE),
    DefaultRule("recipe.beta2", end_of("beta2"), SCHEDULE),
    DefaultRule(
        "recipe.freeze_critic",
        frozen,
        f"With under {VERY_FEW} images the critic's finest stages stay as the parent learned them from many: edges and texture "
        "are the same in most faces (FreezeD, arXiv:2002.10964).",
    ),
    DefaultRule("recipe.carry_images", lambda run, here: 0, SCHEDULE),
    DefaultRule("average.warmup", lambda run, here: 0.0, AVERAGED),
    DefaultRule("average.ramp", lambda run, here: 0, AVERAGED),
)
#: beta rises from 0 over the images of a VAE's warm-up; a flow's is of the rate, which new moments of Adam need again.
KL_WARMUP = DefaultRule("recipe.warmup_images", lambda run, here: 0, SCHEDULE)
NETWORKS = "The networks are the parent's, so that its weights fit."
HALVED = "{} At {} px in place of {} px: every stage keeps its width at its resolution, and new ones go on doubling or halving it."


def at_side(config: Any, old: int, new: int) -> Any:
    """A network's configuration whose stages have at each resolution the widths of `config`, a network for `old` px."""
    names = getattr(type(config), "follows_side", ())
    return replace(config, **{name: max(1, getattr(config, name) * old // new) for name in names})


def network_rules(run: Run, parent: ParentConfig) -> Iterator[DefaultRule]:
    """A rule for each field of model and critic that the parent has otherwise, where both are of one kind."""
    for prefix, config in (("model", parent.model), ("recipe.critic", parent.critic)):
        mine: Any = run
        for part in prefix.split("."):
            mine = getattr(mine, part, None)
        if config is None or type(mine) is not type(config):
            continue
        fitting = at_side(config, parent.side, run.side)
        for field in fields_of(fitting):
            value = getattr(fitting, field.name)
            if value == getattr(mine, field.name) or is_dataclass(value):
                continue
            same = value == getattr(config, field.name)
            why = NETWORKS if same else HALVED.format(NETWORKS, run.side, parent.side)
            yield DefaultRule(f"{prefix}.{field.name}", constant(value), why)


def constant(value: Any) -> Any:
    """A rule's function that gives always this value."""
    return lambda run, here: value


def rules_of(run: Run, parent: ParentConfig) -> tuple[DefaultRule, ...]:
    """All rules of a run with a parent, in order."""
    ends = {f"recipe.{name}" for name in ("lr", "gamma", "beta2") if hasattr(run.recipe, f"{name}_end")}
    left_out = {"recipe.lr", "recipe.gamma", "recipe.beta2"} - ends
    if parent.critic is None or parent.side != run.side:
        left_out.add("recipe.freeze_critic")  # its finest stages are new
    schedules = [rule for rule in SCHEDULES if rule.field not in left_out]
    warmup = [] if hasattr(run.recipe, "time_mean") else [KL_WARMUP]
    return (*network_rules(run, parent), *RULES, *schedules, *warmup)


def by_rules(run: Run, rules: Collection[DefaultRule], explicit: Collection[str]) -> Run:
    """The run with the fields of fine-tuning left to the rules, but for those that the user has set."""
    known = {field.name for field in config_fields(run)}
    general = {rule.field for rule in RULES} - {"recipe.augment.mode"}
    more = [
        rule.field
        for rule in rules
        if rule.field in known - general and not any(f"{rule.field}.".startswith(f"{name}.") for name in explicit)
    ]
    return replace(run, by_rule=tuple(dict.fromkeys((*run.by_rule, *more))))


def as_stored(run: Run, stored: Run, explicit: Collection[str]) -> Run:
    """The run with its parent and the networks, recipe and average of the stored one, but for what the user has set.

    Rules look at the parent, and a run that goes on has none: it takes what they decided when it started.
    """
    mine, changes = {field.name: field.value for field in config_fields(run)}, {}
    for field in config_fields(stored):
        named = any(f"{field.name}.".startswith(f"{name}.") for name in explicit)
        if field.name.split(".")[0] in ("model", "recipe", "average") and field.name in mine and not named:
            changes[field.name] = field.value
    return replace(override(run, changes), parent=stored.parent)
