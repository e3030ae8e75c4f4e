"""axe finds no violation in the explorer, the report, the leaderboard and a pack's page, and the keyboard alone suffices."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")
pytest.importorskip("axe_playwright_python", reason="SKIPPED AXE TESTS: axe-playwright-python is not installed")

from mien.data import Preparation, find_source, prepare
from mien.data.pack import Pack
from mien.models.eigenfaces import EigenfacesConfig
from mien.report.pack_page import write_pack_page
from mien.report.page import write_report
from mien.training.baseline import fit_baseline
from tests.conftest import blobs
from tests.report_example import write_run
from tests.test_explore_browser import DESKTOP, PHONE, at, open_page, rests, runs, served, until  # noqa: F401 - fixtures
from tests.test_report_browser import browser, leaderboard_of  # noqa: F401 - a fixture

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
RUN = """(more) => axe.run(document, { resultTypes: ["violations"], ...more }).then((found) => found.violations.flatMap(
  ({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary}`)))"""


def violations(page: Any) -> list[str]:
    """What axe complains about on a page as it stands: by every rule in the light, and by its colours in the dark."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = list(page.evaluate(RUN, {}))
    page.emulate_media(color_scheme="dark")
    found += page.evaluate(RUN, {"runOnly": ["color-contrast", "link-in-text-block"]})
    page.emulate_media(color_scheme="light")
    return found


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_view_of_the_explorer_has_a_violation(open_page: Callable[..., Any], size: Any) -> None:  # noqa: F811
    page = open_page(preset="vae", size=size)
    found: dict[str, list[str]] = {}

    def look(view: str) -> None:
        page.wait_for_timeout(400)
        found[view] = violations(page)

    for tab in page.locator("#tabs [role=tab]:not([hidden])").all():
        name = str(tab.get_attribute("id"))
        if tab.get_attribute("aria-selected") != "true":
            tab.click()
        if name == "tab-mix":
            page.click("#mix-begin")
            look("a mixture of two")
            page.click("#mix-more")
        if name == "tab-walk":
            page.click("#walk-fill")
        if name == "tab-sheet":
            page.wait_for_selector("#sheet .thumb:nth-child(100)")
            page.click("#sheet-map")
            page.wait_for_selector("#sheet .thumb[aria-current]")
        if name == "tab-favourites":
            look("no favourites")
            page.click("#favourite")
        if name == "tab-directions":
            page.select_option("#direction-choice", index=1)
        if name == "tab-compare":
            until(page, "document.querySelectorAll('#comparison canvas[aria-busy=false]').length === 2")
        look(name)
    page.click("#share-open")
    look("share")
    page.keyboard.press("Escape")
    page.click("#help")
    look("help")
    page.keyboard.press("Escape")
    page.evaluate("location.hash = 'at=hello'")
    page.wait_for_selector(".toast.fault")
    look("an error")
    assert len(found) > 16 and not {view: lines for view, lines in found.items() if lines}, found


def prepared_pack(tmp_path: Path) -> Pack:
    """A pack as `mien data prepare` writes it, with one file refused."""
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(blobs(12, 40, seed=3)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "notes.png").write_text("no picture")
    prepare(find_source(tmp_path / "photos"), tmp_path / "photos.pack", Preparation(side=16), workers=1, force=True)
    return Pack.open(tmp_path / "photos.pack")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_page_from_disk_has_a_violation(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    blob_pack: Pack,
    size: Any,
) -> None:
    run = write_run(tmp_path / "runs" / "00007-torch-gan-2015-drawn-s1")
    write_report(run)
    baseline = fit_baseline(blob_pack, tmp_path / "8", EigenfacesConfig(components=8))
    pages = {
        "report": (run / "report.html").as_uri(),
        "leaderboard": leaderboard_of([baseline, run], tmp_path / "leaderboard.html"),
        "pack": write_pack_page(prepared_pack(tmp_path), tmp_path)[1].as_uri(),
    }
    context = browser.new_context(viewport=size, reduced_motion="reduce")
    found = {}
    for name, address in pages.items():
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        found[name] = violations(page)
        if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
            found[name].append("it needs sideways scrolling")
    context.close()
    assert not any(found.values()), found


def test_the_keyboard_alone_finds_changes_breeds_films_and_shares(
    open_page: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    page = open_page(preset="vae")
    page.evaluate("document.body.focus()")

    def reach(selector: str) -> None:
        """Press Tab until an element has the focus, which is shown."""
        for _ in range(250):
            if page.evaluate("(s) => document.activeElement?.matches(s) ?? false", selector):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", selector
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {selector}")

    page.keyboard.press("Space")  # find a face
    page.wait_for_selector('#face:not([data-at="42"])[aria-busy="false"]')
    seed = at(page)
    first = rests(page, seed)
    for number in range(3):  # change three sliders
        if number:
            page.keyboard.press("Tab")
        reach("#sliders input[type=range]:not([data-moved])")
        page.evaluate("document.activeElement.dataset.moved = '1'")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(60)
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.querySelectorAll('#sliders [data-moved]')].length") == 3
    assert rests(page, seed) != first
    for _ in range(20):  # undo
        page.keyboard.press("Control+z")
        page.wait_for_timeout(50)
        if page.is_disabled("#undo"):
            break
    assert page.is_disabled("#undo")
    page.keyboard.press("Control+y")
    page.wait_for_timeout(200)
    reach("#tabs [role=tab][aria-selected=true]")  # breed
    page.wait_for_selector("#litter .thumb")
    reach("#litter .thumb")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('face').dataset.at.includes('~')")
    page.keyboard.press("w")  # film
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    page.keyboard.press("w")
    reach("#tabs [role=tab][aria-selected=true]")
    while page.get_attribute("#tab-walk", "aria-selected") != "true":
        page.keyboard.press("ArrowRight")
    assert page.locator("#stops li").count() == 2
    reach("#frames")
    page.keyboard.press("Control+a")
    page.keyboard.type("8")
    reach("#export:not([disabled])")
    with page.expect_download() as waited:
        page.keyboard.press("Enter")
    waited.value.save_as(tmp_path / "walk")
    assert (tmp_path / "walk").stat().st_size > 100
    reach("#tab-walk")  # share
    page.keyboard.press("c")
    assert page.is_visible("#share-dialog")
    reach("#share-card")
    with page.expect_download() as waited:
        page.keyboard.press("Enter")
    waited.value.save_as(tmp_path / "card.png")
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
