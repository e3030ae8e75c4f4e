"""The pages in a browser, opened from disk: mouse, keyboard, narrow screens, hostile names, and no request to anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mien.data.pack import Pack
from mien.models.eigenfaces import EigenfacesConfig
from mien.report.comparison import compared
from mien.report.leaderboard import write_leaderboard
from mien.report.page import write_report
from mien.report.run_reader import read_record
from mien.report.sample_rows import draw_sample_row
from mien.training.baseline import fit_baseline
from tests.report_example import PAYLOADS, hostile_run, write_run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="SKIPPED BROWSER TESTS: playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("SKIPPED BROWSER TESTS: no chromium on this machine")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        new_context = opened.new_context

        def patient(**options: Any) -> Any:
            context = new_context(**options)
            context.set_default_timeout(120_000)  # a busy machine takes its time
            return context

        opened.new_context = patient
        yield opened
        opened.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "00007-torch-gan-2015-drawn-s1")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page that notes every request and complaint: nothing may leave, nothing may be said."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("dialog", lambda dialog: said.append(dialog.message))
    yield found
    context.close()
    assert not said, said
    assert not [
        url for url in asked if not (url.startswith("data:") or (url.startswith("file:") and url.endswith(".html")))
    ], asked


def visible(page: Any, within: str = ".faces") -> list[str]:
    """The descriptions of the grids on show."""
    return [image.get_attribute("alt") for image in page.locator(f"{within} img").all() if image.is_visible()]


def test_the_slider_moves_by_keyboard_and_mouse(run_dir: Path, page: Any) -> None:
    page.goto(write_report(run_dir).as_uri())
    slider = page.locator("#time")
    assert visible(page) == ["Grid of faces after 256,000 images seen"]
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert visible(page) == ["Grid of faces after 170,666 images seen"]
    assert slider.get_attribute("aria-valuetext") == "170,666 images seen"
    assert page.locator("#seen").inner_text() == "170,666"
    assert page.locator(".chart .at").first.inner_text().startswith("170,"), "the curves do not follow the slider"
    page.keyboard.press("Home")
    assert visible(page) == ["Grid of faces after 42,666 images seen"]
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    assert visible(page) == ["Grid of faces after 170,666 images seen"]


def test_play_runs_through_the_grids_and_stops(run_dir: Path, page: Any) -> None:
    page.clock.install()
    page.goto(write_report(run_dir).as_uri())
    page.clock.pause_at(
        page.evaluate("Date.now()") / 1000 + 60
    )  # time goes on as the test says, not as fast as a machine is busy
    button = page.locator("#play")
    button.click()
    assert button.inner_text() == "Pause" and visible(page) == ["Grid of faces after 42,666 images seen"]
    page.clock.run_for(10_000)
    assert button.inner_text() == "Play"
    assert visible(page) == ["Grid of faces after 256,000 images seen"]


def test_a_point_of_a_curve_is_read_by_mouse_and_keyboard(run_dir: Path, page: Any) -> None:
    page.goto(write_report(run_dir).as_uri())
    area = page.locator(".area").first
    box = area.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    text = page.locator(".readout").first.inner_text()
    assert text.startswith("128,") and "gen 1." in text, text
    assert visible(page) == ["Grid of faces after 256,000 images seen"], "reading must not move the faces"
    page.mouse.down()
    page.mouse.up()
    assert visible(page) == ["Grid of faces after 128,000 images seen"]
    area.focus()
    page.keyboard.press("Home")
    assert area.get_attribute("aria-valuetext").startswith("640 images: gen ")
    page.keyboard.press("ArrowRight")
    assert int(area.get_attribute("aria-valuenow")) > 640


@pytest.mark.parametrize("width", [340, 820, 1600])
def test_no_width_needs_sideways_scrolling(run_dir: Path, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(write_report(run_dir).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_text_runs_nowhere(tmp_path: Path, page: Any) -> None:
    page.goto(write_report(hostile_run(tmp_path / "run")).as_uri())
    page.locator("#time").focus()
    page.keyboard.press("ArrowLeft")
    page.mouse.move(700, 400)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None


def leaderboard_of(runs: list[Path], out: Path, title: str = "Leaderboard") -> str:
    """The address of a leaderboard on disk, as `mien compare -o` writes it."""
    board = compared([read_record(run) for run in runs])
    return write_leaderboard(board, [draw_sample_row(record) for record in board.records], out, title).as_uri()


@pytest.mark.parametrize("width", [340, 1280])
def test_the_leaderboard_shows_the_same_seeds_and_fits(tmp_path: Path, blob_pack: Pack, page: Any, width: int) -> None:
    runs = [fit_baseline(blob_pack, tmp_path / str(count), EigenfacesConfig(components=count)) for count in (2, 8)] + [
        write_run(tmp_path / "trained", lines=40)
    ]
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(leaderboard_of(runs, tmp_path / "leaderboard.html"))
    faces = page.locator(".strip img")
    assert faces.count() == 4 and all(image.evaluate("image => image.naturalWidth") > 100 for image in faces.all())
    assert page.locator(".strip .soft").inner_text().startswith("trained contains no model")
    tops = {round(image.bounding_box()["y"]) for image in faces.all()}
    assert len(tops) == (2 if width > 1000 else 4), "two pictures side by side, or under one another"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('.scroll'))"
    )
    page.locator("summary").first.click()
    assert page.locator("details[open] dl").count() == 1


def test_the_leaderboard_shows_all_runs_after_equal_time(tmp_path: Path, page: Any) -> None:
    runs = [write_run(tmp_path / name, lines=lines, seed=lines) for name, lines in (("slow", 200), ("fast", 400))]
    page.goto(leaderboard_of(runs, tmp_path / "leaderboard.html"))
    assert visible(page, ".run") == ["slow: faces after 128,000 images seen", "fast: faces after 256,000 images seen"]
    slider = page.locator("#time")
    slider.focus()
    page.keyboard.press("Home")
    assert visible(page, ".run") == ["slow: faces after 21,333 images seen", "fast: faces after 42,666 images seen"]
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert visible(page, ".run") == ["slow: faces after 128,000 images seen", "fast: faces after 128,000 images seen"]
    assert slider.get_attribute("aria-valuetext") in ("53 s", "54 s")


def test_hostile_text_runs_nowhere_in_the_leaderboard(tmp_path: Path, page: Any) -> None:
    runs = [hostile_run(tmp_path / name) for name in ("one", "two")]
    page.goto(leaderboard_of(runs, tmp_path / "leaderboard.html", PAYLOADS[2]))
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None and page.locator(".alarm").count() == 1
