"""How the explorer feels: `python benchmarks/explorer.py RUN [PAGE]` drives it in headless Chromium and holds it to its marks.

RUN is a run or model for `mien explore`; PAGE, if given, the folder of `mien export RUN --to web`. Needs the extra `web`, psutil,
playwright and Chromium, two cores that do nothing else, and under three minutes. Prints a line a mark on stderr, all figures as
JSON on stdout, and ends with 1 where a mark is missed. Each figure is the median of ROUNDS openings of the page:

first_face_s: from opening the page to an exact face; moved_mb: what was loaded for it. drag_fps: faces a second while the pad is
dragged for 3 s. slider_p95_ms: from a truncation to its face, the 95th percentile of 20; exact_p95_ms: to its exact face.
new_face_p95_ms: from the button to the exact face of another seed; breed_ms: from the button to nine children. drag_server_ms,
drag_browser_ms: computing for each face of the drag, which a busy machine changes little. other_origins: requests that left.
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
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

ROUNDS = 3
MARKS = {  # the most, or the least where there is a minus
    "served": {
        "first_face_s": 1.0,
        "drag_fps": -30.0,
        "new_face_p95_ms": 80.0,
        "breed_ms": 250.0,
        "other_origins": 0.0,
    },
    "flow": {"first_face_s": 1.0, "drag_fps": -10.0, "other_origins": 0.0},
    "page": {"first_face_s": 1.5, "moved_mb": 6.0, "drag_fps": -10.0, "other_origins": 0.0},
    "disk": {"first_face_s": 1.5, "drag_fps": -10.0, "other_origins": 0.0},
}
WATCH = """new MutationObserver(() => { const face = document.getElementById("face");
  if (face?.dataset.at && !window.firstFace) window.firstFace = performance.now(); })
  .observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-at"] });"""
COUNT = """() => { window.faces = 0; const pen = document.getElementById("face").getContext("2d"), draw = pen.drawImage;
  pen.drawImage = function (...given) { window.faces++; return draw.apply(this, given); }; }"""
SLIDE = """async (round) => { const input = document.querySelector("#sliders input"), found = [];
  const face = document.getElementById("face");
  for (let n = 0; n < 20; n++) { const began = performance.now(), faces = window.faces;
    input.value = String(0.5 + n / 25 + round / 100);
    input.dispatchEvent(new Event("input"));  // as a slider that is moved and let go
    input.dispatchEvent(new Event("change"));
    while (window.faces === faces) await new Promise((go) => setTimeout(go, 1));
    const shown = performance.now() - began;
    while (face.getAttribute("aria-busy") === "true") await new Promise((go) => setTimeout(go, 1));
    found.push([shown, performance.now() - began]); await new Promise((go) => setTimeout(go, 120)); }
  return found; }"""


NEW = """async () => { const face = document.getElementById("face"), found = [];
  for (let n = 0; n < 20; n++) { const began = performance.now(), before = face.dataset.at;
    document.getElementById("new").click();
    while (face.dataset.at === before || face.getAttribute("aria-busy") === "true") await new Promise((go) => setTimeout(go, 1));
    found.push(performance.now() - began); await new Promise((go) => setTimeout(go, 700)); }
  return found; }"""
BREED = """async () => { const litter = document.getElementById("litter"), found = [];
  for (let n = 0; n < 7; n++) { const began = performance.now(), before = litter.firstElementChild;
    document.getElementById("litter-again").click();
    while (litter.firstElementChild === before || litter.children.length < 9) await new Promise((go) => setTimeout(go, 1));
    found.push(performance.now() - began); await new Promise((go) => setTimeout(go, 300)); }
  return found; }"""
MOVED = """() => performance.getEntries().reduce((sum, { encodedBodySize }) => sum + (encodedBodySize ?? 0), 0) / 1e6"""


