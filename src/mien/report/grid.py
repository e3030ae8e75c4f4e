"""Grids of faces, and PNG files with their recipe (seeds, model, options) and their origin as metadata."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

from mien.errors import DataError, Untrusted
from mien.storage import provenance
from mien.storage.atomic import replacing
from mien.storage.provenance import Claim, Marks, Provenance
from mien.storage.regular_file import NotRegular, open_regular

GAP = 2  # pixels between cells
LINES = 4  # of a title at most
SIGNATURES = (b"\x89PNG", b"RIFF", b"GIF8", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1")  # of files that are pictures
PAPER, INK = (255, 255, 255), (38, 38, 42)


def to_bytes(images: Tensor) -> Tensor:
    """Images `[n, C, H, W]` in [-1, 1] -> uint8 `[n, H, W, C]` on the CPU. Values are clipped; NaN becomes black."""
    levels = images.detach().float().nan_to_num(nan=-1.0).add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


def picture(image: Tensor) -> Image.Image:
    """One image `[C, H, W]` in [-1, 1] as a picture, grey for one channel."""
    pixels = to_bytes(image[None])[0].numpy()
    return Image.fromarray(pixels[..., 0]) if pixels.shape[-1] == 1 else Image.fromarray(pixels)


def enlarged(image: Image.Image, times: int, by: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """A picture `times` as large, by Lanczos: of the usual filters the nearest to the original (LOG 2026-11-29)."""
    size = (image.width * times, image.height * times)
    return image if times == 1 else image.resize(size, by)


def near_square(count: int) -> int:
    """The number of columns for `count` cells: near a square, with the fewest empty cells."""
    least = max(1, int(-(-(count**0.5) // 1)))
    return min(range(least, least * 3 // 2 + 1), key=lambda columns: (-count % columns, columns))


def grid(
    images: Tensor | Sequence[Image.Image], columns: int | None = None, titles: Sequence[str] | None = None
) -> Image.Image:
    """Faces `[n, C, H, W]` in [-1, 1], or pictures of one size, in reading order with a small gap.

    `titles`, one a face, stand in a strip under each, in as many lines as they need up to four: the labels of a conditional model.
    """
    cells = [picture(image) for image in images] if isinstance(images, Tensor) else list(images)
    if not cells:
        raise ValueError("a grid needs at least one image")
    columns = min(columns or near_square(len(cells)), len(cells))
    rows = -(-len(cells) // columns)
    width, height = cells[0].size
    font = ImageFont.load_default(max(9, min(16, width // 6)))
    texts = [wrapped(title, width, font) for title in titles or ()]
    line = int(font.getbbox("Ay")[3]) + 1
    strip = line * max(map(len, texts)) + 3 if texts else 0

    across, down = width + GAP, height + strip + GAP
    grey = all(cell.mode == "L" for cell in cells) and not titles
    sheet = Image.new("L" if grey else "RGB", (columns * across + GAP, rows * down + GAP), 255 if grey else PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        left, top = GAP + index % columns * across, GAP + index // columns * down
        sheet.paste(cell, (left, top))
        for number, text in enumerate(texts[index] if texts else ()):
            place = (left + width / 2, top + height + 2 + line * (number + 0.5))
            pen.text(place, text, fill=INK, font=font, anchor="mm")
    return sheet


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrapped(text: str, width: float, font: Font) -> list[str]:
    """`text` in lines of at most `width` pixels, broken between words; the last of four is cut, and a word that is too wide."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (font.getlength(longer) <= width or len(lines) == LINES):
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, width, font) for line in lines] or [""]


def shortened(text: str, width: float, font: Font) -> str:
    """`text` cut with an ellipsis so that it fits `width` pixels."""
    text = " ".join(text.split())[:200]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def save_png(image: Image.Image, path: Path, recipe: Mapping[str, Any], claim: Claim = Claim.SYNTHETIC) -> Path:
    """Write `image` with its `recipe`, which reproduces it, and with what it claims to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Provenance(recipe, claim).save(image, temporary, "PNG")
    return path


def png_bytes(image: Image.Image, recipe: Mapping[str, Any], claim: Claim = Claim.SYNTHETIC) -> bytes:
    """The file that `save_png` writes."""
    content = io.BytesIO()
    Provenance(recipe, claim).save(image, content, "PNG")
    return content.getvalue()


def save_grid(
    images: Tensor, path: str | Path, columns: int | None = None, titles: Sequence[str] | None = None
) -> Path:
    """Write images `[n, C, H, W]` in [-1, 1] as one PNG grid, near a square by default."""
    return save_png(grid(images, columns, titles), Path(path), {"synthetic": True})


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a picture that mien wrote. Raises DataError without one, Untrusted where it cannot be read."""
    return recipe_of(read_marks(path), path)


def read_marks(path: Path) -> Marks:
    """What a file says of itself. Raises DataError for what is no picture, Untrusted for one that is damaged."""
    try:
        return provenance.read(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not there.", "No file has this name.", "Name a picture that mien wrote.") from None
    except NotRegular:
        kind = "a folder" if path.is_dir() else "a device, a pipe or a socket"
        hint = "Name one picture, film or page; `mien doctor RUN` looks at a run."
        raise DataError(f"{path} is no picture.", f"It is {kind}.", hint) from None
    except UnidentifiedImageError as error:
        with open_regular(path) as file:
            head = file.read(4)
        if not head:
            raise DataError(f"{path} is no picture.", "It is empty.", "Name a picture that mien wrote.") from None
        if head in SIGNATURES:
            raise Untrusted(
                f"{path} is damaged.", "It begins as a picture and goes on otherwise.", "Copy it again."
            ) from error
        raise DataError(
            f"{path} is no picture.",
            "It is no PNG, WebP, GIF or MP4, and no page that mien wrote.",
            "Name a picture that mien wrote; `mien doctor RUN` looks at a run.",
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Untrusted(
            f"{path} cannot be read.", f"It is not a whole picture: {error}.", "Name a picture that mien wrote."
        ) from error


def recipe_of(marks: Marks, path: Path) -> dict[str, Any]:
    """The recipe among the marks of `path`. Raises DataError without one."""
    if marks.recipe is None:
        raise DataError(
            f"{path} carries no recipe.",
            "mien writes one into each picture; converting or sharing a picture often drops it.",
            "Name the picture that mien wrote, not a copy that was edited or re-encoded.",
        )
    return marks.recipe
