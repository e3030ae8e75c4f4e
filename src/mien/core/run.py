"""A Run: the frozen, typed description of one experiment, and its twin as JSON and as flags."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import inf, isfinite, sqrt
from typing import Any, Literal, TypeVar, get_type_hints

from mien.core.contracts import JSON, Knobs, ModelConfig, NetworkConfig, RecipeConfig
from mien.errors import Mismatch, UsageError, did_you_mean

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32", "fp64"]
CONVERGENCE = "convergence"  # BEGAN's M: a checkpoint can be the best by it without an evaluation
MAX_SEED = 2**53 - 1  # as of faces: what a JavaScript number holds exactly


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """An exponential moving average of the model, counted in images so that it means the same at any batch size."""

    half_life: int = 10_000  # images after which a weight's influence has halved
    warmup: float = 0.1  # the half-life is at most this share of the images seen, so that early noise is forgotten
    ramp: int = 0  # images over which the half-life rises from 0 along half a cosine; 0 = none

    def __post_init__(self) -> None:
        if self.half_life < 1:
            raise UsageError(
                f"An averaging half-life of {self.half_life} images is not possible.",
                "It counts images.",
                "Give 1 or more, or --average None for no averaging.",
            )
        if self.ramp < 0:
            raise UsageError(
                f"An averaging ramp of {self.ramp} images is not possible.", "It counts images.", "Give 0 for none."
            )
        if not 0 <= self.warmup < inf:
            raise UsageError(
                f"An averaging warm-up of {self.warmup} is not possible.",
                "It is a share of the images seen.",
                "Give 0 for none, or about 0.1.",
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment. `model` and `recipe` are the two axes; everything else is common to all."""

    preset: str
    model: ModelConfig
    recipe: RecipeConfig
    side: int = 64  # pixels; the pack's side wins over a preset's
    batch: int = 64  # real images in one pull, over all processes
    flip: bool = True  # mirror images at random
    random_crop: float = 1.0  # enlarge images by this factor, and learn from random parts of the side; 1 = whole images
    channels: Literal[1, 3] = 3  # 3 for colour, 1 for grey
    conditional: bool = False  # whether the model is told the labels of the pack
    average: EMAConfig | None = None  # what is sampled and exported: the average, or the model as trained
    seed: int = 0  # of weights, order, latents: everything random
    precision: Precision = "auto"  # auto: bf16 where the device has units for it, else fp32
    device: Device = "auto"  # auto: a GPU where there is one
    images: int = 1_000_000  # real images to see
    minutes: float | None = None  # training time in all, over every resume; instead of images
    save_every: int = 0  # images between checkpoints; 0 = by time, at most 2% of it
    keep: int = 3  # checkpoints that stay on disk, beside the best
    sample_every: int = 0  # images between sample grids; 0 = by time, at most 2% of it
    log_every: int = 0  # images between lines of metrics.jsonl; 0 = every second or two
    evaluate_every: int = 0  # images between evaluations against the data, and one at the end; 0 = none
    evaluate_metrics: str = "fid,kid"  # what an evaluation measures, in the words of `mien evaluate --metrics`
    evaluate_samples: int = 2000  # faces that an evaluation draws; part of its scores' names: fid2k_train
    evaluate_extractor: str = ""  # FILE.py:NAME, an extractor of your own in place of Inception
    keep_best: str = ""  # score whose best checkpoint stays and is named by checkpoints/BEST, or convergence: BEGAN's M
    patience: int = 0  # evaluations without a better such score after which the run ends early; 0 = none
    film: Literal["auto", "gif", "mp4", "webp"] = "auto"  # of the training, at its end; auto: mp4, or webp without PyAV
    loader_threads: int = 1  # never changes what is learned
    threads: int = 0  # of torch; 0 = all cores
    story: str = field(default="", metadata={"knob": False})  # what this preset is, for `mien presets`
    notes: tuple[str, ...] = field(default=(), metadata={"knob": False})  # sources, kept faults, choices
    after: str = field(default="", metadata={"knob": False})  # the preset that this one changes
    change: str = field(default="", metadata={"knob": False})  # what it changes there
    prepare: tuple[str, ...] = field(
        default=(), metadata={"knob": False}
    )  # commands that make the data it was made for
    by_rule: tuple[str, ...] = field(default=(), metadata={"knob": False})  # knobs that `mien.presets.defaults` decides

    def __post_init__(self) -> None:
        for name in ("side", "batch", "images", "keep"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)} is not possible.", "It counts.", "Give 1 or more.")
        for flag, number in numbers(self):
            if not isfinite(number):
                raise UsageError(f"{flag} {number} is not possible.", "It is no finite number.", "Give one.")
            if isinstance(number, int) and number < 0:
                raise UsageError(f"{flag} {number} is not possible.", "It counts.", "Give 0 or more.")
        if not 1.0 <= self.random_crop <= 4.0:
            raise UsageError(
                f"--random-crop {self.random_crop} is not possible.",
                "It is the factor by which images are enlarged before a part is cut out.",
                "Choose from 1, whole images, to 4.",
            )
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed {self.seed} is not possible.", "It is too large.", f"Give 0 to {MAX_SEED}.")
        if self.evaluate_samples < 2:
            raise UsageError(
                f"--evaluate-samples {self.evaluate_samples} is not possible.",
                "A score compares two distributions, and one image has no spread.",
                "Give hundreds, better thousands.",
            )
        if self.patience and self.keep_best == CONVERGENCE:
            raise UsageError(
                "--patience does not look at BEGAN's M.", "It counts evaluations.", "Leave out --keep-best convergence."
            )
        if (self.patience or self.keep_best not in ("", CONVERGENCE)) and not self.evaluate_every:
            raise UsageError(
                f"--{'patience' if self.patience else 'keep-best'} has no scores to look at.",
                "The run is never evaluated.",
                "Add --evaluate-every, in images.",
            )
        if self.minutes is not None and not 0 < self.minutes < inf:
            raise UsageError(f"--minutes {self.minutes} is not possible.", "It is training time.", "Give more than 0.")


