"""The baseline of every leaderboard: eigenfaces (PCA) fitted to a pack, in an ordinary run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mien.core.contracts import JSON, ImageSpec
from mien.core.run import fingerprint, to_json
from mien.data.pack import Pack
from mien.errors import Mismatch
from mien.models.eigenfaces import EigenfacesConfig, fit
from mien.storage import atomic, checkpoint, run_directory
from mien.storage.run_directory import RunDirectory, read_json

NAME = "eigenfaces"
BLOCK = 128  # images at a time
MAX_IMAGES = 20_000  # evenly spaced images to fit the components to; more change little


def fit_baseline(pack: Pack, out: Path, config: EigenfacesConfig | None = None) -> Path:
    """Fit eigenfaces to the training images of a pack and write them to `out`, unless they are there already.

    Raises Mismatch if `out` contains another run, or one of other data.
    """
    config = config or EigenfacesConfig()
    faces = ImageSpec(side=pack.side)
    identity: JSON = {"preset": NAME, "model": to_json(config), "side": pack.side, "data": pack.fingerprint}
    known = read_json(out / "run.json")
    if known is not None:
        if known.get("fingerprint") != fingerprint(identity):
            raise Mismatch(
                f"{out} contains another run, or one of other data.",
                "A baseline is never written over a run.",
                "Choose another --out.",
            )
        return out
    home = RunDirectory(run_directory.create(out).path)
    rows = pack.rows("train")
    rows = rows if len(rows) <= MAX_IMAGES else rows[np.arange(MAX_IMAGES) * len(rows) // MAX_IMAGES]
    started = time.perf_counter()
    model = fit(config, faces, lambda: images(pack, rows))
    seconds = time.perf_counter() - started
    header: JSON = {
        "format": 1,
        "preset": NAME,
        "config": to_json(config),
        "faces": to_json(faces),
        "data": {"fingerprint": pack.fingerprint, "count": len(pack)},
        "run_fingerprint": fingerprint(identity),
    }
    atomic.write_bytes(out / "model.safetensors", checkpoint.pack_tensors(model.state_dict(), header))
    home.write_json("env.json", run_directory.environment("cpu", "fp32", torch.get_num_threads()))
    data = {"name": str(pack.path), "fingerprint": pack.fingerprint, "count": len(pack), "side": pack.side}
    home.write_json("data.json", data)
    home.update_status(state="done", seen=len(rows), seconds=seconds, reason="", exit_code=0)
    story = "a Gaussian over principal components of the pixels: what a linear model does"
    run = {"format": 1, "fingerprint": fingerprint(identity), "identity": identity, **identity, "fitted": True}
    home.write_json(
        "run.json", {**run, "story": story}
    )  # written last: without it the directory is not a run, and is fitted again
    return out


def images(pack: Pack, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Iterator[Tensor]:
    """Blocks `[n, 3, H, W]` in [-1, 1]."""
    for start in range(0, len(rows), BLOCK):
        block = torch.from_numpy(np.array(pack.images[rows[start : start + BLOCK]]))
        yield block.permute(0, 3, 1, 2).float() / 127.5 - 1.0
