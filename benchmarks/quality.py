"""Quality per compute: ours against what is reproduced, trained and judged on the same faces. Resumable; tables at the end.

    python benchmarks/quality.py CELEBA WORK_DIR                         everything: about 5 hours on 2 cores
    python benchmarks/quality.py CELEBA WORK_DIR --part mark             gan at 32 px for 14 minutes
    python benchmarks/quality.py CELEBA WORK_DIR --part field            seven presets at 64 px for 10 minutes each
    python benchmarks/quality.py CELEBA WORK_DIR --part final            the best of either side for 20 minutes, two seeds
    python benchmarks/quality.py CELEBA WORK_DIR --part final --only gan     gan alone: 50 minutes on 2 cores
    python benchmarks/quality.py CELEBA WORK_DIR --part small            1,000 images at 32 px, with augmentation and without
    python benchmarks/quality.py CELEBA WORK_DIR --part gpu --scale 8     gan at 64 px for 12 minutes of a GPU, in three pieces
    python benchmarks/quality.py CELEBA WORK_DIR --minutes 0.02 --samples 100     a minute of everything, to see that it runs

CELEBA is a folder or ZIP of aligned faces. Minutes are those of 2 cores; `--cores 1` gives every run one core and twice the
minutes, so that two can be trained beside each other (`--only` says which). Run it again after any interruption: each run goes
on where it was, and what was judged stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

THEIRS = ("dcgan-2015", "torch-gan-2015", "began-zhao", "homogan-15-fixed")
OURS = ("gan", "flow", "vae")
FIELD = 10.0  # minutes
FINAL = (10.0, 15.0, 20.0)  # minutes after which a finalist is judged; its second seed at the end
MARK = 14.0
#: Minutes with 1,000 images, long enough for a critic to learn them by heart; the better setting of either side to the last.
SMALL = (10.0, 20.0, 30.0)
PIECES = (4.0, 8.0, 12.0)  # minutes of a GPU
PARTS = ("mark", "field", "final", "small", "gpu")
METRICS = "fid,kid,prdc,sface"  # of the field and the finals
#: How 1,000 images are learned: as many settings with augmentation as without.
PLAIN: dict[str, tuple[str, ...]] = {
    "plain": ("--augment", "none"),
    "plain, four times the penalty": ("--augment", "none", "--recipe.gamma", "1.6", "--recipe.gamma-end", "1.6"),
}
AUGMENTED: dict[str, tuple[str, ...]] = {
    "adaptive": ("--augment", "adaptive"),
    "ramp to 0.3": ("--augment", "ramp", "--recipe.augment.p", "0.3", "--recipe.augment.images", "30000"),
}
FEW = PLAIN | AUGMENTED


def mien(*arguments: object) -> str:
    line = [sys.executable, "-m", "mien", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


class Bench:
    """The packs, the machine's share, and what is measured."""

    def __init__(self, celeba: Path, work: Path, cores: int, minutes: float, samples: int) -> None:
        self.celeba, self.work, self.cores, self.minutes, self.samples = celeba, work, cores, minutes, samples
        work.mkdir(parents=True, exist_ok=True)

    def pack(self, side: int, *flags: str) -> Path:
        pack = self.work / f"celeba{side}{''.join(flags)}.pack"
        if not pack.exists():
            mien("data", "prepare", self.celeba, pack, "--size", side, "--crop", "celeba-148", *flags)
        return pack

    def train(self, name: str, preset: str, pack: Path, minutes: float, *flags: object) -> Path:
        run = self.work / name
        length = ("--minutes", minutes * self.minutes * 2 / self.cores, "--threads", self.cores)
        mien("train", preset, "--data", pack, "--out", run, *length, *flags)
        return run

    def judge(self, run: Path, pack: Path, metric: str, samples: int) -> dict[str, float]:
        """Scores of a run's newest model against a whole pack, measured once."""
        kept = run / f"scores-{seen(run)}-{samples}-{metric}.json"
        if not kept.exists():
            length = ("--metrics", metric, "--samples", samples)
            kept.write_text(mien("evaluate", run, "--data", pack, *length, "--json"))
        return {score["name"]: score["value"] for score in json.loads(kept.read_text())["scores"]}

    def fid(self, run: Path, pack: Path) -> float:
        return next(
            value for name, value in self.judge(run, pack, "fid", self.samples).items() if name.startswith("fid")
        )


def seen(run: Path) -> int:
    """Images that a run has learned from."""
    return int(json.loads((run / "status.json").read_text())["seen"])


def mark(bench: Bench) -> None:
    """The protocol of the mark to beat: FID 48 by a plain relativistic GAN."""
    from averages import distances  # torch takes seconds to load

    pack = bench.pack(32)
    run = bench.train("mark", "gan", pack, MARK)
    fid, _ = distances(run, pack, min(bench.samples, 2000))
    mien("sample", run, "--seeds", "0-63", "-o", run / "faces.png")
    count = f"{min(bench.samples, 2000):,} against as many of the first"
    print(f"mark: {seen(run):,} images, FID {fid:.1f} ({count}); {run / 'faces.png'}")


def entrant(bench: Bench, preset: str, minutes: float, seed: int) -> float:
    """FID of a preset after some minutes, and prints every score; a run that has gone further keeps what was judged on its way."""
    name = f"{preset}-{seed}"
    kept = bench.work / f"{name}-{minutes:g}.json"
    if not kept.exists():
        run = bench.train(name, preset, bench.pack(64), minutes, "--seed", seed)
        mien("sample", run, "--seeds", "0-63", "-o", bench.work / f"{name}-{minutes:g}.png")
        scores = bench.judge(run, bench.pack(64), METRICS, bench.samples)
        kept.write_text(json.dumps({"images": seen(run), "scores": scores}))
    found = json.loads(kept.read_text())
    told = ", ".join(f"{name} {value:.4g}" for name, value in found["scores"].items())
    print(f"{preset:<18} seed {seed}  {minutes:>4g} min {found['images']:>9,} images   {told}", flush=True)
    return next(float(value) for name, value in found["scores"].items() if name.startswith("fid"))