#: Fields that may change when a run goes on: they do not change what is learned up to any number of images seen.
NOT_IDENTITY = frozenset(
    {
        *("images", "minutes", "patience", "keep_best", "film", "loader_threads", "threads"),
        *("story", "notes", "after", "change", "prepare", "by_rule"),
        *("save_every", "sample_every", "log_every", "keep"),
        *("evaluate_every", "evaluate_metrics", "evaluate_samples", "evaluate_extractor"),
    }
)

#: Fields of the identity that older runs lack, and the value at which they do what was done before.
LATER: JSON = {"random_crop": 1.0, "channels": 3}

Config = TypeVar("Config", bound=object)


def to_json(config: Any) -> Any:
    """A config as plain JSON; each nested config names its class as `kind`."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        named = isinstance(config, ModelConfig | RecipeConfig | NetworkConfig)
        kind = {"kind": type(config).__name__} if named else {}
        return {**kind, **{f.name: to_json(getattr(config, f.name)) for f in fields(config)}}
    if isinstance(config, tuple | list):
        return [to_json(value) for value in config]
    return config


def from_json(hint: Any, value: Any, kinds: Mapping[str, type]) -> Any:
    """The inverse of `to_json`. Only classes in `kinds` can be built: a file cannot name code.

    Raises Mismatch for a kind or field that is not known here.
    """
    if isinstance(value, dict):
        cls = (
            kinds.get(value["kind"])
            if "kind" in value
            else next((t for t in _options(hint) if dataclasses.is_dataclass(t)), None)
        )
        if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
            raise Mismatch(
                f"This file needs `{value.get('kind', 'a config')}`, which is not known here.",
                "It was written by another version of mien, or by a model of your own.",
                f"{did_you_mean(str(value.get('kind')), kinds)} For a model of your own, name its file with --code.",
            )
        hints = get_type_hints(cls)
        given = {name: item for name, item in value.items() if name != "kind"}
        unknown = sorted(set(given) - {f.name for f in fields(cls)})
        if unknown:
            raise Mismatch(
                f"`{cls.__name__}` has no field {', '.join(unknown)} in this version.",
                "The file was written by another version of mien.",
                "Install the version named in the run's env.json.",
            )
        return cls(**{name: from_json(hints[name], item, kinds) for name, item in given.items()})
    if isinstance(value, list):
        return tuple(from_json(None, item, kinds) for item in value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint itself."""
    return getattr(hint, "__args__", None) or (hint,)


