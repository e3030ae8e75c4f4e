"""Whether conditions are met: the classifier of real faces, what is asked for, and what leaks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.core.device import DeviceContext
from mien.data.pack import Entry, Pack, PackWriter
from mien.errors import DataError
from mien.metrics import attributes
from mien.metrics.attributes import attributes_of
from mien.metrics.conditions import conditions, leaks
from mien.metrics.evaluate import inception, samples_of
from mien.metrics.features import PixelFeatures
from mien.metrics.images import PackImages
from mien.metrics.inputs import MetricInputs
from mien.nn.priors import Normal
from mien.sampling.sampler import Sampler

NAMES = ("Bright", "Red", "Rare")


def faces(labels: np.ndarray) -> np.ndarray:
    """Images `[n, 16, 16, 3]` that are bright, and red, where their labels say so; with some noise."""
    rng = np.random.default_rng(0)
    images = np.full((len(labels), 16, 16, 3), 80.0) + 90 * labels[:, :1, None, None]
    images[..., 0] += 60 * labels[:, 1, None, None]
    return (images + rng.normal(0, 8, images.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    rng = np.random.default_rng(1)
    labels = (rng.random((1200, 3)) < (0.5, 0.5, 0.02)).astype(np.float32)
    images = faces(labels)
    labels[::7, 1] = np.nan
    with PackWriter(tmp_path_factory.mktemp("data") / "p.pack", 16, NAMES) as writer:
        writer.append(images, labels, [Entry(f"{i}.png") for i in range(len(labels))])
        return writer.commit({})


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A shorter training, kept apart from the user's cache."""
    monkeypatch.setattr(attributes, "EPOCHS", 2)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path_factory.getbasetemp() / "attributes"))


class Obedient:
    """Draws what it is asked for; red faces are bright whatever is asked, if it leaks."""

    latent_shape, label_dim, guidance, prior = (2,), 3, 1.0, Normal()

    def __init__(self, leak: bool) -> None:
        self.leak = leak

    def decode(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked = labels.numpy().round()
        if self.leak:
            asked[:, 0] = np.maximum(asked[:, 0], asked[:, 1])
        return torch.from_numpy(faces(asked)).permute(0, 3, 1, 2) / 127.5 - 1.0


def judged(pack: Pack, leak: bool, names: tuple[str, ...] = NAMES) -> MetricInputs:
    rows = [[float(i & 1), float(i >> 1 & 1), 0.0] for i in range(4)]
    header: dict[str, Any] = {
        "faces": {"side": 16, "channels": 3, "label_dim": 3},
        "labels": list(names),
        "label_rows": rows,
    }
    model: Any = Obedient(leak)
    sampler = Sampler(model, header, DeviceContext(torch.device("cpu"), "fp32"), "hash")
    reference = PackImages(pack, "all")
    return MetricInputs(
        fake=samples_of(sampler, reference, 200), reference=reference, extractor=PixelFeatures(), sampler=sampler
    )


def test_the_classifier_learns_is_kept_and_moves_no_randomness(pack: Pack) -> None:
    state = torch.get_rng_state()
    told: list[int] = []
    first = attributes_of(pack, on_progress=lambda _what, count, _total: told.append(count))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.accuracy["Bright"] > 0.95 and first.accuracy["Red"] > 0.95 and first.held_out == 120
    asked = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    assert first(faces(asked))[:, :2].tolist() == asked[:, :2].tolist()
    told.clear()
    again = attributes_of(pack, on_progress=lambda _what, count, _total: told.append(count))
    assert not told and again.accuracy == first.accuracy
    (file,) = (attributes.weights.cache_folder() / "attributes").iterdir()
    file.write_bytes(b"torn")
    assert attributes_of(pack).accuracy == first.accuracy  # trained anew, to the bit


def test_conditions_met(pack: Pack) -> None:
    own, whole, *single = conditions(judged(pack, leak=False))
    assert own.metric == "classifier" and own.value == pytest.approx(np.mean(list(own.protocol["classifier"].values())))
    assert whole.name == "conditions" and whole.value > 0.95 and whole.protocol["labels"] == ["Bright", "Red"]
    assert [score.name for score in single] == [f"condition_{name}" for name in NAMES]
    bright, red, rare = single
    assert bright.value > 0.95 and red.value > 0.95 and rare.value < 0.7  # nothing shows it
    assert bright.protocol["leak"]["Bright"] > 0.9 and abs(bright.protocol["leak"]["Red"]) < 0.1
    assert rare.protocol["examples"]["yes"] < 50
    assert whole.low <= whole.value <= whole.high


def test_what_leaks_is_seen(pack: Pack) -> None:
    _, _, bright, red, _ = scores = list(conditions(judged(pack, leak=True)))
    assert red.protocol["leak"]["Bright"] > 0.3  # half of the faces were bright already
    assert bright.value == pytest.approx(0.75, abs=0.05)
    lines = leaks(scores)
    assert lines[2].split() == list(NAMES) and lines[4].split()[0] == "Red" and float(lines[4].split()[1]) > 0.3
    assert leaks(scores[:2]) == []


def test_who_knows_no_labels_is_told(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="share no labels"):
        list(conditions(judged(pack, False, ("A", "B", "C"))))
    with pytest.raises(DataError, match="folder"):
        list(conditions(dataclasses.replace(judged(pack, False), sampler=None)))


def test_conditions_are_judged_without_the_network_of_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are asked for by what looks through it, at once, and by nothing else."""
    monkeypatch.setenv("MIEN_WEIGHTS_INCEPTION", str(tmp_path / "nowhere"))
    eye = inception(metrics=("conditions", "diversity"))
    assert eye.name.startswith("inception") and eye.hash and "network" not in vars(eye)
    for metric in ("fid", "kid", "prdc", "memorisation"):
        with pytest.raises(DataError, match="MIEN_WEIGHTS_INCEPTION"):
            inception(metrics=("conditions", metric))
