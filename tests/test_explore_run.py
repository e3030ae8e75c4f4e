"""A run that trains, in the explorer: watched, paused, moved by single steps, and begun from the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="SKIPPED EXPLORER TESTS: the extra `web` is not installed")

from mien import presets
from mien.core.run import override
from mien.data.pack import Pack
from mien.errors import Preempted
from mien.sampling import bundled
from mien.storage import control
from mien.storage.run_directory import RunDirectory
from mien.training.experiment import train
from tests.conftest import blobs, tiny
from tests.test_explore_browser import DESKTOP, PHONE, SIZES, until
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import TOKEN, Served, serving


@pytest.fixture
def learning(tmp_path: Path, blob_pack: Pack) -> Iterator[RunDirectory]:
    """A run that would go on for ever, in a thread of the test."""
    home = RunDirectory(tmp_path / "runs" / "00000-live")
    run = override(tiny(presets.PRESETS["quick"]), {"images": 10_000_000, "log_every": 64, "device": "cpu"})
    ended: list[BaseException] = []

    def go() -> None:
        try:
            train(run, data=blob_pack.path, out=home.path)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    wait(lambda: bool(ended) or (control.owner(home) is not None and home.metrics.exists()))
    control.send(home, "save")
    wait(lambda: bool(ended or list(home.checkpoints.glob("0*"))))
    yield home
    if control.owner(home) is not None:
        control.send(home, "stop")
    thread.join(60)
    assert [type(error) for error in ended] == [Preempted], ended


def wait(condition: Callable[[], bool]) -> None:
    """Wait for something that happens outside of the page."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 90
        time.sleep(0.05)


@SIZES
def test_a_run_is_watched_paused_and_moved_by_hand(
    browser: Any,  # noqa: F811
    learning: RunDirectory,
    size: dict[str, int],
) -> None:
    with serving([learning.path.parent]) as found:
        context = browser.new_context(viewport=size, reduced_motion="reduce")
        page = context.new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector("#face[data-at]")
        page.click("#tab-training")
        until(page, "document.getElementById('run-state').textContent.startsWith('learning')")
        page.wait_for_selector("#live:not([hidden])", state="visible" if size == DESKTOP else "attached")
        page.click("#run-pause")
        until(page, "document.getElementById('run-state').textContent.startsWith('paused')")
        until(page, "document.querySelectorAll('#curves figure').length >= 2")
        seen = learning.status["seen"]

        def steps(button: str, count: int, words: str) -> None:
            """Click, and wait for the step: in the facts, as a grid of samples, as the model of the face on show."""
            model = page.input_value("#model")
            page.click(button)
            images = f"{seen + 8 * count:,} images seen"
            until(page, f"document.getElementById('run-facts').textContent.startsWith({images!r})")
            until(page, f"document.getElementById('run-facts').textContent.includes({words!r})")
            until(page, f"document.getElementById('time-value').textContent === {images!r}")
            until(page, f"document.getElementById('model').value !== {model!r}")
            page.wait_for_selector('#face[aria-busy="false"]')

        steps("#run-step", 1, "of training")
        assert learning.status["steered"] == 0 and "by hand" not in page.inner_text("#run-facts")
        steps("#run-step-critic", 2, "1 step of one player by hand")
        steps("#run-step-generator", 3, "2 steps of one player by hand")
        time_line = page.locator("#time")
        time_line.focus()
        page.keyboard.press("Home")
        until(page, f"document.getElementById('time-value').textContent !== '{seen + 24:,} images seen'")
        page.click("#run-resume")
        until(page, "document.getElementById('run-state').textContent.startsWith('learning')")
        page.click("#run-stop")
        until(page, "document.getElementById('run-state').textContent.startsWith('stopped and saved')")
        page.wait_for_selector("#run-steps", state="hidden")  # when the process has ended
        context.close()


def taught(found: Served) -> None:
    """Stop the run that was started from the page, and wait for its end."""
    child = found.explorer.runs.training.child
    assert child is not None
    child.terminate()
    child.wait(60)


def test_without_a_run_every_empty_tool_shows_what_it_does(browser: Any) -> None:  # noqa: F811
    """They were sentences over a void."""
    with serving([bundled.FOLDER / "faces"]) as found:
        page = browser.new_context(viewport=DESKTOP).new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector("#face[data-at]")
        page.click("#way-watch")
        until(page, "document.querySelector('#learning img').naturalWidth > 0")
        assert page.is_visible("#train-drawn") and page.is_visible("#learning")
        page.click("#tab-walk")
        assert page.locator("#stops .place").count() == 4
        page.click("#tab-favourites")
        page.click("#favourites-add")
        page.wait_for_selector("#favourites .thumb")
        assert page.is_hidden("#favourites-add") and page.locator("#favourites .place").count() == 0
        page.click("#tab-directions")
        until(page, "document.querySelectorAll('#direction-range .thumb[aria-busy=false]').length === 7")
        page.click("#tab-about")
        assert page.locator("#card table").count() >= 2 and "|" not in page.inner_text("#card")
        page.context.close()


@pytest.mark.parametrize(
    ("parent", "size"), [("faces", DESKTOP), ("", PHONE)], ids=["from faces on a desktop", "from noise on a phone"]
)
def test_a_picture_comes_from_the_first_steps_of_what_is_taught(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parent: str,
    size: dict[str, int],
) -> None:
    """Of a real run, in an explorer of something else. How long it takes, benchmarks/explorer.py measures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    files = []
    for number, image in enumerate(blobs(24, 64, seed=3)):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    with serving([bundled.FOLDER / "faces"]) as found:
        context = browser.new_context(viewport=size, reduced_motion="reduce")
        page = context.new_page()
        page.goto(f"{found.own}/#token={TOKEN}")
        page.wait_for_selector("#face[data-at]")
        bundled_face = page.input_value("#model")
        page.click("#tab-teach")
        page.set_input_files("#teach-files", files)
        page.select_option("#teach-from", parent)
        page.click("#teach-start")
        try:
            page.wait_for_selector("#sample[aria-label^='Grid of samples']")
            (run,) = (tmp_path / "runs").iterdir()
            first = min(int(path.stem.split("-")[-1]) for path in (run / "samples").glob("*.png"))
            assert first == 0, "the first grid is of the model before it learns"
            if parent:  # there is a checkpoint before the first step, which from noise takes a minute of a busy machine
                until(
                    page, f"document.getElementById('model').value !== {bundled_face!r}"
                )  # the face on show is the run's
                page.wait_for_selector('#face[aria-busy="false"]')
            box = page.locator("#sample").bounding_box()
            assert box["width"] >= 200 and page.is_visible("#run-countdown")
        finally:
            taught(found)
            context.close()