def numbers(config: Any, prefix: str = "--") -> Iterator[tuple[str, int | float]]:
    """Every number of a config and of the configs inside it, by its flag."""
    for f in fields(config):
        value, flag = getattr(config, f.name), f"{prefix}{f.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{flag}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield flag, value


def identity(run: Run) -> JSON:
    """What makes a run this run: everything but places, periods and lengths.

    A field that came later is left out at its default, so that older runs go on.
    """
    told = to_json(run)
    return {name: v for name, v in told.items() if name not in NOT_IDENTITY and LATER.get(name) != v}


def fingerprint(config: Any) -> str:
    """A short name for equal configurations."""
    text = json.dumps(to_json(config) if dataclasses.is_dataclass(config) else config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ConfigField:
    """One typed flag: `--recipe.lr`."""

    name: str  # dotted
    hint: Any
    value: Any
    help: str


def field_comments(cls: type) -> dict[str, str]:
    """What the comments beside a config's fields say: the help of its flags is written once, where the field is."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(cls))
    except OSError:  # a class without a source file
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def config_fields(config: Any, prefix: str = "") -> Iterator[ConfigField]:
    """Every field of a config and of the configs inside it, by dotted name."""
    hints, told = get_type_hints(type(config)), field_comments(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        name = f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from config_fields(value, f"{name}.")
        elif f.metadata.get("knob", True) and f.name != "preset":
            yield ConfigField(name, hints[f.name], value, told.get(f.name, ""))


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with knobs turned: `turn(run, {"recipe.lr": 1e-3})`. What is turned is no longer left to a rule."""
    here = {name: value for name, value in changes.items() if "." not in name}
    if isinstance(config, Run):
        left = (rule for rule in config.by_rule if not any(f"{rule}.".startswith(f"{name}.") for name in changes))
        here = {"by_rule": tuple(left), **here}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if "." in name:
            head, rest = name.split(".", 1)
            nested.setdefault(head, {})[rest] = value
    inner = {head: override(getattr(config, head), rest) for head, rest in nested.items()}
    return dataclasses.replace(config, **here, **inner)  # type: ignore[type-var]


def without_effect(run: Run, changed: Iterable[str]) -> list[str]:
    """A line for each of the changed fields, by dotted name, that does nothing in this run."""
    found: dict[str, str] = {}

    def look(config: Any, prefix: str) -> None:
        if isinstance(config, Knobs):
            found.update({f"{prefix}{name}": why for name, why in config.without_effect().items()})
        for part in fields(config):
            value = getattr(config, part.name)
            if dataclasses.is_dataclass(value):
                look(value, f"{prefix}{part.name}.")

    look(run, "")
    if not run.evaluate_every:
        found |= dict.fromkeys(
            ("evaluate_metrics", "evaluate_samples", "evaluate_extractor"),
            "the run is never evaluated; add --evaluate-every",
        )
    told = ((name, name.replace("_", "-")) for name in changed)
    return [f"--{flag} has no effect: {found[name]}" for name, flag in told if name in found]


def scale_run(run: Run, dial: float) -> Run:
    """A copy of `run` whose networks cost about `dial` times as much an image: widths grow with its root, in steps of 8.

    Raises UsageError for networks that do not name what grows (`grows`): a reproduction's have the sizes that were published.
    """
    if not 0 < dial < inf:
        raise UsageError(f"--dial {dial} is not possible.", "It multiplies the cost of an image.", "Give more than 0.")
    grown = 0

    def turned(config: Any) -> Any:
        nonlocal grown
        names = getattr(type(config), "grows", ())
        changes = {
            name: max(8, 8 * round(getattr(config, name) * sqrt(dial) / 8)) for name in names if getattr(config, name)
        }
        grown += len(changes)
        for part in dataclasses.fields(config):
            value = getattr(config, part.name)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                changes[part.name] = turned(value)
        return dataclasses.replace(config, **changes)

    changed = turned(run)
    if not grown:
        raise UsageError(
            f"--dial does not fit {run.preset}.",
            "Its networks have the sizes that were published.",
            "Use it with quick, gan, cgan, flow or vae, or turn --model.width.",
        )
    return changed  # type: ignore[no-any-return]


def differences(old: JSON, new: JSON, prefix: str = "") -> list[str]:
    """Lines such as `recipe.lr: 0.001 -> 0.0002` for two identities."""
    lines = []
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} -> {b}")
    return lines
