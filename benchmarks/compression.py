"""What the compression of a pack's files does to FID: samples as a run draws them, and compressed as the files were.

python benchmarks/compression.py RUN PACK [--samples 1000] [--jpeg 75@74+7+20]

Without `--jpeg`, pack.json says how the files were compressed. A run that compresses its images is drawn without that
first. KID's interval is over the samples; the reference is the training split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mien.core.compression import Compression
from mien.core.families import CompressedModel
from mien.data.pack import Pack
from mien.metrics.distances import frechet, kernel_distance
from mien.metrics.features import InceptionFeatures, cached_features
from mien.metrics.images import PackImages
from mien.nn.jpeg import JPEG
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--jpeg", help="notation of --model.jpeg")
    given = parser.parse_args()
    sampler, pack = Sampler.load(given.run), Pack.open(given.pack)
    jpeg = JPEG(Compression.parse(given.jpeg or str(pack.meta["jpeg"])), pack.side)
    compresses = isinstance(sampler.model, CompressedModel) and bool(sampler.model.compression)
    bare = sampler.with_options(DrawOptions(uncompressed=True)) if compresses else sampler
    extractor = InceptionFeatures()
    reference = cached_features(PackImages(pack), extractor)

    def features(sampler: Sampler, layer: JPEG | None) -> np.ndarray:
        parts = []
        for first in range(0, given.samples, BATCH):
            images = sampler.sample(range(first, min(first + BATCH, given.samples)))
            images = images if layer is None else layer(images)
            levels = ((images.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
            parts.append(extractor(levels.permute(0, 2, 3, 1).contiguous().numpy()))
        return np.concatenate(parts)

    print(f"{given.samples:,} samples against {len(reference):,} faces; {jpeg.compression}")
    for name, drawer, layer in (
        ("as it learned", bare, None),
        ("compressed", *((sampler, None) if compresses else (bare, jpeg))),
    ):
        found = features(drawer, layer)
        means = float(np.square(found.mean(0) - reference.mean(0)).sum())
        kid = kernel_distance(found, reference)
        fid = frechet(found, reference).value
        print(
            f"{name:<14} FID {fid:6.2f}, of it the means {means:5.2f}, KID {kid.value:.4f} [{kid.low:.4f}, {kid.high:.4f}]"
        )


if __name__ == "__main__":
    main()
