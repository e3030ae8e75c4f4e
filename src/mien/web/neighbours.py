"""Nearest training images of a face, by pixels at 16 px: this finds copies, not every resemblance."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mien.core.contracts import JSON
from mien.data.open import is_elsewhere
from mien.data.pack import Pack, is_pack
from mien.data.synthetic import COUNT, SEED, VERSION
from mien.downloads.weights import cache_folder
from mien.errors import DataError, MienError
from mien.metrics.prdc import NEAR_QUANTILE, nearest
from mien.storage.provenance import Claim
from mien.storage.run_directory import read_json
from mien.web.limits import Shared
from mien.web.pictures import png
from mien.web.registry import RunEntry

SIDE = 16  # px at which images are compared
MOST = 50_000  # training images that are searched
PART = 128  # of them in floats at a time
COUNT_FOUND = 6  # neighbours in an answer
CACHE_BYTES = 400 << 20  # of indexed packs, at most, beside the one in use
PROBES = 1000  # training images whose own nearest neighbours say what is near


@dataclass(frozen=True)
class IndexedPack:
    """A pack as points, and how near its own images are to each other."""

    pack: Pack
    points: npt.NDArray[np.float64]  # [n, 3 * SIDE * SIDE]
    apart: npt.NDArray[np.float64]  # ascending: distances of training images to their nearest


class Neighbours:
    """Searches training images; the packs indexed last stay in memory, bounded in bytes."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, IndexedPack] = OrderedDict()
        self.shared: Shared[IndexedPack] = Shared()
        self.one_by_one = asyncio.Lock()  # distances to 50,000 points take 300 MB

    async def search(self, run: RunEntry, image: Tensor) -> JSON:
        """`of`, with one reading of a pack for all who wait for it."""
        path = await asyncio.to_thread(pack_of, run)
        if path is not None and str(path) not in self.known:
            await self.shared.of(str(path), lambda: asyncio.to_thread(self.points, path))
        async with self.one_by_one:
            return await asyncio.to_thread(self.of, run, image)

    def points(self, path: Path) -> IndexedPack:
        """A pack as points, read once."""
        if str(path) not in self.known:
            self.known[str(path)] = index_pack(Pack.open(path))
            while len(self.known) > 1 and sum(known.points.nbytes for known in self.known.values()) > CACHE_BYTES:
                self.known.popitem(last=False)
        return self.known[str(path)]

    def of(self, run: RunEntry, image: Tensor) -> JSON:
        """The nearest training images of an image `[C, H, W]` in [-1, 1], with what their distance says."""
        path = pack_of(run)
        if path is None:
            raise DataError("The training images are not at hand.", "Their pack has moved or changed.", "Put it back.")
        known = self.points(path)
        distances, places = nearest(points_of(image[None]), known.points, min(COUNT_FOUND, len(known.points)))
        rank = float(np.searchsorted(known.apart, distances[0, 0]) / len(known.apart))
        found = [
            {
                "row": int(row),
                "distance": round(float(distance), 4),
                "image": training_image(known.pack, int(row)),
            }
            for distance, row in zip(distances[0], places[0], strict=True)
        ]  # fmt: skip
        return {
            "neighbours": found,
            "nearer_than_training": round(1 - rank, 4),
            "memorised": rank < NEAR_QUANTILE,
            "compared": len(known.points),
        }


def pack_of(run: RunEntry) -> Path | None:
    """Where the data of a run lies, if it is at hand."""
    described = read_json(run.path / "data.json") or {}
    name, side = str(described.get("name", "")), described.get("side")
    if is_elsewhere(name):
        return None
    path = cache_folder() / "drawn" / f"{VERSION}-{side}-{COUNT}-{SEED}.pack" if name == "drawn" else Path(name)
    try:
        return path if is_pack(path) and Pack.open(path).fingerprint == described.get("fingerprint") else None
    except (MienError, OSError):
        return None


def index_pack(pack: Pack) -> IndexedPack:
    """A pack's images as points."""
    rows = pack.rows("train")[:MOST]
    points = np.concatenate(
        [points_of(tensor(pack.images[rows[start : start + PART]])) for start in range(0, len(rows), PART)]
    )
    probes = points[:: max(1, len(points) // PROBES)][:PROBES]
    apart = nearest(probes, points, 2)[0][:, 1]  # the first is the image itself
    return IndexedPack(pack, points, np.sort(apart))


def tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 `[n, H, W, 3]` -> `[n, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def training_image(pack: Pack, row: int) -> str:
    """One training image inside an address."""
    content = png(Image.fromarray(np.array(pack.images[row])), {"row": row}, Claim.INPUT)
    return "data:image/png;base64," + base64.b64encode(content).decode()


def points_of(images: Tensor) -> npt.NDArray[np.float64]:
    """Images `[n, C, H, W]` -> `[n, 3 * SIDE * SIDE]`, distances between them in units of a pixel's whole range."""
    small = F.adaptive_avg_pool2d(images, SIDE)
    small = small.expand(-1, 3, -1, -1) if small.shape[1] == 1 else small
    found: npt.NDArray[np.float64] = (small.flatten(1) / 2 / small[0].numel() ** 0.5).double().numpy()
    return found
