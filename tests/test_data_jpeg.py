"""Plain JPEGs are decoded without Pillow's look at the header, to the same pixels; all others take the long way."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from mien.data import jpeg
from mien.data.decode import MIN_SIDE, Decoded, decode
from mien.data.readers import UnreadableFile
from tests.data_torture import face
from tests.hostile_archives import scans


def saved(**options: object) -> bytes:
    buffer = io.BytesIO()
    face(50, 66).save(buffer, "JPEG", **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLAIN = {
    "default": {},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 30},
    "restarts": {"restart_marker_rows": 1},
    "comment": {"comment": b"\xff\xda \xff\xc0 not a marker"},
    "density": {"dpi": (300, 300)},
}
NOT_PLAIN = {"rotated": {"exif": EXIF}, "profile": {"icc_profile": PROFILE}, "RGB kept": {"keep_rgb": True}}


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_a_plain_jpeg_has_the_pixels_that_pillow_gives_it(options: dict[str, object]) -> None:
    data = saved(**options)
    assert jpeg.plain_size(data) == (50, 66)
    image = jpeg.decode_plain(data, MIN_SIDE, 10_000)
    assert image is not None and image.mode == "RGB"
    with Image.open(io.BytesIO(data)) as expected:
        assert np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))
    assert decode(data).notes == ()


@pytest.mark.parametrize("options", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_asks_for_care_is_left_to_pillow(options: dict[str, object]) -> None:
    assert jpeg.plain_size(saved(**options)) is None


def test_other_modes_and_files_are_left_to_pillow() -> None:
    for mode in ("L", "CMYK"):
        buffer = io.BytesIO()
        face(50, 66).convert(mode).save(buffer, "JPEG")
        assert jpeg.plain_size(buffer.getvalue()) is None
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n", saved()[:100], b"\xff\xd8\xff\xe0\x00\x00" * 9):
        assert jpeg.plain_size(data) is None


def outcome(data: bytes) -> tuple[bytes, tuple[str, ...]] | str:
    try:
        image, notes = decode(data)
    except UnreadableFile as refusal:
        return str(refusal)
    return image.tobytes(), notes


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_is_judged_as_pillow_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, whole = np.random.default_rng(0), saved(progressive=True)
    damaged = [whole[:end] for end in range(0, len(whole), 7)]
    for _ in range(200):
        data = bytearray(whole)
        data[generator.integers(2, len(data))] = generator.integers(256)
        damaged.append(bytes(data))
    found = [outcome(data) for data in damaged]
    monkeypatch.setattr("mien.data.decode.decode_plain", lambda *_: None)
    assert [outcome(data) for data in damaged] == found
    assert any(isinstance(one, str) for one in found) and any(not isinstance(one, str) for one in found[-200:])


def test_bounds_are_kept() -> None:
    data = saved()
    assert jpeg.decode_plain(data, 51, 10_000) is None and jpeg.decode_plain(data, 16, 50 * 66 - 1) is None
    assert isinstance(decode(data), Decoded)


def test_a_worker_starts_without_what_it_does_not_need() -> None:
    program = (
        "import sys, mien.data.worker; print(*sorted({'numpy', 'torch', 'cyclopts', 'zipfile'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_command_starts_without_torch() -> None:
    program = "import sys, mien.cli.data, mien.cli.flags; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


@pytest.mark.parametrize("mode", ["RGB", "L"])  # decoded plainly, and by Pillow
def test_a_jpeg_of_many_scans_is_refused(mode: str) -> None:
    """A file of 2 kB took 34 s: each of its 3,000 scans went over every pixel."""
    assert decode(scans(64, 64, 400, mode)).image.size == (64, 64)
    with pytest.raises(UnreadableFile, match="more than 500 scans"):
        decode(scans(64, 64, 600, mode))


def test_a_film_after_a_picture_may_hold_the_bytes_of_many_scans() -> None:
    assert decode(saved() + b"\xff\xda" * 600).image.tobytes() == decode(saved()).image.tobytes()
