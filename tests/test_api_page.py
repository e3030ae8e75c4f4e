"""docs/api.md and the typed options of `mien.train`: written from the source, and every example runs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import griffe
import pytest
import torch
from docs import api_examples

import mien
from mien.core.run import Run, field_comments
from mien.data.pack import Pack
from mien.training.run_options import RunOptions
from tests.conftest import tiny, write_model

ROOT = Path(__file__).parent.parent
OPTIONS = ROOT / "src" / "mien" / "training" / "run_options.py"
MARK = "    # Written from `Run` by `MIEN_WRITE_DOCS=1 pytest tests/test_api_page.py`.\n"


def options() -> str:
    """The fields of RunOptions, from the annotations and comments of Run."""
    (run,) = ast.parse(textwrap.dedent(inspect.getsource(Run))).body
    assert isinstance(run, ast.ClassDef)
    comments = field_comments(Run)
    lines = []
    for node in run.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, hint = node.target.id, ast.unparse(node.annotation).replace("'", '"')
        hidden = node.value is not None and "flag" in ast.unparse(node.value)
        if name != "preset" and not hidden:
            lines.append(f"    {name}: {hint}\n" + (f'    """{comments[name]}"""\n' if comments.get(name) else ""))
    return "".join(lines)


def test_the_typed_options_are_those_of_a_run() -> None:
    text = OPTIONS.read_text(encoding="utf-8")
    head, _, found = text.partition(MARK)
    if os.environ.get("MIEN_WRITE_DOCS"):
        OPTIONS.write_text(found_text := head + MARK + options(), encoding="utf-8")
        found = found_text.partition(MARK)[2]
    assert found == options(), "MIEN_WRITE_DOCS=1 pytest tests/test_api_page.py"
    hints, run = get_type_hints(RunOptions), get_type_hints(Run)
    assert hints and all(hints[name] == run[name] for name in hints)
    assert {"minutes", "images", "batch", "seed", "evaluate_every"} <= hints.keys()


def function_of(name: str) -> Any:
    return getattr(api_examples, f"example_of_{name.lower()}")


def examples() -> list[str]:
    return [name for name in mien.__all__ if name != "__version__"]


def body(name: str) -> str:
    lines = inspect.getsource(function_of(name)).splitlines()[1:]
    return textwrap.dedent("\n".join(lines))


def location(name: str) -> str:
    """Where a public name is defined, as griffe finds it."""
    if name == "load":
        return "mien.sampling.sampler.Sampler.load"
    value = getattr(mien, name)
    return "mien.presets" if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"


def signature(found: griffe.Object, name: str) -> str:
    if not isinstance(found, griffe.Function):
        return name
    parts = []
    for parameter in found.parameters:
        if parameter.name == "self":
            continue
        star = {"variadic positional": "*", "variadic keyword": "**"}.get(
            parameter.kind.value if parameter.kind else "", ""
        )
        default = f" = {parameter.default}" if parameter.default is not None and not star else ""
        note = f": {parameter.annotation}" if parameter.annotation is not None else ""
        parts.append(f"{star}{parameter.name}{note}{default}")
        if (
            parameter.kind is griffe.ParameterKind.keyword_only
            and "*" not in parts
            and not any(p[0] == "*" for p in parts)
        ):
            parts.insert(-1, "*")
    line = f"{name}({', '.join(parts)}) -> {found.returns}"
    return line if len(line) <= 110 else f"{name}(\n    " + ",\n    ".join(parts) + f",\n) -> {found.returns}"


def page() -> str:
    """docs/api.md."""
    package = griffe.load("mien", search_paths=[str(ROOT / "src")])
    parts = [
        "# The Python API",
        "Images are float32 `[n, C, H, W]` in [-1, 1]. Errors are subclasses of `mien.errors.MienError` with what happened, why, "
        "and what to do. Every example runs as a test ([api_examples.py](api_examples.py)).",
        "<!-- Written from docstrings by `MIEN_WRITE_DOCS=1 pytest tests/test_api_page.py`; do not edit. -->",
    ]
    for name in examples():
        found = package[location(name).removeprefix("mien.")]
        text = found.docstring.value if found.docstring else ""
        parts += [f"## mien.{name}", f"```python\n{signature(found, f'mien.{name}')}\n```", plain(text)]
        if isinstance(found, griffe.Class):
            rows = []
            for member in found.members.values():
                if member.name.startswith("_") or member.is_alias or not member.docstring:
                    continue
                title = signature(member, member.name) if isinstance(member, griffe.Function) else member.name
                title = " ".join(title.split()).replace("( ", "(").replace(", )", ")")
                rows.append(f"- `{title}`: {' '.join(plain(member.docstring.value).split())}")
            fields = [m for m in found.members.values() if isinstance(m, griffe.Attribute) and not m.docstring]
            config = [f"`{m.name}: {m.annotation}`" for m in fields if m.annotation and not m.name.startswith("_")]
            parts += [f"Fields: {', '.join(config)}."] if config else []
            parts += ["\n".join(rows)] if rows else []
        parts.append(f"```python\n{body(name)}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """A docstring as Markdown: its table of parameters as a list."""
    before, _, after = text.partition("Parameters\n----------\n")
    listed = re.sub(r"(?m)^(\w+)\n((?:    .*\n?)+)", lambda m: f"- `{m[1]}`: {' '.join(m[2].split())}\n", after)
    return f"{before}{listed}".strip()


def test_the_page_is_current() -> None:
    file = ROOT / "docs" / "api.md"
    if os.environ.get("MIEN_WRITE_DOCS"):
        file.write_text(page(), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == page(), "MIEN_WRITE_DOCS=1 pytest tests/test_api_page.py"


@pytest.mark.parametrize("name", examples())
def test_every_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blob_pack: Pack) -> None:
    """With a model and a pack of 16 px in place of real ones: `faces.safetensors` and `my.pack`."""
    monkeypatch.chdir(tmp_path)
    write_model("vae", tmp_path, blob_pack).rename("faces.safetensors")
    Path("my.pack").symlink_to(blob_pack.path)
    small = tiny(mien.presets.PRESETS["quick"])
    monkeypatch.setitem(mien.presets.PRESETS, "quick", small)
    function_of(name)()
    assert torch.is_grad_enabled()
