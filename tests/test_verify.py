"""`mien verify` and `--sign`: what a picture says is compared with what drawing it again gives."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mien.data.pack import Pack
from mien.export import signature
from mien.report.film import film
from mien.report.grid import save_png
from mien.storage.provenance import Claim, Provenance, read
from tests.conftest import write_model, write_pack, write_signer
from tests.test_cli import PRINTED, call
from tests.test_explore import Served, serving

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verified(file: Path | str, *words: object) -> tuple[int, Any]:
    done = call("verify", file, *words, "--json")
    return done.code, json.loads(done.out)


DRAWINGS = [
    ("sample", "--seeds", "0-6", "-o", "a.png"),
    ("sample", "--seeds", "0-6", "--columns", "2", "--truncation", "0.5", "--label", "Hat=1", "-o", "a.png"),
    ("sample", "--seeds", "5", "-o", "faces"),
    ("sample", "--seeds", "1,3", "--combine", "Hat", "-o", "a.png"),
    ("walk", "--seeds", "3", "42", "--frames", "5", "-o", "a.webp"),
    ("walk", "--seeds", "3", "42", "--frames", "5", "--loop", "--zoom", "2", "-o", "a.gif"),
    ("walk", "--seeds", "3", "--label-from", "Hat=0", "--label-to", "Hat=1", "--frames", "4", "-o", "a.mp4"),
    ("walk", "--seeds", "3", "4", "--frames", "4", "--columns", "2", "-o", "a.png"),
    ("walk", "--seeds", "3", "4", "5", "6", "--pairs", "--frames", "3", "-o", "a.png"),
    ("edit", "--seed", "1", "2", "--direction", "component-1=1.5", "--strip", "3", "-o", "a.png"),
]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label-conditional model of 16 px with a direction."""
    folder = tmp_path_factory.mktemp("labelled")
    model = write_model("cgan", folder, write_pack(folder / "labelled.pack", 40, 16, ("Hat",)))
    assert call("directions", model, "--unsupervised", "1").code == 0
    return model


@pytest.mark.parametrize("words", DRAWINGS, ids=lambda words: " ".join(words))
def test_what_is_drawn_is_drawn_again(here: Path, labelled: Path, words: tuple[str, ...]) -> None:
    assert call(words[0], labelled, *words[1:]).code == 0
    (file,) = [path for path in here.rglob("*") if path.suffix in (".png", ".webp", ".gif", ".mp4")]
    code, found = verified(file, "--model", labelled)
    assert (code, found["drawn_again"]) == (0, "equal"), found
    assert found["source"] == TRAINED and found["signature"]["state"] == "none"


def test_a_film_of_other_faces_is_found(here: Path, labelled: Path) -> None:
    """An encoder's loss is no difference; other pictures under the same recipe are."""
    call("walk", labelled, "--seeds", "3", "4", "--frames", "4", "-o", "a.mp4")
    recipe = read(here / "a.mp4").recipe
    call("walk", labelled, "--seeds", "11", "12", "--frames", "4", "-o", "b.mp4")
    other = read(here / "b.mp4").recipe
    assert recipe is not None and other is not None and recipe["seeds"] != other["seeds"]
    with av.open("b.mp4") as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    film(frames, here / "c.mp4", Provenance(recipe), 24.0)
    code, found = verified("c.mp4", "--model", labelled)
    assert code == 9 and found["drawn_again"].startswith("differs: by up to")


def test_a_changed_pixel_is_found(here: Path, labelled: Path) -> None:
    call("sample", labelled, "--seeds", "0-3", "-o", "a.png")
    with Image.open("a.png") as image:
        pixels, recipe = np.array(image), json.loads(image.info["mien"])  # type: ignore[index]
    pixels[5, 5, 0] ^= 4
    save_png(Image.fromarray(pixels), here / "b.png", recipe)
    done = call("verify", "b.png", "--model", labelled)
    assert done.code == 9 and "drawn again: differs: by up to 4 of 255 levels" in done.out
    save_png(Image.fromarray(pixels[:-1]), here / "b.png", recipe)
    assert verified("b.png", "--model", labelled)[1]["drawn_again"].startswith("differs: 38x")
    save_png(Image.fromarray(pixels), here / "b.png", {**recipe, "seeds": [0, 1, 2, 4]})
    assert verified("b.png", "--model", labelled)[0] == 9


def test_the_model_is_found_by_its_hash(here: Path, blob_pack: Pack) -> None:
    (here / "quick").mkdir()
    model = write_model("quick", here / "quick", blob_pack)
    call("sample", model, "--seeds", "0-3", "-o", "a.png")
    code, found = verified("a.png")
    assert code == 0 and found["drawn_again"].startswith("not possible: Model")
    assert call("verify", "a.png", "--model", write_model("vae", here, blob_pack)).code == 9
    run = here / "runs" / "00000-quick-s0"
    (run / "checkpoints" / "0000000001").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "checkpoints" / "0000000001" / "model.safetensors").write_bytes(model.read_bytes())
    manifest = {"files": {"model.safetensors": {"sha256": found["recipe"]["model"]}}}
    (run / "checkpoints" / "0000000001" / "MANIFEST.json").write_text(json.dumps(manifest))
    assert verified("a.png")[1]["drawn_again"] == "equal"


