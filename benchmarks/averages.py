"""How long to average weights: one run goes on for a while with several averages beside it, and each is judged.

    python benchmarks/averages.py RUN PACK OUT --images 12000 --half-lives 500 1000 2000 5000 --threads 2

RUN is a run with an average, PACK what it learned from. Averaging has no part in learning, so what is judged is what runs
with those half-lives would have drawn; after twelve half-lives nothing is left of where an average began. RUN stays as it is.
A half-life of 1 is no average. For each: FID and KID of 2,000 samples against the first 2,000 images, and for a model with labels
the conditions met and the mean and least LPIPS within a setting of labels, made over real (`benchmarks/conditions.py`).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from conditions import PAIRS, mien, variety
from mien import presets
from mien.core import distributed
from mien.core.run import Run, from_json
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import DataError
from mien.metrics.evaluate import inception, measure
from mien.metrics.images import FirstImages, PackImages, SampledImages
from mien.metrics.inputs import MetricInputs
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.run_directory import read_json
from mien.training.ema import EMA
from mien.training.resolve import resolve_run

REQUESTS = 1000  # for each label, half on and half off


def go_on(run_dir: Path, pack: Path, out: Path, images: int, half_lives: list[int], threads: int) -> list[Path]:
    """Learn from so many images more. Writes and returns a model for every half-life."""
    described = read_json(run_dir / "run.json") or {}
    run: Run = from_json(Run, {k: v for k, v in described.items() if k in Run.__dataclass_fields__}, presets.KINDS)
    newest, _ = checkpoint.newest(run_dir / "checkpoints")
    if newest is None or run.ema is None:
        raise DataError(f"{run_dir} cannot be gone on from.", "It lacks a checkpoint or an average.", "Name another.")
    torch.set_num_threads(threads)
    with distributed.world("cpu") as world:
        plan = resolve_run(run, None, pack, world)
        learner = plan.initial_state(world)
        learner.restore(*checkpoint.read_state(newest))
        averages = [EMA(learner.recipe.model, replace(run.ema, half_life=n, warmup=0.0)) for n in half_lives]
        end = learner.seen + images
        batches = Loader(plan.pack, batch=run.batch, seed=run.seed, flip=run.flip, position=learner.seen)
        while learner.seen < end:
            before = learner.seen
            learner.step(batches)
            for average in averages:
                average.update(learner.recipe.model, learner.seen - before, learner.seen)
        batches.close()
    _, header = checkpoint.read_model(newest / "model.safetensors")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{half_life}.safetensors" for half_life in half_lives]
    for file, average in zip(files, averages, strict=True):
        file.write_bytes(checkpoint.pack_tensors(average.model.state_dict(), header))
    return files


def distances(model: Path, pack: Path, samples: int) -> tuple[float, float]:
    """FID and KID of so many samples against as many of the first images."""
    judged = MetricInputs(
        fake=SampledImages(Sampler.load(model, device="cpu"), samples),
        reference=FirstImages(PackImages(Pack.open(pack), "train"), samples),
        extractor=inception(),
        extrapolate=False,
    )
    fid, kid = (score.value for score in measure(judged, ["fid", "kid"]))
    return fid, kid


def conditions_met(model: Path, pack: Path) -> float:
    """The mean over labels of the share of requests that are met."""
    how = ("--metrics", "conditions", "--samples", REQUESTS, "--json", "--out", model.with_suffix(""))
    scores = json.loads(mien("evaluate", model, "--data", pack, *how))["scores"]
    return float(next(score["value"] for score in scores if score["name"] == "conditions"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--half-lives", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    files = [given.out / f"{half_life}.safetensors" for half_life in given.half_lives]
    if not all(file.exists() for file in files):
        files = go_on(given.run, given.pack, given.out, given.images, given.half_lives, given.threads)
    for half_life, file in zip(given.half_lives, files, strict=True):
        fid, kid = distances(file, given.pack, given.samples)
        parts = [f"FID {fid:.1f}, KID {kid:.4f}"]
        _, header = checkpoint.read_model(file)
        if header["faces"].get("label_dim"):
            shares = [made / real for _, made, real in variety(file, given.pack, PAIRS)]
            parts.append(f"conditions met {conditions_met(file, given.pack):.3f}")
            parts.append(f"LPIPS of real: {sum(shares) / len(shares):.2f}, at least {min(shares):.2f}")
        print(f"half-life {half_life:>6,}: {'; '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
