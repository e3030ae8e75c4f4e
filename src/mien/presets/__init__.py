"""Named Runs, and the one place where models and recipes meet.

Dated presets (`torch-gan-2015`) are frozen to history: every constant but side and data is spelt out, and a golden file pins
them. Undated ones (`quick`) are the best known, and may improve.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import torch

from mien.core.contracts import JSON, ImageSpec, Model, ModelConfig, NetworkConfig, RecipeConfig
from mien.core.module_limit import limit_modules
from mien.core.run import Run, from_json, numbers
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


#: The config classes that a file may name: those of the presets, of the fitted baseline, and of imported models.
KINDS = {
    **kinds_of(PRESETS.values()),
    EigenfacesConfig.__name__: EigenfacesConfig,
    ZhaoGeneratorConfig.__name__: ZhaoGeneratorConfig,
}


@dataclasses.dataclass(frozen=True)
class Code:
    """A Python file of a user's own models: code from a file runs only if the user names the file."""

    name: str
    sha256: str
    presets: Mapping[str, Run]

    @property
    def header(self) -> JSON:
        """The entry in a model's header."""
        return {"file": self.name, "sha256": self.sha256}


def check_code(path: Path | None) -> None:
    """Raises DataError or UsageError for what is no Python file, before a model is downloaded for it."""
    if path is None:
        return
    if not path.is_file():
        raise DataError(
            f"There is no regular file {path}.", "A preset of your own is `file.py:name`.", "Check the spelling."
        )
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file.", "Its name does not end in .py.", "See docs/own_model.py.")


def load_code(path: Path) -> Code:
    """Run a user's Python file and take its `PRESETS`. Raises DataError or UsageError if there are none."""
    check_code(path)
    name = f"mien_code_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f"line {lines[-1]}: " if lines else ""
        raise UsageError(
            f"{path} cannot be run.",
            f"{line}{type(error).__name__}: {error}",
            "Run it with python to see where it stops.",
        ) from error
    presets = vars(module).get("PRESETS")
    if not isinstance(presets, dict) or not all(isinstance(run, Run) for run in presets.values()):
        raise UsageError(
            f"{path} has no PRESETS.", "It must define PRESETS, a dict from names to Runs.", "See docs/own_model.py."
        )
    return Code(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), presets)


def find(name: str) -> tuple[Run, Code | None]:
    """The preset of a name, or of `file.py:name`: of a word that the user wrote, never of one that a file holds, since it runs
    the file. Raises UsageError with the nearest names.
    """
    file, colon, inner = name.rpartition(":")
    if colon and file.endswith(".py"):
        return find_named(inner, Path(file))
    return find_named(name)


def find_named(name: object, code_file: Path | None = None) -> tuple[Run, Code | None]:
    """The preset of a name that a run's file holds: one of mien's, or one of the file that the user named."""
    if code_file is not None:
        code = load_code(code_file)
        if not isinstance(name, str) or name not in code.presets:
            hint = did_you_mean(str(name), code.presets)
            raise UsageError(f"{code_file} has no preset `{name}`.", "Its PRESETS has no such key.", hint)
        return code.presets[name], code
    if not isinstance(name, str):
        raise UsageError(f"{name} is no name of a preset.", "It is a text.", "`mien presets` lists them all.")
    if name not in PRESETS:
        raise UsageError(f"There is no preset `{name}`.", "`mien presets` lists them all.", did_you_mean(name, PRESETS))
    return PRESETS[name], None


def kinds_for(code_header: JSON | None, code_file: Path | None) -> Mapping[str, type]:
    """The config classes that a model's header may name: the package's, and those of the user's file if the header needs one.

    Raises UsageError if the file is needed and not named; warns if it has changed.
    """
    if code_header and not (
        isinstance(code_header, dict) and all(isinstance(code_header.get(name), str) for name in ("file", "sha256"))
    ):
        raise Mismatch(
            "This header does not describe a model.",
            "Its `code` has no file and sha256.",
            "Use a file written by mien.",
        )
    if code_file is None:
        if code_header:
            raise UsageError(
                f"This model is defined in {code_header['file']}.",
                "mien runs code only from files that you name.",
                f"Add --code {code_header['file']}.",
            )
        return KINDS
    code = load_code(code_file)
    if code_header and code_header["sha256"] != code.sha256:
        print(f"mien: {code_file} has changed since this model was trained", file=sys.stderr)
    return {**KINDS, **kinds_of(code.presets.values())}