def figures(chromium: Any, address: str, round: int, server: psutil.Process | None) -> dict[str, float]:
    """The figures of one opening of the page, in a browser context without a memory."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector("#face[data-at]", timeout=120_000)
    first = page.evaluate("window.firstFace") / 1000
    moved = page.evaluate(MOVED)
    page.wait_for_timeout(2500)  # the pad's pictures, and whatever else comes after the face
    box = page.locator("#pad-area").bounding_box()
    page.evaluate(COUNT)
    x, y, width = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] / 5
    page.mouse.move(x, y)
    page.mouse.down()
    servers = [server] if server is not None else []
    before = computing(servers), computing(browsers())
    began = page.evaluate("performance.now()")
    while (elapsed := (page.evaluate("performance.now()") - began) / 1000) < 3:
        page.mouse.move(x + width * np.sin(elapsed * 2.0), y + width * np.sin(elapsed * 3.1))
        page.wait_for_timeout(6)
    faces = max(1, page.evaluate("window.faces"))
    server_s, browser_s = computing(servers) - before[0], computing(browsers()) - before[1]
    page.mouse.up()
    page.wait_for_timeout(1200)
    times = page.evaluate(SLIDE, round)
    page.click("#tab-breed")
    page.wait_for_selector("#litter .thumb")
    breeds, faces_anew = page.evaluate(BREED), page.evaluate(NEW)
    context.close()
    own = address.split("/#")[0].rstrip("/")
    return {
        "first_face_s": first,
        "moved_mb": moved,
        "drag_fps": faces / elapsed,
        "drag_server_ms": 1000 * server_s / faces,
        "drag_browser_ms": 1000 * browser_s / faces,
        "slider_p50_ms": float(np.percentile(times, 50, axis=0)[0]),
        "slider_p95_ms": float(np.percentile(times, 95, axis=0)[0]),
        "new_face_p95_ms": float(np.percentile(faces_anew, 95)),
        "breed_ms": float(np.median(breeds)),
        "exact_p95_ms": float(np.percentile(times, 95, axis=0)[1]),
        "other_origins": len([url for url in asked if not url.startswith((own, "blob:", "data:"))]),
    }


def computing(processes: list[psutil.Process]) -> float:
    """Seconds that some processes have computed."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def browsers() -> list[psutil.Process]:
    """The browser's processes."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "chrom" in child.name():
                found.append(child)
    return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static host that says nothing."""

    def log_message(self, *_: object) -> None: ...


def is_flow(run: str) -> bool:
    """Whether a run or bundled model draws by following a field: its marks are others."""
    from mien.core.families import FlowModel
    from mien.sampling.sampler import Sampler

    return isinstance(Sampler.load(run, device="cpu").model, FlowModel)


def judged(name: str, rounds: list[dict[str, float]]) -> tuple[dict[str, float], bool]:
    """The median figures of some rounds, and whether every mark is kept, said line by line."""
    found = {key: round(float(np.median([one[key] for one in rounds])), 2) for key in rounds[0]}
    kept = True
    for key, figure in found.items():
        mark = MARKS[name].get(key)
        good = mark is None or (figure >= -mark if mark < 0 else figure <= mark)
        kept &= good
        verdict = "    " if mark is None else "PASS" if good else "FAIL"
        bound = "" if mark is None else f"mark: at {'least' if mark < 0 else 'most'} {abs(mark):g}; "
        all_ = ", ".join(f"{one[key]:.2f}" for one in rounds)
        print(f"{verdict}  {name:6}  {key:16} {figure:9.2f}  ({bound}rounds: {all_})", file=sys.stderr)
    return found, kept


def main(run: str, folder: str | None = None) -> int:
    flow = is_flow(run)
    words = [sys.executable, "-m", "mien", "explore", run, "--no-browser"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    found: dict[str, Any] = {}
    kept = True
    try:
        address = child.stdout.readline().strip()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            server = psutil.Process(child.pid)
            kind = "flow" if flow else "served"
            found[kind], good = judged(kind, [figures(chromium, address, n, server) for n in range(ROUNDS)])
            kept &= good
            if folder:
                handler = functools.partial(Quiet, directory=folder)
                host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
                threading.Thread(target=host.serve_forever, daemon=True).start()
                there = f"http://127.0.0.1:{host.server_port}/"
                found["page"], good = judged("page", [figures(chromium, there, n, None) for n in range(ROUNDS)])
                kept &= good
                if not Path(folder, "model.json").exists():  # one file, which opens from a disk
                    there = Path(folder, "index.html").resolve().as_uri()
                    found["disk"], good = judged("disk", [figures(chromium, there, n, None) for n in range(ROUNDS)])
                    kept &= good
            chromium.close()
    finally:
        child.terminate()
        child.wait()
    print(json.dumps(found, indent=1))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
