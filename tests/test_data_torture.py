"""The torture set: every file classified as specified, quickly, in bounded memory, by `check` and by `prepare`."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from mien.data import Preparation, find_source, prepare
from mien.data.check import check
from mien.data.decode import decode
from mien.data.preprocess import PreprocessConfig, Preprocessor
from mien.data.readers import UnreadableFile
from mien.errors import DataError
from tests.data_torture import ACCEPTED, face, png_header, saved, text_bomb, torture_files, write_torture


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("torture")
    return folder, write_torture(folder)


def judge(expected: dict[str, str], refused: dict[str, str]) -> list[str]:
    """The files that were not classified as specified."""
    return [
        f"{name}: expected {pattern or 'accepted'}, got {refused.get(name, 'accepted')}"
        for name, pattern in expected.items()
        if (name in refused) != (pattern != ACCEPTED) or not re.search(pattern, refused.get(name, ""))
    ]


def test_check_classifies_every_file(torture: tuple[Path, dict[str, str]]) -> None:
    folder, expected = torture
    assert len(expected) >= 60
    started = time.perf_counter()
    report = check(find_source(folder), Preparation(side=32), workers=2).report
    assert time.perf_counter() - started < 60
    assert judge(expected, {item["name"]: item["reason"] for item in report["refused"]}) == []
    assert report["counts"]["found"] == len(expected)
    assert report["others"] == {".txt": 1}


def test_decoding_them_all_takes_little_memory(torture: tuple[Path, dict[str, str]]) -> None:
    program = (
        "import sys, pathlib, re\n"
        "from mien.data.archives import Folder; from mien.data.readers import UnreadableFile; from mien.data.decode import decode\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "folder, before = Folder(pathlib.Path(sys.argv[1])), peak()\n"
        "for member in folder.members():\n"
        "    try: decode(folder.read(member.name))\n"
        "    except UnreadableFile: pass\n"
        "print((peak() - before) // 1024)"
    )
    command = [sys.executable, "-c", program, str(torture[0])]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 300, f"{grown} MB"


def test_prepare_names_what_it_refuses_and_asks_first(torture: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, expected = torture
    with pytest.raises(DataError, match="--force"):
        prepare(find_source(folder), tmp_path / "t.pack", Preparation(side=32), workers=2)
    pack = prepare(find_source(folder), tmp_path / "t.pack", Preparation(side=32), workers=2, force=True)
    assert pack is not None
    assert judge(expected, {item["name"]: item["reason"] for item in pack.meta["refused"]}) == []
    assert len(pack) == sum(pattern == ACCEPTED for pattern in expected.values())
    assert pack.meta["notes"]["animated: first frame"] == 3
    assert list(tmp_path.iterdir()) == [pack.path]


@pytest.mark.parametrize("data", [png_header(9000, 9000), png_header(14000, 14000), text_bomb()])
def test_bombs_are_refused_before_they_are_decoded(data: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(UnreadableFile):
        decode(data)
    assert time.perf_counter() - started < 0.5  # decoding takes seconds


def decoded(name: str, background: str = "white") -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(decode(torture_files()[name][0], background).image)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    for name in ("grey16.png", "grey16.tiff", "rgb16.png"):
        assert np.abs(decoded(name).astype(int) - round(40000 / 257)).max() <= 1, name
    assert (decoded("float.tiff") == 128).all()


def test_alpha_is_composed_on_the_chosen_colour() -> None:
    white, black = decoded("rgba.png"), decoded("rgba.png", "black")
    assert white[0].min() >= 254 and black[0].max() <= 1  # the gradient begins transparent
    assert np.abs(white[-1].astype(int) - black[-1]).max() <= 1  # and ends opaque


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    image = decode(torture_files()[f"exif_{orientation}.jpg"][0]).image
    assert image.size == ((64, 96) if orientation >= 5 else (96, 64))
    stored = Image.open(io.BytesIO(saved(face(96, 64), "JPEG")))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    upright = stored.transpose(undo[orientation]) if orientation > 1 else stored
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_modes_keep_their_colours() -> None:
    reference = np.asarray(face()).astype(int)
    for name in ("cmyk.jpg", "cmyk.tiff", "plain.bmp", "plain.ppm", "lossless.webp", "animated.png", "really_png.jpg"):
        assert np.abs(decoded(name) - reference).mean() < 4, name
    grey = decoded("grey.jpg")
    assert (grey[..., 0] == grey[..., 2]).all()


def test_colour_profiles_are_converted() -> None:
    plain, converted = decoded("progressive.jpg").astype(int), decode(torture_files()["other_profile.jpg"][0])
    assert "colour profile converted" in converted.notes
    assert np.abs(np.asarray(converted.image) - plain).mean() > 10
    assert decode(torture_files()["broken_profile.jpg"][0]).notes == ("colour profile unreadable: treated as sRGB",)


@pytest.mark.slow
def test_mutated_images_neither_crash_nor_hang() -> None:
    generator = np.random.default_rng(0)
    plain = [data for name, (data, pattern) in torture_files().items() if pattern == ACCEPTED and len(data) < 60_000]
    for number in range(10_000):
        data = bytearray(plain[number % len(plain)])
        for place in generator.integers(0, len(data), 1 + number % 8):
            data[place] = generator.integers(0, 256)
        started = time.perf_counter()
        try:
            image = decode(bytes(data)).image
            assert image.mode == "RGB"
        except UnreadableFile as refusal:
            assert str(refusal)
        assert time.perf_counter() - started < 2


def test_libtiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A damaged strip made libtiff print lines of its own, past Python: 400 of them for one folder."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "TIFF", compression="tiff_lzw")
    data = bytearray(buffer.getvalue())
    for place in range(200, len(data) - 600, 7):
        data[place] ^= 0x5A
    with pytest.raises(UnreadableFile, match="damaged"):
        decode(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_a_picture_of_a_telephone_is_decoded_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """108 megapixels, as a baseline JPEG: the DCT reduces it. The limit is lowered here, as the picture is."""
    monkeypatch.setattr("mien.data.decode.MAX_PIXELS", 50_000)
    monkeypatch.setattr("mien.data.decode.DRAFT_PIXELS", 12_000)
    monkeypatch.setattr("mien.data.decode.MAX_JPEG_PIXELS", 120_000)
    picture = Image.linear_gradient("L").resize((360, 300)).convert("RGB")  # 108,000
    found = decode(saved(picture, "JPEG"))
    assert found.image.size == (90, 75) and "decoded at a quarter of its side" in found.notes
    exact = np.asarray(picture.resize((90, 75), Image.Resampling.BOX), float)
    assert np.abs(np.asarray(found.image, float) - exact).mean() < 2
    assert decode(saved(picture.resize((200, 200)), "JPEG")).image.size == (100, 100)
    progressive = io.BytesIO()
    picture.save(progressive, "JPEG", progressive=True)
    for data in (saved(picture, "PNG"), saved(picture.resize((400, 320)), "JPEG"), progressive.getvalue()):
        with pytest.raises(UnreadableFile, match="megapixels"):
            decode(data)


def test_a_large_picture_is_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels as at once; above DRAFT_PIXELS the mean of 2x2, unless a box in its own pixels is cut from it."""
    rng = np.random.default_rng(0)
    alpha = Image.fromarray(rng.integers(0, 256, (61, 50, 4), dtype=np.uint8), "RGBA")
    grey = Image.fromarray(rng.integers(0, 65536, (61, 50), dtype=np.uint16))
    whole = [np.asarray(decode(saved(picture, "PNG"), "#102030").image, float) for picture in (alpha, grey)]
    monkeypatch.setattr("mien.data.decode.STRIP_PIXELS", 350)
    for picture, exact in zip((alpha, grey), whole, strict=True):
        assert np.array_equal(np.asarray(decode(saved(picture, "PNG"), "#102030").image), exact)
    composed = Image.alpha_composite(Image.new("RGBA", alpha.size, (16, 32, 48, 255)), alpha).convert("RGB")
    assert np.array_equal(np.asarray(composed), whole[0])
    assert np.array_equal(np.round(np.asarray(grey, float) / 257), whole[1][..., 0])
    monkeypatch.setattr("mien.data.decode.DRAFT_PIXELS", 2000)
    for picture, exact in zip((alpha, grey), whole, strict=True):
        half = decode(saved(picture, "PNG"), "#102030").image
        assert half.size == (25, 31)
        means = exact[:60].reshape(30, 2, 25, 2, 3).mean((1, 3))
        assert np.abs(np.asarray(half, float)[:30] - means).max() <= 1
        assert np.array_equal(np.asarray(decode(saved(picture, "PNG"), "#102030", exact=True).image), exact)


