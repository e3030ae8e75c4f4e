"""What the explorer shows first: good faces, faces that were drawn before they are wanted, and quick ones before slow ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from tests.test_explore_browser import open_page, rests, runs, served, until  # noqa: F401 - fixtures
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import serving


def seed_of(url: str) -> str:
    """The face that a request for one face asks for."""
    parts = urlsplit(url)
    return parse_qs(parts.query)["at"][0] if parts.path.endswith("/image") else ""


def test_the_first_face_is_one_of_the_best_64(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """... and new ones are of the best quarter, unless that is switched off."""
    monkeypatch.chdir(tmp_path)
    with serving([]) as found:
        model = next(one["id"] for one in found.json("/api/models")["models"] if one["name"] == "faces")
        order = found.json(f"/api/model/{model}")["order"]
        context = browser.new_context()
        page = context.new_page()
        page.add_init_script("Math.random = () => 0.99999;")
        page.goto(f"{found.own}/")
        page.wait_for_selector(f'#face[data-at="{order[63]}"][aria-busy="false"]', timeout=90_000)
        page.keyboard.press(" ")
        page.wait_for_selector(f'#face[data-at="{order[len(order) // 4 - 1]}"][aria-busy="false"]')
        page.click("#tab-sheet")
        page.click("#order")
        page.click("#new")
        page.wait_for_selector('#face[data-at="999990"][aria-busy="false"]')
        context.close()


def test_the_next_face_is_drawn_before_it_is_wanted(open_page: Callable[..., Any]) -> None:  # noqa: F811
    asked: list[str] = []
    page = open_page(routes={"**/image?*": lambda route: (asked.append(seed_of(route.request.url)), route.continue_())})
    began = time.monotonic()
    while len(asked) < 2:
        assert time.monotonic() - began < 60
        page.wait_for_timeout(20)
    ahead = asked[1]
    assert asked[0] == "42" and ahead != "42"
    page.unroute("**/image?*")
    page.route("**/image?*", lambda route: None if seed_of(route.request.url) == ahead else route.continue_())
    page.click("#new")
    face = rests(page, ahead)  # without another request, which would have no answer
    undone = page.evaluate("document.getElementById('undo').disabled")
    assert not undone and page.evaluate("location.hash").endswith(f"at={ahead}")
    page.unroute("**/image?*")
    page.reload()
    page.wait_for_selector(f'#face[data-at="{ahead}"][aria-busy="false"]')
    page.keyboard.press("p")
    page.wait_for_timeout(100)
    assert rests(page, ahead) == face, "it is the same face"


def test_a_face_is_drawn_ahead_as_the_sliders_stand(open_page: Callable[..., Any]) -> None:  # noqa: F811
    """What was drawn ahead of a change is another face: it is not shown."""
    page = open_page()
    page.wait_for_timeout(500)
    truncation = page.locator("#sliders input").first
    truncation.fill("0.5")
    truncation.dispatch_event("change")
    page.click("#new")
    until(page, "location.hash.includes('t=0.5')")
    page.wait_for_selector('#face:not([data-at="42"])')
    seed = page.get_attribute("#face", "data-at")
    shown = rests(page, seed)
    hash = page.evaluate("location.hash.slice(1)")
    assert rests(open_page(hash=hash), seed) == shown


def test_a_flow_shows_few_steps_first_and_is_exact_at_rest(open_page: Callable[..., Any]) -> None:  # noqa: F811
    waiting: list[Any] = []

    def hold(route: Any) -> None:
        waiting.append(route) if seed_of(route.request.url) == "7" else route.continue_()

    page = open_page(preset="flow", routes={"**/image?*": hold})
    page.evaluate("location.hash += '&solver=heun:8'")  # four times the evaluations of a preview
    page.wait_for_timeout(300)
    exact = rests(page, "42")
    assert page.get_attribute("#face", "data-shown") == "exact"
    page.fill("#seed", "7")
    page.keyboard.press("Enter")
    page.wait_for_selector('#face[data-shown="preview"][aria-busy="true"]')
    quick = page.evaluate("document.getElementById('face').toDataURL()")
    assert quick != exact and page.get_attribute("#face", "data-at") == "42", "a preview has no address yet"
    while not waiting:
        page.wait_for_timeout(20)
    waiting.pop().continue_()
    there = rests(page, "7")
    assert page.get_attribute("#face", "data-shown") == "exact" and there != quick


def test_a_preview_that_comes_late_does_not_replace_the_exact_face(open_page: Callable[..., Any]) -> None:  # noqa: F811
    waiting: list[Any] = []
    page = open_page(preset="flow", routes={"**/preview?*": lambda route: waiting.append(route)})
    page.fill("#seed", "7")
    page.keyboard.press("Enter")
    exact = rests(page, "7")
    for route in waiting:
        route.continue_()
    page.wait_for_timeout(1500)
    assert rests(page, "7") == exact and page.get_attribute("#face", "data-shown") == "exact"


def test_a_drag_gives_up_what_is_drawn_for_a_flow_at_rest(open_page: Callable[..., Any]) -> None:  # noqa: F811
    """The pad's pictures and the exact face kept a flow's next face waiting; what was given up comes once nothing moves."""
    held: list[Any] = []
    holding = [True]

    def hold(route: Any) -> None:
        quick = parse_qs(urlsplit(route.request.url).query).get("quick") == ["1"]
        slow = "/sheet?" in route.request.url or (seed_of(route.request.url) == "7" and not quick)
        held.append(route) if holding[0] and slow else route.continue_()

    page = open_page(preset="flow", routes={"**/image?*": hold, "**/sheet?*": hold})
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(urlsplit(request.url).path.rpartition("/")[2]))
    page.fill("#seed", "7")
    page.keyboard.press("Enter")
    page.wait_for_selector('#face[data-shown="preview"][aria-busy="true"]')
    while {urlsplit(route.request.url).path.rpartition("/")[2] for route in held} != {"sheet", "image"}:
        page.wait_for_timeout(20)
    box = page.locator("#pad-area").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    while {*failed} != {"sheet", "image"}:
        page.wait_for_timeout(20)
    strip = "canvas => canvas.getContext('2d').getImageData(50, 50, 1, 1).data[3]"
    until(page, f"({strip})(document.querySelector('#past li:nth-child(2) canvas'))")
    holding[0] = False
    page.mouse.up()
    page.wait_for_selector('#face[data-shown="exact"][aria-busy="false"]:not([data-at="42"], [data-at="7"])')
    corner = "pad => pad.getContext('2d').getImageData(pad.width / 10, pad.width / 10, 1, 1).data[3] === 255"
    until(page, f"({corner})(document.getElementById('pad'))")
