"""Every option of the reproduced programs, each turned here, and a difference seen: sicongzhao's, and homogan's configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mien import presets
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override, to_json, without_effect
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.foreign.homogan_config import homogan_config
from mien.storage import checkpoint
from mien.storage.run_directory import read_json, read_lines
from mien.training.resolve import ResolvedRun
from tests.conftest import ROOT, tiny, write_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "blobs.pack", count=24, side=32)


def zhao(**changes: Any) -> Run:
    small = {
        "model.width": 4,
        "model.encoder_width": 4,
        "model.latent": 6,
        "batch": 4,
        "precision": "fp32",
        "device": "cpu",
    }
    return override(presets.PRESETS["began-zhao-2020"], {**small, **changes})


def learned(run: Run, pack: Pack) -> list[float]:
    """Shapes and sums of every tensor after four steps."""
    learner = ResolvedRun(run, pack, DeviceContext(torch.device("cpu"), "fp32"), None, "").initial_state(World())
    loader = Loader(pack, batch=run.batch, seed=run.seed, flip=run.flip, channels=run.channels, threads=0)
    for _ in range(4):
        learner.step(loader)
    tensors = learner.inference_model.state_dict().values()
    return [number for t in tensors for number in (*t.shape, float(t.double().abs().sum()), float(t.double().sum()))]


AT_ONCE = {"recipe.plateau_steps": 1, "recipe.plateau_tolerance": 0.0}  # every look finds a plateau
LEARNED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # option -> what is turned, and on what ground
    "hidden_dim": ({"model.latent": 7}, {}),
    "ngf": ({"model.width": 5}, {}),
    "ndf": ({"model.encoder_width": 5}, {}),
    "nc": ({"channels": 1}, {}),
    "n_layers": ({"model.layers": 1}, {}),
    "exp": ({"model.growth": "exponential"}, {}),
    "t_conv": ({"model.upsampling": "transposed"}, {}),
    "mean": ({"model.mean": 0.01}, {}),
    "std": ({"model.deviation": 0.004}, {}),
    "batch_size": ({"batch": 6}, {}),
    "lr": ({"recipe.lr": 2e-4}, {}),
    "b1": ({"recipe.beta1": 0.9}, {}),
    "b2": ({"recipe.beta2": 0.9}, {}),
    "lambda_k": ({"recipe.k_step": 0.5}, {}),
    "gamma": ({"recipe.gamma": 0.3}, {"recipe.k_step": 0.5}),
    "lr_update_step": ({"recipe.plateau_steps": 2}, AT_ONCE),
    "lr_gamma": ({"recipe.plateau_factor": 0.1}, {**AT_ONCE, "recipe.plateau_decays_by_gamma": False}),
}


@pytest.mark.parametrize("option", LEARNED)
def test_zhao_what_is_learned(option: str, pack: Pack) -> None:
    changes, ground = LEARNED[option]
    assert without_effect(zhao(**{**ground, **changes}), changes) == []
    assert learned(zhao(**ground), pack) != learned(zhao(**{**ground, **changes}), pack)


def test_zhao_every_option_of_the_page_is_tried() -> None:
    page = (ROOT / "docs" / "presets-encode.md").read_text(encoding="utf-8")
    table = page.partition("### sicongzhao's parameters")[2].partition("Kept in")[0]
    options = {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.partition("| ")[2].split(" |")[0])
    }
    tried_below = {"input_dim", "output_dim", "data_path", "outf", "n_epochs", "sample_interval", "show_every"}
    assert options == {*LEARNED, *tried_below}


def test_zhao_sides(pack: Pack, tmp_path: Path) -> None:
    """input_dim and output_dim: one side, with a level more for a doubling."""
    small = write_pack(tmp_path / "small.pack", count=8, side=16)
    assert len(learned(zhao(), pack)) > len(learned(zhao(), small))


def test_zhao_runs(tmp_path: Path, mien: Callable[..., Any]) -> None:
    """data_path, outf, n_epochs, sample_interval and show_every: --data, --out, --images, --sample-every and --log-every."""
    write_pack(tmp_path / "blobs.pack", count=16)
    small = ("--model.width", 4, "--model.encoder-width", 4, "--batch", 4, "--device", "cpu", "--precision", "fp32")
    mien(
        "train",
        "began-zhao",
        "--data",
        "blobs.pack",
        "--out",
        "a",
        "--images",
        16,
        *small,
        "--log-every",
        4,
        "--save-every",
        4,
    )
    mien(
        "train", "began-zhao", "--data", "blobs.pack", "--out", "b", "--images", 32, *small, "--log-every", 16,
        "--sample-every", 8, "--save-every", 4, "--keep-best", "convergence", "--keep", 1,
    )  # fmt: skip
    assert [line["seen"] for line in read_lines(tmp_path / "a" / "metrics.jsonl")] == [4, 8, 12, 16]
    assert [line["seen"] for line in read_lines(tmp_path / "b" / "metrics.jsonl")] == [16, 32]
    samples = [{int(file.stem) for file in (tmp_path / run / "samples").glob("*.png")} for run in "ab"]
    assert samples[1] == {0, 8, 16, 24, 32} > samples[0] - {4, 12}
    best = checkpoint.read_best(tmp_path / "b" / "checkpoints")
    ranked = list(read_lines(tmp_path / "b" / "eval" / "during.jsonl"))
    assert (
        best["metric"] == "convergence" and best["value"] == min(line["value"] for line in ranked) and len(ranked) == 8
    )
    assert (tmp_path / "b" / "checkpoints" / f"{best['seen']:010d}").is_dir()
    assert not checkpoint.read_best(tmp_path / "a" / "checkpoints")
    measured = {line["seen"]: line["value"] for line in ranked}
    assert (read_json(tmp_path / "b" / "status.json") or {})["seen"] == 32 and sorted(measured) == list(range(4, 36, 4))


BASE: dict[str, Any] = {
    "model": "model_15",
    "multilabelling": True,
    "features": 3,
    "noise_dim": 256,
    "IMG_HEIGHT": 128,
    "IMG_WIDTH": 128,
    "BUFFER_SIZE": 3000,
    "BATCH_SIZE": 100,
    "kaggleUser": "one",
    "kagglePass": "two",
    "dataset_folder": "celeba",
    "celeba_features": [["Male", 1], ["Bald"]],
    "num_img_training": 5000,
    "latent_dim": 256,
    "start_epoch": 0,
    "epochs": 100,
    "train_g": 1,
    "train_d": 1,
    "img_noise_mode": "gaussian",
}
OTHER: dict[str, Any] = {
    "model": "model_12",
    "multilabelling": False,
    "features": 1,
    "noise_dim": 100,
    "IMG_HEIGHT": 64,
    "IMG_WIDTH": 64,
    "BUFFER_SIZE": 10,
    "BATCH_SIZE": 20,
    "kaggleUser": "three",
    "kagglePass": "four",
    "dataset_folder": "elsewhere",
    "celeba_features": [["Male", 0], ["Eyeglasses"]],
    "num_img_training": 77,
    "latent_dim": 100,
    "start_epoch": 3,
    "epochs": 7,
    "train_g": 3,
    "train_d": 2,
    "img_noise_mode": "speckle",
}
NAMED = {
    "IMG_WIDTH",
    "multilabelling",
    "features",
    "noise_dim",
    "BUFFER_SIZE",
    "start_epoch",
    "img_noise_mode",
}  # why it does nothing
COMMAND = {"dataset_folder", "celeba_features", "num_img_training"}  # of `mien data prepare`


@pytest.mark.parametrize("key", BASE)
def test_homogan(key: str, tmp_path: Path) -> None:
    """Each of the nineteen keys changes the run, the command for its data, or the remark that names why it does neither."""
    read = []
    for content in (BASE, {**BASE, key: OTHER[key]}):
        file = tmp_path / "config.json"
        file.write_text(json.dumps(content))
        read.append(homogan_config(file))
    (before, said), (after, told) = read
    assert len(BASE) == 19 == len(OTHER)
    if key.startswith("kaggle"):
        assert before == after and said == told and any(remark.startswith(f"{key}: not read") for remark in told)
    elif key in NAMED:
        assert before == after and next(remark for remark in told if remark not in said).startswith(key)
    elif key in COMMAND:
        assert before.prepare != after.prepare
    else:
        assert to_json(replace(before, prepare=())) != to_json(replace(after, prepare=()))


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        ("began-zhao", {"model.mean": 0.1}, "--model.mean has no effect: all layers start as torch starts them"),
        ("began-zhao", {"model.deviation": 0.1}, "--model.initialise linear or all"),
        (
            "began-zhao-2020",
            {"recipe.plateau_factor": 0.1},
            "--recipe.plateau-decays-by-gamma takes gamma in its place",
        ),
        ("torch-gan-2015", {"recipe.balance": "none", "recipe.margin": (0.1, 0.9)}, "--recipe.balance margin"),
        ("torch-gan-2015", {"recipe.l2_step": 1.0}, "--recipe.balance adaptive-l2"),
        ("homogan-07", {"recipe.frozen_targets": True}, "--recipe.smooth-real"),
        ("vaegan-2016", {"recipe.beta1": 0.1}, "--recipe.optimizer adam"),
        ("quick", {"evaluate_samples": 10}, "--evaluate-every"),
    ],
)
def test_an_option_without_effect_is_named(preset: str, changes: dict[str, Any], words: str) -> None:
    run = override(presets.PRESETS[preset], changes)
    (line,) = without_effect(run, changes)
    assert words in line


def test_options_with_an_effect_are_not(pack: Pack) -> None:
    for changes in ({"model.mean": 0.1, "model.initialise": "all"}, {"recipe.gamma": 0.5}, {"images": 10}):
        assert without_effect(override(presets.PRESETS["began-zhao"], changes), changes) == []


def test_on_the_command_line(tmp_path: Path, mien: Callable[..., Any]) -> None:
    write_pack(tmp_path / "blobs.pack")
    small = (
        "--model.width",
        4,
        "--model.encoder-width",
        4,
        "--batch",
        4,
        "--images",
        4,
        "--data",
        "blobs.pack",
        "--device",
        "cpu",
    )
    done = mien("train", "began-zhao", *small, "--model.mean", 0.1, "--channels", 1, "--out", "run")
    assert "mien: --model.mean has no effect" in done.stderr
    mien("sample", "run", "--seeds", "0-3", "-o", "sheet.png")
    pixels = Image.open(tmp_path / "sheet.png").convert("RGB")
    assert all(len(set(colour)) == 1 for _, colour in pixels.getcolors(1 << 16) or ())  # grey


def test_a_film_as_gif(tmp_path: Path, mien: Callable[..., Any]) -> None:
    """homogan's results: a GIF of its samples, with the labels of each face under it."""
    write_pack(tmp_path / "blobs.pack", labels=("Eyeglasses", "Bald"), side=16)
    run = tiny(presets.PRESETS["homogan-15"])
    assert run.film == "gif"
    small = [word for name in ("width", "latent") for word in (f"--model.{name}", 4)]
    mien(
        "train", "homogan-15", *small, "--recipe.critic.width", 4, "--batch", 8, "--images", 32, "--sample-every", 8,
        "--data", "blobs.pack", "--out", "run", "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    with Image.open(tmp_path / "run" / "training.gif") as film:
        assert film.format == "GIF" and film.n_frames >= 2 and film.width <= 720
        plain = 8 * 16 + 9 * 2
        assert film.height > plain  # titles under the faces, and a caption