def test_a_box_is_in_the_pixels_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large JPEG is decoded at half its side: a box was cut from the half, elsewhere and twice as large."""
    monkeypatch.setattr("mien.data.decode.DRAFT_PIXELS", 2000)
    picture = Image.new("RGB", (100, 100))
    picture.paste((255, 255, 255), (0, 0, 48, 48))
    box = Preprocessor(PreprocessConfig(side=16, crop="box", resampler="area", box=(0, 0, 48, 48)))
    for kind in ("JPEG", "PNG"):
        made = box.make(saved(picture, kind))
        assert np.asarray(made.image).min() > 200 and made.geometry == "0,0,48,48"


@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED MEMORY OF PICTURES: it reads /proc")
def test_a_picture_of_49_megapixels_takes_less_than_400_mb() -> None:
    """One with an alpha channel took 970 MB, one of 16-bit grey 1,250, and WebP 769."""
    code = (
        "from mien.data.decode import decode\nfrom tests.hostile_archives import png\n"
        "for depth, kind, width in ((8, 6, 4), (16, 0, 2)):\n"
        "    decode(png(7000, 7000, depth, kind, 7000 * width))\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(int(status['VmHWM'].split()[0]) >> 10)\n"  # getrusage would count what forked it
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400


@pytest.mark.skipif(not features.check("avif"), reason="SKIPPED AVIF: this Pillow does not read it")
def test_avif_is_read_and_bounded() -> None:
    """Its library takes 11 bytes a pixel, 550 MB for what a telephone makes."""
    small = saved(face(40, 48), "AVIF")
    assert decode(small).image.size == (40, 48)
    at = small.index(b"ispe") + 8
    with pytest.raises(UnreadableFile, match="more than 24 megapixels"):
        decode(small[:at] + struct.pack(">II", 5000, 5000) + small[at + 8 :])
