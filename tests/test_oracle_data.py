"""The data of dated presets: crop, resampler and range of each original, computed beside what its command prepares."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mien import presets
from mien.cli.data import parse_box
from mien.data import Preparation, find_source, prepare
from mien.data.crops import CROPS, RESAMPLERS
from mien.data.loader import Loader, to_tensor
from mien.data.pack import Pack
from tests.conftest import blobs, write_pack

DATED = [name for name in presets.PRESETS if name.rpartition("-")[2].isdigit()]
Pixels = NDArray[np.float64]


@pytest.mark.parametrize("name", DATED)
def test_every_dated_preset_names_its_data(name: str) -> None:
    run = presets.PRESETS[name]
    assert any(
        note.startswith("Data: ") or " Data: " in note or "Data there: " in note or "data are" in note
        for note in run.notes
    )
    (command,) = run.prepare
    flags = parsed(command)
    assert int(flags["size"]) == run.side and flags.get("crop", "center") in CROPS
    assert flags.get("resampler", "lanczos") in RESAMPLERS


def parsed(command: str) -> dict[str, str]:
    """The flags of `mien data prepare SOURCE PACK`."""
    words = shlex.split(command)
    assert words[:3] == ["mien", "data", "prepare"]
    return {flag.removeprefix("--"): value for flag, value in zip(words[5::2], words[6::2], strict=True)}


def picture(width: int, height: int) -> Image.Image:
    """Noise over a gradient: what aliases, and what does not."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], -1)
    return Image.fromarray((0.6 * ramp + 0.4 * rng.integers(0, 256, ramp.shape)).astype(np.uint8))


def made(name: str, tmp_path: Path, size: tuple[int, int]) -> Pixels:
    """What a preset's command makes of a picture, without its filters."""
    (tmp_path / "photos").mkdir()
    picture(*size).save(tmp_path / "photos" / "a.png")
    flags = parsed(presets.PRESETS[name].prepare[0])
    box = parse_box(flags["box"]) if "box" in flags else None
    wanted = Preparation(
        side=int(flags["size"]),
        crop=flags.get("crop"),
        box=box,
        resampler=flags.get("resampler"),
        blur=float(flags.get("blur", 0)),
    )
    pack = prepare(find_source(tmp_path / "photos"), tmp_path / "a.pack", wanted, workers=1)
    assert isinstance(pack, Pack)
    return np.asarray(pack.images[0], dtype=np.float64)


def catmull_rom(line: Pixels, target: int) -> Pixels:
    """scikit-image's cubic interpolation along the first axis, at the centres of the target's pixels."""
    found = np.empty((target, *line.shape[1:]))
    for place in range(target):
        at = (place + 0.5) * len(line) / target - 0.5
        base, x = int(np.floor(at)), at - np.floor(at)
        a, b, c, d = (line[min(max(base + tap, 0), len(line) - 1)] for tap in (-1, 0, 1, 2))
        found[place] = b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))
    return found


def both(function: Any, image: Pixels, *given: Any) -> Pixels:
    """A function along rows, then along columns."""
    rows = function(image, *given)
    return np.swapaxes(function(np.swapaxes(rows, 0, 1), *given), 0, 1)  # type: ignore[no-any-return]


def test_torch_gan(tmp_path: Path) -> None:
    """create_datasets.py: img[50:-50, 50:-50], then resize(img, (64, 64, 3), order=3)."""
    image = np.asarray(picture(250, 250), dtype=np.float64)[50:-50, 50:-50]
    expected = both(catmull_rom, image, 64).clip(0, 255)
    assert np.abs(made("torch-gan-2015", tmp_path, (250, 250)) - expected).max() <= 0.51


