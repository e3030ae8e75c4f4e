"""Features of images: extractors, computation in blocks, and the cache for real images."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from mien.core import distributed
from mien.core.device import has_bf16_units
from mien.downloads import weights
from mien.errors import DataError, DeviceError, MienError
from mien.metrics.images import Images, Pixels, prefetch
from mien.metrics.inception import SIDE, Inception
from mien.metrics.lpips import Lpips, Network
from mien.metrics.resize import Resizer, resize
from mien.storage import atomic
from mien.storage.regular_file import check_regular

BLOCK = 16  # images at a time, always in the same blocks, so that a feature never depends on the other images
SAMPLE, SAME = 8, 0.05  # images of which features are computed again, and their relative difference by precision alone
CACHE_BYTES = 4 << 30  # of cached features; the least recently used are removed first

Features = npt.NDArray[np.float32]  # [n, d]


class Extractor(Protocol):
    """Turns images into features. Its four names identify the features and enter each score's protocol."""

    name: str
    hash: str  # of its weights
    resizer: str
    precision: str

    def __call__(self, images: Pixels) -> Features:
        """uint8 `[n, H, W, 3]` -> float32 `[n, d]`."""
        ...


def planes(images: Pixels, device: torch.device) -> Tensor:
    """uint8 `[n, H, W, 3]` -> float32 `[n, 3, H, W]` in [0, 255]."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()


class InceptionFeatures:
    """The 2048 features of FID and its relatives; the network is loaded at first use.

    `legacy_range` maps pixels to (x - 128) / 128, as TensorFlow's and NVIDIA's versions do; the default is x / 127.5
    - 1.
    """

    name = "inception-2015-12-05"

    def __init__(
        self, resizer: Resizer = "bilinear", precision: str = "auto", device: str = "cpu", legacy_range: bool = False
    ) -> None:
        if precision == "auto":  # a GPU is fast enough in fp32
            precision = "bf16" if device == "cpu" and has_bf16_units(device) else "fp32"
        if precision == "bf16" and not has_bf16_units(device):
            raise DeviceError(
                "bf16 is not computed here.", f"This {device} has no units for it.", "Leave --precision out."
            )
        self.hash, self.precision = weights.find("inception").sha256, precision
        self.resampling, self.legacy_range = resizer, legacy_range
        self.resizer = f"{resizer}, (x - 128) / 128" if legacy_range else resizer
        self.device, self.dtype = torch.device(device), torch.bfloat16 if precision == "bf16" else torch.float32

    @cached_property
    def network(self) -> Inception:
        network = Inception(weights.tensors("inception")).eval().cast(self.dtype).to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Features:
        x = resize(planes(images, self.device), (SIDE, SIDE), self.resampling)
        x = (x - 128.0) / 128.0 if self.legacy_range else x / 127.5 - 1.0
        x = x.to(self.dtype, memory_format=torch.channels_last)
        return np.asarray(self.network(x).cpu().numpy(), np.float32)


class PerceptualFeatures:
    """Embeddings whose squared distances are LPIPS."""

    resizer = "none"
    precision = "fp32"

    def __init__(self, network: Network = "alex", device: str = "cpu") -> None:
        self.name, self.hash = f"lpips-{network}", weights.find(f"lpips-{network}").sha256
        self.device = torch.device(device)
        self.network = Lpips(weights.tensors(self.name), network).eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> Features:
        return self.embed(planes(images, self.device) / 127.5 - 1.0).cpu().numpy()

    def embed(self, images: Tensor) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] -> embeddings `[n, D]`."""
        images = images.to(self.device).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        embedded: Tensor = self.network(images)
        return embedded


class PixelFeatures:
    """The image at 32 by 32 pixels: the simplest features, without a network."""

    name, hash, resizer, precision = "pixels-32", "", "bilinear", "fp32"

    def __call__(self, images: Pixels) -> Features:
        small = resize(planes(images, torch.device("cpu")), (32, 32), "bilinear") / 127.5 - 1.0
        return small.flatten(1).numpy()


