"""The command line: help, answers, and three lines for whatever is wrong."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mien
from mien import presets
from mien.__main__ import VERBS, main
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.data.pack import Pack
from mien.errors import UsageError
from mien.report.grid import GAP, read_recipe
from mien.training.resolve import ResolvedRun
from tests.conftest import ROOT, blobs, tiny, write_pack
from tests.report_example import write_run

PRINTED = re.compile(r"mien: .+\n  why: .+\n  do:  .+\n")


def call(*words: object) -> SimpleNamespace:
    """A command in this process: its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Path:
    """A small model that has learned nothing."""
    plan = ResolvedRun(
        tiny(presets.PRESETS["quick"]), blob_pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs"
    )
    learner = plan.initial_state(World())
    generator = torch.Generator().manual_seed(0)
    for parameter in learner.inference_model.parameters():  # it begins with equal faces: make them differ
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    file.write_bytes(learner.snapshot(plan.header).model)
    return file


# Help


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; from mien.__main__ import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    best = 60.0
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - started)
    heavy = {"torch", "numpy", "PIL", "cyclopts", "safetensors", "matplotlib"}
    assert not heavy & set(done.stderr.split())
    assert all(f"  {name} " in done.stdout for name in VERBS)
    assert best < 0.5


@pytest.mark.parametrize("word", ["--help", "-h", "help", ""])
def test_top_level_help(word: str) -> None:
    said = call(*word.split())
    assert said.code == 0 and "Usage: mien VERB" in said.out and said.err == ""


def test_version() -> None:
    from mien import __version__

    assert call("--version").out == call("-V").out == f"{__version__}\n"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself_with_an_example(name: str) -> None:
    said = call(*name.split(), "--help")
    assert said.code == 0 and said.err == ""
    text = " ".join(said.out.split())
    assert text.startswith("Usage: mien")
    assert re.search(rf"(?<!Usage: )mien {name}\b", text)


def test_the_flags_of_train_are_the_fields_of_its_preset() -> None:
    for name in ("quick", "torch-gan-2015"):
        text = call("train", name, "--help").out
        assert "--recipe.lr" in text and "--data" in text and "--resume" in text
    assert "--recipe.l2-step" in call("train", "torch-gan-2015", "--help").out
    assert "--recipe.l2-step" not in call("train", "quick", "--help").out


def test_the_help_of_train_begins_with_the_main_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = call("train", "--help").out.splitlines()
    assert lines[0] == "Usage: mien train [PRESET] [FLAGS]"
    head = "\n".join(lines[:40])
    order = (
        "PRESET",
        "--data",
        "--minutes",
        "--images",
        "--out",
        "--scale",
        "--seed",
        "--device",
        "--dry-run",
        "--resume",
    )
    places = [head.index(f"│ {flag} ") for flag in order]
    assert places == sorted(places) and head.index("Main flags") < places[1]
    text = re.sub(r"[│\s]+", " ", "\n".join(lines))
    groups = ("Main flags", "Training", "Saving and logging", "Evaluation", "Moving average", "Model", "Recipe")
    places = [text.index(f"╭─ {title}") for title in groups]
    assert places == sorted(places)
    assert "--no-flip" in text and "[default: fid,kid]" in text
    for punctuation in ("None", "True", "False", "('", '[default: ""]', "[default: ]"):
        assert punctuation not in text, punctuation


def test_every_field_of_a_run_has_a_help_group() -> None:
    from mien.cli.train import FIRST, GROUPS, group_of
    from mien.core.run import config_fields

    for run in presets.PRESETS.values():
        for field in config_fields(run):
            part = field.name.partition(".")[0]
            listed = part in FIRST or any(part in names for names in GROUPS.values())
            assert listed and group_of(field.name).name, f"{field.name}: name it in GROUPS of cli/train.py"


@pytest.mark.parametrize(("name", "words"), [("sample", "MODEL"), ("presets", "[NAME]"), ("explore", "[RUNS...]")])
def test_the_usage_line_names_positional_arguments(name: str, words: str) -> None:
    assert call(name, "--help").out.splitlines()[0] == f"Usage: mien {name} {words} [FLAGS]"


