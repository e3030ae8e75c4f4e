"""What bf16 changes in the dated presets: speed, and where a few steps lead, beside what another seed of noise changes.

    python benchmarks/precision.py [PACK] [--steps 12] [--presets dcgan-2015,torch-gan-2015]

For every preset three runs from equal weights on equal batches: fp32, bf16, and fp32 with other latents and dropout. The number
is the distance of the weights at the end of a run from those of the first, over the way that the first has gone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mien import presets
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import override
from mien.data import open_data
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.training.resolve import ResolvedRun
from mien.training.train_state import TrainState

NAMES = "dcgan-2015,torch-gan-2015,vaegan-2016,began-zhao-2020,vae-simpsons-2023,cppn-residual-2016,homogan-15"


def flat(learner: TrainState) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in learner.recipe.parameters()])


def run(
    name: str, pack: Pack, precision: str, steps: int, batch: int, retry: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The first weights, the last, and images a second without the first step."""
    described = override(presets.PRESETS[name], {"batch": batch, "conditional": False})
    learner = ResolvedRun(described, pack, DeviceContext(torch.device("cpu"), precision), None, "").initial_state(
        World()
    )
    learner.retry = retry
    loader = Loader(pack, batch=batch, seed=0, flip=described.flip, random_crop=described.random_crop, threads=0)
    first = flat(learner)
    learner.step(loader)
    begun, seen = time.process_time(), learner.seen
    for _ in range(steps - 1):
        learner.step(loader)
    return first, flat(learner), (learner.seen - seen) / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pack", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="pixels of the drawn faces, without a pack")
    parser.add_argument("--presets", default=NAMES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pack = open_data(given.pack, given.side)
    print(f"{'preset':22} fp32 im/s  bf16 im/s  bf16 apart  other noise apart", flush=True)
    for name in given.presets.split(","):
        first, last, fast = run(name, pack, "fp32", given.steps, given.batch, 0)
        _, rough, faster = run(name, pack, "bf16", given.steps, given.batch, 0)
        _, other, _ = run(name, pack, "fp32", given.steps, given.batch, 1)
        way = (last - first).norm()
        apart, noise = ((end - last).norm() / way for end in (rough, other))
        print(f"{name:22} {fast:9.1f}  {faster:9.1f}  {apart:10.3f}  {noise:17.3f}", flush=True)


if __name__ == "__main__":
    main()
