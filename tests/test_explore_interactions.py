"""The 37 interactions of explorers of generators: which tests show each, on a desktop and on a phone, and those of no other."""

from __future__ import annotations

import base64
import importlib
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
from tests.test_explore_browser import SIZES, at, open_page, rests, runs, served, served_models, until  # noqa: F401 - fixtures
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served, serving


def both(module: str, test: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """A test that is run at both sizes."""
    return (module, test), (module, test)


BROWSER, HERE, PHONE, AXE, RUN = (
    "test_explore_browser",
    "test_explore_interactions",
    "test_explore_phone",
    "test_accessibility_browser",
    "test_explore_run",
)
DIRECTION = "test_a_direction_is_found_tested_over_three_deviations_named_and_stored"
FACES = "test_faces_are_found_changed_and_kept"
TOOLS, DIRECTED = "test_tools_open_below_the_face", "test_a_photograph_and_directions"
KEYS, VIEWS = (
    "test_the_keyboard_alone_finds_changes_breeds_films_and_shares",
    "test_no_view_of_the_explorer_has_a_violation",
)
#: Number and name of each interaction -> the test that shows it on a desktop and the one on a phone, or why it is absent.
#: Those of `both` are run at both sizes; those of test_explore_phone.py each show several interactions, and say which.
INTERACTIONS: dict[int, tuple[str, tuple[str, str], tuple[str, str]] | tuple[str, str]] = {
    1: ("new face", (BROWSER, "test_space_brings_a_new_face_and_undo_the_exact_old_one"), (PHONE, FACES)),
    2: ("latent pad", (BROWSER, "test_the_pad_moves_by_mouse_and_keyboard"), (PHONE, FACES)),
    3: ("seed box, snap and reset", *both(HERE, "test_a_place_is_typed_snapped_and_reset")),
    4: ("truncation", (BROWSER, "test_the_address_bar_is_the_state"), (PHONE, FACES)),
    5: ("noise inputs", "No model of mien's has noise inputs: a face is a function of its latent alone."),
    6: ("attribute sliders", (HERE, DIRECTION), (PHONE, DIRECTED)),
    7: ("directions without labels", *both(HERE, DIRECTION)),
    8: ("name, test and save a direction", *both(HERE, DIRECTION)),
    9: ("layer range", *both(BROWSER, "test_styles_of_another_face")),
    10: ("style mixing", *both(BROWSER, "test_styles_of_another_face")),
    11: ("walk", (BROWSER, "test_a_walk_plays_and_is_exported"), (PHONE, TOOLS)),
    12: ("breed", (BROWSER, "test_breeding_keeps_the_line"), (PHONE, TOOLS)),
    13: ("mix", (HERE, "test_more_than_two_faces_are_mixed_by_weights"), (PHONE, TOOLS)),
    14: ("lock", (BROWSER, "test_a_locked_direction_is_held_still"), (PHONE, DIRECTED)),
    15: ("undo and history", (BROWSER, "test_undo_goes_further_back_than_a_browser_remembers"), (PHONE, FACES)),
    16: ("link", (BROWSER, "test_the_address_bar_is_the_state"), (PHONE, FACES)),
    17: ("picture with its recipe", (BROWSER, "test_a_saved_picture_restores_its_state"), (PHONE, FACES)),
    18: ("photograph", (BROWSER, "test_a_photograph_becomes_a_face"), (PHONE, DIRECTED)),
    19: ("before and after", (BROWSER, "test_a_photograph_becomes_a_face"), (PHONE, DIRECTED)),
    20: ("drag points", "They search feature maps for a moved point; at 64 px a feature cell is as large as an eye."),
    21: ("compare checkpoints", (HERE, "test_two_to_four_models_stand_side_by_side"), (PHONE, TOOLS)),
    22: ("samples over training", *both(RUN, "test_a_run_is_watched_paused_and_moved_by_hand")),
    23: ("live training", *both(RUN, "test_a_run_is_watched_paused_and_moved_by_hand")),
    24: ("pause, resume, step, stop", *both(RUN, "test_a_run_is_watched_paused_and_moved_by_hand")),
    25: ("health", *both(HERE, "test_health_is_named_neutrally_with_its_state_in_a_word")),
    26: ("numbers explained", (BROWSER, "test_reconstructions_and_the_film_of_a_training"), (PHONE, DIRECTED)),
    27: ("nearest training image", (BROWSER, "test_nearest_says_whether_it_is_a_copy"), (PHONE, FACES)),
    28: ("map of faces", (HERE, "test_a_map_puts_like_faces_together_and_leads_to_them"), (PHONE, TOOLS)),
    29: ("labels", *both(BROWSER, "test_a_flow_is_followed_as_it_is_told")),
    30: ("solver of a flow", *both(BROWSER, "test_a_flow_is_followed_as_it_is_told")),
    31: ("reconstructions", (BROWSER, "test_reconstructions_and_the_film_of_a_training"), (PHONE, DIRECTED)),
    32: ("gauges", *both(RUN, "test_a_run_is_watched_paused_and_moved_by_hand")),
    33: ("favourites", (BROWSER, "test_favourites_come_as_an_archive"), (PHONE, FACES)),
    34: ("keyboard and screen reader", (AXE, KEYS), (AXE, VIEWS)),
    35: ("model picker", (BROWSER, "test_back_and_forward_walk_the_history_across_models"), (PHONE, TOOLS)),
    36: ("works without data", *both(HERE, "test_without_any_run_the_bundled_faces_are_there_at_once")),
    37: ("provenance", (BROWSER, "test_a_card_restores_its_face_and_a_clip_loops"), (PHONE, FACES)),
}  # fmt: skip


def test_every_interaction_has_a_test_at_both_sizes_or_a_reason() -> None:
    assert list(INTERACTIONS) == list(range(1, 38))
    for number, (_, *shown) in INTERACTIONS.items():
        if isinstance(shown[0], str):
            assert number in (5, 20) and shown[0].endswith("."), "only these may be absent"
            continue
        for size, (module, name) in zip(("desktop", "phone"), shown, strict=True):
            test = getattr(importlib.import_module(f"tests.{module}"), name)
            sizes = [mark.kwargs["ids"] for mark in getattr(test, "pytestmark", ()) if mark.args[:1] == ("size",)]
            if module == PHONE:
                assert size == "phone" and number in test.shows, (number, name)
            elif size == "phone" or sizes:
                assert any(size in ids for ids in sizes), f"{name} is not run on a {size}"


@SIZES
def test_a_place_is_typed_snapped_and_reset(open_page: Callable[..., Any], size: dict[str, int]) -> None:  # noqa: F811
    page = open_page(size=size)
    pure = rests(page, "42")
    assert page.is_disabled("#snap") and page.is_disabled("#reset")
    page.fill("#seed", "42,0.3,0.2")
    page.keyboard.press("Enter")
    assert rests(page, "42,0.3,0.2") != pure
    page.evaluate("document.activeElement.blur()")
    page.locator("#sliders input").first.fill("0.5")
    page.locator("#sliders input").first.dispatch_event("change")
    until(page, "location.hash.includes('t=0.5')")
    page.click("#reset")
    until(page, "!location.hash.includes('&t=')")
    assert page.is_disabled("#reset")
    page.click("#snap")
    until(page, "document.getElementById('face').dataset.at === '42'")
    assert rests(page, "42") == pure and page.is_disabled("#snap"), "the picture of the seed itself"


@SIZES
def test_health_is_named_neutrally_with_its_state_in_a_word(
    open_page: Callable[..., Any],  # noqa: F811
    runs: Path,  # noqa: F811
    size: dict[str, int],
) -> None:
    verdicts = [
        {"name": "variety", "state": "alarm", "evidence": "0.2 of the data's.", "suggestion": "Lower the rate."},
        {"name": "balance", "state": "pending", "evidence": "Too few steps.", "suggestion": "Wait."},
    ]
    (runs / "00000-quick" / "health.json").write_text(json.dumps({"verdicts": verdicts}))
    page = open_page(size=size)
    page.click("#tab-training")
    page.wait_for_selector("#health li:nth-child(2)")
    lines = page.locator("#health li").all_inner_texts()
    assert lines[0].lower() == "variety: bad 0.2 of the data's. lower the rate." and lines[1].lower().startswith(
        "balance: too early"
    )


@SIZES
def test_without_any_run_the_bundled_faces_are_there_at_once(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: dict[str, int],
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving([]) as found:
        context = browser.new_context(viewport=size)
        page = context.new_page()
        page.goto(f"{found.own}/")
        page.wait_for_selector('#face[data-at][aria-busy="false"]', timeout=90_000)
        assert page.is_visible("#model") and page.locator("#model option:checked").text_content() == "faces"
        assert page.is_hidden("#welcome") and page.locator("#sliders .slider").count() >= 8, "named sliders"
        context.close()


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


@SIZES
def test_a_direction_is_found_tested_over_three_deviations_named_and_stored(
    browser: Any,  # noqa: F811
    runs: Path,  # noqa: F811
    tmp_path: Path,
    size: dict[str, int],
) -> None:
    place = shutil.copytree(runs / "00000-quick", tmp_path / "00000-quick")
    with serving([place]) as found:
        page = browser.new_context(viewport=size, reduced_motion="reduce").new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector('#face[data-at][aria-busy="false"]')
        page.click("#tab-directions")
        assert page.is_hidden("#direction-test"), "there is none yet"
        page.click("#direction-find")
        page.wait_for_selector("#direction-test:not([hidden])", timeout=120_000)
        until(page, "document.querySelectorAll('#direction-range .thumb[aria-busy=false]').length === 7")
        assert page.is_hidden("#direction-none"), "the first one is on show, where no slider was moved"
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
        other = browser.new_context(viewport=size).new_page()
        other.goto(f"{found.own}/")
        other.wait_for_selector('#face[data-at][aria-busy="false"]')
        other.click("#tab-directions")
        assert other.is_hidden("#direction-find") and other.is_hidden("#direction-name"), "no token, nothing is written"
        assert other.is_visible("#direction-terminal") and other.is_visible("#direction-choice")
        other.context.close()
