"""The bundled models: each trained, judged and put into the package by one command that can be interrupted.

    python benchmarks/base_models.py faces WORK_DIR --archive fairface-adults-128.zip     everything
    python benchmarks/base_models.py drawn WORK_DIR                                       the same on mien's drawn faces
    python benchmarks/base_models.py faces WORK_DIR --run RUN_DIR                         a run that exists, its newest checkpoint
    python benchmarks/base_models.py faces WORK_DIR --run RUN_DIR --steps judge,card      some steps, in their order

Steps: pack, train, half (the candidate in WORK_DIR/NAME, in half precision), judge, coverage, order, directions, sheet, card and
install. What is done for this model is not done again. `install` copies the candidate into the package, unless it memorises.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mien.data import open_data
from mien.data.pack import Pack
from mien.metrics.api import training_data_of
from mien.metrics.attributes import EVERY, Attributes, attributes_of, scaled
from mien.metrics.features import PerceptualFeatures
from mien.metrics.images import Pixels, to_pixels
from mien.report.card import code
from mien.report.formatting import duration
from mien.report.grid import read_recipe, save_png
from mien.sampling import bundled
from mien.sampling.order import SEEDS, by_density, quality_order, store
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint

Shares = npt.NDArray[np.float64]  # [labels]
Shown = npt.NDArray[np.bool_]  # [n, labels]

SIDE = 64
MINUTES = 180.0  # of one core
METRICS = "fid,kid,prdc,sface,memorisation,identity"
#: Without photographs, no network that recognises people.
DRAWN_METRICS = "fid,kid,prdc,memorisation"
SAMPLES = 5_000
COPIES = ("memorisation", "memorisation_pixels", "memorisation_identity")  # scores that a bundled model must pass
MODEL_BYTES = 4_000_000  # of a model with its critic
BATCH = 256  # faces at a time
PROJECTED = 512  # numbers of a face, by which its neighbours are found
ONE_OF = ("age", "group")  # prefixes of labels of which a face has exactly one
FAIRFACE = (
    "FairFace (Kärkkäinen and Joo, *FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age*, WACV 2021), "
    "CC BY 4.0, cropped and aligned: 13,472 near-frontal, sharp and well-lit faces of adults, level and aligned by the eyes. "
    "The labels of age, gender and group are annotators' guesses, some of them wrong."
)
DRAWN = "8,000 drawn faces that mien generates from parts by Pablo Stanley (avataaars), by the package python-avatars (MIT)."
TITLES = {"faces": "faces: a generator of photographed faces", "drawn": "drawn: a generator of drawn faces"}


def command(*arguments: object) -> str:
    """The standard output of a command of mien."""
    line = [sys.executable, "-m", "mien", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass
class Base:
    """One bundled model on its way."""

    name: str
    work: Path
    archive: Path | None
    run_dir: Path | None
    samples: int
    minutes: float

    @property
    def run(self) -> Path:
        """The run that is trained, or the one that exists."""
        return self.run_dir or self.work / f"{self.name}-run"

    @property
    def candidate(self) -> Path:
        """The folder that will be bundled."""
        return self.work / self.name

    @cached_property
    def sampler(self) -> Sampler:
        """The candidate: every figure is of the file that is bundled."""
        return Sampler.load(self.candidate, device="cpu")

    @cached_property
    def pack(self) -> Path:
        """The data of the run."""
        if self.name == "drawn":
            return Path("drawn")
        return Path(training_data_of(self.run_dir)) if self.run_dir else self.work / f"{self.name}{SIDE}.pack"

    @cached_property
    def data(self) -> Pack:
        """The same, open."""
        return open_data(str(self.pack), self.sampler.image_spec.side)

    def once(self, step: str, make: Callable[[], Any]) -> Any:
        """What a step found out about this candidate, computed only once."""
        file = self.work / f"{self.name}-{step}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get("model") != self.sampler.model_hash or known.get("samples") != self.samples:
            known = {"model": self.sampler.model_hash, "samples": self.samples, "found": make()}
            file.write_text(json.dumps(known, indent=1))
        return known["found"]


# The steps


def pack(base: Base) -> None:
    """Prepare the data, with a twentieth held out."""
    if base.name == "drawn" or base.run_dir is not None or base.pack.exists():
        return
    if base.archive is None:
        raise SystemExit("Name FairFace's archive: --archive fairface-adults-128.zip")
    command("data", "prepare", base.archive, base.pack, "--size", SIDE, "--crop", "center", "--holdout", "0.05")


def train(base: Base) -> None:
    """Train `gan` as it is, or go on; a finished run is left as it is."""
    if base.run_dir is not None:
        return
    data = () if base.name == "drawn" else ("--data", base.pack)
    command("train", "gan", *data, "--side", SIDE, "--out", base.run, "--threads", "1", "--minutes", base.minutes)


def half(base: Base) -> None:
    """Write the averaged model and the critic of the newest checkpoint in half precision."""
    model = checkpoint.find_model(base.run)
    tensors, header = checkpoint.read_model(model)
    state, _ = checkpoint.read_state(model.parent)
    helpers = {
        name.removeprefix("recipe."): tensor
        for name, tensor in state.items()
        if name.startswith("recipe.") and not name.startswith("recipe.model.")
    }
    content, file = checkpoint.pack_tensors(halved(tensors), header), base.candidate / bundled.MODEL
    if file.exists() and file.read_bytes() == content:
        return
    shutil.rmtree(base.candidate, ignore_errors=True)  # what was found out about another model
    base.candidate.mkdir(parents=True)
    file.write_bytes(content)
    recipe = json.loads((base.run / "run.json").read_text())["recipe"]
    critic = {"kind": "critic", "recipe": recipe, "model_sha256": checkpoint.file_hash(file)}
    (base.candidate / bundled.CRITIC).write_bytes(checkpoint.pack_tensors(halved(helpers), critic))
    size = sum((base.candidate / part).stat().st_size for part in (bundled.MODEL, bundled.CRITIC))
    exact = Sampler.load(model, device="cpu").sample(range(64))
    difference = (base.sampler.sample(range(64)) - exact).abs().max() * 127.5
    print(f"half: {size:,} bytes, at most {float(difference):.2f} of 255 levels from full precision")
    if size > MODEL_BYTES:
        raise SystemExit(f"The model and its critic have {size:,} bytes; at most {MODEL_BYTES:,} are bundled.")


def halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors in half precision; all of them must be in its range."""
    found = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    assert all(tensor.isfinite().all() for tensor in found.values()), "a number is out of the range of half precision"
    return found


