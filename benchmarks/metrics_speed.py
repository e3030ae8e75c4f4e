"""How fast Inception's features are extracted here, against the same network in fp32 through its TorchScript; and
what bf16 costs.

    python benchmarks/metrics_speed.py [--threads 1] [--repeats 5] [--pack PACK --images 1000]

Both run in one process, in turn, on the same 299 px images; medians. With a pack, FID of its first images against the
next as many, each side in fp32 and each side in bf16, with the same resizer.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from mien.data.pack import Pack
from mien.downloads import weights
from mien.metrics.distances import frechet
from mien.metrics.features import BLOCK, InceptionFeatures, extract
from mien.metrics.images import FirstImages, Images, PackImages, Pixels
from mien.metrics.inception import Inception


class Next(Images):
    """The images after the first `skip`."""

    def __init__(self, images: Images, skip: int, count: int) -> None:
        self.images, self.skip, self.count = images, skip, min(count, images.count - skip)
        self.name, self.split, self.size, self.fingerprint = images.name, images.split, images.size, ""

    fingerprint = ""

    def read(self, rows: slice) -> Pixels:
        start, stop, _ = rows.indices(self.count)
        return self.images.read(slice(start + self.skip, stop + self.skip))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.inference_mode()
def speed(threads: int, repeats: int) -> None:
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated, and that is what it is compared with
        script = torch.jit.load(str(weights.path("inception"))).eval()
    tensors = weights.tensors("inception")
    images = torch.rand(BLOCK, 3, 299, 299) * 2 - 1
    beside = images.contiguous(memory_format=torch.channels_last)
    ours = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = Inception(tensors).eval().cast(dtype).to(memory_format=torch.channels_last)
        given = beside.to(dtype)
        ours[name] = lambda network=network, given=given: network(given)
    ways: dict[str, Callable[[], object]] = {"TorchScript fp32": lambda: script(images), **ours}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 2):  # the script optimises itself during the first two
        for name, work in ways.items():
            taken = seconds(work)
            if turn >= 2:
                times[name].append(taken)
    rates = {name: BLOCK / statistics.median(values) for name, values in times.items()}
    difference = (script(images) - ours["fp32"]()).abs().max().item()  # type: ignore[operator]
    print(f"{threads} thread{'s' * (threads > 1)}, batch {BLOCK}, median of {repeats}")
    for name, rate in rates.items():
        print(f"  {name:<18}{rate:7.1f} images/s   {rate / rates['TorchScript fp32']:.2f}x")
    print(f"  largest difference of a feature in fp32: {difference:.1e}")


def effect(pack: Pack, count: int) -> None:
    images = PackImages(pack, "all")
    halves = FirstImages(images, count), Next(images, count, count)
    values = {}
    for precision in ("fp32", "bf16"):
        eye = InceptionFeatures(precision=precision)
        begun = time.perf_counter()
        real, fake = (extract(half, eye) for half in halves)
        rate = 2 * count / (time.perf_counter() - begun)
        values[precision] = frechet(real, fake).value
        print(f"  {precision}: FID of {count} against {count} is {values[precision]:.4f}, {rate:.1f} images/s in all")
    change = values["bf16"] - values["fp32"]
    print(f"  bf16 changes it by {change:+.4f}, {100 * change / values['fp32']:+.3f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pack")
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    speed(given.threads, given.repeats)
    if given.pack:
        effect(Pack.open(given.pack), given.images)
