"""Models taken elsewhere: ONNX that draws the same faces, a page that needs no server, a folder for the hub."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mien import presets
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.families import Invertible
from mien.core.run import override
from mien.data.pack import Pack
from mien.downloads import hub, package_file, weights
from mien.errors import DataError, Mismatch, Untrusted, UsageError
from mien.export.graph import description, write
from mien.export.page import RUNTIME
from mien.models.eigenfaces import EigenfacesConfig
from mien.report.grid import read_marks, read_recipe, to_bytes
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.storage.provenance import Claim
from mien.training.baseline import fit_baseline
from mien.training.resolve import ResolvedRun
from tests.conftest import need_weights, steer, tiny, write_model, write_pack
from tests.test_cli import PRINTED, call
from tests.test_report_browser import browser  # noqa: F401 - a fixture
from tests.web_client import save_walk

pytest.importorskip("onnx", reason="SKIPPED EXPORT TESTS: the extra `export` is not installed")
ort: Any = pytest.importorskip("onnxruntime", reason="SKIPPED EXPORT TESTS: the extra `export` is not installed")


def run_graph(path: Path, **inputs: Tensor) -> Any:
    """What onnxruntime makes of a file."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.contiguous().numpy() for name, value in inputs.items()})[0]


# ONNX


@pytest.mark.parametrize("preset", ["quick", "vae", "dcgan-2015", "cppn-2016", "began-zhao"])
def test_a_graph_draws_the_faces_of_pytorch(tmp_path: Path, blob_pack: Pack, preset: str) -> None:
    check_graph(tmp_path, blob_pack, preset)


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", sorted(set(presets.PRESETS) - {"quick", "vae", "dcgan-2015", "cppn-2016", "began-zhao"})
)
def test_every_other_preset_does_too(tmp_path: Path, blob_pack: Pack, preset: str) -> None:
    check_graph(tmp_path, blob_pack, preset)


def test_the_baseline_does_too(tmp_path: Path, blob_pack: Pack) -> None:
    check_file(fit_baseline(blob_pack, tmp_path / "eigenfaces", EigenfacesConfig(components=6)), tmp_path, ())


def check_graph(tmp_path: Path, pack: Pack, preset: str) -> None:
    """Export a preset through the command line, and compare faces of seeds, in batches that the exporter never saw."""
    if presets.PRESETS[preset].conditional:
        pack = write_pack(tmp_path / "labelled.pack", labels=("Glasses", "Hat"))
    check_file(write_model(preset, tmp_path, pack), tmp_path, ("--solver", "heun:2") if preset == "flow" else ())


