"""A page of one file: it opens from a disk, draws by its own code the faces of PyTorch, and asks for nothing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from mien.data.pack import Pack
from mien.export import single_file
from mien.export.single_file import bundle, network_of
from mien.report.grid import read_marks, read_recipe, to_bytes
from mien.sampling.address import parse
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage.provenance import Claim
from tests.conftest import steer, write_model, write_pack
from tests.test_cli import call
from tests.test_philox_js import node, run  # noqa: F401 - a fixture
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import save_walk

SHAPES: list[dict[str, Any]] = [
    {},
    {"model.group": 0},  # plain 3x3 blocks
    {"model.group": 6, "model.width": 10},  # groups and widths that are no multiples of four
    {"model.full_res_width": 0},  # pixel shuffle
    {"model.patch": 4, "model.full_res_width": 6},
    {"model.patch": 1, "model.blocks": 2},
    {"model.mapping": 2, "model.max_width": 8},
]


@pytest.mark.parametrize("engine", ["arithmetic", "plain"])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("changes", SHAPES, ids=lambda changes: ",".join(changes) or "as it is")
def test_the_code_of_the_page_computes_what_pytorch_does(
    node: str,  # noqa: F811
    tmp_path: Path,
    blob_pack: Pack,
    changes: dict[str, Any],
    labelled: bool,
    engine: str,
) -> None:
    pack = write_pack(tmp_path / "p.pack", labels=("Hat", "Glasses")) if labelled else blob_pack
    model = write_model("cgan" if labelled else "quick", tmp_path, pack, **changes)
    steer(model)
    sampler = Sampler.load(model, device="cpu")
    found = network_of(sampler)
    assert found is not None
    network, weights, difference = found
    assert 0 < difference <= 1 / 127.5
    state = sampler.model.state_dict()  # the same weights for both
    sampler.model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in state.items()})
    z, other, count = sampler.latents([42, 7]), sampler.latents([3, 3]), len(sampler.model.stages)  # type: ignore[arg-type]
    amounts, shares = torch.tensor([[1.5, 0.0], [-0.5, 2.0]]), torch.eye(count)[[0, count - 1]]
    rows = torch.tensor([[1.0, 0.25], [0.0, float("nan")]]) if labelled else None
    vectors = torch.stack([d.vector for d in sampler.directions.all]).half().float()
    with torch.inference_mode():
        expected = sampler.model.decode_mixed(z + amounts @ vectors, other, shares, 0.7, rows).clamp(-1, 1)  # type: ignore[operator]
    feeds = {"latent": z, "directions": amounts, "other": other, "shares": shares, "labels": rows}
    given = {name: value.nan_to_num(-1).flatten().tolist() for name, value in feeds.items() if value is not None}
    (tmp_path / "w.txt").write_text(base64.b64encode(weights).decode())
    body = f"""
        import {{ readFileSync }} from "node:fs";
        import {{ {engine} }} from {json.dumps((single_file_js() / "gemm.js").as_uri())};
        const network = {json.dumps(network)}, given = {json.dumps(given)};
        const feeds = Object.fromEntries(Object.entries(given).map(([name, values]) => [name, Float32Array.from(values)]));
        if (feeds.labels) feeds.labels = feeds.labels.map((value) => (value < 0 ? NaN : value));
        const made = m.residualGenerator(
          network, m.tensorsOf(readFileSync({json.dumps(str(tmp_path / "w.txt"))}, "utf8"), network.tensors), {engine}(),
        );
        await made.run({{ count: 2, truncation: 1, latent: feeds.other }});  // nothing of it may remain
        console.log(JSON.stringify([made.name, Array.from(await made.run({{ count: 2, truncation: 0.7, ...feeds }}))]));
    """
    name, pixels = run(node, "residual.js", body, tmp_path)
    assert name == {"arithmetic": "WebAssembly", "plain": "JavaScript"}[engine]
    assert np.abs(np.array(pixels) - expected.numpy().ravel()).max() <= 2e-4
    assert float(expected.std()) > 0.02, "a picture without contrast would show no fault"


def single_file_js() -> Path:
    from mien.web.static_files import STATIC

    return STATIC


def test_what_the_page_does_not_draw_itself(tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = Sampler.load(write_model("vae", tmp_path, blob_pack), device="cpu")
    assert network_of(vae) is None
    sampler = Sampler.load(write_model("quick", tmp_path, blob_pack), device="cpu")
    before = sampler.sample([1])
    assert network_of(sampler) is not None and torch.equal(sampler.sample([1]), before), "its weights are untouched"
    monkeypatch.setattr(single_file, "MAX_PARAMETERS", 10)
    assert network_of(sampler) is None
    monkeypatch.undo()
    sampler.model.mapping.weight.data *= 1e6  # type: ignore[union-attr,operator]
    assert network_of(sampler) is None, "half precision has no such number"


def test_modules_become_one_script(node: str, tmp_path: Path) -> None:  # noqa: F811
    modules = {
        "a.js": 'import { two as half, Three } from "./b.js";\nexport async function sum() { return half + new Three().value; }\n',
        "b.js": "const hidden = 1;\nexport const two = 2;\nexport class Three { value = two + hidden; }\n",
        "unused.js": 'import * as all from "./b.js";\n',
        "boot": 'import { sum } from "./a.js";\nsum().then((value) => console.log(value));\n',
    }
    script = bundle(modules)
    assert "unused" not in script
    assert run(node, "png.js", script.replace('"use strict";', ""), tmp_path) == 5
    with pytest.raises(AssertionError, match="a form that is not bundled"):
        bundle({"a.js": "export default 3;\n", "boot": 'import { x } from "./a.js";\n'})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported page of the bundled model."""
    folder = tmp_path_factory.mktemp("site") / "faces"
    said = call("export", "faces", "--to", "web", "-o", folder, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["difference"] <= 1 / 127.5
    return folder


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:  # noqa: F811
    """The page, opened from the disk, its file moved away from all others; it asks for nothing and says nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    found, asked, said = context.new_page(), [], []
    found.on("request", lambda request: asked.append(request.url))
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    alone = folder.parent / "alone" / "page.html"
    alone.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / "index.html", alone)
    found.goto(f"{alone.as_uri()}#at=42")
    found.wait_for_selector("#face[data-at]")
    yield found
    context.close()
    assert not said, said
    assert not [url for url in asked if not url.startswith((alone.as_uri(), "blob:", "data:"))], asked


def test_it_draws_the_faces_of_pytorch(page: Any, tmp_path: Path) -> None:
    sampler = Sampler.load(Path("faces"), device="cpu")
    name = next(iter(sampler.directions))
    for at, options in (
        ("42", {}),
        ("9007199254740991", {"truncation": 0.6}),
        ("7,0.25,0.5~9:0.3", {"truncation": 0.7, "direction": 1.5}),
        ("3", {"style": "7:coarse"}),
        ("5", {"direction": 2.5, "layers": "2-3"}),
    ):
        words = {"t": options.get("truncation", 1), "style": options.get("style", "")}
        words["layers"] = options.get("layers", "")
        words |= {"direction": f"{name}:{options['direction']}"} if "direction" in options else {}
        page.evaluate(
            "([at, words]) => { location.hash = new URLSearchParams({ at, ...words }); location.reload(); }",
            [at, words],
        )
        page.wait_for_selector(f'#face[data-at="{at}"][aria-busy="false"]')
        page.locator("body").click(position={"x": 5, "y": 5})
        with page.expect_download() as waited:
            page.keyboard.press("s")
        waited.value.save_as(tmp_path / "face.png")
        amounts = {name: options["direction"]} if "direction" in options else {}
        z, rows = sampler.latent_at(parse(at), None, amounts, options.get("layers", ""))
        drawing = sampler.with_options(
            DrawOptions(truncation=options.get("truncation", 1.0), style=options.get("style"))
        )
        with Image.open(tmp_path / "face.png") as image:
            found = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(found - to_bytes(drawing.decode(z, rows))[0].numpy()).max() <= 2, at
        recipe = read_recipe(tmp_path / "face.png")
        assert recipe["at"] == at and recipe["model"] == sampler.model_hash and recipe["synthetic"] is True


def test_it_breeds_films_and_says_by_what_it_draws(page: Any, tmp_path: Path) -> None:
    page.click("#tab-breed")
    page.locator("#litter .thumb").nth(8).wait_for()
    page.locator("#litter .thumb").nth(4).click()
    page.wait_for_selector('#face[data-at^="42~"]')
    save_walk(page, tmp_path / "walk.webp", 8)
    with Image.open(tmp_path / "walk.webp") as image:
        assert image.format == "WEBP" and image.n_frames == 8 and image.info["loop"] == 0  # type: ignore[attr-defined]
        assert {(image.seek(frame), image.load(), image.info["duration"])[2] for frame in range(8)} == {41, 42}
    marks = read_marks(tmp_path / "walk.webp")
    assert marks.source == Claim.SYNTHETIC.uri and marks.recipe is not None and marks.recipe["frames"] == 8
    save_walk(page, tmp_path / "walk.png", 8)
    for name in ("walk.webp", "walk.png"):
        said = call("verify", tmp_path / name)
        assert "drawn again: equal" in said.out, (name, said.out, said.err)
    with Image.open(tmp_path / "walk.png") as film:
        frames = [(film.seek(frame), film.convert("RGB"))[1] for frame in range(8)]
        frames[3].paste((255, 0, 0), (100, 100, 110, 110))  # a film without loss that was changed in one place
        claims = PngImagePlugin.PngInfo()
        for key, text in film.text.items():  # type: ignore[attr-defined]
            claims.add_itxt(key, text)
        frames[0].save(tmp_path / "changed.png", save_all=True, append_images=frames[1:], pnginfo=claims)
    changed = call("verify", tmp_path / "changed.png")
    assert changed.code == 9 and "drawn again: differs: by up to" in changed.out
    page.click("#tab-breed")
    assert page.inner_text("#where") == "They are drawn inside your browser, by WebAssembly; nothing leaves it."
    assert page.is_hidden("#tab-training") and page.is_hidden("#tab-photo")
    page.go_back()
    page.wait_for_selector('#face[data-at="42"]')
    page.click("#tab-about")
    text = page.inner_text("#card")
    assert "synthetic" in text and not {"---", "# ", "`"} & set(re.findall("---|# |`", text)), (
        "Markdown is set, not shown"
    )


def test_it_is_small_whole_and_closed(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["LICENCES.txt", "MODEL_CARD.md", "index.html"]
    content = (folder / "index.html").read_bytes()
    assert len(content) < 6_000_000
    text = content.decode()
    assert not re.findall(r'<(?:link|script|img)\b[^>]*(?:href|src)="(?!data:)', text)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1] and "'self'" not in policy[1] and "connect-src" not in policy[1]
    assert "onnxruntime" not in (folder / "LICENCES.txt").read_text()
    marks = read_marks(folder / "index.html")
    assert marks.source == Claim.SYNTHETIC.uri and marks.recipe == Sampler.load(Path("faces"), device="cpu").metadata()


def test_another_model_needs_its_own_words_escaped(tmp_path: Path, blob_pack: Pack) -> None:
    """A card or a name may hold what ends a script."""
    model = write_model("quick", tmp_path, blob_pack)
    out = tmp_path / "out"
    evil = tmp_path / "</script><script>alert(1)<!--.safetensors".replace("/", "\u2215")
    model.rename(evil)
    assert call("export", evil, "--to", "web", "-o", out).code == 0
    text = (out / "index.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 3 and "alert(1)<!--" not in text
