"""Curves over images seen: grouped into panels, smoothed, thinned and named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.core.contracts import JSON
from mien.report.metric_descriptions import metric_meaning, stat_meaning
from mien.report.run_reader import RunRecord, is_number, score_name

Numbers = NDArray[np.float64]
NOT_STATS = frozenset({"seen", "seconds", "images_per_second", "waiting"})
BALANCE = ("generator_loss", "critic_fake", "critic_real")
APART = 12.0  # losses whose sizes differ by more do not share an axis
TOGETHER = 5  # curves at most in one panel
COLOURS = 8  # that static/base.css has


@dataclass(frozen=True)
class Series:
    """One curve. `low` and `high` are its raw extent, or a score's interval; `usual` bounds all but rare spikes."""

    label: str
    seen: Numbers
    value: Numbers
    low: Numbers
    high: Numbers
    usual: tuple[float, float]


@dataclass(frozen=True)
class Bound:
    """A threshold of a rule."""

    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis."""

    key: str
    title: str
    meaning: str
    series: tuple[Series, ...]
    bounds: tuple[Bound, ...] = ()

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value to draw: the curves whole, of their raw extent the usual part."""
        levels = [bound.value for bound in self.bounds]
        for series in self.series:
            levels += [float(series.value.min()), float(series.value.max()), *series.usual]
        low, high = min(levels), max(levels)
        if 0 <= low < 0.4 * high:
            low = 0.0
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return (low if low == 0 else low - margin), high + margin


def panels(record: RunRecord, points: int = 240) -> tuple[Panel, ...]:
    """All curves of a run in reading order, each thinned to at most `points`."""
    names = _names(record)
    balance = [balance_panel(record, points)] if set(BALANCE) <= set(names) else []
    in_balance_panel = set(BALANCE) if balance else set()
    losses = loss_panels(record, points, without=in_balance_panel)
    rest = []
    for group in _by_last_word([name for name in names if not is_loss(name)]):
        name = group[0] if len(group) == 1 else group[0].rpartition("_")[2]
        curves = tuple(stat(record.metrics, member, points) for member in group)
        rest.append(Panel(name, capitalised(readable(name)), stat_meaning(name), curves))
    return (*balance, *losses, *rest, *score_panels(record.scores), *speed_panels(record, points))


def _columns(record: RunRecord) -> set[str]:
    """Names with at least one finite value."""
    return {name for line in record.metrics for name, value in line.items() if is_number(value)}


def _names(record: RunRecord) -> list[str]:
    """The recipe's own stats among them; scores have separate panels with intervals."""
    return sorted(_columns(record) - NOT_STATS - {score_name(score) for score in record.scores})


def is_loss(name: str) -> bool:
    """Whether a stat is a loss that an update minimises."""
    return "loss" in name or name in BALANCE


def loss_panels(record: RunRecord, points: int, without: Collection[str] = ()) -> list[Panel]:
    """The losses, those of comparable size together."""
    result = []
    series = {
        name: stat(record.metrics, name, points) for name in _names(record) if "loss" in name and name not in without
    }
    for number, group in enumerate(_alike(series), 1):
        title = "Losses" if number == 1 else f"Losses: {', '.join(series[name].label for name in group)}"
        meaning = stat_meaning(group[0]) if len(group) == 1 else "What each update descends."
        result.append(Panel(f"losses{number}", title, meaning, tuple(series[name] for name in group)))
    return result


def speed_panels(record: RunRecord, points: int) -> list[Panel]:
    """Images a second, and the share of time spent waiting for data, unless it is always near 0."""
    result = []
    for name, title in (("images_per_second", "Speed, images a second"), ("waiting", "Share of time waiting for data")):
        if name in _columns(record):
            curve = stat(record.metrics, name, points)
            if name != "waiting" or curve.high.max() > 0.01:
                result.append(Panel(name, title, stat_meaning(name), (curve,)))
    return result


def balance_panel(record: RunRecord, points: int) -> Panel:
    """The three curves that "Generating Faces with Torch" monitors, with the bounds of the run's balance rule."""
    labels = ("gen", "fake", "real")
    return Panel(
        "balance",
        "The game: generator against critic",
        "gen: how far the generator is from fooling the critic. fake, real: how wrong the critic is on fakes and on "
        "real faces; 0.69 is guessing. A level game keeps all three away from 0.",
        tuple(stat(record.metrics, name, points, label) for name, label in zip(BALANCE, labels, strict=True)),
        balance_bounds(record.run.get("recipe")),
    )