def blocks(count: int) -> list[slice]:
    """The rows of every block, the same for any number of processes."""
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def extract(images: Images, extractor: Extractor, on_progress: Callable[[int], None] = lambda _: None) -> Features:
    """Features `[n, d]` of all images. A thread reads or samples ahead; the ranks share the blocks.

    `on_progress` is called with the number of new images. Every rank returns the same bits as a single process.
    """
    world = distributed.processes()
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if world else (0, 1)
    own = blocks(images.count)[rank::ranks]
    features: Features | None = None  # allocated once, when the first block shows its width
    failure = None
    try:
        for rows, block in zip(own, prefetch(partial(images.read, rows) for rows in own), strict=True):
            part = extractor(block)
            if features is None:
                features = np.zeros((images.count, part.shape[1]), np.float32)
            features[rows] = part
            on_progress(len(block) * ranks)
    except MienError as error:
        failure = error
    if distributed.maximum(float(failure is not None)):  # all ranks stop together: the others would wait for ever
        raise failure or DataError("Another process refused its images.", "Its message says which.", "See its message.")
    width = int(distributed.maximum(float(0 if features is None else features.shape[1])))
    if features is None:
        features = np.zeros((images.count, width), np.float32)
    return summed(features) if world else features


def summed(values: Features) -> Features:
    """The sum over ranks; where each row is of one rank and zero elsewhere, it is exact."""
    tensor = torch.from_numpy(values)
    if dist.get_backend() == "nccl":
        tensor = tensor.cuda()
    with distributed.connected():
        dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def identity(extractor: Extractor) -> str:
    """A short identifier of an extractor's features."""
    return f"{extractor.name} {extractor.hash} {extractor.resizer} {extractor.precision}"


def cached_features(
    images: Images, extractor: Extractor, on_progress: Callable[[int], None] = lambda _: None
) -> Features:
    """The same as `extract`, cached under the images' fingerprint and the extractor's identity."""
    if not images.fingerprint:
        return extract(images, extractor, on_progress)
    key = hashlib.sha256(f"{images.fingerprint} {identity(extractor)}".encode()).hexdigest()[:32]
    file = weights.cache_folder() / "features" / f"{key}.npy"
    features = read_features(file, images.count)
    if features is not None and not agree(features, images, extractor):
        print(
            f"mien: {extractor.name} has changed since the features of {images.name} were cached: again",
            file=sys.stderr,
        )
        features = None
    if distributed.maximum(float(features is None)):  # also where one rank's disk has no copy
        features = extract(images, extractor, on_progress)
        if not distributed.processes() or dist.get_rank() == 0:
            store(file, features)
    else:
        on_progress(images.count)
    assert features is not None
    return features


def agree(features: Features, images: Images, extractor: Extractor) -> bool:
    """Whether a user's own extractor still makes the first features that are cached: who edits one may forget its hash."""
    if type(extractor).__module__.startswith("mien."):
        return True  # its hash is that of its weights
    known = features[:SAMPLE]
    fresh = np.asarray(extractor(images.read(slice(0, len(known)))), np.float32)
    return fresh.shape == known.shape and bool(np.linalg.norm(fresh - known) <= SAME * np.linalg.norm(known))


def read_features(file: Path, count: int) -> Features | None:
    """Cached features, or None without a usable file."""
    try:
        check_regular(file)
        features = np.load(file, allow_pickle=False)
        file.touch()
    except (OSError, ValueError, EOFError):
        return None
    usable = features.ndim == 2 and len(features) == count and all_finite(features)
    return np.asarray(features, np.float32) if usable else None


def all_finite(features: Features) -> bool:
    """Whether all features are numbers; their extremes tell, without a copy."""
    return not features.size or bool(np.isfinite((features.min(), features.max())).all())


def store(file: Path, features: Features) -> None:
    """Write features atomically. A full disk is ignored: the next evaluation computes them again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(file) as beside:
            np.save(beside, features)
        trim(file.parent, file)
    except OSError as error:
        print(f"mien: the features of real images could not be cached_features: {error}", file=sys.stderr)


def trim(folder: Path, newest: Path) -> None:
    """Remove the features longest unused until the folder is within its bound."""
    files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total <= CACHE_BYTES or file == newest:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)


def protocol_of_extractor(extractor: Extractor) -> dict[str, Any]:
    """The extractor's entries in a score's protocol."""
    return {
        "extractor": extractor.name,
        "extractor_sha256": extractor.hash,
        "resizer": extractor.resizer,
        "precision": extractor.precision,
    }
