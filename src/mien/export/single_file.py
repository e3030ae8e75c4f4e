"""One HTML file with a small residual generator: scripts, styles and weights inside, so that it opens from a disk too."""

from __future__ import annotations

import base64
import html
import json
import re
from copy import deepcopy
from graphlib import TopologicalSorter

import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.models.residual import ResidualGenerator
from mien.nn.pixel_shuffle import SLOPE
from mien.report.html import digest
from mien.sampling.sampler import Sampler
from mien.sampling.unsupervised import known as known_directions

MAX_PARAMETERS = 5_000_000  # 13 MB of text in half precision
LEVEL = 1 / 127.5  # of 255: how far half-precision weights may change a pixel
COMPARED = range(8)  # seeds

IMPORT = re.compile(r'^import \{ (.+?) \} from "\./([\w.]+)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
LINKED = re.compile(r'^\s*(?:<link rel="(?:modulepreload|stylesheet)".*|<script type="module".*)\n', re.MULTILINE)
BOOT = """
import { browser } from "./browser.js";
import { byId, fault } from "./dom.js";
import { start } from "./main.js";
import { residualGenerator, tensorsOf } from "./residual.js";
const { model, network } = JSON.parse(byId("page-model").textContent);
try {
  const drawer = residualGenerator(network, tensorsOf(byId("page-weights").textContent, network.tensors));
  start(browser(model, { drawer })).catch(fault);
} catch (error) {
  fault(error);
}
"""


@torch.inference_mode()
def network_of(sampler: Sampler) -> tuple[JSON, bytes, float] | None:
    """The network and its weights in half precision for residual.js, and how far these change a pixel.

    None for a model that residual.js does not draw, that is too large, or that half precision changes by more than a level.
    """
    model, directions = sampler.model, [d.vector for d in known_directions(sampler).all if d.space == "latent"]
    if not isinstance(model, ResidualGenerator) or model.channel is not None:
        return None
    if sum(p.numel() for p in model.parameters()) > MAX_PARAMETERS:
        return None
    tensors: dict[str, Tensor] = {name: tensor.half() for name, tensor in model.state_dict().items()}
    halved = deepcopy(model)
    halved.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    z, rows = sampler.latents(COMPARED), sampler.labels(COMPARED)
    expected = model.decode(z, rows).clamp(-1.0, 1.0)
    difference = float((halved.decode(z, rows).clamp(-1.0, 1.0) - expected).abs().max())
    if not difference <= LEVEL:
        return None
    if directions:
        tensors["vectors"] = torch.stack(directions).flatten(1).half()
    side, stages = expected.shape[-1], len(model.stages)
    network: JSON = {
        "side": side,
        "channels": expected.shape[1],
        "patch": side // (4 << stages - 1),
        "slope": SLOPE,
        "stages": stages,
        "blocks": len(model.stages[0]),  # type: ignore[arg-type]
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
    }
    return (
        network,
        b"".join(tensor.contiguous().numpy().astype("<f2").tobytes() for tensor in tensors.values()),
        difference,
    )


def bundle(modules: dict[str, str]) -> str:
    """ES modules as one classic script, each a function that returns what it exports.

    A page from a disk cannot import: it has no origin. The modules have named imports of one line and inline exports; the
    last, `boot`, is run.
    """
    needs = {name: {needed for _, needed in IMPORT.findall(text)} for name, text in modules.items()}
    wanted, order = {"boot"}, list(TopologicalSorter(needs).static_order())
    for name in reversed(order):
        wanted |= needs[name] if name in wanted else set()
    parts = ['"use strict";', "const modules = {};"]
    for name in order:
        if name in wanted:
            exported = EXPORT.findall(modules[name])
            text = IMPORT.sub(
                lambda m: f"const {{ {m[1].replace(' as ', ': ')} }} = modules[{json.dumps(m[2])}];", modules[name]
            )
            body = EXPORT.sub("", text)
            assert not re.search(r"^(?:import|export)\b", body, re.MULTILINE), f"{name} has a form that is not bundled"
            parts.append(
                f"modules[{json.dumps(name)}] = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();"
            )
    script = "\n".join(parts)
    assert "</script" not in script and "<!--" not in script
    return script


def single_file(files: dict[str, bytes], claims: str, model: JSON, network: JSON, weights: bytes) -> str:
    """The page: `files` are the explorer's, `claims` its provenance as meta elements, `model` what browser.js needs."""
    script = bundle({**{n: f.decode() for n, f in files.items() if n.endswith(".js")}, "boot": BOOT})
    style = files["style.css"].decode()
    policy = (
        f"default-src 'none'; script-src '{digest(script)}' 'wasm-unsafe-eval'; style-src '{digest(style)}'; "
        "img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta charset="utf-8">\n  <meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=False)}">'
        f"{claims}"
    )
    data = json.dumps({"model": model, "network": network}, separators=(",", ":")).replace("<", "\\u003c")
    tail = (
        f'<script type="application/json" id="page-model">{data}</script>\n'
        f'<script type="text/plain" id="page-weights">{base64.b64encode(weights).decode()}</script>\n<script>{script}</script>\n'
    )
    text = LINKED.sub("", files["index.html"].decode()).replace('<meta charset="utf-8">', head, 1)
    return text.replace("</head>", f"<style>{style}</style>\n</head>", 1).replace("</body>", f"{tail}</body>", 1)
