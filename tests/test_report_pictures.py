"""Grids, the recipe in a PNG, and films in each format."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from mien.errors import DataError, Untrusted, UsageError
from mien.report.film import film, training_film
from mien.report.grid import grid, near_square, picture, read_recipe, save_png, wrapped
from mien.storage.provenance import Provenance

MADE = Provenance({"seeds": [0, 5]})


def frames(count: int, width: int = 31, height: int = 17) -> list[Image.Image]:
    """A square that walks to the right on a coloured ground."""
    found = []
    for index in range(count):
        pixels = np.full((height, width, 3), (30, 90, 160), dtype=np.uint8)
        pixels[4:10, index % (width - 6) : index % (width - 6) + 6] = (240, 200, 60)
        found.append(Image.fromarray(pixels))
    return found


@pytest.mark.parametrize(
    ("count", "columns"),
    [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (7, 4), (10, 5), (16, 4), (32, 8), (64, 8), (100, 10)],
)
def test_a_grid_is_near_square_and_leaves_few_cells_empty(count: int, columns: int) -> None:
    assert near_square(count) == columns


def test_a_grid_shows_each_face_in_reading_order_with_a_gap() -> None:
    images = torch.stack([torch.full((3, 4, 6), value) for value in (-1.0, 0.0, 1.0)])
    sheet = grid(images, columns=2)
    assert sheet.mode == "RGB" and sheet.size == (2 * 8 + 2, 2 * 6 + 2)
    assert [sheet.getpixel(at) for at in ((2, 2), (10, 2), (2, 8))] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    assert sheet.getpixel((0, 0)) == sheet.getpixel((8, 3)) == sheet.getpixel((12, 10)) == (255, 255, 255)


def test_a_grey_grid_stays_grey_and_values_outside_the_range_are_clipped() -> None:
    images = torch.tensor([-7.0, 7.0, float("nan"), float("inf")]).reshape(4, 1, 1, 1).expand(4, 1, 3, 3)
    sheet = grid(images)
    assert sheet.mode == "L"
    assert [sheet.getpixel(at) for at in ((2, 2), (7, 2), (2, 7), (7, 7))] == [0, 255, 0, 255]


def test_titles_stand_under_their_faces_and_long_ones_are_cut() -> None:
    plain, titled = (grid(torch.zeros(2, 3, 48, 48), titles=titles) for titles in (None, ["Smiling", "x" * 500]))
    assert titled.width == plain.width and titled.height > plain.height
    strip = np.asarray(titled)[52:-2]
    for left in (2, 52):
        assert (strip[:, left : left + 48] < 128).any(), "no title under a face"
    assert (strip[:, 50:52] == 255).all(), "a title runs over the gap"


def test_labels_that_do_not_fit_beside_each_other_stand_below_each_other() -> None:
    font = ImageFont.load_default(10)
    assert wrapped("Male", 64, font) == ["Male"] and wrapped("", 64, font) == [""]
    assert wrapped("Smiling, No_Beard", 64, font) == ["Smiling,", "No_Beard"]
    lines = wrapped("Male, Smiling, Eyeglasses, No_Beard, Blond_Hair, Bald", 64, font)
    assert len(lines) == 4 and lines[-1].endswith("…") and all(font.getlength(line) <= 64 for line in lines)


def test_bfloat16_and_float_give_the_same_picture() -> None:
    images = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8).bfloat16()
    assert picture(images[0]).tobytes() == picture(images[0].float()).tobytes()


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        grid(torch.zeros(0, 3, 4, 4))


def test_a_png_carries_its_recipe_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    recipe = {"seeds": [3, 42], "truncation": 0.7, "preset": "Müller <b>"}
    path = save_png(grid(torch.zeros(2, 3, 8, 8)), tmp_path / "new" / "faces.png", recipe)
    assert read_recipe(path) == recipe
    with Image.open(path) as image:
        assert image.info["Software"].startswith("mien ") and "no real person" in image.info["Disclaimer"]
        assert json.loads(image.info["mien"]) == recipe
    assert [p.name for p in path.parent.iterdir()] == ["faces.png"]


def test_a_failed_write_keeps_the_old_png(tmp_path: Path) -> None:
    path = save_png(grid(torch.zeros(1, 3, 8, 8)), tmp_path / "faces.png", {"seeds": [1]})
    before = path.read_bytes()
    broken = Image.new("F", (8, 8))  # a mode that PNG cannot hold
    with pytest.raises(OSError):
        save_png(broken, path, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["faces.png"]


def test_reading_a_recipe_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        read_recipe(tmp_path / "none.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(DataError, match="no recipe"):
        read_recipe(tmp_path / "plain.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "plain.png").read_bytes()[:20])
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(Untrusted, match="cannot be read"):
        read_recipe(tmp_path / "torn.png")
    with pytest.raises(DataError, match="is no picture"):
        read_recipe(tmp_path / "text.png")


def test_mp4_plays_everywhere(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = film(frames(12), tmp_path / "walk.mp4", MADE, fps=12)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height) == (32, 18), "h264 in yuv420p needs even sides"
        assert float(container.duration / av.time_base) == pytest.approx(1.0, abs=0.01)
    assert len(shown) == 12
    assert np.abs(shown[0][0, 0].astype(int) - (30, 90, 160)).max() < 12
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index must stand in front"


def test_a_gif_is_not_faster_than_browsers_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(film(frames(6), tmp_path / "fast.gif", Provenance(), fps=60)) as image:
        assert image.info["duration"] == 20
    assert "50 frames a second instead of 60" in capsys.readouterr().err
    film(frames(6), tmp_path / "fast.webp", Provenance(), fps=60)
    assert capsys.readouterr().err == ""


def test_a_gif_has_one_palette_and_the_right_length(tmp_path: Path) -> None:
    path = film(frames(20), tmp_path / "walk.gif", MADE, fps=30)
    with Image.open(path) as image:
        assert image.n_frames == 20 and image.info["loop"] == 0
        total = 0
        for index in range(image.n_frames):
            image.seek(index)
            total += image.info["duration"]
        assert total == pytest.approx(667, abs=5), "rounding of durations must not add up"
        image.seek(19)
        assert np.abs(np.asarray(image.convert("RGB"))[0, 0].astype(int) - (30, 90, 160)).max() < 8
    descriptors = re.findall(rb"\x21\xf9\x04.{4}\x00\x2c.{8}(.)", path.read_bytes(), re.DOTALL)
    assert len(descriptors) == 20 and not any(flags[0] & 0x80 for flags in descriptors), "a frame has its own palette"


def test_webp_moves_and_holds_repeated_frames(tmp_path: Path) -> None:
    first, second = frames(2)
    path = film([first] * 5 + [second] * 5, tmp_path / "walk.webp", MADE, fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 2
        image.load()
        assert image.info["duration"] == 500


def test_a_strip_stands_side_by_side(tmp_path: Path) -> None:
    path = film(frames(5), tmp_path / "walk.png", MADE)
    with Image.open(path) as image:
        assert image.size == (5 * 33 + 2, 17 + 4)
    assert read_recipe(path) == MADE.recipe


def test_films_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fps, count, what in (
        ("walk.avi", 24, 1, "is not a film"),
        ("walk", 24, 1, r"\(none\)"),
        ("walk.gif", 0, 1, "frames a second"),
        ("walk.gif", 24, 0, "needs a frame"),
    ):
        with pytest.raises(UsageError, match=what):
            film(frames(count), tmp_path / name, MADE, fps)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError) as caught:
        film(frames(1), tmp_path / "walk.mp4", MADE)
    assert "mien[film]" in caught.value.remedy and "walk.webp" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def write_grids(run_dir: Path, count: int) -> None:
    for index in range(1, count + 1):
        sheet = grid(torch.full((4, 3, 16, 16), 2 * index / count - 1))
        save_png(sheet, run_dir / "samples" / f"{index * 6400:010d}.png", {})


@pytest.mark.parametrize(("count", "seconds"), [(1, 8), (30, 8), (150, 17)])
def test_the_film_of_a_training_lasts_a_sensible_time(tmp_path: Path, count: int, seconds: int) -> None:
    av = pytest.importorskip("av")
    write_grids(tmp_path, count)
    path = training_film(tmp_path)
    assert path == tmp_path / "training.mp4"
    with av.open(str(path)) as container:
        assert float(container.duration / av.time_base) == pytest.approx(seconds, abs=0.2)


def test_without_pyav_the_film_of_a_training_is_a_webp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    write_grids(tmp_path, 9)
    (tmp_path / "samples" / "0000006401.png").write_bytes(b"torn")
    (tmp_path / "samples" / "9999999999.png").write_bytes(b"torn, and the last")
    path = training_film(tmp_path)
    assert path.name == "training.webp"
    with Image.open(path) as image:
        assert image.n_frames == 9 and image.height > grid(torch.zeros(4, 3, 16, 16)).height


def test_a_run_without_grids_has_no_film(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no film"):
        training_film(tmp_path)
