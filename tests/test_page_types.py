"""The page's code is plain JavaScript with types in its comments, and they hold."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import ROOT


def test_the_types_of_the_page_hold() -> None:
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("SKIPPED TYPES OF THE PAGE: no tsc on this machine (npm install --global typescript)")
    done = subprocess.run(
        [tsc, "--project", str(ROOT / "src" / "mien" / "web" / "tsconfig.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
