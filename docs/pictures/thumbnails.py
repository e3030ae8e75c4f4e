"""Cut the thumbnails of README's table out of the gallery's sheets: seeds 0 to 3 and 8 to 11.

python docs/pictures/thumbnails.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).resolve().parent
#: Thumbnail -> sheet of eight by eight faces, a picture of FairFace's or of drawn faces.
SHEETS = {
    name: PICTURES / "gallery" / f"{name}.webp"
    for name in (
        *("began-2017", "began-zhao", "torch-gan-2015", "vaegan-2016", "vae-simpsons-2023", "cppn-residual-2016-fixed"),
        *("dcgan-2015", "homogan-15-fixed"),
    )
} | {"gan": PICTURES / "gan.webp"}


def cut(sheet: Path) -> Image.Image:
    """Four by two faces from the sheet's upper left corner."""
    with Image.open(sheet) as image:
        gap = 2 * image.width // 530  # of the sheet's enlargement
        return image.convert("RGB").crop((0, 0, image.width // 2 + gap // 2, image.height // 4 + gap))


def main() -> None:
    """Write them all."""
    (PICTURES / "thumbnails").mkdir(exist_ok=True)
    for name, sheet in SHEETS.items():
        cut(sheet).save(PICTURES / "thumbnails" / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
