"""Whether the scores rank what everybody ranks alike: one half of a pack against the other, and against worse and
worse copies.

    python benchmarks/metrics_sanity.py PACK [--images 5000]

The reference is every second image; the first row is the other half as it is. Blur is a Gaussian of so many pixels,
noise is normal with so many levels of 255, `repeated` shows 5% of the half twenty times, `copied` replaces 10% of it
by images of the reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from mien.data.pack import Pack
from mien.metrics.distances import frechet, kernel_distance
from mien.metrics.features import InceptionFeatures, extract
from mien.metrics.images import Images, PackImages, Pixels
from mien.metrics.prdc import manifolds, memorisation

Change = Callable[[Pixels, np.random.Generator], Pixels]


class Changed(Images):
    """Every second image of others, changed."""

    def __init__(self, images: Images, parity: int, count: int, change: Change | None = None) -> None:
        self.images, self.parity, self.change = images, parity, change
        self.name, self.split, self.size = images.name, images.split, images.size
        self.count = min(count, (images.count - parity + 1) // 2)

    fingerprint = ""

    def read(self, rows: slice) -> Pixels:
        start, stop, _ = rows.indices(self.count)
        pixels = np.concatenate(
            [self.images.read(slice(2 * row + self.parity, 2 * row + self.parity + 1)) for row in range(start, stop)]
        )
        return pixels if self.change is None else self.change(pixels, np.random.default_rng(start))


def blur(radius: float) -> Change:
    filter_ = ImageFilter.GaussianBlur(radius)
    return lambda pixels, _: np.stack([np.asarray(Image.fromarray(image).filter(filter_)) for image in pixels])


def noise(levels: float) -> Change:
    return lambda pixels, random: (
        np.clip(pixels + random.normal(0, levels, pixels.shape), 0, 255).round().astype(np.uint8)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack")
    parser.add_argument("--images", type=int, default=5000)
    given = parser.parse_args()
    images, eye = PackImages(Pack.open(given.pack), "all"), InceptionFeatures()
    changes: dict[str, Change | None] = {
        "the other half": None,
        "blur 0.5 px": blur(0.5),
        "blur 1 px": blur(1.0),
        "blur 2 px": blur(2.0),
        "noise 5": noise(5.0),
        "noise 15": noise(15.0),
        "noise 40": noise(40.0),
    }
    real = extract(Changed(images, 0, given.images), eye)
    half = extract(Changed(images, 1, given.images), eye)
    copied, repeated = half.copy(), half[np.arange(len(half)) % max(len(half) // 20, 1)]
    copied[: len(half) // 10] = real[: len(half) // 10]
    print(f"{len(real)} against {len(half)} images, {eye.name}, {eye.resizer}, {eye.precision}")
    columns = "fid", "+-", "1000 kid", "+-", "precision", "recall", "density", "coverage", "memorised"
    print(" " * 16 + "".join(f"{column:>11}" for column in columns))
    special = {"the other half": half, "5% repeated": repeated, "10% copied": copied}
    for name in dict.fromkeys((*changes, *special)):
        fake = special[name] if name in special else extract(Changed(images, 1, given.images, changes[name]), eye)
        f, k, four = frechet(real, fake), kernel_distance(real, fake), manifolds(real, fake)
        errors = (f.high - f.low) / 2, 500 * (k.high - k.low)
        shares = four.precision.value, four.recall.value, four.density.value, four.coverage.value
        row = f.value, errors[0], 1000 * k.value, errors[1], *shares, memorisation(real, None, fake).excess.value
        print(f"{name:16}" + "".join(f"{value:11.3f}" for value in row), flush=True)
