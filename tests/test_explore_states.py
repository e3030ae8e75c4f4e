"""The explorer where there is little to show: another model is on its way, nothing is chosen yet, the server is busy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from tests.test_explore_browser import (  # noqa: F401 - fixtures
    FACE,
    FAULTS,
    PHONE,
    Slow,
    at,
    open_page,
    rests,
    runs,
    served,
    served_models,
    until,
)
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served

PAINTED = """(name) => { const canvas = document.getElementById(name);
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value, n) => n % 4 === 3 && value > 200); }"""


def test_another_model_never_shows_the_faces_of_the_one_before(open_page: Callable[..., Any]) -> None:  # noqa: F811
    page = open_page()
    until(page, f"({PAINTED})('pad')")
    page.wait_for_selector("#litter .thumb:nth-child(9)")
    page.click("#tab-sheet")
    page.wait_for_selector("#sheet .thumb:nth-child(100)")
    page.click("#tab-breed")
    slow = Slow(page, re.compile(r"/(sheet|children)\?"))
    vae = served_models(page)["vae"]
    page.select_option("#model", vae)
    until(page, f"document.title.includes('vae') && location.hash.includes({vae!r})")
    page.wait_for_timeout(300)
    assert not page.evaluate(PAINTED, "pad"), "the pad shows seeds of the other model"
    assert page.locator("#litter .thumb").count() == 0 and page.locator("#litter .tile").count() == 9
    assert page.locator("#sheet .thumb").count() == 0
    slow.end()
    page.wait_for_selector("#litter .thumb:nth-child(9)")
    until(page, f"({PAINTED})('pad')")


def test_a_busy_server_is_asked_again_without_a_word(open_page: Callable[..., Any]) -> None:  # noqa: F811
    page = open_page(script=FAULTS, console=re.compile("503"))
    tries: list[str] = []

    def busy(route: Any) -> None:
        tries.append(route.request.url)
        if len(tries) > 2:
            route.continue_()
            return
        error = {"code": 4, "message": "The server is busy.", "why": "Its queue is full.", "hint": "Try again."}
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": error})

    page.route(re.compile(r"/image\?at=77(&|$)"), busy)
    page.fill("#seed", "77")
    page.keyboard.press("Enter")
    rests(page, "77")
    assert len(tries) == 3 and page.evaluate("faults") == []


def test_the_icon_is_asked_for_by_no_change_of_the_address(open_page: Callable[..., Any], served: Served) -> None:  # noqa: F811
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(3):
        page.keyboard.press(" ")
        at(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('link[rel=icon]').href").startswith("data:image/svg+xml")
    assert not [url for url in asked if "icon" in url]


def test_a_sliders_track_is_filled_from_where_it_is_counted(open_page: Callable[..., Any]) -> None:  # noqa: F811
    page = open_page(preset="vae")
    ends = """(input) => ['--from', '--to'].map((name) => Number(input.style.getPropertyValue(name)))"""
    truncation, direction = (
        page.locator("#sliders input[type=range]").first,
        page.locator("#sliders input.centred").first,
    )
    assert truncation.evaluate(ends) == pytest.approx([0, 1 / 1.5])
    assert direction.evaluate(ends) == [0.5, 0.5]
    for value, expected in (("2", [0.5, 0.75]), ("-4", [0.0, 0.5])):
        direction.fill(value)
        direction.dispatch_event("change")
        assert direction.evaluate(ends) == expected


def test_empty_tools_show_what_they_do(open_page: Callable[..., Any], served: Served) -> None:  # noqa: F811
    page = open_page()
    page.click("#tab-mix")
    until(page, f"({PAINTED})('mix-own')")
    assert page.is_visible("#mix-place")
    assert page.is_hidden("#find-offer"), "without the token nothing is found"
    page.click("#share-open")
    assert page.evaluate(PAINTED, "share-picture")
    page.keyboard.press("Escape")
    page.goto(f"{served.own}/#token={TOKEN}")
    page.reload()
    page.wait_for_selector("#face[data-at]")
    page.select_option("#model", served_models(page)["quick"])
    page.wait_for_selector("#find-offer")
    page.click("#find-offer button")
    assert page.is_visible("#direction-find")


def test_a_phone_is_not_told_of_mouse_and_keys_and_sees_the_next_tab(open_page: Callable[..., Any]) -> None:  # noqa: F811
    page = open_page(preset="vae", size=PHONE)
    for name in ("breed", "mix", "walk", "favourites", "photo"):
        page.locator(f"#tab-{name}").scroll_into_view_if_needed()
        page.tap(f"#tab-{name}")
        page.wait_for_selector(f"#panel-{name}:not([hidden])")
        words = page.inner_text(f"#panel-{name}")
        assert not re.search(r"\b([Dd]rop|[Dd]rag|F,)", words), words
        following = page.evaluate("""() => { const tab = document.querySelector('#tabs [aria-selected=true]');
          let next = tab.nextElementSibling; while (next?.hidden) next = next.nextElementSibling;
          return next ? innerWidth - next.getBoundingClientRect().left : 99; }""")
        assert following >= 24, f"after {name}, the tab beside it is out of sight"
