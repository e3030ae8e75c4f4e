"""The explorer on a phone, by touch: each test walks through several interactions, because a page takes long to open."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from mien.report.grid import read_recipe
from tests.conftest import blobs
from tests.test_explore_browser import (  # noqa: F401 - fixtures
    FACE,
    PHONE,
    at,
    open_page,
    rests,
    runs,
    served,
    served_models,
    until,
)
from tests.test_report_browser import browser  # noqa: F401 - a fixture

Test = TypeVar("Test", bound=Callable[..., None])


def shows(*numbers: int) -> Callable[[Test], Test]:
    """Names the interactions that a test shows, by their numbers in test_explore_interactions.py."""

    def named(test: Test) -> Test:
        test.shows = numbers  # type: ignore[attr-defined]
        return test

    return named


def open_tool(page: Any, name: str) -> None:
    """Tap a tool's tab: the tool opens in the sheet below the face, which stays in view."""
    page.tap(f"#tab-{name}")
    page.wait_for_selector(f"#panel-{name}:not([hidden])")
    face, panel = page.locator("#face").bounding_box(), page.locator(f"#panel-{name}").bounding_box()
    assert face["y"] >= 0 and face["y"] + face["height"] <= panel["y"] < PHONE["height"], f"{name} covers the face"


def drag(page: Any, selector: str, across: float, down: float = 0.0) -> None:
    """Drag a finger from the middle of an element."""
    box, session = page.locator(selector).bounding_box(), page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    touch("touchStart", (x, y))
    for share in (0.25, 0.5, 0.75, 1.0):
        touch("touchMove", (x + share * across, y + share * down))
    touch("touchEnd")
    session.detach()


def leaves(page: Any, place: str) -> str:
    """Wait until another face than that at an address is on show, exactly; its address."""
    page.wait_for_selector(f'#face:not([data-at="{place}"])')
    return at(page)


def downloaded(page: Any, selector: str, file: Path) -> Path:
    """Tap what downloads a file, and save it."""
    with page.expect_download() as waited:
        page.tap(selector)
    waited.value.save_as(file)
    return file