def test_drawing_flags_are_the_same_in_every_verb() -> None:
    from tests.test_docs import flags_of

    verbs = {}
    for name in ("sample", "walk", "edit", "project", "export"):
        module, function = VERBS[name].target.split(":")
        made = getattr(importlib.import_module(module), function)
        verbs[name] = {flag.names[0]: flag for flag in flags_of(made, name)}
    for flag in ("--truncation", "--style", "--solver", "--guidance", "--size"):
        assert len({flags[flag] for flags in verbs.values()}) == 1 and verbs["sample"][flag].help


# Mistakes


@pytest.mark.parametrize(
    ("line", "code", "remedy"),
    [
        ("trian", 2, "Did you mean train"),
        ("data", 2, "mien data prepare"),
        ("data prepair x", 2, "mien data prepare"),
        ("train quikc", 2, "Did you mean quick"),
        ("train torch-gan", 2, "torch-gan-2015"),
        ("train quick --imagse 5", 2, "--images"),
        ("train quick --recipe.learning 5", 2, "--help"),
        ("train quick --images five", 2, "--help"),
        ("train quick --images 0 --dry-run", 2, "1 or more"),
        ("train quick --batch 0 --dry-run", 2, "batch must be a positive integer"),
        ("train quick --seed -1 --dry-run", 2, "seed must not be negative"),
        ("train quick --minutes 0 --dry-run", 2, "minutes must be a positive number"),
        ("train quick --scale 0 --dry-run", 2, "scale must be a positive number"),
        ("train --dry-run gan", 2, "PRESET must come first"),
        ("presets --diff quick", 2, "--help"),
        ("presets --diff quick cgna", 2, "cgan"),
        ("train quick --data nowhere", 3, ""),
        ("train quick --minutes nan --dry-run", 2, ""),
        ("train quick --minutes inf --dry-run", 2, ""),
        ("train quick --seed 99999999999999999999 --dry-run", 2, ""),
        ("train quick --precision fp8 --dry-run", 2, "--help"),
        ("train nowhere.py:x", 3, "spelling"),
        ("train quick --recipe.reg-interval 0 --dry-run", 2, "1 or more"),
        ("train torch-gan-2015 --recipe.critic-steps 0 --dry-run", 2, "1 or more"),
        ("sample", 2, "--help"),
        ("sample nowhere", 3, "Check the path"),
        ("sample . ", 3, "run"),
        ("walk nowhere", 3, "Check the path"),
        ("compare", 2, "two run directories"),
        ("compare nowhere also-nowhere", 3, "mien train"),
        ("benchmark nowhere --minutes 1 --presets quick", 3, ""),
        ("presets nothing", 2, "Known"),
        ("cite nothing", 2, "Known"),
        ("doctor --gpu", 2, "--help"),
        ("data info nowhere", 3, ""),
        ("data fetch nothing", 2, ""),
    ],
)
def test_a_mistake_is_three_lines(here: Path, line: str, code: int, remedy: str) -> None:
    said = call(*line.split())
    assert said.code == code, said.err
    assert PRINTED.fullmatch(said.err), said.err
    assert remedy in said.err and said.out == ""


@pytest.mark.parametrize("verb", ["sample", "walk"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--seeds x", 2),
        ("--seeds 5-2", 2),
        ("--seeds -1", 2),
        ("--seeds ²", 2),
        ("--seeds 9007199254740992", 2),
        ("--seeds 0-9999999", 2),
        (f"--seeds {'9' * 5000}", 2),
        ("--label Hat=1", 2),
        ("--label Hat", 2),
        ("--label =", 2),
        ("--truncation nan", 2),
        ("--truncation inf", 2),
        ("--truncation x", 2),
        ("--style 42", 2),
        ("--style 42:9", 2),
        ("--device tpu", 2),
        ("--precision fp8", 2),
        ("--code nowhere.py", 3),
    ],
)
def test_bad_arguments_of_drawing(here: Path, model: Path, verb: str, line: str, code: int) -> None:
    said = call(verb, model, *line.split())
    assert said.code == code, said.err
    assert PRINTED.fullmatch(said.err) and not list(here.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "sample -o faces.jpg",
        "sample --columns 0",
        "sample --columns -3",
        "sample --enlarge 0",
        "sample --enlarge 17",
        "sample --size 64",
        "sample --solver euler:8",
        "sample --guidance 2",
        "export --to onnx --truncation 0.7",
        "sample --seeds 0-4096 -o grid.png",
        "walk --seeds 3",
        "walk --frames 1",
        "walk --frames 99999999999999999999",
        "walk --zoom 0",
        "walk --zoom 99999999999999999999",
        "walk --fps 0",
        "walk --fps nan",
        "walk --fps inf",
        "walk --fps 1e-300",
        "walk -o walk.avi",
        "walk -o walk",
    ],
)
def test_bad_arguments_of_one_verb(here: Path, model: Path, line: str) -> None:
    verb, *rest = line.split()
    said = call(verb, model, *rest)
    assert said.code == 2 and PRINTED.fullmatch(said.err), said.err
    assert not list(here.iterdir())


