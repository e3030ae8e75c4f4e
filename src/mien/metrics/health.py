"""Training health: symptoms from cheap measurements, and verdicts from symptoms. Pure functions.

A symptom is a number and its bound. Its verdict is healthy; a warning when the bound is crossed at one check; an alarm when it
is crossed at two checks in a row, or at one check if the symptom is certain (NaN, a full disk); pending while there is too
little to judge. What is checked has a neutral name ("variety"); the fault has the field's ("mode collapse"). The bounds come from
benchmarks/health.py; docs/health.md gives the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from mien.core.contracts import JSON
from mien.metrics.quick_checks import GRID, LatentUse
from mien.metrics.suggestions import remedy

SETTLING = 2_000  # images before which samples and encodings are not checked: a new network draws one grey face
SETTLING_STEPS = 60  # likewise, for large batches: eleven of 256 are 2,816 images

DIFFERENT = 0.2  # of the number of different faces among as many real ones
ALIKE = 0.25  # grey levels between two faces: less than rounding
FALLEN = 1 / 3  # share of the largest earlier difference of two faces
COPIES = 0.03  # share of the samples
SURPRISE = 8.0  # nats: the critic rates fakes as real with probability 1 in 3,000
RESTING = 0.95  # share of log lines without an update of the generator
PINNED, END = 0.9, 1e-3  # share of log lines in which k_t is this near to 0 or 1
NATS = 1.0  # nats of information in a latent: less cannot distinguish two faces
EXPLODED = 1e3  # times the usual size of the largest loss
WAITING = 0.3  # share of the time spent waiting for data
LINES = 5  # of the log, fewer of which say nothing of the reader
CHECKPOINTS = 3.0  # that must fit on the disk: one is written before an old one goes

COLLAPSE, CRITIC, BALANCE = "variety", "critic strength", "balance"
POSTERIOR, MEMORY, DIVERGENCE = "latent use", "originality", "stability"
STARVATION, DISK = "data loading", "disk space"
FAULTS = {
    COLLAPSE: "mode collapse",
    CRITIC: "the critic is too strong",
    BALANCE: "the balance is pinned",
    POSTERIOR: "posterior collapse",
    MEMORY: "memorisation",
    DIVERGENCE: "divergence",
    STARVATION: "training starves for data",
    DISK: "the disk is filling up",
}
ILL = ("warning", "alarm")  # the states of a fault
NAMES = tuple(FAULTS)
LEARNING = (COLLAPSE, CRITIC, BALANCE, POSTERIOR, MEMORY)  # which take some steps to judge
AT_AN_END = "k at an end"  # in a window: whether k_t stands at 0 or 1
EXIT_CODES = {DISK: 6, STARVATION: 4}  # of `mien doctor --strict`; every other alarm concerns learning: 5


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A number, its bound and its meaning."""

    name: str
    value: float
    bound: float
    ill: bool
    evidence: str
    fact: bool = False  # one check is enough for an alarm
    lean: float = 0.0  # to which side it errs, for the remedy
    early: bool = False  # whether there is too little to judge yet


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state of one symptom, with evidence and suggestion."""

    name: str
    state: str  # healthy, warning, alarm or pending
    value: float
    bound: float
    evidence: str
    suggestion: str = ""  # one change; empty without a fault

    def json(self) -> JSON:
        """As in health.json."""
        return dict(vars(self))


@dataclass
class Window:
    """The means of the logged values since the last check."""

    lines: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, line: Mapping[str, object]) -> None:
        """Take one line of metrics.jsonl; what is not a finite number is passed over."""
        self.lines += 1
        k = line.get("k")
        known = {**line, AT_AN_END: float(min(k, 1.0 - k) < END)} if isinstance(k, int | float) else line
        for name, value in known.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        """The mean over the lines that have it, None if none has."""
        return self.sums[name] / self.counts[name] if name in self.counts else None

    def presence(self, name: str) -> float:
        """The share of lines that have it."""
        return self.counts.get(name, 0) / max(self.lines, 1)

    @property
    def loss_size(self) -> float:
        """The magnitude of the largest loss."""
        return max((abs(self.sums[n] / self.counts[n]) for n in self.sums if "loss" in n), default=0.0)


def diagnose(symptoms: Sequence[Symptom], ill_before: Collection[str], run: JSON, sound: int = 0) -> list[Verdict]:
    """The verdicts on symptoms. `ill_before` are the symptoms at the last check, `run` is the content of run.json,
    `sound` the images seen at the last healthy check.
    """
    verdicts = []
    for symptom in symptoms:
        certain = symptom.fact or symptom.name in ill_before
        state = ("alarm" if certain else "warning") if symptom.ill else "pending" if symptom.early else "healthy"
        fault = FAULTS[symptom.name]
        verdicts.append(
            Verdict(
                name=symptom.name,
                state=state,
                value=symptom.value,
                bound=symptom.bound,
                evidence=f"{fault[0].upper()}{fault[1:]}: {symptom.evidence}" if symptom.ill else symptom.evidence,
                suggestion=remedy(symptom.name, run, symptom.lean, sound) if symptom.ill else "",
            )
        )
    return verdicts


def collapse(made: float, real: float, spread: float, best: float, seen: int) -> Symptom:
    """Mode collapse, from the numbers of different faces among samples and among as many real faces, and from the difference
    of two samples in grey levels, now and at its previous maximum.
    """
    share = made / max(real, 1e-9)
    text = f"The {GRID} faces drawn amount to {made:.1f} different ones, {GRID} real ones to {real:.1f}: a share of {share:.2f}"
    text += f"; alarm below {DIFFERENT:g}."
    if spread < max(ALIKE, best * FALLEN):
        share = min(share, 1.0 / max(real, 1.0))
        text = f"Two faces drawn differ by {spread:.1f} grey levels, at best by {max(best, spread):.1f}: they are one face."
    return judged_later(COLLAPSE, share, DIFFERENT, share < DIFFERENT, text, seen)


def memorisation(copied: float, seen: int) -> Symptom:
    """Memorisation, from the share of copies among the samples."""
    text = f"{copied:.0%} of the {GRID} faces drawn are copies of training images; alarm from {COPIES:.0%}."
    return judged_later(MEMORY, copied, COPIES, copied >= COPIES, text, seen)


def posterior_collapse(found: LatentUse, seen: int) -> Symptom:
    """Posterior collapse, from the information in the latent."""
    text = (
        f"A latent carries {found.nats:.2f} nats of its face, in {found.active} of {found.dimensions} dimensions, and "
        f"{max(0.0, found.kept):.0%} of the difference between two faces passes through it; alarm below {NATS:g} nat."
    )
    return judged_later(POSTERIOR, found.nats, NATS, found.nats < NATS, text, seen)


def judged_later(name: str, value: float, bound: float, ill: bool, evidence: str, seen: int) -> Symptom:
    """A symptom of samples, which counts only after the first SETTLING images."""
    if seen < SETTLING:
        text = f"Judged from {SETTLING:,} images on; {seen:,} so far."
        return Symptom(name=name, value=value, bound=bound, ill=False, evidence=text, early=True)
    return Symptom(name=name, value=value, bound=bound, ill=ill, evidence=evidence)


def settled(symptom: Symptom, seen: int, batch: int) -> Symptom:
    """The symptom; one of learning is not judged before SETTLING_STEPS steps of `batch` images."""
    if symptom.name not in LEARNING or seen >= SETTLING_STEPS * batch or symptom.early:
        return symptom
    text = f"Judged from {SETTLING_STEPS} steps on; {seen // max(batch, 1)} so far."
    return replace(symptom, ill=False, evidence=text, early=True)


def critic_too_strong(window: Window, seen: int) -> Symptom | None:
    """Critic too strong, from the generator's cross-entropy loss and the share of steps in which the generator was updated."""
    loss, idle = window.mean("generator_loss"), 1.0 - window.presence("generator_loss")
    if "k" in window.sums or not (loss is not None or "critic_fake" in window.sums):
        return None
    if idle > RESTING and "critic_fake" in window.sums:
        text = f"The balance let the generator rest in {idle:.0%} of the log lines; alarm above {RESTING:.0%}."
        return judged_later(CRITIC, idle, RESTING, True, text, seen)
    if loss is None:
        return None
    text = (
        f"The generator's loss is {loss:.2f} nats: to the critic, a drawn face has a chance of {math.exp(-loss):.2g} to be "
        f"real; alarm above {SURPRISE:g}."
    )
    return judged_later(CRITIC, loss, SURPRISE, loss > SURPRISE, text, seen)


