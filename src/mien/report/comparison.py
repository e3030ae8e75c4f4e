"""What a comparison of runs rests on: who is first, what cannot be told apart, and what must not be compared at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safetensors import SafetensorError, safe_open

from mien.core import JSON
from mien.errors import MienError
from mien.report.grid import read_recipe
from mien.report.meanings import METRICS, metric_meaning
from mien.report.record import Record, is_number, score_name

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # tensors of a model file that are not learned


def ranked(records: Sequence[Record]) -> list[Record]:
    """Best first by the score that most of them have; those without it last, in the order given."""
    names = score_names(records)
    if not names:
        return list(records)
    name = names[0]

    def rank(record: Record) -> float:
        score = score_of(record, name)
        if score is None or not is_number(score.get("value")):
            return math.inf
        return -score["value"] if metric_meaning(score["metric"]).better == "higher" else float(score["value"])

    return sorted(records, key=rank)


def score_names(records: Sequence[Record]) -> list[str]:
    """Names of scores, those of the most runs first, then in the order of METRICS."""
    order = list(METRICS)
    counts: dict[str, int] = {}
    places: dict[str, int] = {}
    for score in (score for record in records for score in record.latest_scores):
        name, metric = score_name(score), score["metric"]
        counts[name] = counts.get(name, 0) + 1
        places[name] = order.index(metric) if metric in order else len(order)
    return sorted(counts, key=lambda name: (-counts[name], places[name], name))


def score_of(record: Record, name: str) -> JSON | None:
    """A run's newest score of this name."""
    return next((score for score in record.latest_scores if score_name(score) == name), None)


def disagreements(records: Sequence[Record]) -> list[str]:
    """Why the runs cannot be compared as they stand, each a sentence; none if they can."""
    found = []
    for what, values in (
        ("different data (fingerprints", [record.data.get("fingerprint") for record in records]),
        ("faces of different sides (pixels", [record.run.get("side") for record in records]),
        ("different seeds in their grids (first and last", [grid_seeds(record) for record in records]),
    ):
        known = list(dict.fromkeys(str(value) for value in values if value is not None))
        if len(known) > 1:
            found.append(f"The runs have {what} {', '.join(known)}).")
    for name in score_names(records):
        passports = [
            score["passport"]
            for record in records
            if (score := score_of(record, name)) is not None and isinstance(score.get("passport"), dict)
        ]
        keys = sorted({key for passport in passports for key in passport})
        differing = [key for key in keys if len({repr(passport.get(key)) for passport in passports}) > 1]
        if differing:
            found.append(f"{name} was measured in different ways: {', '.join(differing)}.")
    unfinished = [record.name for record in records if record.status.get("state") != "done"]
    if unfinished:
        found.append(f"Not finished: {', '.join(unfinished)}.")
    return found


def best(records: Sequence[Record], name: str) -> list[bool]:
    """Which runs have the best score of this name, or one whose interval meets the best one's."""
    scores = [score_of(record, name) for record in records]
    known = [score for score in scores if score is not None and is_number(score.get("value"))]
    better = metric_meaning(known[0]["metric"]).better if known else ""
    if not better or len(known) < 2:
        return [False] * len(records)
    sign = -1 if better == "higher" else 1
    winner = min(known, key=lambda score: sign * score["value"])
    low, high = interval(winner)
    return [
        score is not None and is_number(score.get("value")) and interval(score)[0] <= high and low <= interval(score)[1]
        for score in scores
    ]


def interval(score: JSON) -> tuple[float, float]:
    low, high = (score[end] if is_number(score.get(end)) else score["value"] for end in ("low", "high"))
    return float(low), float(high)


def parameters(record: Record) -> int | None:
    """Learned numbers in the newest model of a run, or None where there is no checkpoint to look into."""
    models = [path for path in record.directory.glob("checkpoints/*/model.safetensors") if path.parent.name.isdigit()]
    for path in sorted(models, key=lambda path: -int(path.parent.name)):
        try:
            with safe_open(path, framework="np") as file:
                names = [name for name in file.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118 - not a mapping
                return sum(int(math.prod(file.get_slice(name).get_shape())) for name in names)
        except (OSError, SafetensorError):
            continue
    return None


def grid_seeds(record: Record) -> object:
    """The seeds that a run's grids show, or None where no grid says so."""
    if not record.grids:
        return None
    try:
        return read_recipe(record.grids[-1][1]).get("seeds")
    except MienError:
        return None