def test_a_missing_device_is_named(model: Path, here: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has every device")
    said = call("sample", model, "--device", "mps")
    assert said.code == 4 and "mps is not available" in said.err and PRINTED.fullmatch(said.err)


def test_errors_are_json_too(here: Path) -> None:
    said = call("train", "quikc", "--json")
    error = json.loads(said.out)["error"]
    assert said.code == error["code"] == 2 and said.err == ""
    assert error.keys() == {"code", "message", "why", "hint"} and "quick" in error["hint"]


def test_debug_shows_the_traceback(here: Path) -> None:
    with pytest.raises(UsageError):
        main(["train", "quikc", "--debug"])


def test_a_bug_of_ours_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from mien.cli import doctor

    def broken() -> None:
        raise ZeroDivisionError("several\nlines")

    monkeypatch.setattr(doctor, "doctor", broken)
    said = call("doctor")
    assert said.code == 1 and "bug in mien" in said.err and PRINTED.fullmatch(said.err)


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mien presets torch-gan-2015 | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "body",
    [
        "def broken(:",
        "import nothing_like_this",
        "1 / 0",
        "raise SystemExit(3)",
        "PRESETS = 5",
        "x = 1",
        "PRESETS = {'a': 1}",
    ],
)
def test_a_broken_file_of_ones_own_is_named(here: Path, body: str) -> None:
    (here / "own.py").write_text(body)
    said = call("train", "own.py:a")
    assert said.code == 2 and "own.py" in said.err and PRINTED.fullmatch(said.err), said.err


# Answers


def test_presets_as_json() -> None:
    listed = json.loads(call("presets", "--json").out)
    assert sorted(entry["name"] for entry in listed) == sorted(presets.PRESETS)
    shown = json.loads(call("presets", "torch-gan-2015", "--json").out)
    assert shown["name"] == "torch-gan-2015" and shown["recipe"]["lr"] == 1e-3
    assert all(entry["cost"]["parameters"] > 1000 for entry in listed)
    assert {entry["group"] for entry in listed} == set(presets.groups())
    assert "torch-gan-2015" in call("presets").out and "skaae/torch-gan" in call("presets", "torch-gan-2015").out


def test_presets_are_listed_by_group_with_their_cost() -> None:
    text = call("presets").out
    places = [text.index(f"\n{title}\n" if place else f"{title}\n") for place, title in enumerate(presets.groups())]
    assert places == sorted(places) and text.startswith("Today's best\n  quick ")
    assert "5 minutes of training, 0.8 M parameters" in text and "1,000,000 images of training" in text
    assert re.search(r"Cost: .* M parameters, .* GFLOP to draw an image\.", call("presets", "vae").out)


def test_two_presets_side_by_side() -> None:
    said = call("presets", "--diff", "quick", "cgan")
    header, *rows = said.out.splitlines()
    assert header.split() == ["quick", "cgan"] and ["conditional", "no", "yes"] in [row.split() for row in rows]
    column = header.index("cgan")
    assert all(row[column - 2 : column] == "  " and row[column] != " " for row in rows), said.out
    assert not any(row.startswith("model.max_width") for row in rows)  # equal in both
    data = json.loads(call("presets", "--diff", "quick", "vae", "--json").out)
    assert data["model"][0] == "ResidualGenerator" and "recipe" in data
    assert "do not differ" in call("presets", "--diff", "quick", "quick").out