def gaussian(line: Pixels, deviation: float) -> Pixels:
    reach = int(4 * deviation + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    padded = np.concatenate([line[:1]] * reach + [line] + [line[-1:]] * reach)
    return sum(w * padded[i : i + len(line)] for i, w in enumerate(weights / weights.sum()))  # type: ignore[return-value]


def test_vaegan(tmp_path: Path) -> None:
    """dataset/celeba.py: bbox (40, 188, 15, 163), gaussian_filter(sqrt(148 / 64) / 2), resize to 64 with order 3."""
    image = np.asarray(picture(178, 218), dtype=np.float64)[40 : 218 - 30, 15 : 178 - 15]
    expected = both(catmull_rom, both(gaussian, image, np.sqrt(148 / 64) / 2), 64).clip(0, 255)
    assert (
        np.abs(made("vaegan-2016", tmp_path, (178, 218)) - expected).max() <= 2.1
    )  # a blur of 0.76 for 0.7603, two roundings


def averaged(line: Pixels, target: int) -> Pixels:
    """image.scale when it shrinks: the mean over what a pixel covers, in parts."""
    found = np.empty((target, *line.shape[1:]))
    scale = len(line) / target
    for place in range(target):
        low, high = place * scale, (place + 1) * scale
        shares = np.array([max(0.0, min(high, i + 1) - max(low, i)) for i in range(len(line))])
        found[place] = np.tensordot(shares / shares.sum(), line, 1)
    return found


def test_dcgan(tmp_path: Path) -> None:
    """crop_celebA.lua: image.crop(im, 30, 40, 168, 178), then image.scale to 64."""
    image = np.asarray(picture(178, 218), dtype=np.float64)[40:178, 30:168]
    assert np.abs(made("dcgan-2015", tmp_path, (178, 218)) - both(averaged, image, 64)).max() <= 0.51


def test_dcgan_samples(tmp_path: Path) -> None:
    """donkey_folder.lua: scale to 96 with corners meeting, a part of 64 that begins at 1 to 32, mirrored half of the time."""
    run = presets.PRESETS["dcgan-2015"]
    assert run.flip and round(64 * run.random_crop) == 96
    images = torch.from_numpy(blobs(1, 64, 0)).permute(0, 3, 1, 2) / 127.5 - 1.0
    larger = F.interpolate(images, (96, 96), mode="bilinear", align_corners=True)[0]
    places = [((top, left), larger[:, top : top + 64, left : left + 64]) for top in range(33) for left in range(33)]
    loader = Loader(
        write_pack(tmp_path / "one.pack", count=1, side=64), batch=1, seed=0, flip=True, random_crop=1.5, threads=0
    )
    seen, mirrored = set(), 0
    for _ in range(40):
        sample = next(loader).images[0]
        gaps = [(float((part - turned).abs().max()), place, turned is not sample) for place, part in places
                for turned in (sample, sample.flip(2))]  # fmt: skip
        gap, place, flipped = min(gaps)
        assert gap < 1e-4
        seen.add(place)
        mirrored += flipped
    assert len(seen) > 15 and all(1 <= corner <= 32 for place in seen for corner in place) and 5 < mirrored < 35


def test_parts_are_a_function_of_the_place(tmp_path: Path) -> None:
    """However the stream is cut up, a place in it shows the same part."""
    pack = write_pack(tmp_path / "a.pack", count=10)
    knobs: dict[str, Any] = {"seed": 3, "random_crop": 1.5, "threads": 0}
    whole = Loader(pack, batch=8, **knobs)
    images = torch.cat([next(whole).images for _ in range(4)])
    later = Loader(pack, batch=4, position=12, **knobs)
    assert torch.equal(next(later).images, images[12:16])
    assert not torch.equal(images[:10].sort(0).values, images[10:20].sort(0).values)  # another part in the next epoch


def test_zhao(tmp_path: Path) -> None:
    """dataloader.py: Resize(32), CenterCrop(32): 178x218 to 32x39, of which rows 4 to 35 stay."""
    expected = np.asarray(picture(178, 218).resize((32, 39), Image.Resampling.BILINEAR), dtype=np.float64)[4:36]
    assert np.array_equal(made("began-zhao-2020", tmp_path, (178, 218)), expected)


def test_simpsons(tmp_path: Path) -> None:
    """VAE_Simpsons.ipynb: Image.resize((128, 128)) as Pillow does it by default, / 127.5 - 1."""
    expected = np.asarray(picture(150, 190).resize((128, 128)), dtype=np.float64)
    assert np.array_equal(made("vae-simpsons-2023", tmp_path, (150, 190)), expected)


def test_homogan(tmp_path: Path) -> None:
    """tf.image.resize with nearest neighbours looks at the pixel under each centre."""
    image = np.asarray(picture(178, 218), dtype=np.float64)
    rows, columns = (((np.arange(128) + 0.5) * size / 128).astype(int) for size in (218, 178))
    assert np.array_equal(made("homogan-01", tmp_path, (178, 218)), image[rows][:, columns])


def test_range() -> None:
    """0 is -1 and 255 is 1, exactly, as x / 127.5 - 1 and 2 x / 255 - 1."""
    ends = to_tensor(np.array([[[[0] * 3, [255] * 3]]], dtype=np.uint8))
    assert ends[0, :, 0, 0].tolist() == [-1.0] * 3 and ends[0, :, 0, 1].tolist() == [1.0] * 3


@pytest.mark.parametrize("name", DATED)
def test_precision_is_named(name: str) -> None:
    """The originals were fp32, but for R3GAN's, which was bf16 in most stages."""
    told = any("--precision fp32 is as there" in note for note in presets.PRESETS[name].notes)
    assert told == (name != "r3gan-2024")
