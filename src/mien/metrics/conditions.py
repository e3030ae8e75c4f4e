"""Label accuracy of a conditional model, and leakage to other labels, by a classifier trained on real faces only."""

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
MIN_EXAMPLES = 500  # positive and negative examples that a label needs to count in the mean

Detected = npt.NDArray[np.bool_]  # [seeds, labels]


def conditions(inputs: MetricInputs) -> Iterator[Score]:
    """The classifier's accuracy, the mean label accuracy of the model, then each label with its leakage.

    Every label is set on and off for the same latents, with the other labels of a real face. A score is the mean of two
    shares: faces generated with the label that show it, and faces generated without it that do not.
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
    counts, suffix = examples(pack), f"_{inputs.drawing}" if inputs.drawing else ""
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
        single.append(Score.of("condition", f"condition_{name}{suffix}", estimate, {**protocol, **beside}))
    common = [name for name in names if min(counts[name].values()) >= MIN_EXAMPLES] or names
    whole = bootstrap(np.mean([success[name] for name in common], axis=0))
    yield Score.of("conditions", f"conditions{suffix}", whole, {**protocol, **own, "labels": common})
    yield from single


def model_and_pack(inputs: MetricInputs) -> tuple[Sampler, Pack]:
    """The model and the labelled pack. Raises DataError if either has no labels."""
    pack = inputs.reference.pack if isinstance(inputs.reference, PackImages) else None
    if inputs.sampler is None or pack is None:
        raise DataError(
            "Labels cannot be set for a folder of images.",
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
    """The numbers of training images with and without each label."""
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
    """The labels detected in the faces of seeds, when one label has a set value and the others are those of real faces."""
    found = []
    for start in range(0, len(seeds), BLOCK):
        some = seeds[start : start + BLOCK]
        found.append(classifier(to_pixels(sampler.sample(some, {name: value}), some[0])))
        inputs.on_progress("requests", len(some), 2 * labels * len(seeds))
    return np.concatenate(found) > 0.5


def leaks(scores: list[Score]) -> list[str]:
    """The leakage matrix as text: a row for each label that was set, and the change of each label's share."""
    rows = [score.protocol for score in scores if "leak" in score.protocol]
    if not rows:
        return []
    requested = [str(row["label"]) for row in rows]
    width = max(map(len, requested))
    head = " ".join(f"{name[:10]:>10}" for name in requested)
    lines = ["", "what changes when a label is set:", f"{'':<{width}}  {head}"]
    for name, row in zip(requested, rows, strict=True):
        lines.append(f"{name:<{width}}  " + " ".join(f"{row['leak'][other]:>+10.2f}" for other in requested))
    return lines
