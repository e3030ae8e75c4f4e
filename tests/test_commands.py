"""Every command of the README and of the how-to pages runs at toy size, or stands below with the reason why not."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from benchmarks import kills
from PIL import Image

from mien import presets
from mien.__main__ import VERBS, main
from mien.training import growing
from tests.conftest import ROOT, write_pack

LABELS = ("Male", "Smiling", "Eyeglasses", "No_Beard", "Bald", "Wearing_Hat")

#: What begins a command -> why no test runs it, and where its parts are tested.
NOT_RUN = {
    "make ": "what the makefile runs: the demo's commands are in this page too",
    "pip install": "needs a registry",
    "torchrun ": "several processes: test_parallel.py, test_scale.py, test_bulk.py",
    "sbatch ": "needs a cluster: test_deploy.py",
    "sky ": "needs a cloud: test_deploy.py",
    "docker ": "needs a daemon: test_deploy.py",
    "python benchmarks/gpu": "needs a GPU: test_scale.py runs its toy",
    "python benchmarks/processes": "minutes of several processes: a measurement",
    "python benchmarks/memory": "an hour and gigabytes of files: a measurement",
    "python -m http.server": "serves until it is stopped",
    "curl ": "needs the server: test_web_security.py",
    "location ": "a line of nginx",
    "export MIEN_": "a line of a shell",
    "mien explore": "serves until it is stopped: test_explore.py",
    "mien benchmark": "needs Inception's weights: test_benchmark.py",
    "mien evaluate RUN --prior fitted --metrics fid": "needs Inception's weights: test_densities.py",
    "mien evaluate runs/00000-* --metrics fid": "needs Inception's weights: test_evaluate.py",
    "mien export RUN --to web": "needs the page's runtime from npm: test_export.py",
    "mien export runs/00000-* --to web": "needs the page's runtime from npm: test_export.py",
    "mien data fetch": "needs a network: test_fetch.py, test_fetch_weights.py",
    "mien data prepare ~/.cache": "needs the file that was fetched: test_data_sources.py",
    "mien train cgan --data labelled.pack --from hf://": "needs the Hub: test_hub_card.py",
    "mien train gan --data s3:": "needs a server: test_remote.py",
    "mien train gan --data https:": "needs a server: test_remote.py",
    "mien data check https:": "needs a server: test_remote.py",
    "mien train --minutes 30 --track": "test_trackers.py",
    "mien directions RUN --measured": "needs the measure's weights: test_latent_verbs.py",
}
QUICK = "runs/00000-quick-drawn64-s0"
CAPITALS = {"RUN": "vae", "QUICK": QUICK}
PACKS = ("mine", "faces32", "faces", "celeba")


def how_to_pages() -> list[str]:
    """README.md and the pages of the site's How-to part."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    (pages,) = (part["How-to"] for part in navigation if "How-to" in part)
    return ["README.md", *(f"docs/{path}" for page in pages for path in page.values())]