#: Modules and parameters that a model may create for each tensor in its file: no model of ours creates more than 4.
MODULES_EACH = 20
MAX_COUNT = 1 << 20  # the largest integer that a file's config may contain: loops over it stay short


def check_counts(config: ModelConfig, spec: ImageSpec) -> None:
    """Raise Mismatch for a config of a file whose integers are too large to loop over."""
    for flag, number in (*numbers(config, "model."), *numbers(spec, "faces.")):
        if isinstance(number, int) and abs(number) > MAX_COUNT:
            raise Mismatch(
                "This header describes no model that can be built.",
                f"{flag} is {number}, above the maximum of {MAX_COUNT:,}.",
                "Use a file written by mien.",
            )


def shape_text(shape: torch.Size | None) -> str:
    """A shape as text."""
    return "missing" if shape is None else "x".join(map(str, shape)) or "a scalar"


def build_model(header: JSON, kinds: Mapping[str, type], shapes: Mapping[str, torch.Size] | None = None) -> Model:
    """A model from its header, with fresh weights. Raises Mismatch for a header that does not describe one.

    `shapes` are those of the tensors in the file: a header that needs others is refused before memory is allocated.
    """
    try:
        config, spec = from_json(ModelConfig, header["config"], kinds), ImageSpec(**header["faces"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Mismatch(
            "This header does not describe a model.", f"{type(error).__name__}: {error}", "Use a file written by mien."
        ) from error
    if not isinstance(config, ModelConfig):
        raise Mismatch(
            "This header does not describe a model.",
            f"It names a {type(config).__name__}.",
            "Use a file written by mien.",
        )
    if shapes is not None:
        check_counts(config, spec)
    try:
        own = KINDS.get(type(config).__name__) is not type(config)  # a user's model may not build without real tensors
        if shapes is not None and not own:
            with limit_modules(MODULES_EACH * (len(shapes) + MODULES_EACH)):
                expected = {name: tensor.shape for name, tensor in config.outline(spec).state_dict().items()}
            if expected != shapes:
                name = min(name for name in {*expected, *shapes} if expected.get(name) != shapes.get(name))
                raise Mismatch(
                    "This file does not fit its own description.",
                    f"{name} is {shape_text(shapes.get(name))} in the file and {shape_text(expected.get(name))} by its header.",
                    "Sample with the version that wrote it.",
                )
        return config.build(spec)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Mismatch(
            "This header describes a model that cannot be built.",
            f"{type(error).__name__}: {error}",
            "Use a file written by mien.",
        ) from error


#: Systems that presets reproduce: a prefix of their names, the year and the system. The first prefix that fits counts.
SYSTEMS = (
    ("torch-gan-2015", 2015, "Generating Faces with Torch"),
    ("vae-torch-2015", 2015, "Generating Faces with Torch"),
    ("vaegan-torch-2015", 2015, "Generating Faces with Torch"),
    ("dcgan-", 2015, "DCGAN"),
    ("vaegan-", 2016, "VAE/GAN"),
    ("cppn-", 2016, "CPPN"),
    ("began-zhao", 2020, "BEGAN by sicongzhao"),
    ("began-", 2017, "BEGAN"),
    ("homogan-", 2020, "homogan"),
    ("vae-simpsons-", 2023, "Simpsons VAE"),
    ("r3gan-", 2024, "R3GAN"),
)


def groups() -> dict[str, list[Run]]:
    """The presets for a reader: today's best, reproductions by year and system, label-conditional ones."""
    best: list[Run] = []
    conditional: list[Run] = []
    reproductions: dict[tuple[int, str], list[Run]] = {}
    for run in PRESETS.values():
        system = next(((year, title) for prefix, year, title in SYSTEMS if run.preset.startswith(prefix)), None)
        if system is None and (match := re.search(r"-((?:19|20)\d\d)\b", run.preset)):
            system = (int(match[1]), run.preset)
        if system is not None:
            reproductions.setdefault(system, []).append(run)
        else:
            (conditional if run.conditional else best).append(run)
    titled = {f"Reproductions: {title} ({year})": runs for (year, title), runs in sorted(reproductions.items())}
    return {"Today's best": best, **titled, "Label-conditional": conditional}


class CallableModule(ModuleType):
    """This package as a function: `mien.presets()` is the obvious way to ask for the names, and `mien.presets` is a package."""

    def __call__(self, name: str | None = None) -> Run | list[str]:
        """The names of all presets, or the Run of one."""
        return list(PRESETS) if name is None else find(name)[0]


sys.modules[__name__].__class__ = CallableModule
