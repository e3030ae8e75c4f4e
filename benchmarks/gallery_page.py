"""docs/gallery.md: a table and a section for each row, from what was measured and from what was seen (gallery.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gallery_rows import ROWS, Row

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "gallery"
WORDS = Path(__file__).with_name("gallery.toml")  # what originals report, what is seen after so many images
SAMPLES = 1000  # of a FID, against as many of the first images
ENCODINGS = (
    ("reconstructions", "Photographs of the data and their reconstructions"),
    (
        "male",
        "Four seeds along the attribute vector *Male* (mean encoding of men minus that of women), from -3 to 3 deviations",
    ),
    ("older", "The same seeds along the vector of the ages 50 to 59"),
)

HEAD = """# Gallery: every reproduced system, trained here

What each reproduced system draws after some minutes of one core. Every sheet shows seeds 0 to 63, none left out; a strip shows
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
