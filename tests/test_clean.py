"""Every preset is clean: its training sees the faces of its own data, and no network that has learned from others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mien import presets
from mien.data.pack import Pack
from mien.downloads import weights
from mien.training.experiment import train
from tests.conftest import tiny, write_pack

FAMILIES = (
    *(
        "quick",
        "gan",
        "cgan",
        "r3gan-2024",
        "dcgan-2015",
        "torch-gan-2015",
        "homogan-15-fixed",
        "began-2017",
        "began-zhao",
    ),
    *("vae", "vae-torch-2015", "vae-simpsons-2023", "vaegan-2016", "vaegan-torch-2015", "flow", "cppn-2016"),
    "cppn-residual-2016",
    "cppn-residual-2016-fixed",
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "labelled.pack", labels=("Male", "Smiling"))


@pytest.mark.parametrize("preset", FAMILIES)
def test_no_preset_learns_from_a_network_that_has_seen_other_data(
    preset: str, tmp_path: Path, labelled: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network trained on ImageNet would leak into FID, whose features come from there too. The report and the health check
    of a run, which are there to judge, load none either."""

    def refused(name: str) -> None:
        raise AssertionError(f"the training of {preset} loads {name}")

    for function in ("tensors", "path"):
        monkeypatch.setattr(weights, function, refused)
    run = dataclasses.replace(
        tiny(presets.PRESETS[preset]), side=labelled.side, images=16, device="cpu", precision="fp32"
    )
    out = train(run, data=labelled.path, out=tmp_path / "run")
    assert (out / "checkpoints" / "LATEST").exists()
