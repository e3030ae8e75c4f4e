"""Networks as shapes alone: what they are for a file's header, and what they cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mien import presets
from mien.core.contracts import ImageSpec

LARGEST = 3_000_000  # weights of a model that is built here


@pytest.mark.parametrize("name", presets.PRESETS)
def test_an_outline_has_the_shapes_of_the_model(name: str) -> None:
    run = presets.PRESETS[name]
    faces = ImageSpec(side=run.side)
    outline = run.model.outline(faces).state_dict()
    assert all(tensor.is_meta for tensor in outline.values())
    if sum(tensor.numel() for tensor in outline.values()) <= LARGEST:
        built = run.model.build(faces).state_dict()
        assert {key: (t.shape, t.dtype) for key, t in outline.items()} == {
            key: (t.shape, t.dtype) for key, t in built.items()
        }


def test_loading_a_model_does_not_import_torchs_compiler() -> None:
    """It took two seconds of each command: torch imports it to fill a tensor that has no values."""
    code = "import sys, mien; mien.load('faces').sample([1]); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
