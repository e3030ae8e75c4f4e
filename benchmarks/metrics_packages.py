"""Our FID beside torchmetrics' on the same two folders, with the same network and torch-fidelity's conventions; and our
distance of identities beside OpenCV's own class for SFace and SciPy's matrix root.

    pip install --target PLACE --no-deps torchmetrics lightning-utilities
    python benchmarks/metrics_packages.py REAL FAKE --torchmetrics PLACE

torchmetrics is given the network's own TorchScript as its feature module, behind torch-fidelity's resizing and range,
written out here a second time; nothing of ours but the decoding of files is in its way. The two must agree within
0.1. `--sface` measures the second pair alone: the faces are aligned by us, everything after that is theirs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mien.data.affine import Transform, warp_softly
from mien.downloads import weights
from mien.metrics.evaluate import inception, measure
from mien.metrics.features import BLOCK, PixelFeatures, blocks
from mien.metrics.identity import SIDE, shared_transform
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


def their_identities(images: Images, transform: Transform) -> NDArray[np.float64]:
    """Embeddings of unit length `[n, 128]` by OpenCV's class."""
    import cv2

    network = cv2.FaceRecognizerSF.create(str(weights.path("sface")), "")
    found = []
    for rows in blocks(images.count):
        faces = [warp_softly(image, transform, SIDE)[0] for image in images.read(rows)]
        found += [network.feature(np.ascontiguousarray(face[:, :, ::-1])) for face in faces]  # it takes BGR
    embedded = np.concatenate(found).astype(np.float64)
    return embedded / np.linalg.norm(embedded, axis=1, keepdims=True)


def their_frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The Fréchet distance as it is written down, with the root of a product of covariances."""
    from scipy import linalg

    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(linalg.sqrtm(first @ second))
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(first + second - 2.0 * root))


def identities(real: Images, fake: Images) -> None:
    inputs = MetricInputs(fake=fake, reference=real, extractor=PixelFeatures())
    print(f"  mien sface                   {measure(inputs, ['sface'])[0].value:10.6f}", flush=True)
    transform = shared_transform(real)
    theirs = their_frechet(their_identities(real, transform), their_identities(fake, transform))
    print(f"  OpenCV and SciPy             {theirs:10.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("fake", type=Path)
    parser.add_argument("--torchmetrics", type=Path, help="where pip --target put it")
    parser.add_argument("--sface", action="store_true")
    given = parser.parse_args()
    if given.torchmetrics:
        sys.path.insert(0, str(given.torchmetrics))
    real, fake = open_images(given.real), open_images(given.fake)
    print(f"{real.count} against {fake.count} images of {real.size[1]}x{real.size[0]}, blocks of {BLOCK}")
    if given.sface:
        identities(real, fake)
        sys.exit()
    for legacy in ("torch-fidelity", "pytorch-fid", "clean-fid"):
        inputs = MetricInputs(fake=fake, reference=real, extractor=inception(legacy), legacy=legacy)
        print(f"  mien --legacy {legacy:<15}{measure(inputs, ['fid'])[0].value:10.4f}", flush=True)
    inputs = MetricInputs(fake=fake, reference=real, extractor=inception())
    print(f"  mien                         {measure(inputs, ['fid'])[0].value:10.4f}")
    print(f"  torchmetrics                 {theirs(real, fake):10.4f}")
