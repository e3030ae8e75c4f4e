"""A Run: the frozen, typed description of one experiment, also as JSON and as flags."""

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
from functools import cache
from math import inf, isfinite, sqrt
from typing import Any, Literal, TypeVar, get_type_hints

from mien.core.contracts import JSON, ConfigBase, ModelConfig, NetworkConfig, RecipeConfig
from mien.errors import Mismatch, UsageError, did_you_mean

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32", "fp64"]
CONVERGENCE = "convergence"  # BEGAN's measure M: --keep-best can rank checkpoints by it without an evaluation
MAX_SEED = 2**53 - 1  # the largest integer that a JavaScript number holds exactly
MAX_BATCH = 1 << 20  # images: more than any memory holds


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """An exponential moving average (EMA) of the weights, counted in images so that it is the same at any batch size."""

    half_life: int = 10_000  # images after which a weight's influence has halved
    warmup: float = 0.1  # the half-life is at most this fraction of the images seen, so early weights are forgotten
    ramp: int = 0  # images over which the half-life rises from 0 along half a cosine; 0 = none

    def __post_init__(self) -> None:
        if self.half_life < 1:
            raise UsageError(
                f"ema.half_life must be a positive integer, not {self.half_life}.",
                "It is a number of images.",
                "Give 1 or more, or --ema None for no averaging.",
            )
        if self.ramp < 0:
            raise UsageError(
                f"ema.ramp must be 0 or a positive integer, not {self.ramp}.",
                "It is a number of images.",
                "Give 0 for no ramp.",
            )
        if not 0 <= self.warmup < inf:
            raise UsageError(
                f"ema.warmup must be 0 or a positive number, not {self.warmup}.",
                "It is a fraction of the images seen.",
                "Give 0 for no warm-up, or about 0.1.",
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One experiment: a model, a recipe that trains it, and what is common to all."""

    preset: str
    model: ModelConfig
    recipe: RecipeConfig
    side: int = 64  # height and width of images in pixels; the pack's side replaces the preset's
    batch: int = 64  # real images in a batch, over all processes
    flip: bool = True  # flip images horizontally at random
    random_crop: float = 1.0  # random crops: images are enlarged by this factor first; 1 = off
    channels: Literal[1, 3] = 3  # 3 = colour, 1 = grey
    conditional: bool = False  # condition the model on the labels of the pack
    ema: EMAConfig | None = None  # moving average of the weights, which is sampled and exported; None = off
    seed: int = 0  # random seed of weights, data order, latents and everything else
    precision: Precision = "auto"  # auto = bf16 if the device computes it in hardware, else fp32
    device: Device = "auto"  # auto = a GPU if there is one
    images: int = 1_000_000  # train for so many real images
    minutes: float | None = None  # train for so many minutes instead, over every resume
    save_every: int = 0  # images between checkpoints; 0 = automatic, at most 2% of the time
    keep: int = 3  # number of newest checkpoints to keep, beside the best and the first after 1, 4, 16, 64, ... images
    sample_every: int = 0  # images between sample grids; 0 = automatic, about 2% of the time, more at the start
    log_every: int = 0  # images between lines of metrics.jsonl; 0 = automatic, every second or two
    evaluate_every: int = 0  # images between evaluations against the data, and one at the end; 0 = no evaluation
    evaluate_metrics: str = "fid,kid"  # metrics of an evaluation, as for `mien evaluate --metrics`
    evaluate_samples: int = 2000  # samples that an evaluation draws; part of its scores' names: fid2k_train
    evaluate_extractor: str = ""  # FILE.py:NAME, your own feature extractor instead of Inception
    keep_best: str = (
        ""  # score whose best checkpoint is kept as checkpoints/BEST; else the first metric; convergence = BEGAN's M
    )
    patience: int = 0  # early stopping: evaluations without a better score before the run ends; 0 = off
    film: Literal["auto", "gif", "mp4", "webp"] = (
        "auto"  # format of the film of the training; auto = mp4, or webp without PyAV
    )
    track: Literal["wandb", "mlflow", "trackio"] | None = None  # also log to this experiment tracker
    loader_threads: int = 1  # data-loading threads; the result does not depend on them
    threads: int = 0  # CPU threads, which share the rows of a batch where they can; 0 = all cores
    parent: str = field(
        default="", metadata={"flag": False}
    )  # SHA-256 of the model that --from named; "" = from scratch
    assisted: bool = field(default=False, metadata={"flag": False})  # a network taught by other photographs takes part
    story: str = field(default="", metadata={"flag": False})  # one line for `mien presets`
    notes: tuple[str, ...] = field(default=(), metadata={"flag": False})  # sources, reproduced faults, choices
    after: str = field(default="", metadata={"flag": False})  # the preset that this one is a change of
    change: str = field(default="", metadata={"flag": False})  # the change
    prepare: tuple[str, ...] = field(default=(), metadata={"flag": False})  # commands that prepare its data
    by_rule: tuple[str, ...] = field(default=(), metadata={"flag": False})  # fields that `mien.presets.defaults` sets

    def __post_init__(self) -> None:
        for name in ("side", "batch", "images", "keep"):
            if (value := getattr(self, name)) < 1:
                raise UsageError(f"{name} must be a positive integer.", f"{value} is not.", f"Give --{name} 1 or more.")
        for name, number in numbers(self):
            flag = f"--{name.replace('_', '-')}"
            if not isfinite(number):
                raise UsageError(f"{name} must be a finite number.", f"{number} is not.", f"Give {flag} a number.")
            if isinstance(number, int) and number < 0:
                raise UsageError(f"{name} must not be negative.", f"{number} is.", f"Give {flag} 0 or more.")
        if not 1.0 <= self.random_crop <= 4.0:
            raise UsageError(
                f"random_crop must be from 1 to 4, not {self.random_crop}.",
                "It is the factor by which images are enlarged before they are cropped.",
                "Give --random-crop 1 for no random crops.",
            )
        for name, least, most in (("seed", 0, MAX_SEED), ("batch", 1, MAX_BATCH)):
            if (value := getattr(self, name)) > most:
                limit = f"{name} must be an integer from {least} to {most}."
                raise UsageError(limit, f"{value} is larger.", f"Give --{name} a smaller one.")
        if self.evaluate_samples < 2:
            raise UsageError(
                f"evaluate_samples must be an integer of 2 or more, not {self.evaluate_samples}.",
                "A score compares two distributions, and one image has no variance.",
                "Give --evaluate-samples 2000.",
            )
        if self.patience and self.keep_best == CONVERGENCE:
            raise UsageError(
                "--patience does not look at BEGAN's M.", "It counts evaluations.", "Leave out --keep-best convergence."
            )
        if (self.patience or self.keep_best not in ("", CONVERGENCE)) and not self.evaluate_every:
            raise UsageError(
                f"--{'patience' if self.patience else 'keep-best'} needs evaluations.",
                "evaluate_every is 0, so the run is never evaluated.",
                "Add --evaluate-every N, in images.",
            )
        if self.minutes is not None and not 0 < self.minutes < inf:
            raise UsageError("minutes must be a positive number.", f"{self.minutes} is not.", "Give --minutes 5.")


#: Fields that may change when a run is resumed: the weights after any number of images do not depend on them.
NOT_IDENTITY = frozenset(
    {
        *("images", "minutes", "patience", "keep_best", "film", "track", "loader_threads", "threads"),
        *("assisted", "story", "notes", "after", "change", "prepare", "by_rule"),
        *("save_every", "sample_every", "log_every", "keep"),
        *("evaluate_every", "evaluate_metrics", "evaluate_samples", "evaluate_extractor"),
    }
)

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
        items = {name: item for name, item in value.items() if name != "kind"}
        unknown = sorted(set(items) - {f.name for f in fields(cls)})
        if unknown:
            raise Mismatch(
                f"`{cls.__name__}` has no field {', '.join(unknown)} in this version.",
                "The file was written by another version of mien.",
                "Install the version named in the run's env.json.",
            )
        return cls(**{name: from_json(hints[name], item, kinds) for name, item in items.items()})
    if isinstance(value, list):
        return tuple(from_json(None, item, kinds) for item in value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint itself."""
    return getattr(hint, "__args__", None) or (hint,)


def numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number of a config and of the configs inside it, by dotted name."""
    for f in fields(config):
        value, name = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def identity(run: Run) -> JSON:
    """The fields that a resumed run must share: all but paths, periods and lengths."""
    return {name: value for name, value in to_json(run).items() if name not in NOT_IDENTITY}


def fingerprint(config: Any) -> str:
    """A hash that equal configurations share."""
    text = json.dumps(to_json(config) if dataclasses.is_dataclass(config) else config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ConfigField:
    """One typed flag: `--recipe.lr`."""

    name: str  # dotted
    hint: Any
    value: Any
    help: str


@cache
def field_comments(cls: type) -> dict[str, str]:
    """The comments beside a config's fields, which are the help of its flags."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(cls))
    except OSError:  # a class without a source file
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    help_texts = {}
    for node in next(node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            help_texts[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return help_texts


def config_fields(config: Any, prefix: str = "") -> Iterator[ConfigField]:
    """Every field of a config and of the configs inside it, by dotted name."""
    hints, comments = get_type_hints(type(config)), field_comments(type(config))  # type: ignore[arg-type]
    for f in fields(config):
        value, name = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from config_fields(value, f"{name}.")
        elif f.metadata.get("flag", True) and f.name != "preset":
            yield ConfigField(name, hints[f.name], value, comments.get(f.name, ""))


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with other values: `override(run, {"recipe.lr": 1e-3})`.

    A field that is set here is no longer set by a rule. `images` alone replaces a preset's `minutes`.
    """
    here = {name: value for name, value in changes.items() if "." not in name}
    if isinstance(config, Run):
        left = (rule for rule in config.by_rule if not any(f"{rule}.".startswith(f"{name}.") for name in changes))
        here = {"by_rule": tuple(left), **here}
        if "images" in here and "minutes" not in here:
            here["minutes"] = None
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
    here |= {head: override(getattr(config, head), rest) for head, rest in nested.items()}
    return dataclasses.replace(config, **here)  # type: ignore[type-var]


def without_effect(run: Run, changed: Iterable[str]) -> list[str]:
    """A line for each of the changed fields, by dotted name, that has no effect in this run."""
    reasons: dict[str, str] = {}

    def collect(config: Any, prefix: str) -> None:
        if isinstance(config, ConfigBase):
            reasons.update({f"{prefix}{name}": why for name, why in config.without_effect().items()})
        for part in fields(config):
            value = getattr(config, part.name)
            if dataclasses.is_dataclass(value):
                collect(value, f"{prefix}{part.name}.")

    collect(run, "")
    if not run.evaluate_every:
        reasons |= dict.fromkeys(
            ("evaluate_metrics", "evaluate_samples", "evaluate_extractor"),
            "the run has no evaluation; add --evaluate-every",
        )
    return [f"--{name.replace('_', '-')} has no effect: {reasons[name]}" for name in changed if name in reasons]


def scale_run(run: Run, scale: float) -> Run:
    """A copy of `run` whose networks cost about `scale` times as much per image: widths grow with its root, in steps of 8.

    Raises UsageError for networks without scalable widths (`grows`): those of reproductions have their published sizes.
    """
    if not 0 < scale < inf:
        raise UsageError(
            f"scale must be a positive number, not {scale}.", "It multiplies the cost of an image.", "Give --scale 4."
        )
    grown = 0

    def scaled(config: Any) -> Any:
        nonlocal grown
        names = getattr(type(config), "grows", ())
        changes = {
            name: max(8, 8 * round(getattr(config, name) * sqrt(scale) / 8)) for name in names if getattr(config, name)
        }
        grown += len(changes)
        for part in dataclasses.fields(config):
            value = getattr(config, part.name)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                changes[part.name] = scaled(value)
        return dataclasses.replace(config, **changes)

    changed = scaled(run)
    if not grown:
        raise UsageError(
            f"--scale does not apply to {run.preset}.",
            "Its networks have their published sizes.",
            "Use it with quick, gan, cgan, flow or vae, or set --model.width.",
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