def commands(page: str) -> list[str]:
    """The lines of the fenced blocks without a language, and the commands of indented blocks; without their comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    lines = [line for language, block in fenced if language in ("", "bash", "sh") for line in block.splitlines()]
    lines += re.findall(r"^    ((?:mien|torchrun|sbatch|sky|docker|python|pip|curl) .*)$", text, re.M)
    return [bare for line in lines if (bare := re.sub(r"\s+#.*$", "", line).strip())]


def reason(command: str) -> str:
    """The entry of NOT_RUN that a command has; empty if it runs."""
    return next((start for start in NOT_RUN if command.startswith(start)), "")


def toy(command: str) -> list[str]:
    """The arguments of a command in the folder of this test: small networks, few images, few steps."""
    line = re.sub(r" --(minutes|model\.width|recipe\.critic\.width) \S+", "", command)
    line = re.sub(r"(?<= --steps )\d+", "2", line)
    line = re.sub(r"(?<= --seeds )0-\d{3,}", "0-15", line)
    line = re.sub(r"(?<= --frames )\d{3,}", "120", re.sub(r"(?<=walk RUN --seeds )0-99", "0-9", line))
    line = re.sub(r"(?<= --shard-size )\d+", "8", line)
    line = re.sub(r"(?<= --unsupervised )\d+", "4", line)
    line = line.replace(" --style 7:2-3", " --style 7:1-2")  # 16 px have two stages
    line = re.sub(r"(?<= --size )64", "16", line)
    for name, path in CAPITALS.items():
        line = re.sub(rf"(?<= ){name}(?= |$)", path, line)
    words = [
        found for word in shlex.split(line)[1:] for found in (map(str, Path().glob(word)) if "*" in word else [word])
    ]
    if words[0] == "train":
        if len(words) == 1 or words[1].startswith("-"):
            words.insert(1, "quick")
        words += [] if "--data" in words else ["--data", "toy.pack"]
        cut = [] if ":" in words[1] or "--from" in words else kills.cut_down(presets.find(words[1])[0])
        words += [*cut, "--images", "16", *kills.OFTEN]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, archives, packs, runs and pictures by the names that the pages use."""
    home = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)

    def picture(side: tuple[int, int] = (40, 40)) -> Image.Image:
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        return small.resize(side, Image.Resampling.BICUBIC)

    for place in ("photos", "fifty-photographs"):
        (home / place).mkdir()
        for number in range(12):
            picture().save(home / place / f"{number:02d}.jpg")
    for name in ("me", "a", "b"):
        picture().save(home / f"{name}.jpg")
    table = [
        f"{number:06d}.jpg " + " ".join("1" if number >> bit & 1 else "-1" for bit in range(6)) for number in range(64)
    ]
    with zipfile.ZipFile(home / "celeba.zip", "w") as celeba, zipfile.ZipFile(home / "utkface.zip", "w") as utk:
        celeba.writestr("list_attr_celeba.txt", "\n".join(["64", " ".join(LABELS), *table]) + "\n")
        for number in range(64):
            data = BytesIO()
            picture((178, 218)).save(data, "JPEG")
            celeba.writestr(f"img_align_celeba/{number:06d}.jpg", data.getvalue())
            utk.writestr(f"{number + 10}_{number % 2}_0_20170109{number:04d}1200.jpg.chip.jpg", data.getvalue())
    write_pack(home / "toy.pack", labels=LABELS)
    write_pack(home / "faces64.pack", side=32)
    (home / "docs").mkdir()
    (home / "docs" / "own_model.py").write_text((ROOT / "docs" / "own_model.py").read_text(encoding="utf-8"))
    with contextlib.chdir(home):
        for preset, out in (("vae", "vae"), ("quick", QUICK), ("gan", "runs/00007-gan-celeba64-s0")):
            assert main(toy(f"mien train {preset} --out {out}")) == 0
        assert main(["sample", QUICK, "--seeds", "0-3", "-o", "faces.png"]) == 0
        assert main(["walk", QUICK, "--seeds", "3", "42", "--frames", "4", "-o", "walk.mp4"]) == 0
    return home


@pytest.mark.parametrize("page", how_to_pages())
def test_the_commands_of_a_page_run(
    page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growing, "STEPS", 4)
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "here"))
    for name in PACKS:
        if not any(f" {name}.pack" in line for line in commands(page) if line.startswith("mien data prepare")):
            shutil.copytree("toy.pack", f"{name}.pack")
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for command in commands(page):
        if reason(command):
            if command.startswith("mien "):  # its verb and flags exist
                verb = re.match(r"mien ([\w-]+)(?: (\w+))?", command)
                assert verb is not None and (verb[1] in VERBS or f"{verb[1]} {verb[2]}" in VERBS), command
                assert not [
                    flag for flag in re.findall(r" (--[a-z][\w.-]*)", command) if f"`{flag}" not in reference
                ], command
            continue
        assert command.startswith("mien "), f"{page}: {command} is neither run nor in NOT_RUN"
        assert main(toy(command)) == 0, f"{page}: {command}: {capsys.readouterr().err[-1500:]}"


def test_every_page_has_commands_and_every_reason_is_used() -> None:
    found = {page: commands(page) for page in how_to_pages()}
    assert len(found) == 10 and not [page for page, lines in found.items() if not lines]
    used = {reason(command) for lines in found.values() for command in lines}
    assert set(NOT_RUN) <= used, set(NOT_RUN) - used
    run = [command for lines in found.values() for command in lines if not reason(command)]
    assert len(run) >= 35, len(run)
