"""Alignment and mattes as `prepare` uses them."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mien.__main__ import main
from mien.data import Preparation, find_source, framing, prepare
from mien.data.pack import Pack
from mien.data.planning import plan
from mien.data.preprocess import ALIGNED_BY_SOURCE, PreprocessConfig, Preprocessor
from mien.data.readers import UnreadableFile
from mien.data.worker_pool import WorkerPool
from mien.errors import DataError, UsageError
from tests.conftest import SHARED, need_weights
from tests.test_data_prepare import photographs

pytest.importorskip("cv2", reason="the extra `faces` is not installed")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few of FairFace's photographs."""
    archive = SHARED / "data" / "fairface-10k-128.zip"
    if not archive.exists():
        pytest.skip(f"{archive.name} is not beside the repository")
    folder = tmp_path_factory.mktemp("people")
    with zipfile.ZipFile(archive) as source:
        for number in range(24):
            (folder / f"{number:05d}.jpg").write_bytes(source.read(f"images/{number:05d}.jpg"))
    return folder


def celeba_copy(folder: Path, scale: float) -> list[tuple[float, float]]:
    """CelebA's layout with one drawn picture, and its landmarks; the places of the eyes in the stored picture."""
    points = np.array([[60, 100], [116, 112], [90, 140], [53, 157], [99, 169]])
    picture = Image.new("RGB", (178, 218), (120, 90, 60))
    draw = ImageDraw.Draw(picture)
    for x, y in points[:2]:
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(255, 255, 255))
    (folder / "img_align_celeba").mkdir(parents=True)
    small = picture.resize((round(178 * scale), round(218 * scale)), Image.Resampling.LANCZOS)
    small.save(folder / "img_align_celeba" / "000001.png")
    (folder / "list_attr_celeba.txt").write_text("1\nMale\n000001.png 1\n")
    numbers = " ".join(map(str, points.ravel()))
    (folder / "list_landmarks_align_celeba.txt").write_text(f"1\n{'x y ' * 5}\n000001.png {numbers}\n")
    return [((x + 0.5) * scale, (y + 0.5) * scale) for x, y in points[:2]]


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_given_landmarks_replace_the_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scale: float
) -> None:
    celeba_copy(tmp_path / "in", scale)
    for name in ("YUNET", "FACE_MESH"):  # no weights are needed
        monkeypatch.setenv(f"MIEN_WEIGHTS_{name}", str(tmp_path / "nowhere"))
    line = [
        "data",
        "prepare",
        str(tmp_path / "in"),
        str(tmp_path / "a.pack"),
        "--crop",
        "face",
        "--eye-distance",
        "0.26",
    ]
    assert main(line) == 0
    said = capsys.readouterr().out
    pack = Pack.open(tmp_path / "a.pack")
    assert pack.meta["notes"] == {ALIGNED_BY_SOURCE: 1, "filled in beyond the picture: 10 to 25% of the crop": 1}
    assert pack.meta["recipe"]["landmarks_of"] == [178, 218]
    assert ALIGNED_BY_SOURCE in said and "detected in" not in said
    bright = pack.images[0, :, :, 2] > 150  # the eyes are white, at (0.37, 0.47) and (0.63, 0.47) of 64 pixels
    for half, x in ((slice(0, 32), 0.37), (slice(32, 64), 0.63)):
        rows, columns = np.nonzero(bright[:, half])
        assert rows.mean() + 0.5 == pytest.approx(0.47 * 64, abs=0.6)
        assert columns.mean() + 0.5 + half.start == pytest.approx(x * 64, abs=0.6)


def test_a_line_of_zeros_is_no_landmark() -> None:
    preprocessor = Preprocessor(PreprocessConfig(side=16, crop="face", resampler="lanczos", landmarks_of=(178, 218)))
    far = np.array([[1e7, 0], [-1e7, 0], [0, 1], [0, 2], [0, 3]])  # a canvas for these had 10^9 pixels a side
    for wrong in (np.zeros((5, 2)), np.full((5, 2), np.nan), far):
        assert preprocessor.source_landmarks((178, 218), wrong.astype(np.float32)) is None


