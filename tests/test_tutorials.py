"""The notebooks of docs/tutorials: each runs at toy size in a process of its own, ends with a picture, and holds no outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("warm_starts")

FOLDER = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
PRELUDE = '''
import shlex
from mien.__main__ import main
from mien.report import observers

observers.plot_run = lambda run_dir: []  # two seconds of each training

def shell(line):
    """`!mien ...` of a notebook, in this process."""
    code = main(shlex.split(line)[1:])
    assert code == 0, f"{line}: exit {code}"
'''


def cells(name: str, kind: str) -> list[str]:
    notebook = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def script(name: str) -> str:
    """The code cells in order as one Python program; lines that begin with `!mien` are calls of the command line."""
    code = re.sub(r"^( *)!(mien .*)$", r'\1shell(f"\2")', "\n\n".join(cells(name, "code")), flags=re.M)
    return f"{PRELUDE}\nif __name__ == '__main__':\n    exec(compile({code!r}, 'notebook', 'exec'))\n"


def test_there_are_six() -> None:
    assert [name[0] for name in NOTEBOOKS] == ["1", "2", "3", "4", "5", "6"]


def run_notebook(name: str, folder: Path, timeout: int, **more: str) -> None:
    """Run a notebook in a process of its own; it must end well and leave a picture."""
    (folder / "tutorial.py").write_text(script(name), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "tutorial.py"],
        cwd=folder,
        env={
            **os.environ,
            "HTTPS_PROXY": "http://127.0.0.1:9",  # a download would fail
            "HTTP_PROXY": "http://127.0.0.1:9",
            **more,
        },
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in folder.glob("*.png") if not path.name.endswith("-check.png")], "no picture"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    run_notebook(name, tmp_path, 300, MIEN_TUTORIAL="toy", OMP_NUM_THREADS="1")


@pytest.mark.slow
@pytest.mark.timeout(10_000)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_at_full_size(name: str, tmp_path: Path) -> None:
    """As a reader runs it: up to half an hour of training."""
    run_notebook(name, tmp_path, 9_000, MIEN_TUTORIAL="")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs_and_ends_with_a_picture(name: str) -> None:
    notebook = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "".join(code[-1]["source"]).splitlines()[-1].startswith("Image.open(mien.save_grid(")
    assert 'os.environ.get("MIEN_TUTORIAL") == "toy"' in "".join(code[0]["source"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_between_notebooks_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", "\n".join(cells(name, "markdown"))):
        assert (FOLDER / target).exists(), f"{name} links to {target}"


def test_the_own_model_is_the_one_of_the_documentation() -> None:
    """Notebook 6 holds docs/own_model.py, so that what is taught is what the other tests prove."""
    own = (ROOT / "docs" / "own_model.py").read_text(encoding="utf-8")
    _, _, body = own.partition("from collections.abc")
    (code,) = [text for text in cells(NOTEBOOKS[5], "code") if text.startswith('code = """')]
    assert body.strip() in code
