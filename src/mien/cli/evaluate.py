"""`mien evaluate`: scores of a model, or of two folders of images, each with its protocol."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from PIL import Image
from tqdm import tqdm

from mien.cli.arguments import within
from mien.cli.fitted_prior import FittedPrior, PriorOptions
from mien.cli.model_options import CodeFile, ComputeDevice, Drawing, LoadOptions
from mien.cli.result import Result
from mien.core import distributed
from mien.core.device import DeviceContext
from mien.data.open import check_source
from mien.errors import DataError, StorageError, UsageError
from mien.metrics.api import of_images, of_model, open_pack, run_of, training_data_of
from mien.metrics.conditions import leaks
from mien.metrics.evaluate import DEFAULT, Legacy, inception, known, load_extractor, measure, split_names
from mien.metrics.features import Extractor
from mien.metrics.images import open_images
from mien.metrics.inputs import MetricInputs
from mien.metrics.scores import Score
from mien.presets import check_code
from mien.report.grid import grid, save_png
from mien.sampling.bundled import model_file
from mien.sampling.options import DrawOptions
from mien.storage.bounded_json import dumps
from mien.storage.provenance import Claim
from mien.storage.regular_file import append_text
from mien.storage.run_directory import check_folders


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
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    device: ComputeDevice = "auto",
    code: CodeFile = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    prior: FittedPrior = PriorOptions(),
    options: Drawing = DrawOptions(),
) -> Result | None:
    """Score a model against its data, or one folder of images against another.

    Every score carries its protocol and a 95% interval. Examples:

        mien evaluate RUN
        mien evaluate VAE --prior fitted
        mien evaluate RUN --data faces.pack --metrics fid,kid --samples 5000
        mien evaluate CGAN --metrics conditions --guidance 2
        mien evaluate RUN --metrics fid,prdc --truncation 0.7
        mien evaluate --real photos/ --fake made-by-anything/
        mien evaluate --real a/ --fake b/ --legacy pytorch-fid --metrics fid
        torchrun --nproc-per-node 4 -m mien evaluate RUN

    Parameters
    ----------
    model
        A run, a checkpoint inside it, a .safetensors file, or a bundled model: faces, drawn.
    data
        Pack to evaluate against; by default, the run's own.
    real
        A folder, ZIP or pack of real images.
    fake
        A folder, ZIP or pack of generated images.
    metrics
        Metrics: fid, kid, mind, prdc, memorisation, identity, sface, diversity, reconstruction, ppl, conditions.
    samples
        Number of samples, seeds 0 to N-1; by default as many as there are real images, at most 10,000.
    split
        Split of the pack that is the reference: train, holdout or all.
    legacy
        Reproduce another package, with its resizing and value range: pytorch-fid, torch-fidelity or clean-fid.
    extractor
        FILE.py:NAME, a function without arguments that returns your own feature extractor, instead of Inception.
    precision
        Precision of the extractor; auto = bf16 if the device computes it in hardware.
    out
        Folder for the scores and the nearest pairs; by default eval/ in the run.
    """
    engine = DeviceContext.choose(device, "fp32")
    with distributed.world(engine.device.type) as world:
        words, here = known(split_names(metrics)), engine.device.type
        check_code(code)
        check_named(model, data, real, fake, samples, options)
        own = load_extractor(extractor) if extractor else None
        listener = Listener(quiet=not world.first)

        def chosen() -> Extractor:  # last, since it may be downloaded
            return own or inception(legacy, precision, here, words)

        if model is not None:
            sampler = LoadOptions(device=device, code=code).load(model, options)
            source = data or training_data_of(model)
            pack = open_pack(source, sampler)
            inputs = of_model(prior.apply(sampler, source, model), str(model), pack, split, samples, chosen())
            out = out or eval_folder(model)
        else:
            assert real and fake, "checked above"
            images = open_images(real), open_images(fake)
            inputs = of_images(*images, samples, chosen(), engine.device.type)
        inputs.legacy, inputs.on_progress = legacy, listener
        scores = measure(inputs, words)
        listener.close()
        if not world.first:
            return None
        files = save(inputs, scores, out, model) if out else []
    for warning in inputs.warnings:
        print(f"mien: {warning}", file=sys.stderr)
    found = {"scores": [score.json() for score in scores], "warnings": inputs.warnings, "files": files}
    return Result("\n".join([*table(scores), *leaks(scores), *files]), found)


def check_named(
    model: Path | None,
    data: str | None,
    real: Path | None,
    fake: Path | None,
    samples: int | None,
    options: DrawOptions = DrawOptions(),
) -> None:
    """Raises UsageError or DataError for what cannot be evaluated, before anything is downloaded or computed."""
    if model is not None and (real or fake):
        raise UsageError("A model and folders are both named.", "One of them is evaluated at a time.", "Leave one out.")
    if model is None and not (real and fake):
        raise UsageError(
            "There is nothing to evaluate.",
            "Neither a model nor two folders are named.",
            "Write `mien evaluate RUN`, or `mien evaluate --real FOLDER --fake FOLDER`.",
        )
    if model is None and options.metadata:
        raise UsageError(
            f"--{next(iter(options.metadata))} needs a model.",
            "It says how a model draws, and folders are drawn already.",
            "Leave it out, or evaluate a model.",
        )
    check_samples(samples)
    check_source(data)
    if model is not None and not str(model).startswith("hf:/"):  # which is downloaded when the rest is checked
        model_file(model)
    for path in (real, fake):
        if path is not None and not path.exists():
            raise DataError(f"There is no {path}.", "The path does not exist.", "Check the spelling.")


def check_samples(samples: int | None) -> None:
    """Raises UsageError for less than two."""
    if samples is not None:
        within("samples", samples, 2, None, "One image has no variance.", "Give --samples 2000.")


def eval_folder(model: Path) -> Path | None:
    """The folder of a run's scores. Raises Untrusted where a folder of the run leads out of it."""
    if run := run_of(model):
        check_folders(run)
    return run / "eval" if run else None


class Listener:
    """A progress bar on stderr for every set of images that is read."""

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
    """Name, value and confidence interval, a line each."""
    width = max(len(score.name) for score in scores)
    return [f"{s.name:<{width}}  {s.value:10.4f}   [{s.low:.4f}, {s.high:.4f}]" for s in scores]


def save(inputs: MetricInputs, scores: Sequence[Score], out: Path, model: Path | None) -> list[str]:
    """Append each score to `out/METRIC.jsonl`, and write the pictures. Returns the pictures' paths."""
    seen = seen_of(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for score in scores:
            line = {**({} if seen is None else {"seen": seen}), **score.json()}
            append_text(out / f"{score.metric}.jsonl", dumps(line) + "\n")
        files = []
        for name, pixels in inputs.pictures.items():
            cells = [Image.fromarray(image) for image in pixels]
            path = out / f"{name}.png"
            save_png(
                grid(cells, columns=len(cells) // 2),
                path,
                {"shows": "samples above their nearest training image"},
                Claim.BESIDE_PHOTOGRAPH,
            )
            files.append(str(path))
        return files
    except OSError as error:
        raise StorageError(f"{out} cannot be written.", str(error), "Name another folder with --out.") from error


def seen_of(model: Path | None) -> int | None:
    """The images a checkpoint had seen, from its folder's name."""
    if model is None:
        return None
    name = model_file(model).resolve().parent.name
    return int(name) if name.isdecimal() else None
