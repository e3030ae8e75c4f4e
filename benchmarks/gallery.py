"""The gallery: every system that mien reproduces, trained for some minutes of one core, and `docs/gallery.md` with what came of it.

    python benchmarks/gallery.py ARCHIVE WORK_DIR                          every row to its minutes; the page anew after each
    python benchmarks/gallery.py ARCHIVE WORK_DIR --only began-2017 --minutes 20
    python benchmarks/gallery.py ARCHIVE WORK_DIR --page                   the page alone, from what is there

ARCHIVE is FairFace's folder or ZIP with labels.csv (`fairface-adults-128.zip`). Minutes are CPU time of the training process, read
from /proc every few seconds, so that a busy machine gives every system the same; without /proc they are minutes of the clock. Run
it again after any interruption: each run goes on from its last checkpoint, what was judged stays, and the page is written from
what is there. A row whose run is not in WORK_DIR keeps the pictures and figures of before.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gallery_page import PICTURES, SAMPLES, page
from benchmarks.gallery_pictures import curves, keep, opened, strip
from benchmarks.gallery_rows import ATTRIBUTES, GAMMAS, RECONSTRUCTED, ROWS, Row

DOCS = Path(__file__).resolve().parent.parent / "docs"
FACTS = PICTURES / "gallery.json"  # what was measured, so that the page can be written without the runs
FIRST = 1000  # images before which nothing is judged
LOOK = 5.0  # seconds between looks at a training's CPU time
TICKS = os.sysconf("SC_CLK_TCK")


def mien(*arguments: object) -> str:
    line = [sys.executable, "-m", "mien", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def computed(pid: int) -> float | None:
    """Seconds of CPU time that a process has used so far; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".new").replace(path)