@pytest.mark.parametrize(("eyes", "note"), [(16, ""), (18, "10 to 25%"), (22, "25 to 50%"), (40, "over 50%")])
def test_what_is_filled_in_beyond_a_picture_is_said(eyes: int, note: str) -> None:
    """A face that fills its picture: the crop at eyes 0.26 apart has a side of eyes / 0.26, of which 64 pixels are there."""
    landmarks = (
        np.array([[32 - eyes / 2, 30], [32 + eyes / 2, 30], [32, 40], [26, 30 + eyes], [38, 30 + eyes]], np.float32)
        / 64
    )
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).convert("RGB").save(buffer, "PNG")
    config = PreprocessConfig(side=32, crop="face", resampler="lanczos", landmarks_of=(64, 64))
    notes = Preprocessor(config).make(buffer.getvalue(), landmarks).notes
    assert [text for text in notes if "beyond" in text] == (
        [f"filled in beyond the picture: {note} of the crop"] if note else []
    )
    bounded = Preprocessor(replace(config, max_outside=0.3))
    if eyes >= 22:
        with pytest.raises(UnreadableFile, match="--max-outside"):
            bounded.make(buffer.getvalue(), landmarks)
    else:
        assert len(bounded.make(buffer.getvalue(), landmarks).notes) == len(notes)


def crowd(folder: Path, eyes: float, count: int = 12) -> Path:
    """CelebA's layout with pictures of noise, whose landmarks are about `eyes` pixels apart."""
    rng = np.random.default_rng(0)
    (folder / "img_align_celeba").mkdir(parents=True)
    lines = []
    for number in range(count):
        name, half = f"{number:06d}.png", eyes / 2 + rng.uniform(-3, 3)
        Image.fromarray(rng.integers(0, 256, (218, 178, 3), np.uint8)).save(folder / "img_align_celeba" / name)
        points = [89 - half, 110, 89 + half, 110, 89, 110 + half, 80, 110 + 2 * half, 98, 110 + 2 * half]
        lines.append(f"{name} {' '.join(map(str, points))}")
    (folder / "list_landmarks_align_celeba.txt").write_text("\n".join([str(count), "x y " * 5, *lines, ""]))
    return folder


def prepared(source: Path, pack: Path, *flags: str) -> dict[str, Any]:
    assert main(["data", "prepare", str(source), str(pack), "--crop", "face", "--size", "48", *flags, "--json"]) == 0
    return dict(Pack.open(pack).meta)


@pytest.mark.parametrize(("eyes", "least", "most"), [(36, 0.26, 0.26), (64, 0.29, 0.35), (110, 0.47, 0.47)])
def test_an_eye_distance_that_fits_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], eyes: int, least: float, most: float
) -> None:
    """0.26 was used whatever the pictures: over half of the area of tightly cropped ones was invented."""
    source = crowd(tmp_path / "in", eyes)
    chosen = prepared(source, tmp_path / "a.pack")
    distance = chosen["recipe"]["eye_distance"]
    assert least <= distance <= most and chosen["framing"]["images"] == 12

    def filled_in(hundredths: int) -> float:
        fixed = prepared(source, tmp_path / f"{hundredths}.pack", "--eye-distance", str(hundredths / 100))
        assert "framing" not in fixed and fixed["recipe"]["eye_distance"] == hundredths / 100
        return float(fixed["filled_in"]["area"])

    there = filled_in(round(100 * distance))
    assert chosen["filled_in"]["area"] == there == pytest.approx(chosen["framing"]["outside"], abs=0.01)
    if 0.26 < distance < 0.47:
        assert there <= 0.1 < filled_in(round(100 * distance) - 1) + 0.005
        assert chosen["framing"]["outside_at_widest"] == pytest.approx(filled_in(26), abs=0.01)
    assert (there > 0.1) == (eyes == 110)
    capsys.readouterr()
    assert main(["data", "info", str(tmp_path / "a.pack")]) == 0
    said, page = capsys.readouterr().out, (tmp_path / "a.pack" / "report.html").read_text()
    for words in (f"{there:.1%} of the area, in", f"{distance} of the side, chosen by 12 images"):
        assert words in said and words in page
    assert ("--max-outside" in said) == (eyes == 110)


