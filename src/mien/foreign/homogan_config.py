"""Imports homogan's config.json as a run: each key becomes a flag, or a remark says why it does not.

Credentials in the file are never read; Kaggle's come from the environment or its client's own file (see `mien data fetch`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mien.core.run import Run, override
from mien.errors import DataError, MienError, Mismatch, Untrusted
from mien.presets import PRESETS
from mien.storage import bounded_json

LARGEST = 1 << 20  # bytes of a configuration
CREDENTIAL = re.compile(r"kaggle.*(user|pass|key|name)|^user(name)?$|password|secret|token", re.I)


@dataclass
class ConfigImport:
    """The state of an import: the run so far, and remarks."""

    run: Run
    labels: list[str] = field(default_factory=list)
    where: dict[str, Any] = field(default_factory=dict)
    source: str = "celeba.zip"
    limit: int | None = None
    epochs: int | None = None
    remarks: list[str] = field(default_factory=list)  # one per key

    def override(self, key: str, value: Any, **fields: Any) -> None:
        """Override fields of the run, with __ for dots, and add a remark."""
        changes = {name.replace("__", "."): new for name, new in fields.items()}
        self.run = override(self.run, changes)
        flags = " ".join(f"--{name.replace('_', '-')} {new}" for name, new in changes.items())
        self.remarks.append(f"{key} = {value}: {flags}")

    def note(self, key: str, value: Any, why: str) -> None:
        self.remarks.append(f"{key} = {json.dumps(value)}: {why}")


def homogan_config(path: Path) -> tuple[Run, list[str]]:
    """A run from homogan's configuration, and a remark for each of its keys: its flag, or the reason why it has none.

    Raises DataError without a file, Untrusted for invalid JSON, Mismatch for another program's configuration.
    """
    if not path.is_file():
        raise DataError(f"There is no {path}.", "A configuration must be a JSON file.", "Check the path.")
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        content = bounded_json.loads(bounded_json.read_bytes(path, LARGEST), pairs=once)
    except (OSError, ValueError) as error:
        raise Untrusted(
            f"{path} is not a valid configuration.", f"{error}.", "Give the path of homogan's config.json."
        ) from error
    leaves = dict(flat(content)) if isinstance(content, dict) else {}
    if not {key.lower() for key in leaves} & {"model", "celeba_features", "train_g", "latent_dim"}:
        raise Mismatch(
            f"{path} is not a homogan configuration.",
            "It has none of model, celeba_features, train_g and latent_dim.",
            "See its keys in docs/homogan.md.",
        )
    state = ConfigImport(preset_of(leaves))
    for key, value in leaves.items():
        read(state, key, value)
    state.remarks += [f"{key} occurs twice; the last value is used, as in Python" for key in twice]
    return with_prepare_command(state), state.remarks


def flat(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The innermost keys with their values."""
    leaves: list[tuple[str, Any]] = []
    for key, value in content.items():
        inner = isinstance(value, dict) and key.lower() != "celeba_features"
        leaves += flat(value) if inner else [(key, value)]
    return leaves


def preset_of(leaves: Mapping[str, Any]) -> Run:
    """The preset of the experiment in `model`; homogan-15, the last one, without `model`.

    The repository's `src/models/model_14.py` is not an experiment: its networks are those of 11, with noise of .5 in the generator
    and without the spectral norm of experiment 14.
    """
    name = next((str(value) for key, value in leaves.items() if key.lower() == "model"), "model_15")
    number = re.search(r"(\d{1,2})", name)
    preset = "homogan-16" if "noisy" in name else f"homogan-{int(number[1]):02d}" if number else ""
    if preset not in PRESETS:
        raise Mismatch(f"There is no model `{name[:40]}`.", "homogan has sixteen models.", "Use model_01 to model_16.")
    if re.search(r"models?[./]model_?14$", name):
        return override(PRESETS["homogan-11"], {"recipe.generator_noise": 0.5})
    return PRESETS[preset]


def read(state: ConfigImport, key: str, value: Any) -> None:
    """Apply one key, or add a remark why not. Raises Mismatch for an invalid value."""
    if CREDENTIAL.search(key):  # never printed or stored
        state.remarks.append(f"{key}: not read; credentials come from the environment or the Kaggle client's own file")
        return
    reader = KEYS.get(key.lower())
    if reader is None:
        state.note(key, value, NOTES.get(key.lower(), "unknown key, ignored"))
        return
    try:
        reader(state, key, value)
    except (TypeError, ValueError, OverflowError, MienError) as error:
        why = error.what if isinstance(error, MienError) else str(error)
        raise Mismatch(
            f"{key} = {json.dumps(value)[:80]} is not valid.", f"{why}.", "Correct the value in the file."
        ) from error