def test_photographs_cannot_be_drawn_again_and_are_not_called_synthetic(here: Path, blob_pack: Pack) -> None:
    model = write_model("vae", here, blob_pack)
    Image.new("RGB", (20, 20), (200, 120, 90)).save("me.png")
    assert call("project", model, "me.png", "-o", "a.png").code == 0
    assert call("walk", model, "--photos", "me.png", "me.png", "--frames", "3", "-o", "a.webp").code == 0
    for name, claim in (("a.png", Claim.BESIDE_PHOTOGRAPH), ("a.webp", Claim.FROM_PHOTOGRAPH)):
        code, found = verified(name, "--model", model)
        assert code == 0 and "photographs went into it" in found["drawn_again"]
        assert found["source"] == claim.uri and claim.sentence.encode() in Path(name).read_bytes()


def test_pictures_of_the_explorer_are_drawn_again(here: Path, blob_pack: Pack, labelled: Path) -> None:
    (here / "q").mkdir(), (here / "f").mkdir()
    quick, flow = write_model("quick", here / "q", blob_pack), write_model("flow", here / "f", blob_pack)

    def check(served: Served, model: Path, query: str) -> None:
        route = f"/api/model/{read_model_id(model)}/{query}"
        status, content, headers = served.ask(route)
        assert status == 200, content
        file = here / f"saved.{headers['content-type'].partition('/')[2]}"
        file.write_bytes(content)
        assert verified(file, "--model", model)[1]["drawn_again"] == "equal", query

    with serving([quick, flow, labelled]) as served:
        for query in (
            "image?at=42,0.25,0.5~7:0.3&truncation=0.5",
            "sheet?first=3&count=7&columns=3",
            "sheet?at=1&at=2~3:0.5&columns=2",
            "children?at=5&first=9",
            "walk?at=1&at=2&frames=4&zoom=2&loop=0",
        ):
            check(served, quick, query)
        check(served, labelled, "image?at=5&label=Hat:1&direction=component-1:0.5")
        check(served, flow, "path?at=5&columns=3")


def read_model_id(model: Path) -> str:
    from mien.storage.checkpoint import file_hash

    return file_hash(model)[:16]


HOSTILE: list[dict[str, Any]] = [
    {"verb": "sample", "seeds": "all", "columns": 1},
    {"verb": "sample", "columns": 1},
    {"verb": "sample", "seeds": [1], "columns": 1, "labels": [3]},
    {"verb": "walk", "seeds": [1, 2], "frames": 10**9, "fps": 24, "loop": False, "zoom": 1},
    {"verb": "walk", "seeds": [1, 2]},
    {"verb": "edit", "of": 3, "directions": {}, "strip": 2},
    {"verb": "sample", "seeds": [1], "columns": 1, "precision": "fp1"},
    {"verb": "sample", "seeds": [1], "columns": 1, "size": 4096},
    {"verb": ["sample"], "seeds": [1]},
    {"seeds": [0, 10**12], "columns": 3},
    {"at": "42", "labels": {"Nobody": 1}},
    {"at": {"a": 1}},
    {"of": None},
    {"walk": ["1", "2"], "frames": 4, "fps": 1, "loop": True, "zoom": 10**6},
    {"verb": "sample", "seeds": ["0-9999999"]},  # which was drawn, a file for each
    {"verb": "edit", "of": list(range(10_001)), "directions": {}, "strip": 2},
    {"seeds": [0, 3], "columns": 10**8},  # 5 TB of black: exit code 1
    {"at": "5", "stages": 3, "columns": 0},
]


@pytest.mark.parametrize("recipe", HOSTILE, ids=str)
def test_a_recipe_of_anybody_is_no_crash(here: Path, labelled: Path, recipe: dict[str, Any]) -> None:
    from mien.sampling.sampler import Sampler

    full = {"model": Sampler.load(labelled).model_hash, **recipe}
    save_png(Image.new("RGB", (20, 20)), here / "a.png", full)
    for words in ((), ("--model", labelled)):
        done = call("verify", "a.png", *words)
        assert done.code in (0, 2, 3, 9) and "unexpectedly" not in done.err, done.err
        assert "drawn again: not possible" in done.out or PRINTED.fullmatch(done.err)


def test_files_that_say_nothing(here: Path) -> None:
    Image.new("RGB", (4, 4)).save("plain.png")
    done = call("verify", "plain.png")
    assert done.code == 3 and "says nothing of its origin" in done.err
    assert call("verify", "none.png").code == 3
    for content, code in ((b"\x89PNG", 8), (b"hello", 3), (b"", 3)):
        Path("torn.png").write_bytes(content)
        done = call("verify", "torn.png")
        assert done.code == code and "torn.png" in done.err and "<_io" not in done.err


