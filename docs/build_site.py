"""Builds the site: `make docs`. Copies docs/ and the pages of the root, turns notebooks into pages, and exports `faces`.

    python docs/build_site.py [--no-face]

build/site-source is what Zensical reads, build/site the result. `--no-face` leaves the exported model out. With the
address of a GitHub repository, as `repo_url` in mkdocs.yml or in MIEN_REPO_URL, each tutorial's page links to Colab too.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "build" / "site"
ROOT_PAGES = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "THIRD_PARTY.md")
FRAME = '<iframe class="face" src="face/index.html" title="The model faces, drawn inside this browser"></iframe>\n'
FRONT = """# mien

One Python package that trains, evaluates, explores and serves generators of faces. Below, the bundled model `faces` draws inside
your browser: drag the face.
"""
STYLE = """.face { width: 100%; height: 46rem; border: 1px solid var(--md-default-fg-color--lightest); border-radius: 4px }
.md-typeset table:not([class]) code { overflow-wrap: anywhere }
.md-typeset table:not([class]) :is(th, td) { min-width: 0; padding: .7em .6em }
.md-typeset table:not([class]) tr > :nth-child(n+5):last-child { min-width: 13rem } /* sentences after columns of numbers */
.md-grid { max-width: 72rem }
@media (max-width: 44em) { .face { height: 36rem } }
"""


def notebook_page(notebook: Path, pictures: Path) -> str:
    """A notebook as Markdown: its cells in order, code fenced, stored pictures as files beside the page."""
    parts = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{at_full_size(text)}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{notebook.stem}-{number}.png"
                pictures.mkdir(parents=True, exist_ok=True)
                (pictures / name).write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![The picture that this cell shows]({pictures.name}/{name})")
            elif "text" in output or "text/plain" in data:
                parts.append(f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```")
    if (ROOT / "docs" / "pictures" / "tutorials" / f"{notebook.stem}.webp").exists():
        parts.append(f"![What the last cell shows](../pictures/tutorials/{notebook.stem}.webp)")
    return "\n\n".join(parts) + "\n"


def at_full_size(code: str) -> str:
    """A cell without what a test changes: the choice between a toy's sizes and those that are taught."""
    code = re.sub(r"^toy = .*\n", "", code, flags=re.M)
    code = re.sub(r"^(.+? = ).+? if toy else (.+)$", r"\1\2", code, flags=re.M)
    code = re.sub(r"^if not toy:\n((?: {4}.*\n?)+)", lambda block: textwrap.dedent(block[1]), code, flags=re.M)
    return code if "os." in code else re.sub(r"^import os\n\n?", "", code, flags=re.M)


def repository() -> str:
    """The repository's address: MIEN_REPO_URL, or `repo_url` of mkdocs.yml; empty if its owner has set neither."""
    stated = re.search(r"^repo_url: *(\S+)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    return os.environ.get("MIEN_REPO_URL") or (stated[1] if stated else "")


def notebook_links(name: str, address: str) -> str:
    """What stands under a tutorial's title: its notebook, and Colab where `address` is a repository on GitHub."""
    links = [f"[Download this notebook]({name})"]
    if found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address):
        place = f"https://colab.research.google.com/github/{found[1]}/blob/main/docs/tutorials/{name}"
        links.insert(
            0, f"[Open in Colab]({place}), and run `%pip install git+https://github.com/{found[1]}` there first"
        )
    return " · ".join(links)


def stage(source: Path, face: bool) -> None:
    """Write the folder that the site is built from."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("__pycache__", "build_site.py"))
    for name in ROOT_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        (source / name).write_text(text.replace("](docs/", "]("), encoding="utf-8")
    for page in source.rglob("*.md"):
        text = page.read_text(encoding="utf-8").replace(".ipynb)", ".md)")
        text = re.sub(r"\]\(\.\./([A-Z_]+\.md)\)", r"](\1)", text) if page.parent == source else text
        page.write_text(text, encoding="utf-8")
    for notebook in source.rglob("*.ipynb"):
        page = notebook_page(notebook, notebook.parent / "pictures").replace(".ipynb)", ".md)")
        title, rest = page.split("\n", 1)
        links = notebook_links(notebook.name, repository())
        notebook.with_suffix(".md").write_text(f"{title}\n\n{links}\n{rest}", encoding="utf-8")
    (source / "site.css").write_text(STYLE, encoding="utf-8")
    if face:
        front = source / "README.md"
        _, rest = front.read_text(encoding="utf-8").split("\n", 1)
        front.write_text(f"{FRONT}\n{FRAME}{rest}", encoding="utf-8")


def main() -> None:
    """Stage, build with strict links, export the model into the result."""
    face = "--no-face" not in sys.argv[1:]
    stage(SOURCE, face)
    shutil.rmtree(SITE, ignore_errors=True)
    here = Path(sys.executable).parent
    subprocess.run([here / "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=True)
    if face:
        subprocess.run([here / "mien", "export", "faces", "--to", "web", "-o", SITE / "face"], cwd=ROOT, check=True)
    print(f"The site: {SITE / 'index.html'}. `make docs-serve` shows it.")


if __name__ == "__main__":
    main()
