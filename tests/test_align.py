"""Faces land where the template has them, whatever the photograph's size, turn and framing."""

from __future__ import annotations

import io
import math
import multiprocessing
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data.affine import Pixels, Points, distance_outside, invert, move, similarity, warp, warp_quickly, warp_softly
from mien.data.align import Aligned, Aligner, Template
from mien.errors import UsageError
from tests.conftest import need_weights

pytest.importorskip("cv2", reason="the extra `faces` is not installed")
CELEBA = Path(__file__).resolve().parents[2] / "shared" / "data" / "celeba-10k.zip"


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


@pytest.mark.parametrize("seed", range(5))
def test_a_similarity_is_found_again(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(3, 2)) * 40
    true = turned(random.uniform(-180, 180), random.uniform(0.1, 5), (random.normal() * 50, 7))
    found = similarity(points, move(true, points), random.uniform(0.1, 1, 3))
    np.testing.assert_allclose(found, true, atol=1e-9)
    np.testing.assert_allclose(move(invert(found), move(found, points)), points, atol=1e-9)


def test_the_least_squares_are_the_least() -> None:
    random = np.random.default_rng(3)
    source, target, weight = random.normal(size=(3, 2)), random.normal(size=(3, 2)), np.array([1, 1, 0.2])

    def loss(transform: Points) -> float:
        return float((weight[:, None] * (move(transform, source) - target) ** 2).sum())

    best = similarity(source, target, weight)
    for step in (turned(1, 1, (0, 0)), turned(0, 1.01, (0, 0)), turned(0, 1, (0.01, 0)), turned(-1, 0.99, (0, 0.01))):
        changed = np.hstack([step[:, :2] @ best[:, :2], (step[:, :2] @ best[:, 2] + step[:, 2])[:, None]])
        assert loss(changed) > loss(best)


def test_the_eyes_alone_are_exact_with_a_mouth_that_weighs_nothing() -> None:
    target = Template().points(64)
    source = np.array([[10.0, 12], [40, 20], [20, 60]])
    np.testing.assert_allclose(move(similarity(source, target, np.array([1, 1, 0])), source)[:2], target[:2], atol=1e-9)


def test_a_template_out_of_range_is_refused() -> None:
    for bad in ({"eye_distance": 0}, {"eye_height": 1.5}, {"mouth_weight": -1}):
        with pytest.raises(UsageError):
            Template(**bad)


def dot(size: int) -> Pixels:
    """A square at x 0.6, y 0.35 of a black picture, so large that none of its reflections comes into view."""
    picture = np.zeros((size, size, 3), np.uint8)
    x, y, half = round(0.6 * size), round(0.35 * size), size // 200
    picture[y - half : y + half, x - half : x + half] = 255
    return picture


def centre(picture: Pixels) -> Points:
    mass = picture[:, :, 0].astype(np.float64)
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]] + 0.5
    return np.array([(x * mass).sum(), (y * mass).sum()]) / mass.sum()


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (0, 0.5), (20, 0.7), (-35, 0.31), (10, 2.3), (5, 0.11)])
def test_pixels_move_as_points_do(degrees: float, scale: float) -> None:
    size = 4000 if scale < 0.2 else 1000
    transform, point = turned(degrees, scale, (0, 0)), np.array([[0.6 * size, 0.35 * size]])
    transform[:, 2] = np.array([48.0, 50.0]) - move(transform, point)[0]
    np.testing.assert_allclose(centre(warp(dot(size), transform, 96)), [48, 50], atol=0.12)


def test_nothing_changes_where_nothing_is_asked() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(warp(picture, turned(0, 1, (0, 0)), 64), picture)


def test_shrinking_does_not_alias() -> None:
    stripes = np.full((600, 600, 3), 60, np.uint8)
    stripes[:, ::3] = 210  # finer than the small picture can show: it must come out even, at the mean, 110
    for scale in (0.3, 0.17, 0.05):
        inner = warp(stripes, turned(0, scale, (0, 0)), 28)[4:-4, 4:-4]
        assert inner.std() < 3 and abs(inner.mean() - 110) < 3


