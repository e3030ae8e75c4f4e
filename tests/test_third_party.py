"""THIRD_PARTY.md: what of other people's work is in the wheel, fetched or required, and its licence. It is generated."""

from __future__ import annotations

import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

from mien.downloads.datasets import DATA_SETS
from mien.downloads.weights import WEIGHTS
from mien.sampling import bundled

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "THIRD_PARTY.md"

#: Licences of the required packages, as SPDX expressions. torch and numpy bundle more: their wheels have the texts.
LICENCES = {
    "torch": "BSD-3-Clause", "numpy": "BSD-3-Clause", "pillow": "MIT-CMU", "safetensors": "Apache-2.0",
    "cyclopts": "Apache-2.0", "platformdirs": "MIT", "tqdm": "MPL-2.0 AND MIT", "python-avatars": "MIT",
    "resvg-py": "MIT", "filelock": "MIT", "matplotlib": "PSF-2.0", "av": "BSD-3-Clause", "tensorboard": "Apache-2.0",
    "opencv-python-headless": "Apache-2.0", "ai-edge-litert": "Apache-2.0", "pyarrow": "Apache-2.0", "h5py": "BSD-3-Clause",
    "scikit-learn": "BSD-3-Clause", "zuko": "MIT", "starlette": "BSD-3-Clause", "uvicorn": "BSD-3-Clause",
    "onnx": "Apache-2.0", "onnxscript": "MIT", "onnxruntime": "MIT", "huggingface-hub": "Apache-2.0",
    "c2pa-python": "MIT OR Apache-2.0", "zensical": "MIT", "trackio": "MIT", "mlflow-skinny": "Apache-2.0",
    "wandb": "MIT", "sqlalchemy": "MIT", "alembic": "MIT",
    "fsspec": "BSD-3-Clause", "aiohttp": "Apache-2.0", "s3fs": "BSD-3-Clause",
}  # fmt: skip
REMARKS = {
    "python-avatars": "its parts, by Pablo Stanley, are what the built-in faces are drawn with",
    "resvg-py": "resvg inside it is MIT OR Apache-2.0",
    "av": "its wheel holds FFmpeg with encoders under the GPL; it is an extra for this reason",
    "opencv-python-headless": "its wheel holds FFmpeg under the LGPL-2.1",
}


def requirements() -> list[tuple[str, str]]:
    """(package, extra or "") in pyproject's order; those for development are not shipped."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {extra: lines for extra, lines in project["optional-dependencies"].items() if extra not in ("all", "dev")}
    pairs = [(line, "") for line in project["dependencies"]]
    pairs += [(line, extra) for extra, lines in extras.items() for line in lines]
    return [(re.split(r"[<>=\[; ]", line)[0], extra) for line, extra in pairs]


def page() -> str:
    """The page. Write it anew with MIEN_WRITE_DOCS=1."""
    parts = [
        "# Third parties",
        "Written by `MIEN_WRITE_DOCS=1 pytest tests/test_third_party.py`; do not edit. mien itself is Apache-2.0.",
        "## Inside the package",
        "All source, scripts, styles and icons are mien's own: no font and no library is copied into the package. The bundled "
        "models were trained by mien; their cards have the whole story.",
    ]  # fmt: skip
    rows = []
    for name in bundled.names():
        card = (bundled.FOLDER / name / bundled.CARD).read_text(encoding="utf-8")
        licence = re.search(r"^license: (.+)$", card, re.M)
        data = re.search(r"^## Training data\n\n(.+?)(?:: \d|\.\n)", card, re.M)
        assert licence is not None and data is not None, f"the card of {name} names no licence or no data"
        rows.append(f"| `{name}` | {licence[1].replace('apache', 'Apache')} | {data[1]} |")
    parts.append("| model | licence of the weights | trained on |\n|---|---|---|\n" + "\n".join(rows))
    parts += [
        "## Fetched on demand",
        "Each file is read out of the archive named here, and must have the SHA-256 that mien knows. An exported page holds the "
        "files `page-*`, and says so in its LICENCES.txt.",
        "| file | from | licence |\n|---|---|---|\n"
        + "\n".join(f"| `{name}` | {entry.archive} | {entry.licence} |" for name, entry in sorted(WEIGHTS.items())),
        "Data sets are fetched when their terms are accepted (`--accept-licence`); nothing of them is shipped.",
        "| data set | licence |\n|---|---|\n"
        + "\n".join(f"| [{name}]({entry.page}) | {entry.licence} |" for name, entry in sorted(DATA_SETS.items())),
        "## Required packages",
        "Installed by pip from their own wheels, which hold the texts of their licences.",
        "| package | extra | licence | |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {extra and f'`{extra}`'} | {LICENCES[name]} | {REMARKS.get(name, '')} |"
            for name, extra in requirements()
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def test_the_page_is_current() -> None:
    if os.environ.get("MIEN_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run MIEN_WRITE_DOCS=1 pytest tests/test_third_party.py"


def test_licences_are_those_that_the_packages_state() -> None:
    """Where an installed package states an SPDX expression, the table has it, or the first part of a long one."""
    for name, _ in requirements():
        try:
            stated = metadata.metadata(name).get("License-Expression")
        except metadata.PackageNotFoundError:
            continue
        if stated:
            assert LICENCES[name] in stated, f"{name} states {stated}"


def test_nothing_of_others_hides_in_the_package() -> None:
    """No file of a vendored library: every script names no copyright of others, and there is no font."""
    for file in (ROOT / "src" / "mien").rglob("*"):
        assert file.suffix not in (".woff", ".woff2", ".ttf", ".otf", ".wasm", ".map"), file
        if file.suffix in (".js", ".css", ".html", ".ts"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"copyright|@licen[cs]e|\.min\.", re.sub(r"ort\.[a-z.]*min\.m?js", "", text), re.I), (
                file
            )
