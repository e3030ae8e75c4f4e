"""Draw docs/pictures/few.webp: what 100 drawn faces have taught in five minutes, from scratch and from `faces`.

    python benchmarks/few.py drawn WORK_DIR --where Wearing_Hat,Beard --counts 100 --draws 1 --ways scratch from
    python docs/pictures/few.py WORK_DIR

Rows of twelve: training images, from scratch, from `faces`; the first seeds of either model, none left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from mien.data.loader import to_tensor
from mien.data.pack import Pack
from mien.report.grid import grid
from mien.sampling.sampler import Sampler

COLUMNS = 12


def rows(work: Path) -> torch.Tensor:
    """Images `[36, 3, 64, 64]` in [-1, 1]."""
    pack = Pack.open(work / "few-100-0.pack")
    known = to_tensor(pack.images[np.sort(pack.rows("train"))[:COLUMNS]], channels=3)
    drawn = [Sampler.load(work / f"few-100-0-{way}").sample(range(COLUMNS)) for way in (0, 2)]
    return torch.cat([known, *drawn])


def main() -> None:
    """Write the picture."""
    grid(rows(Path(sys.argv[1])), columns=COLUMNS).save(Path(__file__).with_name("few.webp"), quality=85, method=6)


if __name__ == "__main__":
    main()