def field(bench: Bench, only: list[str]) -> None:
    for preset in only:
        entrant(bench, preset, FIELD, 0)


def final(bench: Bench, only: list[str]) -> None:
    """The best of either side, as the field has them; `--only gan` is a field of one."""
    courses: dict[str, list[dict[float, float]]] = {}
    for side in (THEIRS, OURS):
        fids = {preset: entrant(bench, preset, FIELD, 0) for preset in side if preset in only}
        if fids:
            best, plan = min(fids, key=fids.__getitem__), ((0, FINAL), (1, FINAL[-1:]))
            courses[best] = [{time: entrant(bench, best, time, seed) for time in times} for seed, times in plan]
    if len(courses) == 2:
        ends = {preset: [course[FINAL[-1]] for course in both] for preset, both in courses.items()}
        theirs, ours = ends
        share = sum(ends[ours]) / sum(ends[theirs])
        print(f"{ours} {ends[ours]}, {theirs} {ends[theirs]}: {share:.2f} of its FID; {curve(bench, courses)}")


def curve(bench: Bench, courses: dict[str, list[dict[float, float]]]) -> Path:
    """FID along the finals, and where the second seeds end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (preset, both), colour in zip(courses.items(), ("#D55E00", "#0072B2"), strict=True):
        for course, marker in zip(both, "ox", strict=True):
            axes.plot(list(course), list(course.values()), "-", color=colour, marker=marker, markersize=5)
        last = FINAL[-1]
        axes.annotate(
            preset, (last, both[0][last]), (8, -3), textcoords="offset points", color=colour, fontweight="bold"
        )
    axes.set_ylim(0, None)
    axes.set_xlim(0, FINAL[-1] * 1.45)
    axes.set_xticks([0, *FINAL])
    axes.set_xlabel("minutes of training on 2 cores; a cross is a second seed")
    axes.set_title("FID of 5,000 samples, CelebA-10k, 64 px", loc="left", fontsize=11)
    axes.grid(axis="y", color="#e4e1dc")
    axes.spines[["top", "right", "left"]].set_visible(False)
    path = bench.work / "curve.png"
    figure.savefig(path)
    return path


def small(bench: Bench, only: list[str]) -> None:
    """1,000 images without augmentation and with it, two settings each; the better of either side goes on to the last time."""
    ends = []
    for side in (PLAIN, AUGMENTED):
        courses = {name: [learner(bench, name, minutes) for minutes in SMALL[:-1]] for name in side if name in only}
        if courses:
            ends.append(learner(bench, min(courses, key=lambda name: courses[name][-1]), SMALL[-1]))
    if len(ends) == 2:
        print(f"with augmentation {ends[1]:.1f}, without {ends[0]:.1f}: {ends[1] / ends[0]:.2f} of its FID")


def learner(bench: Bench, name: str, minutes: float) -> float:
    """FID against all 10,000 after some minutes with 1,000 of them; as many that it never sees for the score of memorisation."""
    few, all_of_them = bench.pack(32, "--limit", "2000", "--holdout", "0.5"), bench.pack(32)
    label = f"few-{list(FEW).index(name)}"
    kept = bench.work / f"{label}-{minutes:g}.json"
    if not kept.exists():
        run = bench.train(label, "gan", few, minutes, *FEW[name])
        copied = bench.judge(run, few, "memorisation", min(bench.samples, 1000))
        for pairs in (run / "eval").glob("memorisation*_pairs.png"):
            shutil.copy(pairs, bench.work / f"{label}-{minutes:g}-{pairs.name}")
        kept.write_text(json.dumps([seen(run), bench.fid(run, all_of_them), copied]))
    images, fid, copied = json.loads(kept.read_text())
    told = ", ".join(f"{key} {value:.3f}" for key, value in copied.items())
    print(f"{name:<30} {minutes:>4g} min {images:>9,} images   FID {fid:6.1f}   {told}", flush=True)
    return float(fid)


def gpu(bench: Bench, scale: float) -> None:
    """gan, larger, in pieces that a machine lent for minutes at a time can train."""
    for minutes in PIECES:
        run = bench.train("gpu", "gan", bench.pack(64), minutes, "--scale", scale, "--batch", 64)
        picture = bench.work / f"gpu-{minutes:g}.png"
        mien("sample", run, "--seeds", "0-63", "-o", picture)
        print(
            f"gpu: {minutes:g} min, {seen(run):,} images, FID {bench.fid(run, bench.pack(64)):.1f}; {picture}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS[:-1])
    parser.add_argument("--only", nargs="+", choices=(*THEIRS, *OURS, *FEW), default=[*THEIRS, *OURS, *FEW])
    parser.add_argument("--cores", type=int, choices=(1, 2), default=2)
    parser.add_argument("--minutes", type=float, default=1.0, help="multiplies every training")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--scale", type=float, default=8.0, help="of the part for a GPU")
    given = parser.parse_args()
    bench = Bench(given.celeba, given.work, given.cores, given.minutes, given.samples)
    if "mark" in given.part:
        mark(bench)
    if "field" in given.part:
        field(bench, [name for name in given.only if name in (*THEIRS, *OURS)])
    if "final" in given.part:
        final(bench, given.only)
    if "small" in given.part:
        small(bench, [name for name in given.only if name in FEW])
    if "gpu" in given.part:
        gpu(bench, given.scale)


if __name__ == "__main__":
    main()
