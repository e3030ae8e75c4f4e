"""Imports sicongzhao's BEGAN: generators and critics, recognised by the names and shapes of their tensors.

In that code, a decoder is `embed`, `deconv1` (levels of a 1x1 convolution, 3x3 ones and an upsampling, each followed by an ELU) and
`deconv2`; an encoder is `conv1`, `conv2` (levels of 3x3 convolutions, a 1x1 one and a pooling), `conv3` and `embed`. A
generator is `decoder`; a critic is `encoder` and `decoder`. Mien's layers have another order but compute the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mien.core.contracts import ImageSpec, ModelConfig
from mien.core.outline import shapes_only
from mien.models.zhao import BASE, Upsampling, ZhaoConfig, ZhaoGeneratorConfig


@dataclass(frozen=True)
class Converted:
    """A converted model."""

    config: ModelConfig
    faces: ImageSpec
    tensors: dict[str, Tensor]  # its state dict
    whole: bool  # whether it includes the critic


@dataclass(frozen=True)
class Decoder:
    """The settings of a decoder, derived from its shapes."""

    side: int
    channels: int
    latent: int
    width: int
    layers: int
    upsampling: Upsampling
    names: dict[str, str]  # name in the file -> name in mien


@dataclass(frozen=True)
class Encoder:
    """The settings of an encoder, derived from its shapes."""

    side: int
    channels: int
    latent: int
    width: int
    layers: int
    exponential: bool
    names: dict[str, str]


def convert(tensors: Mapping[str, Tensor]) -> Converted | None:
    """Convert the tensors of a generator, or of a generator and a critic. Returns None for others, also for a critic alone."""
    networks = split(tensors)
    critics = [name for name, parts in networks.items() if any(part.startswith("encoder.") for part in parts)]
    generators = [name for name in networks if name not in critics]
    if len(generators) != 1 or len(critics) > 1:
        return None
    decoder = read_decoder(within(networks[generators[0]], "decoder."))
    if decoder is None:
        return None
    faces = ImageSpec(side=decoder.side, channels=decoder.channels)
    tensors_here = {
        f"generator.{here}": networks[generators[0]][f"decoder.{there}"] for there, here in decoder.names.items()
    }
    alone = ZhaoGeneratorConfig(
        latent=decoder.latent, width=decoder.width, layers=decoder.layers, upsampling=decoder.upsampling
    )
    if not critics:
        return validated(Converted(alone, faces, tensors_here, whole=False))
    critic = networks[critics[0]]
    encoder, second = read_encoder(within(critic, "encoder.")), read_decoder(within(critic, "decoder."))
    if encoder is None or second is None:
        return None
    tensors_here |= {f"autoencoder.encoder.{here}": critic[f"encoder.{there}"] for there, here in encoder.names.items()}
    tensors_here |= {f"autoencoder.decoder.{here}": critic[f"decoder.{there}"] for there, here in second.names.items()}
    whole = ZhaoConfig(
        latent=decoder.latent,
        width=decoder.width,
        encoder_width=encoder.width,
        layers=decoder.layers,
        growth="exponential" if encoder.exponential else "linear",
        upsampling=decoder.upsampling,
    )
    return validated(Converted(whole, faces, tensors_here | {"carry": torch.zeros(())}, whole=True))


def split(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group the tensors into networks by the prefix before `encoder.` and `decoder.`."""
    networks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        words = name.split(".")
        place = next((index for index, word in enumerate(words) if word in ("encoder", "decoder")), None)
        if place is not None:
            networks.setdefault(".".join(words[:place]), {})[".".join(words[place:])] = tensor
    return networks


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tuple(t.shape) for name, t in tensors.items() if name.startswith(prefix)}


def validated(model: Converted) -> Converted | None:
    """The model, if its tensors have exactly the expected names and shapes; else None."""
    with shapes_only():
        expected = model.config.build(model.faces).state_dict()
    fits = expected.keys() == model.tensors.keys() and all(
        expected[name].shape == tensor.shape and tensor.is_floating_point() for name, tensor in model.tensors.items()
    )
    if not fits:
        return None
    return Converted(model.config, model.faces, {n: t.float() for n, t in model.tensors.items()}, model.whole)