def test_a_file_is_read_by_its_content_and_must_be_whole(here: Path, labelled: Path) -> None:
    """A picture under another name was not drawn again, with the path of a temporary file; half of one was a full disk."""
    call("sample", labelled, "--seeds", "0-3", "-o", "a.png")
    call("walk", labelled, "--seeds", "3", "42", "--frames", "5", "-o", "a.webp")
    call("walk", labelled, "--seeds", "3", "42", "--frames", "5", "-o", "a.gif")
    for name, other in (("a.png", "a.dat"), ("a.webp", "b.png"), ("a.gif", "a.jpeg")):
        shutil.copy(name, other)
        assert verified(other, "--model", labelled)[1]["drawn_again"] == "equal", name
        Path(other).write_bytes(Path(name).read_bytes()[: -Path(name).stat().st_size // 3])
        done = call("verify", other, "--model", labelled)
        assert done.code == 8 and f"{other} cannot be read" in done.err, (name, done.err)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.json", b'{"model": "x"}', "It is no PNG, WebP, GIF or MP4"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "It is no PNG, WebP, GIF or MP4"),
        ("empty.png", b"", "It is empty."),
        ("folder", None, "It is a folder."),
    ],
)
def test_what_is_no_picture_is_said_plainly(name: str, content: bytes | None, why: str, here: Path) -> None:
    """It said `cannot identify image file <_io.BufferedReader name=5>`, with the exit code of a broken signature."""
    Path(name).mkdir() if content is None else Path(name).write_bytes(content)
    done = call("verify", name)
    assert done.code == 3 and f"{name} is no picture." in done.err and why in done.err and "_io" not in done.err


@pytest.mark.parametrize("name", ["faces", "faces.jpg", "faces.mp4", "faces.PNG"])
def test_a_picture_of_another_name_is_drawn_again(name: str, here: Path, labelled: Path) -> None:
    """Without an ending it ended with exit code 6."""
    assert call("sample", labelled, "--seeds", "0-3", "-o", "faces.png").code == 0
    Path("faces.png").rename(name)
    done = call("verify", name, "--model", labelled)
    assert done.code == 0 and "drawn again: equal" in done.out, done.err


def test_signed_pictures_are_valid_and_altered_ones_refused(here: Path, labelled: Path) -> None:
    pytest.importorskip("c2pa")
    write_signer(here / "sign.pem")
    for words in (DRAWINGS[0], DRAWINGS[4], DRAWINGS[5], DRAWINGS[6]):
        file = here / words[-1]
        assert call(words[0], labelled, *words[1:], "--sign", "sign.pem").code == 0
        assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []
        code, found = verified(file, "--model", labelled)
        assert (code, found["drawn_again"]) == (0, "equal") and read(file).recipe is not None, (words, found)
        assert found["signature"] == {"state": "valid", "signer": "A signer of Tests of mien", "why": ""}
        content = bytearray(file.read_bytes())
        content[content.index(b"<mien:recipe>") + 20] ^= 1
        if (at := content.find(b"iTXt")) >= 0:  # a careful forger mends the checksum of the chunk
            end = at + 4 + int.from_bytes(content[at - 4 : at], "big")
            content[end : end + 4] = zlib.crc32(content[at:end]).to_bytes(4, "big")
        file.write_bytes(content)
        done = call("verify", file, "--model", labelled)
        assert done.code == 8 and "signature: INVALID" in done.out, done.out
        assert "Hash.mismatch" in done.out
        file.unlink()


def test_exports_for_the_hub_are_signed_and_pages_are_not(here: Path, labelled: Path) -> None:
    pytest.importorskip("c2pa")
    write_signer(here / "sign.pem")
    assert call("export", labelled, "--to", "hub", "-o", "folder", "--sign", "sign.pem").code == 0
    assert signature.read(here / "folder" / "faces.png").state == "valid"
    assert verified("folder/faces.png", "--model", labelled)[1]["drawn_again"] == "equal"
    assert call("export", labelled, "--to", "web", "-o", "page", "--sign", "sign.pem").code == 2


def test_certificates_that_cannot_sign(here: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("c2pa")
    whole = write_signer(here / "sign.pem").read_text()
    at = whole.index("-----BEGIN CERT")
    (here / "split.pem").write_text(whole[at:])
    done = call("sample", labelled, "-o", "a.png", "--sign", "split.pem")
    assert done.code == 3 and "0 private keys" in done.err and not Path("a.png").exists()
    (here / "split.key").write_text(whole[:at])
    assert call("sample", labelled, "-o", "a.png", "--sign", "split.pem").code == 0
    (here / "bad.pem").write_text(whole.replace("A", "B"))
    assert call("sample", labelled, "-o", "b.png", "--sign", "bad.pem").code in (2, 3)
    assert call("sample", labelled, "-o", "b.png", "--sign", "none.pem").code == 3
    monkeypatch.setitem(sys.modules, "c2pa", None)
    done = call("sample", labelled, "-o", "b.png", "--sign", "sign.pem")
    assert done.code == 2 and "mien[sign]" in done.err and not Path("b.png").exists()
    assert signature.read(here / "a.png").state == "unread"
    Provenance().save(Image.new("RGB", (4, 4)), here / "c.png", "PNG")
    assert signature.read(here / "c.png").state == "none"