def balance_bounds(recipe: object) -> tuple[Bound, ...]:
    """The levels at which the run's rule acts: `margin` on the critic's losses, `l2_target` on the generator's."""
    if not isinstance(recipe, dict):
        return ()
    field = {"margin": "margin", "adaptive-l2": "l2_target"}.get(str(recipe.get("balance")), "")
    levels = recipe.get(field)
    label = "margin" if field == "margin" else "target"
    return tuple(Bound(float(level), label) for level in levels if is_number(level)) if isinstance(levels, list) else ()


def score_panels(scores: Sequence[JSON]) -> list[Panel]:
    """A panel for each score that was measured at least twice."""
    metrics = {score_name(score): str(score["metric"]) for score in scores}
    result = []
    for name, metric in sorted(metrics.items()):
        curve = score_series(scores, name, name)
        if len(curve.seen) > 1:
            meaning = metric_meaning(metric)
            result.append(Panel(f"score-{name}", meaning.title or name, meaning.text, (curve,)))
    return result


def score_series(scores: Sequence[JSON], name: str, label: str) -> Series:
    """The curve of one score with its intervals; empty if it was never measured."""
    rows = []
    for score in scores:
        value, seen = score.get("value"), score.get("seen")
        if score_name(score) == name and is_number(value) and is_number(seen):
            rows.append([seen, value, *(score[end] if is_number(score.get(end)) else value for end in ("low", "high"))])
    seen, value, low, high = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    usual = (float(low.min()), float(high.max())) if len(rows) else (0.0, 0.0)
    return Series(label, seen, value, low, high, usual)


def health_panels(record: RunRecord) -> tuple[Panel, ...]:
    """The evidence for each verdict that is not healthy: its number over time, and the bound."""
    result = []
    for verdict in record.health:
        name = str(verdict.get("name", ""))
        known = [(line["seen"], line["verdicts"][name]) for line in record.health_history if name in line["verdicts"]]
        rows = [(seen, one["value"], one.get("bound")) for seen, one in known if is_number(one.get("value"))]
        if verdict.get("state") in ("healthy", "pending") or not rows:
            continue
        seen, value = np.array([row[:2] for row in rows], dtype=np.float64).T
        usual = (float(value.min()), float(value.max()))
        bounds = (Bound(float(rows[-1][2]), "bound"),) if is_number(rows[-1][2]) else ()
        title = f"{capitalised(name)}: the evidence"
        result.append(Panel(f"health-{name}", title, "", (Series(name, seen, value, value, value, usual),), bounds))
    return tuple(result)


def stat(metrics: Sequence[JSON], name: str, points: int, label: str | None = None) -> Series:
    """One column of metrics.jsonl that has a value, smoothed over a fortieth of its length, then thinned; raw extent beside it."""
    pairs = [(line["seen"], line[name]) for line in metrics if is_number(line.get(name))]
    seen, raw = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    smooth = smoothed(raw, len(raw) // 40)
    starts = np.unique(np.linspace(0, len(raw), min(points, len(raw)), endpoint=False).astype(int))
    last = np.append(starts[1:], len(raw)) - 1
    low, high = (extent.reduceat(raw, starts) for extent in (np.minimum, np.maximum))
    usual = (float(np.quantile(raw, 0.02)), float(np.quantile(raw, 0.98)))
    return Series(label or readable(name), seen[last], smooth[last], low, high, usual)


def smoothed(values: Numbers, reach: int) -> Numbers:
    """The mean over `reach` neighbours on either side, twice.

    At the start, where curves are steep, the window is symmetric; at the end, where they are flat, one-sided.
    """
    index = np.arange(len(values))
    left = np.minimum(reach, index)
    right = np.minimum(left, len(values) - 1 - index)
    for _ in range(2 if reach else 0):
        total = np.concatenate([[0.0], np.cumsum(values)])
        values = (total[index + right + 1] - total[index - left]) / (left + right + 1)
    return values


def _alike(losses: dict[str, Series]) -> list[list[str]]:
    """Group names by comparable size, the largest group first."""
    size = {name: float(np.median(np.abs(series.value))) for name, series in losses.items() if len(series.value)}
    groups: list[list[str]] = []
    for name in sorted(size, key=lambda name: size[name]):
        if groups and len(groups[-1]) < TOGETHER and size[name] <= APART * size[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return sorted((sorted(group) for group in groups), key=len, reverse=True)


def _by_last_word(names: Sequence[str]) -> list[list[str]]:
    """`real_accuracy` and `fake_accuracy` belong together, as all names that end in one word."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("_")[2], []).append(name)
    return [group[start : start + TOGETHER] for group in groups.values() for start in range(0, len(group), TOGETHER)]


def readable(name: str) -> str:
    """`critic_grad_norm` -> critic grad norm."""
    return name.replace("_", " ").replace(".", " · ").strip() or name


def capitalised(text: str) -> str:
    """Capitalise the first letter only."""
    return text[:1].upper() + text[1:]
