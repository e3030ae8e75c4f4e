"""The presets that encode, each trained for the same time on the same faces, then judged: resumable, one table at the end.

    python benchmarks/encoders.py CELEBA WORK_DIR                            8 minutes each; about 100 minutes on 2 cores
    python benchmarks/encoders.py CELEBA WORK_DIR --minutes 13 --threads 1 --only vae vaegan-2016-half

CELEBA is a folder, ZIP or pack. 64 px, but 32 px for the CPPNs and for BEGAN with 64 feature maps; the Simpsons VAE also on the
built-in drawn faces. FID is that of --samples samples against the pack, and eigenfaces, a Gaussian over 64 principal components,
stand at the head of each pack's rows. Grids lie in samples/ of the runs, reconstructions and curves in report.html. Run it again
after any interruption: each run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mien.data.pack import Pack
from mien.training.baseline import fit_baseline


@dataclass(frozen=True)
class Training:
    """One row of the table."""

    preset: str
    side: int = 64
    flags: tuple[str, ...] = ()
    drawn: bool = False  # on the built-in faces, which FID of photographs does not judge


HALF = ("--model.width", "32", "--recipe.critic.width", "16")
NARROW = ("--model.width", "64")
RUNS = {
    "began-2017": Training("began-2017", 32, NARROW),
    "began-2017-gamma-3": Training("began-2017", 32, (*NARROW, "--recipe.gamma", "0.3")),
    "began-2017-gamma-7": Training("began-2017", 32, (*NARROW, "--recipe.gamma", "0.7")),
    "cppn-2016": Training("cppn-2016", 32),
    "cppn-residual-2016": Training("cppn-residual-2016", 32),
    "began-zhao-2020": Training("began-zhao-2020"),
    "began-zhao": Training("began-zhao"),
    "vae-simpsons-2023": Training("vae-simpsons-2023"),
    "vae-simpsons-2023-drawn": Training("vae-simpsons-2023", drawn=True),
    "vae-torch-2015": Training("vae-torch-2015"),
    "vae": Training("vae"),
    "vaegan-2016": Training("vaegan-2016"),
    "vaegan-2016-half": Training("vaegan-2016", flags=HALF),
    "vaegan-torch-2015": Training("vaegan-torch-2015"),
}


def mien(*arguments: object) -> str:
    line = [sys.executable, "-m", "mien", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def fid(run: Path, pack: Path, samples: int) -> float:
    """The FID of a run's samples, as `mien evaluate --json` tells it; kept beside the run."""
    kept = run / f"fid-{samples}.json"
    if not kept.exists():
        kept.write_text(mien("evaluate", run, "--data", pack, "--metrics", "fid", "--samples", samples, "--json"))
    scores = json.loads(kept.read_text())["scores"]
    return float(next(score["value"] for score in scores if score["metric"] == "fid"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    packs = {side: given.work / f"celeba{side}.pack" for side in (32, 64)}
    print(f"{'run':<26} {'side':>4} {'images':>9} {'images/s':>9} {'FID':>8}")
    for side in sorted({RUNS[name].side for name in given.only}):
        if not packs[side].exists():
            mien("data", "prepare", given.celeba, packs[side], "--size", side)
        eigenfaces = fit_baseline(Pack.open(packs[side]), given.work / f"eigenfaces{side}")
        print(f"{'eigenfaces':<26} {side:>4} {'':>19} {fid(eigenfaces, packs[side], given.samples):>8.1f}", flush=True)
    for name in given.only:
        training, run = RUNS[name], given.work / name
        data = () if training.drawn else ("--data", packs[training.side])
        extent = ("--minutes", given.minutes, "--threads", given.threads, "--seed", 0)
        mien("train", training.preset, *data, "--side", training.side, *training.flags, *extent, "--out", run)
        status = json.loads((run / "status.json").read_text())
        row = f"{name:<26} {training.side:>4} {status['seen']:>9,} {status['seen'] / status['seconds']:>9.1f}"
        judged = "" if training.drawn else f" {fid(run, packs[training.side], given.samples):>8.1f}"
        print(row + judged, flush=True)


if __name__ == "__main__":
    main()
