"""How the explorer feels: `python benchmarks/explorer.py RUN [PAGE]` drives it in headless Chromium and prints figures as JSON.

RUN is a run for `mien explore`; PAGE, if given, the folder of `mien export RUN --to web`. Needs the extra `web`, psutil,
playwright and Chromium. first_face_s: from opening the page to an exact face. drag_fps: faces while the pad is dragged for 3 s.
slider_ms: from a truncation to its exact face, over 20 of them. drag_cpu_ms: computing time of the server and the browser
together for each face of the drag, which a busy machine does not change.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright


def figures(page: Any, address: str) -> dict[str, float]:
    """The three figures of one page."""
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#face[data-at]")
    first = time.perf_counter() - started
    page.wait_for_timeout(2500)  # the pad's pictures
    box = page.locator("#pad-area").bounding_box()
    counted = """() => { window.faces = 0; const pen = document.getElementById('face').getContext('2d'), draw = pen.drawImage;
        pen.drawImage = function (...given) { window.faces++; return draw.apply(this, given); }; }"""
    page.evaluate(counted)
    x, y, width = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] / 5
    page.mouse.move(x, y)
    page.mouse.down()
    started, before = time.perf_counter(), computing()
    while (elapsed := time.perf_counter() - started) < 3:
        page.mouse.move(x + width * np.sin(elapsed * 2.0), y + width * np.sin(elapsed * 3.1))
        page.wait_for_timeout(8)
    faces = page.evaluate("window.faces")
    spent, drag = computing() - before, faces / elapsed
    page.mouse.up()
    page.wait_for_timeout(1500)
    times = page.evaluate(
        """async () => { const input = document.querySelector('#sliders input'), face = document.getElementById('face'), found = [];
        for (let n = 0; n < 20; n++) { const began = performance.now(), faces = window.faces; input.value = String(0.5 + n / 50);
          input.dispatchEvent(new Event('change'));
          while (window.faces === faces || face.getAttribute('aria-busy') === 'true') await new Promise((go) => setTimeout(go, 1));
          found.push(performance.now() - began); await new Promise((go) => setTimeout(go, 250)); }
        return found; }"""
    )
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "first_face_s": round(first, 2),
        "drag_fps": round(drag, 1),
        "drag_cpu_ms": round(1000 * spent / faces, 1),
        "slider_ms_p50": round(p50, 1),
        "slider_ms_p95": round(p95, 1),
    }


def computing() -> float:
    """Seconds that all processes started from here have computed."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static host that says nothing."""

    def log_message(self, *_: object) -> None: ...


def main(run: str, folder: str | None = None) -> None:
    found: dict[str, Any] = {}
    child = subprocess.Popen(
        [sys.executable, "-m", "mien", "explore", run, "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
            found["served"] = figures(chromium.new_context(**options).new_page(), address)
            if folder:
                handler = functools.partial(Quiet, directory=folder)
                host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
                threading.Thread(target=host.serve_forever, daemon=True).start()
                there = f"http://127.0.0.1:{host.server_port}/"
                found["page"] = figures(chromium.new_context(**options).new_page(), there)
            chromium.close()
    finally:
        child.terminate()
        child.wait()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:3])
