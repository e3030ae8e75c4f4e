"""Named Runs, and the one place where models and recipes meet.

Dated presets (`torch-gan-2015`) are frozen to history: every constant but side and data is spelt out, and a golden file pins
them. Undated ones (`quick`) are the best known, and may improve.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

import torch

from mien.core.contracts import JSON, ImageSpec, Model, ModelConfig, NetworkConfig, RecipeConfig
from mien.core.run import Run, from_json
from mien.errors import DataError, Mismatch, UsageError, did_you_mean
from mien.models.eigenfaces import EigenfacesConfig
from mien.models.zhao import ZhaoGeneratorConfig
from mien.presets import began, cgan, cppn, dcgan, flow, gan, homogan, r3gan, torch2015, vae, vaegan

PRECISION = (
    "Precision: fp32 there; here bf16 where the device has units for it. What that changes is a fraction of what other latents "
    "change (docs/LOG.md, 2026-11-28); --precision fp32 is as there."
)


def with_precision(run: Run) -> Run:
    """A dated preset says that its original was fp32; R3GAN's was bf16 in most stages."""
    dated = run.preset.rpartition("-")[2].isdigit() and run.preset != "r3gan-2024"
    return dataclasses.replace(run, notes=(*run.notes, PRECISION)) if dated else run


PRESETS: dict[str, Run] = {
    run.preset: with_precision(run)
    for module in (gan, torch2015, dcgan, began, vae, vaegan, cppn, r3gan, flow, cgan, homogan)
    for run in module.PRESETS
}


def configs_in(value: Any) -> Iterator[type]:
    """The classes of every config inside a config."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, ModelConfig | RecipeConfig | NetworkConfig):
            yield type(value)
        for field in dataclasses.fields(value):
            yield from configs_in(getattr(value, field.name))


def kinds_of(runs: Iterable[Run]) -> dict[str, type]:
    """The config classes that some preset uses."""
    return {cls.__name__: cls for run in runs for cls in configs_in(run)}


#: The config classes that a file may name: those of the presets, the baseline that is fitted, and what is only imported.
KINDS = {
    **kinds_of(PRESETS.values()),
    EigenfacesConfig.__name__: EigenfacesConfig,
    ZhaoGeneratorConfig.__name__: ZhaoGeneratorConfig,
}


@dataclasses.dataclass(frozen=True)
class Code:
    """A user's own file of models: the only way to run code from a file is to name it on the command line."""

    name: str
    sha256: str
    presets: Mapping[str, Run]

    @property
    def header(self) -> JSON:
        """What a model's header says of its code."""
        return {"file": self.name, "sha256": self.sha256}


def load_code(path: Path) -> Code:
    """Run a user's Python file and take its `PRESETS`. Raises DataError or UsageError if there are none."""
    if not path.is_file():
        raise DataError(f"There is no {path}.", "A preset of your own is `file.py:name`.", "Check the spelling.")
    name = f"mien_code_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"line {lines[-1]}: " if lines else ""
        raise UsageError(
            f"{path} does not run.",
            f"{place}{type(error).__name__}: {error}",
            "Run it with python to see where it stops.",
        ) from error
    presets = vars(module).get("PRESETS")
    if not isinstance(presets, dict) or not all(isinstance(run, Run) for run in presets.values()):
        raise UsageError(
            f"{path} has no PRESETS.", "A file of models ends in a dict of named Runs.", "See docs/own_model.py."
        )
    return Code(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), presets)


def find(name: str) -> tuple[Run, Code | None]:
    """The preset of a name, or of `file.py:name`. Raises UsageError with the nearest names."""
    file, colon, inner = name.rpartition(":")
    if colon and file.endswith(".py"):
        code = load_code(Path(file))
        if inner not in code.presets:
            raise UsageError(
                f"{file} has no preset `{inner}`.", "Its PRESETS do not list it.", did_you_mean(inner, code.presets)
            )
        return code.presets[inner], code
    if name not in PRESETS:
        raise UsageError(f"There is no preset `{name}`.", "`mien presets` lists them all.", did_you_mean(name, PRESETS))
    return PRESETS[name], None


def kinds_for(wanted: JSON | None, code_file: Path | None) -> Mapping[str, type]:
    """The classes for a model's header: the package's, and those of the user's file if the header needs one.

    Raises UsageError when the file is needed and not named; a file that has changed since only warns.
    """
    if code_file is None:
        if wanted:
            raise UsageError(
                f"This model was made by {wanted['file']}.",
                "mien runs no code that is not named.",
                f"Add --code {wanted['file']}.",
            )
        return KINDS
    code = load_code(code_file)
    if wanted and wanted["sha256"] != code.sha256:
        print(f"mien: {code_file} has changed since this model was trained", file=sys.stderr)
    return {**KINDS, **kinds_of(code.presets.values())}


def told(shape: torch.Size | None) -> str:
    """A shape in words."""
    return "not there" if shape is None else "x".join(map(str, shape)) or "one number"


def build_model(header: JSON, kinds: Mapping[str, type], shapes: Mapping[str, torch.Size] | None = None) -> Model:
    """A model from its header, with fresh weights. Raises Mismatch for a header that does not describe one.

    `shapes` are those of the tensors that it is built for: a header that claims others is refused before it takes memory.
    """
    try:
        config, faces = from_json(ModelConfig, header["config"], kinds), ImageSpec(**header["faces"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Mismatch(
            "This header does not describe a model.", f"{type(error).__name__}: {error}", "Use a file written by mien."
        ) from error
    if not isinstance(config, ModelConfig):
        raise Mismatch(
            "This header describes no model.", f"It names a {type(config).__name__}.", "Use a file written by mien."
        )
    try:
        if shapes is not None and KINDS.get(type(config).__name__) is type(
            config
        ):  # one of one's own may need real numbers
            outlined = {name: tensor.shape for name, tensor in config.outline(faces).state_dict().items()}
            if outlined != shapes:
                name = min(name for name in {*outlined, *shapes} if outlined.get(name) != shapes.get(name))
                raise Mismatch(
                    "This file does not fit its own description.",
                    f"{name} is {told(shapes.get(name))} in the file and {told(outlined.get(name))} by its header.",
                    "Sample with the version that wrote it.",
                )
        return config.build(faces)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Mismatch(
            "This header describes no model that can be made.",
            f"{type(error).__name__}: {error}",
            "Use a file written by mien.",
        ) from error
