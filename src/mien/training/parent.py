"""The parent of a fine-tuned run: another model, whose weights it starts with wherever they fit by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mien import presets
from mien.core.contracts import JSON, ImageSpec, Model, ModelConfig, NetworkConfig, RecipeConfig
from mien.core.module_limit import limit_modules
from mien.core.run import Run, differences, from_json, to_json
from mien.errors import MienError, Mismatch, Untrusted
from mien.presets import Code
from mien.presets.fine_tuning import ParentConfig
from mien.sampling import bundled
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory
from mien.training.train_state import TrainState

LEAST = 0.1  # of the model's parameters: a parent that has fewer of them is another kind of model
LISTED = 12  # differences in an error
MODULES = 10_000  # of a critic that a run.json describes

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Parent:
    """A model to start from. `networks` are named as in a recipe's state_dict: `model.*`, `critic.*`."""

    name: str  # the argument of --from
    sha256: str  # of its model file
    header: JSON
    model: Model  # the average, which is sampled
    config: ParentConfig
    networks: Mapping[str, Tensor]  # as they were trained, before averaging

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(**self.header["faces"])


def open_parent(name: str | Path, code: Code | None) -> Parent:
    """The model of a run, a checkpoint, a file, `hf://OWNER/NAME` or a bundled model's name, with its critic where there is one.

    Raises what `Sampler.load` raises.
    """
    file = bundled.model_file(name)
    tensors, header = checkpoint.read_model(file)
    kinds = {**presets.KINDS, **presets.kinds_of(code.presets.values())} if code else None
    kinds = kinds or dict(presets.kinds_for(header.get("code"), None))
    model = presets.build_model(header, kinds, {name: tensor.shape for name, tensor in tensors.items()})
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Mismatch(
            f"{file} does not fit its own description.", str(error).splitlines()[0], "Use another model."
        ) from error
    config = from_json(ModelConfig, header["config"], kinds)
    networks = {f"model.{name}": tensor for name, tensor in tensors.items()}
    recipe: JSON | None = None
    if (file.parent / "MANIFEST.json").is_file():
        state, _ = checkpoint.read_state(file.parent)
        networks = {name.removeprefix("recipe."): t for name, t in state.items() if name.startswith("recipe.")}
        recipe = (RunDirectory(file.parent.parent.parent).run_json or {}).get("recipe")
    elif (beside := bundled.critic_file(file)) is not None:
        helpers = bundled.read_critic(beside)
        networks, recipe = {**helpers.tensors, **networks}, helpers.header["recipe"]
    bad = [name for name, t in networks.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise Untrusted(
            f"{file.parent} contains NaN or infinity.", f"The first is {bad[0]}.", "Use another checkpoint."
        )
    spec = ImageSpec(**header["faces"])
    critic = critic_config(recipe, kinds, spec, networks)
    digest = checkpoint.file_hash(file)
    return Parent(str(name), digest, header, model.eval(), ParentConfig(spec.side, config, critic), networks)


def critic_config(
    recipe: JSON | None, kinds: Mapping[str, type], spec: ImageSpec, networks: Mapping[str, Tensor]
) -> NetworkConfig | None:
    """The critic's configuration in a run's recipe, if it describes the critic that is there; None otherwise."""
    shapes = {n.removeprefix("critic."): t.shape for n, t in networks.items() if n.startswith("critic.")}
    try:
        config = getattr(from_json(RecipeConfig, recipe, kinds), "critic", None)
        if not shapes or not isinstance(config, NetworkConfig):
            return None
        with limit_modules(MODULES), torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in config.build(spec).state_dict().items()}
    except (MienError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None
    return config if expected == shapes else None


@dataclass
class Transfer:
    """What became of every tensor of the networks."""

    taken: dict[str, int] = field(default_factory=dict)  # parameters that the parent gave, by network
    total: dict[str, int] = field(default_factory=dict)  # parameters, by network
    new: dict[str, str] = field(
        default_factory=dict
    )  # tensors that the parent does not have in this shape, and its own
    widened: list[str] = field(default_factory=list)  # of which labels are further inputs, or no longer any
    unused: list[str] = field(default_factory=list)  # tensors of the parent that have no place

    def share(self, network: str) -> float:
        """The fraction of a network's parameters that the parent gave."""
        return self.taken.get(network, 0) / max(1, self.total.get(network, 0))

    def summary(self) -> str:
        """The shares as text."""
        parts = [f"{100 * self.share(name):.3g}% of the {name}" for name, count in self.total.items() if count]
        return f"{', '.join(parts)} from the parent; {len(self.new)} tensors are new, {len(self.unused)} have no place"

    def record(self, parent: Parent) -> JSON:
        """As JSON, for parent.json of the run."""
        return {
            "sha256": parent.sha256,
            "preset": str(parent.header.get("preset", "")),
            "faces": to_json(parent.spec),
            "shares": {name: round(self.share(name), 4) for name, count in self.total.items() if count},
            "new": [f"{name}: {shape}" if shape else name for name, shape in self.new.items()],
            "widened": self.widened,
            "unused": self.unused,
        }


def inherit(state: TrainState, run: Run, spec: ImageSpec, labels: tuple[str, ...], parent: Parent) -> Transfer:
    """Copy the parent's weights into a fresh state: networks, average, and the balance between the players.

    Label layers start new where the labels are others; what reads labels beside features gets zeros for them, so that the
    first faces are the parent's. Raises Mismatch, with the differences, if hardly anything fits.
    """
    transfer = Transfer()
    theirs = tuple(parent.header.get("labels", ())) if parent.spec.label_dim else ()
    relabelled = len(theirs) != len(labels)
    fresh = label_tensors(run, spec) if theirs != labels and not relabelled else set()
    children = dict(state.recipe.named_children())
    for name, module in children.items():
        if any(True for _ in module.parameters()) or getattr(module, "inherited", False):
            tensors = within(parent.networks, f"{name}.")
            copy_into(module, name, tensors, relabelled, fresh, transfer)
    transfer.unused += [name for name in parent.networks if "." in name and name.split(".")[0] not in children]
    if transfer.share("model") < LEAST:
        raise misfit(run, parent, transfer)
    if state.ema:
        copy_into(state.ema.model, "model", parent.model.state_dict(), relabelled, fresh, Transfer())
    return transfer


@torch.no_grad()
def copy_into(
    network: nn.Module,
    prefix: str,
    tensors: Mapping[str, Tensor],
    relabelled: bool,
    fresh: set[str],
    transfer: Transfer,
) -> None:
    """Copy what fits by name and shape, and note the rest."""
    known = aligned(network, tensors)
    parameters = {name for name, _ in network.named_parameters()}
    transfer.total[prefix] = sum(parameter.numel() for parameter in network.parameters())
    transfer.taken[prefix] = 0
    for name, mine in network.state_dict().items():
        full, their = f"{prefix}.{name}", known.pop(name, None)
        if their is None or full in fresh:
            transfer.new[full] = ""
            continue
        if their.shape == mine.shape:
            mine.copy_(their)
        elif relabelled and mine.dim() == their.dim() > 1 and their[:, :0].shape == mine[:, :0].shape:
            shared = min(mine.shape[1], their.shape[1])
            mine.zero_()
            mine[:, :shared].copy_(their[:, :shared])
            transfer.widened.append(full)
        else:
            transfer.new[full] = f"{shape_text(their)} there, {shape_text(mine)} here"
            continue
        transfer.taken[prefix] += mine.numel() if name in parameters else 0
    transfer.unused += [f"{prefix}.{name}" for name in known]


def within(items: Mapping[str, Item], prefix: str) -> dict[str, Item]:
    """The items whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)}


def aligned(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parent's tensors under the names of this network: lists that end at the coarsest stage are counted from there."""
    renamed = dict(tensors)
    for path, module in network.named_modules():
        names = getattr(type(module), "coarse_last", ())
        before = f"{path}." if path else ""
        if not names:
            continue
        stages = {int(name.split(".")[0]) for name in within(tensors, f"{before}{names[0]}.")}
        shift = len(getattr(module, names[0])) - 1 - max(stages, default=0)
        for prefix in (f"{before}{name}." for name in names):
            listed = {name: renamed.pop(f"{prefix}{name}") for name in within(tensors, prefix)}
            for name, tensor in listed.items():
                index, _, rest = name.partition(".")
                renamed[f"{prefix}{int(index) + shift}.{rest}"] = tensor
    return renamed


def label_tensors(run: Run, spec: ImageSpec) -> set[str]:
    """The tensors whose shapes depend on the number of labels."""
    found: set[str] = set()
    for name, config in (("model", run.model), ("critic", getattr(run.recipe, "critic", None))):
        if isinstance(config, ModelConfig | NetworkConfig):
            shapes = []
            for count in (spec.label_dim, spec.label_dim + 1):
                with torch.device("meta"):
                    network = config.build(ImageSpec(spec.side, spec.channels, count))
                shapes.append({f"{name}.{key}": tensor.shape for key, tensor in network.state_dict().items()})
            found |= {key for key, shape in shapes[0].items() if shapes[1].get(key) != shape}
    return found


def misfit(run: Run, parent: Parent, transfer: Transfer) -> Mismatch:
    """The error for a parent that does not fit, with what differs."""
    lines = differences(parent.header["config"], to_json(run.model))
    model = within(transfer.new, "model.")
    lines += [f"{name}: {shape}" if shape else f"{name} is not in the parent" for name, shape in model.items()]
    lines += [f"{name} is not in this model" for name in within(dict.fromkeys(transfer.unused, ""), "model.")]
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    preset = parent.header.get("preset", "")
    return Mismatch(
        f"{parent.name} does not fit `{run.preset}`: it has {100 * transfer.share('model'):.2g}% of the model's parameters.",
        "; ".join([*lines[:LISTED], *more]),
        f"Use its own preset{f', `{preset}`' if preset in presets.PRESETS else ''}, or a model of `{run.preset}`.",
    )


def shape_text(tensor: Tensor) -> str:
    """A tensor's shape as text."""
    return "x".join(map(str, tensor.shape)) or "a scalar"
