"""Directions of what can be measured in a face: right values of the measures, one that moves and others that stay."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.cli import measured_directions
from mien.data.pack import Pack
from mien.metrics import measures
from mien.metrics.images import to_pixels
from mien.metrics.measures import MESH, PIXELS, FaceMeasures, of_pixels
from mien.sampling.measured import MAX_LEAK, Scale, correlation, obedience, regression, vectors
from mien.sampling.sampler import Sampler
from mien.web.registry import note
from tests.conftest import SHARED, need_weights, write_model
from tests.test_cli import call

FAIRFACE = SHARED / "data" / "fairface-adults-128.zip"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No face is found, and no network is needed for that."""
    monkeypatch.setattr(measures, "landmarks", lambda image: [])
    monkeypatch.chdir(tmp_path)


# What is measured


def test_pixels_say_where_light_and_colours_are() -> None:
    picture = np.full((64, 64, 3), 100, np.uint8)
    plain = dict(zip(PIXELS, of_pixels(picture), strict=True))
    assert plain["brightness"] == pytest.approx(100 / 255)
    assert all(plain[name] == pytest.approx(0.0, abs=1e-6) for name in PIXELS if name != "brightness")

    def changed(rows: slice, columns: slice, value: tuple[int, int, int] = (200, 200, 200)) -> dict[str, float]:
        other = picture.copy()
        other[rows, columns] = value
        return {name: value - plain[name] for name, value in zip(PIXELS, of_pixels(other), strict=True)}

    left = changed(slice(16, 48), slice(0, 32))
    assert left["light_from_left"] > 0.3 and left["contrast"] > 0.1
    assert changed(slice(16, 48), slice(16, 48), (140, 100, 60))["warmth"] > 0.5
    hair = changed(slice(0, 6), slice(16, 48))
    assert hair["light_hair"] > 0.3 and hair["brightness"] == pytest.approx(0.0)
    ground = changed(slice(0, 21), slice(0, 6))
    assert ground["light_background"] > 0.15 and ground["light_hair"] == pytest.approx(0.0)


def mesh() -> np.ndarray:
    """A mesh with the points that are measured: a symmetric head, 100 wide and 140 high, that looks at the camera."""
    points = np.zeros((468, 3))
    places = {10: (0, -70, 0), 152: (0, 70, 0), 234: (-50, 0, 0), 454: (50, 0, 0), 33: (-35, -20, 0), 133: (-15, -20, 0),
              362: (15, -20, 0), 263: (35, -20, 0), 159: (-25, -24, 0), 145: (-25, -16, 0), 386: (25, -24, 0), 374: (25, -16, 0),
              105: (-25, -36, 0), 334: (25, -36, 0), 61: (-20, 35, 0), 291: (20, 35, 0), 13: (0, 33, 0), 14: (0, 37, 0)
              }  # fmt: skip
    for number, place in places.items():
        points[number] = place
    return points


