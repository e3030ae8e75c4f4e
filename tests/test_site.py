"""The site: its navigation has every page, its links lead somewhere, and it builds with strict links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from tests.conftest import ROOT, load_script
from tests.test_report_browser import browser  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return load_script(ROOT / "docs" / "build_site.py")


@pytest.fixture(scope="module")
def staged(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ.pop("MIEN_REPO_URL", None)
    source = tmp_path_factory.mktemp("site") / "source"
    site.stage(source, face=True)
    return source


def pages_of(nav: Any) -> list[str]:
    """The paths in a navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    return [path for part in (nav.values() if isinstance(nav, dict) else nav) for path in pages_of(part)]


def test_the_navigation_has_every_page_once(staged: Path) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages_of(config["nav"])
    assert sorted(listed) == sorted(page.relative_to(staged).as_posix() for page in staged.rglob("*.md"))
    assert [next(iter(part)) for part in config["nav"][1:]] == ["Tutorials", "How-to", "Explanation", "Reference"]


def test_every_relative_link_of_the_site_resolves(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / unquote(target)).exists(), f"{page.name} links to {target}"


def test_the_front_page_has_the_model_and_every_page_of_docs(staged: Path) -> None:
    front = (staged / "README.md").read_text(encoding="utf-8")
    assert 'src="face/index.html"' in front
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([^)#]+)\)", front))


def test_each_tutorial_offers_its_notebook_and_colab_once_there_is_a_repository(
    site: ModuleType, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = sorted((staged / "tutorials").glob("*.md"))
    assert len(pages) == 6
    for page in pages:
        title, _, links, *_ = page.read_text(encoding="utf-8").splitlines()
        assert title.startswith("# ") and links == f"[Download this notebook]({page.stem}.ipynb)"
        assert (page.parent / f"{page.stem}.ipynb").exists()
        code = "".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
        assert "toy" not in code and "MIEN_TUTORIAL" not in code, "what a test makes small stands there at full size"
        compile(re.sub(r"^ *!.*$", "pass", code, flags=re.M), page.name, "exec")
    assert "(../pictures/tutorials/1-first-faces.webp)" in pages[0].read_text(encoding="utf-8").splitlines()[-1]
    monkeypatch.setenv("MIEN_REPO_URL", "https://github.com/ada/mien.git")
    site.stage(tmp_path / "source", face=False)
    text = (tmp_path / "source" / "tutorials" / "1-first-faces.md").read_text(encoding="utf-8")
    assert "(https://colab.research.google.com/github/ada/mien/blob/main/docs/tutorials/1-first-faces.ipynb)" in text
    assert "`%pip install git+https://github.com/ada/mien`" in text and "· [Download" in text
    assert "colab" not in site.notebook_links("1.ipynb", "https://codeberg.org/ada/mien")


@pytest.mark.slow
def test_the_site_builds_and_its_front_page_draws_a_face(browser: Any) -> None:  # noqa: F811
    if not shutil.which("zensical", path=str(Path(sys.executable).parent)):
        pytest.skip("SKIPPED SITE: the extra `docs` is not installed")
    subprocess.run([sys.executable, "docs/build_site.py"], cwd=ROOT, check=True)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "build/site", "0"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port is not None
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port[1]}/index.html")
        frame = page.frame(url=re.compile("face/index.html"))
        frame.wait_for_selector("canvas, img", timeout=120_000)
        page.close()
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_broken_link_stops_the_build(site: ModuleType, tmp_path: Path) -> None:
    zensical = shutil.which("zensical", path=str(Path(sys.executable).parent))
    if zensical is None:
        pytest.skip("SKIPPED SITE: the extra `docs` is not installed")
    site.stage(tmp_path / "build" / "site-source", face=False)
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    with (tmp_path / "build" / "site-source" / "seeds.md").open("a", encoding="utf-8") as page:
        page.write("\n[nothing](nothing.md)\n")
    built = subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode != 0 and "page does not exist" in built.stdout + built.stderr