def test_dry_run_counts_parameters(here: Path, blob_pack: Pack) -> None:
    line = ("train", "torch-gan-2015", "--data", blob_pack.path, "--model.width", "4", "--dry-run", "--images", "7")
    plan = json.loads(call(*line, "--json").out)
    assert plan["parameters"].keys() == {"model", "critic"} and all(n > 0 for n in plan["parameters"].values())
    assert plan["run"]["model"]["width"] == 4 and plan["run"]["side"] == 16 and plan["run"]["images"] == 7
    assert plan["run"]["precision"] in ("fp32", "bf16") and plan["data"]["count"] == 96
    assert sorted(path.name for path in here.iterdir()) == []  # nothing is made
    assert "parameters" in call(*line).out


def test_dry_run_of_the_default_needs_no_data_argument(blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from mien.training import resolve as resolve_module

    monkeypatch.setattr(resolve_module, "open_data", lambda data, side: blob_pack)
    for line in (["train"], ["train", "--minutes", "2"], ["train", "quick"]):
        assert json.loads(call(*line, "--dry-run", "--json").out)["run"]["preset"] == "quick"


def test_images_replace_the_minutes_of_a_preset(blob_pack: Pack, here: Path) -> None:
    line = ("train", "quick", "--data", blob_pack.path, "--dry-run", "--json")
    assert json.loads(call(*line).out)["run"]["minutes"] == 5.0
    assert json.loads(call(*line, "--images", "9").out)["run"]["minutes"] is None
    both = json.loads(call(*line, "--images", "9", "--minutes", "3").out)["run"]
    assert both["minutes"] == 3.0


def test_a_side_that_cannot_be_made_names_the_nearest(here: Path, tmp_path: Path) -> None:
    from tests.conftest import write_pack

    write_pack(here / "odd.pack", count=4, side=24)
    said = call("train", "quick", "--data", here / "odd.pack", "--dry-run")
    assert said.code == 2 and "24 px" in said.err and "--side 16 or 32" in said.err


@pytest.mark.parametrize("field", ["model.width", "recipe.critic.width", "recipe.critic.max_width"])
def test_networks_of_no_width_are_refused(here: Path, blob_pack: Pack, field: str) -> None:
    said = call("train", "quick", "--data", blob_pack.path, "--dry-run", f"--{field}", "-1")
    assert said.code == 2 and PRINTED.search(said.err), said.err


def test_cite() -> None:
    said = call("cite", "torch-gan-2015")
    assert said.code == 0 and said.out.count("@") >= 2 and "Generating Faces with Torch" in said.out
    assert json.loads(call("cite", "dcgan-2015", "--json").out)["keys"]
    assert json.loads(call("cite", "gan", "--json").out)["keys"] == ["r3gan2024", "soap2024", "edm2-2024"]
    assert json.loads(call("cite", "r3gan-2024", "--json").out)["keys"] == ["r3gan2024"]


def test_doctor() -> None:
    data = json.loads(call("doctor", "--json").out)
    assert data["torch"] == torch.__version__ and data["gigaflops"]["fp32"] > 0 and data["cores"] >= 1
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["optional-dependencies"]
    found = {name: {re.split(r"[>=<]", one)[0] for one in packages} for name, packages in declared.items()}
    del found["all"], found["dev"]
    assert {name: set(packages) for name, packages in data["extras"].items()} == found
    assert set(data["packages"]) == set().union(*found.values())


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("evaluate", 2, "nothing to evaluate"),
        ("evaluate nowhere", 3, "nowhere"),
        ("evaluate --real a --fake b", 3, "There is no a"),
        ("evaluate nowhere --real a", 2, "both named"),
        ("evaluate nowhere --metrics fod", 2, "fod"),
        ("evaluate nowhere --extractor notes.txt:eye", 3, "nowhere"),
        ("benchmark nowhere --minutes 1 --presets nosuch --dry-run", 2, "nosuch"),
        ("benchmark nowhere --minutes 1 --presets quick --metrics fod --dry-run", 2, "fod"),
        ("benchmark nowhere --minutes 1 --presets quick --samples 1", 2, "samples"),
        ("benchmark nowhere --minutes 1 --presets quick", 3, "nowhere"),
        ("benchmark drawn --minutes 1 --presets quick --extractor notes.txt:eye", 2, "not a Python file"),
        ("sample model.safetensors --code notes.txt", 2, "not a Python file"),
    ],
)
def test_arguments_are_checked_before_anything_is_downloaded(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a download began")

    monkeypatch.setattr("mien.downloads.weights.path", refuse)
    (here / "notes.txt").write_text("def eye(): ...")
    (here / "model.safetensors").write_bytes(model.read_bytes())
    said = call(*line.split())
    assert said.code == code and words in said.err and PRINTED.fullmatch(said.err), said.err


def test_a_side_that_a_network_cannot_make_leaves_no_run(here: Path) -> None:
    write_pack(here / "odd.pack", side=24)
    said = call("train", "dcgan-2015", "--data", "odd.pack", "--images", "8")
    assert said.code == 2 and PRINTED.search(said.err) and not Path("runs").exists(), said.err


@pytest.mark.parametrize(
    ("path", "why", "remedy"),
    [
        ("photos", "This folder has no `photos`.", "Did you mean photographs?"),
        ("photographs/x", "photographs has no `x`.", "Check the path."),
        ("fotos/2020/x", "This folder has no `fotos`.", "Did you mean photographs?"),
        ("/no/such/place", "/ has no `no`.", ""),
    ],
)
def test_what_is_missing_of_a_path_is_named(here: Path, path: str, why: str, remedy: str) -> None:
    """The remedy was "There are none." where a folder above it was missing or empty."""
    (here / "photographs").mkdir()
    said = call("train", "--data", path)
    assert said.code == 3 and f"why: {why}" in said.err and remedy in said.err, said.err


@pytest.mark.parametrize(
    "error, words",
    [
        (PermissionError(13, "Permission denied", "CACHE/packs/x"), "set MIEN_CACHE"),
        (OSError(30, "Read-only file system", "HOME/.cache"), "set MIEN_CACHE"),  # the user of a container has no home
        (OSError(30, "Read-only file system", "HOME"), "Choose another place"),
        (OSError(28, "No space left on device", "out/x"), "Free space"),
        (OSError(30, "Read-only file system", "out/x"), "Choose another place"),
    ],
)
def test_an_error_of_the_file_system_says_what_to_do(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(here / ".cache" / "mien"))
    error.filename = str(error.filename).replace("CACHE", str(here / ".cache" / "mien")).replace("HOME", str(here))
    monkeypatch.setattr("mien.__main__.find_verb", lambda _: (_ for _ in ()).throw(error))
    said = call("presets")
    assert said.code == 6 and words in said.err and PRINTED.fullmatch(said.err)


# Pictures


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cell(sheet: Any, row: int, column: int, side: int = 16) -> Any:
    top, left = GAP + row * (side + GAP), GAP + column * (side + GAP)
    return sheet[top : top + side, left : left + side]


def test_seed_42_is_the_same_face_everywhere(here: Path, model: Path) -> None:
    assert call("sample", model, "--seeds", "40-47", "--columns", "4", "-o", "grid.png").code == 0
    assert call("sample", model, "--seeds", "42", "7", "-o", "faces").code == 0
    assert call("sample", model, "--seeds=1,2,3", "--seeds", "42", "--columns", "4", "-o", "deep/other.png").code == 0
    assert call("walk", model, "--seeds", "42", "3", "--frames", "5", "-o", "strip.png").code == 0
    face = pixels(here / "faces" / "seed00000042.png")
    assert face.shape == (16, 16, 3) and face.std() > 5
    assert (cell(pixels(here / "grid.png"), 0, 2) == face).all()
    assert (cell(pixels(here / "deep" / "other.png"), 0, 3) == face).all()
    assert (cell(pixels(here / "strip.png"), 0, 0) == face).all()
    assert (pixels(here / "faces" / "seed00000007.png") != face).any()


def test_pictures_carry_their_recipe(here: Path, model: Path) -> None:
    call("sample", model, "--seeds", "3", "1", "--truncation", "0.7", "-o", "grid.png")
    recipe = read_recipe(here / "grid.png")
    assert recipe["seeds"] == [3, 1] and recipe["truncation"] == 0.7 and recipe["synthetic"] is True
    assert recipe["preset"] == "quick" and re.fullmatch(r"[0-9a-f]{64}", recipe["model"])
    call("sample", model, "--seeds", "5-6", "-o", "faces")
    assert read_recipe(here / "faces" / "seed00000006.png")["seeds"] == [6]
    assert sorted(path.name for path in (here / "faces").iterdir()) == ["seed00000005.png", "seed00000006.png"]


def test_sample_answers_in_json(here: Path, model: Path) -> None:
    answer = json.loads(call("sample", model, "--seeds", "5-6", "-o", "faces", "--json").out)
    assert answer["seeds"] == [5, 6] and all(Path(file).is_file() for file in answer["files"])


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "mp4"])
def test_walks(here: Path, model: Path, suffix: str) -> None:
    if suffix == "mp4":
        pytest.importorskip("av")
    said = call("walk", model, "--seeds", "3", "42", "7", "--frames", "9", "-o", f"walk.{suffix}", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"file": f"walk.{suffix}", "seeds": [3, 42, 7], "frames": 9}
    if suffix == "mp4":
        import av

        with av.open(str(here / "walk.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 9
        return
    with Image.open(here / f"walk.{suffix}") as image:
        if suffix == "png":
            assert image.size == (9 * (16 + GAP) + GAP, 16 + 2 * GAP)
        else:
            assert image.size == (64, 64) and image.n_frames == 9  # type: ignore[attr-defined]


def test_a_loop_comes_back(here: Path, model: Path) -> None:
    assert call("walk", model, "--seeds", "3", "42", "--frames", "4", "--loop", "-o", "loop.png").code == 0
    sheet = pixels(here / "loop.png")
    frames = [cell(sheet, 0, index) for index in range(4)]
    assert (frames[1] == frames[3]).all() and (frames[0] != frames[2]).any()  # there and back on the same path


# Anything at all


WORDS = [
    "", "-", "--", "-1", "0", "1", "nan", "inf", "1e400", "99999999999999999999", "-0.5", "²", "٣", "💥", "x", "None", "true", "[]",
    "{}", "=", "==", "..",
    "/", "/dev/null", "a" * 300, "a/b/c", "5-2", "0-", "1,2,,3", "\n", " ", "*", "%s", "$HOME", "'", '"', "\\",
    "--help", "-o", "--seeds", "--label", "--data", "--json", "--nope", "--no-flip", "--images", "--recipe.lr", "--model.width",
    "--truncation", "--frames", "--columns", "--out=", "--seeds=", "--recipe", "quick", "sample", "file.py:x", "Hat=2",
]  # fmt: skip


@pytest.fixture
def patience() -> Iterator[Callable[[int], None]]:
    """An alarm for a command that does not come back."""

    def ring(*_: object) -> None:
        raise AssertionError("it does not come back")

    old = signal.signal(signal.SIGALRM, ring)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def mutated(words: Sequence[str], kept: int, rng: random.Random) -> list[str]:
    """A command with a few words changed, dropped, doubled or put in. The first `kept` stay: they make it harmless."""
    line = list(words)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(kept, len(line))
        match rng.choice(["put", "put", "change", "drop", "double"]):
            case "put":
                line.insert(at, rng.choice(WORDS))
            case "change" if at < len(line):
                line[at] = rng.choice(WORDS)
            case "drop" if at < len(line):
                del line[at]
            case "double" if at < len(line):
                line.insert(at, line[at])
    return line


def test_two_hundred_random_commands(here: Path, model: Path, blob_pack: Pack, patience: Callable[[int], None]) -> None:
    """Never a traceback, never the exit code of a bug, and three lines whenever something is wrong."""
    photos = here / "photos"
    photos.mkdir()
    for number, image in enumerate(blobs(3, 16)):
        Image.fromarray(image).save(photos / f"{number}.png")
    train = [
        "train",
        "--dry-run",
        f"--data={blob_pack.path}",
        "--images",
        "8",
        "--recipe.lr",
        "0.1",
        "--model.width",
        "4",
    ]
    draw = [str(model), "--seeds", "3", "5"]
    assert call("data", "prepare", photos, "photos.pack", "--size", "16").code == 0
    for name in ("one", "other"):
        write_run(here / name, lines=5, grids=0)
    commands = [
        (3, train),
        (3, [*train, "--batch", "8", "--ema.half-life", "10", "--recipe.critic.width", "4", "--minutes", "1"]),
        (1, ["sample", *draw, "-o", "grid.png", "--columns", "2", "--truncation", "0.5", "--label", "Hat=1"]),
        (1, ["walk", *draw, "--frames", "4", "-o", "walk.gif", "--fps", "5", "--zoom", "1"]),
        (1, ["project", str(model), str(photos / "0.png"), "--steps", "3", "-o", "beside.png"]),
        (1, ["edit", str(model), "--direction", "component-1=1", "--seed", "3", "-o", "edit.png", "--strip", "3"]),
        (2, ["directions", str(model), "--unsupervised", "2"]),
        (2, ["data", "prepare", str(photos), "a.pack", "--size", "16", "--limit", "2", "--workers", "1"]),
        (2, ["data", "info", "photos.pack"]),
        (3, ["data", "fetch", "nothing", "--out", "x"]),
        (1, ["import", "photos/0.png", "-o", "imported.safetensors", "--preset", "began-zhao"]),
        (1, ["compare", "one", "other", "-o", "board.html", "--force"]),
        (1, ["presets", "quick", "--json"]),
        (1, ["cite", "quick", "--json"]),
    ]
    wrong = []
    for number in range(200):
        rng = random.Random(number)
        kept, words = commands[number % len(commands)]
        line = mutated(words, kept, rng) if number % 10 else rng.choices(WORDS, k=rng.randint(1, 4))
        patience(30)
        try:
            said = call(*line)
        except BaseException as error:
            wrong.append((line, repr(error)))
            continue
        finally:
            patience(0)
        asked_json = "--json" in line
        if said.code in (0, 2, 3, 4, 6, 8, 9):
            lines = PRINTED.search(said.err) if not asked_json else "error" in said.out
            fine = "Traceback" not in said.err and (said.code == 0 or lines)
        else:
            fine = False
        if not fine:
            wrong.append((line, f"{said.code} {said.err[-300:]}"))
    assert not wrong, "\n".join(f"{line}: {what}" for line, what in wrong)
    assert Path.cwd() == here


def test_without_the_extra_web_the_explorer_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.web.background.find_spec", lambda name: None)
    said = call("explore")
    assert said.code == 2 and "pip install 'mien[web]'" in said.err and PRINTED.fullmatch(said.err)
    with pytest.raises(UsageError, match="two packages"):
        mien.explore()


def test_what_is_missing_is_named(here: Path) -> None:
    refused = call("sample")
    assert refused.code == 2 and "`mien sample` needs MODEL." in refused.err and "`faces` or `drawn`" in refused.err
    assert "`mien data prepare` needs SOURCE." in call("data", "prepare").err
    assert "--data needs a value." in call("train", "quick", "--data").err
    empty = call("walk", "faces", "--seeds")  # no walk through seeds that nobody named
    assert empty.code == 2 and "--seeds needs a value." in empty.err and not list(here.iterdir())


class Downloaded(BaseException):
    """A model was asked for."""


MODEL = "hf://me/mine"
FAULTY = [
    "sample MODEL -o a.txt", "sample MODEL --combine ,", "sample MODEL --code notes.txt", "walk MODEL --seeds 0",
    "walk MODEL -o a.txt",
    "walk MODEL --frames 0", "walk MODEL --fps 0", "walk MODEL --zoom 0", "walk MODEL --photos none.png a.png",
    "walk MODEL --label-from bad --label-to a=1", "project MODEL none.png", "project MODEL a.png --steps -1",
    "project MODEL a.png --label bad", "project MODEL a.png --crop none", "project MODEL none/ -o out",
    "edit MODEL --photo none.png --direction a=1", "edit MODEL --seed x --direction a=1",
    "edit MODEL --latent none.safetensors --direction a=1", "export MODEL --to onnx -o x.txt", "export MODEL --to hub --push bad",
    "directions MODEL --data none.pack", "directions MODEL --unsupervised 0", "directions MODEL --data a.png --images 0",
    "evaluate MODEL --data none.pack", "evaluate MODEL --data . --extractor bad", "evaluate MODEL --code notes.txt",
    "explore MODEL --code notes.txt", "train quick --from MODEL --data none.pack",
]  # fmt: skip


@pytest.mark.parametrize("words", FAULTY)
def test_arguments_are_checked_before_a_model_is_downloaded(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each downloaded the model first, and then said what is wrong with the rest of the line."""
    from mien.downloads import hub

    def fetch(address: str) -> Path:
        raise Downloaded(address)

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("a.png")
    Path("notes.txt").write_text("x")
    done = call(*words.replace("MODEL", MODEL).split())
    assert done.code in (2, 3), done.err
    with pytest.raises(Downloaded):
        call("sample", MODEL)
