"""Comparison of runs: the ranking, differences within the confidence interval, and scores that are not comparable."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from safetensors import SafetensorError

from mien.core.contracts import JSON
from mien.errors import MienError
from mien.metrics.scores import comparable
from mien.report.grid import read_recipe
from mien.report.metric_descriptions import METRICS, metric_meaning
from mien.report.run_reader import RunRecord, is_number, score_name
from mien.storage.checkpoint import all_of
from mien.storage.tensor_file import open_tensors

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # tensors of a model file that are not parameters
MACHINE = ("machine", "capability", "device", "precision", "threads", "torch")  # of env.json: what speed depends on


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row: one run, the runs of one configuration under several seeds, or a run that failed to start."""

    name: str
    preset: str
    records: tuple[RunRecord, ...] = ()
    failure: str = ""  # why it has no scores

    @property
    def seen(self) -> float:
        """Images seen, the mean over its runs."""
        return fmean(record.seen for record in self.records) if self.records else 0.0

    @property
    def seconds(self) -> float:
        """Seconds of training, the mean over its runs."""
        return fmean(record.seconds for record in self.records) if self.records else 0.0


@dataclass(frozen=True, kw_only=True)
class Column:
    """Comparable scores: those of one name, one protocol and one track.

    On the clean track a training sees its own data alone; on the assisted one it uses a network that has learned from other
    photographs. FID rewards what such a network knows (arXiv:2203.06026), so the two never share a column.
    """

    name: str  # as in `fid10k_train`, and behind it what sets it apart where a name was measured in several ways
    metric: str
    score: str  # the name of its scores
    protocol: JSON
    assisted: bool = False


@dataclass(frozen=True)
class Standing:
    """A cell: the score of one run and its 95% interval, or the mean over several seeds and their range."""

    value: float
    low: float
    high: float
    runs: int = 1


@dataclass(frozen=True, kw_only=True)
class Board:
    """A comparison: rows in rank order, and columns with the ranking one first."""

    entries: tuple[Entry, ...]
    columns: tuple[Column, ...]
    alarms: tuple[str, ...] = field(default=())  # warnings about the comparison

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All runs, in the order of the rows."""
        return tuple(record for entry in self.entries for record in entry.records)


def compared(
    records: Sequence[RunRecord], failed: Sequence[Entry] = (), reasons: Mapping[Path, str] | None = None
) -> Board:
    """Compare runs, including those that failed to start. `reasons` maps directories to why a run has no scores."""
    found = columns(records)
    entries = [*entries_of(records, reasons or {}), *failed]
    return Board(
        entries=tuple(ranked(entries, found[0] if found else None)),
        columns=tuple(found),
        alarms=tuple(disagreements(records)),
    )


def entries_of(records: Sequence[RunRecord], reasons: Mapping[Path, str]) -> list[Entry]:
    """A row for each configuration, with the runs of all its seeds."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        key = configuration(record)
        taken = [other.run.get("seed") for other in groups.get(key, [])]
        alone = not isinstance(record.run.get("identity"), dict) or record.run.get("seed") in taken
        groups.setdefault(str(record.directory.resolve()) if alone else key, []).append(record)
    presets = Counter(preset_of(group[0]) for group in groups.values())
    entries = []
    for group in groups.values():
        preset, several = preset_of(group[0]), len(group) > 1
        name = preset if several and presets[preset] == 1 else group[0].name
        found = {record.name: reasons.get(record.directory) or divergence(record) for record in group}
        failures = [f"{run}: {reason}" if several else reason for run, reason in found.items() if reason]
        entries.append(Entry(name=name, preset=preset, records=tuple(group), failure="; ".join(failures)))
    return entries


def divergence(record: RunRecord) -> str:
    """A note that a run has diverged, or an empty string."""
    if record.status.get("state") != "diverged":
        return ""
    return f"diverged: {record.status.get('reason') or 'it stayed non-finite'}"


def configuration(record: RunRecord) -> str:
    """The configuration of a run without its seed: runs of one row share it."""
    identity = record.run.get("identity")
    shared = {name: value for name, value in identity.items() if name != "seed"} if isinstance(identity, dict) else {}
    return json.dumps([shared, record.run.get("images"), record.run.get("minutes")], sort_keys=True)


