"""The explorer's page in a browser, on really trained small models: every control does what it says."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from mien.data.photo import can_align
from mien.report.grid import read_recipe
from mien.sampling import bundled
from tests.conftest import blobs, steer, write_model, write_pack
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served, serving, short_run

FACE = "document.getElementById('face').toDataURL()"


DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@functools.cache
def trained(folder: Path) -> Path:
    """A folder in another one with runs and models, for all files of tests that look at an explorer of them."""
    root = folder / "trained"
    root.mkdir()
    pack = write_pack(root / "blobs.pack")
    for number, name in enumerate(("quick", "vae", "cppn-2016")):
        short_run(name, pack.path, root / "runs" / f"0000{number}-{name}")
    steer(root / "runs" / "00001-vae")
    (root / "flow").mkdir()
    labelled = write_pack(root / "labelled.pack", labels=("Hat", "Glasses"))
    write_model("flow", root / "flow", labelled, 0.03, **{"conditional": True, "model.steps": 4})
    (root / "styled").mkdir()
    steer(write_model("quick", root / "styled", pack, **{"model.mapping": 2}))
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, because some tests add a run, or what a health check has found."""
    root = tmp_path_factory.mktemp("place")
    return shutil.copytree(trained(tmp_path_factory.getbasetemp()), root, dirs_exist_ok=True) / "runs"


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[Served]:
    with serving([runs, *(runs.parent / name / "model.safetensors" for name in ("flow", "styled"))]) as found:
        yield found


