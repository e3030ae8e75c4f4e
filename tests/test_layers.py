"""Who may import whom, and that no imports run in circles: between folders, inside one, also inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "mien"
FLOOR = {"errors"}  # everybody may import it
#: Folder (or module on the ground floor) -> what it may import. A permission that nobody uses is refused below.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "core": set(),
    "nn": {"core"},
    "storage": {"core"},
    "models": {"core", "nn"},
    "recipes": {"core", "nn"},
    "presets": {"core", "models", "recipes"},  # the only place where models and recipes meet
    "foreign": {"core", "models", "presets", "storage"},
    "downloads": {"foreign", "storage"},
    "data": {"core", "downloads", "storage"},
    "sampling": {"core", "downloads", "nn", "presets", "storage"},
    "metrics": {"core", "data", "downloads", "sampling", "storage"},
    "report": {"core", "data", "metrics", "presets", "sampling", "storage"},
    "training": {"core", "data", "metrics", "models", "presets", "report", "sampling", "storage"},
    "web": {"core", "data", "downloads", "metrics", "nn", "presets", "report", "sampling", "storage"},
    "export": {"core", "downloads", "models", "nn", "report", "sampling", "storage", "web"},
    "cli": {
        *("core", "data", "downloads", "export", "foreign", "metrics", "nn"),
        *("presets", "report", "sampling", "storage", "training", "web"),
    },
    "__main__": {"cli"},
    "__init__": {
        "core",
        "metrics",
        "presets",
        "report",
        "sampling",
        "training",
        "web",
    },  # for the type checker; at run time it imports on first use
}
#: The files outside `models` and `presets` that name a model: eigenfaces are a baseline to compare with, and the page has its own
#: code for the residual generator.
ONLY_THERE = {("training", "models"): {"training/baseline.py"}, ("export", "models"): {"export/single_file.py"}}


def module_name(path: Path) -> str:
    """The module below `mien`, such as `core.run`; a package's name for its `__init__`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def folder(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path, type_checking: bool = False) -> set[str]:
    """The modules of `mien` that a file imports anywhere; those for the type checker alone count only if asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in guarded and not type_checking:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mien":
            base = node.module.removeprefix("mien").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}" if base else alias.name
                found.add(full if full in MODULES else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("mien.") for alias in node.names if alias.name.startswith("mien.")}
    return found - {module_name(path)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    here = folder(module)
    reached = {folder(other) for other in imports(MODULES[module])} - {here, "__init__"}
    assert reached <= MAY_IMPORT[here] | FLOOR
    for other in reached:
        files = ONLY_THERE.get((here, other))
        assert files is None or str(MODULES[module].relative_to(SOURCE)) in files


def test_every_permission_is_used() -> None:
    used: dict[str, set[str]] = {name: set() for name in MAY_IMPORT}
    for module, path in MODULES.items():
        used[folder(module)] |= {folder(other) for other in imports(path, type_checking=module == "__init__")}
    assert {name: permitted - used[name] for name, permitted in MAY_IMPORT.items() if permitted - used[name]} == {}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Each way back to where it began, as `a -> b -> a`."""
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            found.append(" -> ".join((*trail[trail.index(name) :], name)))
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    return found


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circles_between_files_nor_folders() -> None:
    files = {module: imports(path) - {"__init__"} for module, path in MODULES.items()}
    assert circles(files) == []
    folders: dict[str, set[str]] = {}
    for module, reached in files.items():
        folders.setdefault(folder(module), set()).update({folder(other) for other in reached} - {folder(module)})
    assert circles(folders) == []


def test_the_ground_floor_is_small() -> None:
    entries = {path.name for path in SOURCE.iterdir()} - {"__pycache__"}
    assert len(entries) <= 20, sorted(entries)


def test_every_folder_says_what_lives_there() -> None:
    for package in SOURCE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))), package


@pytest.mark.parametrize("module", MODULES)
def test_a_long_file_says_why(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    if len(text.splitlines()) > 350:
        assert "Longer than 350 lines because" in (ast.get_docstring(ast.parse(text)) or "")