def turned(points: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    """A mesh turned about the vertical (1) or the horizontal (0) axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = [[c, 0, -s], [0, 1, 0], [s, 0, c]] if axis == 1 else [[1, 0, 0], [0, c, s], [0, -s, c]]
    return points @ np.array(matrix).T


def test_a_mesh_gives_the_pose_in_radians() -> None:
    straight = mesh()
    assert MESH["turn_right"](straight) == pytest.approx(0.0)
    assert MESH["look_up"](straight) == pytest.approx(0.0)
    right = turned(straight, 1, 20)
    assert right[454, 2] > 0, "its right side, in the picture, is farther away"
    assert MESH["turn_right"](right) == pytest.approx(math.radians(20))
    up = turned(straight, 0, 15)
    assert up[10, 2] > 0, "its forehead is farther away"
    assert MESH["look_up"](up) == pytest.approx(math.radians(15))
    assert MESH["turn_right"](up) == pytest.approx(0.0, abs=1e-9)


def test_a_mesh_gives_the_expression() -> None:
    def change(**moved: tuple[int, ...]) -> dict[str, float]:
        other = mesh()
        for name, (dx, dy) in moved.items():
            other[int(name[1:]), :2] += (dx, dy)
        return {name: measure(other) - measure(mesh()) for name, measure in MESH.items()}

    smile = change(p61=(-5, -5), p291=(5, -5))
    assert smile["smile"] == pytest.approx(10 / 70) and smile["open_mouth"] == 0.0
    assert change(p14=(0, 14))["open_mouth"] == pytest.approx(14 / 70)
    assert change(p159=(0, 4), p386=(0, 4))["open_eyes"] == pytest.approx(-0.4)
    assert change(p105=(0, -7), p334=(0, -7))["raised_brows"] == pytest.approx(0.2)
    assert change(p234=(-7, 0), p454=(7, 0))["wide_face"] == pytest.approx(0.1)


@pytest.mark.skipif(not FAIRFACE.is_file(), reason="SKIPPED REAL FACES: no FairFace")
def test_a_mirrored_face_turns_to_the_other_side() -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("ai_edge_litert")
    need_weights("yunet", "face-mesh")
    import zipfile

    from PIL import Image

    with zipfile.ZipFile(FAIRFACE) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:48]
        pictures = [Image.open(archive.open(name)).convert("RGB").resize((64, 64)) for name in names]
    faces = np.stack([np.asarray(picture) for picture in pictures])
    measure = FaceMeasures(faces)
    assert measure.names == (*MESH, *PIXELS)
    plain, mirrored = measure(faces), measure(faces[:, :, ::-1].copy())
    for name, sign in (
        ("turn_right", -1),
        ("light_from_left", -1),
        ("look_up", 1),
        ("open_mouth", 1),
        ("wide_face", 1),
    ):
        column = measure.names.index(name)
        both = np.isfinite(plain[:, column]) & np.isfinite(mirrored[:, column])
        assert both.mean() > 0.9
        assert np.corrcoef(plain[both, column], sign * mirrored[both, column])[0, 1] > 0.8, name


# What a direction does


def linear(count: int, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents, and three measures that are linear in them: the first two go together, with a correlation of 0.8."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return latents, measured(latents)


def measured(latents: torch.Tensor) -> torch.Tensor:
    return torch.stack([latents[:, 0], 0.8 * latents[:, 0] + 0.6 * latents[:, 1], 3.0 * latents[:, 2] + 5.0], 1)


def test_a_direction_moves_one_measure_and_leaves_the_others() -> None:
    latents, values = linear(2000)
    scale = Scale.of(values)
    assert torch.allclose(scale.mean, torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64), atol=0.2)
    moves = vectors(latents, scale.apply(values))
    assert torch.allclose((latents @ moves.T).std(0), torch.ones(3, dtype=torch.float64), atol=1e-6)
    unseen = torch.randn(200, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = obedience(moves, unseen, scale, lambda z: measured(z), (16,))
    assert found.diagonal().min() > 0.6
    assert (found - found.diagonal().diag()).abs().max() < MAX_LEAK + 0.05
    gradient = regression(latents, scale.apply(values))
    naive = obedience(gradient / gradient.norm(dim=1, keepdim=True), unseen, scale, lambda z: measured(z), (16,))
    assert naive[0, 1] > 0.6, "without the others in view, the second measure follows the first"


def test_the_correlation_is_that_of_the_amounts_with_the_measure() -> None:
    """By definition, against numpy on many faces, whose own differences hide nothing there."""
    latents, values = linear(20_000)
    scale = Scale.of(values)
    move = torch.eye(16, dtype=torch.float64)[2:3]
    found = obedience(move, latents, scale, lambda z: measured(z), (16,))
    amounts = np.random.default_rng(0).uniform(-3, 3, len(latents))
    moved = measured(latents + torch.from_numpy(amounts)[:, None] * move)
    expected = np.corrcoef(amounts, scale.apply(moved)[:, 2])[0, 1]
    assert float(found[0, 2]) == pytest.approx(expected, abs=0.02)
    assert float(correlation(torch.tensor(1.0))) == pytest.approx(3**0.5 / 2, abs=1e-6)


def test_what_was_not_measured_counts_as_the_mean() -> None:
    values = torch.tensor([[1.0], [3.0], [math.nan]])
    assert torch.equal(Scale.of(values).apply(values), torch.tensor([[-1.0], [1.0], [0.0]]))


def test_more_latent_numbers_than_faces_give_the_same_regression() -> None:
    latents, values = linear(60, 16)
    small = regression(latents, values)
    padded = torch.cat([latents, torch.zeros(60, 84, dtype=torch.float64)], 1)
    wide = regression(padded * (padded.var() / latents.var()) ** 0, values)
    assert wide.shape == (3, 100)
    assert torch.allclose(wide[:, :16] / wide.norm(), small / small.norm(), atol=0.05)


# The verb


def test_faces_without_a_mesh_have_light_colour_and_components(
    offline: None, blob_pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured_directions, "MIN_CORRELATION", -1.0)
    file = write_model("gan", tmp_path, blob_pack, 0.3)
    said = call("directions", file, "--measured", "--json")
    assert said.code == 0
    found = json.loads(said.out)
    names = [entry["name"] for entry in found["directions"]]
    assert names[-6:] == [f"component-{n}" for n in range(1, 7)]
    assert {"brightness", "warmth"} <= set(names)
    assert any("no faces were found" in line for line in found["warnings"])
    first = found["directions"][0]
    assert set(first["leaks"]) == {name for name in names if not name.startswith("component")} - {first["name"]}
    assert first["leak"] == pytest.approx(max(map(abs, first["leaks"].values())))
    sampler = Sampler.load(file, device="cpu")
    assert "correlation" in note(sampler.directions["brightness"].facts)
    listed = call("directions", file)
    assert "on unseen faces, largest leak" in listed.out
    assert call("edit", file, "--direction", "brightness=2", "-o", "a.png").code == 0


def test_light_from_the_left_comes_from_the_left(offline: None, blob_pack: Pack, tmp_path: Path) -> None:
    file = write_model("gan", tmp_path, blob_pack, 0.3)
    assert call("directions", file, "--measured").code == 0
    sampler = Sampler.load(file, device="cpu")
    z = sampler.latents(range(5000, 5016))

    def left(amount: float) -> float:
        faces = to_pixels(sampler.decode(sampler.edit(z, {"light_from_left": amount})))
        return float(np.mean([of_pixels(face)[PIXELS.index("light_from_left")] for face in faces]))

    assert left(2.0) > left(0.0) > left(-2.0)


def test_one_way_at_a_time(offline: None, blob_pack: Pack, tmp_path: Path) -> None:
    file = write_model("gan", tmp_path, blob_pack)
    said = call("directions", file, "--measured", "--unsupervised", "2")
    assert said.code == 2
    assert "Only one of" in said.err
