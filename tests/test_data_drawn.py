"""Drawn faces: a function of (seed, index), with labels that say what is to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mien.data import open_data
from mien.data.decode import decode
from mien.data.synthetic import HAIR_COLOURS, LABEL_NAMES, SyntheticFaces, choose, svg


def pixels(side: int, index: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(decode(SyntheticFaces(side, 100, seed).read(f"{index}")).image)


def test_a_face_is_a_function_of_seed_and_index() -> None:
    assert np.array_equal(pixels(32, 5), pixels(32, 5))
    assert not np.array_equal(pixels(32, 5), pixels(32, 6))
    assert not np.array_equal(pixels(32, 5), pixels(32, 5, seed=1))
    assert pixels(48, 5).shape == (48, 48, 3)


def test_labels_are_named_and_varied() -> None:
    listing = SyntheticFaces(32, 2000).listing()
    assert listing.label_names == LABEL_NAMES and listing.labels is not None
    assert set(np.unique(listing.labels)) == {0.0, 1.0}
    share = dict(zip(LABEL_NAMES, listing.labels.mean(axis=0), strict=True))
    assert all(0.02 < value < 0.75 for value in share.values()), share


def test_labels_agree_with_each_other() -> None:
    listing = SyntheticFaces(32, 3000).listing()
    assert listing.labels is not None
    of = {name: listing.labels[:, i] > 0.5 for i, name in enumerate(LABEL_NAMES)}
    colours = np.stack([of[name] for name in HAIR_COLOURS]).sum(axis=0)
    assert colours.max() == 1
    hairless = of["Bald"] | of["Wearing_Hat"]
    assert (colours[hairless] == 0).all() and (colours[~hairless] == 1).all()
    assert (of["Eyeglasses"] >= of["Sunglasses"]).all()
    assert not (of["Beard"] & of["Mustache"]).any()


def test_every_part_that_can_be_chosen_can_be_drawn() -> None:
    drawn = {svg(choose(3, index)) for index in range(300)}
    assert len(drawn) == 300


def test_open_data_keeps_drawn_faces_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    pack = open_data("drawn", 16, count=40)
    assert len(pack) == 40 and pack.side == 16 and pack.label_names == LABEL_NAMES
    assert np.array_equal(pack.images[7], pixels(16, 7))
    modified = (pack.path / "images.npy").stat().st_mtime_ns
    again = open_data("drawn", 16, count=40)
    assert again.fingerprint == pack.fingerprint and (again.path / "images.npy").stat().st_mtime_ns == modified
