"""Latents fitted to the encodings of real faces, against the prior's: the scores before and after.

    python benchmarks/fitted_latents.py RUN PACK --out results/fitted [--samples 5000] [--metrics fid,kid]

RUN is a run of a model with an encoder. Densities that it lacks are fitted to PACK and kept in its extras/. For a BEGAN, whose
encodings are decoded by its autoencoder, the generator is also fed with fitted encodings, and the autoencoder judged alone by its
reconstructions of real faces, which bound what any density of encodings can reach. Whatever is done already in --out is not
done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mien.cli.fitted_prior import PriorOptions
from mien.data.pack import Pack
from mien.metrics.evaluate import inception, measure
from mien.metrics.features import Extractor
from mien.metrics.images import PackImages, SampledImages
from mien.metrics.inputs import MetricInputs
from mien.sampling.sampler import Sampler


class Faces:
    """What is judged: faces by number, and the header that says their size."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.header, self.model_hash = sampler, sampler.header, sampler.model_hash

    def sample(self, seeds: Sequence[int]) -> Tensor:
        return self.sampler.sample(seeds)


class GeneratorFaces(Faces):
    """Fitted encodings through the generator, which was never taught on them."""

    def sample(self, seeds: Sequence[int]) -> Tensor:
        return self.sampler.decode(self.sampler.latents(seeds), space="latent")


class Reconstructed(Faces):
    """Real faces through the autoencoder."""

    def __init__(self, sampler: Sampler, pack: Pack) -> None:
        super().__init__(sampler)
        self.pack, self.rows = pack, pack.rows("train")

    def sample(self, seeds: Sequence[int]) -> Tensor:
        rows = self.rows[np.array(seeds) % len(self.rows)]
        return self.sampler.reconstruct(
            torch.from_numpy(self.pack.images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        )


def ways(sampler: Sampler, run: Path, pack: Pack) -> Iterator[tuple[str, Faces]]:
    """What is compared, by name."""
    yield "prior", Faces(sampler)
    for kind in ("gmm", "flow"):
        fitted = PriorOptions(prior="fitted", density=kind).apply(sampler, str(pack.path), run)
        yield kind, Faces(fitted)
        apart = sampler.encoding_space == "encoding"
        if apart and fitted.density is not None and fitted.density.shape == tuple(sampler.model.latent_shape):
            yield f"{kind}, by the generator", GeneratorFaces(fitted)
    yield "reconstructions", Reconstructed(replace(sampler), pack)


def scores(faces: Faces, pack: Pack, samples: int, metrics: Sequence[str], eye: Extractor) -> dict[str, float]:
    judged = MetricInputs(fake=SampledImages(faces, samples), reference=PackImages(pack, "train"), extractor=eye)
    return {score.name: round(score.value, 5) for score in measure(judged, metrics)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("pack", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--samples", type=int, default=5000)
    arguments.add_argument("--metrics", default="fid,kid")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pack, sampler, eye = Pack.open(given.pack), Sampler.load(given.run), inception()
    file = given.out / "fitted_latents.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(line["model"], line["way"], line["samples"]) for line in lines}
    for way, faces in ways(sampler, given.run, pack):
        if (sampler.model_hash, way, given.samples) in done:
            continue
        started = time.perf_counter()
        found = scores(faces, pack, given.samples, given.metrics.split(","), eye)
        line = {
            "model": sampler.model_hash,
            "preset": sampler.header.get("preset"),
            "way": way,
            "samples": given.samples,
        }
        with file.open("a") as stream:
            stream.write(json.dumps({**line, **found, "seconds": round(time.perf_counter() - started, 1)}) + "\n")
        print(f"{way:<26} " + "  ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
