"""Does a face show what it was asked to show, and what else changed: judged by a network that has seen real faces alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.data.pack import Pack
from mien.errors import DataError
from mien.metrics.attributes import Attributes, attributes_of
from mien.metrics.confidence import Estimate, bootstrap
from mien.metrics.images import PackImages, to_pixels
from mien.metrics.inputs import Judged
from mien.metrics.scores import Score
from mien.sampling.sampler import Sampler

MOST_SEEDS = 500  # faces that are drawn with each label on, and again with it off
BLOCK = 64  # faces at a time
COMMON = 500  # examples of yes and of no that a label needs to count in the mean

Shown = npt.NDArray[np.bool_]  # [seeds, labels]


def conditions(judged: Judged) -> Iterator[Score]:
    """The classifier's own accuracy, the mean over labels of how often a wish comes true, then each label with what leaks.

    Every label is asked on and off for the same latents, with the other labels of a real face. A score is the mean of two
    shares: faces asked for with the label that show it, and faces asked for without that do not.
    """
    sampler, pack = subjects(judged)
    eye = attributes_of(pack, judged.device, judged.told)
    names = [name for name in sampler.label_names if name in pack.label_names]
    seeds = range(max(2, min(judged.fake.count // 2, MOST_SEEDS)))
    known = [eye.accuracy[name] for name in names if np.isfinite(eye.accuracy[name])]
    passport = judged.passport(eye, samples=2 * len(seeds))
    own = {"classifier": {name: eye.accuracy[name] for name in names}, "held_out": eye.held_out}
    mean = float(np.mean(known)) if known else float("nan")
    yield Score.of("classifier", "classifier", Estimate(mean, mean, mean, "none"), {**passport, **own})
    counts = examples(pack)
    met: dict[str, npt.NDArray[np.float64]] = {}
    single = []
    for place, name in enumerate(names):
        on, off = (shown(judged, sampler, eye, seeds, name, value, place, len(names)) for value in (1.0, 0.0))
        column = pack.label_names.index(name)
        met[name] = np.asarray(on[:, column] * 0.5 + ~off[:, column] * 0.5, np.float64)
        leak = {
            other: round(float(on[:, index].mean() - off[:, index].mean()), 4)
            for index, other in enumerate(pack.label_names)
        }
        beside: dict[str, Any] = {
            "label": name,
            "shown_when_asked": float(on[:, column].mean()),
            "shown_when_not": float(off[:, column].mean()),
            "classifier": eye.accuracy[name],
            "examples": counts[name],
            "leak": leak,
        }
        estimate = bootstrap(met[name])
        single.append(Score.of("condition", f"condition_{name}", estimate, {**passport, **beside}))
    common = [name for name in names if min(counts[name].values()) >= COMMON] or names
    whole = bootstrap(np.mean([met[name] for name in common], axis=0))
    yield Score.of("conditions", "conditions", whole, {**passport, **own, "labels": common})
    yield from single


def subjects(judged: Judged) -> tuple[Sampler, Pack]:
    """The model and the labelled pack. Raises DataError where either knows no labels."""
    pack = judged.reference.pack if isinstance(judged.reference, PackImages) else None
    if judged.sampler is None or pack is None:
        raise DataError(
            "Nothing can be asked of a folder of images.",
            "`conditions` asks a model for labels.",
            "Judge a run against its pack.",
        )
    if not set(judged.sampler.label_names) & set(pack.label_names):
        raise DataError(
            "The model and the pack share no labels.",
            f"The model knows {', '.join(judged.sampler.label_names) or 'none'}.",
            "Judge a conditional model against a pack with its labels.",
        )
    return judged.sampler, pack


def examples(pack: Pack) -> dict[str, dict[str, int]]:
    """How many training images have each label, and how many have not."""
    assert pack.labels is not None
    labels = pack.labels[pack.rows()]
    with np.errstate(invalid="ignore"):
        yes, no = (labels > 0.5).sum(0), (labels <= 0.5).sum(0)
    return {name: {"yes": int(yes[i]), "no": int(no[i])} for i, name in enumerate(pack.label_names)}


def shown(
    judged: Judged, sampler: Sampler, eye: Attributes, seeds: range, name: str, value: float, place: int, labels: int
) -> Shown:
    """What the faces of seeds show when one label is asked for with a value and the others are those of real faces."""
    found = []
    for start in range(0, len(seeds), BLOCK):
        some = seeds[start : start + BLOCK]
        found.append(eye(to_pixels(sampler.sample(some, {name: value}), some[0])))
        judged.told("requests", len(some), 2 * labels * len(seeds))
    return np.concatenate(found) > 0.5


def leaks(scores: list[Score]) -> list[str]:
    """The leak matrix in lines: a row for each label that was asked for, and by how much each label's share changed."""
    rows = [score.passport for score in scores if "leak" in score.passport]
    if not rows:
        return []
    asked = [str(row["label"]) for row in rows]
    width = max(map(len, asked))
    head = " ".join(f"{name[:10]:>10}" for name in asked)
    lines = ["", "what changes when a label is asked for:", f"{'':<{width}}  {head}"]
    for name, row in zip(asked, rows, strict=True):
        lines.append(f"{name:<{width}}  " + " ".join(f"{row['leak'][other]:>+10.2f}" for other in asked))
    return lines