def preset_of(record: RunRecord) -> str:
    return str(record.run.get("preset", ""))


def columns(records: Sequence[RunRecord]) -> list[Column]:
    """A column for each name, track and way of measuring: those of the most runs first, then in the order of METRICS."""
    order = list(METRICS)
    found: dict[tuple[str, bool], dict[str, list[JSON]]] = {}
    for record in records:
        mine: dict[tuple[str, str], JSON] = {}
        for score in record.scores:
            mine[score_name(score), way_of(score)] = score
        for (name, way), score in mine.items():
            found.setdefault((name, assisted(record)), {}).setdefault(way, []).append(score)
    counted = []
    for (name, helped), ways in found.items():
        protocols = [json.loads(way) for way in ways]
        differing = [part for part in parts_of(protocols) if len({repr(p.get(part)) for p in protocols}) > 1]
        for number, (way, scores) in enumerate(sorted(ways.items(), key=lambda item: -len(item[1]))):
            protocol_of_column, metric = json.loads(way), scores[0]["metric"]
            behind = ", ".join(
                [*["assisted"] * helped, *(f"{part} {brief(protocol_of_column.get(part))}" for part in differing)]
            )
            place = order.index(metric) if metric in order else len(order)
            column = Column(
                name=f"{name} ({behind})" if behind else name,
                metric=metric,
                score=name,
                protocol=protocol_of_column,
                assisted=helped,
            )
            counted.append(((helped, -len(scores), place, name, number), column))
    return [column for _, column in sorted(counted, key=lambda pair: pair[0])]


def assisted(record: RunRecord) -> bool:
    """Whether a network that has learned from other photographs took part in a run's training."""
    return record.run.get("assisted") is True


def has_parent(record: RunRecord) -> bool:
    """Whether a run started with another model's weights (`--from`)."""
    return bool(record.run.get("parent"))


def way_of(score: JSON) -> str:
    """A score's protocol as text, to compare."""
    protocol = score.get("protocol")
    return json.dumps(comparable(protocol) if isinstance(protocol, dict) else {}, sort_keys=True)


def parts_of(protocols: Sequence[JSON]) -> list[str]:
    """The names of all parts, in order."""
    return list(dict.fromkeys(part for protocol_of_column in protocols for part in protocol_of_column))


def brief(value: object) -> str:
    """A part of a protocol in a few characters."""
    if isinstance(value, dict):
        return " ".join(str(item)[:12] for item in value.values())
    return "unknown" if value is None else str(value)[:24]


def score_of(record: RunRecord, column: Column) -> JSON | None:
    """A run's newest score of a column; none in a column of the other track."""
    if assisted(record) != column.assisted:
        return None
    way = json.dumps(column.protocol, sort_keys=True)
    fitting = [score for score in record.scores if score_name(score) == column.score and way_of(score) == way]
    return fitting[-1] if fitting else None


def standing(entry: Entry, column: Column) -> Standing | None:
    """The content of a cell, or None without a finite score."""
    found = [score for record in entry.records if (score := score_of(record, column)) is not None]
    known = [score for score in found if is_number(score.get("value"))]
    if not known:
        return None
    if len(entry.records) == 1:
        return Standing(float(known[0]["value"]), *interval(known[0]))
    values = [float(score["value"]) for score in known]
    return Standing(fmean(values), min(values), max(values), len(values))


def interval(score: JSON) -> tuple[float, float]:
    low, high = (score[end] if is_number(score.get(end)) else score["value"] for end in ("low", "high"))
    return float(low), float(high)


def ranked(entries: Sequence[Entry], column: Column | None) -> list[Entry]:
    """Best first by a column; rows without a score are last, in their original order, then failed runs."""

    def rank(entry: Entry) -> float:
        found = standing(entry, column) if column else None
        if found is None:
            return math.inf
        return -found.value if column and metric_meaning(column.metric).better == "higher" else found.value

    return sorted(entries, key=lambda entry: (rank(entry), bool(entry.failure)))


