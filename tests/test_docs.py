"""The documentation says what the code does: the reference page is generated, and everything public stands somewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mien
from mien.__main__ import VERBS
from mien.cli.flags import app_of, plain, shown_default
from mien.core.run import config_fields
from mien.presets import PRESETS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*DOCS.glob("*.md"), ROOT / "README.md"]


#: Flags of `mien train` that stand in the tables of the presets instead.
RUN_FIELDS = ("--model.", "--recipe.", "--ema.")


class Flag(NamedTuple):
    """One line of a verb's help."""

    names: tuple[str, ...]
    default: str
    help: str


def flags_of(function: Callable[..., Any], name: str) -> Iterator[Flag]:
    """What the help of a verb lists, for the reference page."""
    for argument in app_of(function, name).assemble_argument_collection(parse_docstring=True):
        if argument.show:
            default = argument.field_info.default
            absent = default is argument.field_info.empty
            yield Flag(argument.names, (not absent and shown_default(default)) or "", argument.parameter.help or "")


def flag_text(flag: Flag) -> str:
    """`--size`: what it is. Default 64."""
    names = ", ".join(f"`{name}`" for name in flag.names)
    default = f" Default: `{flag.default}`." if flag.default else ""
    return f"{names}: {' '.join(flag.help.split()).rstrip('.')}.{default}"


def reference() -> str:
    """docs/reference.md: verbs with their flags, presets with their fields. Write it anew with MIEN_WRITE_DOCS=1."""
    parts = ["# Reference", "Written from the code by `MIEN_WRITE_DOCS=1 make test`; do not edit.", "## Verbs"]
    for name, verb in VERBS.items():
        module, function = verb.target.split(":")
        made = getattr(importlib.import_module(module), function)
        if verb.dynamic_flags:
            made, _ = made([])
        text = (made.__doc__ or "").partition("Parameters\n")[0].rstrip()
        lines = [line.removeprefix("    ") for line in text.splitlines()]
        parts += [f"### mien {name}", "\n".join(lines).strip()]
        flags = [flag for flag in flags_of(made, name) if not flag.names[0].startswith(RUN_FIELDS)]
        parts += ["\n".join(f"- {flag_text(flag)}" for flag in flags)] if flags else []
    parts.append("## Presets")
    for run in PRESETS.values():
        parts += [f"### {run.preset}", f"{run.story[0].upper()}{run.story[1:]}."]
        parts += ["\n".join(f"- {note}" for note in run.notes)]
        before = {k.name: k.value for k in config_fields(PRESETS[run.after])} if run.after else {}
        parts += [f"Against {run.after}: {run.change}. The other fields stay."] if run.after else []
        parts += ["\n".join(["```", *run.prepare, "```"])] if run.prepare else []
        changed = [k for k in config_fields(run) if k.name not in before or before[k.name] != k.value]
        rows = [f"| `--{k.name.replace('_', '-')}` | `{plain(k.value)}` | {k.help} |" for k in changed]
        parts += ["| flag | default | |\n|---|---|---|\n" + "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def test_the_reference_is_current() -> None:
    page = DOCS / "reference.md"
    if os.environ.get("MIEN_WRITE_DOCS"):
        page.write_text(reference(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == reference(), "run MIEN_WRITE_DOCS=1 make test"


@pytest.mark.parametrize("name", PRESETS)
def test_every_field_is_explained(name: str) -> None:
    assert [field.name for field in config_fields(PRESETS[name]) if not field.help] == []


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


MANY = 16  # files: of a folder with more the tour shows its one line alone


def summary(file: Path) -> str:
    """The first sentence of a module's docstring."""
    docstring = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[a-z0-9)`\"]{2}[.])\s(?=[A-Z`])", docstring)[0].rstrip(".")


def tour() -> str:
    """The tree of CONTRIBUTING.md: every folder, and every file of the small ones, with the first sentence of its docstring."""
    source = ROOT / "src" / "mien"
    lines = ["src/mien/"]

    def line(depth: int, name: str, words: str) -> None:
        label = f"{'    ' * depth}{name}".ljust(30)
        lines.append(f"{label} {textwrap.shorten(words, 100, placeholder=' …')}")

    for path in sorted(source.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py":
            line(1, path.name, summary(path))
        elif path.is_dir() and path.name != "__pycache__":
            line(1, f"{path.name}/", summary(path / "__init__.py"))
            files = [file for file in sorted(path.glob("*.py")) if file.name != "__init__.py"]
            for file in files if len(files) <= MANY else ():
                line(2, file.name, summary(file))
    return "\n".join(lines)


def test_the_tour_of_the_source_is_current() -> None:
    page = ROOT / "CONTRIBUTING.md"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split("make test`. -->\n```\n", 1)
    _, after = rest.split("```\n", 1)
    current = f"{before}make test`. -->\n```\n{tour()}\n```\n{after}"
    if os.environ.get("MIEN_WRITE_DOCS"):
        page.write_text(current, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == current, "MIEN_WRITE_DOCS=1 make test"


def test_public_names() -> None:
    for name in mien.__all__:
        assert getattr(mien, name) is not None
    with pytest.raises(AttributeError):
        mien.nothing  # noqa: B018


def test_commands_of_the_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", readme, re.M):
        assert f"\n{target}:" in makefile
    for words in re.findall(r"^mien ([\w-]+)(?: (\w+))?", readme, re.M):
        assert words[0] in VERBS or " ".join(words) in VERBS
