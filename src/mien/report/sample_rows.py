"""New samples of several runs with the same seeds, because grids on disk may have other seeds or other times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mien.errors import MienError
from mien.report.grid import grid
from mien.report.pictures import inline
from mien.report.run_reader import RunRecord
from mien.sampling.sampler import Sampler
from mien.storage.provenance import Provenance

SEEDS = range(16)
ROW = 8  # faces in one picture; two pictures are side by side, or stacked on a narrow screen
PICTURE_BYTES = 40_000


@dataclass(frozen=True)
class SampleRow:
    """The faces of one run, or the reason why there are none."""

    name: str
    pictures: tuple[tuple[str, int, int], ...] = ()  # data URI, width and height of every ROW faces
    missing: str = ""


def draw_sample_row(record: RunRecord, code: Path | None = None) -> SampleRow:
    """The faces of SEEDS by the newest model of a run. `code` is the file of a custom model."""
    try:
        sampler = Sampler.load(record.directory, code=code)
        images = sampler.sample(SEEDS)
    except MienError as error:
        why = f"{error.what} {error.why}".replace(str(record.directory), record.path)
        return SampleRow(record.name, missing=why)
    rows = [grid(images[start : start + ROW], columns=ROW) for start in range(0, len(images), ROW)]
    provenance = Provenance(sampler.metadata(seeds=[SEEDS[0], SEEDS[-1]]))
    return SampleRow(record.name, tuple(inline(row, PICTURE_BYTES, provenance) for row in rows))
