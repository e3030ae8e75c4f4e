"""The report of a run: what it shows, and what it survives."""

from __future__ import annotations

import itertools
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.errors import DataError
from mien.report.charts import spread
from mien.report.formatting import duration, short, ticks
from mien.report.html import tag
from mien.report.page import write_report
from mien.report.pictures import MOST, MOST_BYTES, pictures
from mien.report.run_reader import read_record
from mien.report.series import panels, smoothed, stat
from tests.report_example import PAYLOADS, hostile_run, metric_lines, write_run


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the page's text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open = ""
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))
        self.open = name

    def handle_endtag(self, name: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open not in ("script", "style"):
            self.words += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "00007-torch-gan-2015-drawn-s1")


def test_the_page_tells_the_run(run_dir: Path) -> None:
    path = write_report(run_dir)
    page = Elements(path.read_text(encoding="utf-8"))
    assert path == run_dir / "report.html"
    for words in ("256,000", "1 min 47 s", "resumed 2 times", "Fréchet distance (FID)", "[41.37, 43.93]", "Critic strength",
                  "3f9a2c7b10de", "mien sample runs/00007-torch-gan-2015-drawn-s1 --seeds 0-63", "margin 0.7"):  # fmt: skip
        assert words in page.words, words
    assert len(page.all("img")) == 6 and [image["alt"] for image in page.all("img") if "hidden" not in image] == [
        "Grid of faces after 256,000 images seen"
    ]
    assert {area["aria-label"] for area in page.all("div") if area.get("role") == "slider"} >= {
        "The game: generator against critic: read a point", "Speed, images a second: read a point",
    }  # fmt: skip


def test_the_page_asks_nothing_of_any_network(run_dir: Path) -> None:
    page = Elements(write_report(run_dir).read_text(encoding="utf-8"))
    for name, attributes in page.found:
        for key in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith("data:"), (name, key)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    assert len(PAYLOADS) >= 30
    page = Elements(write_report(hostile_run(tmp_path / "run")).read_text(encoding="utf-8"))
    made = {
        "html", "head", "meta", "link", "title", "style", "body", "header", "main", "section", "footer", "div", "p", "span", "h1",
        "h2", "h3", "dl", "dt", "dd", "small", "svg", "line", "text", "polygon", "polyline", "figure", "figcaption", "b", "img",
        "button", "input", "output", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "ul", "li",
        "pre", "code", "script",
    }  # fmt: skip
    assert {name for name, _ in page.found} <= made
    assert len(page.all("script")) == 2 and len(page.all("style")) == 1 and len(page.all("meta")) == 7
    assert not [key for _, attributes in page.found for key in attributes if key.startswith("on") or key == "style"]
    assert PAYLOADS[0] in page.words and PAYLOADS[22] in page.words and "\u202e" not in page.words


def test_text_and_attributes_are_escaped_and_markup_is_not_escaped_twice() -> None:
    made = tag("p", "<b>", tag("i", "&"), None, False, title='"x"', hidden=True, lang=None, class_="a")
    assert made == '<p title="&quot;x&quot;" hidden class="a">&lt;b&gt;<i>&amp;</i></p>'
    assert tag("img", src="data:,") == '<img src="data:,">'


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    words = Elements(write_report(tmp_path).read_text(encoding="utf-8")).words
    assert "No faces yet" in words and "No curves yet" in words and tmp_path.name in words


def test_torn_and_odd_files_are_survived(run_dir: Path) -> None:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    odd = [
        '{"seen": 256640, "generator_loss": NaN, "critic_fake": Infinity}',
        "[]",
        '{"seen": "x"}',
        '{"generator_loss": 1}',
    ]
    torn = "\n".join([*lines, *odd, lines[-1][:40]]).encode() + b"\xff\xfe"
    (run_dir / "metrics.jsonl").write_bytes(torn)
    (run_dir / "data.json").write_text('{"count": ')
    (run_dir / "health.json").write_text('{"verdicts": {"name": 3}}')
    with (run_dir / "eval" / "scores.jsonl").open("a") as file:
        file.write('{"metric": "fid", "name": "fid10k_train", "value": NaN, "seen": 300000}\n{"name": 3}\n{"metr')
    (run_dir / "samples" / "0000000001.png").write_bytes(b"\x89PNG torn")
    (run_dir / "samples" / "latest.png").write_bytes(b"")
    record = read_record(run_dir)
    assert len(record.metrics) == 401 and record.seen == 256_640
    page = Elements(write_report(run_dir).read_text(encoding="utf-8"))
    assert len(page.all("img")) == 6 and "not a number" in page.words
    assert np.isfinite(panels(record)[0].limits).all()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run"):
        write_report(tmp_path)