@shows(1, 2, 4, 15, 16, 17, 27, 33, 37)
def test_faces_are_found_changed_and_kept(open_page: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    page = open_page(size=PHONE)
    first = rests(page, "42")
    page.tap("#new")
    other = leaves(page, "42")
    assert rests(page, other) != first and page.input_value("#seed") == other
    page.tap("#undo")
    assert rests(page, "42") == first
    page.tap("#redo")
    rests(page, other)
    page.tap("#undo")
    rests(page, "42")

    drag(page, "#pad-area", page.locator("#pad-area").bounding_box()["width"] / 10)
    beside = leaves(page, "42")
    assert beside.startswith(("42,", "43,")), "half a seed to the right"
    drag(page, "#face", -100.0)
    moved = leaves(page, beside)

    slider = page.locator("#sliders input").first
    box = slider.bounding_box()
    slider.tap(position={"x": box["width"] / 3, "y": box["height"] / 2})
    until(page, "/&t=0\\.[45]/.test(location.hash)")
    picture, hash = rests(page, moved), page.evaluate("location.hash")
    page.tap("#new")
    leaves(page, moved)
    page.evaluate(f"location.hash = {json.dumps(hash)}")  # a link that is followed
    assert rests(page, moved) == picture

    file = downloaded(page, "#save", tmp_path / "face.png")
    assert read_recipe(file)["at"] == moved and read_recipe(file)["synthetic"] is True
    page.tap("#favourite")
    until(page, "document.getElementById('favourite').getAttribute('aria-pressed') === 'true'")
    page.tap("#new")
    leaves(page, moved)
    open_tool(page, "photo")
    page.set_input_files("#photo-file", file)
    assert rests(page, moved) == picture, "a picture that was saved brings its face back"

    open_tool(page, "favourites")
    page.wait_for_selector("#favourites .thumb")
    with zipfile.ZipFile(downloaded(page, "#favourites-zip", tmp_path / "faces.zip")) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 1
    open_tool(page, "near")
    until(page, "document.querySelectorAll('#near img').length === 6")
    assert page.inner_text("#memorised") in ("Memorised?", "Not a copy")
    page.tap("#share-open")
    with Image.open(downloaded(page, "#share-card", tmp_path / "card.png")) as card:
        assert card.size == (1024, 1024) and "Synthetic" in card.info["Disclaimer"]


@shows(11, 12, 13, 21, 28, 35)
def test_tools_open_below_the_face(open_page: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    page = open_page(size=PHONE)
    models = served_models(page)
    first = rests(page, "42")
    open_tool(page, "breed")
    page.locator("#litter .thumb").nth(8).wait_for()
    page.locator("#litter .thumb").nth(4).tap()
    page.wait_for_selector('#face[data-at^="42~"]')
    page.locator("#lineage .thumb").first.tap()
    assert rests(page, "42") == first

    open_tool(page, "mix")
    page.fill("#mix-with", "7")
    page.tap("#mix-add")
    assert rests(page, "42~7:0.5") != first
    page.tap("#mix-end")
    assert rests(page, "42") == first

    open_tool(page, "walk")
    page.tap("#walk-fill")
    until(page, "document.querySelectorAll('#stops .thumb').length === 4")
    page.fill("#frames", "6")
    page.select_option("#format", "webp")
    with Image.open(downloaded(page, "#export", tmp_path / "walk.webp")) as film:
        assert film.n_frames > 2  # type: ignore[attr-defined]

    open_tool(page, "sheet")
    page.wait_for_selector("#sheet .thumb:nth-child(100)")
    page.tap("#sheet-map")
    page.wait_for_selector("#sheet .thumb[aria-current]")
    chosen = page.locator("#sheet .thumb").nth(3)
    seed = str(chosen.get_attribute("title")).removeprefix("Face ")
    chosen.tap()
    rests(page, seed)

    open_tool(page, "compare")
    until(page, "document.querySelectorAll('#comparison canvas[aria-busy=false]').length === 2")
    page.locator("#comparison select").nth(1).select_option(models["vae"])
    until(page, "document.querySelectorAll('#comparison canvas[aria-busy=false]').length === 2")
    page.locator("#comparison .thumb").nth(1).tap()
    until(page, f"document.getElementById('model').value === {json.dumps(models['vae'])}")
    page.go_back()
    until(page, f"document.getElementById('model').value === {json.dumps(models['quick'])}")
    page.select_option("#model", models["vae"])
    until(page, f"location.hash.includes('m={models['vae']}')")
    rests(page, seed)


@shows(6, 14, 18, 19, 26, 31)
def test_a_photograph_and_directions(open_page: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    page = open_page(preset="vae", size=PHONE)
    first = rests(page, "42")
    age = page.locator("fieldset .slider").nth(1).locator("input")
    age.scroll_into_view_if_needed()
    box = age.bounding_box()
    age.tap(position={"x": box["width"] * 0.75, "y": box["height"] / 2})
    until(page, "location.hash.includes('direction=Age:')")
    free = rests(page, "42")
    assert free != first
    page.tap("[aria-label='Lock Smiling']")
    until(page, "location.hash.includes('lock=Smiling')")
    assert rests(page, "42") != free and page.locator("fieldset .slider").first.locator("input").is_disabled()

    file = tmp_path / "me.png"
    Image.fromarray(blobs(1, 60, seed=3)[0]).save(file)
    open_tool(page, "photo")
    page.set_input_files("#photo-file", file)
    page.wait_for_selector('#face[data-at^="@"]')
    page.wait_for_selector("#wiped:not([hidden])")
    wipe = page.locator("#wipe")
    wipe.scroll_into_view_if_needed()
    box = wipe.bounding_box()
    wipe.tap(position={"x": box["width"] * 0.2, "y": box["height"] / 2})
    until(page, "document.getElementById('wipe').value < 40")
    until(
        page, "document.getElementById('after').style.clipPath.includes(` ${document.getElementById('wipe').value}%`)"
    )

    open_tool(page, "training")
    until(page, "document.getElementById('sample').getAttribute('aria-label').startsWith('Grid of samples')")
    made = page.evaluate("document.getElementById('sample').toDataURL()")
    page.tap("#time-reconstructions")
    until(page, "document.getElementById('sample').getAttribute('aria-label').startsWith('Grid of reconstructions')")
    assert page.evaluate("document.getElementById('sample').toDataURL()") != made
    until(page, "document.querySelectorAll('#curves .meaning').length > 0")


@pytest.mark.parametrize("width", [320, 345, 390])
def test_every_button_below_the_face_is_on_the_screen(open_page: Callable[..., Any], width: int) -> None:  # noqa: F811
    """At 345 px, as on the front page of the site, *Save* was cut off."""
    page = open_page(size={**PHONE, "width": width})
    rests(page, "42")
    for button in page.locator("#stage button").all():
        box = button.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= width)
    face, caption, tools = (page.locator(part).bounding_box() for part in ("#face", ".caption", "#tools"))
    assert face["y"] + face["height"] <= caption["y"] and 0 <= tools["y"] - caption["y"] - caption["height"] < 16, (
        "no empty band"
    )
