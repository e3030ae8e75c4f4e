"""Evaluates a model against a pack, or one folder of images against another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mien.core.run import Device
from mien.data import open_data
from mien.data.open import is_elsewhere, is_prepared
from mien.data.pack import Pack
from mien.errors import DataError, Mismatch, UsageError
from mien.metrics.evaluate import DEFAULT, Legacy, inception, measure, samples_of, split_names
from mien.metrics.features import Extractor
from mien.metrics.images import FirstImages, Images, PackImages
from mien.metrics.inputs import MetricInputs
from mien.metrics.scores import Scores
from mien.sampling import bundled
from mien.sampling.sampler import Sampler
from mien.storage.run_directory import read_json


def evaluate(
    model: str | Path | Sampler,
    *,
    data: str | Path | None = None,
    metrics: str | Sequence[str] = DEFAULT,
    samples: int | None = None,
    split: str = "train",
    legacy: Legacy | None = None,
    extractor: Extractor | None = None,
    precision: str = "auto",
    device: Device = "auto",
    code: Path | None = None,
) -> Scores:
    """Evaluate a model against its data: `evaluate("runs/x", metrics=("fid", "kid"))`, as `mien evaluate` does.

    `model` is a run, a checkpoint or a file, or the result of `mien.load`; `data` is a pack, by default that of the run. A custom
    `extractor` replaces Inception. Warnings go to stderr. Only features of real images are written (to the cache).
    Raises UsageError for invalid arguments, DataError for images that cannot be evaluated, Mismatch for data of another size.
    """
    sampler = model if isinstance(model, Sampler) else Sampler.load(model, device=device, precision="fp32", code=code)
    name = "the model" if isinstance(model, Sampler) else str(model)
    pack = open_pack(str(data) if data is not None else training_data_of(Path(name)), sampler)
    chosen = extractor or inception(legacy, precision, sampler.device_context.device.type)
    inputs = of_model(sampler, name, pack, split, samples, chosen)
    inputs.legacy = legacy
    scores = Scores(measure(inputs, split_names(metrics) if isinstance(metrics, str) else metrics))
    for warning in inputs.warnings:
        print(f"mien: {warning}", file=sys.stderr)
    return scores


def of_model(
    sampler: Sampler, name: str, pack: Pack, split: str, samples: int | None, chosen: Extractor
) -> MetricInputs:
    """Inputs to compare a model's samples with a pack."""
    reference = PackImages(pack, split)
    if not reference.count:
        raise DataError(
            f"{pack.path} has no {split} images.", "Its split is empty.", "Use --split all, or prepare with --holdout."
        )
    unseen = PackImages(pack, "holdout") if split == "train" else None
    inputs = MetricInputs(
        fake=samples_of(sampler, reference, samples, name),
        reference=reference,
        extractor=chosen,
        unseen=unseen if unseen and unseen.count > 1 else None,
        sampler=sampler,
        device=sampler.device_context.device.type,
    )
    trained_on = sampler.header.get("data", {}).get("fingerprint")
    if trained_on != pack.fingerprint:
        inputs.warnings.append(f"{name} was trained on other data than {pack.path}: memorisation says nothing of it")
    return inputs


def of_images(real: Images, fake: Images, samples: int | None, chosen: Extractor, device: str) -> MetricInputs:
    """Inputs to compare one set of images with another."""
    return MetricInputs(
        fake=FirstImages(fake, samples) if samples else fake, reference=real, extractor=chosen, device=device
    )


def open_pack(data: str, sampler: Sampler) -> Pack:
    """Open the reference pack. Raises Mismatch for a model of another size."""
    pack = open_data(data, sampler.image_spec.side)
    if pack.side != sampler.image_spec.side:
        raise Mismatch(
            f"The model draws {sampler.image_spec.side} px, {data} holds {pack.side} px.",
            "Resizing one to the other would be part of the score.",
            f"Prepare a pack with --size {sampler.image_spec.side}.",
        )
    return pack


def training_data_of(model: Path) -> str:
    """The path of a run's training data, from the data.json above the model. Raises UsageError where that names no pack.

    A run may come from anybody: photographs that it names are not read, no folder is searched for them, and no other machine
    is asked.
    """
    run = run_of(model)
    known = read_json(run / "data.json") if run else None
    if run is None:
        raise UsageError(f"{model} has no training data recorded.", "It is not a run.", "Give a pack with --data.")
    if known is None or not isinstance(known.get("name"), str):
        raise UsageError(
            f"{run} does not say what it was trained on.", "Its data.json cannot be read.", "Give the pack with --data."
        )
    if is_elsewhere(known["name"]):
        raise UsageError(
            f"{run} was trained on {known['name'][:200]}.",
            "An address that stands in a run is not opened.",
            "If you trust it, give it with --data.",
        )
    if not is_prepared(known["name"]):
        raise UsageError(
            f"{run} was trained on {known['name'][:200]}.", "That is no pack here.", "Give the pack with --data."
        )
    return str(known["name"])


def run_of(model: Path) -> Path | None:
    """The run directory that is, or contains, a model."""
    path = bundled.locate(model) if str(model) in bundled.names() else model
    return next((place for place in (path, *path.resolve().parents[:3]) if (place / "run.json").is_file()), None)