@pytest.mark.parametrize("size", [(50, 40), (300, 260), (1, 9)])
def test_what_lies_outside_is_the_reflection(size: tuple[int, int]) -> None:
    """OpenCV reflects by itself, three times as slowly: what is cut out and continued before shows the same."""
    import cv2

    random = np.random.default_rng(1)
    picture = cv2.GaussianBlur(random.integers(0, 256, (size[1], size[0], 3), np.uint8), (0, 0), 2)
    for _ in range(40):
        transform = turned(random.uniform(-180, 180), random.uniform(1, 3), (0, 0))
        transform[:, 2] = [32, 32] - move(transform, random.uniform(-1, 2, (1, 2)) * size)[0]
        centres = transform.copy()
        centres[:, 2] += transform[:, :2].sum(axis=1) / 2 - 0.5
        theirs = cv2.warpAffine(picture, centres, (64, 64), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(warp(picture, transform, 64).astype(int) - theirs).max() <= 1
        assert np.abs(warp_quickly(picture, transform, 64).astype(int) - theirs).mean() < 3


def test_what_lies_outside_is_soft_and_has_no_streaks() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    transform = turned(0, 1, (32, 0))
    out = warp_softly(noise, transform, 96)[0].astype(float)
    distance = distance_outside(transform, 96, 64, 64)
    assert np.array_equal(out[:64, 32:], noise)  # the photograph itself is untouched
    far = (distance > 0.15).nonzero()
    assert out[far].std() < 0.2 * noise.std()
    left = out[:64, 0:16]  # edge replication would leave every row its own colour here
    assert left.mean(axis=1).std() < 0.15 * noise[:, 0].std()
    assert (distance[:64, 32:] == 0).all() and distance[0, 0] == pytest.approx(31.5 / 96)


def aligner(side: int, template: Template | None = None) -> Aligner:
    pytest.importorskip("ai_edge_litert", reason="the extra `faces` is not installed")
    need_weights("yunet", "face-mesh")
    return Aligner(side, template)


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Rear Admiral Grace Hopper, a photograph in the public domain that matplotlib ships: 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook", reason="the extra `plots` is not installed")
    return Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")


def off(aligned: Aligned, template: Template | None = None) -> float:
    """How far the farther eye is from its target, found again in the picture, as a share of the side."""
    side = aligned.image.width
    found = aligner(64).find(np.asarray(aligned.image))
    assert found is not None
    target = (template or Template()).points(side)[:2]
    return float(np.linalg.norm(found.landmarks[:2] - target, axis=1).max() / side)


def placed(portrait: Image.Image, size: tuple[int, int], scale: float, degrees: float) -> Image.Image:
    small = portrait.resize((round(512 * scale), round(600 * scale)), Image.Resampling.LANCZOS)
    small = small.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))
    picture = Image.new("RGB", size, (90, 90, 90))
    picture.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 3))
    return picture


@pytest.mark.parametrize(
    ("size", "scale", "degrees"),
    [
        ((512, 600), 1, 0),
        ((89, 109), 0.18, 0),
        ((512, 600), 0.8, 30),
        ((640, 480), 0.7, -40),
        ((3000, 2000), 3, 8),
        ((2400, 1800), 0.5, 0),
    ],
)
def test_eyes_land_on_their_targets(portrait: Image.Image, size: tuple[int, int], scale: float, degrees: float) -> None:
    aligned = aligner(256).align(placed(portrait, size, scale, degrees))
    assert aligned is not None and aligned.faces >= 1 and aligned.score > 0.6
    assert aligned.image.size == (256, 256) and aligned.image.mode == "RGB"
    assert off(aligned) < 0.02


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_on_its_side_or_upside_down_is_turned(portrait: Image.Image, quarters: int) -> None:
    """Upside down it was found, and levelled by a degree."""
    level = aligner(64).align(portrait)
    found = aligner(64).align(portrait.rotate(90 * quarters, expand=True))
    assert level is not None and found is not None
    assert np.abs(found.landmarks - level.landmarks).max() < 0.03 * 64
    assert np.abs(np.asarray(found.image, float) - np.asarray(level.image, float)).mean() < 8


