"""`mien import`: other people's files as models of mien's, without running anything that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from torch import Tensor

from mien.cli.result import Result
from mien.core.run import config_fields, to_json
from mien.errors import Mismatch, Untrusted, UsageError, did_you_mean
from mien.foreign import began_zhao, weights
from mien.foreign.began_zhao import Converted
from mien.foreign.homogan_config import homogan_config
from mien.foreign.weights import Weights
from mien.presets import PRESETS
from mien.storage.atomic import replacing, write_bytes
from mien.storage.checkpoint import pack_tensors

#: Whose weights are known, and what tells them by names and shapes. A new kind of weights is a row.
MODELS: Mapping[str, Callable[[Mapping[str, Tensor]], Converted | None]] = {"began-zhao": began_zhao.convert}


def import_(
    file: Path,
    /,
    *,
    critic: Path | None = None,
    preset: str | None = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
) -> Result:
    """Turn the weights of another project into a model that `mien sample` draws from.

    Reads whole pickled modules and state dicts of torch's, in its older format and its newer one, and safetensors. Nothing
    that a file names is imported or called: its instructions are read as text. Examples:

        mien import G.pth
        mien import G.pth -o zhao.safetensors
        mien import G.pth --critic D.pth --out zhao/
        mien import config.json            # homogan's configuration, as commands

    Parameters
    ----------
    file
        The weights; or a configuration of homogan's, which becomes the commands that prepare its data and train it.
    critic
        A second file, for a model whose other half lies apart: with its critic a BEGAN can encode too.
    preset
        Whose model it must be, as a preset here is called; by default, any that is known.
    out
        A .safetensors file, or a folder for model.safetensors; by default, the file's name with that ending, here.
    """
    for pattern, read in FILES:
        if fnmatch(file.name, pattern):
            return read(file, critic, preset, out)
    raise AssertionError("the last pattern fits every name")


def import_weights(file: Path, critic: Path | None, preset: str | None, out: Path | None) -> Result:
    """A file of tensors as a model. Raises Untrusted for a damaged or hostile one, Mismatch for layers that nobody here has."""
    if preset is not None and preset not in MODELS:
        raise UsageError(
            f"Files of `{preset}` cannot be imported.",
            "Each kind of file is known by its layers.",
            did_you_mean(preset, MODELS),
        )
    found = weights.load(file)
    tensors = dict(found.tensors)
    sources = {"file": found.sha256}
    if "mien" in found.description:
        raise Mismatch(f"{file} is a model of mien's already.", "It says so itself.", f"Run: mien sample {file}")
    if critic is not None:
        second = weights.load(critic)
        halves = (("file", found), ("critic", second))
        tensors = {f"{part}.{name}": tensor for part, half in halves for name, tensor in half.tensors.items()}
        sources["critic"] = second.sha256
    name, model = recognise(file, found, tensors, [preset] if preset else list(MODELS))
    if critic is not None and not model.whole:
        raise Mismatch(
            f"{critic} holds no critic of {file}'s.",
            "It has nothing that this model lacks.",
            "Leave out --critic to import the generator alone.",
        )
    for tensor_name, tensor in model.tensors.items():
        if not tensor.isfinite().all():
            raise Untrusted(
                f"{file} holds numbers that are not finite.",
                f"They are in {tensor_name}.",
                "Choose another checkpoint.",
            )
    target = place(file, out)
    header = {
        "format": 1,
        "preset": name,
        "config": to_json(model.config),
        "faces": to_json(model.faces),
        "data": {},
        "imported": {"format": found.format, "sha256": sources},
    }
    write(target, pack_tensors(model.tensors, header))
    part = "the generator and the critic" if model.whole else "the generator alone"
    numbers = sum(tensor.numel() for tensor in model.tensors.values())
    text = (
        f"{target}\n{name}, {part}: {numbers:,} numbers, {model.faces.side} px, out of {found.format}.\n"
        f"Draw from it: mien sample {target}"
    )
    data = {
        "file": str(target),
        "preset": name,
        "part": part,
        "config": header["config"],
        "faces": header["faces"],
        "numbers": numbers,
    }
    return Result(text, data)


def import_configuration(file: Path, critic: Path | None, preset: str | None, out: Path | None) -> Result:
    """homogan's configuration as the commands that do the same, and what became of every key."""
    if critic or preset or out:
        raise UsageError(
            "A configuration becomes commands.", "It has no critic, and nothing is written.", "Name it alone."
        )
    run, remarks = homogan_config(file)
    before = {knob.name: knob.value for knob in config_fields(PRESETS[run.preset])}
    flags = [f"--{k.name.replace('_', '-')} {k.value}" for k in config_fields(run) if before[k.name] != k.value]
    train = " ".join([f"mien train {run.preset} --data homogan.pack", *flags])
    lines = [*run.prepare, train, "", *remarks]
    return Result("\n".join(lines), {"run": to_json(run), "commands": [*run.prepare, train], "remarks": remarks})


#: What reads a file, by its name; the first pattern that fits. A new kind of file is a function and a row.
FILES: Sequence[tuple[str, Callable[[Path, Path | None, str | None, Path | None], Result]]] = (
    ("*.json", import_configuration),
    ("*", import_weights),
)


def recognise(file: Path, found: Weights, tensors: Mapping[str, Tensor], known: Sequence[str]) -> tuple[str, Converted]:
    """The first of the known kinds of model that the tensors are, and the model. Raises Mismatch, which says what there is."""
    for name in known:
        model = MODELS[name](tensors)
        if model is not None:
            return name, model
    raise Mismatch(
        f"{file} holds no model that mien knows.",
        f"It holds {found.summary()}." if found.tensors else "It holds no tensors.",
        f"Known by their layers: {', '.join(known)}; a critic alone draws nothing, so name its generator first.",
    )


def place(file: Path, out: Path | None) -> Path:
    """Where the model goes. Raises UsageError for a place that is neither a folder nor a .safetensors file."""
    if out is None:
        return Path(f"{file.stem}.safetensors")
    if out.suffix == ".safetensors":
        return out
    if out.suffix and not out.is_dir():
        raise UsageError(
            f"{out} is neither a folder nor a .safetensors file.",
            "A model is written as safetensors.",
            "Use -o zhao.safetensors or --out zhao/.",
        )
    return out / "model.safetensors"


def write(target: Path, content: bytes) -> None:
    """Write the model whole or not at all; the same one again is no error. Raises UsageError before it replaces another file."""
    if target.exists():
        if target.is_file() and target.read_bytes() == content:
            return
        raise UsageError(f"{target} is there already.", "It is another file.", "Choose another place with --out.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        write_bytes(beside, content)
