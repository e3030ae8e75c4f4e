"""The gallery: every system of the seeds, trained for some minutes of one core, and `docs/gallery.md` with what came of it.

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
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURES = DOCS / "pictures" / "gallery"
WORDS = Path(__file__).with_suffix(".toml")  # what originals report, what is seen after so many images
FACTS = PICTURES / "gallery.json"  # what was measured, so that the page can be written without the runs
SAMPLES = 1000  # of a FID, against as many of the first images
FIRST = 1000  # images before which nothing is judged
LOOK = 5.0  # seconds between looks at a training's CPU time
MOST_BYTES = 300_000  # of a picture
WIDE = 548  # pixels of a sheet, about
MOMENTS = 8  # rows of a strip
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system of the seeds, and how it is trained here."""

    name: str  # of its run and pictures
    preset: str
    title: str
    side: int = 32
    minutes: float = 5.0  # CPU time of its training
    flags: tuple[str, ...] = ()
    labels: str = ""  # of the pack, for a run that is told them
    drawn: bool = False  # on the built-in drawn faces, which FID of photographs does not judge
    of: str = ""  # the row that this one is an ablation of: it is shown there, and not in the table
    encodes: bool = False  # reconstructions and attribute vectors are shown too
    today: bool = False  # one of mien's own presets, shown for comparison
    beside: tuple[tuple[str, str, tuple[str, ...]], ...] = ()  # more pictures: suffix, caption, flags of `mien sample`


