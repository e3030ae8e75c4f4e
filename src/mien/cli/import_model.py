"""`mien import`: convert the weights of other projects, without running code from their files."""

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

#: The projects whose weights can be converted, recognised by names and shapes. A new project is a row.
MODELS: Mapping[str, Callable[[Mapping[str, Tensor]], Converted | None]] = {"began-zhao": began_zhao.convert}


def import_(
    file: Path,
    /,
    *,
    critic: Path | None = None,
    preset: str | None = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
) -> Result:
    """Convert the weights of another project into a model for `mien sample`.

    Reads pickled modules and state dicts of torch, in both of its formats, and safetensors. A pickle is parsed, not executed:
    nothing that it names is imported or called. Examples:

        mien import G.pth
        mien import G.pth -o zhao.safetensors
        mien import G.pth --critic D.pth --out zhao/
        mien import config.json            # homogan's configuration, as commands

    Parameters
    ----------
    file
        Weights; or a configuration of homogan, which becomes the commands that prepare its data and train it.
    critic
        File with the critic, if it is separate: with its critic a BEGAN can also encode.
    preset
        Preset that the weights must belong to; by default, any known one.
    out
        A .safetensors file, or a folder for model.safetensors; by default, the name of the input with that ending, in this folder.
    """
    for pattern, read in FILES:
        if fnmatch(file.name, pattern):
            return read(file, critic, preset, out)
    raise AssertionError("the last pattern fits every name")


def import_weights(file: Path, critic: Path | None, preset: str | None, out: Path | None) -> Result:
    """A file of tensors as a model. Raises Untrusted for a damaged or hostile file, Mismatch for unknown layers."""
    if preset is not None and preset not in MODELS:
        raise UsageError(
            f"Files of `{preset}` cannot be imported.",
            "The layers of its files are not known here.",
            did_you_mean(preset, MODELS),
        )
    found = weights.load(file)
    tensors = dict(found.tensors)
    sources = {"file": found.sha256}
    if "mien" in found.description:
        raise Mismatch(f"{file} is already a model of mien.", "Its header says so.", f"Run: mien sample {file}")
    if critic is not None:
        second = weights.load(critic)
        if second.sha256 == found.sha256:
            raise Mismatch(
                f"{critic} is a copy of {file}.",
                f"Both files have the same content ({found.summary()}), so neither is the other's critic.",
                "Name the file that has the critic, or leave out --critic.",
            )
        halves = (("file", found), ("critic", second))
        tensors = {f"{part}.{name}": tensor for part, half in halves for name, tensor in half.tensors.items()}
        sources["critic"] = second.sha256
    name, model = recognise(file, found, tensors, [preset] if preset else list(MODELS))
    if critic is not None and not model.whole:
        raise Mismatch(
            f"{critic} does not contain the critic of {file}.",
            "It has no tensors that this model lacks.",
            "Leave out --critic to import the generator alone.",
        )
    for tensor_name, tensor in model.tensors.items():
        if not tensor.isfinite().all():
            raise Untrusted(
                f"{file} contains NaN or infinite numbers.",
                f"They are in {tensor_name}.",
                "Choose another checkpoint.",
            )
    target = output_path(file, out)
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
    """A configuration of homogan as equivalent commands, with a remark for every key."""
    if critic or preset or out:
        raise UsageError(
            "--critic, --preset and --out are for weights.",
            f"{file} is a configuration, which becomes commands.",
            "Leave them out.",
        )
    run, remarks = homogan_config(file)
    before = {field.name: field.value for field in config_fields(PRESETS[run.preset])}
    flags = [f"--{k.name.replace('_', '-')} {k.value}" for k in config_fields(run) if before[k.name] != k.value]
    train = " ".join([f"mien train {run.preset} --data homogan.pack", *flags])
    lines = [*run.prepare, train, "", *remarks]
    return Result("\n".join(lines), {"run": to_json(run), "commands": [*run.prepare, train], "remarks": remarks})


#: The reader of a file, by its name; the first pattern that matches counts. A new kind of file is a function and a row.
FILES: Sequence[tuple[str, Callable[[Path, Path | None, str | None, Path | None], Result]]] = (
    ("*.json", import_configuration),
    ("*", import_weights),
)


def recognise(file: Path, found: Weights, tensors: Mapping[str, Tensor], known: Sequence[str]) -> tuple[str, Converted]:
    """The first known project whose layers the tensors have, and the model. Raises Mismatch with the tensors found."""
    for name in known:
        model = MODELS[name](tensors)
        if model is not None:
            return name, model
    raise Mismatch(
        f"{file} does not contain a known model.",
        f"It contains {found.summary()}." if found.tensors else "It contains no tensors.",
        f"Known projects: {', '.join(known)}. A critic alone is no model: name its generator first.",
    )


def output_path(file: Path, out: Path | None) -> Path:
    """The path of the model. Raises UsageError for a path that is neither a folder nor a .safetensors file."""
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
    """Write the model atomically; an identical file is no error. Raises UsageError rather than replace another file."""
    if target.exists():
        if target.is_file() and target.read_bytes() == content:
            return
        raise UsageError(f"{target} exists.", "It has other content.", "Choose another path with --out.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        write_bytes(beside, content)
