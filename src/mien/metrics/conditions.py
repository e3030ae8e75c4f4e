"""Does a face show what it was requested to show, and what else changed: judged by a network that has seen real faces alone."""

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
from mien.metrics.inputs import MetricInputs
from mien.metrics.scores import Score
from mien.sampling.sampler import Sampler

MAX_SEEDS = 500  # faces that are drawn with each label on, and again with it off
BLOCK = 64  # faces at a time
MIN_EXAMPLES = 500  # examples of yes and of no that a label needs to count in the mean

Detected = npt.NDArray[np.bool_]  # [seeds, labels]


def conditions(inputs: MetricInputs) -> Iterator[Score]:
    """The classifier's own accuracy, the mean over labels of how often a wish comes true, then each label with what leaks.

    Every label is requested on and off for the same latents, with the other labels of a real face. A score is the mean of two
    shares: faces requested for with the label that show it, and faces requested for without that do not.
    """
    sampler, pack = model_and_pack(inputs)
    classifier = attributes_of(pack, inputs.device, inputs.on_progress)
    names = [name for name in sampler.label_names if name in pack.label_names]
    seeds = range(max(2, min(inputs.fake.count // 2, MAX_SEEDS)))
    known = [classifier.accuracy[name] for name in names if np.isfinite(classifier.accuracy[name])]
    protocol = inputs.protocol(classifier, samples=2 * len(seeds))
    own = {"classifier": {name: classifier.accuracy[name] for name in names}, "held_out": classifier.held_out}
    mean = float(np.mean(known)) if known else float("nan")
    yield Score.of("classifier", "classifier", Estimate(mean, mean, mean, "none"), {**protocol, **own})
    counts = examples(pack)
    success: dict[str, npt.NDArray[np.float64]] = {}
    single = []
    for place, name in enumerate(names):
        on, off = (detected(inputs, sampler, classifier, seeds, name, value, place, len(names)) for value in (1.0, 0.0))
        column = pack.label_names.index(name)
        success[name] = np.asarray(on[:, column] * 0.5 + ~off[:, column] * 0.5, np.float64)
        leak = {
            other: round(float(on[:, index].mean() - off[:, index].mean()), 4)
            for index, other in enumerate(pack.label_names)
        }
        beside: dict[str, Any] = {
            "label": name,
            "shown_when_asked": float(on[:, column].mean()),
            "shown_when_not": float(off[:, column].mean()),
            "classifier": classifier.accuracy[name],
            "examples": counts[name],
            "leak": leak,
        }
        estimate = bootstrap(success[name])
        single.append(Score.of("condition", f"condition_{name}", estimate, {**protocol, **beside}))
    common = [name for name in names if min(counts[name].values()) >= MIN_EXAMPLES] or names
    whole = bootstrap(np.mean([success[name] for name in common], axis=0))
    yield Score.of("conditions", "conditions", whole, {**protocol, **own, "labels": common})
    yield from single


def model_and_pack(inputs: MetricInputs) -> tuple[Sampler, Pack]:
    """The model and the labelled pack. Raises DataError where either knows no labels."""
    pack = inputs.reference.pack if isinstance(inputs.reference, PackImages) else None
    if inputs.sampler is None or pack is None:
        raise DataError(
            "Nothing can be requested of a folder of images.",
            "`conditions` asks a model for labels.",
            "Judge a run against its pack.",
        )
    if not set(inputs.sampler.label_names) & set(pack.label_names):
        raise DataError(
            "The model and the pack share no labels.",
            f"The model knows {', '.join(inputs.sampler.label_names) or 'none'}.",
            "Judge a conditional model against a pack with its labels.",
        )
    return inputs.sampler, pack


def examples(pack: Pack) -> dict[str, dict[str, int]]:
    """How many training images have each label, and how many have not."""
    assert pack.labels is not None
    labels = pack.labels[pack.rows()]
    with np.errstate(invalid="ignore"):
        yes, no = (labels > 0.5).sum(0), (labels <= 0.5).sum(0)
    return {name: {"yes": int(yes[i]), "no": int(no[i])} for i, name in enumerate(pack.label_names)}


def detected(
    inputs: MetricInputs,
    sampler: Sampler,
    classifier: Attributes,
    seeds: range,
    name: str,
    value: float,
    place: int,
    labels: int,
) -> Detected:
    """What the faces of seeds show when one label is requested for with a value and the others are those of real faces."""
    found = []
    for start in range(0, len(seeds), BLOCK):
        some = seeds[start : start + BLOCK]
        found.append(classifier(to_pixels(sampler.sample(some, {name: value}), some[0])))
        inputs.on_progress("requests", len(some), 2 * labels * len(seeds))
    return np.concatenate(found) > 0.5


def leaks(scores: list[Score]) -> list[str]:
    """The leak matrix in lines: a row for each label that was requested for, and by how much each label's share changed."""
    rows = [score.protocol for score in scores if "leak" in score.protocol]
    if not rows:
        return []
    requested = [str(row["label"]) for row in rows]
    width = max(map(len, requested))
    head = " ".join(f"{name[:10]:>10}" for name in requested)
    lines = ["", "what changes when a label is requested for:", f"{'':<{width}}  {head}"]
    for name, row in zip(requested, rows, strict=True):
        lines.append(f"{name:<{width}}  " + " ".join(f"{row['leak'][other]:>+10.2f}" for other in requested))
    return lines