class Bench:
    """The packs, the runs, and what is measured."""

    def __init__(self, archive: Path, work: Path, along: bool = False) -> None:
        self.archive, self.work, self.along = archive, work, along
        work.mkdir(parents=True, exist_ok=True)

    def pack(self, side: int, *flags: str, name: str = "") -> Path:
        pack = self.work / f"fairface{side}{name}.pack"
        if not pack.exists():
            mien("data", "prepare", self.archive, pack, "--size", side, *flags)
        return pack

    def data(self, row: Row) -> Path:
        """What a row learns from."""
        if row.drawn:
            from mien.data.open import open_data

            return open_data(None, row.side).path
        return self.pack(row.side, "--labels", row.labels, name="-told") if row.labels else self.pack(row.side)

    def judges(self, row: Row) -> Path:
        """The first of its faces, with which samples are compared."""
        pack = self.work / f"{'drawn' if row.drawn else 'fairface'}{row.side}-first-{SAMPLES}.pack"
        if not pack.exists():
            source = self.data(row) if row.drawn else self.pack(row.side)
            mien("data", "prepare", source, pack, "--limit", SAMPLES)
        return pack

    def spent(self, row: Row) -> list[dict[str, float]]:
        """The pieces of a row's training: images before and after, seconds of CPU time."""
        return read(self.work / f"{row.name}.pieces.json") or []

    def minutes(self, row: Row) -> float:
        return sum(piece["seconds"] for piece in self.spent(row)) / 60

    def train(self, row: Row, minutes: float) -> None:
        """Train until so many minutes of CPU time are used; the state is saved, and a next call goes on."""
        before = self.spent(row)
        budget = 60 * minutes - 60 * self.minutes(row)
        if budget <= 0:
            return
        run = self.work / row.name
        line = [sys.executable, "-m", "mien", "train", row.preset, "--side", str(row.side), *row.flags]
        line += [] if row.drawn else ["--data", str(self.data(row))]
        line += ["--images", str(10**9), "--threads", "1", "--out", str(run)]
        started, seen = time.monotonic(), images_of(run)
        child = subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"})
        # A polite end of this script is one of the training.
        old = {name: signal.signal(name, lambda *_: child.terminate()) for name in (signal.SIGTERM, signal.SIGINT)}
        seconds = 0.0
        try:
            while child.poll() is None:
                seconds = computed(child.pid) or time.monotonic() - started
                write(
                    self.work / f"{row.name}.pieces.json",
                    [*before, {"from": seen, "to": images_of(run), "seconds": round(seconds, 1)}],
                )
                if seconds >= budget:
                    child.terminate()
                    child.wait()
                time.sleep(LOOK)
        finally:
            for name, handler in old.items():
                signal.signal(name, handler)
        if seconds < budget and child.returncode:
            raise SystemExit(f"{row.name} ended with {child.returncode}")

    def fid(self, run: Path, row: Row, checkpoint: Path | None = None) -> float:
        """FID of the first seeds against the first faces; measured once for a model."""
        images = int(checkpoint.name) if checkpoint else images_of(run)
        kept = self.work / f"{run.name}-{images}.fid.json"
        if not kept.exists():
            told = mien(
                "evaluate",
                checkpoint or run,
                "--data",
                self.judges(row),
                "--metrics",
                "fid",
                "--samples",
                SAMPLES,
                "--json",
            )
            kept.write_text(told)
        scores = json.loads(kept.read_text())["scores"]
        return float(next(score["value"] for score in scores if score["metric"] == "fid"))

    def fid_over_minutes(self, row: Row) -> list[tuple[float, float]]:
        """CPU minutes and FID of a run's end, and of the checkpoints that it keeps, if they are judged (`--along`)."""
        from mien.storage.checkpoint import milestones

        run = self.work / row.name
        kept = sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
        spared = milestones(int(path.name) for path in kept)
        shown = [path for path in kept if int(path.name) in spared and int(path.name) >= FIRST]
        each = self.minutes(row) / images_of(run)
        judged = [
            path for path in shown if self.along or (self.work / f"{run.name}-{int(path.name)}.fid.json").exists()
        ]
        points = {int(path.name): self.fid(run, row, path) for path in judged}
        points[images_of(run)] = self.fid(run, row)
        return [(round(images * each, 2), round(value, 1)) for images, value in sorted(points.items())]

    def eigenfaces(self, row: Row) -> float:
        """FID of the baseline, fitted to all that a row learns from, and judged like the others."""
        from mien.data.pack import Pack
        from mien.training.baseline import fit_baseline

        pack = self.data(row) if row.drawn else self.pack(row.side)
        return self.fid(fit_baseline(Pack.open(pack), self.work / f"eigenfaces-{'drawn' * row.drawn}{row.side}"), row)

    def conditions(self, row: Row) -> dict[str, float]:
        """How often conditions are met, and how often the classifier is right on real faces."""
        run = self.work / row.name
        kept = self.work / f"{run.name}-{images_of(run)}.conditions.json"
        if not kept.exists():
            kept.write_text(mien("evaluate", run, "--metrics", "conditions", "--samples", SAMPLES, "--json"))
        return {score["name"]: score["value"] for score in json.loads(kept.read_text())["scores"]}

    def trained(self, row: Row) -> dict[str, Any]:
        """What is known of a row before it is judged."""
        images = images_of(self.work / row.name)
        return {
            "images": images,
            "minutes": round(self.minutes(row), 1),
            "side": row.side,
            "command": command(row, images),
        }

    def judged(self, row: Row) -> dict[str, Any]:
        """The scores of a trained row."""
        scores: dict[str, Any] = {"fid": self.fid(self.work / row.name, row), "eigenfaces": self.eigenfaces(row)}
        if not (row.of or row.drawn):
            scores["fid_over_minutes"] = self.fid_over_minutes(row)
        return {**scores, "conditions": self.conditions(row)} if row.labels and not row.of else scores

    def draw(self, row: Row) -> None:
        """The sheet, the strip and the curves."""
        run = self.work / row.name
        sheet = self.work / f"{row.name}-sheet.png"
        mien("sample", run, "--seeds", "0-63", "-o", sheet)
        keep(opened(sheet), PICTURES / f"{row.name}.webp")
        if row.of:
            return
        keep(strip(run), PICTURES / f"{row.name}-strip.webp")
        curves(run, PICTURES / f"{row.name}-curves.png")

    def draw_beside(self, row: Row) -> None:
        """What else a row shows; a picture of 1,080 px takes a CPPN a minute."""
        run = self.work / row.name
        for suffix, _, flags in row.beside:
            picture = self.work / f"{row.name}-{suffix}.png"
            mien("sample", run, *flags, "-o", picture)
            keep(opened(picture), PICTURES / f"{row.name}-{suffix}.webp", times=1)
        if row.encodes:
            self.draw_encodings(row, run)

    def draw_encodings(self, row: Row, run: Path) -> None:
        """The first photographs beside their reconstructions, and four seeds along the vector of each attribute."""
        pack, picture = self.pack(row.side, "--labels", ATTRIBUTES, name="-attributes"), self.work / "encodings.png"
        mien("project", run, *self.photographs(), "--crop", "squash", "-o", picture)
        keep(opened(picture), PICTURES / f"{row.name}-reconstructions.webp")
        mien("directions", run, "--data", pack, "--labels", "Male,Older", "--images", 4000)
        for name in ("Male", "Older"):
            mien("edit", run, "--seed", "0-3", "--direction", f"{name}=3", "--strip", 7, "-o", picture)
            keep(opened(picture), PICTURES / f"{row.name}-{name.lower()}.webp")

    def photographs(self) -> list[Path]:
        """The first photographs of the archive, as files."""
        folder = self.work / "photographs"
        if not folder.exists():
            with zipfile.ZipFile(self.archive) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:RECONSTRUCTED]
                archive.extractall(folder, names)
        return sorted(folder.rglob("*.jpg"))

    def side_by_side(self) -> None:
        """The gammas of BEGAN in one picture, the first half of each sheet, as near as can be after equally many images."""
        from PIL import Image

        from mien.report.run_reader import sample_grids

        runs = [self.work / name for name in GAMMAS]
        if not all(images_of(run) for run in runs):
            return
        count = min(images_of(run) for run in runs)
        grids = [opened(min(sample_grids(run), key=lambda grid: abs(grid[0] - count))[1]) for run in runs]
        width, height = grids[0].width, grids[0].height // 2 + 1
        sheet = Image.new("RGB", (len(runs) * (width + 8) - 8, height), "white")
        for place, grid in enumerate(grids):
            sheet.paste(grid.crop((0, 0, width, height)), (place * (width + 8), 0))
        keep(sheet, PICTURES / "began-gammas.webp")


