"""How the explorer feels: `python benchmarks/explorer.py RUN [PAGE] [--teach]` drives it in Chromium and holds it to its marks.

RUN is a run or model for `mien explore`; PAGE, if given, the folder of `mien export RUN --to web`. Needs the extra `web`, psutil,
playwright and Chromium, two cores that do nothing else, and under three minutes. Prints a line a mark on stderr, all figures as
JSON on stdout, and ends with 1 where a mark is missed. Each figure is of ROUNDS openings of the page: their median, or the 95th
percentile of all that they measured. Every wait has a limit, and an error names what did not come.

first_face_s: from opening the page to a face, a flow's in few steps; exact_face_s: to the exact one; moved_mb: what was
loaded for it. drag_fps: faces a second while the pad is dragged for 3 s. slider_p95_ms: from a truncation to its face;
exact_p95_ms: to its exact face. new_face_p95_ms: from the button to the exact face of another seed, 0.6 s after the one
before; breed_ms: from the button to nine children. drag_server_ms, drag_browser_ms: computing for each face of the drag,
which a busy machine changes little. other_origins: requests that left. With --teach, teach_faces_s and teach_noise_s: from
*Teach it*, with 40 photographs, to the first grid of samples of a run from `faces`, and of one from noise.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

ROUNDS = 3
LIMIT = 20_000  # milliseconds for anything that the page is waited for
TEACH_LIMIT = 60_000  # ... and for the first grid of a run
PHOTOGRAPHS = 40
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
    "teach": {"teach_faces_s": 5.0, "teach_noise_s": 5.0},
}
PARENTS = {"teach_faces_s": "faces", "teach_noise_s": ""}
WATCH = """new MutationObserver(() => { const face = document.getElementById("face");
  if (face?.dataset.shown && !window.firstFace) window.firstFace = performance.now();
  if (face?.dataset.at && !window.exactFace) window.exactFace = performance.now(); })
  .observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-shown", "data-at"] });"""
# Previews are drawn with drawImage, exact faces that are enlarged smoothly with putImageData.
COUNT = """() => { window.faces = 0; const pen = document.getElementById("face").getContext("2d");
  for (const way of ["drawImage", "putImageData"]) { const draw = pen[way];
    pen[way] = function (...given) { window.faces++; return draw.apply(this, given); }; } }"""
UNTIL = """const face = document.getElementById("face"), sleep = (ms) => new Promise((go) => setTimeout(go, ms));
  const until = async (what, came) => { const began = performance.now();
    while (!came()) { if (performance.now() - began > LIMIT) throw new Error(`no ${what} in LIMIT ms`); await sleep(1); }
    return performance.now(); };
  const rests = () => face.getAttribute("aria-busy") === "false";
""".replace("LIMIT", str(LIMIT))
SLIDE = (
    "async (round) => {"
    + UNTIL
    + """const input = document.querySelector("#sliders input"), found = [];
  for (let n = 0; n < 10; n++) { const began = performance.now(), faces = window.faces;
    input.value = String(0.5 + n / 25 + round / 100);
    input.dispatchEvent(new Event("input"));  // as a slider that is moved and let go
    input.dispatchEvent(new Event("change"));
    const shown = await until(`face of truncation ${input.value}`, () => window.faces > faces);
    found.push([shown - began, await until(`exact face of truncation ${input.value}`, rests) - began]); await sleep(120); }
  return found; }"""
)
NEW = (
    "async () => {"
    + UNTIL
    + """const found = [];
  for (let n = 0; n < 6; n++) { const began = performance.now(), faces = window.faces;
    document.getElementById("new").click();
    found.push(await until("new face", () => window.faces > faces && rests()) - began);
    await sleep(600); }  // its litter comes after it
  return found; }"""
)
BREED = (
    "async () => {"
    + UNTIL
    + """const litter = document.getElementById("litter"), found = [];
  for (let n = 0; n < 5; n++) { const began = performance.now(), before = litter.firstElementChild;
    document.getElementById("litter-again").click();
    found.push(await until("litter of nine", () => litter.firstElementChild !== before
      && litter.querySelectorAll(".thumb").length === 9) - began); await sleep(300); }
  return found; }"""
)
MOVED = """() => performance.getEntries().reduce((sum, { encodedBodySize }) => sum + (encodedBodySize ?? 0), 0) / 1e6"""


