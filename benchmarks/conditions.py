"""Faces on request, trained and judged: resumable, tables at the end.

    python benchmarks/conditions.py CELEBA WORK_DIR                     everything at 64 px: about 2 hours on 2 cores
    python benchmarks/conditions.py CELEBA WORK_DIR --side 128          the original's side, for a GPU
    python benchmarks/conditions.py CELEBA WORK_DIR --cores 1           each run on one core for twice the minutes
    python benchmarks/conditions.py CELEBA WORK_DIR --only cgan homogan-15-fixed-six
    python benchmarks/conditions.py CELEBA WORK_DIR --side 32 --tiny    a minute of each, to see that it runs

CELEBA is a folder, ZIP or pack with the forty labels. homogan-07, -11, -15 and -15-fixed learn for --minutes each, from what
their labels leave of the data; cgan learns six labels for --long minutes, and homogan-15-fixed the same six from as many images.
Then conditions are judged (`mien evaluate --metrics conditions`), LPIPS is measured among faces that were asked for the same label,
and eight latents are drawn without glasses and with. Run it again after any interruption: each run goes on where it was, and
what was judged stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mien.data.pack import Pack
from mien.metrics.distances import mean_pairwise
from mien.metrics.features import PerceptualFeatures
from mien.metrics.images import to_pixels
from mien.sampling.sampler import Sampler

SIX = ("Eyeglasses", "Male", "Smiling", "Bald", "No_Beard", "Blond_Hair")
#: Of each run: the preset, and what `mien data prepare` takes for its data.
RUNS: dict[str, tuple[str, list[str]]] = {
    "homogan-07": ("homogan-07", []),
    "homogan-11": ("homogan-11", ["--labels", "Male", "--balance", "Male"]),
    "homogan-15": ("homogan-15", ["--labels", "Eyeglasses,No_Beard,Bald"]),
    "homogan-15-fixed": ("homogan-15-fixed", ["--labels", "Eyeglasses,Beard=!No_Beard,Bald"]),
    "cgan": ("cgan", ["--labels", ",".join(SIX)]),
    "homogan-15-fixed-six": ("homogan-15-fixed", ["--labels", ",".join(SIX)]),  # after cgan: as many images
}
JUDGED = ("cgan", "homogan-15-fixed-six")
STATS = ("generator_loss", "critic_loss", "critic_real", "critic_fake", "real_accuracy", "fake_accuracy")
TINY = ["--model.width", "16", "--recipe.critic.width", "16"]
COMBINATIONS, FEW = 12, 60  # of labels whose variety is measured, and the faces that one must have
PAIRS = 200  # faces of a setting whose LPIPS is taken in pairs


def mien(*arguments: object) -> str:
    return subprocess.run(
        [sys.executable, "-m", "mien", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def prepare(celeba: Path, work: Path, flags: list[str], side: int) -> Path:
    """The pack for some flags, made once; the original's squashed crop where the source still has it."""
    name = "".join(letter if letter.isalnum() else "-" for letter in "".join(flags)) or "all"
    pack = work / f"{name}{side}.pack"
    if not pack.exists():
        mien("data", "prepare", celeba, pack, "--size", side, *flags, "--holdout", "0.1")
    return pack


def seen_of(run: Path) -> int:
    status: dict[str, int] = json.loads((run / "status.json").read_text())
    return status["seen"]


def means(run: Path, share: float = 0.1) -> dict[str, float]:
    """Means of what was watched over the last part of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = lines[-max(1, int(len(lines) * share)) :]
    found = {}
    for name in STATS:
        values = [line[name] for line in last if name in line]
        found[name] = sum(values) / len(values) if values else float("nan")
    return found


def judge(run: Path, pack: Path, samples: int) -> list[dict[str, object]]:
    """The scores of a run's newest model, measured once."""
    kept = run / f"conditions-{seen_of(run)}-{samples}.json"
    if not kept.exists():
        kept.write_text(
            mien("evaluate", run, "--data", pack, "--metrics", "conditions", "--samples", samples, "--json")
        )
    scores: list[dict[str, object]] = json.loads(kept.read_text())["scores"]
    return scores


def settings(labels: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Label settings and the rows of the faces in them: every label on and off, then whole combinations, the commonest first."""
    for place, name in enumerate(names):
        for value in (1.0, 0.0):
            yield f"{name}={value:.0f}", np.flatnonzero(labels[:, place] == value)
    combinations, counts = np.unique(labels, axis=0, return_counts=True)
    for index in np.argsort(-counts)[:COMBINATIONS]:
        if counts[index] >= FEW:
            labels_on = [name for name, value in zip(names, combinations[index], strict=True) if value]
            yield " ".join(labels_on) or "none", np.flatnonzero((labels == combinations[index]).all(1))


def variety(run: Path, pack: Path, faces: int) -> list[tuple[str, float, float]]:
    """Within every setting: mean LPIPS between real faces, and between made ones that were asked for what each of those shows."""
    eye, sampler, opened = PerceptualFeatures("alex"), Sampler.load(run, device="cpu"), Pack.open(pack)
    assert opened.labels is not None
    labels = np.asarray(opened.labels, np.float32)
    found: list[tuple[str, float, float]] = []
    for name, rows in settings(labels, opened.label_names):
        real = rows[:faces]
        made = to_pixels(sampler.sample(range(len(real)), torch.from_numpy(labels[real])))
        ours, theirs = (mean_pairwise(eye(images)).value for images in (made, np.asarray(opened.images[real])))
        found.append((name, ours, theirs))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--long", type=float, default=40.0)
    parser.add_argument("--cores", type=int, choices=(1, 2), default=2)
    parser.add_argument("--samples", type=int, default=1000, help="requests for each label, half on and half off")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-lpips", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.tiny:
        given.minutes, given.long, given.samples = 0.3, 0.3, 40
    for name in given.only:
        preset, flags = RUNS[name]
        pack = prepare(given.celeba, given.work, flags, given.side)
        length = ["--minutes", (given.long if name == "cgan" else given.minutes) * 2 / given.cores]
        if name == "homogan-15-fixed-six" and (given.work / "cgan" / "status.json").exists():
            length = ["--images", seen_of(given.work / "cgan")]
        how = ["--threads", given.cores, *(TINY if given.tiny else [])]
        mien("train", preset, "--data", pack, "--out", given.work / name, *length, *how)
    print(f"{'run':<21}{'images':>9}{'seconds':>9}" + "".join(f"{stat:>16}" for stat in STATS))
    for name in given.only:
        status = json.loads((given.work / name / "status.json").read_text())
        row = "".join(f"{value:>16.3f}" for value in means(given.work / name).values())
        print(f"{name:<21}{status['seen']:>9,}{status['seconds']:>9.0f}{row}")
    for name in (name for name in JUDGED if name in given.only):
        run, pack = given.work / name, prepare(given.celeba, given.work, RUNS[name][1], given.side)
        print(f"\n{name}: conditions met")
        for score in judge(run, pack, given.samples):
            print(f"  {score['name']:<24}{score['value']:>8.3f}  [{score['low']:.3f}, {score['high']:.3f}]")
        if not given.no_lpips:
            for setting, made, real in variety(run, pack, 20 if given.tiny else PAIRS):
                print(f"  LPIPS among {setting:<36}{made:>8.3f}, real {real:.3f}: {made / real:.2f}")
        table = run / "glasses.png"
        mien("sample", run, "--seeds", "0-7", "--combine", "Eyeglasses", "-o", table)
        print(f"  {table}: eight latents without glasses and with")


if __name__ == "__main__":
    main()
