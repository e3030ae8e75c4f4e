"""How many shuffled, flipped float images a second the loader delivers on one core, by side and threads.

taskset -c 0 python benchmarks/loader.py [--seconds 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mien.data.loader import Loader
from mien.data.pack import Entry, Pack, PackWriter


def write_noise(path: Path, count: int, side: int) -> Pack:
    """A pack of `count` images of noise with 40 labels."""
    generator = np.random.default_rng(0)
    with PackWriter(path, side, [f"label{i}" for i in range(40)]) as writer:
        for start in range(0, count, 500):
            images = generator.integers(0, 256, (500, side, side, 3), dtype=np.uint8)
            labels = generator.random((500, 40), dtype=np.float32)
            writer.append(images, labels, [Entry(f"{start + i}") for i in range(500)])
        return writer.commit({})


def rate(pack: Pack, batch: int, threads: int, seconds: float) -> float:
    """Images a second over `seconds`, after a warm-up."""
    loader = Loader(pack, batch=batch, seed=0, threads=threads)
    for _ in range(10):
        next(loader)
    start, before = time.perf_counter(), loader.position
    while time.perf_counter() - start < seconds:
        next(loader)
    measured = (loader.position - before) / (time.perf_counter() - start)
    loader.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    print("side  batch  threads  images/s (median of 3)")
    with tempfile.TemporaryDirectory() as folder:
        for side, count in ((32, 20_000), (64, 10_000), (128, 4_000)):
            pack = write_noise(Path(folder) / f"{side}.pack", count, side)
            for batch in (64, 256):
                for threads in (0, 1):
                    median = statistics.median(rate(pack, batch, threads, seconds / 3) for _ in range(3))
                    print(f"{side:4}  {batch:5}  {threads:7}  {median:10,.0f}")


if __name__ == "__main__":
    main()
