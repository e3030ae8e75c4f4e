"""The presets that encode, each trained for the same time on the same faces, then judged: resumable, one table at the end.

    python benchmarks/encoders.py CELEBA_ZIP WORK_DIR                   8 minutes each; about 100 minutes on 2 cores
    python benchmarks/encoders.py CELEBA_ZIP WORK_DIR --minutes 16 --threads 1 --only vae vaegan-2016

64 px, but 32 px for the CPPNs and for BEGAN with 64 feature maps; the Simpsons VAE also on the built-in drawn faces. FID is that
of 5,000 samples against the pack, beside the one of eigenfaces on the same pack. Grids lie in the runs' samples/, reconstructions
and curves in their report.html. Run it again after any interruption: each run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SMALL = ("began-2017", "cppn-2016", "cppn-residual-2016")  # at 32 px
RUNS = {
    **{name: name for name in SMALL},
    **{
        name: name
        for name in (
            "began-zhao-2020", "began-zhao", "vae-simpsons-2023", "vae-torch-2015", "vae", "vaegan-2016", "vaegan-torch-2015",
        )
    },
    "vae-simpsons-2023-drawn": "vae-simpsons-2023",
}  # fmt: skip


def mien(*arguments: object) -> str:
    line = [sys.executable, "-m", "mien", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def fid(*arguments: object) -> float:
    """The FID of 5,000 samples, as `mien evaluate --json` tells it."""
    answer = json.loads(mien("evaluate", *arguments, "--metrics", "fid", "--samples", 5000, "--json"))
    return float(next(score["value"] for score in answer["scores"] if score["metric"] == "fid"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    packs = {side: given.work / f"celeba{side}.pack" for side in (32, 64)}
    for side, pack in packs.items():
        if not pack.exists():
            mien("data", "prepare", given.celeba, pack, "--size", side)
    print(f"{'run':<26} {'side':>4} {'images':>9} {'images/s':>9} {'FID':>8} {'eigenfaces':>11}")
    for name in given.only:
        side, run = 32 if name in SMALL else 64, given.work / name
        drawn = name.endswith("-drawn")
        data = () if drawn else ("--data", packs[side])
        extent = ("--minutes", given.minutes, "--threads", given.threads, "--side", side)
        mien("train", RUNS[name], *data, *extent, "--out", run)
        status = json.loads((run / "status.json").read_text())
        row = f"{name:<26} {side:>4} {status['seen']:>9,} {status['seen'] / status['seconds']:>9.1f}"
        if not drawn:
            row += f" {fid(run, *data):>8.2f} {fid('--eigenfaces', *data):>11.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
