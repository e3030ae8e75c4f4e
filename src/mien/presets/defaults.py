"""What follows from the data, the size of its pictures and the device: batch, regularisation, averaging.

A preset that spells a knob out is obeyed; one that leaves it to the rules (`Run.by_rule`) gets what they say, before the run has
its identity, so that run.json holds plain numbers. `mien train --dry-run` shows every rule beside what the run does.
None looks at a run's length: one that goes on for longer is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mien.core.contracts import JSON
from mien.core.run import Run, config_fields, override
from mien.errors import UsageError

FEW = 3_000  # images: a million drawn from them, gan's own length, are over 300 passes, from which on augmentation pays


@dataclass(frozen=True)
class RunContext:
    """What rules look at."""

    count: int  # training images
    side: int  # pixels
    device: str  # cpu, cuda or mps


@dataclass(frozen=True)
class DefaultRule:
    """One knob as a function of the run so far and its circumstances."""

    knob: str
    value: Callable[[Run, RunContext], Any]
    reason: str


@dataclass(frozen=True)
class Default:
    """What a rule says of a run, and what the run does."""

    knob: str
    says: Any
    stands: Any
    reason: str
    obeyed: bool  # whether the run left the knob to the rule

    @property
    def told(self) -> JSON:
        """As JSON."""
        by = "rule" if self.obeyed else "preset"
        return {"knob": self.knob, "value": self.stands, "rule": self.says, "decided_by": by, "reason": self.reason}


def batch(run: Run, here: RunContext) -> int:
    """16 on a CPU; on a GPU 256 at 64 px and as many pixels at other sides, 16 to 256. No more than an eighth of the data."""
    wanted = 16 if here.device == "cpu" else max(16, min(256, 256 * 64**2 // here.side**2))
    fits = max(2, here.count // 8)
    return wanted if wanted <= fits else 1 << (fits.bit_length() - 1)


def half_life(run: Run, here: RunContext) -> int:
    on_request = run.conditional and getattr(run.recipe, "critic", None) is not None
    return (2_000 if on_request else 10_000) * run.batch // 32


def reg_interval(run: Run, here: RunContext) -> int:
    return 4


def reg_fraction(run: Run, here: RunContext) -> float:
    return 0.25 if here.device == "cpu" else 1.0


def augmentation(run: Run, here: RunContext) -> str:
    return "adaptive" if here.count < FEW else "none"


#: In this order: later ones look at what earlier ones decided.
RULES = (
    DefaultRule(
        "batch",
        batch,
        "A CPU is nearly as fast per image with few of them, and more steps are learned: FID 48 with 16 where gan had 61 with 32 "
        "after as many images (docs/LOG.md). A GPU must be filled. A batch of more than an eighth of the data repeats itself.",
    ),
    DefaultRule(
        "average.half_life",
        half_life,
        "An average over a fixed number of steps: 10,000 images at a batch of 32 (the rule of arXiv:2006.06676's code). While "
        "few images are seen, average.warmup shortens it. A fifth of it where a critic is told labels: a long average makes faces "
        "of one label more alike, and FID no better (docs/LOG.md).",
    ),
    DefaultRule(
        "recipe.reg_interval",
        reg_interval,
        "A penalty differentiates twice. Every fourth step, four times as strong, it costs a quarter (arXiv:1912.04958, section "
        "3.1, waits for sixteen).",
    ),
    DefaultRule(
        "recipe.reg_fraction",
        reg_fraction,
        "On a CPU a penalty costs by the image, and a quarter of them tells the slope well enough; a quarter of a batch leaves "
        "a GPU idle.",
    ),
    DefaultRule(
        "recipe.augment.mode",
        augmentation,
        f"With under {FEW:,} images a critic comes to know each one (arXiv:2006.06676), and faces get worse again: after 1,000 "
        "passes over 1,000 images FID 35.6, with augmentation 22.7. In under 300 passes it only slows (docs/LOG.md).",
    ),
)


def rulings(run: Run, here: RunContext) -> Iterator[Default]:
    """What each rule that has a knob in this run says, and what is done. Raises UsageError where a run obeys no known rule."""
    unknown = sorted(set(run.by_rule) - {rule.knob for rule in RULES})
    if unknown:
        raise UsageError(
            f"There is no rule for {', '.join(unknown)}.", f"`{run.preset}` leaves it to one.",
            f"Rules are there for {', '.join(rule.knob for rule in RULES)}.",
        )  # fmt: skip
    for rule in RULES:
        stands = next((knob.value for knob in config_fields(run) if knob.name == rule.knob), None)
        if stands is None:
            continue
        says, obeyed = rule.value(run, here), rule.knob in run.by_rule
        if obeyed:
            run = obeying(run, {rule.knob: says})
        yield Default(rule.knob, says, says if obeyed else stands, rule.reason, obeyed)


def ruled(run: Run, here: RunContext) -> Run:
    """The run with every knob that it leaves to the rules turned; which those were stays known."""
    return obeying(run, {ruling.knob: ruling.says for ruling in rulings(run, here) if ruling.obeyed})


def obeying(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with knobs turned by rules, to which they stay left."""
    return replace(override(run, changes), by_rule=run.by_rule)
