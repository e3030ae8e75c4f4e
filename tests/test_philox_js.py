"""The page computes the same latents as Python: seeds, places, moves, walks, and files that carry them."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mien.errors import UsageError
from mien.nn.priors import MAX_SEED, Normal, Uniform, normals, philox, uniforms
from mien.report.grid import read_recipe, save_png
from mien.sampling.address import LONGEST, Address, RawLatent, address_of, latent, parse, write
from mien.storage import provenance
from mien.storage.provenance import Claim, Provenance
from tests.conftest import ROOT

STATIC = ROOT / "src" / "mien" / "web" / "static"
SEEDS = [0, 1, 42, 999, 2**32 - 1, 2**32, 2**53 - 1000, MAX_SEED]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("SKIPPED PAGE ARITHMETIC: no node on this machine")
    return found


def run(node: str, module: str, body: str, folder: Path) -> Any:
    """What an expression of a module of the page gives, as JSON; `m` is the module."""
    script = folder / "test.mjs"
    script.write_text(f"import * as m from {json.dumps((STATIC / module).as_uri())};\n{body}", encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}')
    done = subprocess.run([node, "--no-warnings", str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def addresses(count: int) -> list[str]:
    """Addresses of every kind."""
    rng = random.Random(0)

    def one(depth: int) -> str:
        seed = rng.choice([rng.randrange(1000), rng.randrange(MAX_SEED + 1), MAX_SEED, 0])
        text = rng.choice([f"{seed}", f"{seed},{rng.uniform(-3, 3):.4f},{rng.uniform(-3, 3):.4f}", f"{seed},0.5,0"])
        if rng.random() < 0.2:
            text = write(address_of(torch.tensor([rng.gauss(0, 1) for _ in range(10)])))
        for _ in range(rng.randrange(3)):
            target = f"({one(depth + 1)})" if depth < 2 and rng.random() < 0.3 else str(rng.randrange(10**6))
            text += f"~{target}:{rng.uniform(-0.5, 1.5):.4f}"
        return text

    return ["42", "42,0.25,0.5", "42~7:0.3", "42~7:0.3~(8~9:0.5):0.2", "0,-0.5,-0.5", *(one(0) for _ in range(count))]


def test_the_numbers_of_a_seed(node: str, tmp_path: Path) -> None:
    body = f"console.log(JSON.stringify({SEEDS}.map((s) => [[...m.philox(s, 5)], [...m.uniforms(s, 9)], [...m.normals(s, 9)]])))"
    for seed, (words, flat, bell) in zip(SEEDS, run(node, "philox.js", body, tmp_path), strict=True):
        assert words == philox([seed], 5)[0].tolist()
        assert flat == uniforms([seed], 9)[0].tolist()
        assert np.allclose(bell, normals([seed], 9)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_the_latent_of_an_address(node: str, tmp_path: Path, prior: str) -> None:
    texts = addresses(60)
    body = (
        f"import {{ PRIORS }} from {json.dumps((STATIC / 'prior.js').as_uri())};\n"
        f"console.log(JSON.stringify({json.dumps(texts)}.map((t) => [m.write(m.parse(t)), [...m.latent(t, PRIORS.{prior}, 10)]])))"
    )
    own = Normal() if prior == "normal" else Uniform()
    for text, (written, values) in zip(texts, run(node, "address.js", body, tmp_path), strict=True):
        address = parse(text)
        assert written == write(address)
        expected = latent(address, own, (10,))[0].numpy()
        assert np.allclose(values, expected, rtol=1e-5, atol=1e-5), text


def test_what_is_no_address_is_none_there_either(node: str, tmp_path: Path) -> None:
    wrong = [
        "",
        "x",
        "-1",
        "1~2",
        "1~2:",
        "1,2",
        "(1",
        "(1))",
        "1~(2:3",
        "@AAAA",
        "1 ",
        "9007199254740992",
        "(" * 12 + "1",
        "1~2:1e3",
    ]
    attempt = "try { m.parse(t); return 'fine'; } catch { return ''; }"
    body = f"console.log(JSON.stringify({json.dumps(wrong)}.map((t) => {{ {attempt} }})))"
    assert run(node, "address.js", body, tmp_path) == [""] * len(wrong)
    for text in [*wrong, "1~2:0.5" * 300, "1" * (LONGEST + 1)]:
        with pytest.raises(UsageError):
            parse(text)


def test_a_walk_meets_every_stop(node: str, tmp_path: Path) -> None:
    body = "console.log(JSON.stringify([m.along(['3', '7', '9~1:0.5'], 9, false), m.along(['3', '7'], 6, true)]))"
    line, loop = run(node, "address.js", body, tmp_path)
    assert line[0] == "3" and line[4] == "7" and line[-1] == "9~1:0.5" and len(line) == 9
    assert loop[0] == "3" and loop[3] == "7" and len(loop) == 6


def test_an_address_is_written_as_it_is_read() -> None:
    for text in addresses(200):
        address = parse(text)
        assert parse(write(address)) == address
    assert write(parse("5,1.5,2")) == "2006,0.5,0" and write(parse("0,-1,0")) == str(MAX_SEED)


def test_the_plane_is_smooth_and_passes_through_the_seeds() -> None:
    for prior in (Normal(), Uniform()):
        at = {x: latent(parse(f"42,{x:.4f},0.3"), prior, (64,))[0] for x in np.arange(-0.05, 1.06, 0.01).round(4)}
        steps = torch.stack([at[b] - at[a] for a, b in zip(list(at), list(at)[1:], strict=False)])
        assert steps.norm(dim=1).max() < 0.3 * at[0.0].norm(), "it jumps"
        assert (steps[1:] - steps[:-1]).norm(dim=1).max() < 0.02 * at[0.0].norm(), "it kinks"
        assert torch.equal(latent(parse("42,1,0"), prior, (64,)), prior.draw([43], (64,)))
        assert torch.equal(latent(parse("42,0,1"), prior, (64,)), prior.draw([1042], (64,)))


def test_a_latent_of_another_shape_is_refused() -> None:
    z = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(latent(address_of(z), Normal(), (2, 3))[0], z)
    assert isinstance(parse(str(address_of(z))).start, RawLatent) and isinstance(parse(str(address_of(z))), Address)
    with pytest.raises(UsageError, match="6 numbers"):
        latent(address_of(z), Normal(), (7,))


def test_recipes_and_archives(node: str, tmp_path: Path) -> None:
    """A PNG of Python's is read by the page, one of the page's by Python; a ZIP and an animation open elsewhere."""
    for n, name in enumerate("ab"):
        save_png(
            Image.new("RGB", (5, 4), (200, 50 * n, 20)), tmp_path / f"{name}.png", {"at": "42", "labels": {"é": 1}}
        )
    body = f"""
