"""What a release installs: wheel and sdist hold what they should, and the first tutorial runs in new environments (slow)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_tutorials import script

TORCH = "torch==2.13.0"  # first and by itself: a looser request may bring gigabytes of CUDA packages
WHEEL_BYTES = 12_000_000


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**settings, **more}, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def newest() -> str:
    """The newest Python here, after 3.11, that mien and torch support."""
    for minor in (14, 13, 12):
        installed = [*Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"), shutil.which(f"python3.{minor}")]
        for python in map(str, filter(None, installed)):
            if not subprocess.run(
                [python, "-c", "import venv"], capture_output=True
            ).returncode:  # a shim may lead nowhere
                return python
    pytest.skip("SKIPPED: no Python newer than 3.11 is installed here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, built in a new environment."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "venv", folder / "builder", cwd=folder)
    python = folder / "builder" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "build", "twine", cwd=folder)
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
    run(python, "-m", "twine", "check", "--strict", *(folder / "dist").iterdir(), cwd=folder)
    return folder / "dist"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wheel_and_sdist_are_small(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size < WHEEL_BYTES
    assert sdist.stat().st_size < 4 * WHEEL_BYTES


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("installer", "extras", "new"),
    [("pip", "", False), ("pip", "[all]", False), ("uv", "", False), ("pip", "", True), ("uv", "[all]", True)],
    ids=["pip", "pip-all", "uv", "pip-newest", "uv-all-newest"],
)
def test_the_first_tutorial_runs_in_a_new_environment(
    installer: str, extras: str, new: bool, built: Path, tmp_path: Path
) -> None:
    (wheel,) = built.glob("*.whl")
    run(newest() if new else sys.executable, "-m", "venv", tmp_path / "new", cwd=tmp_path)
    python = tmp_path / "new" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q"]
    if installer == "uv":
        run(*install, "uv", cwd=tmp_path)
        install = [tmp_path / "new" / "bin" / "uv", "pip", "install", "-q", "--python", python]
    run(*install, TORCH, cwd=tmp_path)
    run(*install, f"{wheel}{extras}", cwd=tmp_path)
    (tmp_path / "tutorial.py").write_text(script("1-first-faces.ipynb"), encoding="utf-8")
    run(python, "tutorial.py", cwd=tmp_path, MIEN_TUTORIAL="toy", OMP_NUM_THREADS="1", HOME=str(tmp_path))
    assert [path.name for path in tmp_path.glob("*.png")], "no picture"