def read_decoder(shapes: Mapping[str, tuple[int, ...]]) -> Decoder | None:
    """Derive the settings of a decoder from its shapes; None if they do not fit."""
    kernels = kernels_of(shapes, "deconv1")
    embed, last = shapes.get("embed.weight", ()), shapes.get("deconv2.4.weight", ())
    depth = kernels.count(1)
    if len(embed) != 2 or len(last) != 4 or 0 in embed + last or not 1 <= depth <= 6:
        return None
    layers, transposed = kernels.count(3) // depth, 4 in kernels
    level = 2 + 2 * layers + (2 if transposed else 1)
    layer_names = {"embed": "embed", **{f"deconv2.{index}": f"last.{index}" for index in (0, 2, 4)}}
    for at in range(depth):
        layer_names[f"deconv1.{at * level}"] = f"narrow.{at}"
        for index in range(layers):
            layer_names[f"deconv1.{at * level + 2 + 2 * index}"] = f"stages.{at}.{2 * index}"
        if transposed:
            layer_names[f"deconv1.{at * level + 2 + 2 * layers}"] = f"enlarge.{at}.0"
    return (
        Decoder(
            side=BASE << depth,
            channels=last[0],
            latent=embed[1],
            width=embed[0] // BASE**2,
            layers=layers,
            upsampling="transposed" if transposed else "nearest",
            names=tensors_of(layer_names),
        )
        if complete(layer_names, shapes)
        else None
    )


def read_encoder(shapes: Mapping[str, tuple[int, ...]]) -> Encoder | None:
    """Derive the settings of an encoder from its shapes; None if they do not fit."""
    first, embed = shapes.get("conv1.0.weight", ()), shapes.get("embed.weight", ())
    depth = kernels_of(shapes, "conv1").count(1) + kernels_of(shapes, "conv2").count(1)
    if len(first) != 4 or len(embed) != 2 or 0 in first + embed or not 1 <= depth <= 6:
        return None
    layers = (kernels_of(shapes, "conv1").count(3) + kernels_of(shapes, "conv2").count(3) - 1) // depth
    level = 2 * layers + 2
    layer_names = {"embed": "embed", "conv1.0": "body.0"}
    for at in range(depth):
        there = "conv1.2" if at == 0 else "conv2"
        begin = 0 if at == 0 else (at - 1) * level
        for index in range(layers):
            layer_names[f"{there}.{begin + 2 * index}"] = f"body.{2 + at * level + 2 * index}"
        layer_names[f"{there}.{begin + 2 * layers}"] = f"body.{2 + at * level + 2 * layers + 1}"
    for index in (0, 2):
        layer_names[f"conv3.{index}"] = f"body.{2 + depth * level + index}"
    widest = embed[1] // BASE**2 // first[0]
    return (
        Encoder(
            side=BASE << depth,
            channels=first[1],
            latent=embed[0],
            width=first[0],
            layers=layers,
            exponential=widest == 1 << depth and widest != depth + 1,
            names=tensors_of(layer_names),
        )
        if complete(layer_names, shapes)
        else None
    )


def kernels_of(shapes: Mapping[str, tuple[int, ...]], part: str) -> list[int]:
    """The sizes of the kernels in a part of a network."""
    return [s[-1] for name, s in shapes.items() if name.startswith(f"{part}.") and len(s) == 4]


def tensors_of(layer_names: Mapping[str, str]) -> dict[str, str]:
    """Tensor names from layer names."""
    return {f"{there}.{kind}": f"{here}.{kind}" for there, here in layer_names.items() for kind in ("weight", "bias")}


def complete(layer_names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the network has exactly these layers."""
    return tensors_of(layer_names).keys() == shapes.keys()