def figures(
    chromium: Any, address: str, round: int, server: psutil.Process | None, brief: bool = False
) -> dict[str, Any]:
    """The figures of one opening of the page, in a browser context without a memory; lists of those that were measured often.

    A brief look ends with the drag.
    """
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(LIMIT)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector("#face[data-at]")
    first, exact = page.evaluate("window.firstFace") / 1000, page.evaluate("window.exactFace") / 1000
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
    for turn in np.arange(
        0.3, 60.0, 0.3
    ):  # a movement a frame, as of a hand: each question to the page would take one too
        page.mouse.move(x + width * np.sin(turn * 2.0), y + width * np.sin(turn * 3.1), steps=10)
        faces, ended = page.evaluate("[Math.max(1, window.faces), performance.now()]")
        if (elapsed := (ended - began) / 1000) > 3:
            break
    server_s, browser_s = computing(servers) - before[0], computing(browsers()) - before[1]
    page.mouse.up()
    found: dict[str, Any] = {
        "first_face_s": first,
        "exact_face_s": exact,
        "moved_mb": moved,
        "drag_fps": faces / elapsed,
        "drag_server_ms": 1000 * server_s / faces,
        "drag_browser_ms": 1000 * browser_s / faces,
    }
    if not brief:
        page.wait_for_timeout(1200)
        times = page.evaluate(SLIDE, round)
        page.click("#tab-breed")
        page.wait_for_selector("#litter .thumb:nth-child(9)")
        found["slider_p50_ms"] = float(np.median([shown for shown, _ in times]))
        found["slider_p95_ms"] = [shown for shown, _ in times]
        found["exact_p95_ms"] = [exact for _, exact in times]
        found["breed_ms"] = float(np.median(page.evaluate(BREED)))
        found["new_face_p95_ms"] = page.evaluate(NEW)
    context.close()
    own = address.split("/#")[0].rstrip("/")
    found["other_origins"] = len([url for url in asked if not url.startswith((own, "blob:", "data:"))])
    return found


def taught(chromium: Any, photographs: Path, parent: str) -> float:
    """Seconds from *Teach it* to the first grid of samples, in an explorer of its own that trains for a minute at most."""
    with tempfile.TemporaryDirectory() as folder, explorer("faces", folder) as (address, _):
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(LIMIT)
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#face[data-at]")
        page.click("#way-teach")
        page.set_input_files("#teach-files", sorted(photographs.iterdir()))
        page.select_option("#teach-from", parent)
        page.fill("#teach-minutes", "1")
        page.click("#teach-start")
        began = time.monotonic()
        page.wait_for_selector('#sample[aria-label^="Grid of"]', timeout=TEACH_LIMIT)
        seconds = time.monotonic() - began
        page.click("#run-stop")
        page.wait_for_selector("#live", state="hidden", timeout=TEACH_LIMIT)
        context.close()
    return seconds


@contextlib.contextmanager
def explorer(run: str, folder: str | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """The address, with its token, and the process of `mien explore RUN` in a folder."""
    words = [sys.executable, "-m", "mien", "explore", run, "--no-browser"]
    environment = {**os.environ, "MIEN_CACHE": str(Path(folder) / "cache")} if folder else None
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip(), psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(timeout=30)


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


def judged(name: str, rounds: list[dict[str, Any]]) -> tuple[dict[str, float], bool]:
    """The figures of some rounds, and whether every mark is kept, said line by line."""
    found, kept = {}, True
    for key in rounds[0]:
        values = [one[key] for one in rounds]
        often = isinstance(values[0], list)
        figure = float(np.percentile(np.concatenate(values), 95)) if often else float(np.median(values))
        found[key] = round(figure, 2)
        mark = MARKS[name].get(key)
        good = mark is None or (figure >= -mark if mark < 0 else figure <= mark)
        kept &= good
        verdict = "    " if mark is None else "PASS" if good else "FAIL"
        bound = "" if mark is None else f"mark: at {'least' if mark < 0 else 'most'} {abs(mark):g}; "
        all_ = ", ".join(f"{np.percentile(value, 95) if often else value:.2f}" for value in values)
        print(f"{verdict}  {name:6}  {key:16} {figure:9.2f}  ({bound}rounds: {all_})", file=sys.stderr)
    return found, kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run or model for `mien explore`")
    parser.add_argument("page", nargs="?", type=Path, help="the folder of `mien export RUN --to web`")
    parser.add_argument("--teach", action="store_true", help="also start two runs from the page")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    kept = True

    def measure(kind: str, rounds: list[dict[str, Any]]) -> None:
        nonlocal kept
        found[kind], good = judged(kind, rounds)
        kept &= good

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        with explorer(given.run) as (address, server):
            kind = "flow" if is_flow(given.run) else "served"
            measure(kind, [figures(chromium, address, n, server) for n in range(ROUNDS)])
        if given.page:
            handler = functools.partial(Quiet, directory=given.page)
            host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=host.serve_forever, daemon=True).start()
            there = f"http://127.0.0.1:{host.server_port}/"
            measure("page", [figures(chromium, there, n, None) for n in range(ROUNDS)])
            if not (given.page / "model.json").exists():  # one file, which opens from a disk
                there = (given.page / "index.html").resolve().as_uri()
                measure("disk", [figures(chromium, there, n, None, brief=True) for n in range(ROUNDS)])
        if given.teach:
            from mien.data.synthetic import SyntheticFaces

            source = SyntheticFaces(64, PHOTOGRAPHS)
            with tempfile.TemporaryDirectory() as folder:
                for row in range(PHOTOGRAPHS):
                    Path(folder, f"{row}.png").write_bytes(source.read(str(row)))
                seconds = {name: taught(chromium, Path(folder), parent) for name, parent in PARENTS.items()}
            measure("teach", [seconds])
        chromium.close()
    print(json.dumps(found, indent=1))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