def images_of(run: Path) -> int:
    """Images that a run has learned from."""
    return int((read(run / "status.json") or {"seen": 0})["seen"])


def command(row: Row, images: int) -> str:
    """What trains a row to the same weights."""
    pack = "" if row.drawn else f" --data fairface{row.side}{'-told' if row.labels else ''}.pack"
    return " ".join(("mien train", row.preset + pack, f"--side {row.side}", *row.flags, f"--images {images}"))


def tell(row: Row, found: dict[str, Any]) -> None:
    """Keep what is known of a row, and write the page anew; scores stay until the row has learned more."""
    facts = read(FACTS) or {}
    before = facts.get(row.name, {})
    if before.get("images") == found["images"]:
        found = {**before, **found}
    facts = {**facts, row.name: found}
    write(FACTS, {known.name: facts[known.name] for known in ROWS if known.name in facts})
    (DOCS / "gallery.md").write_text(page(facts), encoding="utf-8")
    judged = f"FID {found['fid']:.1f}" if "fid" in found else "not judged"
    print(f"{row.name:<22} {found['images']:>9,} images {found['minutes']:6.1f} min  {judged}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument("--minutes", type=float, help="of CPU time in all, instead of each row's own")
    parser.add_argument(
        "--page", action="store_true", help="train and judge nothing: write the page from what is there"
    )
    parser.add_argument("--train-only", action="store_true", help="train and draw; judge later")
    parser.add_argument("--judge-only", action="store_true", help="draw and judge what is trained")
    parser.add_argument("--along", action="store_true", help="judge the checkpoints along each training too")
    given = parser.parse_args()
    bench = Bench(given.archive, given.work, given.along)
    rows = [row for row in ROWS if row.name in given.only and not given.page]
    for row in rows:
        if not given.judge_only:
            bench.train(row, row.minutes if given.minutes is None else given.minutes)
        images = images_of(bench.work / row.name)
        if images and (images != (read(FACTS) or {}).get(row.name, {}).get("images")):
            bench.draw(row)
            bench.side_by_side()
            tell(row, bench.trained(row))
    for row in rows:  # judging takes a while, and every sheet is there before
        if images_of(bench.work / row.name) and not given.train_only:
            bench.draw_beside(row)
            tell(row, {**bench.trained(row), **bench.judged(row)})
    (DOCS / "gallery.md").write_text(page(read(FACTS) or {}), encoding="utf-8")


if __name__ == "__main__":
    main()
