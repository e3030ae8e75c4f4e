"""`mien data prepare --variants`: varied copies as VAE/GAN's authors made them, against an independent transcription."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mien.data import Preparation, find_source, prepare
from mien.data.pack import Pack
from mien.data.variants import Variation, variation, varied
from mien.errors import UsageError

STILL = Variation((0.0, 0.0), 1.0, 0.0, 1.0, 1.0, 0.0)


def picture(seed: int, width: int = 89, height: int = 109) -> Image.Image:
    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (5, 5, 0))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return Image.fromarray((smooth * 255).astype(np.uint8))


def transcribed(image: Image.Image, how: Variation) -> np.ndarray[Any, Any]:
    """`img_augment` of dataset/augment.py: a similarity around the centre as the inverse map, cubic, border `nearest`; then
    powers of all channels, powers of saturation and value, and a turn of the hue."""
    pixels = np.asarray(image, float) / 255
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    from_centre = (x - width / 2) + 1j * (y - height / 2)
    there = from_centre * how.scale * np.exp(1j * how.turn) + how.shift[0] * width + 1j * how.shift[1] * width
    places = [there.imag + height / 2 - 0.5, there.real + width / 2 - 0.5]
    moved = np.stack([ndimage.map_coordinates(pixels[..., c], places, order=3, mode="nearest") for c in range(3)], -1)
    result = np.empty_like(moved)
    for place in np.ndindex(height, width):
        hue, saturation, value = colorsys.rgb_to_hsv(*(moved[place].clip(0, 1) ** how.gamma))
        result[place] = colorsys.hsv_to_rgb((hue + how.hue) % 1, saturation**how.contrast, value**how.contrast)
    return result


@pytest.mark.parametrize(
    "how",
    [
        STILL,
        STILL._replace(shift=(0.05, -0.03)),
        STILL._replace(scale=1.08, turn=0.2),
        STILL._replace(gamma=1.3),
        STILL._replace(contrast=0.7),
        STILL._replace(hue=-0.12),
        Variation((-0.02, 0.04), 0.95, -0.1, 0.8, 1.2, 0.3),
    ],
)
def test_a_copy_is_varied_as_there(how: Variation) -> None:
    image = picture(3)
    gap = np.abs(np.asarray(varied(image, how), float) / 255 - transcribed(image, how))
    assert gap.mean() < 0.004 and gap.max() < 0.05


def test_a_variation_moves_what_it_should() -> None:
    image = picture(3)
    right = np.asarray(varied(image, STILL._replace(shift=(10 / 89, 0.0))), int)
    assert np.abs(right[:, :79] - np.asarray(image, int)[:, 10:]).max() <= 1


def test_deviations() -> None:
    """celeba.py: 2 px of 178, scale and turn .01, gamma and contrast .05, hue .01."""
    drawn = [variation(number) for number in range(4000)]
    found = np.array(
        [(*how.shift, how.scale, how.turn, np.log(how.gamma), np.log(how.contrast), how.hue) for how in drawn]
    )
    slope = 1 / np.log(2)
    wanted = [2 / 178, 2 / 178, 0.01, 0.01, 0.05 * slope, 0.05 * slope, 0.01]
    assert np.allclose(found.std(0), wanted, rtol=0.06)
    means = [0, 0, 1, 0, 0.0025 * slope, 0.0025 * slope, 0]
    assert (np.abs(found.mean(0) - means) < 4 * np.array(wanted) / 4000**0.5).all()
    assert drawn[7] == variation(7) != drawn[8]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 5), ("val", 3)):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for number in range(count):
            picture(10 * count + number).save(tmp_path / "photos" / part / f"{number}.png")
    return tmp_path / "photos"


def made(source: Path, path: Path, **more: Any) -> Pack:
    pack = prepare(find_source(source), path, Preparation(side=32, **more))
    assert pack is not None
    return pack


def test_images_are_taken_in_turn_and_held_out_ones_stay(folder: Path, tmp_path: Path) -> None:
    plain = made(folder, tmp_path / "plain.pack", holdout="official")
    varieties = made(folder, tmp_path / "varied.pack", holdout="official", variants=12)
    train, held = varieties.rows("train"), varieties.rows("holdout")
    assert len(train) == 12 and len(held) == 3
    assert np.array_equal(varieties.images[held], plain.images[plain.rows("holdout")]), "as they are"
    first = plain.images[plain.rows("train")].astype(int)
    copies = varieties.images[train].astype(int)
    for row, copy in enumerate(copies):
        distances = np.abs(copy - first).mean((1, 2, 3))
        assert distances.argmin() == row % 5 and 0 < distances.min() < 25, "the image in turn, varied"
    assert len({copy.tobytes() for copy in copies}) == 12, "every copy is another one"
    assert varieties.meta["counts"]["variants"] == 12 and varieties.meta["recipe"]["variants"] == 12
    assert "variants" not in plain.meta["recipe"]


def test_the_same_bytes_for_any_number_of_workers_and_shards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare(find_source(folder), tmp_path / "a.pack", Preparation(side=32, variants=20), workers=1)
    monkeypatch.setattr("mien.data.planning.SHARD_IMAGES", 3)
    two = prepare(find_source(folder), tmp_path / "b.pack", Preparation(side=32, variants=20), workers=2)
    assert one is not None and two is not None and np.array_equal(one.images, two.images)


def test_labels_stay_with_their_picture(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").write_text(
        "file,Smiling\n"
        + "".join(f"train/{n}.png,{n % 2}\n" for n in range(5))
        + "".join(f"val/{n}.png,1\n" for n in range(3))
    )
    pack = made(folder, tmp_path / "labelled.pack", holdout="official", variants=11)
    assert pack.labels is not None and pack.label_names == ("Smiling",)
    assert pack.labels[pack.rows("train"), 0].tolist() == [(n % 5) % 2 for n in range(11)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"variants": 0}, "too small"),
        ({"variants": 9, "dedupe": True}, "--dedupe"),
        ({"variants": 9, "holdout": 0.2}, "--holdout SHARE"),
        ({"variants": 4}, "fewer than the 8 images"),
        ({"variants": 9, "crop": "face"}, "--crop face"),
    ],
)
def test_what_makes_no_sense_is_an_error(folder: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        made(folder, tmp_path / "no.pack", **more)
    assert words in str(refused.value)


def test_on_the_command_line(folder: Path, tmp_path: Path, mien: Callable[..., Any]) -> None:
    done = mien("data", "prepare", folder, tmp_path / "cli.pack", "--size", 16, "--variants", 24)
    assert done.code == 0 and len(Pack.open(tmp_path / "cli.pack")) == 24