@pytest.fixture
def open_page(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:  # noqa: F811
    """Opens pages that note every request and complaint: nothing may leave, nothing may be said."""
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def opened(
        preset: str = "quick",
        hash: str | None = None,
        routes: dict[Any, Any] | None = None,
        console: re.Pattern[str] | None = None,
        script: str = "",
        size: dict[str, int] = DESKTOP,
        **options: Any,
    ) -> Any:
        # the size of the context, not one that is set later: the tabs would be arranged for another one until they hear of it
        touch = {"has_touch": True, "is_mobile": True} if size == PHONE else {}
        context = browser.new_context(viewport=size, accept_downloads=True, reduced_motion="reduce", **touch, **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("request", lambda request: asked.append(request.url))
        expected = console or re.compile("(?!)")
        page.on(
            "console",
            lambda message: (
                None if expected.search(message.text) or READBACK in message.text else said.append(message.text)
            ),
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        for pattern, handler in (routes or {}).items():
            page.route(pattern, handler)
        there = served.json("/api/models")
        models = {run["preset"]: run["checkpoints"][0]["model"] for run in there["runs"]}
        models["flow"], models["styled"] = (model["id"] for model in there["models"])
        page.goto(f"{served.own}/#{hash or f'm={models[preset]}&at=42'}")
        page.wait_for_selector("#face[data-at]")
        page.keyboard.press("p")  # square pixels: smooth ones differ between a browser's two ways of painting a canvas
        page.wait_for_timeout(100)
        page.wait_for_selector('#face[aria-busy="false"]')
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said, said
    assert not [url for url in asked if not url.startswith((served.own, "blob:", "data:"))], asked


READBACK = "willReadFrequently"  # a hint on speed: it is the tests that read canvases back again and again


def to_sliders(page: Any) -> None:
    """Open the pad and the sliders, where they are not always there: on a phone."""
    if page.is_visible("#tab-move"):
        page.click("#tab-move")


#: Remembers what a page says of faults: a message goes after some seconds, and a busy machine takes them until a test looks.
FAULTS = """window.faults = []; new MutationObserver((changes) => {
  for (const { addedNodes } of changes) for (const node of addedNodes)
    if (node instanceof Element && node.matches(".toast.fault")) faults.push(node.textContent);
}).observe(document, { childList: true, subtree: true });"""


def until(page: Any, condition: str) -> None:
    """Wait for an expression to become true. Playwright's own way would need `unsafe-eval`, which the page forbids."""
    started = time.monotonic()
    while not page.evaluate(condition):
        assert time.monotonic() - started < 90, condition
        page.wait_for_timeout(40)


def rests(page: Any, at: str) -> str:
    """Wait until the exact face at an address is on show; its pixels."""
    page.wait_for_selector(f'#face[data-at="{at}"][aria-busy="false"]')
    return str(page.evaluate(FACE))


def at(page: Any) -> str:
    """The address of the face on show."""
    page.wait_for_timeout(150)
    page.wait_for_selector('#face[aria-busy="false"]')
    return str(page.get_attribute("#face", "data-at"))


def test_space_brings_a_new_face_and_undo_the_exact_old_one(open_page: Callable[..., Any]) -> None:
    page = open_page()
    first = rests(page, "42")
    page.keyboard.press(" ")
    page.wait_for_selector('#face:not([data-at="42"])')
    second = at(page)
    other = rests(page, second)
    assert other != first and page.input_value("#seed") == second
    page.keyboard.press("Control+z")
    assert rests(page, "42") == first
    page.keyboard.press("Control+y")
    assert rests(page, second) == other
    assert page.locator("#past .thumb").count() == 2
    page.locator("#past .thumb").first.click()
    assert rests(page, "42") == first


def test_the_address_bar_is_the_state(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.fill("#seed", "7,0.25,0.5~9:0.3")
    page.keyboard.press("Enter")
    rests(page, "7,0.25,0.5~9:0.3")
    page.locator("#sliders input").first.fill("0.6")
    page.locator("#sliders input").first.dispatch_event("change")
    until(page, "location.hash.includes('t=0.6')")
    picture = rests(page, "7,0.25,0.5~9:0.3")
    hash = page.evaluate("location.hash.slice(1)")
    assert len(hash) < 2000
    assert rests(open_page(hash=hash), "7,0.25,0.5~9:0.3") == picture


def test_a_wrong_seed_is_refused_in_place(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for text, sentence in (
        ("hello", "“hello” is not a seed: a seed is a whole number from 0 on, such as 42."),
        ("-5", "“-5” is not a seed: a seed is a whole number from 0 on, such as 42."),
        ("9007199254740993", "“9007199254740993” is too large for a seed: the largest is 9007199254740991."),
        ("1~2", "“1~2” is not an address: a share is missing."),
    ):
        page.fill("#seed", text)
        page.keyboard.press("Enter")
        assert page.evaluate("document.getElementById('seed').validationMessage") == sentence
    assert at(page) == "42"


def test_the_pad_moves_by_mouse_and_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    first = rests(page, "42")
    box = page.locator("#pad-area").bounding_box()
    middle, cell = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), box["width"] / 5
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + cell * 0.5, middle[1], steps=6)
    page.mouse.move(middle[0] + cell, middle[1], steps=6)
    page.wait_for_selector('#face[data-shown="preview"]')
    wide = "document.getElementById('face').width"
    assert page.evaluate(wide) < 100, "the browser enlarges what the next face replaces"
    page.mouse.up()
    page.wait_for_selector('#face:not([data-at="42"])')
    until(page, f"{wide} === document.getElementById('face').clientWidth")
    seed, *_ = at(page).split(",")
    assert seed in ("42", "43")
    page.keyboard.press("Home")
    rests(page, "43")
    page.keyboard.press("Shift+ArrowLeft")
    assert rests(page, "42") == first
    page.keyboard.press("ArrowDown")
    page.wait_for_selector('#face[data-at="42,0,0.1"]')
    face = page.locator("#face").bounding_box()
    page.mouse.move(face["x"] + 200, face["y"] + 200)
    page.mouse.down()
    page.mouse.move(face["x"] + 100, face["y"] + 200, steps=4)
    page.mouse.up()
    page.wait_for_selector('#face:not([data-at="42,0,0.1"])')
    assert at(page).startswith("42,0.")


def test_a_saved_picture_restores_its_state(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.fill("#seed", "7,0.25,0.5")
    page.keyboard.press("Enter")
    picture = rests(page, "7,0.25,0.5")
    page.locator("body").click(position={"x": 5, "y": 5})
    with page.expect_download() as waited:
        page.keyboard.press("s")
    file = tmp_path / "face.png"
    waited.value.save_as(file)
    assert read_recipe(file)["at"] == "7,0.25,0.5" and read_recipe(file)["synthetic"] is True
    other = open_page(preset="vae")
    drop(other, file)
    assert rests(other, "7,0.25,0.5") == picture


def drop(page: Any, file: Path) -> None:
    """Drop a file on the page."""
    content = list(file.read_bytes())
    page.evaluate(
        """([content, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
          const event = { dataTransfer: data, bubbles: true, cancelable: true };
          for (const kind of ["dragover", "drop"]) window.dispatchEvent(new DragEvent(kind, event));
        }""",
        [content, file.name],
    )


def test_breeding_keeps_the_line(open_page: Callable[..., Any]) -> None:
    page = open_page()
    first = rests(page, "42")
    page.locator("#litter .thumb").nth(8).wait_for()
    page.locator("#litter .thumb").nth(4).click()
    page.wait_for_selector('#face[data-at^="42~"]')
    page.wait_for_selector("#lineage .thumb")
    page.wait_for_selector('#litter[aria-busy="false"]')
    page.locator("#litter .thumb").nth(2).click()
    until(page, "document.querySelectorAll('#lineage .thumb').length === 2")
    assert at(page).count("~") == 2
    page.locator("#lineage .thumb").first.click()
    assert rests(page, "42") == first


def test_a_sibling_chosen_before_the_next_litter_takes_the_place(open_page: Callable[..., Any]) -> None:
    page = open_page()
    first = rests(page, "42")
    page.locator("#litter .thumb").nth(8).wait_for()
    page.evaluate("for (const n of [4, 2]) document.querySelectorAll('#litter .thumb')[n].click()")
    page.wait_for_selector('#litter[aria-busy="false"]')
    assert at(page).count("~") == 1 and page.locator("#lineage .thumb").count() == 1
    page.locator("#litter .thumb").nth(4).click()
    until(page, "document.querySelectorAll('#lineage .thumb').length === 2")
    assert at(page).count("~") == 2
    page.locator("#lineage .thumb").first.click()
    assert rests(page, "42") == first


def test_mixing(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#tab-mix")
    page.fill("#mix-with", "7")
    page.keyboard.press("Enter")
    half = rests(page, "42~7:0.5")
    page.fill("#share", "0.25")
    page.locator("#share").dispatch_event("change")
    rests(page, "42~7:0.25")
    page.click("#mix-swap")
    rests(page, "7~42:0.75")
    page.click("#mix-keep")
    rests(page, "7~42:0.75")
    assert page.is_visible("#mix-begin")
    for _ in range(3):
        page.keyboard.press("Control+z")
    assert rests(page, "42~7:0.5") == half


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_walk_plays_and_is_exported(open_page: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    page = open_page()
    page.click("#tab-walk")
    page.click("#walk-add")
    page.click("#walk-fill")
    until(page, "document.querySelectorAll('#stops .thumb').length === 4")
    page.locator("#stops button[aria-label='Take face 4 out']").click()
    page.locator("#stops button[aria-label='Move face 1 right']").click()
    assert page.locator("#stops .thumb").count() == 3
    page.fill("#frames", "9")
    before = page.evaluate("document.getElementById('film').toDataURL()")
    page.click("#play")
    until(page, f"document.getElementById('film').toDataURL() !== {json.dumps(before)}")
    page.click("#play")
    page.select_option("#format", kind)
    with page.expect_download() as waited:
        page.click("#export")
    file = tmp_path / f"walk.{kind}"
    waited.value.save_as(file)
    with Image.open(file) as image:
        assert image.n_frames > 4  # type: ignore[attr-defined]


def test_the_contact_sheet_leads_to_its_seeds(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#tab-sheet")
    page.locator("#sheet .thumb").nth(99).wait_for()
    page.click("#sheet-after")
    page.locator("#sheet [aria-label='Face 142']").click()
    rests(page, "142")


def test_favourites_come_as_an_archive(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.click("#favourite")
    page.click("#new")
    page.wait_for_selector('#face:not([data-at="42"])')
    page.click("#favourite")
    page.click("#tab-favourites")
    until(page, "document.querySelectorAll('#favourites .thumb').length === 2")
    with page.expect_download() as waited:
        page.click("#favourites-zip")
    waited.value.save_as(tmp_path / "faces.zip")
    with zipfile.ZipFile(tmp_path / "faces.zip") as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 2
        with Image.open(io.BytesIO(archive.read(archive.namelist()[0]))) as image:
            assert json.loads(image.info["mien"])["at"] == "42"  # type: ignore[index]
    page.reload()
    page.click("#tab-favourites")
    page.locator("#favourites .thumb").first.click()
    rests(page, "42")


def test_a_photograph_becomes_a_face(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(preset="vae")
    file = tmp_path / "me.png"
    Image.fromarray(blobs(1, 60, seed=3)[0]).save(file)
    drop(page, file)
    page.wait_for_selector('#face[data-at^="@"]')
    page.wait_for_selector("#wiped:not([hidden])")
    assert "Nothing was stored" in page.inner_text("#photo-status")
    aligner = "No face was found" if can_align() else "Nothing here can find faces"
    assert aligner in page.inner_text("#photo-cut-note")
    seen = "[...document.getElementById('error-map').getContext('2d').getImageData(0, 0, 16, 16).data]"
    assert page.evaluate(f"{seen}.some((value, at) => at % 4 === 2 && value > 30)"), "the error map is empty"
    page.uncheck("#photo-level")
    until(page, "document.getElementById('photo-cut-note').textContent === 'The square is used as it is.'")
    page.fill("#wipe", "20")
    assert "20%" in page.evaluate("document.getElementById('after').style.clipPath")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    rests(page, "42")


def test_a_photograph_descends_without_an_encoder(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    file = tmp_path / "me.png"
    Image.fromarray(blobs(1, 60, seed=3)[0]).save(file)
    page.click("#tab-photo")
    page.set_input_files("#photo-file", file)
    page.wait_for_selector('#face[data-at^="@"]')
    assert page.is_visible("#photo-refine")
    page.click("#photo-refine")
    page.wait_for_selector("#photo-stop:not([hidden])")
    page.click("#photo-stop")
    until(page, "document.getElementById('photo-status').textContent === 'Stopped.'")


def test_a_face_is_levelled_unless_it_is_cut_by_hand(open_page: Callable[..., Any], tmp_path: Path) -> None:
    from matplotlib.cbook import get_sample_data

    from mien.data.photo import can_align

    if not can_align():
        pytest.skip("SKIPPED LEVELLING: the extra `faces` or its weights are not here")
    with get_sample_data("grace_hopper.jpg") as file:  # type: ignore[no-untyped-call]
        (tmp_path / "me.jpg").write_bytes(file.read())
    page = open_page(preset="vae")
    page.click("#tab-photo")
    page.set_input_files("#photo-file", tmp_path / "me.jpg")
    until(page, "document.getElementById('photo-cut-note').textContent.includes('levelled')")
    levelled = page.evaluate("document.getElementById('before').toDataURL()")
    page.focus("#photo-cut")
    page.keyboard.press("ArrowUp")
    until(page, "document.getElementById('photo-cut-note').textContent === 'The square is used as it is.'")
    assert not page.is_checked("#photo-level")
    assert page.evaluate("document.getElementById('before').toDataURL()") != levelled
    page.check("#photo-level")
    until(page, "document.getElementById('photo-cut-note').textContent.includes('levelled')")
    assert page.evaluate("document.getElementById('before').toDataURL()") == levelled


def stage_of(page: Any) -> str:
    """The picture of the path that is on show."""
    return str(page.evaluate("document.getElementById('stage-face').toDataURL()"))


def test_the_path_from_noise_can_be_scrubbed_and_played(open_page: Callable[..., Any]) -> None:
    page = open_page(preset="flow")
    page.click("#tab-path")
    page.locator("#stages .thumb").nth(4).wait_for()
    assert page.locator("#stages .thumb").count() == 5 and page.inner_text("#stage-name") == "The face"
    last = stage_of(page)
    page.focus("#moment")
    page.keyboard.press("Home")
    until(page, "document.getElementById('stage-name').textContent === 'Noise'")
    noise = stage_of(page)
    assert noise != last
    page.click("#path-play")
    until(page, "document.getElementById('stage-name').textContent === 'The face'")
    assert stage_of(page) == last and page.inner_text("#path-play") == "Play"
    page.locator("#stages .thumb").first.click()
    assert stage_of(page) == noise
    page.keyboard.press("End")
    page.click("#new")
    until(page, f"document.getElementById('stage-face').toDataURL() !== {json.dumps(noise)}")


@SIZES
def test_a_flow_is_followed_as_it_is_told(open_page: Callable[..., Any], size: dict[str, int]) -> None:
    page = open_page(preset="flow", size=size)
    first = rests(page, "42")
    page.locator("#steps input").fill("2")
    page.locator("#steps input").dispatch_event("change")
    until(page, "location.hash.includes('solver=multistep:2')")
    coarse = rests(page, "42")
    assert coarse != first
    page.click("#tab-path")
    until(page, "document.querySelectorAll('#stages .thumb').length === 3")
    to_sliders(page)
    page.select_option("#solver", "adaptive")
    until(page, "location.hash.includes('solver=adaptive:')")
    assert page.is_hidden("#steps")
    page.click("#tab-path")
    until(page, "document.querySelectorAll('#stages .thumb').length === 13")
    page.keyboard.press("Escape")
    page.click("#undo")
    until(page, "location.hash.includes('solver=multistep:2')")
    assert rests(page, "42") == coarse
    to_sliders(page)
    hat = page.locator("fieldset", has_text="Labels").locator("input").first
    hat.fill("1")
    hat.dispatch_event("change")
    until(page, "location.hash.includes('label=')")
    before = rests(page, "42")
    page.locator("#guidance input").fill("4")
    page.locator("#guidance input").dispatch_event("change")
    until(page, "location.hash.includes('guidance=4')")
    guided = rests(page, "42")
    assert guided != before
    hash = page.evaluate("location.hash.slice(1)")
    assert rests(open_page(hash=hash, size=size), "42") == guided


def test_a_first_run_without_a_model_teaches_one_and_shows_it(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page offers to teach, asks for it with the token, and opens the run that appears."""
    started: list[float] = []
    monkeypatch.setattr("mien.web.training.Training.start", lambda self, minutes, own, parent: started.append(minutes))
    (tmp_path / "runs").mkdir()
    with serving([tmp_path / "runs"]) as empty:
        page = browser.new_context().new_page()
        page.goto(f"{empty.own}/")
        page.wait_for_selector("#welcome:not([hidden])")
        assert page.is_hidden("#train"), "no token, no training"
        page.goto(f"{empty.own}/#token={TOKEN}")
        page.reload()
        page.wait_for_selector("#train:not([hidden])")
        page.click("#train")
        until(page, "document.getElementById('train-hint').textContent.startsWith('It has begun')")
        assert started == [5.0]
        short_run("quick", write_pack(tmp_path / "blobs.pack").path, tmp_path / "runs" / "00000-quick")
        page.wait_for_selector("#face[data-at]", timeout=90_000)
        assert page.is_hidden("#welcome")
        page.context.close()


@SIZES
def test_styles_of_another_face(open_page: Callable[..., Any], size: dict[str, int]) -> None:
    page = open_page(preset="styled", size=size)
    first = rests(page, "42")
    page.click("#tab-mix")
    page.fill("#style-seed", "7")
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('style=7')")
    assert rests(page, "42") != first
    hash = page.evaluate("location.hash.slice(1)")
    styled = rests(page, "42")
    assert rests(open_page(hash=hash, size=size), "42") == styled
    page.click("#style-swap")
    until(page, "location.hash.includes('at=7') && location.hash.includes('style=42')")
    assert rests(page, "7") not in (first, styled)
    page.click("#style-swap")
    assert rests(page, "42") == styled
    page.click("#style-off")
    assert rests(page, "42") == first and page.is_disabled("#style-swap")
    plain = open_page(preset="vae", size=size)
    plain.click("#tab-mix")
    assert plain.is_visible("#mix-begin") and plain.is_hidden("#style-form")


def test_directions_act_in_the_layers_that_are_chosen(open_page: Callable[..., Any]) -> None:
    page = open_page(preset="styled")
    plain = rests(page, "42")
    smile = page.locator("fieldset", has_text="Directions").locator("input").first
    smile.fill("3")
    smile.dispatch_event("change")
    until(page, "location.hash.includes('direction=')")
    whole = rests(page, "42")
    layers = page.locator("details.layers")
    assert layers.get_attribute("open") is None and layers.locator("summary").inner_text() == "In all layers"
    layers.locator("summary").click()
    layers.locator("select").nth(0).select_option("2")
    until(page, "location.hash.includes('layers=2')")
    some = rests(page, "42")
    assert layers.locator("summary").inner_text() == "In layer 2 of 2" and len({plain, whole, some}) == 3
    hash = page.evaluate("location.hash.slice(1)")
    assert rests(open_page(hash=hash), "42") == some
    page.keyboard.press("Control+z")
    until(page, "!location.hash.includes('layers=')")
    assert rests(page, "42") == whole and layers.locator("summary").inner_text() == "In all layers"
    vae = served_models(page)["vae"]
    other = open_page(hash=re.sub(r"\bm=\w+", f"m={vae}", hash))
    assert "no layers 2" in other.inner_text(".toast.fault") and other.locator("details.layers").count() == 0


def test_a_locked_direction_is_held_still(open_page: Callable[..., Any]) -> None:
    page = open_page(preset="vae")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/image" in request.url else None)
    smiling, age = (page.locator("fieldset .slider").nth(n) for n in (0, 1))
    assert smiling.locator("label").inner_text() == "Smiling"
    age.locator("input").fill("2")
    age.locator("input").dispatch_event("change")
    until(page, "location.hash.includes('direction=Age:2')")
    free = rests(page, "42")
    page.click("[aria-label='Lock Smiling']")
    until(page, "location.hash.includes('lock=Smiling')")
    held = rests(page, "42")
    assert held != free and smiling.locator("input").is_disabled()
    sent = dict(re.findall(r"direction=(\w+)%3A([-.\d]+)", asked[-1]))
    model = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('m')")
    gram = page.evaluate(f"fetch('/api/model/{model}').then((answer) => answer.json()).then((able) => able.gram)")
    along = float(sent["Smiling"]) * gram[0][0] + float(sent["Age"]) * gram[0][1]
    assert float(sent["Age"]) == 2 and abs(along) < 1e-3, "the step has no part along the locked one"
    page.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert rests(page, "42") == free and not smiling.locator("input").is_disabled()


def test_reconstructions_and_the_film_of_a_training(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(preset="vae")
    page.click("#tab-training")
    page.wait_for_selector("#time-kinds:not([hidden])")
    until(page, "document.getElementById('sample').getAttribute('aria-label').startsWith('Grid of samples')")
    made = page.evaluate("document.getElementById('sample').toDataURL()")
    page.click("#time-reconstructions")
    until(page, f"document.getElementById('sample').toDataURL() !== {json.dumps(made)}")
    assert "reconstructions" in page.get_attribute("#sample", "aria-label")
    page.click("#time-samples")
    with page.expect_download() as waited:
        page.click("#film-save")
    waited.value.save_as(tmp_path / "film")
    assert (tmp_path / "film").stat().st_size > 500 and waited.value.suggested_filename.startswith("training.")
    until(page, "document.querySelectorAll('#curves .meaning').length > 0")


def test_training_shows_checkpoints_samples_and_curves(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#tab-training")
    until(page, "document.querySelectorAll('#checkpoints .thumb').length >= 2")
    until(page, "document.querySelectorAll('#curves figure').length >= 2")
    last = page.inner_text("#time-value")
    page.focus("#time")
    page.keyboard.press("Home")
    until(page, f"document.getElementById('time-value').textContent !== {json.dumps(last)}")
    chosen = page.inner_text("#time-value")
    page.click("#tab-breed")
    page.click("#tab-training")  # fills the panel again
    page.wait_for_timeout(300)
    assert page.inner_text("#time-value") == chosen != last and page.input_value("#time") == "0"
    assert page.is_hidden("#run-buttons"), "no token, no controls"
    page.locator("#checkpoints .thumb").last.click()
    until(page, "document.getElementById('model').selectedIndex > 0")
    assert at(page) == "42"


def test_nearest_says_whether_it_is_a_copy(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#tab-near")
    until(page, "document.querySelectorAll('#near img').length === 6")
    assert page.inner_text("#memorised") in ("Memorised?", "Not a copy")


def test_what_a_model_cannot_do_is_not_there(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert page.locator("#size").count() == 0 and page.locator("fieldset").count() == 0
    assert page.is_hidden("#tab-path") and page.locator("#solver").count() == 0
    painter = open_page(preset="cppn-2016")
    small = rests(painter, "42")
    painter.fill("#size", "97")
    painter.keyboard.press("Enter")
    until(painter, "location.hash.includes('size=97')")
    assert at(painter) == "42"
    painter.wait_for_timeout(300)
    assert rests(painter, "42") != small
    painter.click("#reset")
    until(painter, "!location.hash.includes('size')")
    painter.wait_for_timeout(300)
    assert rests(painter, "42") == small and painter.is_disabled("#reset")


def test_tabs_by_keyboard_and_names_for_everything(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.focus("#tab-breed")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-mix", "aria-selected") == "true" and page.is_visible("#panel-mix")
    page.keyboard.press("End")
    assert page.is_visible("#panel-about") and "quick" in page.inner_text("#about")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    for tab in page.locator("#tabs [role=tab]:not([hidden])").all():
        tab.click()
        page.wait_for_timeout(50)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, [role=img], [role=application]")]
            .filter((e) => e.checkVisibility())
            .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length))
            .filter((e) => !(e.textContent.trim() || e.title)).map((e) => e.outerHTML.slice(0, 120))"""
        )
        assert not nameless, nameless


@pytest.mark.parametrize("width", [340, 390, 820, 1600])
def test_no_width_needs_sideways_scrolling(open_page: Callable[..., Any], width: int) -> None:
    page = open_page(size={"width": width, "height": 800})
    for tab in page.locator("#tabs [role=tab]:not([hidden])").all():
        if tab.get_attribute("aria-selected") != "true":
            tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab.inner_text()


def test_the_open_tab_stays_in_view_when_a_window_narrows(open_page: Callable[..., Any]) -> None:
    page = open_page(size={"width": 1100, "height": 800})
    page.click("#tab-about")
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(200)
    box = page.locator("#tab-about").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360, box


@pytest.mark.parametrize("size", [DESKTOP, {"width": 1100, "height": 800}, PHONE], ids=["desktop", "laptop", "phone"])
def test_the_face_stays_in_view_whatever_tool_is_open(open_page: Callable[..., Any], size: Any) -> None:
    page = open_page(preset="vae", size=size)
    for tab in page.locator("#tabs [role=tab]:not([hidden])").all():
        if tab.get_attribute("aria-selected") != "true":  # on a phone that would fold the sheet
            tab.click()
        page.wait_for_timeout(100)
        panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
        panel.evaluate("area => { area.scrollTop = 1e6; area.parentElement.scrollTop = 1e6; scrollTo(0, 1e6); }")
        face, tools = page.locator("#face").bounding_box(), page.locator("#tools").bounding_box()
        inside = face["y"] >= 0 and face["y"] + face["height"] <= size["height"]
        assert inside and face["width"] >= 240, (tab.inner_text(), face)
        box = page.locator("#new").bounding_box()
        assert box["y"] + box["height"] <= size["height"], "the button for a new face is in view"
        if size is PHONE:
            assert tools["y"] >= face["y"] + face["height"] and page.locator("#tabs").is_visible()
        else:
            assert tools["x"] >= face["x"] + face["width"], f"{tab.inner_text()} opens beside the face"
    if size is DESKTOP:
        assert page.is_visible("#pad") and page.is_visible("#sliders"), "the controls stay too"


def test_sliders_fold_and_of_many_the_first_six_are_there(open_page: Callable[..., Any]) -> None:
    names = [f"part {n}" for n in range(9)] + ["Smile"]
    found = [{"name": name, "note": f"Found {'on' if name == 'Smile' else 'without labels;'} 9"} for name in names]
    gram = [[float(a == b) for a in names] for b in names]

    def more(route: Any) -> None:
        response = route.fetch()
        route.fulfill(json={**response.json(), "directions": found, "gram": gram, "labels": []})

    page = open_page(preset="quick", routes={re.compile("/api/model/[0-9a-f]{16}$"): more})
    visible = page.locator("fieldset .slider:visible")
    assert visible.count() == 6 and visible.first.locator("label").inner_text() == "Smile"
    page.click("fieldset .more")
    assert visible.count() == 10
    page.click("fieldset .fold")
    assert visible.count() == 0 and page.get_attribute("fieldset .fold", "aria-expanded") == "false"


def test_back_and_forward_walk_the_history_across_models(open_page: Callable[..., Any]) -> None:
    page = open_page()
    models = served_models(page)
    first = rests(page, "42")
    page.fill("#seed", "7")
    page.keyboard.press("Enter")
    second = rests(page, "7")
    page.select_option("#model", models["vae"])
    until(page, f"location.hash.includes('m={models['vae']}')")
    page.wait_for_timeout(300)
    third = rests(page, "7")
    assert third != second and page.locator("fieldset").count() == 1, "the vae has directions"
    page.go_back()
    until(page, f"{FACE} === {json.dumps(second)}")
    assert page.input_value("#model") == models["quick"] and page.locator("fieldset").count() == 0
    page.go_back()
    until(page, f"{FACE} === {json.dumps(first)}")
    page.go_forward()
    until(page, f"{FACE} === {json.dumps(second)}")
    page.keyboard.press("Control+y")
    until(page, f"{FACE} === {json.dumps(third)}")
    assert page.input_value("#model") == models["vae"] and page.locator("fieldset").count() == 1
    page.keyboard.press("Control+z")
    until(page, f"{FACE} === {json.dumps(second)}")
    until(page, f"location.hash.includes('m={models['quick']}')")
    page.go_forward()
    until(page, f"{FACE} === {json.dumps(third)}")
    page.reload()
    page.wait_for_selector("#face[data-at]")
    page.go_back()
    until(page, f"location.hash.includes('m={models['quick']}')")
    page.wait_for_selector('#face[data-at="7"][aria-busy="false"]')
    assert page.input_value("#model") == models["quick"], "also after the page was loaded anew"


def test_undo_goes_further_back_than_a_browser_remembers(open_page: Callable[..., Any]) -> None:
    page = open_page()
    first = rests(page, "42")
    for _ in range(60):
        page.keyboard.press("Shift+R")
        page.keyboard.press(" ")
    for _ in range(60):
        page.keyboard.press("Control+z")
    assert rests(page, "42") == first and page.is_disabled("#undo")
    page.wait_for_timeout(700)
    until(page, "location.hash.includes('at=42')")
    page.keyboard.press("Control+y")
    until(page, "!location.hash.includes('at=42')")


def served_models(page: Any) -> dict[str, str]:
    """The newest model of each preset."""
    there = page.evaluate("fetch('/api/models').then((response) => response.json())")
    return {run["preset"]: run["checkpoints"][0]["model"] for run in there["runs"]}


class Slow:
    """Holds what a page asks for, until the end. A handler that sleeps would hold the test too, and it would look too late."""

    def __init__(self, page: Any, pattern: str) -> None:
        self.held: list[Any] = []
        self.over = False
        page.route(pattern, self.take)

    def take(self, route: Any) -> None:
        route.continue_() if self.over else self.held.append(route)

    def end(self, **answer: Any) -> None:
        """Let everything through, or give one answer to all that was held."""
        self.over = True
        for route in self.held:
            route.fulfill(**answer) if answer else route.continue_()


@pytest.mark.parametrize(
    ("tab", "route", "area"),
    [
        ("breed", "**/children?*", "#litter.waiting"),
        ("sheet", "**/sheet?first*", "#sheet > .tile"),
        ("near", "**/neighbours?*", "#near > .tile"),
        ("path", "**/path?*", "#stages > .tile"),
        ("training", "**/samples/*", "#sample.waiting"),
        ("training", "**/image?*", "#checkpoints .thumb.waiting"),
    ],
)
def test_every_wait_has_a_skeleton(open_page: Callable[..., Any], tab: str, route: str, area: str) -> None:
    page = open_page(preset="flow" if tab == "path" else "quick")
    slow = Slow(page, route)
    page.evaluate("document.getElementById('new').click()")
    page.click(f"#tab-{tab}")
    page.wait_for_selector(area, state="attached")
    slow.end()
    page.wait_for_selector(area, state="detached")


def test_a_model_that_takes_time_has_a_skeleton_and_its_error_is_one_sentence(open_page: Callable[..., Any]) -> None:
    failing = {"error": {
        "code": 422, "message": "/srv/home/me/runs/7/model.safetensors is not a model.", "why": "Its header is cut.",
        "hint": "Copy /srv/home/me/runs/7 again.",
    }}  # fmt: skip

    page = open_page(console=re.compile("422"))
    models = served_models(page)
    slow = Slow(page, f"**/api/model/{models['vae']}")
    page.select_option("#model", models["vae"])
    page.wait_for_selector("main.waiting")
    slow.end(json=failing, status=422)
    page.wait_for_selector(".toast.fault")
    assert page.inner_text(".toast.fault") == "model.safetensors is not a model: copy 7 again."
    assert page.input_value("#model") == models["quick"] and page.locator("main.waiting").count() == 0


def test_the_pad_keeps_its_pictures_while_labels_change(open_page: Callable[..., Any]) -> None:
    page = open_page(preset="flow")
    empty = "document.getElementById('pad').getContext('2d').getImageData(%d, %d, 1, 1).data[3] < 255"
    corner = page.evaluate("Math.round(document.getElementById('pad').width / 10)")
    until(page, f"!({empty % (corner, corner)})")
    slow = Slow(page, "**/sheet?*")
    hat = page.locator("fieldset", has_text="Labels").locator("input").first
    hat.fill("1")
    hat.dispatch_event("change")
    until(page, "location.hash.includes('label=')")
    started = time.monotonic()
    while not slow.held:
        assert time.monotonic() - started < 90, "the pictures are not asked for"
        page.wait_for_timeout(50)
    assert not page.evaluate(empty % (corner, corner)), "the old pictures stay until the new ones are here"
    before = page.evaluate("document.getElementById('pad').toDataURL()")
    slow.end()
    until(page, f"document.getElementById('pad').toDataURL() !== {json.dumps(before)}")


def test_a_photograph_keeps_the_pad_and_has_a_name(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(preset="vae")
    file = tmp_path / "my holiday.png"
    Image.fromarray(blobs(1, 60, seed=3)[0]).save(file)
    drop(page, file)
    page.wait_for_selector('#face[data-at^="@"]')
    page.wait_for_selector('#face[aria-busy="false"]')
    assert page.input_value("#seed") == "my holiday" and page.is_visible("#pad")
    assert page.inner_text("#pad-title") == "Around the photograph"
    texts = "[...document.querySelectorAll('[title], [aria-label]')].map((e) => e.title + e.ariaLabel).join()"
    assert "@" not in page.evaluate(texts)
    latent, first = page.get_attribute("#face", "data-at"), page.evaluate(FACE)
    page.focus("#pad-area")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(f'#face[data-at^="{latent}~"][aria-busy="false"]')
    assert page.evaluate(FACE) != first and page.input_value("#seed") == "my holiday, moved"
    page.keyboard.press("Shift+ArrowLeft")
    assert rests(page, str(latent)) == first


@pytest.mark.parametrize(
    ("hash", "sentence"),
    [
        ("at=hello", "“hello” is not a seed: a seed is a whole number from 0 on, such as 42."),
        ("at=42&with=you", "“you” is not a seed to mix with: a seed is a whole number from 0 on, such as 42."),
        ("at=42&t=much", "The link's truncation, “much”, is not a number from -4 to 4."),
        ("at=42&label=__proto__:1", " has no label “__proto__”: the face is shown without."),
        ("at=42&direction=Smile", "The link's direction “Smile” has no amount from -20 to 20."),
        ("at=42&solver=fast", "The link's solver, “fast”, has no meaning here."),
        ("at=42&m=../../x", "The link's model, “../../x”, has no meaning here."),
        ("at=42&size=1e9", "The link's size, “1e9”, is not a number from 2 to 1024."),
    ],
)
def test_a_state_that_cannot_be_read_gets_a_sentence(open_page: Callable[..., Any], hash: str, sentence: str) -> None:
    page = open_page(hash=hash, script=FAULTS)
    said = f"faults.length && faults[faults.length - 1].endsWith({json.dumps(sentence)})"
    until(page, said)
    page.evaluate("faults.length = 0")
    page.evaluate(f"location.hash = {json.dumps(hash)} + '&more'")  # also when it is typed into a page that is open
    until(page, said)
    page.wait_for_selector('#face[aria-busy="false"]')


def test_a_picture_whose_description_is_hostile_gets_a_sentence(open_page: Callable[..., Any], tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    page = open_page()
    for recipe in ('{"at": "hello"}', '{"at": {"x": 1}}', '{"labels": 5}'):
        described = PngInfo()
        described.add_text("mien", recipe)
        Image.new("RGB", (8, 8)).save(tmp_path / "face.png", pnginfo=described)
        drop(page, tmp_path / "face.png")
        page.wait_for_selector(".toast.fault")
        assert "has no face that this page can find" in page.inner_text(".toast.fault"), recipe
        page.evaluate("document.querySelector('.toast').remove()")
    assert at(page) == "42"


def test_three_ways_in_and_empty_states_that_show_what_to_do(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert "Drag the face" in page.inner_text("#hint")
    page.click("#way-teach")
    assert page.is_visible("#panel-teach") and page.get_attribute("#way-teach", "aria-pressed") == "true"
    assert page.is_visible("#teach-terminal") and page.is_hidden("#teach-form"), "no token, no training"
    page.click("#way-watch")
    page.wait_for_selector("#run-some:not([hidden])")
    assert "quick" in page.inner_text("#run-name")
    page.click("#way-play")
    assert page.is_visible("#panel-breed") and page.get_attribute("#way-play", "aria-pressed") == "true"


@pytest.mark.parametrize("parent", ["faces", ""])
def test_ones_photographs_are_taught_and_the_run_is_shown(
    browser: Any,  # noqa: F811
    runs: Path,
    parent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The photographs come to the server one by one, a run is started on their folder, and its view opens by itself."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    spawned: list[list[str]] = []
    waiting: list[bool] = []
    monkeypatch.setattr("mien.web.training.Training._begin", lambda self, words: spawned.append(words))
    monkeypatch.setattr("mien.web.training.Training.get_ready", lambda self: waiting.append(True))
    files = []
    for number, image in enumerate(blobs(3, 60, seed=3)):
        files.append(tmp_path / f"me {number}.png")
        Image.fromarray(image).save(files[-1])
    with serving([runs]) as found:
        context = browser.new_context(reduced_motion="reduce")
        page = context.new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector("#face[data-at]")
        page.click("#way-teach")
        assert page.is_disabled("#teach-start")
        page.set_input_files("#teach-files", files)
        assert "3 photographs chosen" in page.inner_text("#teach-status")
        page.fill("#teach-minutes", "2")
        assert page.input_value("#teach-from") == "faces", "what shows faces soonest comes first"
        page.select_option("#teach-from", parent)
        page.click("#teach-start")
        page.wait_for_selector("#panel-training:not([hidden])")
        until(page, "document.getElementById('run-waiting').textContent.startsWith('Preparing your photographs')")
        words = spawned[0]
        assert waiting, "the process has begun when the tool was opened"
        folder = Path(words[-1].removeprefix("--data="))
        begin = [f"--from={bundled.FOLDER / parent}"] if parent else []
        assert words[:-1] == ["train", "gan" if parent else "quick", "--minutes", "2", "--resume", "never", *begin]
        assert folder.is_relative_to(tmp_path / "cache")
        assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
        name = f"00009-quick{parent}"
        short_run("quick", write_pack(tmp_path / "more.pack").path, runs / name)
        page.wait_for_selector("#run-some:not([hidden])")
        until(page, f"document.getElementById('run-name').textContent === '{name}'")
        context.close()


def test_a_card_restores_its_face_and_a_clip_loops(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(preset="vae")
    page.fill("#seed", "7,0.25,0.5")
    page.keyboard.press("Enter")
    picture = rests(page, "7,0.25,0.5")
    page.keyboard.press("c")
    with page.expect_download() as waited:
        page.click("#share-card")
    waited.value.save_as(tmp_path / "card.png")
    with Image.open(tmp_path / "card.png") as card:
        assert card.size == (1024, 1024) and "Synthetic" in card.info["Disclaimer"]
    other = open_page()
    drop(other, tmp_path / "card.png")
    assert rests(other, "7,0.25,0.5") == picture
    page.click("#share-open")
    page.select_option("#clip-format", "webp")
    with page.expect_download() as waited:
        page.click("#share-clip")
    waited.value.save_as(tmp_path / "clip.webp")
    with Image.open(tmp_path / "clip.webp") as clip:
        assert clip.n_frames > 20 and clip.info["loop"] == 0  # type: ignore[attr-defined]
    page.wait_for_selector("#share-dialog", state="hidden")


def test_faces_are_enlarged_as_mien_sample_enlarges_them(open_page: Callable[..., Any], served: Served) -> None:
    page = open_page()
    page.keyboard.press("p")
    page.wait_for_timeout(300)
    page.wait_for_selector('#face[aria-busy="false"]')
    model = served.json("/api/models")["runs"][-1]["checkpoints"][0]["model"]
    _, raw, _ = served.ask(f"/api/model/{model}/image?at=42")
    found = Image.open(io.BytesIO(base64.b64decode(page.evaluate(FACE).split(",")[1]))).convert("RGB")
    with Image.open(io.BytesIO(raw)) as image:
        expected = image.convert("RGB").resize(found.size, Image.Resampling.LANCZOS)
    apart = np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int))
    assert apart.max() <= 3 and apart.mean() < 0.6, "Pillow rounds between its two passes"


def test_the_token_leaves_the_address_bar(browser: Any, served: Served) -> None:  # noqa: F811
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.own}/#token={TOKEN}")
    page.wait_for_selector("#face[data-at]")
    assert TOKEN not in page.url
    page.click("#tab-training")
    page.wait_for_selector("#run-buttons:not([hidden])")
    context.close()


@pytest.mark.slow
def test_a_training_run_is_watched_through_restarts_of_either_side(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    """A real run in a process of its own: watched, killed, resumed, while the server too is stopped and comes back."""
    pack = write_pack(tmp_path / "blobs.pack")
    out = tmp_path / "runs" / "00000-live"
    words = ["train", "quick", "--data", pack.path, "--images", "100000000", "--batch", "8", "--save-every", "800"]
    words += ["--sample-every", "800", "--log-every", "80", "--threads", "1", "--out", out]
    words += ["--model.width", "4", "--recipe.critic.width", "4"]

    def train() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mien", *map(str, words)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def seen() -> int:
        return int(re.sub(r"\D", "", page.inner_text("#run-facts").split("images seen")[0]) or 0)

    child = train()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    try:
        started = time.monotonic()
        while not list(out.glob("checkpoints/0*")):
            assert child.poll() is None and time.monotonic() - started < 120
            time.sleep(0.2)
        with serving([tmp_path / "runs"]) as first:
            port = first.port
            page.goto(f"{first.own}/#token={TOKEN}")
            page.wait_for_selector("#face[data-at]", timeout=90_000)
            page.click("#tab-training")
            page.wait_for_selector("#live:not([hidden])")
            page.wait_for_selector("#run-buttons:not([hidden])")
            before = seen()
            started = time.monotonic()
            while seen() <= before:
                assert time.monotonic() - started < 60
                page.wait_for_timeout(200)
            child.kill()
            child.wait()
            until(page, "document.getElementById('run-state').textContent.startsWith('stopped')")
            child = train()
            until(page, "document.getElementById('run-state').textContent.startsWith('learning')")
        until(page, "document.getElementById('live').textContent === 'Reconnecting…'")
        with serving([tmp_path / "runs"], port=port) as second:
            until(page, "document.getElementById('live').textContent.startsWith('Training')")
            page.click("#run-pause")
            until(page, "document.getElementById('run-state').textContent.startsWith('paused')")
            page.click("#run-resume")
            until(page, "document.getElementById('run-state').textContent.startsWith('learning')")
            page.click("#run-stop")
            until(page, "document.getElementById('run-state').textContent.startsWith('stopped and saved')")
            assert second.json("/api/models")["runs"][0]["state"] == "preempted"
        assert child.wait(30) == 75
    finally:
        context.close()
        child.kill()
        child.wait()
