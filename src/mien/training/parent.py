"""Fine-tuning: a new run that starts with the weights of another model (`--from`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien import presets
from mien.core.contracts import JSON, Adoptive, ImageSpec, ModelConfig, NetworkConfig, Recipe
from mien.core.module_limit import limit_modules
from mien.core.outline import shapes_only
from mien.core.run import Run, config_fields, from_json, override
from mien.errors import MienError, Mismatch
from mien.presets.defaults import FINE_TUNING
from mien.sampling import bundled
from mien.storage import checkpoint
from mien.training.train_state import TrainState

LEAST = 0.1  # of the generator's weights must be the parent's: less is training from scratch
HELPER = 8
BALANCE = "control.k"  # of BEGAN, as in its recipe's state_dict
LISTED = 6  # differences that an error names


@dataclass(frozen=True)
class Parent:
    """The weights that a run starts with."""

    name: str  # as the user gave it
    hash: str  # SHA-256 of its model.safetensors
    header: JSON
    averaged: Mapping[str, Tensor]  # the model, as it is sampled
    networks: Mapping[str, Tensor] = field(default_factory=dict)  # as in the recipe's state_dict: model.*, critic.*

    @property
    def side(self) -> int:
        """Height and width of its images in pixels."""
        return int(self.header.get("faces", {}).get("side", 0))


@dataclass(frozen=True)
class Adopted:
    """What a run took from its parent, by network: counts of weights, and the tensors that start anew."""

    taken: Mapping[str, int]
    total: Mapping[str, int]
    new: Mapping[str, tuple[str, ...]]

    def lines(self) -> Iterator[str]:
        """One sentence a network."""
        for name, total in self.total.items():
            taken, new = self.taken[name], self.new[name]
            if taken == total:
                yield f"{name}: all {total:,} weights"
            elif not taken:
                yield f"{name}: nothing, it starts anew"
            else:
                rest = f"{', '.join(new[:LISTED])}{', ...' if len(new) > LISTED else ''}"
                yield f"{name}: {taken:,} of {total:,} weights; new: {rest}"


def read_parent(model: str | Path) -> Parent:
    """The weights of a run, a checkpoint, a file, `hf://OWNER/NAME` or a bundled model.

    A checkpoint has the networks as they are trained, beside their average; a file has the average alone, and a bundled model
    its critic beside it. Raises DataError if there is no model, Untrusted for a damaged one.
    """
    file = bundled.model_file(model)
    averaged, header = checkpoint.read_model(file)
    networks = {f"model.{name}": tensor for name, tensor in averaged.items()}
    beside = bundled.critic_file(file)
    if (file.parent / "state.safetensors").is_file():
        tensors, _ = checkpoint.read_state(file.parent)
        networks = {name.removeprefix("recipe."): t for name, t in tensors.items() if name.startswith("recipe.")}
    elif beside is not None:
        critic = bundled.read_critic(beside)
        networks |= critic.tensors
        header = {"recipe": critic.header["recipe"], **header}
    return Parent(str(model), checkpoint.file_hash(file), header, averaged, networks)


def inherit(run: Run, parent: Parent, side: int, changes: Mapping[str, Any]) -> Run:
    """The run with the parent's networks, sized for `side`, and the rules of fine-tuning; then the user's `changes`.

    Networks of another kind than the run's keep the preset's configuration: what fits of them is found by name and shape.
    """
    old = parent.side or side
    config = _read(ModelConfig, parent, "model", parent.header.get("config"))
    found: dict[str, Any] = {"parent": parent.hash, "assisted": run.assisted or parent.header.get("assisted") is True}
    if type(config) is type(run.model):
        assert isinstance(config, ModelConfig)
        found["model"] = config.resized(old, side)
    recipe, theirs = run.recipe, parent.header.get("recipe")
    for part in fields(recipe):
        mine = getattr(recipe, part.name)
        if isinstance(mine, NetworkConfig) and isinstance(theirs, dict):
            network = _read(NetworkConfig, parent, part.name, theirs.get(part.name))
            if type(network) is type(mine):
                assert isinstance(network, NetworkConfig)
                found.setdefault("recipe", recipe)
                found["recipe"] = replace(found["recipe"], **{part.name: network.resized(old, side)})
    known = {option.name for option in config_fields(run)}
    rules = [name for name in FINE_TUNING if name in known]
    trained_critic = any(name.startswith("critic.") for name in parent.networks)
    if "recipe.freeze" in rules and (old != side or not trained_critic):
        rules.remove("recipe.freeze")  # the finest layers are new
    resized = old != side or "model" not in found or any(name.startswith("model.") for name in changes)
    if "ema.warmup" in rules and resized:
        rules.remove("ema.warmup")  # an average that began with new layers has to forget them
    run = replace(run, **found, by_rule=(*run.by_rule, *rules))
    return override(run, changes)


def _read(kind: type, parent: Parent, name: str, config: object) -> object:
    """A network's configuration from a file; None if this version cannot read it, or if its tensors have other shapes.

    So a header cannot ask for a network larger than its file. A network without tensors there, such as the critic of a lone
    generator, may be HELPER times as large as the model.
    """
    tensors = {key: t for key, t in parent.networks.items() if key.startswith(f"{name}.")}
    try:
        found = from_json(kind, config, presets.KINDS) if isinstance(config, dict) else None
        if not isinstance(found, ModelConfig | NetworkConfig):
            return None
        with shapes_only(), limit_modules(presets.MODULES_EACH * (len(tensors) + presets.MODULES_EACH)):
            network = found.build(from_json(ImageSpec, parent.header.get("faces"), presets.KINDS))
    except (ArithmeticError, AttributeError, LookupError, MienError, RuntimeError, TypeError, ValueError):
        return None
    shapes = {f"{name}.{key}": tensor.shape for key, tensor in network.state_dict().items()}
    if not tensors:
        size = sum(tensor.numel() for tensor in network.state_dict().values())
        return found if size <= HELPER * sum(tensor.numel() for tensor in parent.averaged.values()) else None
    return found if shapes == {key: tensor.shape for key, tensor in tensors.items()} else None


def adopt(state: TrainState, parent: Parent) -> Adopted:
    """Give the state the parent's weights, by name and shape. Raises Mismatch with the differences if too little fits.

    Optimizers start anew, and so do controllers but for BEGAN's k: at k = 0 its critic would forget what a fake is. The average
    starts as the parent's average.
    """
    taken, total, new = {}, {}, {}
    for name, network in networks(state.recipe):
        theirs = {key.removeprefix(f"{name}."): t for key, t in parent.networks.items() if key.startswith(f"{name}.")}
        total[name] = sum(tensor.numel() for tensor in network.state_dict().values())
        taken[name], new[name] = load(network, theirs)
    if taken["model"] < LEAST * total["model"]:
        raise Mismatch(
            f"{parent.name} does not fit `{parent.header.get('preset', '?')}` -> this run.",
            f"{taken['model']:,} of {total['model']:,} weights of the generator have the same name and shape: "
            f"{'; '.join(differences(state.recipe.model, parent))}.",
            "Use the parent's preset, or its values of --model flags.",
        )
    balance, k = dict(state.recipe.named_buffers()).get(BALANCE), parent.networks.get(BALANCE)
    if balance is not None and k is not None and k.shape == balance.shape:
        balance.copy_(k)
    if state.ema is not None:
        state.ema.model.load_state_dict(state.recipe.model.state_dict())
        load(state.ema.model, parent.averaged)
    return Adopted(taken, total, new)


def networks(recipe: Recipe) -> Iterator[tuple[str, nn.Module]]:
    """The networks of a recipe by name, the model first. Controllers are no networks: they have no parameters."""
    yield "model", recipe.model
    for name, child in recipe.named_children():
        if child is not recipe.model and any(True for _ in child.parameters()):
            yield name, child


@torch.no_grad()
def load(network: nn.Module, parent: Mapping[str, Tensor]) -> tuple[int, tuple[str, ...]]:
    """Copy the tensors that fit. Returns how many numbers were copied, and the names of the tensors that were not."""
    theirs = network.translate(parent) if isinstance(network, Adoptive) else parent
    taken, new = 0, []
    for name, tensor in network.state_dict().items():
        found = theirs.get(name)
        if found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            taken += tensor.numel()
        else:
            new.append(name)
    return taken, tuple(new)


def differences(model: nn.Module, parent: Parent) -> list[str]:
    """Lines such as `stages.0.first.weight: [48, 48, 3, 3] -> [64, 64, 3, 3]`, for an error."""
    own, lines = model.state_dict(), []
    for name, tensor in own.items():
        found = parent.averaged.get(name)
        if found is None:
            lines.append(f"{name} is not in the parent")
        elif found.shape != tensor.shape:
            lines.append(f"{name}: {list(found.shape)} -> {list(tensor.shape)}")
    lines += [f"{name} is not in this model" for name in parent.averaged if name not in own]
    return [*lines[:LISTED], *(["..."] if len(lines) > LISTED else [])]