def number(value: Any) -> int:
    """An integer. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or int(value) != float(value):
        raise ValueError(f"{value!r} is not an integer")
    return int(value)


def model(state: ConfigImport, key: str, value: Any) -> None:
    run = state.run
    noise = getattr(run.recipe, "generator_noise", 0.0)
    noisy = f" with --recipe.generator-noise {noise}" if run.recipe != PRESETS[run.preset].recipe and noise else ""
    state.note(key, value, f"the preset {run.preset}{noisy}")
    if noisy:
        state.remarks.append("  its file has no spectral norm; experiment 14 of the README is the preset homogan-14")


def side(state: ConfigImport, key: str, value: Any) -> None:
    size = number(value)
    earlier = [remark for remark in state.remarks if remark.startswith("IMG_")]
    if earlier and size != state.run.side:
        state.note(key, value, f"not possible: images are square, {state.run.side} px each way")
        return
    state.override(key, value, side=size)


def batch(state: ConfigImport, key: str, value: Any) -> None:
    state.override(key, value, batch=number(value))


def folder(state: ConfigImport, key: str, value: Any) -> None:
    state.source = str(value)
    state.note(key, value, "the source of `mien data prepare`")


def chosen(state: ConfigImport, key: str, value: Any) -> None:
    """[NAME, value] is a filter, [NAME] a label."""
    items = value
    if isinstance(value, dict):
        items = [[name] if setting is None else [name, setting] for name, setting in value.items()]
    for item in items:
        words = [item] if isinstance(item, str) else list(item)
        if len(words) not in (1, 2) or not isinstance(words[0], str) or not re.fullmatch(r"\w{1,64}", words[0]):
            raise ValueError(f"{item!r} is neither [NAME] nor [NAME, value]")
        if len(words) == 2:
            state.where[words[0]] = max(0, number(words[1]))  # CelebA's -1 means no
        else:
            state.labels.append(words[0])
    state.note(key, value, "--labels and --where of `mien data prepare`")
    if "No_Beard" in state.labels:
        state.remarks.append("  No_Beard is the opposite of a beard; Beard=!No_Beard would be one (homogan-15-fixed)")


def images(state: ConfigImport, key: str, value: Any) -> None:
    state.limit = number(value)
    state.note(key, value, "--limit of `mien data prepare`; homogan does not read it")


def latent(state: ConfigImport, key: str, value: Any) -> None:
    state.override(key, value, model__latent=number(value))


def first_epoch(state: ConfigImport, key: str, value: Any) -> None:
    more = "" if number(value) == 0 else ": a run continues from its newest checkpoint"
    state.note(key, value, f"not needed: the same command again resumes{more}")


def epochs(state: ConfigImport, key: str, value: Any) -> None:
    state.epochs = number(value)
    state.note(key, value, "--images: epochs times the pack's images")


def train_g(state: ConfigImport, key: str, value: Any) -> None:
    state.override(key, value, recipe__generator_steps=number(value), recipe__generator_schedule="interval")
    state.remarks.append(
        "  as homogan's code: one generator step every so many batches. Its README describes so many steps per batch: per-step"
    )


def train_d(state: ConfigImport, key: str, value: Any) -> None:
    if number(value) == 1:
        state.note(key, value, "the critic is updated in every batch, as in mien")
    else:
        state.override(key, value, recipe__critic_interval=number(value))


#: Keys that have no counterpart, and why.
NOTES = {
    "multilabelling": "not read by homogan either: the number of labels in the pack decides",
    "features": "not needed: the number of labels in the pack sets the width of the network",
    "noise_dim": "the same as latent_dim, which is used",
    "buffer_size": "not needed: every epoch shuffles the whole pack; homogan's code fixes it at 3000",
    "img_noise_mode": "not applied: noise on photographs; homogan's code has its call commented out",
}
KEYS: Mapping[str, Callable[[ConfigImport, str, Any], None]] = {
    "model": model,
    "img_height": side,
    "img_width": side,
    "batch_size": batch,
    "dataset_folder": folder,
    "celeba_features": chosen,
    "num_img_training": images,
    "latent_dim": latent,
    "start_epoch": first_epoch,
    "epochs": epochs,
    "train_g": train_g,
    "train_d": train_d,
}


def with_prepare_command(state: ConfigImport) -> Run:
    """The run, with the command that prepares its data."""
    run = state.run
    if state.epochs is not None:
        length = state.limit or (9_091 if run.preset in ("homogan-15", "homogan-16") else 10_000)
        run = override(run, {"images": max(1, state.epochs * length)})
    if state.labels and not run.conditional:
        state.remarks.append(f"  {run.preset} is not label-conditional: labels stay in the pack and are not used")
    flags = f"--size {run.side} --crop squash --resampler nearest"
    flags += f" --labels {','.join(state.labels)}" if state.labels else ""
    flags += f" --where {','.join(f'{name}={value}' for name, value in state.where.items())}" if state.where else ""
    flags += f" --limit {state.limit}" if state.limit else ""
    return replace(run, prepare=(f"mien data prepare {shlex.quote(state.source)} homogan.pack {flags}",))