import {{ readFileSync, writeFileSync }} from "node:fs";
const [a, b] = ["a", "b"].map((n) => new Uint8Array(readFileSync({json.dumps(str(tmp_path))} + `/${{n}}.png`)));
const to = (n, bytes) => writeFileSync({json.dumps(str(tmp_path))} + "/" + n, bytes);
to("c.png", m.withRecipe(a, {{ at: "7", labels: {{ "ü": 1 }} }}));
to("d.png", m.animated([a, b], 12, {{ walk: ["7", "@AAAAPw"], frames: 2 }}));
to("e.zip", new Uint8Array(await m.zip([{{ name: "a.png", bytes: a }}, {{ name: "é.png", bytes: b }}]).arrayBuffer()));
console.log(JSON.stringify([m.readRecipe(a), m.readRecipe(new Uint8Array([1, 2, 3]))]));
"""
    recipe, nothing = run(node, "png.js", body, tmp_path)
    assert recipe == {"at": "42", "labels": {"é": 1}} and nothing is None
    assert read_recipe(tmp_path / "c.png") == {"at": "7", "labels": {"ü": 1}}
    assert read_recipe(tmp_path / "d.png") == {"walk": ["7", "@AAAAPw"], "frames": 2}
    for name, claim in (("c.png", Claim.SYNTHETIC), ("d.png", Claim.FROM_PHOTOGRAPH)):
        content = (tmp_path / name).read_bytes()
        expected = Provenance(read_recipe(tmp_path / name), claim).xmp().decode()
        strip = lambda text: re.sub(r"mien [\d.a-z]+<|<mien:recipe>.*</mien:recipe>", "mien<", text)  # noqa: E731
        packet = content[content.index(b"<?xpacket begin") : content.index(b'end="r"?>') + 9].decode()
        assert strip(packet) == strip(expected), "the page and Python write the same"
        assert content.count(claim.sentence.encode()) == 2 and provenance.read(tmp_path / name).source == claim.uri
    with Image.open(tmp_path / "d.png") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
        image.seek(1)
        assert image.convert("RGB").getpixel((0, 0)) == (200, 50, 20)
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        assert archive.testzip() is None and archive.namelist() == ["a.png", "é.png"]
        assert Image.open(io.BytesIO(archive.read("a.png"))).size == (5, 4)