GENDER = "Male=gender_Male"
ATTRIBUTES = "Male=gender_Male,Older=age_50-59"
RECONSTRUCTED = 16  # photographs, as the first of the archive
SMALL_BEGAN = ("--model.width", "32", "--recipe.lr", "2e-4", "--recipe.carry-images", "40000")
SMALL_ZHAO = ("--model.width", "32", "--model.encoder-width", "32", "--batch", "16")
SMALL_HOMOGAN = ("--model.width", "64", "--recipe.critic.width", "64")
SPLIT = ("--recipe.updates", "split", "--recipe.critic-pause-above", "None")  # as in the original
THREE_MOVES = ("--recipe.critic-steps", "3")  # of the critic for one of the generator, as homogan-15 has
NO_NORM = ("--model.no-batch-norm",)
GAMMAS = ("began-2017-gamma-3", "began-2017", "began-2017-gamma-7")
LARGE = (
    ("64", "Seed 3 at 64 px", ("--seeds", "3", "--size", "64")),
    ("1080", "The same latent at 1,080 px", ("--seeds", "3", "--size", "1080")),
)
ROWS: tuple[Row, ...] = (
    Row(
        name="began-2017",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.5",
        minutes=5.0,
        flags=SMALL_BEGAN,
    ),
    Row(
        name="began-2017-gamma-3",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.3",
        minutes=5.0,
        flags=(*SMALL_BEGAN, "--recipe.gamma", "0.3"),
    ),
    Row(
        name="began-2017-gamma-7",
        preset="began-2017",
        title="BEGAN (2017), gamma 0.7",
        minutes=5.0,
        flags=(*SMALL_BEGAN, "--recipe.gamma", "0.7"),
    ),
    Row(
        name="began-zhao-2020",
        preset="began-zhao-2020",
        title="sicongzhao's BEGAN (2020), with its faults",
        minutes=2.0,
        flags=SMALL_ZHAO,
    ),
    Row(
        name="began-zhao",
        preset="began-zhao",
        title="sicongzhao's BEGAN without its faults",
        minutes=4.0,
        flags=SMALL_ZHAO[:-2],
    ),
    Row(
        name="vae-torch-2015",
        preset="vae-torch-2015",
        title="VAE of the Torch blog (2015)",
        encodes=True,
        minutes=3.0,
        flags=("--model.width", "64", "--batch", "32"),
    ),
    Row(
        name="vae-simpsons-2023",
        preset="vae-simpsons-2023",
        title="Simpsons VAE (2023)",
        side=64,
        minutes=3.0,
        flags=("--model.width", "32", "--batch", "32"),
        drawn=True,
    ),
    Row(
        name="dcgan-2015",
        preset="dcgan-2015",
        title="DCGAN (2015)",
        minutes=4.0,
        flags=(
            "--batch",
            "16",
            "--random-crop",
            "1",
        ),  # the original's windows of 2/3 are cut from loosely cropped faces
    ),
    Row(
        name="torch-gan-2015",
        preset="torch-gan-2015",
        title="GAN of the Torch blog (2015)",
        minutes=10.0,
        flags=("--model.width", "64", "--batch", "16"),
    ),
    Row(
        name="homogan-15-fixed",
        preset="homogan-15-fixed",
        title="homogan's fifteenth experiment (2020), corrected",
        minutes=16.0,
        flags=SMALL_HOMOGAN,
        labels=GENDER,
        beside=(
            (
                "asked",
                "The same eight latents, asked for a woman (left) and a man (right)",
                ("--seeds", "0-7", "--combine", "Male"),
            ),
        ),
    ),
    Row(
        name="homogan-15-fixed-as-original",
        preset="homogan-15-fixed",
        title="three moves of the critic for one, no normalisation, as in the original",
        of="homogan-15-fixed",
        minutes=1.5,
        flags=(*SMALL_HOMOGAN, *SPLIT, *THREE_MOVES, *NO_NORM),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-one-move",
        preset="homogan-15-fixed",
        title="one move of the critic for one, no normalisation",
        of="homogan-15-fixed",
        minutes=1.5,
        flags=(*SMALL_HOMOGAN, *SPLIT, *NO_NORM),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-norm",
        preset="homogan-15-fixed",
        title="three moves of the critic for one, batch normalisation in the generator",
        of="homogan-15-fixed",
        minutes=1.5,
        flags=(*SMALL_HOMOGAN, *SPLIT, *THREE_MOVES),
        labels=GENDER,
    ),
    Row(
        name="homogan-15-fixed-no-pause",
        preset="homogan-15-fixed",
        title="as it is now, but the critic never pauses",
        of="homogan-15-fixed",
        minutes=4.0,
        flags=(*SMALL_HOMOGAN, "--recipe.critic-pause-above", "None"),
        labels=GENDER,
    ),
    Row(
        name="cppn-2016",
        preset="cppn-2016",
        title="CPPN-GAN-VAE, part one (2016)",
        minutes=6.0,
        flags=("--model.width", "64", "--batch", "16"),
        beside=LARGE,
    ),
    Row(
        name="cppn-residual-2016",
        preset="cppn-residual-2016",
        title="CPPN-GAN-VAE, part two (2016)",
        minutes=6.0,
        flags=("--batch", "16"),
        beside=LARGE,
    ),
    Row(
        name="vaegan-torch-2015",
        preset="vaegan-torch-2015",
        title="VAE/GAN hybrid of the Torch blog (2015)",
        encodes=True,
        minutes=6.0,
        flags=("--model.width", "64", "--batch", "16"),
    ),
    Row(
        name="vaegan-2016",
        preset="vaegan-2016",
        title="VAE/GAN of Larsen et al. (2016)",
        encodes=True,
        minutes=12.0,
        flags=(
            *("--model.width", "32", "--recipe.critic.width", "16", "--batch", "32"),
            *("--recipe.lr", "1e-4"),  # for half the batch; above 1e-4 reimplementations saw it diverge
        ),
    ),
    Row(
        name="gan",
        preset="gan",
        title="mien's `gan`",
        minutes=6.0,
        today=True,
    ),
)


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


def opened(path: Path) -> Any:
    from PIL import Image

    return Image.open(path).convert("RGB")