def judge(base: Base) -> list[dict[str, Any]]:
    """Scores of the candidate against the training images, memorisation against the held-out ones."""
    metrics = DRAWN_METRICS if base.name == "drawn" else METRICS
    flags = ("--data", base.pack, "--metrics", metrics, "--samples", base.samples, "--device", "cpu", "--json")
    return base.once("judge", lambda: json.loads(command("evaluate", base.candidate, *flags))["scores"])  # type: ignore[no-any-return]


def coverage(base: Base) -> dict[str, Any]:
    """How often each label appears among samples, held-out faces, and the labels of the data."""
    return base.once("coverage", lambda: covered(base))  # type: ignore[no-any-return]


def covered(base: Base) -> dict[str, Any]:
    """What `coverage` is made of: shares of labels, and how often the classifier is right about held-out faces."""
    data, classifier = base.data, attributes_of(base.data)
    assert data.labels is not None
    names, rows, held = data.label_names, data.rows("train"), data.rows("holdout")
    if classifier.held_out != len(held):  # its own choice, of a pack that holds none out
        held = rows[::EVERY]
    share = np.nanmean(data.labels[rows] > 0.5, 0)
    parts = np.array_split(held, -(-len(held) // BATCH))
    real = np.concatenate([shown(classifier, data.images[part], share) for part in parts])
    starts = range(0, base.samples, BATCH)
    blocks = (base.sampler.sample(range(start, min(start + BATCH, base.samples))) for start in starts)
    made = np.concatenate([shown(classifier, to_pixels(block), share) for block in blocks])
    truth = data.labels[held] > 0.5
    labels = {
        name: {"data": float(a), "held_out": float(b), "samples": float(c), "accuracy": classifier.accuracy[name]}
        for name, a, b, c in zip(names, share, real.mean(0), made.mean(0), strict=True)
    }
    accuracy = {}
    for family, columns in families(names).items():
        right = (real[:, columns] == truth[:, columns]).all(1)
        accuracy[family] = float(right.mean())
    return {"labels": labels, "accuracy": accuracy, "held_out": len(held), "faces": base.samples}


def families(names: Sequence[str]) -> dict[str, list[int]]:
    """Labels that exclude each other, by their prefix; any other label alone."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        prefix = name.split("_")[0]
        found.setdefault(prefix if prefix in ONE_OF else name, []).append(place)
    return found


@torch.inference_mode()
def shown(classifier: Attributes, pixels: Pixels, share: Shares) -> Shown:
    """Which labels the classifier sees in uint8 images `[n, H, W, 3]`: `[n, labels]`.

    It was trained with yes and no of each label weighed alike: the log odds of the label in the data are added again. Of labels
    that exclude each other the likeliest is the one.
    """
    logits = classifier.network(scaled(pixels, classifier.device)).numpy() + np.log(share / (1 - share))
    found = logits > 0
    for columns in families(classifier.names).values():
        if len(columns) > 1:
            found[:, columns] = np.eye(len(columns), dtype=bool)[logits[:, columns].argmax(1)]
    return np.asarray(found)


def order(base: Base) -> None:
    """Rank the first seeds by the density of their faces, in AlexNet's features as LPIPS weighs them, projected at random.

    Not of drawn faces: hardly one is torn, and the densest are those without hair, beard or glasses, nearly all of one skin colour.
    """
    if base.name == "drawn" or quality_order(base.sampler):
        return
    network, projection, found = PerceptualFeatures("alex"), None, []
    for start in range(0, SEEDS, BATCH):
        features = torch.from_numpy(network(to_pixels(base.sampler.sample(range(start, start + BATCH)))))
        if projection is None:
            projection = torch.randn(features.shape[1], PROJECTED, generator=torch.Generator().manual_seed(0))
        found.append(features @ projection)
    store(base.sampler, by_density(torch.cat(found)))


def directions(base: Base) -> None:
    """Find the directions of what can be measured in a face."""
    if not base.sampler.directions:
        command("directions", base.candidate, "--measured")
        vars(base).pop("sampler")  # it is loaded again, with them


def sheet(base: Base) -> None:
    """Draw seeds 0 to 63, none left out; and, beside the candidate, the first 64 of the quality order."""
    flags = ("--columns", 8, "-o")
    target = base.candidate / bundled.SHEET
    command("sample", base.candidate, "--seeds", "0-63", *flags, target)
    with Image.open(target) as picture:  # 256 colours are a third of the bytes
        few = picture.convert("RGB").quantize(256, kmeans=3)
    save_png(few, target, read_recipe(target))
    best = ",".join(map(str, quality_order(base.sampler)[:64]))
    command("sample", base.candidate, "--seeds", best or "0-63", *flags, base.work / f"{base.name}-best.png")


def card(base: Base) -> None:
    """Write the card."""
    (base.candidate / bundled.CARD).write_text(text_of_card(base), encoding="utf-8")


def install(base: Base) -> None:
    """Copy the candidate into the package, if it does not memorise."""
    worst = [score for score in judge(base) if score["metric"] in COPIES and score["low"] > 0]
    if worst:
        names = ", ".join(f"{score['name']} {score['value']:.4f}" for score in worst)
        raise SystemExit(f"{base.name} is not bundled: it memorises more than held-out faces would ({names}).")
    target = bundled.FOLDER / base.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base.candidate, target)
    print(f"{target}: {sum(file.stat().st_size for file in target.rglob('*') if file.is_file()):,} bytes")


# The card

CARD = """---
library_name: mien
license: apache-2.0
tags: [faces, image-generation, unconditional-image-generation]
---
# {title}

{side} by {side} pixels, {parameters:,} parameters, preset `{preset}` of mien. The faces are synthetic and show no real person.

## Training data

{data}
{licence}

## Training

{seen:,} images in {time} on {machine}:

```
mien {command}
```

## Scores

Of {samples:,} samples, drawn by this file in half precision, against the {training:,} training images; memorisation against
{baseline}: 0 is what chance gives, and a model whose interval is above 0 is not bundled.

| score | value | 95% interval |
|---|---|---|
{scores}
{coverage}{directions}
## Intended use and limits

For play, study, art and research on generative models. The faces carry whatever is common, rare or missing in the training
images. Do not use them as evidence of anybody, to decide about anybody, or as a stand-in for real people in a study. Do not pass
them off as real people, for false accounts, or to deceive. Files written by mien say in their metadata that they are synthetic;
leave that in place.
"""
COVERAGE = """
## Coverage

How often each label of the data appears, as a small classifier sees it. It was trained on the training images; of {held_out:,}
held-out faces it is right about: {accuracy}. The last two columns are judged by it alike: compare them with each other.

| label | in the data | held-out faces, judged | {faces:,} samples, judged |
|---|---|---|---|
{rows}
"""
DIRECTIONS = """
## Directions

Found by `mien directions MODEL --measured` on this model's own faces, without labels. The correlation of the amount with what is
measured, on unseen seeds, and the largest correlation with anything else that is measured.

| direction | correlation | largest leak |
|---|---|---|
{rows}
"""


def text_of_card(base: Base) -> str:
    """The card as Markdown."""
    run, status, env = (json.loads((base.run / f"{name}.json").read_text()) for name in ("run", "status", "env"))
    held = len(base.data.rows("holdout"))
    licence = "The weights are given under Apache-2.0, as mien is"
    rows = [f"| {s['name']} | {s['value']:.4g} | {s['low']:.4g} to {s['high']:.4g} |" for s in judge(base)]
    threads = f"{env['threads']} thread{'s' * (env['threads'] != 1)}"
    return CARD.format(
        title=TITLES[base.name],
        side=base.sampler.image_spec.side,
        parameters=sum(parameter.numel() for parameter in base.sampler.model.parameters()),
        preset=code(run["preset"]),
        data=DRAWN if base.name == "drawn" else FAIRFACE,
        licence=f"{licence}."
        if base.name == "drawn"
        else f"{licence}; whoever passes them on names FairFace as above.",
        seen=int(checkpoint.find_model(base.run).resolve().parent.name),
        time=duration(status["seconds"]),
        machine=f"{threads} of a {env['device']} ({env.get('capability', '')}, {env['precision']}, torch {env['torch']})",
        command=" ".join(Path(word).name if word.startswith("/") else word for word in run["command"].split()),
        samples=base.samples,
        training=len(base.data.rows("train")),
        baseline=f"{held:,} held-out faces" if held else "the distances between training images",
        scores="\n".join(rows),
        coverage=text_of_coverage(base),
        directions=text_of_directions(base),
    )


def text_of_coverage(base: Base) -> str:
    """The section on coverage; nothing for data without labels."""
    if base.data.labels is None:
        return ""
    found = coverage(base)
    rows = [
        f"| {name.replace('_', ' ')} | {entry['data']:.1%} | {entry['held_out']:.1%} | {entry['samples']:.1%} |"
        for name, entry in found["labels"].items()
    ]
    accuracy = ", ".join(f"{name.replace('_', ' ')} {value:.0%}" for name, value in found["accuracy"].items())
    return COVERAGE.format(held_out=found["held_out"], accuracy=accuracy, faces=found["faces"], rows="\n".join(rows))


def text_of_directions(base: Base) -> str:
    """The section on directions; nothing for a model without."""
    rows = [
        f"| {name} | {direction.facts['correlation']:.2f} | {direction.facts['leak']:.2f} ({direction.facts['leaks_to']}) |"
        for name, direction in base.sampler.directions.items()
        if direction.facts.get("found") == "measures"
    ]
    return DIRECTIONS.format(rows="\n".join(rows)) if rows else ""


STEPS: dict[str, Callable[[Base], Any]] = {
    step.__name__: step for step in (pack, train, half, judge, coverage, order, directions, sheet, card, install)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(TITLES))
    parser.add_argument("work", type=Path)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    base = Base(given.name, given.work, given.archive, given.run, given.samples, given.minutes)
    for step in given.steps.split(","):
        print(f"{step} ...", flush=True)
        STEPS[step](base)


if __name__ == "__main__":
    main()
