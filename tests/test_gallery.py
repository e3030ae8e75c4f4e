"""The gallery's page is written from what was measured, shows every sheet, and names commands that exist."""

from __future__ import annotations

import json
import os
import re
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from mien.core.run import config_fields
from mien.presets import PRESETS
from tests.conftest import ROOT, load_script

PICTURES = ROOT / "docs" / "pictures" / "gallery"
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    return load_script(ROOT / "benchmarks" / "gallery.py")


def test_the_page_is_current(gallery: ModuleType) -> None:
    facts = json.loads((PICTURES / "gallery.json").read_text(encoding="utf-8"))
    written = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert written == gallery.page(facts), "run python benchmarks/gallery.py ARCHIVE WORK_DIR --page"


def test_every_trained_row_has_a_sheet_and_a_command(gallery: ModuleType) -> None:
    facts = json.loads((PICTURES / "gallery.json").read_text(encoding="utf-8"))
    for row in gallery.ROWS:
        known = facts.get(row.name)
        assert (PICTURES / f"{row.name}.webp").exists() == (known is not None), row.name
        assert known is None or known["command"].startswith(f"mien train {row.preset}")


def test_the_chart_shows_the_figures_of_the_page() -> None:
    fid_chart = load_script(ROOT / "benchmarks" / "fid_chart.py")
    facts = json.loads((PICTURES / "gallery.json").read_text(encoding="utf-8"))
    with Image.open(ROOT / "docs" / "pictures" / "fid-over-minutes.png") as image:
        assert image.info["Description"] == fid_chart.digest(facts), "run python benchmarks/fid_chart.py"
    assert len(fid_chart.rows_of(facts)) > 10


def test_pictures_are_small() -> None:
    assert [path.name for path in PICTURES.iterdir() if path.stat().st_size >= 300_000] == []


def test_its_commands_set_options_that_exist(gallery: ModuleType) -> None:
    for row in gallery.ROWS:
        known = {f"--{field.name.replace('_', '-')}" for field in config_fields(PRESETS[row.preset])}
        flags = {flag.replace(".no-", ".") for flag in re.findall(r"--\S+", " ".join(row.flags))}
        assert flags <= known, row.name


def test_the_thumbnails_of_the_readme_are_cut_from_the_present_sheets() -> None:
    thumbnails = load_script(ROOT / "docs" / "pictures" / "thumbnails.py")
    if os.environ.get("MIEN_WRITE_DOCS"):
        thumbnails.main()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"\(docs/pictures/thumbnails/(\S+)\.webp\)", readme)
    folder = ROOT / "docs" / "pictures" / "thumbnails"
    assert len(shown) == 9 and sorted(shown) == sorted(thumbnails.SHEETS) == sorted(
        file.stem for file in folder.iterdir()
    )
    for name, sheet in thumbnails.SHEETS.items():
        file = folder / f"{name}.webp"
        with Image.open(file) as image:
            found, wanted = np.asarray(image.convert("RGB"), float), np.asarray(thumbnails.cut(sheet), float)
        assert found.shape == wanted.shape and file.stat().st_size < 100_000
        assert np.abs(found - wanted).mean() < 8, f"{name}: run python docs/pictures/thumbnails.py"
    anchors = re.findall(r"\(docs/gallery\.md#([^)]+)\)", readme)
    assert len(anchors) == 8 and all(f'<a id="{anchor}">' in PAGE for anchor in anchors)