def best(entries: Sequence[Entry], column: Column) -> list[bool]:
    """Which rows have the best score of a column, or one whose interval meets the best one's."""
    found = [standing(entry, column) for entry in entries]
    known = [cell for cell in found if cell is not None]
    better = metric_meaning(column.metric).better
    if not better or len(known) < 2:
        return [False] * len(entries)
    winner = min(known, key=lambda cell: -cell.value if better == "higher" else cell.value)
    return [cell is not None and cell.low <= winner.high and winner.low <= cell.high for cell in found]


def refusals(records: Sequence[RunRecord]) -> list[str]:
    """Reasons why the runs must not be compared, each a sentence: their data or image sizes differ."""
    data = [record.data.get("fingerprint") for record in records]
    return [
        *unequal("different data (fingerprints", [fingerprint and brief(fingerprint) for fingerprint in data]),
        *unequal("faces of different sides (pixels", [record.run.get("side") for record in records]),
    ]


def unequal(what: str, values: Sequence[object]) -> list[str]:
    """A sentence if the known values differ, else an empty string."""
    known = list(dict.fromkeys(str(value) for value in values if value is not None))
    return [f"The runs have {what} {', '.join(known)})."] if len(known) > 1 else []


def disagreements(records: Sequence[RunRecord]) -> list[str]:
    """Warnings about a comparison, each a sentence; empty if the runs are fully comparable."""
    found = refusals(records)
    found += unequal("different seeds in their grids (first and last", [grid_seeds(record) for record in records])
    ways: dict[tuple[str, bool], list[Column]] = {}
    for column in columns(records):
        ways.setdefault((column.score, column.assisted), []).append(column)
    for (name, _), several in ways.items():
        if len(several) > 1:
            protocols = [column.protocol for column in several]
            differing = [part for part in parts_of(protocols) if len({repr(p.get(part)) for p in protocols}) > 1]
            found.append(
                f"{name} was measured in different ways: {', '.join(differing)}. Each way has a column of its own."
            )
    for part, values in machines(records).items():
        if len(values) > 1:
            found.append(f"Not trained alike, so times and speeds differ for that too: {part} {', '.join(values)}.")
    old = [f"{record.name} at {seen:,} of {record.seen:,}" for record in records if (seen := judged_at(record))]
    if old:
        found.append(f"Evaluated before the newest checkpoint (images seen): {'; '.join(old)}.")
    unfinished = [record.name for record in records if record.status.get("state") != "done"]
    if unfinished:
        found.append(f"Not finished: {', '.join(unfinished)}.")
    return found


def judged_at(record: RunRecord) -> int | None:
    """Images seen when a run was last evaluated, if it has a newer checkpoint; None otherwise."""
    seens = [int(score["seen"]) for score in record.scores if is_number(score.get("seen"))]
    newest = [int(path.name) for path in all_of(record.directory / "checkpoints")[:1]]
    return max(seens) if seens and newest and max(seens) < newest[0] else None


def machines(records: Sequence[RunRecord]) -> Mapping[str, list[str]]:
    """The machines of the runs, each part with all its values; a fitted baseline does not count."""
    trained = [record.environment for record in records if not record.run.get("fitted")]
    found = {
        part: list(dict.fromkeys(str(environment[part]) for environment in trained if part in environment))
        for part in MACHINE
    }
    return {part: values for part, values in found.items() if values}


def parameters(record: RunRecord) -> int | None:
    """The number of learned parameters in the newest model of a run, or None without a checkpoint."""
    models = [folder / "model.safetensors" for folder in (record.directory, *all_of(record.directory / "checkpoints"))]
    for path in models:
        try:
            with open_tensors(path, "np") as file:
                names = [name for name in file.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118 - not a mapping
                return sum(int(math.prod(file.get_slice(name).get_shape())) for name in names)
        except (OSError, SafetensorError):
            continue
    return None


def grid_seeds(record: RunRecord) -> object:
    """The seeds that a run's grids show, or None if no grid records them."""
    if not record.grids:
        return None
    try:
        return read_recipe(record.grids[-1][1]).get("seeds")
    except MienError:
        return None
