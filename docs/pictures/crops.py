"""Draw docs/pictures/crops.png: every named crop, its box in the picture and what it makes of it.

    python docs/pictures/crops.py FAIRFACE.zip

The drawn faces are mien's own. The photograph is from FairFace (Kärkkäinen and Joo, WACV 2021), CC BY 4.0.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mien.data.crops import CROPS
from mien.data.decode import decode
from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.synthetic import choose, svg

PHOTOGRAPH = "images/00003.jpg"
ROWS = [
    ("celeba-148", (178, 218), 4),
    ("celeba-128-vae", (178, 218), 4),
    ("center", (178, 218), 4),
    ("squash", (178, 218), 4),
    ("lfw-150", (250, 250), 33),
]
CELL, GAP, INK = (250, 250), 14, (38, 38, 42)


def drawn(index: int, size: tuple[int, int], eyes: tuple[float, float, float]) -> Image.Image:
    """A drawn person of `size` pixels, the eyes' middle at (x, y) and their distance as `eyes` says."""
    import resvg_py

    x, y, distance = eyes
    scale = 52 / distance  # the eyes lie at (106, 112) and (158, 112) in the drawing
    view = (132 - x * scale, 112 - y * scale, size[0] * scale, size[1] * scale)
    head, _, body = svg(choose(0, index), shirt="#25557C").partition(">")
    before, _, after = head.partition('viewBox="')
    head = f'{before}viewBox="{" ".join(map(str, view))}"{after.partition(chr(34))[2]}'
    head = head.replace('width="180px"', f'width="{size[0]}px"').replace('height="180px"', f'height="{size[1]}px"')
    data = resvg_py.svg_to_bytes(svg_string=f"{head}>{body}", width=size[0], height=size[1], background="#9fc3d6")
    return decode(bytes(data)).image


def framed(image: Image.Image, box: tuple[int, int, int, int] | None) -> Image.Image:
    """The picture at its own size, what lies outside the box paler, on a cell of paper."""
    shown = Image.blend(image, Image.new("RGB", image.size, "white"), 0.55) if box else image.copy()
    if box:
        shown.paste(image.crop(box), box[:2])
        ImageDraw.Draw(shown).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=(184, 78, 0), width=2)
    cell = Image.new("RGB", CELL, "white")
    cell.paste(shown, ((CELL[0] - image.width) // 2, (CELL[1] - image.height) // 2))
    return cell


def column(name: str, image: Image.Image, words: str) -> Image.Image:
    """The picture with its box above, the finished 64x64 image, twice enlarged, below."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    resampler = CROPS[name].resampler
    finished = (
        Preprocessor(PreprocessConfig(side=64, crop=name, resampler=resampler, eye_distance=0.36))
        .make(buffer.getvalue())
        .image
    )
    box = None if CROPS[name].finds_face else CROPS[name].box(*image.size)
    sheet = Image.new("RGB", (CELL[0], CELL[1] + 128 + 60), "white")
    sheet.paste(framed(image, box), (0, 0))
    sheet.paste(finished.resize((128, 128), Image.Resampling.NEAREST), ((CELL[0] - 128) // 2, CELL[1] + 8))
    pen = ImageDraw.Draw(sheet)
    for line, (text, size) in enumerate(((name, 18), (words, 13))):
        font = ImageFont.load_default(size)
        pen.text(((CELL[0] - pen.textlength(text, font)) / 2, CELL[1] + 140 + 24 * line), text, INK, font)
    return sheet


def main() -> None:
    columns = []
    for name, size, index in ROWS:
        eyes = (88.5, 111.5, 38.0) if size == (178, 218) else (125.0, 113.0, 40.0)
        columns.append(column(name, drawn(index, size, eyes), f"{size[0]}x{size[1]}, {CROPS[name].resampler}"))
    with zipfile.ZipFile(sys.argv[1]) as archive:
        photograph = decode(archive.read(PHOTOGRAPH)).image
    tilted = photograph.resize((160, 160), Image.Resampling.LANCZOS).rotate(
        18, Image.Resampling.BICUBIC, fillcolor="white"
    )
    canvas = Image.new("RGB", (230, 200), "white")
    canvas.paste(tilted, (60, 20))
    columns.append(column("face", canvas, "found and levelled, eye distance 0.36"))
    sheet = Image.new("RGB", (len(columns) * (CELL[0] + GAP), columns[0].height), "white")
    for place, part in enumerate(columns):
        sheet.paste(part, (place * (CELL[0] + GAP), 0))
    sheet.quantize(255).save(Path(__file__).with_name("crops.png"), optimize=True)


if __name__ == "__main__":
    main()
