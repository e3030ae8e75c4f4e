"""`mien project`, `directions`, `edit` and walks between photographs."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.data import photo as photo_room
from mien.data.align import Aligner
from mien.data.pack import Pack
from mien.data.photo import read_photo
from mien.errors import DataError
from mien.report.grid import GAP, picture, read_recipe
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from tests.conftest import SHARED, blobs, need_weights, steer, write_pack
from tests.test_cli import PRINTED, call, cell, pixels
from tests.test_latent import write_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty cache: no detector, no perceptual weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "labelled.pack", 80, 16, ("Hat", "Beard"))


@pytest.fixture(params=["vae", "began-zhao", "quick"])
def model(request: pytest.FixtureRequest, here: Path, blob_pack: Pack) -> Path:
    return write_model(request.param, here, blob_pack)


def photograph(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    Image.fromarray(blobs(1, max(width, height), seed)[0][:height, :width]).save(path)
    return path


# Photographs of any mode and size


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is larger than it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(mode: str, kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    rgb = Image.fromarray(blobs(1, 40)[0][: size[1], : size[0]])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    else:
        image = rgb.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


FINE = [("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"),
        ("RGB", "WEBP"), ("P", "GIF"), ("F", "TIFF"), ("RGB", "BMP")]  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), FINE)
def test_photographs_of_any_mode(here: Path, mode: str, kind: str) -> None:
    data = encoded(mode, kind)
    if mode == "F":  # its scale is only known in [0, 1]
        image = Image.fromarray(np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255)
        image.save(here / "x.tiff")
        data = (here / "x.tiff").read_bytes()
    (here / "photo.any").write_bytes(data)
    photo = read_photo(here / "photo.any", 16)
    assert photo.pixels.shape == (16, 16, 3) and photo.pixels.dtype == np.uint8 and "cropped by center" in photo.notes
    assert photo.pixels.std() > 5


WRONG: dict[str, bytes] = {
    "one-pixel": encoded("RGB", "PNG", (1, 1)),
    "thin": encoded("RGB", "PNG", (40, 3)),
    "bomb": png_of_size(60_000, 60_000),
    "short": png_of_size(64, 64),
    "cut": encoded("RGB", "PNG")[:-60],
    "empty": b"",
    "text": b"no photograph\n" * 50,
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "noise": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_photograph_is_refused_in_three_lines(here: Path, blob_pack: Pack, name: str) -> None:
    file = write_model("vae", here, blob_pack)
    (here / "photo.png").write_bytes(WRONG[name])
    said = call("project", file, "photo.png")
    assert said.code == 3 and PRINTED.fullmatch(said.err), said.err
    assert "photo.png cannot be used" in said.err and not (here / "project.png").exists()


def test_paths_that_are_no_files(here: Path, blob_pack: Pack) -> None:
    file = write_model("vae", here, blob_pack)
    os.mkfifo(here / "pipe")
    for wrong in ("nowhere.jpg", here, "pipe"):
        said = call("project", file, wrong)
        assert said.code == 3 and PRINTED.fullmatch(said.err), said.err
    assert call("project", file).code == 2
    assert call("project", file, photograph(here / "a.png"), "-o", "x.jpg").code == 2
    assert call("project", file, "a.png", "--crop", "middle").code == 2


def test_exif_turns_a_photograph(here: Path) -> None:
    image = Image.fromarray(blobs(1, 40)[0])
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.save(here / "turned.png", exif=exif)
    image.save(here / "plain.png")
    a, b = read_photo(here / "turned.png", 16), read_photo(here / "plain.png", 16)
    assert (a.pixels == b.pixels).all() and "rotated by EXIF" in a.notes


def test_a_photograph_is_cut_as_the_data_was(here: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    Image.fromarray(pixels).save(here / "celeba.png")
    framing = {"crop": "celeba-148", "resampler": "bicubic"}
    photo = read_photo(here / "celeba.png", 64, framing=framing)
    expected = Image.fromarray(pixels[40:188, 15:163]).resize((64, 64), Image.Resampling.BICUBIC)
    assert (photo.pixels == np.asarray(expected)).all() and photo.notes == ("cropped by celeba-148",)
    photograph(here / "other.png", 60, 40)  # another shape: its centre, and no word of CelebA
    assert "cropped by center" in read_photo(here / "other.png", 16, framing=framing).notes
    photograph(here / "exact.png", 16, 16)
    assert read_photo(here / "exact.png", 16, framing=framing).notes == ("used unchanged",)
    with pytest.raises(DataError, match="cannot be used"):
        read_photo(here / "other.png", 16, crop="celeba-148")


def test_a_photograph_without_a_face_is_taken_as_it_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_room, "can_align", lambda: True)
    monkeypatch.setattr(Aligner, "align", lambda *_: None)
    photograph(here / "wall.png")
    photo = read_photo(here / "wall.png", 16)
    assert photo.notes[:2] == ("no face found", "cropped by center")
    with pytest.raises(DataError, match="cannot be used") as caught:
        read_photo(here / "wall.png", 16, crop="face")
    assert "--crop center" in caught.value.remedy


def need_alignment() -> None:
    """What aligns a face, fetched in the test: when tests are collected, a fresh machine does not have it."""
    for package in ("cv2", "ai_edge_litert"):
        pytest.importorskip(package, reason="the extra `faces` is not installed")
    need_weights("yunet", "face-mesh")


@pytest.mark.skipif(
    not (SHARED / "data" / "celeba-10k.zip").exists(), reason="../shared/data/celeba-10k.zip is missing"
)
def test_a_real_face_is_found(tmp_path: Path) -> None:
    need_alignment()
    import zipfile

    with zipfile.ZipFile(SHARED / "data" / "celeba-10k.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith(".jpg"))
        (tmp_path / "face.jpg").write_bytes(archive.read(name))
    assert "cropped by face" in read_photo(tmp_path / "face.jpg", 64).notes


def test_a_photograph_is_framed_as_the_faces_of_a_model_of_aligned_squares(tmp_path: Path) -> None:
    """The data of `faces` were squares of aligned pictures: its header says `center`, and photographs showed half the size."""
    need_alignment()
    from mien import load
    from mien.metrics.framing import framing_of

    sampler = load("faces")
    framing = framing_of(sampler)
    assert framing["crop"] == "face" and framing_of(sampler) is framing, "measured once"
    face = picture(sampler.sample([44])[0])
    canvas = Image.new("RGB", (400, 400), (120, 110, 100))
    canvas.paste(face.resize((160, 160)), (150, 60))
    canvas.save(tmp_path / "far.png")
    eyes = [
        found.landmarks[:2] / 64
        for pixels in (read_photo(tmp_path / "far.png", 64, framing=framing).pixels, np.asarray(face))
        if (found := Aligner(64).find(pixels))
    ]
    assert len(eyes) == 2 and np.abs(eyes[0] - eyes[1]).max() < 0.05


# Verbs


def test_project(here: Path, model: Path) -> None:
    photograph(here / "a.png"), photograph(here / "b.png", 16, 16, seed=5)
    line = ("project", model, "a.png", "b.png", "--save-latent", "z.safetensors")
    said = call(*line, "--json", *(["--steps", "40"] if Sampler.load(model).header["preset"] == "quick" else []))
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert answer["files"] == ["project.png", "z.safetensors"] and [p["photo"] for p in answer["photos"]] == [
        "a.png",
        "b.png",
    ]
    first, second = answer["photos"]
    assert first["notes"] == ["cropped by center"] and second["notes"] == ["used unchanged"] and 0 < first["l1"] < 1
    assert "lpips" not in first  # its weights are not in this empty cache
    sheet = pixels(here / "project.png")
    assert (cell(sheet, 0, 0, 128)[::8, ::8] == read_photo(here / "a.png", 16).pixels).all()
    recipe = read_recipe(here / "project.png")
    assert recipe["synthetic"] is False and recipe["photos"] == ["a.png", "b.png"]
    with Image.open(here / "project.png") as image:
        assert "no real person" not in image.info["Disclaimer"]
    extra = checkpoint.load((here / "z.safetensors").read_bytes())
    assert extra["latents"].shape == (2, 8)


def test_project_descends_when_asked(here: Path, model: Path) -> None:
    photograph(here / "a.png")
    errors = []
    for steps in (2, 60):
        said = call("project", model, "a.png", "--steps", steps, "--json")
        (entry,) = json.loads(said.out)["photos"]
        errors.append(entry["l1"])
        assert entry["method"] == f"{steps} steps of gradient descent"
    assert errors[1] < errors[0]
    assert call("project", model, "a.png", "--steps", "0").code == 2


def test_too_many_directions_name_a_number_that_is_possible(here: Path, model: Path) -> None:
    said = call("directions", model, "--unsupervised", "900000", "--json")
    hint = json.loads(said.out)["error"]["hint"]
    offered = re.search(r"--unsupervised (\d+), or up to (\d+)", hint)
    assert said.code == 2 and offered is not None and int(offered[1]) <= int(offered[2])
    assert offered[2] in json.loads(said.out)["error"]["message"]


def test_directions_of_labels(here: Path, labelled: Pack, model: Path) -> None:
    said = call("directions", model, "--data", labelled.path, "--json")
    if Sampler.load(model).header["preset"] == "quick":
        assert said.code == 2 and "--unsupervised 10" in json.loads(said.out)["error"]["hint"]
        return
    assert said.code == 0, said.err
    found = {entry["name"]: entry for entry in json.loads(said.out)["directions"]}
    assert labelled.labels is not None
    assert found.keys() == {"Hat", "Beard"} and found["Hat"]["with"] == int(labelled.labels[:, 0].sum())
    sampler = Sampler.load(model)
    z = sampler.encode(torch.from_numpy(np.array(labelled.images)).permute(0, 3, 1, 2).float() / 127.5 - 1)
    yes = torch.from_numpy(np.array(labelled.labels[:, 0])) > 0.5
    expected, vector = z[yes].mean(0) - z[~yes].mean(0), sampler.directions["Hat"].vector
    assert torch.allclose(vector / vector.norm(), expected / expected.norm(), atol=1e-4)
    assert abs(float((z @ (vector / vector.norm())).std() / vector.norm()) - 1) < 1e-4
    for disentangle in ("joint", "orthogonal"):
        assert (
            call("directions", model, "--data", labelled.path, "--labels", "Hat", "--disentangle", disentangle).code
            == 0
        )
    assert list(Sampler.load(model).directions) == ["Beard", "Hat"]  # the newer one has taken its place


def test_directions_without_labels(here: Path, model: Path) -> None:
    assert call("directions", model).code == 2
    assert call("directions", model, "--unsupervised", "3").code == 0
    listed = call("directions", model)
    assert listed.code == 0 and [line.split()[0] for line in listed.out.splitlines()] == [
        f"component-{i}" for i in (1, 2, 3)
    ]
    assert call("directions", model, "--unsupervised", "0").code == 2
    refused = call("directions", model, "--unsupervised", "9")  # of 8
    assert refused.code == 2 and "Give --unsupervised 8, or up to 8." in refused.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--labels", "Hut"), 2), (("--labels", "Hat", "--images", "1"), 2), (("--split", "holdout"), 3),
        (("--disentangle", "clean"), 2), (("--unsupervised", "3"), 2),
    ],
)  # fmt: skip
def test_directions_that_cannot_be_found(
    here: Path, blob_pack: Pack, labelled: Pack, words: tuple[str, ...], code: int
) -> None:
    file = write_model("vae", here, blob_pack)
    said = call("directions", file, "--data", labelled.path, *words)
    assert said.code == code and PRINTED.fullmatch(said.err), said.err
    assert call("directions", file, "--data", blob_pack.path).code == 3  # it has no labels


def test_edit(here: Path, model: Path) -> None:
    call("directions", model, "--unsupervised", "2")
    line = ("edit", model, "--direction", "component-1=1.5")
    assert call(*line, "--seed", "42", "7").code == 0
    assert call("sample", model, "--seeds", "42", "-o", "faces").code == 0
    face, sheet = pixels(here / "faces" / "seed00000042.png"), pixels(here / "edit.png")
    assert sheet.shape == (2 * (16 + GAP) + GAP, 2 * (16 + GAP) + GAP, 3)
    assert (cell(sheet, 0, 0) == face).all() and (cell(sheet, 0, 1) != face).any()
    assert call(*line, "--strip", "5", "-o", "strip.png", "--json").code == 0
    strip = pixels(here / "strip.png")
    assert (cell(strip, 0, 2) == face).all()  # seed 42 is the default, and the middle is as it was
    assert (cell(strip, 0, 4) != cell(strip, 0, 0)).any() and read_recipe(here / "strip.png")["directions"] == {
        "component-1": 1.5
    }
    photograph(here / "a.png")
    assert call(*line, "--photo", "a.png", "--steps", "5", "-o", "photo.png").code == 0
    assert read_recipe(here / "photo.png")["synthetic"] is False


def test_an_edit_of_some_layers_is_drawn_again_by_verify(here: Path, blob_pack: Pack) -> None:
    file = write_model("quick", here, blob_pack)
    steer(file)
    line = ("edit", file, "--direction", "Smiling=2")
    for name, more in (("whole", ()), ("coarse", ("--layers", "1")), ("fine", ("--layers", "2"))):
        assert call(*line, *more, "-o", f"{name}.png").code == 0
        said = call("verify", f"{name}.png", "--model", file)
        assert "drawn again: equal" in said.out, (name, said.out, said.err)
    sheets = [pixels(here / f"{name}.png") for name in ("whole", "coarse", "fine")]
    assert all((cell(a, 0, 0) == cell(b, 0, 0)).all() for a, b in itertools.combinations(sheets, 2))
    assert all((cell(a, 0, 1) != cell(b, 0, 1)).any() for a, b in itertools.combinations(sheets, 2))


@pytest.mark.parametrize("words", [("--labels", "Smiling"), ("--unsupervised", "2", "--disentangle", "joint")])
def test_labels_without_their_pack(words: tuple[str, ...], here: Path, model: Path) -> None:
    """They were passed over in silence, with exit code 0."""
    done = call("directions", model, *words)
    assert done.code == 2 and "--labels and --disentangle need --data." in done.err


def test_directions_of_encodings_edit_encodings(here: Path, labelled: Pack, blob_pack: Pack) -> None:
    file = write_model("began-zhao", here, blob_pack)
    call("directions", file, "--data", labelled.path), call("directions", file, "--unsupervised", "1")
    sampler = Sampler.load(file)
    assert {name: d.space for name, d in sampler.directions.items()} == {
        "Hat": "encoding", "Beard": "encoding", "component-1": "latent",
    }  # fmt: skip
    assert call("edit", file, "--direction", "Hat=1", "--direction", "component-1=1").code == 2
    said = call("edit", file, "--direction", "Hat=1", "--seed", "3", "--json")
    assert json.loads(said.out)["method"] == "encodings of the seeds' faces"
    expected = sampler.reconstruct(sampler.sample([3]))
    shown = cell(pixels(here / "edit.png"), 0, 0).astype(int)
    assert np.abs(shown - ((expected[0].permute(1, 2, 0).numpy() + 1) * 127.5)).max() < 1
    photograph(here / "a.png")
    assert call("project", file, "a.png", "--save-latent", "z.safetensors").code == 0
    assert call("edit", file, "--latent", "z.safetensors", "--direction", "Hat=1").code == 0
    said = call("edit", file, "--latent", "z.safetensors", "--direction", "component-1=1")
    assert said.code == 2 and "encoding" in said.err


def test_latents_of_another_model_are_refused(here: Path, blob_pack: Pack) -> None:
    (here / "other").mkdir()
    file, other = write_model("vae", here, blob_pack), write_model("vaegan-2016", here / "other", blob_pack)
    photograph(here / "a.png")
    assert call("project", other, "a.png", "--save-latent", "z.safetensors").code == 0
    call("directions", file, "--unsupervised", "1")
    line = ("edit", file, "--direction", "component-1=1", "--latent")
    assert call(*line, "z.safetensors").code == 9
    assert call(*line, "nowhere").code == 3 and call(*line, "a.png").code == 8 and call(*line, file).code == 9


@pytest.mark.parametrize(
    "words",
    [
        (), ("--direction", "component-1"), ("--direction", "smile=1"), ("--direction", "component-1=1", "--strip", "1"),
        ("--direction", "component-1=nan"), ("--direction", "component-1=1", "--seed", "0-99"),
        ("--direction", "component-1=1", "--seed", "1", "--photo", "a.png"), ("--direction", "component-1=1", "-o", "x.gif"),
        ("--direction", "component-1=1", "--layers", "1"),
    ],
)  # fmt: skip
def test_impossible_edits(here: Path, blob_pack: Pack, words: tuple[str, ...]) -> None:
    file = write_model("vae", here, blob_pack)
    call("directions", file, "--unsupervised", "1")
    said = call("edit", file, *words)
    assert said.code == 2 and PRINTED.fullmatch(said.err), said.err


def test_a_model_that_trained_on_says_that_its_directions_are_stale(here: Path, blob_pack: Pack) -> None:
    file = write_model("vae", here, blob_pack)
    call("directions", file, "--unsupervised", "1")
    tensors, header = checkpoint.read_model(file)
    file.write_bytes(checkpoint.pack_tensors({name: tensor * 1.01 for name, tensor in tensors.items()}, header))
    said = call("edit", file, "--direction", "component-1=1")
    assert said.code == 9 and PRINTED.fullmatch(said.err) and "mien directions MODEL --unsupervised 1" in said.err
    assert call("directions", file, "--unsupervised", "2").code == 0 and call("directions", file).code == 0


def test_walks_between_photographs(here: Path, model: Path) -> None:
    photograph(here / "a.png"), photograph(here / "b.png", seed=4)
    steps = ["--steps", "10"]
    line = ("walk", model, "--photos", "a.png", "b.png", "--frames", "5", *steps)
    assert call(*line, "-o", "walk.gif").code == 0 and call(*line, "-o", "strip.png").code == 0
    assert call(*line, "--mirror", "-o", "rows.png").code == 0
    sheet = pixels(here / "rows.png")
    assert sheet.shape == (2 * (16 + GAP) + GAP, 7 * (16 + GAP) + GAP, 3)
    photo = read_photo(here / "b.png", 16).pixels
    assert (cell(sheet, 1, 0) == photo).all() and (cell(sheet, 1, 6) == photo[:, ::-1]).all()
    assert call(*line, "--pairs", "-o", "pair.png").code == 0
    assert (cell(pixels(here / "pair.png"), 0, 6) == photo).all()


def test_strips_of_two_rows(here: Path, model: Path) -> None:
    """The 2 by 6 strip of sicongzhao's notebook."""
    assert call("walk", model, "--seeds", "3", "42", "--frames", "12", "--columns", "6", "-o", "strip.png").code == 0
    sheet = pixels(here / "strip.png")
    assert sheet.shape == (2 * (16 + GAP) + GAP, 6 * (16 + GAP) + GAP, 3)
    call("sample", model, "--seeds", "42", "-o", "faces")
    assert (cell(sheet, 1, 5) == pixels(here / "faces" / "seed00000042.png")).all()
    assert call("walk", model, "--seeds", "1", "2", "3", "4", "--pairs", "--frames", "3", "-o", "pairs.png").code == 0
    assert pixels(here / "pairs.png").shape[0] == 2 * (16 + GAP) + GAP


@pytest.mark.parametrize(
    "words",
    [
        ("--photos", "a.png"), ("--mirror",), ("--photos", "a.png", "--seeds", "1"),
        ("--seeds", "1", "2", "3", "--pairs", "-o", "x.png"), ("--columns", "3"), ("--columns", "0", "-o", "x.png"),
        ("--seeds", "1", "2", "--pairs", "-o", "x.gif"),
    ],
)  # fmt: skip
def test_impossible_walks(here: Path, blob_pack: Pack, words: tuple[str, ...]) -> None:
    file = write_model("vae", here, blob_pack)
    photograph(here / "a.png")
    said = call("walk", file, *words, "--frames", "4")
    assert said.code == 2 and PRINTED.fullmatch(said.err), said.err
