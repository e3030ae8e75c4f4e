"""The card of an exported folder: its lines read the weights with huggingface_hub and safetensors alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from mien.data.pack import Pack
from mien.export.folder import USE, write_folder
from mien.sampling.sampler import Sampler
from tests.conftest import write_model

#: Stands for huggingface_hub: the folder is local. An import of mien fails.
FAKE = """
import sys
from types import SimpleNamespace

sys.modules["huggingface_hub"] = SimpleNamespace(hf_hub_download=lambda repository, name: f"{FOLDER}/{name}")
sys.modules["mien"] = None
"""


def test_the_lines_of_the_card_read_the_weights_without_mien(blob_pack: Pack, tmp_path: Path) -> None:
    model = write_model("quick", tmp_path, blob_pack)
    folder = write_folder(Sampler.load(model, device="cpu"), "faces", model, tmp_path / "folder")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert USE in card
    lines = re.findall(r"```python\n(.*?)```", card, re.S)[-1]
    assert len([line for line in lines.splitlines() if line]) <= 10
    tensors = load_file(model)
    name, expected = next(iter(tensors.items()))
    check = f"assert len(tensors) == {len(tensors)} and tensors[{name!r}].shape == {tuple(expected.shape)}\n"
    done = subprocess.run(
        [sys.executable, "-c", f"FOLDER = {str(folder)!r}\n{FAKE}\n{lines}\n{check}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'kind'" in done.stdout
