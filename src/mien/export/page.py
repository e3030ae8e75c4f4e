"""Exports the explorer for static hosts: the generator runs in the visitor's browser.

A small residual generator is drawn by the page's own code, in one file (single_file.py); others by onnxruntime-web beside the page.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, replace
from pathlib import Path

from mien import __version__
from mien.core.contracts import JSON
from mien.core.families import FlowModel
from mien.downloads import weights
from mien.errors import UsageError
from mien.export import graph
from mien.export.card import card_of
from mien.export.folder import new_folder
from mien.export.single_file import network_of, single_file
from mien.nn.priors import Normal, Uniform
from mien.report.html import digest
from mien.sampling.sampler import Sampler
from mien.storage import atomic
from mien.storage.provenance import Provenance
from mien.web.registry import ModelEntry, capabilities
from mien.web.static_files import page_files

RUNTIME = {  # onnxruntime-web: file name -> name of the weights file
    "ort.wasm.min.mjs": "page-runtime",
    "ort-wasm-simd-threaded.mjs": "page-runtime-loader",
    "ort-wasm-simd-threaded.wasm": "page-runtime-engine",
    "ort.webgpu.min.mjs": "page-gpu-runtime",  # requested after the first face, if there is a GPU
    "ort-wasm-simd-threaded.asyncify.mjs": "page-gpu-loader",
    "ort-wasm-simd-threaded.asyncify.wasm": "page-gpu-engine",
}
UNUSED = ("boot.js", "server.js", "residual.js", "gemm.js", "learning.webp")  # by a page with onnxruntime
EARLY = (
    "browser.js",
    "blake2b.js",
    "gpu.js",
    "runtime.js",
    "ort.wasm.min.mjs",
)  # for the first face; not served otherwise
FROM_DISK = """addEventListener("DOMContentLoaded", () => {
  if (location.protocol === "file:") document.body.textContent =
    "A browser does not load the parts of this page from a disk: put its "
    + "folder on any web host, or run `python -m http.server` inside it and open the address that it prints.";
});"""
POLICY = (
    f"default-src 'none'; script-src 'self' '{digest(FROM_DISK)}' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
LICENCES = """This folder holds, beside the model:

