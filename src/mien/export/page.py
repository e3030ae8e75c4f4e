"""Exports the explorer as a folder of static files: the generator runs in the visitor's browser."""

from __future__ import annotations

import html
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from mien import __version__
from mien.core.contracts import JSON
from mien.downloads import weights
from mien.errors import MienError, StorageError, UsageError
from mien.export import graph
from mien.export.card import card_of
from mien.nn.priors import Normal, Uniform
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
SERVED_ONLY = ("boot.js", "server.js")
EARLY = (
    "browser.js",
    "blake2b.js",
    "gpu.js",
    "ort.wasm.min.mjs",
)  # preloaded for the first face; the served page does not need them
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
LICENCES = """This folder holds, beside the model:

- the page: mien, Apache-2.0
- ort.*.mjs, ort-wasm-*: onnxruntime-web, MIT, (c) Microsoft Corporation

The licence of the model is its owner's to give: see MODEL_CARD.md.
"""


@dataclass(frozen=True)
class Page:
    """An exported folder."""

    path: Path
    files: tuple[str, ...]
    bytes: int
    difference: float  # largest difference between onnxruntime and PyTorch, of pixels in [-1, 1]


def write_page(sampler: Sampler, name: str, source: Path, out: Path, space: bool = False) -> Page:
    """Write the folder `out` atomically, `space` adds a README. Raises UsageError for a model that cannot run in a browser."""
    if type(sampler.model.prior) not in (Normal, Uniform):
        raise UsageError(
            "This model cannot run in a browser.", "Its prior is not supported: the page supports normal and uniform.",
            "Serve it with `mien explore`.",
        )  # fmt: skip
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty.", "The export needs a new or empty folder.", "Choose another --out.")
    runtime = {file: weights.path(entry).read_bytes() for file, entry in RUNTIME.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    beside.mkdir()
    try:
        drawn = graph.drawing(sampler, beside / "model.onnx", mixing=True)
        try:
            encodes = graph.encoding(sampler, beside / "encoder.onnx") is not None
        except UsageError:  # the page works without an encoder
            encodes = False
        card = card_of(sampler, source, name)
        model_info = json.dumps(description(sampler, name, card, encodes), separators=(",", ":"))
        files = {
            **{file: content for file, content in page_files().items() if file not in SERVED_ONLY},
            **runtime,
            "boot.js": BOOT.encode(),
            "index.html": index(page_files()["index.html"].decode(), sampler.metadata()).encode(),
            "model.json": model_info.encode(),
            "MODEL_CARD.md": card.encode(),
            "LICENCES.txt": LICENCES.encode(),
            **({"README.md": space_readme(name).encode()} if space else {}),
        }
        for file, content in files.items():
            atomic.write_bytes(beside / file, content)
        if out.exists():
            out.rmdir()
        atomic.rename(beside, out)
    except MienError:
        raise
    except OSError as error:
        raise StorageError(f"{out} cannot be written.", str(error), "Free space, or choose another --out.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    written = sorted(file.name for file in out.iterdir())
    return Page(out, tuple(written), sum((out / file).stat().st_size for file in written), drawn.difference)


def description(sampler: Sampler, name: str, card: str, encodes: bool) -> JSON:
    """The content of model.json: the model's capabilities, and the data to compute a seed's latent and labels."""
    id = sampler.model_hash[:16]
    model_info = capabilities(ModelEntry(id, Path(name)), sampler, None)
    return {
        **model_info,
        "name": name,
        "encodes": encodes,
        "inverts": False,
        "scalable": False,
        "neighbours": False,
        "formats": ["apng"],
        "flow": None,
        "label_rows": sampler.header.get("label_rows", []) if sampler.model.label_dim else [],
        "card": card,
        "licence": "the model's: see its card; the page: Apache-2.0; onnxruntime-web: MIT",
        "made_by": f"mien {__version__}",
    }


def space_readme(name: str) -> str:
    """The README.md by which the Hugging Face Hub serves the folder as a static Space."""
    title = json.dumps(f"{name}: faces by mien")  # a JSON string is a YAML string
    head = f"---\ntitle: {title}\nsdk: static\napp_file: index.html\npinned: false\ntags:\n- mien\n- face-generation\n---\n"
    text = "\nThe generator runs in the visitor's browser; every face is synthetic. See [the model's card](MODEL_CARD.md).\n"
    return head + text


def index(text: str, recipe: JSON) -> str:
    """The page for a static host, with its Content-Security-Policy and its provenance as meta elements."""
    claims = "".join(
        f'\n  <meta name="{name}" content="{html.escape(content)}">'
        for name, content in Provenance(recipe).meta().items()
    )
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    early = "\n".join(f'  <link rel="modulepreload" href="{file}">' for file in EARLY)
    text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n  {policy}{claims}', 1)
    return text.replace("</head>", f"{early}\n</head>", 1)


BOOT = """// The engine of an exported page: the generator runs here.
import { browser } from "./browser.js";
import { fault } from "./dom.js";
import { start } from "./main.js";

browser().then(start).catch(fault);
"""
