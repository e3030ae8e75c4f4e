"""The background goes, the person and the hair stay, and no halo is left."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data import matte
from mien.data.matte import Matte
from mien.errors import UsageError
from tests.conftest import need_weights

pytest.importorskip("cv2", reason="the extra `faces` is not installed")
CELEBA = Path(__file__).resolve().parents[2] / "shared" / "data" / "celeba-10k.zip"


def made(background: str | tuple[int, int, int] = "grey") -> Matte:
    pytest.importorskip("ai_edge_litert", reason="the extra `faces` is not installed")
    need_weights("selfie")
    return Matte(background)


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Rear Admiral Grace Hopper, a photograph in the public domain that matplotlib ships: 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook", reason="the extra `plots` is not installed")
    return Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")


def test_backgrounds_are_known_by_name() -> None:
    assert Matte().colour == (128, 128, 128) == Matte("gray").colour
    assert Matte("#3366cc").colour == (0x33, 0x66, 0xCC)
    assert Matte((1, 2, 3)).colour == (1, 2, 3) and Matte("blur").colour is None
    with pytest.raises(UsageError, match="purpel"):
        Matte("purpel")


def test_the_background_goes_and_the_face_stays(portrait: Image.Image) -> None:
    out = made("#3366cc").apply(portrait)
    assert out.size == portrait.size and out.mode == "RGB"
    before, after = np.asarray(portrait).astype(int), np.asarray(out).astype(int)
    assert np.abs(after[150:330, 220:320] - before[150:330, 220:320]).mean() < 1.5  # the face
    for corner in (after[:120, :120], after[:150, 420:]):
        assert np.abs(corner - [0x33, 0x66, 0xCC]).mean() < 2


@pytest.mark.parametrize("size", [(89, 109), (64, 64), (300, 351), (900, 1055)])
def test_every_size_gives_the_same_matte(portrait: Image.Image, size: tuple[int, int]) -> None:
    reference = Image.fromarray(made().alpha(portrait)).resize(size, Image.Resampling.BOX)
    alpha = made().alpha(portrait.resize(size, Image.Resampling.LANCZOS))
    assert alpha.shape == (size[1], size[0]) and alpha.min() >= 0 and alpha.max() <= 1
    assert np.abs(alpha - np.asarray(reference)).mean() < 0.02


def test_the_edge_is_soft(portrait: Image.Image) -> None:
    alpha = made().alpha(portrait)
    assert 0.005 < ((alpha > 0.02) & (alpha < 0.98)).mean() < 0.1


def test_blur_keeps_the_colours_behind_and_none_of_the_person(portrait: Image.Image) -> None:
    before, after = np.asarray(portrait).astype(float), np.asarray(made("blur").apply(portrait)).astype(float)
    sky, flag = (slice(0, 150), slice(430, 512)), (slice(0, 250), slice(0, 120))
    assert np.abs(after[sky].mean(axis=(0, 1)) - before[sky].mean(axis=(0, 1))).max() < 6  # no shade of the dark hat
    assert after[flag].std(axis=(0, 1)).max() < 0.5 * before[flag].std(axis=(0, 1)).min()


def test_no_halo_of_the_old_background_is_left() -> None:
    """A red disc with a soft edge on green: the colours of the disc are found without any green."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    alpha = np.clip((40 - np.hypot(x - 64, y - 64)) / 8 + 0.5, 0, 1)[:, :, None]
    red, green = np.array([0.8, 0.1, 0.1], np.float32), np.array([0.1, 0.9, 0.1], np.float32)
    mixed = alpha * red + (1 - alpha) * green
    halo, left = alpha * np.abs(mixed - red), alpha * np.abs(matte.foreground(mixed, alpha) - red)
    assert left.max() < 0.25 * halo.max() and left.max() < 0.05  # what shows in the result
    ground = matte.blurred_ground(mixed, alpha)
    assert np.abs(ground - green)[alpha[:, :, 0] < 0.5].max() < 0.05


def test_the_guide_draws_the_edge_of_the_photograph() -> None:
    """A mask that is blurred and off by two pixels follows the edge between two colours."""
    colours = np.zeros((128, 128, 3), np.float32)
    colours[:, 64:] = [0.9, 0.7, 0.2]
    mask = np.clip((np.arange(128, dtype=np.float32) - 62) / 6 + 0.5, 0, 1) * np.ones((128, 1), np.float32)
    found = matte.apply_guide(colours, *matte.guide(colours, mask))
    assert found[:, :62].max() < 0.3 and found[:, 66:].min() > 0.7
    assert (found[:, 64] - found[:, 63]).min() > 2 * (mask[:, 64] - mask[:, 63]).max()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (64, 64)])
def test_a_picture_of_nobody_becomes_background(size: tuple[int, int]) -> None:
    sky = Image.new("RGB", size, (90, 140, 220))
    out = np.asarray(made("white").apply(sky))
    assert out.shape == (size[1], size[0], 3)
    assert made().apply(sky.convert("L")).mode == "RGB"
    if min(size) > 2:
        assert np.abs(out.astype(int) - 255).mean() < 3


def job(task: tuple[Matte, bytes]) -> bytes:
    return task[0].apply(Image.open(io.BytesIO(task[1]))).tobytes()


def test_a_worker_process_gives_the_same_pixels(portrait: Image.Image) -> None:
    used = made("blur")
    here = used.apply(portrait)
    assert len(pickle.dumps(used)) < 2000
    buffer = io.BytesIO()
    portrait.save(buffer, "PNG")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(job, [(used, buffer.getvalue())]) == [here.tobytes()]


def test_celeba_backgrounds_go_and_faces_stay() -> None:
    if not CELEBA.is_file():
        pytest.skip(f"{CELEBA.name} not available: it lies beside the repository where there is one")
    cutter, faces, corners = made(), [], []
    with zipfile.ZipFile(CELEBA) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".jpg")][7::200]:
            alpha = cutter.alpha(Image.open(io.BytesIO(archive.read(name))))
            faces.append(alpha[50:80, 34:56].mean())  # between brows and mouth, where every face of the set lies
            corners.append(min(alpha[:6, :6].mean(), alpha[:6, -6:].mean()))
    assert min(faces) > 0.9 and np.mean(faces) > 0.98
    assert np.median(corners) < 0.02
