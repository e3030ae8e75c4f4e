"""The report page of a pack and its contact sheet: content, preparation, and co-occurrence of labels."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.data.check import SHEET, spread
from mien.data.framing import framing_facts
from mien.data.labels import together
from mien.data.pack import Images, Pack
from mien.report.grid import grid, save_png
from mien.report.html import Markup, document, join, tag
from mien.storage import atomic
from mien.storage.provenance import Claim, Provenance

MOST_LABELS = 48  # that the table of pairs shows


def contact_sheet(images: Images) -> Image.Image:
    """Images `[n, side, side, 3]` in reading order."""
    return grid([Image.fromarray(image) for image in images])


def write_pack_page(pack: Pack, folder: Path) -> tuple[Path, Path]:
    """Write contact.png and report.html into `folder`; the page needs no other file. Returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(pack.images[spread(len(pack), SHEET)])
    picture, page = folder / "contact.png", folder / "report.html"
    save_png(sheet, picture, {"data": pack.fingerprint}, Claim.INPUT)
    atomic.refuse_special(page)
    atomic.replace_text(page, pack_page(pack, sheet))
    return picture, page


def pack_page(pack: Pack, sheet: Image.Image) -> str:
    """The page as text. Raises Mismatch for a pack that does not say how it was prepared."""
    meta = pack.preparation
    counts, recipe = meta["counts"], meta["recipe"]
    facts = {
        "images": f"{len(pack):,}",
        "side": f"{pack.side} px",
        "labels": f"{len(pack.label_names)}",
        "held out": f"{meta['splits'].get('holdout', 0):,}",
        "refused": f"{counts['refused']:,}",
        "crop": recipe["crop"],
    }
    framing = framing_facts(meta, len(pack))
    head = tag(
        "header",
        tag("p", f"{meta['source']['name']} ({meta['source']['layout']})", class_="overline"),
        tag("h1", pack.name),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="facts"),
        class_="page-head",
    )
    body = join(
        head,
        tag(
            "main",
            section(
                "Images", embedded(sheet, pack), *(tag("p", f"{title}: {words}.") for title, words in framing.items())
            ),
            *label_sections(pack),
            *made_sections(pack),
        ),
        tag("footer", f"fingerprint {pack.fingerprint}", class_="page-foot"),
    )
    return document(f"{pack.name} · mien", body, ["pack.css"], ["pack.js"], {}, Claim.INPUT)


def section(title: str, *children: object) -> Markup:
    return tag("section", tag("h2", title), *children)


def embedded(sheet: Image.Image, pack: Pack) -> Markup:
    content = Provenance({"data": pack.fingerprint}, Claim.INPUT).encode(sheet, "WEBP", quality=85)
    data = base64.b64encode(content).decode()
    words = f"{min(len(pack), SHEET)} of {len(pack):,} images, evenly spread"
    return tag("img", src=f"data:image/webp;base64,{data}", alt=words, class_="sheet", width=sheet.width)


def label_sections(pack: Pack) -> list[Markup]:
    """The frequency of each label, and co-occurrences."""
    if pack.labels is None:
        return []
    head = tag(
        "tr", tag("th", "label"), *(tag("th", word, class_="number") for word in ("yes", "no", "not known", "share"))
    )
    rows = []
    for name, count in pack.meta["counts"]["labels"].items():
        if "range" in count:
            low, high = count["range"]
            words = f"{low:,g} to {high:,g}, mean {count['mean']:,g}"
            cells = [tag("td", words, colspan="2"), tag("td", f"{count['unknown']:,}", class_="number"), tag("td")]
            rows.append(tag("tr", tag("th", name, scope="row"), *cells))
            continue
        share = count["yes"] / max(count["yes"] + count["no"], 1)
        numbers = (f"{count['yes']:,}", f"{count['no']:,}", f"{count['unknown']:,}")
        bar = tag("meter", value=f"{share:.4f}", min="0", max="1")
        cells = [
            *(tag("td", number, class_="number") for number in numbers),
            tag("td", bar, f" {share:.1%}", class_="number"),
        ]
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="sortable")
    balance = section("Labels", tag("div", table, class_="scroll"))
    return [balance, section("Labels together", *pairs(pack))]


def pairs(pack: Pack) -> list[Markup]:
    """The table of shares: of the images with the row's label, how many have the column's."""
    assert pack.labels is not None
    names = pack.label_names[:MOST_LABELS]
    shares = together(np.asarray(pack.labels[:, :MOST_LABELS]))
    columns = [tag("th", tag("span", name), scope="col") for name in names]
    rows = []
    for name, row in zip(names, shares, strict=True):
        cells = []
        for value, other in zip(row, names, strict=True):
            level = "none" if np.isnan(value) else f"l{round(10 * value)}"
            words = "" if np.isnan(value) else f"{value:.0%}"
            cells.append(tag("td", words.removesuffix("%"), class_=level, title=f"{words} of {name} are {other}"))
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    table = tag("table", tag("thead", tag("tr", tag("td"), *columns)), tag("tbody", *rows), class_="pairs")
    words = "Of the images with the row's label, how many in a hundred have the column's."
    if len(pack.label_names) > MOST_LABELS:
        words += f" The first {MOST_LABELS} of {len(pack.label_names)} labels."
    return [tag("p", words, class_="soft"), tag("div", table, class_="scroll")]


def made_sections(pack: Pack) -> list[Markup]:
    """The preparation of the pack, and the images that were left out."""
    meta = pack.meta
    counts_and_notes = {**{k: v for k, v in meta["counts"].items() if k not in ("labels", "balance")}, **meta["notes"]}
    sections = [
        section("How it was made", definition(meta["recipe"]), tag("h3", "Counts"), definition(counts_and_notes))
    ]
    if meta["remarks"]:
        sections.append(section("Remarks", *(tag("p", remark) for remark in meta["remarks"])))
    left_out = [*meta["refused"], *meta.get("duplicates", ())]
    if left_out:
        rows = [tag("tr", tag("td", item["name"]), tag("td", item["reason"])) for item in left_out[:1000]]
        head = tag("thead", tag("tr", tag("th", "file"), tag("th", "reason")))
        table = tag("table", head, tag("tbody", *rows))
        more = tag("p", f"and {len(left_out) - 1000:,} more in pack.json") if len(left_out) > 1000 else None
        sections.append(section("Left out", tag("div", table, class_="scroll"), more))
    return sections


def definition(values: dict[str, Any]) -> Markup:
    present = {name: value for name, value in values.items() if value not in (None, "", [], {}, False)}
    rows = (join(tag("dt", name.replace("_", " ")), tag("dd", in_words(value))) for name, value in present.items())
    return tag("dl", *rows, class_="tree")


def in_words(value: Any) -> str:
    """A value of pack.json as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={target}" for name, target in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