def pinned(window: Window, seen: int) -> Symptom | None:
    """Saturation of BEGAN's k_t."""
    k, share = window.mean("k"), window.mean(AT_AN_END)
    if k is None or share is None:
        return None
    text = f"k_t stands at 0 or 1 in {share:.0%} of the log lines, {k:.3f} on average; alarm from {PINNED:.0%}."
    symptom = judged_later(BALANCE, share, PINNED, share >= PINNED, text, seen)
    return replace(symptom, lean=k)


def divergence(
    rollbacks: int, window: Window, usual: Sequence[float], drawn: bool = True, gave_up: bool = False
) -> Symptom:
    """Divergence, from rollbacks since the last check and the largest loss relative to its size at earlier checks.

    `drawn`: whether the samples are finite; `gave_up`: whether the run ended because rolling back did not help.
    """
    fact, size = True, window.loss_size
    growth = size / max(median(usual), 1.0) if usual else 0.0
    if gave_up:
        value, bound, text = (
            float(rollbacks),
            1.0,
            "A loss or gradient was not finite, also after every rollback: the run ended.",
        )
    elif rollbacks:
        value, bound = float(rollbacks), 1.0
        text = f"{rollbacks} rollback{'s' * (rollbacks > 1)} since the last look: a loss or gradient was not finite."
    elif not drawn:
        value, bound, text = 1.0, 1.0, "The faces drawn hold numbers that are not finite."
    else:
        value, bound, fact = growth, EXPLODED, False
        text = f"The largest loss is {size:.3g}, {growth:.3g} times its usual size; alarm above {EXPLODED:g} times."
    return Symptom(name=DIVERGENCE, value=value, bound=bound, ill=fact or growth > bound, evidence=text, fact=fact)


def starvation(window: Window) -> Symptom | None:
    """Data starvation, from the share of time spent waiting for data."""
    share = window.mean("waiting")
    if share is None:
        return None
    text = f"Training waits for data {share:.0%} of the time; alarm above {WAITING:.0%}."
    if share > WAITING and window.lines < LINES:  # the first steps wait while the loader starts
        text = f"Judged by {LINES} log lines; {window.lines} so far."
        return Symptom(name=STARVATION, value=share, bound=WAITING, ill=False, evidence=text, early=True)
    return Symptom(name=STARVATION, value=share, bound=WAITING, ill=share > WAITING, evidence=text)


def disk(free: int, checkpoint: int) -> Symptom:
    """Disk space, from the free bytes and the size of a checkpoint."""
    fit = free / max(checkpoint, 1)
    text = (
        f"{free / 1e6:,.0f} MB are free, room for {int(fit):,} checkpoints of {checkpoint / 1e6:,.1f} MB; alarm below "
        f"{CHECKPOINTS:g}."
    )
    return Symptom(name=DISK, value=fit, bound=CHECKPOINTS, ill=fit < CHECKPOINTS, evidence=text, fact=True)