def test_a_limit_or_another_start_changes_no_eye_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = crowd(tmp_path / "in", 64)
    whole = prepared(source, tmp_path / "a.pack")
    part = prepared(source, tmp_path / "b.pack", "--limit", "3")
    assert part["framing"] == whole["framing"] and part["filled_in"]["images"] <= 3
    monkeypatch.setattr(framing, "choose", None)
    assert prepared(source, tmp_path / "a.pack") == whole  # it is there already, and nothing is chosen again
    todo = plan(find_source(source), Preparation(crop="face", side=48))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "framing.json").write_text('{"eye_distance": 0.4, "images": 12, "outside_at_widest": 0}')
    with WorkerPool(1) as pool:
        resumed = framing.with_framing(todo, tmp_path / "shards", pool, rank=1)
    assert resumed.preprocess.eye_distance == 0.4 and resumed.key == todo.key == whole["key"]


def test_landmarks_do_not_fit_a_picture_of_another_shape(tmp_path: Path) -> None:
    need_weights("yunet", "face-mesh")
    celeba_copy(tmp_path / "in", 1.0)
    picture = tmp_path / "in" / "img_align_celeba" / "000001.png"
    Image.open(picture).crop((0, 20, 178, 198)).save(picture)
    with pytest.raises(DataError, match="no face found"):  # so it was looked for
        prepare(find_source(tmp_path / "in"), tmp_path / "a.pack", Preparation(crop="face"), force=True)


def test_faces_are_aligned(people: Path, tmp_path: Path) -> None:
    need_weights("yunet", "face-mesh")
    pack = prepare(find_source(people), tmp_path / "a.pack", Preparation(side=64, crop="face", eye_distance=0.47))
    assert isinstance(pack, Pack) and len(pack) == 24
    transforms = np.array([[float(number) for number in entry.geometry.split(",")] for entry in pack.entries])
    assert transforms.shape == (24, 6)
    eyes = np.array([[0.265 * 128, 0.385 * 128], [0.735 * 128, 0.385 * 128]])  # where the data set has them
    landed = (
        np.einsum("nij,kj->nki", transforms.reshape(24, 2, 3)[:, :, :2], eyes)
        + transforms.reshape(24, 2, 3)[:, None, :, 2]
    )
    target = np.array([[0.5 - 0.235, 0.47], [0.5 + 0.235, 0.47]]) * 64
    assert np.median(np.abs(landed - target).max(axis=(1, 2))) < 0.04 * 64
    assert pack.meta["recipe"]["eye_distance"] == 0.47


def test_a_picture_without_a_face_is_refused_by_name(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_weights("yunet", "face-mesh")
    photographs(people / "noise", 1, side=100)
    assert main(["data", "prepare", str(people), str(tmp_path / "a.pack"), "--crop", "face", "--force"]) == 0
    said = capsys.readouterr().out
    assert "detected in 24 of 25 (96.0%)" in said and "noise/00000.png: no face found" in said


def test_the_background_goes_and_the_face_stays(tmp_path: Path) -> None:
    need_weights("selfie")
    archive = SHARED / "data" / "celeba-10k.zip"
    if not archive.exists():
        pytest.skip(f"{archive.name} is not beside the repository")
    plain = prepare(find_source(archive), tmp_path / "a.pack", Preparation(limit=20))
    blue = prepare(find_source(archive), tmp_path / "b.pack", Preparation(limit=20, matte="#0000ff"))
    assert plain is not None and blue is not None and blue.meta["recipe"]["matte"] == "#0000ff"
    middle = (slice(None), slice(26, 44), slice(24, 40))
    assert np.abs(blue.images[middle].astype(int) - plain.images[middle]).mean() < 4
    corners = blue.images[:, :8, :8].reshape(20, -1, 3).mean(axis=1)
    assert np.median(corners[:, 2] - corners[:, 0]) > 150


def test_a_matte_that_does_not_exist_is_told_before_the_work_begins(tmp_path: Path) -> None:
    need_weights("selfie")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="mattte"):
        prepare(find_source(tmp_path), tmp_path / "a.pack", Preparation(matte="mattte"))


@pytest.mark.parametrize(("package", "extra"), [("cv2", "faces"), ("ai_edge_litert", "faces"), ("pyarrow", "tables")])
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, extra: str
) -> None:
    need_weights("yunet", "face-mesh")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    photographs(tmp_path / "in", 1)
    (tmp_path / "in" / "table.parquet").write_bytes(b"PAR1")
    source = "in/table.parquet" if package == "pyarrow" else "in"
    assert main(["data", "prepare", str(tmp_path / source), str(tmp_path / "a.pack"), "--crop", "face"]) == 2
    said = capsys.readouterr().err
    assert f"pip install 'mien[{extra}]'" in said and "why:" in said
