"""Exports a model as ONNX: named inputs, any batch size, verified in onnxruntime before the file is renamed to its target."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.core.contracts import JSON
from mien.core.families import CompressedModel, FlowModel, Invertible, StyleModel
from mien.errors import MienError, Mismatch, UsageError
from mien.nn.priors import Normal, Uniform
from mien.sampling.sampler import Sampler
from mien.sampling.unsupervised import known as known_directions
from mien.storage.atomic import replacing
from mien.storage.provenance import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLERANCE = 1e-4  # largest difference between PyTorch and onnxruntime, of pixels in [-1, 1]
BATCHES = (1, 3, 8)  # batch sizes that are compared
OPSET = 20
LATENT, LABELS, TRUNCATION, DIRECTIONS, IMAGES = "latent", "labels", "truncation", "directions", "images"
OTHER, SHARES = "other", "shares"


class ExportedDecoder(nn.Module):
    """The generator with all its inputs: latent, truncation, labels, directions, style mixing."""

    def __init__(self, sampler: Sampler, vectors: Tensor | None) -> None:
        """`vectors` are the directions `[k, *latent_shape]`, in standard deviations, if any."""
        super().__init__()
        self.model, self.options = sampler.model, sampler.options
        self.register_buffer("vectors", vectors)

    def forward(
        self,
        latent: Tensor,
        truncation: Tensor,
        labels: Tensor | None,
        directions: Tensor | None,
        other: Tensor | None,
        shares: Tensor | None,
    ) -> Tensor:
        z = latent
        if directions is not None and isinstance(self.vectors, Tensor):
            z = z + (directions @ self.vectors.flatten(1)).reshape(z.shape)
        if other is not None and shares is not None and isinstance(self.model, StyleModel):
            followed = self.options.followed(self.model, labels)
            return self.model.decode_mixed(z, other, shares, truncation, followed).clamp(-1.0, 1.0)
        return self.options.draw(self.model, z, labels, truncation).clamp(-1.0, 1.0)


class ExportedEncoder(nn.Module):
    """The encoder: images to latents."""

    def __init__(self, model: Invertible) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.model.encode(images, labels)


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how far it is from PyTorch."""

    path: Path
    inputs: tuple[str, ...]
    difference: float  # the largest, over all compared batches


def uncompressed(sampler: Sampler) -> Sampler:
    """The same model without the JPEG compression of its training images, which pictures outside of mien need not have.

    Its rounding would also make the smallest difference between two runtimes one of whole steps.
    """
    model = sampler.model
    return replace(sampler, model=model.uncompressed()) if isinstance(model, CompressedModel) else sampler


def drawing(sampler: Sampler, path: Path, mixing: bool = False) -> Exported:
    """Write the model's generator, with inputs for style `mixing` if it is a style model.

    Raises UsageError with the reason if it cannot be exported.
    """
    sampler = uncompressed(sampler)
    model, directions = sampler.model, [d for d in known_directions(sampler).all if d.space == "latent"]
    if isinstance(model, FlowModel) and sampler.options.solution(model).method == "adaptive":
        raise UsageError(
            "This model cannot be exported.",
            "Its adaptive solver has a variable number of steps, but a graph has a fixed number.",
            "Export it with --solver multistep:12.",
        )
    vectors = torch.stack([d.vector for d in directions]) if directions else None
    z = sampler.latents(range(max(BATCHES)))
    inputs: dict[str, Tensor] = {LATENT: z, TRUNCATION: torch.tensor(0.8)}
    if model.label_dim:
        rows = sampler.labels(range(len(z)))
        assert rows is not None
        inputs[LABELS] = rows.nan_to_num(0.5)
    if vectors is not None:
        inputs[DIRECTIONS] = torch.linspace(-1.0, 1.0, len(z) * len(vectors)).reshape(len(z), -1)
    if mixing and isinstance(model, StyleModel):
        inputs[OTHER] = z.flip(0)
        inputs[SHARES] = (torch.arange(len(z))[:, None] + torch.arange(model.style_count) > 3).float()
    order = (LATENT, TRUNCATION, LABELS, DIRECTIONS, OTHER, SHARES)
    return write(ExportedDecoder(sampler, vectors), inputs, order, IMAGES, path, description(sampler))


