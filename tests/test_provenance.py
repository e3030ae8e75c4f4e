"""What every written picture says of its origin, read by exiftool and by readers that are not mien's."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from mien.errors import Untrusted
from mien.report import plots
from mien.report.film import film
from mien.report.grid import grid, read_marks, read_recipe, save_grid, save_png
from mien.report.html import document, tag
from mien.report.series import Panel
from mien.storage.provenance import Claim, Marks, Provenance, read

SOURCE = Path(__file__).parent.parent / "src" / "mien"
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
RECIPE = {"model": "ab" * 32, "seeds": [3, 42], "labels": {"Müller <b>&]]>": 1.0}}
MADE = Provenance(RECIPE)


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (33, 18), (20 * n, 90, 160)) for n in range(6)]


def write(path: Path, made: Provenance = MADE) -> Path:
    """A file of each kind that mien writes."""
    if path.suffix == ".html":
        path.write_text(document("t", tag("main"), (), (), {}, made.claim), encoding="utf-8")
    elif path.name.startswith("still"):
        made.save(frames()[0], path, {".png": "PNG", ".webp": "WEBP", ".gif": "GIF"}[path.suffix])  # type: ignore[arg-type]
    else:
        film(frames(), path, made)
    return path


FILES = ["still.png", "still.webp", "still.gif", "film.png", "film.webp", "film.gif", "film.mp4"]


@pytest.mark.parametrize("name", FILES)
def test_every_format_says_what_it_is(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    found = read(path)
    assert found.source == TRAINED and found.recipe == RECIPE and str(found.software).startswith("mien ")
    packets = re.findall(rb"<\?xpacket begin.*?<\?xpacket end=", path.read_bytes(), re.DOTALL)
    assert len(packets) == 1 and packets[0].decode().count(f">{TRAINED}<") == 1
    if path.suffix != ".mp4":
        with Image.open(path) as image:
            image.load()
            assert (image.size == (33, 18)) or name == "film.png"
            assert getattr(image, "n_frames", 1) == (6 if name.startswith("film") and name != "film.png" else 1)


@pytest.mark.parametrize("name", [*FILES, "page.html"])
@pytest.mark.parametrize("claim", [Claim.SYNTHETIC, Claim.BESIDE_PHOTOGRAPH])
def test_exiftool_reads_it(tmp_path: Path, name: str, claim: Claim) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed: apt-get install libimage-exiftool-perl")
    path = write(tmp_path / name, Provenance(RECIPE, claim))
    command = ["exiftool", "-json", "-G1", "-a", "-validate", "-warning", str(path)]
    (tags,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert not [key for key in tags if "Warning" in key or "Error" in key], tags
    all_tags = ["exiftool", "-json", "-G1", str(path)]
    (tags,) = json.loads(subprocess.run(all_tags, capture_output=True, text=True, check=True).stdout)
    group = "HTML-iptc4xmpext:Iptc4xmpExtDigitalSourceType" if name == "page.html" else "XMP-iptcExt:DigitalSourceType"
    assert tags[group] == (TRAINED if claim is Claim.SYNTHETIC else COMPOSITE)


def test_mp4_still_plays_with_its_box_at_the_end(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write(tmp_path / "film.mp4")
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 6
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat") < content.index(bytes.fromhex("be7acfcb97a942e8"))


def test_a_damaged_file_is_an_error_in_three_parts(tmp_path: Path) -> None:
    for name in ("still.webp", "film.mp4", "still.png"):
        path = write(tmp_path / name)
        path.write_bytes(path.read_bytes()[: 300 if name == "still.png" else -20])
        with pytest.raises(Untrusted, match=r"cannot be read|is damaged"):
            read_marks(path)
    bomb = MADE.xmp().replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta')
    frames()[0].save(tmp_path / "bomb.webp", xmp=bomb)
    frames()[0].save(tmp_path / "torn.webp", xmp=MADE.xmp()[:-80])
    for name in ("bomb.webp", "torn.webp"):
        with pytest.raises(Untrusted, match="its XMP"):
            read_marks(tmp_path / name)


def test_pictures_without_xmp_are_read_as_before(tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    notes = PngImagePlugin.PngInfo()
    notes.add_text("mien", json.dumps({"seeds": [1]}))
    frames()[0].save(tmp_path / "old.png", pnginfo=notes)
    assert read(tmp_path / "old.png") == Marks(None, None, {"seeds": [1]})
    frames()[0].save(tmp_path / "plain.jpg")
    assert read(tmp_path / "plain.jpg") == Marks()


def test_attributes_are_read_where_another_program_has_rewritten_the_packet(tmp_path: Path) -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" i:DigitalSourceType="'
        + TRAINED.encode()
        + b'"/></rdf:RDF></x:xmpmeta>'
    )
    frames()[0].save(tmp_path / "a.webp", xmp=packet)
    assert read(tmp_path / "a.webp").source == TRAINED


def test_photographs_and_charts_are_not_called_synthetic(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import numpy as np

    from mien.report.series import Series

    curve = Series("loss", *[np.arange(4.0)] * 4, (0.0, 3.0))
    chart = plots.draw([Panel("loss", "Losses", "", (curve,))], tmp_path / "losses.png")
    assert str(read(chart).source).endswith("/dataDrivenMedia")
    sheet = save_png(frames()[0], tmp_path / "sheet.png", {}, Claim.INPUT)
    assert read(sheet).source is None and b"digitalsourcetype" not in sheet.read_bytes()
    assert read(save_grid(torch.zeros(2, 3, 8, 8), tmp_path / "faces.png")).source == TRAINED
    assert Claim.of_addresses(["42~7:0.5"]) is Claim.SYNTHETIC
    assert Claim.of_addresses(["1", "42~(@AAAA):0.5"]) is Claim.FROM_PHOTOGRAPH


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    for name in FILES[:-1]:
        assert write(tmp_path / name).read_bytes() == write(tmp_path / name).read_bytes()


#: Pictures inside a data set's own files, on their way to the decoder or the metrics: nobody keeps them as pictures of mien's.
INTERNAL = {"data/arrays.py", "data/stylegan.py"}


def test_no_picture_is_written_past_provenance() -> None:
    """`Image.save(..., format=...)` and the like stand in one file only."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            words = {a.value for a in node.args if isinstance(a, ast.Constant)} | {
                k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            formats = {"PNG", "WEBP", "GIF", "JPEG"} & {str(word).upper() for word in words}
            marked = any(k.arg == "pil_kwargs" for k in node.keywords) or (
                node.func.attr in ("save", "encode") and "Provenance" in ast.unparse(node)
            )
            if node.func.attr in ("save", "savefig") and formats and not marked:
                found.add(path.relative_to(SOURCE).as_posix())
    assert found - INTERNAL == {"storage/provenance.py"} | ({"report/grid.py", "report/film.py"} & found)


def test_a_recipe_is_read_from_every_format(tmp_path: Path) -> None:
    assert [read_recipe(write(tmp_path / name)) for name in FILES] == [RECIPE] * len(FILES)
    assert grid([frames()[0]]).size == (37, 22)