def check_file(model: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Export a model or a run, and compare."""
    out = tmp_path / "faces.onnx"
    said = call("export", model, "--to", "onnx", "-o", out, *flags, "--json")
    assert said.code == 0, said.err
    files = json.loads(said.out)["files"]
    assert all(file["difference"] <= 1e-4 for file in files)
    sampler = Sampler.load(model, device="cpu").with_options(DrawOptions(solver=flags[1] if flags else None))
    z = sampler.latents(range(5))
    labels = {} if not sampler.model.label_dim else {"labels": sampler.labels(range(5))}
    images = run_graph(out, latent=z, truncation=torch.tensor(1.0), **labels)  # type: ignore[arg-type]
    assert np.abs(images - sampler.sample(range(5)).numpy()).max() <= 1e-4
    if len(files) == 2:
        faces, rows = sampler.sample(range(3)), sampler.labels(range(3))
        found = run_graph(tmp_path / "faces-encoder.onnx", images=faces, **({} if rows is None else {"labels": rows}))
        assert np.abs(found - sampler.encode(faces, rows).numpy()).max() <= 1e-4
    else:
        assert (
            not isinstance(sampler.model, Invertible)
            or "no encoder" in call("export", model, "--to", "onnx", "-o", out, *flags).out
        )


def test_a_flow_with_its_own_solver_takes_any_batch(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its solver made one time for each of the two rows that the exporter saw, and so fixed the batch at two."""
    import onnx

    monkeypatch.chdir(tmp_path)
    said = call(
        "export", write_model("flow", tmp_path, blob_pack), "--to", "onnx", "-o", "f.onnx", "--solver", "multistep:2"
    )
    assert said.code == 0, said.err  # batches of 1, 3 and 8 were compared with PyTorch
    graph = onnx.load("f.onnx").graph
    axes = [value.type.tensor_type.shape.dim[0] for value in (graph.input[0], graph.output[0])]
    assert [axis.dim_param for axis in axes] == ["batch", "batch"]


def test_a_fixed_batch_is_no_export(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, latent: Tensor) -> Tensor:
            return latent + torch.zeros(len(latent), 1)

    with pytest.raises(UsageError, match="batch size of `latent` is fixed at 2"):
        write(Fixed(), {"latent": torch.zeros(8, 4)}, ["latent"], "images", tmp_path / "a.onnx", {})
    assert not list(tmp_path.iterdir())


def test_the_page_is_exported_without_the_extra_web(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install 'mien[export]'` has no starlette."""
    code = (
        "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"
        "from mien.export.page import page_files; assert 'index.html' in page_files()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "preset, prior, changes",
    [("quick", "normal", {}), ("vae", "normal", {}), ("began-zhao", "uniform", {}), ("began-2017", "uniform", {}),
     ("dcgan-2015", "normal", {}), ("dcgan-2015", "uniform", {"model.uniform": True})],
)  # fmt: skip
def test_the_graph_names_the_prior(
    tmp_path: Path, blob_pack: Pack, preset: str, prior: str, changes: dict[str, Any]
) -> None:
    """Whoever draws from the graph alone must draw from the right distribution."""
    sampler = Sampler.load(write_model(preset, tmp_path, blob_pack, **changes), device="cpu")
    told = description(sampler)
    assert told["prior"] == prior and told["latent"] == list(sampler.model.latent_shape)
    assert (sampler.latents(range(64)).abs().max() <= 1.0) == (prior == "uniform")


def test_labels_truncation_and_directions_are_inputs(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "p.pack", labels=("Hat", "Glasses"))
    model = write_model("quick", tmp_path, pack)
    steer(model)
    sampler = Sampler.load(model, device="cpu")
    assert call("export", model, "--to", "onnx", "-o", tmp_path / "a.onnx").code == 0
    z, amounts = sampler.latents(range(4)), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.5, 0.5]])
    images = run_graph(tmp_path / "a.onnx", latent=z, truncation=torch.tensor(0.7), directions=amounts)
    for row, (smiling, age) in enumerate(amounts.tolist()):
        moved = sampler.edit(z[row : row + 1], {"Smiling": smiling, "Age": age})
        assert (
            np.abs(images[row] - sampler.with_options(DrawOptions(truncation=0.7)).decode(moved)[0].numpy()).max()
            <= 1e-4
        )
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "a.onnx")).metadata_props}
    header = json.loads(told["mien"])
    assert header["directions"] == ["Smiling", "Age"] and header["sha256"] == sampler.model_hash
    assert header["prior"] == "normal" and "Synthetic" in told["disclaimer"]


def test_a_mapped_model_is_truncated_among_its_styles(tmp_path: Path, blob_pack: Pack) -> None:
    plan = ResolvedRun(
        override(tiny(presets.PRESETS["quick"]), {"model.mapping": 2}),
        blob_pack,
        DeviceContext(torch.device("cpu"), "fp32"),
        None,
        "b",
    )
    learner = plan.initial_state(World())
    for tensor in learner.inference_model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    model = tmp_path / "model.safetensors"
    model.write_bytes(learner.snapshot(plan.header).model)
    assert call("export", model, "--to", "onnx", "-o", tmp_path / "a.onnx").code == 0
    sampler = Sampler.load(model, device="cpu")
    for truncation in (0.0, 0.6, 1.0):
        images = run_graph(tmp_path / "a.onnx", latent=sampler.latents(range(4)), truncation=torch.tensor(truncation))
        assert np.abs(images - sampler.sample(range(4), truncation=truncation).numpy()).max() <= 1e-4


def test_styles_are_inputs_where_they_are_mixed(tmp_path: Path, blob_pack: Pack) -> None:
    from mien.export import graph

    sampler = Sampler.load(write_model("quick", tmp_path, blob_pack), device="cpu")
    assert graph.drawing(sampler, tmp_path / "plain.onnx").inputs == ("latent", "truncation")
    made = graph.drawing(sampler, tmp_path / "a.onnx", mixing=True)
    assert made.inputs == ("latent", "truncation", "other", "shares") and made.difference <= 1e-4
    z, whole = sampler.latents([1, 2, 3]), torch.tensor(1.0)
    other, shares = sampler.latents([42] * 3), torch.tensor([[0.0, 1.0]]).repeat(3, 1)
    images = run_graph(tmp_path / "a.onnx", latent=z, truncation=whole, other=other, shares=shares)
    assert np.abs(images - sampler.with_options(DrawOptions(style="42:2")).sample([1, 2, 3]).numpy()).max() <= 1e-4


def test_what_cannot_be_exported_says_why(tmp_path: Path, blob_pack: Pack) -> None:
    model = write_model("flow", tmp_path, blob_pack)
    said = call("export", model, "--to", "onnx", "-o", tmp_path / "a.onnx", "--solver", "adaptive")
    assert said.code == 2 and PRINTED.search(said.err) and "variable number of steps" in said.err
    assert not (tmp_path / "a.onnx").exists()


def test_a_graph_that_differs_is_never_kept(tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from mien.export import graph

    model = write_model("dcgan-2015", tmp_path, blob_pack)
    monkeypatch.setattr(graph, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(Mismatch, match="different faces"):
        graph.drawing(Sampler.load(model, device="cpu"), tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.glob("*.onnx")] == [] and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--to onnx -o faces.txt", 2),
        ("--to web --push a/b", 2),
        ("--to hub --push nowhere", 2),
        ("--to zip", 2),
        ("", 2),
        ("--to onnx --size 64", 2),
        ("--to onnx --solver euler:2", 2),
    ],
)
def test_mistakes_of_export(
    tmp_path: Path, blob_pack: Pack, line: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("export", write_model("dcgan-2015", tmp_path, blob_pack), *line.split())
    assert said.code == code and PRINTED.fullmatch(said.err), said.err


# The runtime of the page, from a registry of this machine


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An npm registry that offers one package, and an npm that is set up for it."""
    if shutil.which("npm") is None:
        pytest.skip("SKIPPED REGISTRY TESTS: no npm on this machine")
    archive = tmp_path / "onnxruntime-web-1.30.0.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in (
            ("package.json", b'{"name": "onnxruntime-web", "version": "1.30.0"}'),
            ("dist/a.mjs", b"export {};"),
        ):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own = f"http://{self.headers['Host']}"
            shasum = hashlib.sha1(archive.read_bytes()).hexdigest()
            dist = {"tarball": f"{own}/{archive.name}", "shasum": shasum}
            version = {"name": "onnxruntime-web", "version": "1.30.0", "dist": dist}
            told = {"name": "onnxruntime-web", "dist-tags": {"latest": "1.30.0"}, "versions": {"1.30.0": version}}
            content = archive.read_bytes() if self.path.endswith(".tgz") else json.dumps(told).encode()
            self.send_response(200 if "onnxruntime-web" in self.path else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    yield archive
    server.shutdown()


def test_without_a_network_npm_gives_up_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its default npm waits 10 s and then 60 s: the command line said nothing for a minute."""
    if shutil.which("npm") is None:
        pytest.skip("SKIPPED REGISTRY TESTS: no npm on this machine")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    commands = []
    run = subprocess.run

    def kept(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(package_file.subprocess, "run", kept)
    with pytest.raises(DataError, match="could not be downloaded"):
        package_file.download("onnxruntime-web", "onnxruntime-web-1.0.0.tgz", tmp_path)
    longest = [word.partition("=")[2] for word in commands[0] if word.startswith("--fetch-retry-maxtimeout")]
    assert longest and int(longest[0]) <= 3000


def test_the_runtime_comes_from_the_registry_that_npm_is_set_up_for(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"export {};"
    entry = weights.Weights(
        purpose="a test", package="onnxruntime-web", archive=registry.name, member="package/dist/a.mjs",
        size=len(content), sha256=hashlib.sha256(content).hexdigest(), licence="none",
    )  # fmt: skip
    monkeypatch.setitem(weights.WEIGHTS, "page-runtime", entry)
    for name in [name for name in weights.WEIGHTS if name.startswith("page-") and name != "page-runtime"]:
        monkeypatch.delitem(weights.WEIGHTS, name)
    assert weights.path("page-runtime").read_bytes() == content
    monkeypatch.setenv("PATH", "")
    assert weights.path("page-runtime").read_bytes() == content, "the second time needs no registry"
    with pytest.raises(DataError, match="downloaded"):
        package_file.download("onnxruntime-web", registry.name, tmp_path)


def test_a_package_with_another_file_is_refused(registry: Path) -> None:
    with pytest.raises(Untrusted):
        weights.path("page-runtime")
    assert not list(Path(os.environ["MIEN_CACHE"]).rglob("*.mjs"))


def test_a_registry_that_has_nothing_says_so(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="downloaded"):
        package_file.download("nothing", "nothing-1.0.0.tgz", tmp_path)


# The page


@pytest.fixture(scope="module")
def runtime() -> None:
    """onnxruntime-web, as the cache or the registry has it."""
    need_weights(*RUNTIME.values())


@pytest.fixture(scope="module", params=["vae", "vaegan-torch-2015"])
def page_of(
    request: pytest.FixtureRequest, runtime: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Sampler, Path]]:
    """An exported page on a static host in a folder of its own, its model, and its folder."""
    root = tmp_path_factory.mktemp("site")
    model = write_model(request.param, root, write_pack(root / "p.pack"))
    steer(model)
    assert call("export", model, "--to", "web", "-o", root / "deep" / "faces").code == 0
    with hosted(root) as address:
        yield f"{address}/deep/faces/", Sampler.load(model, device="cpu"), root / "deep" / "faces"


@contextmanager
def hosted(root: Path) -> Iterator[str]:
    """The address of a static host of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


NO_GPU = "No available adapters."  # the browser's own word when a page asks for WebGPU where there is none


@pytest.fixture
def page(browser: Any, page_of: tuple[str, Sampler, Path]) -> Iterator[Any]:  # noqa: F811
    """The exported page, open; nothing may be asked of another origin, and nothing may be said."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, accept_downloads=True, reduced_motion="reduce"
    )
    found = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(f"{page_of[0]}#at=42")
    found.wait_for_selector("#face[data-at]")
    yield found
    said = [words for words in said if words != NO_GPU]
    context.close()
    said = [
        text for text in said if text != "No available adapters."
    ]  # Chromium's own, where there is no graphics processor
    assert not said, said
    assert not [url for url in asked if not url.startswith((page_of[0], "blob:", "data:"))], asked


def saved(page: Any, file: Path) -> Any:
    """The picture that the page gives away."""
    page.locator("body").click(position={"x": 5, "y": 5})
    with page.expect_download() as waited:
        page.keyboard.press("s")
    waited.value.save_as(file)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_page_draws_the_faces_of_pytorch(page: Any, page_of: tuple[str, Sampler, Path], tmp_path: Path) -> None:
    from mien.sampling.address import parse

    sampler = page_of[1]
    for at, hash in (("42", ""), ("9007199254740991", ""), ("7,0.25,0.5~9:0.3", "&t=0.7&direction=Smiling:1.5")):
        page.goto(f"{page_of[0]}#at={at}{hash}")
        page.reload()
        page.wait_for_selector(f'#face[data-at="{at}"][aria-busy="false"]')
        found = saved(page, tmp_path / "face.png")
        z, rows = sampler.latent_at(parse(at), None, {"Smiling": 1.5} if hash else {})
        drawn = sampler.with_options(DrawOptions(truncation=0.7 if hash else 1.0)).decode(z, rows)
        assert np.abs(found - to_bytes(drawn)[0].numpy()).max() <= 2, at
        recipe = read_recipe(tmp_path / "face.png")
        assert recipe["at"] == at and recipe["model"] == sampler.model_hash and recipe["synthetic"] is True
        assert read_marks(tmp_path / "face.png").source == Claim.SYNTHETIC.uri


def test_the_page_mixes_styles(browser: Any, runtime: None, tmp_path: Path, blob_pack: Pack, monkeypatch: Any) -> None:  # noqa: F811
    monkeypatch.setattr("mien.export.page.network_of", lambda _: None)  # by onnxruntime, as a large one is
    model = write_model("quick", tmp_path, blob_pack)
    assert call("export", model, "--to", "web", "-o", tmp_path / "faces").code == 0
    sampler, context = Sampler.load(model, device="cpu"), browser.new_context(accept_downloads=True)
    with hosted(tmp_path) as address:
        page = context.new_page()
        for style in ("", "7:1", "7:2"):
            page.goto(f"{address}/faces/#at=42&t=0.8&style={style}")
            page.reload()
            page.wait_for_selector('#face[data-at="42"][aria-busy="false"]')
            mixed = sampler.with_options(DrawOptions(truncation=0.8, style=style or None))
            found = saved(page, tmp_path / "face.png")
            assert np.abs(found - to_bytes(mixed.sample([42]))[0].numpy()).max() <= 2, style
            assert not style or page.input_value("#style-stages") == style.rpartition(":")[2]
            assert read_recipe(tmp_path / "face.png").get("style", "") == style
    context.close()


@pytest.mark.parametrize("own", [1.0, 1.5])
@pytest.mark.parametrize("engine", ["onnxruntime", "its own code"])
def test_the_page_follows_labels_as_closely_as_asked(
    browser: Any,  # noqa: F811
    runtime: None,
    tmp_path: Path,
    monkeypatch: Any,
    engine: str,
    own: float,
) -> None:
    if engine == "onnxruntime":
        monkeypatch.setattr("mien.export.page.network_of", lambda _: None)
    pack = write_pack(tmp_path / "p.pack", labels=("Hat", "Glasses"))
    model = write_model("cgan", tmp_path, pack)
    assert call("export", model, "--to", "web", "--guidance", own, "-o", tmp_path / "faces").code == 0
    sampler, context = Sampler.load(model, device="cpu"), browser.new_context(accept_downloads=True)
    drawn = []
    with hosted(tmp_path) as address:
        page = context.new_page()
        for guidance in (None, 1.0, 4.0):
            scale = "" if guidance is None else f"&guidance={guidance:g}"
            page.goto(f"{address}/faces/#at=42&label=Hat:1{scale}")
            page.reload()
            page.wait_for_selector('#face[data-at="42"][aria-busy="false"]')
            assert float(page.input_value("#guidance input")) == (guidance or own)
            guided = sampler.with_options(DrawOptions(guidance=guidance or own))
            expected = to_bytes(guided.sample([42], {"Hat": 1.0}))[0].numpy().astype(int)
            assert np.abs(saved(page, tmp_path / "face.png") - expected).max() <= 2, guidance
            assert read_recipe(tmp_path / "face.png").get("guidance") == guidance
            drawn.append(expected)
    context.close()
    assert np.abs(drawn[1] - drawn[2]).max() > 4, "labels must show, or nothing is tested"


def test_the_page_offers_what_it_can_and_no_more(page: Any) -> None:
    assert page.is_visible("#pad-card") and page.is_visible("#tab-photo")
    box = page.locator("#pad-area").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3, steps=4)
    page.wait_for_selector('#face[data-shown="preview"]')
    page.mouse.up()
    page.wait_for_selector('#face[data-shown="exact"]:not([data-at="42"])')
    assert page.is_hidden("#tab-training") and page.is_hidden("#tab-near")
    assert page.locator("fieldset .slider").count() == 2
    page.click("#tab-about")
    text = page.inner_text("#panel-about")
    assert "synthetic" in text and "onnxruntime-web: MIT" in text
    assert "nothing leaves it" in page.inner_text("footer")


def test_the_page_breeds_films_and_encodes_by_itself(page: Any, tmp_path: Path) -> None:
    page.locator("#litter .thumb").nth(8).wait_for()
    page.locator("#litter .thumb").nth(4).click()
    page.wait_for_selector('#face[data-at^="42~"]')
    page.click("#tab-sheet")
    page.locator("#sheet .thumb").nth(99).wait_for()
    save_walk(page, tmp_path / "walk.png", 8)
    with Image.open(tmp_path / "walk.png") as image:
        assert image.n_frames == 8 and image.size == (64, 64)  # type: ignore[attr-defined]
    Image.new("RGB", (40, 40), (200, 150, 120)).save(tmp_path / "me.png")
    page.click("#tab-photo")
    page.set_input_files("#photo-file", tmp_path / "me.png")
    page.wait_for_selector('#face[data-at^="@"]')


#: A graphics processor that is there, and a runtime for it that draws what WebAssembly draws, `off` further.
THERE = "Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({ info: {} }) } });"
GPU_RUNTIME = """
export * from "./ort.wasm.min.mjs";
import * as plain from "./ort.wasm.min.mjs";
export const InferenceSession = { async create(content, { executionProviders }) {
  if (executionProviders[0] !== "webgpu") throw new Error("not asked for");
  if (OFF === "broken") throw new Error("no such device");
  const session = await plain.InferenceSession.create(content, { executionProviders: ["wasm"] });
  return { async run(feeds) {
    globalThis.drawn = (globalThis.drawn ?? 0) + 1;
    const { images } = await session.run(feeds);
    return { images: { data: images.data.map((value) => value + OFF / 127.5) } };
  } };
} };
"""


@pytest.mark.parametrize("page_of", ["vae"], indirect=True)
@pytest.mark.parametrize(
    ("gpu", "off", "said"),
    [
        ("Object.defineProperty(navigator, 'gpu', { value: undefined });", 0, "WebAssembly (this browser has no WebGPU)"),
        ("Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => null } });", 0,
         "WebAssembly (there is no graphics processor)"),
        (THERE, 1.5, "WebGPU"),
        (THERE, 2.5, "WebAssembly (WebGPU drew other faces"),
        (THERE, "NaN", "WebAssembly (WebGPU drew other faces"),
        (THERE, "broken", "WebAssembly (WebGPU failed: no such device)"),
    ],
)  # fmt: skip
def test_which_engine_draws(
    browser: Any,  # noqa: F811
    page_of: tuple[str, Sampler, Path],
    gpu: str,
    off: Any,
    said: str,
) -> None:
    """WebGPU where there is one that draws the same faces within two levels; WebAssembly otherwise, and why."""
    context = browser.new_context()
    context.add_init_script(gpu)
    page = context.new_page()
    wanted = json.dumps(off) if off != "NaN" else "NaN"
    body = GPU_RUNTIME.replace("OFF", wanted)
    page.route("**/ort.webgpu.min.mjs", lambda route: route.fulfill(body=body, content_type="text/javascript"))
    page.goto(f"{page_of[0]}#at=42")
    page.wait_for_selector("#face[data-at]")
    for _ in range(900):
        text = page.inner_text("#where")
        if "WebGPU" in text or "graphics" in text:
            break
        page.wait_for_timeout(100)
    assert f"inside your browser, by {said}" in text
    before = page.evaluate("globalThis.drawn ?? 0")
    page.click("#new")
    page.wait_for_selector('#face:not([data-at="42"])')
    assert (page.evaluate("globalThis.drawn ?? 0") > before) is (said == "WebGPU")
    context.close()


def test_from_a_disk_the_page_says_what_to_do(browser: Any, page_of: tuple[str, Sampler, Path]) -> None:  # noqa: F811
    page = browser.new_page()
    page.goto((page_of[2] / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text("body")
    page.close()


def test_the_folder_is_whole(page_of: tuple[str, Sampler, Path]) -> None:
    folder = page_of[2]
    index = (folder / "index.html").read_text(encoding="utf-8")
    for name in re.findall(r'(?:href|src)="([\w.-]+\.\w+)"', index):
        assert (folder / name).is_file(), name
    text = " ".join(
        path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".js", ".html", ".css")
    )
    names = r"www\.w3\.org|iptc\.org/std|cv\.iptc\.org/newscodes|purl\.org/dc|ns\.adobe\.com/xap"  # of XMP: nothing is loaded
    assert re.findall(rf"https?://(?!{names})", text) == []
    assert "MIT" in (folder / "LICENCES.txt").read_text() and (folder / "MODEL_CARD.md").is_file()
    assert "wasm-unsafe-eval" in index and "default-src 'none'" in index
    page = read_marks(folder / "index.html")
    assert page.source == Claim.SYNTHETIC.uri and page.recipe == page_of[1].metadata()


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path, blob_pack: Pack) -> None:
    model = write_model("dcgan-2015", tmp_path, blob_pack)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    for target in ("web", "hub"):
        said = call("export", model, "--to", target, "-o", tmp_path / "site")
        assert said.code == 2 and "not empty" in said.err
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["mine.txt"]


def test_the_row_of_labels_of_a_seed(tmp_path: Path) -> None:
    from tests.test_philox_js import SEEDS, run

    node = shutil.which("node")
    if node is None:
        pytest.skip("SKIPPED PAGE ARITHMETIC: no node on this machine")
    body = f"console.log(JSON.stringify({SEEDS}.map((s) => String(m.mix(s)))))"
    assert [int(text) for text in run(node, "blake2b.js", body, tmp_path)] == [mix(seed) for seed in SEEDS]


# The hub


def test_a_folder_for_the_hub_draws_the_same_faces(tmp_path: Path, blob_pack: Pack) -> None:
    model = write_model("quick", tmp_path, blob_pack)
    steer(model)
    said = call("export", model, "--to", "hub", "-o", tmp_path / "folder", "--json")
    assert said.code == 0, said.err
    folder = tmp_path / "folder"
    config = json.loads((folder / "config.json").read_text())
    assert config["library_name"] == "mien" and config["preset"] == "quick"
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: mien")
    loaded = Sampler.load(folder, device="cpu")
    assert torch.equal(loaded.sample([42]), Sampler.load(model, device="cpu").sample([42]))
    assert list(loaded.directions) == ["Smiling", "Age"]


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """huggingface_hub with a folder in place of the network."""
    import types

    done: dict[str, Any] = {}

    class HfApi:
        def create_repo(self, name: str, exist_ok: bool, repo_type: str = "model", space_sdk: str = "") -> str:
            done.update(made=name, kind=repo_type, sdk=space_sdk)
            return f"hub/{name}"

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str, repo_type: str = "model") -> None:
            assert repo_type == done["kind"]
            shutil.copytree(folder_path, tmp_path / "remote" / repo_id)

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        done["revision"] = revision
        if not (tmp_path / "remote" / name).is_dir():
            raise OSError("404: there is no such repository\nmore")
        return str(tmp_path / "remote" / name)

    module = types.ModuleType("huggingface_hub")
    vars(module).update(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return done


def test_pushed_and_loaded_again(fake_hub: dict[str, Any], tmp_path: Path, blob_pack: Pack) -> None:
    model = write_model("dcgan-2015", tmp_path, blob_pack)
    said = call("export", model, "--to", "hub", "-o", tmp_path / "folder", "--push", "me/faces", "--json")
    assert said.code == 0 and json.loads(said.out)["pushed"] == "hub/me/faces" and fake_hub["made"] == "me/faces"
    loaded = Sampler.load("hf://me/faces@main", device="cpu")
    assert torch.equal(loaded.sample([3]), Sampler.load(model, device="cpu").sample([3]))
    assert fake_hub["revision"] == "main"
    with pytest.raises(DataError, match="could not be downloaded"):
        Sampler.load("hf://me/nothing")
    for wrong in ("hf://me", "hf://", "hf://a/b/c"):
        with pytest.raises(UsageError, match="is not a repository name"):
            hub.fetch(wrong)


def test_a_space_is_the_page_with_the_head_that_the_hub_reads(
    fake_hub: dict[str, Any], tmp_path: Path, blob_pack: Pack
) -> None:
    model = write_model("dcgan-2015", tmp_path, blob_pack)
    said = call("export", model, "--to", "space", "-o", tmp_path / 'my: "faces"', "--push", "me/faces", "--json")
    assert said.code == 0, said
    assert (
        json.loads(said.out)["pushed"] == "hub/me/faces" and fake_hub["kind"] == "space" and fake_hub["sdk"] == "static"
    )
    there = tmp_path / "remote" / "me" / "faces"
    assert (there / "index.html").is_file() and (there / "model.onnx").is_file()
    _, head, text = (there / "README.md").read_text().split("---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    assert fields["sdk"] == "static" and fields["app_file"] == "index.html" and "synthetic" in text
    assert json.loads(fields["title"]).endswith(": faces by mien")


def test_without_the_extra_the_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="not installed"):
        hub.fetch("hf://me/faces")
