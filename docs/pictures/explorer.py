"""Draw the pictures of the explorer in docs/pictures/: explorer.webp, explorer-dark.webp and explorer-phone.webp.

    python docs/pictures/explorer.py [explorer] [explorer-dark] [explorer-phone]

They show the bundled `faces`, which was trained on FairFace (Kärkkäinen and Joo, WACV 2021), CC BY 4.0. Needs the extra `web`,
playwright and Chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PICTURES = Path(__file__).resolve().parent
SEED = "770"  # of the first tenth of the quality order
LARGEST = 300_000  # bytes
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
#: What has to be there before a picture is taken: every face, and no skeleton.
WHOLE = """() => !document.querySelector('[aria-busy="true"], .waiting, .tile:not([hidden] *)')"""
PAD = """() => { const pad = document.getElementById('pad'), pen = pad.getContext('2d'), cell = pad.width / 5;
  const filled = (n) => pen.getImageData(((n % 5) + 0.5) * cell, (Math.floor(n / 5) + 0.5) * cell, 1, 1).data[3] === 255;
  return [...Array(25).keys()].every(filled); }"""


def opened(browser: Browser, address: str, scheme: str, size: dict[str, int]) -> Any:
    """The page at a face, all of it drawn."""
    touch = {"has_touch": True, "is_mobile": True} if size is PHONE else {}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce", **touch)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("#face[data-at]")
    page.fill("#seed", SEED)
    page.keyboard.press("Enter")
    return page


def taken(page: Any) -> Image.Image:
    """A picture of the page, once nothing in it is on its way."""
    for condition in (WHOLE, PAD):
        while page.is_visible("#pad") and not page.evaluate(condition):
            page.wait_for_timeout(300)
    page.wait_for_timeout(800)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    """Write a picture as small as docs may be."""
    for quality in (90, 85, 80, 70, 60):
        image.save(PICTURES / name, quality=quality, method=6)
        if (PICTURES / name).stat().st_size < LARGEST:
            return


def main() -> None:
    words = [sys.executable, "-m", "mien", "explore", "faces", "--no-browser"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for name in sys.argv[1:] or DRAWN:
                save(DRAWN[name](browser, address), f"{name}.webp")
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)


def light(browser: Browser, address: str) -> Image.Image:
    """A face, and three steps of breeding that went from it."""
    page = opened(browser, address, "light", DESKTOP)
    page.wait_for_selector("#litter .thumb:nth-child(9)")
    for at in (1, 2, 3):
        page.locator("#litter .thumb").nth(at).click()
        page.wait_for_timeout(1500)
    page.locator("#past .thumb").nth(1).click()
    return taken(page)


def dark(browser: Browser, address: str) -> Image.Image:
    """A hundred seeds as a map."""
    page = opened(browser, address, "dark", DESKTOP)
    page.click("#tab-sheet")
    page.click("#sheet-map")
    page.wait_for_selector("#sheet .thumb:nth-child(100)")
    page.mouse.move(5, 5)
    return taken(page)


def phones(browser: Browser, address: str) -> Image.Image:
    """A phone in the light and one in the dark, side by side."""
    both = Image.new("RGB", (2 * PHONE["width"] + 40, PHONE["height"]), "white")
    for n, scheme in enumerate(("light", "dark")):
        page = opened(browser, address, scheme, PHONE)
        if scheme == "dark":
            page.tap("#tab-breed")
            page.wait_for_selector("#litter .thumb:nth-child(9)")
        both.paste(taken(page), (n * (PHONE["width"] + 40), 0))
        page.context.close()
    return both


DRAWN = {"explorer": light, "explorer-dark": dark, "explorer-phone": phones}


if __name__ == "__main__":
    main()
