"""Who may import whom (left may import right), and that no imports run in circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "mien"
ANY = {"errors", "_version", "durable"}  # the floor that everybody stands on
ALL_BUT_TOP = {
    "address",
    "answer",
    "augment",
    "average",
    "balance",
    "baseline",
    "checkpoint",
    "citations",
    "control",
    "core",
    "data",
    "directory",
    "engine",
    "estimate",
    "experiment",
    "foreign",
    "hub",
    "latent",
    "learner",
    "losses",
    "metrics",
    "models",
    "nn",
    "ode",
    "parallel",
    "place",
    "plan",
    "presets",
    "priors",
    "recipes",
    "report",
    "rules",
    "run",
    "sampler",
    "schedules",
    "styles",
    "trainer",
}
MAY_IMPORT = {
    "__init__": {"core", "experiment", "metrics", "run", "sampler"},
    "__main__": {"answer", "verbs"},
    "verbs": {*ALL_BUT_TOP, "__main__", "export", "web"},
    "export": {*ALL_BUT_TOP, "web"},
    "web": ALL_BUT_TOP - {"models", "recipes", "nn"},
    "address": {"core", "priors"},
    "control": {"core", "directory"},
    "hub": set(),
    "report": {
        "checkpoint",
        "citations",
        "core",
        "data",
        "directory",
        "engine",
        "metrics",
        "presets",
        "run",
        "sampler",
        "trainer",
    },
    "sampler": {
        "address",
        "checkpoint",
        "core",
        "engine",
        "hub",
        "latent",
        "ode",
        "presets",
        "priors",
        "run",
        "styles",
    },
    "presets": {"augment", "core", "models", "recipes", "run"},
    "experiment": ALL_BUT_TOP
    - {"address", "answer", "baseline", "foreign", "hub", "latent", "models", "nn", "recipes"},
    "place": {"checkpoint", "core", "directory", "metrics", "plan", "presets", "run"},
    "plan": {"average", "core", "data", "engine", "estimate", "learner", "parallel", "presets", "rules", "run"},
    "estimate": {"core", "learner"},
    "rules": {"core", "run"},
    "foreign": {"core", "models", "presets", "run"},
    "latent": {"checkpoint", "core", "priors"},
    "baseline": {"checkpoint", "core", "data", "directory", "models", "run"},
    "trainer": {"checkpoint", "control", "core", "directory", "engine", "learner", "parallel", "run"},
    "learner": {"average", "checkpoint", "core", "engine", "parallel"},
    "metrics": {"average", "checkpoint", "core", "data", "directory", "engine", "parallel", "run", "sampler"},
    "recipes": {"augment", "balance", "core", "losses", "ode", "schedules"},
    "models": {"core", "nn", "ode", "parallel", "priors"},
    "nn": {"parallel"},
    "balance": {"core", "parallel"},
    "data": {"core", "parallel"},
    "checkpoint": {"core"},
    "average": {"core", "run", "schedules"},
    "augment": {"parallel"},
    "ode": set(),
    "run": {"core"},
    "engine": {"core", "run"},
    "directory": {"core"},
    "parallel": set(),
    "priors": set(),
    "losses": set(),
    "schedules": set(),
    "styles": set(),
    "citations": set(),
    "core": set(),
    "answer": set(),
}


def room(path: Path) -> str:
    """The module or package directly under `mien` that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool) -> set[str]:
    """The rooms that a file imports; imports for the type checker alone do not count."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if top_level_only else ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mien":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mien.")}
    return found - {room(path)}


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    here = room(path)
    allowed = ANY if here in ANY else MAY_IMPORT[here] | ANY
    if here == "verbs" and path.name == "flags.py":
        allowed = ANY
    assert imports(path, top_level_only=False) <= allowed


def test_there_are_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(room(path), set()).update(imports(path, top_level_only=True))
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_recipes_never_meet_models_outside_the_presets() -> None:
    for path in (SOURCE / "recipes").glob("*.py"):
        assert "models" not in imports(path, top_level_only=False)
    for path in (SOURCE / "models").glob("*.py"):
        assert "recipes" not in imports(path, top_level_only=False)
