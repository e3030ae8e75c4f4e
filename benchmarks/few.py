"""Few pictures: training from scratch against fine-tuning a bundled model, on the same few faces. Resumable; a table at the end.

    python benchmarks/few.py CELEBA WORK_DIR                               every count, draw and way: some 20 hours of one core
    python benchmarks/few.py CELEBA WORK_DIR --counts 100 --draws 1        one count
    python benchmarks/few.py CELEBA WORK_DIR --train-only                  judge later, or on another core
    python benchmarks/few.py CELEBA WORK_DIR --cut-as faces                every face cut as those of `faces` lie, like a user's
    python benchmarks/few.py drawn WORK_DIR --where Wearing_Hat,Beard --counts 100 --draws 1      drawn faces of one style
    python benchmarks/few.py CELEBA WORK_DIR --ways scratch from --minutes 0.02 --samples 100     that it runs

CELEBA is a folder or ZIP of aligned faces, or `drawn`: the built-in drawn faces, those with the labels of `--where`. Draws are
disjoint. Half of each draw's size again is held out, for the baseline of memorisation. Minutes are those of 2 cores; `--cores 1`
gives a run one core and twice the minutes, so that two can be trained beside each other (`--only-draw` says which). All are judged
against all faces, or the first `--against N` of them where Inception is slow; compare equal N.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from mien.data.open import open_data
from mien.data.pack import Entry, Pack, PackWriter
from mien.metrics.framing import framing_of
from mien.sampling.sampler import Sampler
from quality import Bench, mien, seen

SIDE = 64
COUNTS = (10, 50, 100, 500, 1000)
SHORT, LONG = 5.0, 30.0  # minutes of two cores
#: How it is trained: minutes, whether it starts with `faces`, and flags.
WAYS: dict[str, tuple[float, bool, tuple[str, ...]]] = {
    "scratch": (SHORT, False, ()),
    "scratch, six times as long": (LONG, False, ()),
    "from": (SHORT, True, ()),
    "from, nothing frozen": (SHORT, True, ("--recipe.freeze", "0")),
    "from, no augmentation": (SHORT, True, ("--augment", "none")),
    "from, neither": (SHORT, True, ("--recipe.freeze", "0", "--augment", "none")),
    "from, augmented at once": (
        SHORT,
        True,
        ("--augment", "ramp", "--recipe.augment.p", "0.3", "--recipe.augment.images", "500"),
    ),
}
METRICS = "fid,kid,prdc,memorisation,sface"


def draw_of(everything: Pack, path: Path, count: int, draw: int) -> Path:
    """A pack of `count` faces, and half as many held out, that no other draw of this count has."""
    if path.exists():
        return path
    size = count + max(1, count // 2)
    rows = np.sort(np.random.default_rng(count).permutation(len(everything))[draw * size : (draw + 1) * size])
    split = np.random.default_rng(draw).permutation(size) < count
    with PackWriter(path, everything.side) as writer:
        entries = [
            Entry(f"{row}", split="train" if train else "holdout") for row, train in zip(rows, split, strict=True)
        ]
        writer.append(everything.images[rows], None, entries)
        writer.commit({"recipe": everything.meta["recipe"]})
    return path


def first_of(everything: Path, count: int) -> Path:
    """A pack of the first `count` faces."""
    path = everything.with_name(f"{everything.stem}-{count}.pack")
    if not path.exists():
        pack = Pack.open(everything)
        with PackWriter(path, pack.side) as writer:
            writer.append(pack.images[:count], None, [Entry(f"{row}") for row in range(count)])
            writer.commit({"recipe": pack.meta["recipe"]})
    return path


def cut_as(bench: Bench, parent: str) -> Path:
    """A pack of all faces, cut as `mien train --data PHOTOGRAPHS --from PARENT` cuts photographs."""
    path = bench.work / f"celeba{SIDE}-as-{parent}.pack"
    if not path.exists():
        framing = framing_of(Sampler.load(parent))
        eyes = ("--eye-distance", framing["eye_distance"], "--eye-height", framing["eye_height"])
        mien("data", "prepare", bench.celeba, path, "--size", SIDE, "--crop", "face", *eyes)
    return path


def drawn(bench: Bench, labels: str) -> Path:
    """A pack of the drawn faces that have all of these labels, all of them without any."""
    path = bench.work / f"drawn{SIDE}{labels}.pack"
    if not path.exists():
        pack = open_data("drawn", SIDE)
        columns = [pack.label_names.index(name) for name in labels.split(",") if name]
        rows = np.flatnonzero(np.all(pack.labels[:, columns] == 1, axis=1))
        with PackWriter(path, pack.side) as writer:
            writer.append(pack.images[rows], None, [Entry(f"{row}") for row in rows])
            writer.commit({"recipe": pack.meta["recipe"]})
    return path


def trained(bench: Bench, everything: Path, count: int, draw: int, way: str) -> tuple[Path, Path]:
    """The run of one way with one draw, and its pack."""
    minutes, tuned, flags = WAYS[way]
    pack = draw_of(Pack.open(everything), bench.work / f"few-{count}-{draw}.pack", count, draw)
    name = f"few-{count}-{draw}-{list(WAYS).index(way)}"
    return bench.train(name, "gan", pack, minutes, *(("--from", "faces") if tuned else ()), *flags), pack


def trial(bench: Bench, everything: Path, judge: Path, count: int, draw: int, way: str) -> dict[str, float]:
    """The scores of one way with one draw, against the faces of the pack `judge`."""
    kept = bench.work / f"few-{count}-{draw}-{list(WAYS).index(way)}.json"
    if not kept.exists():
        run, pack = trained(bench, everything, count, draw, way)
        scores = bench.judge(run, judge, METRICS.replace("memorisation,", ""), bench.samples)
        scores |= bench.judge(run, pack, "memorisation", min(bench.samples, 1000))
        kept.write_text(json.dumps({**scores, "images": seen(run)}))
    scores = json.loads(kept.read_text())
    line = ", ".join(f"{key} {value:.3f}" for key, value in scores.items() if key != "images")
    print(f"{count:>5} faces, draw {draw}, {way:<28} {scores['images']:>8,} images  {line}", flush=True)
    return dict(scores)


def table(results: dict[tuple[int, str], list[dict[str, float]]]) -> str:
    """Medians over the draws, as a table."""
    lines = ["| faces | way | FID | KID | recall | memorisation |", "|---|---|---|---|---|---|"]
    for (count, way), draws in results.items():
        cells = [
            statistics.median(next(v for k, v in scores.items() if k.startswith(name)) for scores in draws)
            for name in ("fid", "kid", "recall", "memorisation")
        ]
        lines.append(f"| {count} | {way} | {cells[0]:.1f} | {cells[1]:.4f} | {cells[2]:.2f} | {cells[3]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only-draw", type=int, help="one of the draws, from 0")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--cores", type=int, choices=(1, 2), default=2)
    parser.add_argument("--minutes", type=float, default=1.0, help="multiplies every training")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--against", type=int, help="the first N faces of the data instead of all")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--where", default="", metavar="LABEL,...", help="of the drawn faces: those with these labels")
    parser.add_argument("--cut-as", metavar="MODEL", help="cut as the faces of this model lie, instead of celeba-148")
    options = parser.parse_args()
    bench = Bench(options.celeba, options.work, options.cores, options.minutes, options.samples)
    if str(options.celeba) == "drawn":
        everything = drawn(bench, options.where)
    else:
        everything = cut_as(bench, options.cut_as) if options.cut_as else bench.pack(SIDE)
    results: dict[tuple[int, str], list[dict[str, float]]] = {}
    judge = first_of(everything, options.against) if options.against else everything
    draws = range(options.draws) if options.only_draw is None else [options.only_draw]
    for count in options.counts:
        for way in options.ways:
            if options.train_only:
                for draw in draws:
                    trained(bench, everything, count, draw, way)
            else:
                results[count, way] = [trial(bench, everything, judge, count, draw, way) for draw in draws]
    if results:
        print(table(results))


if __name__ == "__main__":
    main()
