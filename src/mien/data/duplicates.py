"""Images that occur twice: to the bit, and nearly (saved again, resized, touched up)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 16  # the signature holds GRID x GRID comparisons of neighbours
NEAR = 12  # bits of 256 that may differ: copies saved again differ in 3 to 16, other aligned faces in 24 and more (measured)
BAND = 16  # bits: two signatures that differ in fewer bits than there are bands agree in one band at least
CROWD = 64  # neighbours in a band that are compared


def signature(image: Image.Image) -> str:
    """Whether each cell of a small grey picture is darker than its right neighbour, as 64 hex digits."""
    grey = np.asarray(image.convert("L").resize((GRID + 1, GRID), Image.Resampling.BILINEAR))
    return np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes().hex()


def exact(hashes: Sequence[str]) -> dict[int, int]:
    """Each image whose pixels occur before, and where they occur first."""
    first: dict[str, int] = {}
    repeated = {}
    for number, digest in enumerate(hashes):
        earlier = first.setdefault(digest, number)
        if earlier != number:
            repeated[number] = earlier
    return repeated


def near(signatures: Sequence[str]) -> dict[int, int]:
    """Each image that nearly equals an earlier one, and the earliest such one that was found."""
    if not signatures:
        return {}
    again = exact(signatures)
    rows = [row for row in range(len(signatures)) if row not in again]
    packed = np.array([list(bytes.fromhex(signatures[row])) for row in rows], dtype=np.uint8)  # [n, 32]
    first = np.arange(len(packed))
    for left, right in candidates(packed.view(np.uint16)):
        alike = np.bitwise_count(packed[left] ^ packed[right]).sum(axis=1) <= NEAR
        left, right = left[alike], right[alike]
        np.minimum.at(first, np.maximum(left, right), np.minimum(left, right))
    for late in np.flatnonzero(first < np.arange(len(first))):
        first[late] = first[first[late]]  # what is earlier has its own first already
    found = {rows[late]: rows[early] for late, early in enumerate(first.tolist()) if early < late}
    found |= {late: found.get(early, early) for late, early in again.items()}
    return dict(sorted(found.items()))


def candidates(bands: NDArray[np.uint16]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of rows that agree in a band `[n, bands]`, several at a time."""
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        ranked = band[order]
        for step in range(1, CROWD):
            agree = np.flatnonzero(ranked[:-step] == ranked[step:])
            if not len(agree):
                break
            yield order[agree], order[agree + step]
