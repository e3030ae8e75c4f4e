"""Explanation pages: the code in them is the source's, and their exercises run at toy size."""

from __future__ import annotations

import ast
import os
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from benchmarks import kills

from mien import presets
from mien.__main__ import main
from mien.data.synthetic import LABEL_NAMES
from tests.conftest import ROOT, write_pack

FOLDER = ROOT / "docs" / "explanation"
PAGES = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "README.md")
CODE = re.compile(r"<!-- code: (\S+) (\S+) -->\n+(?:```python\n.*?```\n+)?", re.S)


def source(file: str, name: str) -> str:
    """The source of a function or of a class's method, without its docstring."""
    text = (ROOT / "src" / "mien" / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        (node,) = (child for child in ast.iter_child_nodes(node) if getattr(child, "name", "") == part)
    assert isinstance(node, ast.FunctionDef)
    lines = text.splitlines()
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        assert first.end_lineno is not None
        del lines[first.lineno - 1 : first.end_lineno]
        return textwrap.dedent(
            "\n".join(lines[node.lineno - 1 : (node.end_lineno or 0) - first.end_lineno + first.lineno - 1])
        )
    return textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))


def exercises(name: str) -> list[str]:
    """The commands of a page."""
    text = (FOLDER / name).read_text(encoding="utf-8").partition("## Exercises")[2]
    return re.findall(r"^mien .+$", text, re.M)


def toy(command: str, data: Path) -> list[str]:
    """A command's arguments; a training has 16 images, the toy pack and small networks."""
    words = shlex.split(command)[1:]
    if words[0] != "train":
        return words
    words = re.sub(r" --(minutes|side|batch|model\.width) \S+", "", shlex.join(words)).split(" ")
    return [*words, "--data", str(data), "--images", "16", *kills.cut_down(presets.find(words[1])[0]), *kills.OFTEN]


@pytest.mark.parametrize("name", PAGES)
def test_the_code_is_the_code_that_trains(name: str) -> None:
    page = FOLDER / name
    text = page.read_text(encoding="utf-8")
    current = CODE.sub(lambda m: f"<!-- code: {m[1]} {m[2]} -->\n```python\n{source(m[1], m[2])}\n```\n\n", text)
    if os.environ.get("MIEN_WRITE_DOCS"):
        page.write_text(current, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == current, "MIEN_WRITE_DOCS=1 pytest tests/test_explanation.py"
    assert CODE.search(text) is not None


@pytest.mark.parametrize("name", PAGES)
def test_exercises_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = LABEL_NAMES if name == "conditional-gan.md" else ()  # those of the drawn faces
    pack = write_pack(tmp_path / "toy.pack", labels=labels)
    commands = exercises(name)
    assert len(commands) >= 4 and all("--minutes 1 " in line for line in commands if line.startswith("mien train"))
    for command in commands:
        assert main(toy(command, pack.path)) == 0, command


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_parts_and_names_presets_and_papers(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    for part in ("## What it optimises", "## What goes wrong", "## Exercises", "```text"):
        assert part in text
    named = re.search(r"Presets?:(.*?)\n\n", text, re.S)
    assert named is not None
    found = re.findall(r"`([a-z0-9-]+)`", named[1])
    assert found and set(found) <= set(presets.PRESETS)
    assert re.search(r"arXiv:\d{4}\.\d{5}|hardmaru", text)
    assert f"]({name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