def test_a_template_is_kept_at_every_side(portrait: Image.Image) -> None:
    for side, template in (
        (64, Template()),
        (128, Template(eye_distance=0.4, eye_height=0.4)),
        (37, Template(mouth_weight=0)),
    ):
        aligned = aligner(side, template).align(portrait)
        assert aligned is not None and aligned.image.size == (side, side)
        shares = np.linalg.norm(aligned.landmarks[:2] - template.points(side)[:2], axis=1) / side
        assert shares.max() < 0.02
        if not template.mouth_weight:
            assert shares.max() < 1e-9


def test_a_grey_photograph_is_taken(portrait: Image.Image) -> None:
    reference = aligner(64).align(portrait)
    grey = aligner(64).align(portrait.convert("L"))
    assert reference is not None and grey is not None
    assert np.abs(reference.landmarks - grey.landmarks).max() < 1.5


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (1, 20000), (64, 64), (300, 200)])
def test_where_there_is_no_face_none_is_found(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    assert aligner(64).align(Image.fromarray(noise)) is None
    assert aligner(64).align(Image.new("RGB", size, (128, 90, 70))) is None


def test_of_two_faces_the_larger_is_taken(portrait: Image.Image) -> None:
    picture = Image.new("RGB", (900, 600), (90, 90, 90))
    picture.paste(portrait.resize((200, 234)), (40, 300))
    picture.paste(portrait, (380, 0))
    aligned = aligner(64).align(picture)
    assert aligned is not None and aligned.faces == 2
    left_eye = move(invert(aligned.transform), aligned.landmarks)[0]
    assert left_eye[0] > 500


def test_a_face_that_fills_the_picture_is_found_and_padded(portrait: Image.Image) -> None:
    whole = aligner(64).align(portrait)
    assert whole is not None
    eyes = move(invert(whole.transform), whole.landmarks)[:2]
    distance = float(eyes[1, 0] - eyes[0, 0])
    x, y = eyes.mean(axis=0)
    tight = portrait.crop(
        (round(x - distance), round(y - 0.8 * distance), round(x + distance), round(y + 1.5 * distance))
    )
    aligned = aligner(128).align(tight)
    assert aligned is not None and 0.3 < aligned.outside < 0.95
    assert whole.outside < 0.1
    assert off(aligned) < 0.02


def job(task: tuple[Aligner, bytes]) -> bytes:
    aligned = task[0].align(Image.open(io.BytesIO(task[1])))
    return b"" if aligned is None else aligned.image.tobytes()


def test_a_worker_process_gives_the_same_pixels(portrait: Image.Image) -> None:
    used = aligner(64)
    here = used.align(portrait)
    assert here is not None and len(pickle.dumps(used)) < 2000
    buffer = io.BytesIO()
    portrait.save(buffer, "PNG")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(job, [(used, buffer.getvalue())] * 2)
    assert there == [here.image.tobytes()] * 2


def test_celeba_faces_are_found_and_land_within_two_percent() -> None:
    if not CELEBA.is_file():
        pytest.skip(f"{CELEBA.name} not available: it lies beside the repository where there is one")
    with zipfile.ZipFile(CELEBA) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::100]
        found = [aligner(128).align(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    faces = [aligned for aligned in found if aligned is not None]
    assert len(faces) >= 0.97 * len(names)
    targets = Template().points(128)[:2]
    assert np.mean([np.linalg.norm(face.landmarks[:2] - targets, axis=1).max() < 0.02 * 128 for face in faces]) >= 0.95
