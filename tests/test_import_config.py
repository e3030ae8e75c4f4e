"""homogan's configuration as a run: every key is honoured or named, and credentials are never read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mien.core.contracts import Batch, ImageSpec
from mien.errors import DataError, Mismatch, Untrusted
from mien.foreign.homogan_config import KEYS, NOTES, homogan_config
from tests.conftest import Outcome, tiny

CONFIG = """{
  "network_params": {"model": "model_15_noisy", "multilabelling": true, "features": 3, "noise_dim": 256},
  "IMG_HEIGHT": 64, "IMG_WIDTH": 64, "datasetParam": {"BUFFER_SIZE": 3000, "BATCH_SIZE": 50},
  "training_params": {"latent_dim": 128, "start_epoch": 0, "epochs": 20, "train_g": 1, "train_g": 3},
  "celebaParam": {"kaggle_user": "some one", "kaggle_pass": "s3cret", "dataset_folder": "/content/celeba dataset",
    "celeba_features": [["Male", 1], ["Eyeglasses"], ["No_Beard"], ["Bald"]], "num_img_training": 5000},
  "img_noise_mode": "gaussian"
}"""


def written(tmp_path: Path, text: str | dict[str, Any]) -> Path:
    file = tmp_path / "config.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    return file


def test_every_key_is_honoured_or_named(tmp_path: Path) -> None:
    run, remarks = homogan_config(written(tmp_path, CONFIG))
    assert run.preset == "homogan-16" and (run.side, run.batch, run.images) == (64, 50, 20 * 5000)
    assert run.model.latent == 128  # type: ignore[attr-defined]
    assert (run.recipe.generator_steps, run.recipe.generator_schedule) == (3, "interval")  # type: ignore[attr-defined]
    (command,) = run.prepare
    assert command == (
        "mien data prepare '/content/celeba dataset' homogan.pack --size 64 --crop squash --resampler nearest "
        "--labels Eyeglasses,No_Beard,Bald --where Male=1 --limit 5000"
    )
    said = "\n".join(remarks)
    keys = {"kaggle_user", "kaggle_pass", *KEYS, *NOTES} - {"train_d"}
    assert {remark.split(" ")[0].rstrip(":").lower() for remark in remarks if not remark.startswith(" ")} == keys
    assert "train_g occurs twice" in said and "opposite of a beard" in said


def test_credentials_are_never_read(tmp_path: Path) -> None:
    run, remarks = homogan_config(written(tmp_path, CONFIG))
    assert "s3cret" not in f"{run} {remarks}" and "some one" not in f"{run} {remarks}"


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("model_07", "homogan-07"),
        ("model_15", "homogan-15"),
        ("model_16", "homogan-16"),
        ("Model1", "homogan-01"),
        ("model_14", "homogan-14"),
    ],
)
def test_models(model: str, preset: str, tmp_path: Path) -> None:
    assert homogan_config(written(tmp_path, {"model": model}))[0].preset == preset


def test_the_file_model_14_is_not_experiment_14(tmp_path: Path) -> None:
    """src/models/model_14.py: an embedding of one label, GaussianNoise(0.5) in the generator, no spectral norm."""
    run, remarks = homogan_config(written(tmp_path, {"model": "src.models.model_14", "train_g": 5}))
    assert run.preset == "homogan-11" and run.recipe.spectral_norm == "none"  # type: ignore[attr-defined]
    assert (run.recipe.generator_noise, run.recipe.critic_noise) == (0.5, 0.0)  # type: ignore[attr-defined]
    assert run.model.embedding == 50 and any("homogan-14" in remark for remark in remarks)  # type: ignore[attr-defined]


def test_train_d_is_honoured(tmp_path: Path) -> None:
    """There the critic moves `if cycle % train_d == 0`, and the generator by a count of its own."""
    run, _ = homogan_config(written(tmp_path, {"model": "src.models.model_15", "train_d": 2, "train_g": 3}))
    recipe = tiny(run).recipe.build(
        tiny(run).model.build(ImageSpec(side=16, label_dim=2)), ImageSpec(side=16, label_dim=2)
    )
    names = {id(optimizer): name for name, optimizer in recipe.optimizers.items()}
    batch = Batch(torch.rand(4, 3, 16, 16), torch.zeros(4, 2))
    moves = []
    for _ in range(6):
        recipe.measured.clear()
        moves.append([names[id(update.optimizer)] for update in recipe.step(iter([batch]))])  # type: ignore[union-attr]
        assert moves[-1] or recipe.measured.keys() >= {"critic_real", "critic_fake", "generator_loss"}
    critic, generator = ["critic"] * 2, ["generator"]
    assert moves == [[], critic, generator, critic, [], critic + generator]


def test_what_cannot_be_honoured_is_said(tmp_path: Path) -> None:
    content = {
        "model": "model_07",
        "train_d": 3,
        "IMG_HEIGHT": 128,
        "IMG_WIDTH": 96,
        "colour": "red",
        "celeba_features": ["Bald"],
    }
    run, remarks = homogan_config(written(tmp_path, content))
    said = "\n".join(remarks)
    for words in (
        "train_d = 3: --recipe.critic-interval 3",
        "IMG_WIDTH = 96: not possible",
        'colour = "red": unknown key',
        "not label-conditional",
    ):
        assert words in said
    assert run.side == 128 and not run.conditional


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Untrusted),
        ("{", Untrusted),
        ("[" * 100_000, Untrusted),
        ("[]", Mismatch),
        ("{}", Mismatch),
        ('{"model": "model_17"}', Mismatch),
        ('{"model": "x"}', Mismatch),
        ('{"model": "model_15", "BATCH_SIZE": -1}', Mismatch),
        ('{"model": "model_15", "BATCH_SIZE": "many"}', Mismatch),
        ('{"model": "model_15", "train_g": 0}', Mismatch),
        ('{"model": "model_15", "epochs": 1e400}', Mismatch),
        ('{"model": "model_15", "celeba_features": [["a b; rm", 1]]}', Mismatch),
        ('{"model": "model_15", "celeba_features": 3}', Mismatch),
    ],
)
def test_bad_files(text: str, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind):
        homogan_config(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        homogan_config(tmp_path / "none.json")


def test_on_the_command_line(mien: Callable[..., Outcome], tmp_path: Path) -> None:
    file = written(tmp_path, CONFIG)
    lines = mien("import", file).stdout.splitlines()
    assert lines[1] == (
        "mien train homogan-16 --data homogan.pack --model.latent 128 --side 64 --batch 50 --images 100000"
    )
    assert mien("import", file, "-o", "x.safetensors", code=2).stderr
    told = mien("train", *lines[1].split()[2:5], *lines[1].split()[5:7], "--help").stdout
    assert "--model.latent" in told
