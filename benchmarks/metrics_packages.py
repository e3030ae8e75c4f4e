"""Our FID beside torchmetrics' on the same two folders, with the same network and torch-fidelity's conventions.

    pip install --target PLACE --no-deps torchmetrics lightning-utilities
    python benchmarks/metrics_packages.py REAL FAKE --torchmetrics PLACE

torchmetrics is given the network's own TorchScript as its feature module, behind torch-fidelity's resizing and range,
written out here a second time; nothing of ours but the decoding of files is in its way. The two must agree within
0.1.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mien.downloads import weights
from mien.metrics.evaluate import inception, measure
from mien.metrics.features import BLOCK, blocks
from mien.metrics.images import Images, open_images
from mien.metrics.inputs import MetricInputs


def tensorflow_resize(x: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear: output pixel i lies at i * in / out, between its two neighbours."""
    for axis in (2, 3):
        places = torch.arange(size, dtype=torch.float64) * (x.shape[axis] / size)
        low = places.floor().long()
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        share = (places - low).float().reshape(shape)
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


class Script(nn.Module):
    """The network as its package carries it."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network = torch.jit.load(str(weights.path("inception"))).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network((tensorflow_resize(images.float(), 299) - 128) / 128).reshape(-1, 2048)


def theirs(real: Images, fake: Images) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Script(), normalize=False, input_img_size=(3, 299, 299))
    for images, is_real in ((real, True), (fake, False)):
        for rows in blocks(images.count):
            metric.update(torch.from_numpy(images.read(rows)).permute(0, 3, 1, 2), real=is_real)
    return float(metric.compute())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("fake", type=Path)
    parser.add_argument("--torchmetrics", type=Path, help="where pip --target put it")
    given = parser.parse_args()
    if given.torchmetrics:
        sys.path.insert(0, str(given.torchmetrics))
    real, fake = open_images(given.real), open_images(given.fake)
    print(f"{real.count} against {fake.count} images of {real.size[1]}x{real.size[0]}, blocks of {BLOCK}")
    for legacy in ("torch-fidelity", "pytorch-fid", "clean-fid"):
        judged = MetricInputs(fake=fake, reference=real, extractor=inception(legacy), legacy=legacy)
        print(f"  mien --legacy {legacy:<15}{measure(judged, ['fid'])[0].value:10.4f}", flush=True)
    judged = MetricInputs(fake=fake, reference=real, extractor=inception())
    print(f"  mien                         {measure(judged, ['fid'])[0].value:10.4f}")
    print(f"  torchmetrics                 {theirs(real, fake):10.4f}")