def test_many_big_grids_stay_below_six_megabytes(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", grids=0)
    (run_dir / "samples").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)  # what compresses worst
    Image.fromarray(noise).save(run_dir / "first.png")
    for index in range(1, 152):
        shutil.copy(run_dir / "first.png", run_dir / "samples" / f"{index * 640:010d}.png")
    compressed: dict[Path, Any] = {}
    shown = pictures(read_record(run_dir).grids, compressed)
    assert 30 < len(shown) <= MOST and (shown[0].seen, shown[-1].seen) == (640, 151 * 640)
    assert max(len(picture.source) for picture in shown) <= MOST_BYTES * 4 / 3 + 100
    assert {b.seen - a.seen for a, b in itertools.pairwise(shown[:-1])} == {4 * 640}
    assert write_report(run_dir, compressed=compressed).stat().st_size < 6e6
    known = dict(compressed)
    shutil.copy(run_dir / "first.png", run_dir / "samples" / f"{152 * 640:010d}.png")
    pictures(read_record(run_dir).grids, compressed)
    assert len(set(compressed) - set(known)) == 1, "a new grid made the old ones be compressed anew"


def test_panels_hold_what_belongs_together(run_dir: Path) -> None:
    found = {panel.key: panel for panel in panels(read_record(run_dir))}
    assert list(found)[:2] == ["balance", "accuracy"] and "score-fid10k_train" in found and "images_per_second" in found
    assert [series.label for series in found["balance"].series] == ["gen", "fake", "real"]
    assert [(bound.value, bound.label) for bound in found["balance"].bounds] == [(0.3, "margin"), (0.7, "margin")]
    assert found["balance"].limits[0] == 0 and found["balance"].limits[1] < 4, "rare spikes squeeze the curves"


def test_losses_of_very_different_size_do_not_share_an_axis(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", lines=3, scores=False)
    lines = [{"seen": n, "pixel_loss": 200.0, "kl_loss": 0.02, "prior_loss": 0.05} for n in (64, 128)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = [sorted(series.label for series in panel.series) for panel in panels(read_record(run_dir))]
    assert groups == [["kl loss", "prior loss"], ["pixel loss"]]


def test_thinned_curves_keep_their_extent_and_end() -> None:
    lines = metric_lines(5000, 64)
    curve = stat(lines, "generator_loss", points=240)
    raw = [line["generator_loss"] for line in lines]
    assert len(curve.seen) == 240 and curve.seen[-1] == 5000 * 64
    assert curve.high.max() == max(raw) and curve.low.min() == min(raw)


def test_smoothing_keeps_constants_and_short_curves() -> None:
    assert np.allclose(smoothed(np.full(101, 3.0), 7), 3.0)
    assert smoothed(np.array([1.0, 5.0]), 0).tolist() == [1.0, 5.0]
    line = np.arange(200, dtype=float)
    assert np.allclose(smoothed(line, 5)[:150], line[:150]), "a straight line must not lag"


def test_numbers_are_written_for_readers() -> None:
    assert ticks(0, 1.93e6) == [0, 500_000, 1_000_000, 1_500_000]
    assert ticks(0.61, 1.02, 4) == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert [short(n) for n in (0, 0.25, 12, 1200, 2.5e6, 3e-5)] == ["0", "0.25", "12", "1.2k", "2.5M", "3e-05"]
    assert [duration(n) for n in (8.2, 64, 11_520, 3_600_000)] == ["8 s", "1 min 4 s", "3 h 12 min", "1,000 h 0 min"]
    assert spread([10, 11, 12], 15, 200) == [10, 25, 40] and spread([195, 199], 15, 200) == [177.5, 192.5]
