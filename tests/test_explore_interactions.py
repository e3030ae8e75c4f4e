"""The 37 interactions of explorers of generators: which test shows each, and the tests of those that no other file has."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from mien.sampling.sampler import Sampler
from tests.test_explore_browser import at, open_page, rests, runs, served, served_models, until  # noqa: F401 - fixtures
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served, serving


def test_more_than_two_faces_are_mixed_by_weights(open_page: Callable[..., Any], served: Served) -> None:  # noqa: F811
    page = open_page()
    page.click("#tab-mix")
    for seed in ("7", "9"):
        page.fill("#mix-with", seed)
        page.keyboard.press("Enter")
    rests(page, "42~7:0.5~9:0.3333")
    weights = page.locator("#mix-weights input")
    assert weights.count() == 3 and page.is_hidden("#mix-two")
    weights.nth(2).fill("0.5")
    weights.nth(2).dispatch_event("change")
    rests(page, "42~7:0.5~9:0.5")
    assert [round(float(weights.nth(n).input_value()), 2) for n in range(3)] == [0.25, 0.25, 0.5]
    hash = page.evaluate("location.hash.slice(1)")
    picture = rests(page, "42~7:0.5~9:0.5")
    assert rests(open_page(hash=hash), "42~7:0.5~9:0.5") == picture, "a link restores the mixture"
    page.locator("#mix-weights button[aria-label^='Take face 1 out']").click()
    rests(page, "7~9:0.6667")
    assert page.is_visible("#mix-two")
    page.keyboard.press("Control+z")
    assert rests(page, "42~7:0.5~9:0.5") == picture


def test_two_to_four_models_stand_side_by_side(open_page: Callable[..., Any], served: Served) -> None:  # noqa: F811
    page = open_page()
    models = served_models(page)
    page.click("#tab-compare")
    faces = page.locator("#comparison li")
    until(page, "document.querySelectorAll('#comparison canvas[aria-busy=false]').length === 2")
    assert faces.count() == 2 and "checkpoints" in page.inner_text("#panel-compare")
    first = faces.nth(0).locator("select").input_value()
    assert first == page.input_value("#model") and faces.nth(1).locator("select").input_value() != first
    page.click("#compare-more")
    page.click("#compare-more")
    assert faces.count() == 4 and page.is_hidden("#compare-more")
    faces.nth(1).locator("select").select_option(models["vae"])
    until(
        page,
        "[...document.querySelectorAll('#comparison canvas')].every((c) => c.getAttribute('aria-busy') === 'false')",
    )
    page.wait_for_timeout(300)
    _, raw, _ = served.ask(f"/api/model/{models['vae']}/image?at=42")
    shown = page.evaluate("document.querySelectorAll('#comparison canvas')[1].toDataURL().split(',')[1]")
    with Image.open(io.BytesIO(raw)) as image:
        expected = image.convert("RGB").resize((320, 320), Image.Resampling.NEAREST)
    found = Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB")
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int)).mean() < 2, (
        "the same seed, another model"
    )
    page.keyboard.press("Tab")
    faces.nth(1).locator(".thumb").click()
    page.wait_for_selector('#face[data-at="42"][aria-busy="false"]')
    until(page, f"document.getElementById('model').value === {json.dumps(models['vae'])}")
    faces.nth(3).locator("button[aria-label^='Take']").click()
    assert faces.count() == 3


def test_a_map_puts_like_faces_together_and_leads_to_them(open_page: Callable[..., Any], served: Served) -> None:  # noqa: F811
    page = open_page(preset="vae")
    page.click("#tab-sheet")
    page.wait_for_selector("#sheet .thumb:nth-child(100)")
    page.click("#sheet-map")
    page.wait_for_selector("#sheet .thumb[aria-current]")
    assert page.is_visible("#map-note") and page.locator("#sheet .thumb").count() == 100
    seeds = [
        int(text)
        for text in page.evaluate(
            "[...document.querySelectorAll('#sheet .thumb')].map((t) => t.title.replace('Face ', ''))"
        )
    ]
    assert sorted(seeds) == list(range(100)) and seeds != list(range(100))
    model = served_models(page)["vae"]
    _, raw, _ = served.ask(f"/api/model/{model}/sheet?first=0")
    with Image.open(io.BytesIO(raw)) as sheet:
        side = sheet.width // 10
        pixels = np.asarray(sheet.convert("RGB"), dtype=float)
    faces = {n: pixels[n // 10 * side : (n // 10 + 1) * side, n % 10 * side : (n % 10 + 1) * side] for n in range(100)}
    grid = np.array(seeds).reshape(10, 10)
    apart = lambda a, b: float(np.abs(faces[int(a)] - faces[int(b)]).mean())  # noqa: E731
    beside = np.mean([apart(grid[r, c], grid[r + 1, c]) for r in range(9) for c in range(10)])
    across = np.mean([apart(grid[r, c], grid[9 - r, 9 - c]) for r in range(5) for c in range(10)])
    assert beside < across, "neighbours are more alike than opposite corners"
    page.locator("#sheet .thumb").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    rests(page, str(grid[1, 1]))
    until(page, f"document.querySelector('#sheet [aria-current]')?.title === 'Face {grid[1, 1]}'")


def test_a_direction_is_found_tested_over_three_deviations_named_and_stored(
    browser: Any,  # noqa: F811
    runs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    place = shutil.copytree(runs / "00000-quick", tmp_path / "00000-quick")
    with serving([place]) as found:
        page = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce").new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector('#face[data-at][aria-busy="false"]')
        page.click("#tab-directions")
        assert page.is_hidden("#direction-test"), "there is none yet"
        page.click("#direction-find")
        page.wait_for_selector("#direction-test:not([hidden])", timeout=120_000)
        assert page.is_visible("#direction-none") and page.locator("#direction-range li").count() == 0
        page.select_option("#direction-choice", "component-2")
        until(page, "document.querySelectorAll('#direction-range .thumb[aria-busy=false]').length === 7")
        numbers = ["\u22123", "\u22122", "\u22121", "0", "+1", "+2", "+3"]
        assert page.locator("#direction-range li").all_inner_texts() == numbers
        ends = [
            page.evaluate(f"document.querySelectorAll('#direction-range canvas')[{n}].toDataURL()") for n in (0, 3, 6)
        ]
        assert len(set(ends)) == 3
        page.locator("#direction-range .thumb").nth(5).click()
        until(page, "location.hash.includes('direction=component-2:2')")
        page.select_option("#direction-choice", "")
        until(page, "document.querySelectorAll('#direction-range .thumb[aria-busy=false]').length === 7")
        page.fill("#direction-name", "Older")
        page.click("#direction-save")
        until(page, "/direction=Older:/.test(location.hash)")
        assert page.locator("#sliders label", has_text="Older").count() == 1
        assert "Older" in Sampler.load(place, device="cpu").directions
        page.context.close()
        other = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        other.goto(f"{found.own}/")
        other.wait_for_selector('#face[data-at][aria-busy="false"]')
        other.click("#tab-directions")
        assert other.is_hidden("#direction-find") and other.is_hidden("#direction-name"), "no token, nothing is written"
        assert other.is_visible("#direction-terminal") and other.is_visible("#direction-choice")
        other.context.close()
