"""How picture files were compressed (JPEG, ITU-T T.81): what a pack records and a generator repeats. Without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mien.errors import UsageError

BLOCK = 8  # pixels a side that are transformed together
UNIT = 2 * BLOCK  # pixels a side that one block of chroma covers: its grid is what matters of a position
MOST_REDUCED = 1.5  # pixels of a file for one of a face: beyond, little is left of its marks (measured: 1 and 1.16)
MOST_ENLARGED = 4
#: Quantisation steps at quality 50, by row (tables K.1 and K.2).
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
NOTATION = re.compile(r"(\d{1,3})(?:@([1-9]\d{0,3})\+(\d{1,5})\+(\d{1,5}))?")


@dataclass(frozen=True)
class Compression:
    """The quality of JPEG files with chroma of half the side, and which square of them the faces are."""

    quality: int  # of libjpeg, 1 to 100
    side: int = 0  # of the square in pixels of the file, before it was resized; 0 = the faces' own
    left: int = 0  # pixels of the file left of the square
    top: int = 0  # and above it

    def __str__(self) -> str:
        """Its notation: `90`, or `75@74+7+20` for a square of 74 pixels, 7 from the left and 20 from the top of its file."""
        return str(self.quality) + (f"@{self.side}+{self.left}+{self.top}" if self.side else "")

    @classmethod
    def read(cls, text: str) -> Compression | None:
        """From its notation; None for any other text."""
        found = NOTATION.fullmatch(text)
        numbers = [int(number or 0) for number in found.groups()] if found else [0]
        return None if not 1 <= numbers[0] <= 100 or 0 < numbers[1] < BLOCK else cls(*numbers)

    @classmethod
    def parse(cls, text: str) -> Compression:
        """From its notation. Raises UsageError."""
        found = cls.read(text)
        if found is None:
            raise UsageError(
                f"--model.jpeg {text} is not possible.",
                "It is a quality of 1 to 100, and where files were cut and resized after it, the square that was cut.",
                "Give 90, or 75@74+7+20: quality 75, a square of 74 pixels, 7 from the left and 20 from the top of its file.",
            )
        return found

    def fits(self, side: int) -> bool:
        """Whether faces of `side` pixels still have marks of it."""
        inner = self.side or side
        return inner <= MOST_REDUCED * side and side <= MOST_ENLARGED * inner


def compression_of(box: tuple[int, int, int, int], side: int, quality: int = 100) -> Compression | None:
    """That of a square `box` of a file, resized to `side` by `side`; None where the box is no square or no mark is left."""
    left, top, right, bottom = box
    inner = right - left
    if inner != bottom - top:
        return None
    found = Compression(quality, inner, left, top)
    if inner == side and not left % UNIT and not top % UNIT:
        found = Compression(quality)
    return found if found.fits(side) else None


def steps(table: tuple[tuple[int, ...], ...], quality: int) -> tuple[int, ...]:
    """The 64 quantisation steps at a quality of 1 to 100, by row, as libjpeg scales a table of quality 50."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(max(1, min(255, (step * percent + 50) // 100)) for row in table for step in row)


def quality_of(zigzag: bytes) -> int:
    """The quality at which libjpeg writes this luma table, 64 steps in zigzag order; 0 for a table of another encoder."""
    return qualities().get(zigzag, 0)


@lru_cache
def qualities() -> dict[bytes, int]:
    """Every luma table that libjpeg writes, with the highest of its qualities."""
    places = [(row, column) for row in range(BLOCK) for column in range(BLOCK)]
    order = sorted(places, key=lambda place: (sum(place), place[sum(place) % 2 == 0]))
    tables = {quality: steps(LUMA_STEPS, quality) for quality in range(1, 101)}
    return {bytes(table[BLOCK * row + column] for row, column in order): quality for quality, table in tables.items()}
