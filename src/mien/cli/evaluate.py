"""`mien evaluate`: scores of a model, or of two folders made by anything, each with its passport."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from PIL import Image
from tqdm import tqdm

from mien.cli.fitted_prior import Latents, drawing
from mien.cli.result import Result
from mien.core import distributed
from mien.core.device import DeviceContext
from mien.core.run import Device
from mien.errors import StorageError, UsageError
from mien.metrics.api import home_of, of_folders, of_model, own_data
from mien.metrics.conditions import leaks
from mien.metrics.evaluate import DEFAULT, Legacy, inception, known, load_extractor, measure, words_of
from mien.metrics.inputs import Judged
from mien.metrics.scores import Score
from mien.report.grid import grid, save_png
from mien.sampling.density import Kind
from mien.sampling.sampler import Sampler
from mien.storage.checkpoint import find_model


def evaluate(
    model: Path | None = None,
    /,
    *,
    data: str | None = None,
    real: Path | None = None,
    fake: Path | None = None,
    metrics: str = ",".join(DEFAULT),
    samples: int | None = None,
    split: Literal["train", "holdout", "all"] = "train",
    legacy: Legacy | None = None,
    extractor: str | None = None,
    latents: Latents = "prior",
    density: Kind = "mixture",
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    device: Device = "auto",
    code: Path | None = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
) -> Result | None:
    """Judge a model against its data, or one folder of images against another.

    Every score carries its protocol and a 95% interval. Examples:

        mien evaluate RUN
        mien evaluate VAE --latents fitted
        mien evaluate RUN --data faces.pack --metrics fid,kid --samples 5000
        mien evaluate CGAN --metrics conditions
        mien evaluate --real photos/ --fake made-by-anything/
        mien evaluate --real a/ --fake b/ --legacy pytorch-fid --metrics fid
        torchrun --nproc-per-node 4 -m mien evaluate RUN

    Parameters
    ----------
    model
        A run, a checkpoint inside it, or a .safetensors file.
    data
        The pack to judge it against; a run knows its own.
    real
        A folder, ZIP or pack of real images.
    fake
        A folder, ZIP or pack of images to judge.
    metrics
        Of fid, kid, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        How many faces are drawn: seeds 0 to N-1; as many as there are real images by default, at most 10,000.
    split
        The part of the pack that is the reference.
    legacy
        The numbers of another package, with its resizing and its range: pytorch-fid, torch-fidelity or clean-fid.
    extractor
        FILE.py:NAME, a function without arguments that gives an extractor of your own, in place of Inception.
    latents
        prior: as the model was taught; fitted: from a density of the encodings of real faces, fitted on first use and kept with the
        model.
    density
        Of fitted latents: a mixture of normal distributions, or a flow.
    precision
        Of the extractor; bf16 where it is computed in hardware.
    device
        Where to compute.
    code
        The file of a model of your own.
    out
        A folder for the scores and the closest pairs; by default eval/ in the run, where there is one.
    """
    engine = DeviceContext.choose(device, "fp32")
    with distributed.world(engine.device.type) as world:
        words, here = known(words_of(metrics)), engine.device.type
        eye = load_extractor(extractor) if extractor else inception(legacy, precision, here, words)
        listener = Listener(quiet=not world.first)
        if model is not None and (real or fake):
            raise UsageError("Both a model and folders were named.", "One thing is judged at a time.", "Leave one out.")
        if model is not None:
            sampler = Sampler.load(model, device=device, precision="fp32", code=code)
            source = data or own_data(model)
            sampler = drawing(sampler, latents, density, source, model)
            judged = of_model(sampler, str(model), source, split, samples, eye)
            out = out or eval_folder(model)
        elif real and fake:
            judged = of_folders(real, fake, samples, eye, engine.device.type)
        else:
            raise UsageError(
                "There is nothing to judge.",
                "Neither a model nor both folders were named.",
                "Write `mien evaluate RUN`, or `mien evaluate --real FOLDER --fake FOLDER`.",
            )
        judged.legacy, judged.told = legacy, listener
        scores = measure(judged, words)
        listener.close()
        if not world.first:
            return None
        files = save(judged, scores, out, model) if out else []
    for warning in judged.warnings:
        print(f"mien: {warning}", file=sys.stderr)
    found = {"scores": [score.json() for score in scores], "warnings": judged.warnings, "files": files}
    return Result("\n".join([*table(scores), *leaks(scores), *files]), found)


def eval_folder(model: Path) -> Path | None:
    """Where a run keeps its scores."""
    run = home_of(model)
    return run / "eval" if run else None


class Listener:
    """A progress bar on stderr for every set of images that is looked at."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.what = quiet, ""
        self.bar: tqdm[Any] | None = None

    def __call__(self, what: str, count: int, total: int) -> None:
        if self.quiet:
            return
        if self.bar is None or self.what != what or self.bar.n >= total:
            self.close()
            self.what = what
            self.bar = tqdm(total=total, desc=what, unit=" images", leave=False, disable=None, mininterval=0.5)
        self.bar.update(min(count, total - self.bar.n))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def table(scores: Sequence[Score]) -> list[str]:
    """Name, value and interval, a line each."""
    width = max(len(score.name) for score in scores)
    return [f"{s.name:<{width}}  {s.value:10.4f}   [{s.low:.4f}, {s.high:.4f}]" for s in scores]


def save(judged: Judged, scores: Sequence[Score], out: Path, model: Path | None) -> list[str]:
    """Append each score to `out/METRIC.jsonl`, and write the pictures. Returns the pictures' paths."""
    seen = seen_of(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for score in scores:
            with (out / f"{score.metric}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**({} if seen is None else {"seen": seen}), **score.json()}) + "\n")
        files = []
        for name, pixels in judged.pictures.items():
            cells = [Image.fromarray(image) for image in pixels]
            path = out / f"{name}.png"
            save_png(
                grid(cells, columns=len(cells) // 2), path, {"shows": "samples above their nearest training image"}
            )
            files.append(str(path))
        return files
    except OSError as error:
        raise StorageError(f"{out} cannot be written.", str(error), "Name another folder with --out.") from error


def seen_of(model: Path | None) -> int | None:
    """The images a checkpoint had seen, from its folder's name."""
    if model is None:
        return None
    name = find_model(model).resolve().parent.name
    return int(name) if name.isdigit() else None