- the page: mien, Apache-2.0
{runtime}
The licence of the model is its owner's to give: see MODEL_CARD.md.
"""
RUNTIME_LICENCE = "- ort.*.mjs, ort-wasm-*: onnxruntime-web, MIT, (c) Microsoft Corporation\n"


@dataclass(frozen=True)
class Page:
    """An exported folder."""

    path: Path
    files: tuple[str, ...]
    bytes: int
    difference: float  # largest difference from PyTorch, of pixels in [-1, 1], by onnxruntime or half-precision weights


def write_page(sampler: Sampler, name: str, source: Path, out: Path, space: bool = False) -> Page:
    """Write the folder `out` atomically, `space` adds a README. Raises UsageError for a model that cannot run in a browser."""
    if type(sampler.model.prior) not in (Normal, Uniform):
        raise UsageError(
            "This model cannot run in a browser.", "Its prior is not supported: the page supports normal and uniform.",
            "Serve it with `mien explore`.",
        )  # fmt: skip
    with new_folder(out) as beside:
        card = card_of(sampler, source, name)
        small = network_of(graph.uncompressed(sampler))
        if small is not None:
            network, content, difference = small
            model_info = description(sampler, name, card, False, "")
            text = single_file(page_files(), claims(sampler.metadata()), model_info, network, content)
            files = {"index.html": text.encode()}
        else:
            files, difference = with_runtime(sampler, name, card, beside)
        files["MODEL_CARD.md"] = card.encode()
        files["LICENCES.txt"] = LICENCES.format(runtime="" if small else RUNTIME_LICENCE).encode()
        if space:
            files["README.md"] = space_readme(name).encode()
        for file, content in files.items():
            atomic.write_bytes(beside / file, content)
    written = sorted(file.name for file in out.iterdir())
    return Page(out, tuple(written), sum((out / file).stat().st_size for file in written), difference)


def with_runtime(sampler: Sampler, name: str, card: str, folder: Path) -> tuple[dict[str, bytes], float]:
    """The files of a page that draws with onnxruntime, without the graphs, which are written to `folder`; and their difference."""
    runtime = {file: weights.path(entry).read_bytes() for file, entry in RUNTIME.items()}
    # The page multiplies labels itself, since its guidance can change.
    plain = sampler if guidance_of(sampler) is None else sampler.with_options(replace(sampler.options, guidance=1.0))
    drawn = graph.drawing(plain, folder / "model.onnx", mixing=True)
    try:
        encodes = graph.encoding(sampler, folder / "encoder.onnx") is not None
    except UsageError:  # the page works without an encoder
        encodes = False
    model_info = description(sampler, name, card, encodes, "; onnxruntime-web: MIT")
    files = {
        **{file: content for file, content in page_files().items() if file not in UNUSED},
        **runtime,
        "boot.js": BOOT.encode(),
        "index.html": index(page_files()["index.html"].decode(), sampler.metadata()).encode(),
        "model.json": json.dumps(model_info, separators=(",", ":")).encode(),
    }
    return files, drawn.difference


def description(sampler: Sampler, name: str, card: str, encodes: bool, licences: str) -> JSON:
    """What the page knows of the model: its capabilities, and the data to compute a seed's latent and labels."""
    id = sampler.model_hash[:16]
    model_info = capabilities(ModelEntry(id, Path(name)), sampler, None)
    return {
        **model_info,
        "name": name,
        "encodes": encodes,
        "inverts": False,
        "scalable": False,
        "neighbours": False,
        "formats": ["webp", "apng"],
        "flow": None,
        "guidance": guidance_of(sampler),
        "label_rows": sampler.header.get("label_rows", []) if sampler.model.label_dim else [],
        "card": card,
        "licence": f"the model's: see its card; the page: Apache-2.0{licences}",
        "made_by": f"mien {__version__}",
    }


def guidance_of(sampler: Sampler) -> float | None:
    """The guidance scale that the page starts with; None for a model without labels, and for a flow, whose graph fixes it."""
    model = sampler.model
    return None if isinstance(model, FlowModel) or not model.label_dim else sampler.options.guidance_of(model)


def space_readme(name: str) -> str:
    """The README.md by which the Hugging Face Hub serves the folder as a static Space."""
    title = json.dumps(f"{name}: faces by mien")  # a JSON string is a YAML string
    head = f"---\ntitle: {title}\nsdk: static\napp_file: index.html\npinned: false\ntags:\n- mien\n- face-generation\n---\n"
    text = "\nThe generator runs in the visitor's browser; every face is synthetic. See [the model's card](MODEL_CARD.md).\n"
    return head + text


def claims(recipe: JSON) -> str:
    """The page's provenance as meta elements."""
    return "".join(
        f'\n  <meta name="{name}" content="{html.escape(content)}">'
        for name, content in Provenance(recipe).meta().items()
    )


def index(text: str, recipe: JSON) -> str:
    """The page for a static host, with its Content-Security-Policy and its provenance."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    early = "\n".join(f'  <link rel="modulepreload" href="{file}">' for file in EARLY)
    text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n  {policy}{claims(recipe)}', 1)
    return text.replace("</head>", f"{early}\n  <script>{FROM_DISK}</script>\n</head>", 1)


BOOT = """// Starts an exported page: the generator runs here.
import { browser } from "./browser.js";
import { fault } from "./dom.js";
import { start } from "./main.js";
import { open, runtime } from "./runtime.js";

async function begin() {
  const opening = open("model.onnx"), model = await (await fetch("model.json")).json();
  await start(browser(model, await runtime(model, opening)));
}
begin().catch(fault);
"""