def encoding(sampler: Sampler, path: Path) -> Exported | None:
    """Write the model's encoder, if it has one. Raises UsageError with the reason if it cannot be exported."""
    model = sampler.model
    if not isinstance(model, Invertible):
        return None
    if sampler.encoding_space != "latent":
        raise UsageError(
            "This model's encoder cannot be exported.",
            "Its encodings belong to a separate decoder; they are not latents of its generator.",
            "Encode with `mien project`.",
        )
    if isinstance(model, FlowModel):
        raise UsageError(
            "This model's encoder cannot be exported.",
            "It integrates its ODE backwards with a variable number of steps, but a graph has a fixed number.",
            "Encode with `mien project`.",
        )
    images = sampler.sample(range(max(BATCHES)))
    inputs: dict[str, Tensor] = {IMAGES: images}
    if model.label_dim:
        rows = sampler.labels(range(len(images)))
        assert rows is not None
        inputs[LABELS] = rows.nan_to_num(0.5)
    return write(ExportedEncoder(model), inputs, (IMAGES, LABELS), LATENT, path, description(sampler))


def description(sampler: Sampler) -> JSON:
    """The metadata of the file: all that is needed to generate the face of a seed."""
    header = {name: value for name, value in sampler.header.items() if name != "label_rows"}
    prior = {Normal: "normal", Uniform: "uniform"}.get(type(sampler.model.prior), "other")
    names = [d.name for d in known_directions(sampler).all if d.space == "latent"]
    latent = list(sampler.model.latent_shape)
    return {
        **header,
        "sha256": sampler.model_hash,
        "prior": prior,
        "latent": latent,
        "directions": names,
        "synthetic": True,
    }


def write(
    module: nn.Module, inputs: dict[str, Tensor], order: Sequence[str], output: str, path: Path, metadata: JSON
) -> Exported:
    """Write a module as ONNX and compare onnxruntime with PyTorch.

    Raises UsageError if the export fails, Mismatch if the outputs differ.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UsageError(
                f"The package {package} is not installed.",
                "The export needs it.",
                "Install it: pip install 'mien[export]'",
            )
    import onnx

    module.eval()
    names = [name for name in order if name in inputs]
    arguments = [inputs.get(name) for name in order]
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = tuple(None if value is None else {} if value.ndim == 0 else {0: batch} for value in arguments)
    try:
        with quiet():
            program = torch.onnx.export(
                module, tuple(None if v is None else v[:2] if v.ndim else v for v in arguments),
                input_names=names, output_names=[output], dynamic_shapes=shapes, dynamo=True, opset_version=OPSET,
                optimize=True, verbose=False,
            )  # fmt: skip
            assert program is not None
            proto = program.model_proto
            name_batch(proto)
    except MienError:
        raise
    except Exception as error:  # the exporter raises errors of many types
        messages = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            "This model cannot be exported.",
            f"torch.onnx says: {messages[0][:300]}",
            "Serve it with `mien explore` instead.",
        ) from error
    onnx.helper.set_model_props(
        proto, {"mien": json.dumps(metadata, sort_keys=True), "disclaimer": Claim.SYNTHETIC.sentence}
    )
    proto.producer_name = "mien"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(proto.SerializeToString())
        difference = largest_difference(module, inputs, order, names, beside)
        if not difference <= TOLERANCE:
            raise Mismatch(
                "The exported model generates different faces.", f"onnxruntime differs from PyTorch by {difference:.2g}.",
                "This is a bug in mien or torch.onnx: report it with the model's preset.",
            )  # fmt: skip
    return Exported(path, tuple(names), difference)


def name_batch(proto: Any) -> None:
    """Name the first axis of the graph's inputs and outputs `batch`. Raises ValueError if the exporter has fixed its size."""
    for value in (*proto.graph.input, *proto.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].dim_param:
            raise ValueError(f"the batch size of `{value.name}` is fixed at {axes[0].dim_value}")
    symbols = {v.type.tensor_type.shape.dim[0].dim_param for v in proto.graph.input if v.type.tensor_type.shape.dim}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in symbols:  # torch.export names it s81, whatever its Dim is called
                axis.dim_param = "batch"


@torch.inference_mode()
def largest_difference(
    module: nn.Module, inputs: dict[str, Tensor], order: Sequence[str], names: Sequence[str], path: Path
) -> float:
    """The largest difference between PyTorch and onnxruntime over several batches."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in BATCHES:
        rows = {name: inputs[name][:count] if inputs[name].ndim else inputs[name] for name in names}
        expected = module(*(rows.get(name) for name in order)).numpy()
        (actual,) = session.run(None, {name: value.contiguous().numpy() for name, value in rows.items()})
        worst = max(worst, float(np.abs(np.asarray(actual) - expected).max()))
    return worst


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's logs, warnings and output."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
