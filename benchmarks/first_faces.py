"""The first generators, trained and measured: resumable, one table at the end.

    python benchmarks/first_faces.py CELEBA_ZIP WORK_DIR            everything, about 75 minutes on 2 cores
    python benchmarks/first_faces.py CELEBA_ZIP WORK_DIR --only margin adaptive-l2

Panels A, B and C of "Generating Faces with Torch" at 32 px with half the filters, 1,500 updates each; the blog's GAN at
full size for 15 minutes; `quick` on CelebA for 20 minutes. Run it again after any interruption: each run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SMALL = ["--model.width", "64", "--recipe.critic.width", "16", "--images", str(64 * 1500), "--log-every", "640"]
RUNS = {
    "none": (32, ["torch-gan-2015", *SMALL, "--recipe.balance", "none", "--recipe.critic.batch-norm"]),
    "margin": (32, ["torch-gan-2015", *SMALL, "--recipe.balance", "margin"]),
    "adaptive-l2": (32, ["torch-gan-2015", *SMALL, "--recipe.balance", "adaptive-l2"]),
    "torch-gan": (64, ["torch-gan-2015", "--minutes", "15"]),
    "quick": (64, ["quick", "--minutes", "20"]),
}


def mien(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mien", *map(str, arguments)], check=True)


def tail_means(run: Path, share: float = 0.1) -> dict[str, float]:
    """Means of the three curves over the last part of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = lines[-max(1, int(len(lines) * share)) :]
    names = ("generator_loss", "critic_fake", "critic_real")
    means = {}
    for name in names:
        values = [line[name] for line in last if name in line]
        means[name] = sum(values) / len(values) if values else float("nan")
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for side in sorted({RUNS[name][0] for name in given.only}):
        if not (given.work / f"celeba{side}.pack").exists():
            mien("data", "prepare", given.celeba, given.work / f"celeba{side}.pack", "--size", side)
    for name in given.only:
        side, arguments = RUNS[name]
        mien("train", *arguments, "--data", given.work / f"celeba{side}.pack", "--out", given.work / name)
    print(
        f"{'run':<12} {'images':>9} {'seconds':>8} {'images/s':>9} {'gen':>6} {'fake':>6} {'real':>6}  (means of the last tenth)"
    )
    for name in given.only:
        status = json.loads((given.work / name / "status.json").read_text())
        means = tail_means(given.work / name)
        speed = status["seen"] / status["seconds"]
        curves = " ".join(f"{means[curve]:6.2f}" for curve in ("generator_loss", "critic_fake", "critic_real"))
        print(f"{name:<12} {status['seen']:>9,} {status['seconds']:>8.0f} {speed:>9.1f} {curves}")


if __name__ == "__main__":
    main()