def keep(image: Any, path: Path, times: int = 0) -> None:
    """Write a picture for the page in at most MOST_BYTES, its pixels enlarged by a whole number: about to WIDE where it is 0."""
    from PIL import Image

    times = times or max(1, WIDE // image.width)
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in (92, 85, 75, 60, 45):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            return


def strip(run: Path) -> Any:
    """Eight seeds at eight moments, a row each, the last the newest: each about as many times older as the one before."""
    from PIL import Image

    from mien.report.grid import GAP
    from mien.report.run_reader import sample_grids

    grids = sample_grids(run)
    last = grids[-1][0]
    wanted = [last / 2.0 ** (MOMENTS - 1 - place) for place in range(MOMENTS)]
    chosen = dict.fromkeys(min(grids, key=lambda grid: abs(grid[0] - seen)) for seen in wanted)
    rows = []
    for _, path in chosen:
        whole = opened(path)
        height = GAP + (whole.height - GAP) // 8  # of a grid of eight rows
        rows.append(whole.crop((0, 0, whole.width, height)))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def curves(run: Path, path: Path) -> None:
    """The losses of a run, or the three curves of a game, as its report plots them."""
    from mien.report.plots import plot_run

    drawn = {found.name: found for found in plot_run(run)}
    chosen = drawn.get("balance.png") or drawn.get("losses.png")
    if chosen is None:
        return
    image = opened(chosen)
    image.thumbnail((820, 10_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(64).save(path, optimize=True)


ENCODINGS = (
    ("reconstructions", "Photographs of the data and their reconstructions"),
    (
        "male",
        "Four seeds along the attribute vector *Male* (mean encoding of men minus that of women), from -3 to 3 deviations",
    ),
    ("older", "The same seeds along the vector of the ages 50 to 59"),
)

HEAD = """# Gallery: every system of the seeds, trained here

What each system of the seeds draws after some minutes of one core. Every sheet shows seeds 0 to 63, none left out; a strip shows
seeds 0 to 7 at up to eight moments of the training, each with about twice the images of the row above. The originals had hours or
days of a GPU: a sheet here tells whether a system works and what it is like when it is young, not how good it becomes. What a
command turns besides the side (`--batch`, `--model.width` and so on) makes up for the small machine: fewer feature maps, and
smaller batches for more moves.

`python benchmarks/gallery.py fairface-adults-128.zip WORK_DIR` trains, judges and draws all of it, and writes this page.

Machine: two shared cores with AVX-512 BF16, no matrix units, no GPU. Each training has one thread, and its minutes are CPU time of
its process. Data: 13,472 faces of FairFace (Kärkkäinen and Joo, WACV 2021, CC BY 4.0; cropped and aligned), or, where it says so,
the built-in drawn faces. FID is that of {samples:,} samples (seeds 0 to {last}) against the first {samples:,} faces: with so few
it is tens of points above the usual one of 50,000, and compares only within this page. Eigenfaces, a Gaussian over 64 principal
components of the same faces, are judged the same way: a linear model's faces, which a system must beat to be worth its training.
"""
CHART = """FID over the minutes of each training at 32 px, by `python benchmarks/fid_chart.py` from the figures of this page:

![FID over minutes of every system](pictures/fid-over-minutes.png)"""


def said(row: Row, known: dict[str, Any] | None = None) -> tuple[str, str]:
    """What the original reports, and what is seen; words about a younger sheet say so."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8")).get(row.name, {})
    reports, seen = (" ".join(words.get(name, "").split()) for name in ("reports", "seen"))
    if seen and known and words["at"] != known["images"]:
        seen += f" (So it was after {words['at']:,} images.)"
    return reports, seen or "Not yet described"


def page(facts: dict[str, Any]) -> str:
    lines = [HEAD.format(samples=SAMPLES, last=SAMPLES - 1)]
    lines += ["| system | px | images | CPU minutes | FID | eigenfaces | seen |", "|---|---|---|---|---|---|---|"]
    for row in (row for row in ROWS if not row.of):
        link = f"[{row.title}](#{row.name})"
        known = facts.get(row.name)
        if known is None:
            lines.append(f"| {link} | {row.side} | | | | | not yet trained here |")
            continue
        fid = f"{known['fid']:.1f} | {known['eigenfaces']:.1f}" if "fid" in known else "not yet | "
        first = said(row, known)[1].split(". ")[0].rstrip(".")
        lines.append(f"| {link} | {known['side']} | {known['images']:,} | {known['minutes']:.1f} | {fid} | {first} |")
    lines += ["", CHART]
    for row in (row for row in ROWS if not row.of):
        lines += ["", *section(row, facts)]
    return "\n".join(lines) + "\n"


def section(row: Row, facts: dict[str, Any]) -> Iterator[str]:
    known = facts.get(row.name)
    yield f'<a id="{row.name}"></a>'
    yield f"## {row.title}"
    yield ""
    yield "For comparison: a preset of mien's own." if row.today else f"**The original.** {said(row)[0]}"
    yield ""
    if known is None:
        yield "Not yet trained here."
        return
    yield f"    {known['command']}"
    yield ""
    amount = f"{known['images']:,} images of {known['side']} px, {known['minutes']:.1f} minutes of CPU time"
    judged = f"; FID {known['fid']:.1f}, eigenfaces {known['eigenfaces']:.1f}" if "fid" in known else "; not yet judged"
    yield f"{amount}{' on the drawn faces' * row.drawn}{judged}."
    if "conditions" in known:
        told = known["conditions"]
        met = ", ".join(f"{name.removeprefix('condition_')} {value:.2f}" for name, value in told.items() if "_" in name)
        yield f"Conditions met (chance is 0.5; the judge is right about {told['classifier']:.2f} of real faces): {met}."
    yield ""
    yield f"**Seen.** {said(row, known)[1]}"
    if why := tomllib.loads(WORDS.read_text(encoding="utf-8")).get(row.name, {}).get("why"):
        yield ""
        yield f"**Why.** {' '.join(why.split())}"
    yield ""
    yield f"![Seeds 0 to 63 of {row.title}](pictures/gallery/{row.name}.webp)"
    yield ""
    if row.name == "began-2017" and (PICTURES / "began-gammas.webp").exists():
        yield "Gamma 0.3, 0.5 and 0.7 side by side, seeds 0 to 31 after about as many images:"
        yield ""
        yield "![BEGAN with gamma 0.3, 0.5 and 0.7](pictures/gallery/began-gammas.webp)"
        yield ""
    pictures = [(suffix, caption) for suffix, caption, _ in row.beside]
    for suffix, caption in [*pictures, *ENCODINGS] if row.encodes else pictures:
        if (PICTURES / f"{row.name}-{suffix}.webp").exists():
            yield f"{caption}:"
            yield ""
            yield f"![{caption}](pictures/gallery/{row.name}-{suffix}.webp)"
            yield ""
    yield f"![Seeds 0 to 7 while {row.title} learned](pictures/gallery/{row.name}-strip.webp)"
    if (PICTURES / f"{row.name}-curves.png").exists():
        yield ""
        yield f"![Curves of {row.title}](pictures/gallery/{row.name}-curves.png)"
    yield from ablations(row, facts)


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


def ablations(row: Row, facts: dict[str, Any]) -> Iterator[str]:
    """What was tried beside a row, each with its first seeds."""
    tried = [part for part in ROWS if part.of == row.name and part.name in facts]
    if tried:
        yield ""
        yield "What mattered, tried with less training (sheets of seeds 0 to 63 under the table, in its order):"
        yield ""
        yield "| run | images | CPU minutes | FID | seen |"
        yield "|---|---|---|---|---|"
    for part in tried:
        known = facts[part.name]
        fid = f"{known['fid']:.1f}" if "fid" in known else ""
        seen = said(part, known)[1]
        yield f"| {part.title} (`{' '.join(part.flags)}`) | {known['images']:,} | {known['minutes']:.1f} | {fid} | {seen} |"
    for part in tried:
        yield ""
        yield f"![Seeds 0 to 63, {part.title}](pictures/gallery/{part.name}.webp)"


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
