"""The training images that are most like a face, by pixels at 16 px: a copy is found so, a likeness need not be."""

from __future__ import annotations

import base64
import io
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
from mien.data.pack import Pack, is_pack
from mien.data.synthetic import COUNT, SEED, VERSION
from mien.downloads.weights import cache_folder
from mien.errors import DataError, MienError
from mien.metrics.prdc import NEAR, nearest
from mien.storage.run_directory import read_json
from mien.web.registry import ShownRun

SIDE = 16  # px at which images are compared
MOST = 50_000  # training images that are looked through
SHOWN = 6
KEPT_BYTES = 400 << 20  # of packs that were looked through, at most, beside the one in use
PROBES = 1000  # training images whose own nearest neighbours say what is near


@dataclass(frozen=True)
class Known:
    """A pack as points, and how near its own images are to each other."""

    pack: Pack
    points: npt.NDArray[np.float64]  # [n, 3 * SIDE * SIDE]
    apart: npt.NDArray[np.float64]  # ascending: distances of training images to their nearest


class Neighbours:
    """Packs that were looked through, the last ones kept; bounded in bytes."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, Known] = OrderedDict()

    def of(self, run: ShownRun, image: Tensor) -> JSON:
        """The nearest training images of an image `[C, H, W]` in [-1, 1], with what their distance says."""
        path = pack_of(run)
        if path is None:
            raise DataError("The training images are not at hand.", "Their pack has moved or changed.", "Put it back.")
        if str(path) not in self.known:
            self.known[str(path)] = look_through(Pack.open(path))
            while len(self.known) > 1 and sum(known.points.nbytes for known in self.known.values()) > KEPT_BYTES:
                self.known.popitem(last=False)
        known = self.known[str(path)]
        distances, places = nearest(points_of(image[None]), known.points, min(SHOWN, len(known.points)))
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
            "memorised": rank < NEAR,
            "looked_at": len(known.points),
        }


def pack_of(run: ShownRun) -> Path | None:
    """Where the data of a run lies, if it is at hand."""
    described = read_json(run.path / "data.json") or {}
    name, side = str(described.get("name", "")), described.get("side")
    path = cache_folder() / "drawn" / f"{VERSION}-{side}-{COUNT}-{SEED}.pack" if name == "drawn" else Path(name)
    try:
        return path if is_pack(path) and Pack.open(path).fingerprint == described.get("fingerprint") else None
    except (MienError, OSError):
        return None


def look_through(pack: Pack) -> Known:
    """A pack's images as points."""
    rows = pack.rows("train")[:MOST]
    points = np.concatenate(
        [points_of(tensor(pack.images[rows[start : start + 512]])) for start in range(0, len(rows), 512)]
    )
    probes = points[:: max(1, len(points) // PROBES)][:PROBES]
    apart = nearest(probes, points, 2)[0][:, 1]  # the first is the image itself
    return Known(pack, points, np.sort(apart))


def tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 `[n, H, W, 3]` -> `[n, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def training_image(pack: Pack, row: int) -> str:
    """One training image inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(np.array(pack.images[row])).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def points_of(images: Tensor) -> npt.NDArray[np.float64]:
    """Images `[n, C, H, W]` -> `[n, 3 * SIDE * SIDE]`, distances between them in units of a pixel's whole range."""
    small = F.adaptive_avg_pool2d(images, SIDE)
    small = small.expand(-1, 3, -1, -1) if small.shape[1] == 1 else small
    found: npt.NDArray[np.float64] = (small.flatten(1) / 2 / small[0].numel() ** 0.5).double().numpy()
    return found
