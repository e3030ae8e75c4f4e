"""homogan's config.json as a run: every key of it is honoured, or named with the reason why not.

Credentials in it are never read: Kaggle's come from the environment or its client's own file (`mien data fetch` says where).
"""

from __future__ import annotations

import json
import re
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
class Reading:
    """What was understood so far."""

    run: Run
    labels: list[str] = field(default_factory=list)
    where: dict[str, Any] = field(default_factory=dict)
    source: str = "celeba.zip"
    limit: int | None = None
    epochs: int | None = None
    remarks: list[str] = field(default_factory=list)  # one a key

    def override(self, key: str, value: Any, **fields: Any) -> None:
        """Override fields of the run, with __ for dots, and add a remark."""
        changes = {name.replace("__", "."): new for name, new in fields.items()}
        self.run = override(self.run, changes)
        flags = " ".join(f"--{name.replace('_', '-')} {new}" for name, new in changes.items())
        self.remarks.append(f"{key} = {value}: {flags}")

    def note(self, key: str, value: Any, why: str) -> None:
        self.remarks.append(f"{key} = {json.dumps(value)}: {why}")


def homogan_config(path: Path) -> tuple[Run, list[str]]:
    """A run from homogan's configuration, and a remark for each of its keys: the flag that it became, or why it has none.

    Raises DataError where there is no file, Untrusted for one that is not JSON, Mismatch for one that is not homogan's.
    """
    if not path.is_file():
        raise DataError(f"There is no {path}.", "A configuration is a JSON file.", "Check the spelling.")
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        content = bounded_json.loads(bounded_json.read_bytes(path, LARGEST), pairs=once)
    except (OSError, ValueError) as error:
        raise Untrusted(f"{path} is not a configuration.", f"{error}.", "Name homogan's config.json.") from error
    leaves = dict(flat(content)) if isinstance(content, dict) else {}
    if not {key.lower() for key in leaves} & {"model", "celeba_features", "train_g", "latent_dim"}:
        raise Mismatch(
            f"{path} is not a configuration of homogan's.",
            "It has none of model, celeba_features, train_g and latent_dim.",
            "docs/homogan.md lists its keys.",
        )
    reading = Reading(preset_of(leaves))
    for key, value in leaves.items():
        read(reading, key, value)
    reading.remarks += [f"{key} stands twice; the last one counts, as in Python" for key in twice]
    return finished(reading), reading.remarks


def flat(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The innermost keys with their values."""
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        inner = isinstance(value, dict) and key.lower() != "celeba_features"
        found += flat(value) if inner else [(key, value)]
    return found


def preset_of(leaves: Mapping[str, Any]) -> Run:
    """The experiment whose networks `model` names; the last one, homogan-15, without.

    The repository's `src/models/model_14.py` is no experiment: its networks are those of 11, with noise of .5 in the generator
    and without the spectral norm of experiment 14.
    """
    name = next((str(value) for key, value in leaves.items() if key.lower() == "model"), "model_15")
    number = re.search(r"(\d{1,2})", name)
    preset = "homogan-16" if "noisy" in name else f"homogan-{int(number[1]):02d}" if number else ""
    if preset not in PRESETS:
        raise Mismatch(f"There is no model `{name[:40]}`.", "homogan has sixteen.", "Write model_01 to model_16.")
    if re.search(r"models?[./]model_?14$", name):
        return override(PRESETS["homogan-11"], {"recipe.generator_noise": 0.5})
    return PRESETS[preset]


def read(reading: Reading, key: str, value: Any) -> None:
    """Honour one key, or say why not. Raises Mismatch for a value that cannot be what the key says."""
    if CREDENTIAL.search(key):  # never shown, never kept
        reading.remarks.append(
            f"{key}: not read; credentials come from the environment or the Kaggle client's own file"
        )
        return
    reader = KEYS.get(key.lower())
    if reader is None:
        reading.note(key, value, "not known, and left out")
        return
    try:
        reader(reading, key, value)
    except (TypeError, ValueError, OverflowError, MienError) as error:
        why = error.what if isinstance(error, MienError) else str(error)
        raise Mismatch(f"{key} = {json.dumps(value)[:80]} is not possible.", f"{why}.", "Correct the file.") from error


def number(value: Any) -> int:
    """A whole number. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or int(value) != float(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def model(reading: Reading, key: str, value: Any) -> None:
    run = reading.run
    noise = getattr(run.recipe, "generator_noise", 0.0)
    noisy = f" with --recipe.generator-noise {noise}" if run.recipe != PRESETS[run.preset].recipe and noise else ""
    reading.note(key, value, f"the preset {run.preset}{noisy}")
    if noisy:
        reading.remarks.append("  its file has no spectral norm; experiment 14 of the README is the preset homogan-14")


def multilabelling(reading: Reading, key: str, value: Any) -> None:
    reading.note(key, value, "not read there either: how many labels the pack has says it")


def features(reading: Reading, key: str, value: Any) -> None:
    reading.note(key, value, "not needed: the network is as wide as the pack's labels are many")


def side(reading: Reading, key: str, value: Any) -> None:
    wanted = number(value)
    resized = [remark for remark in reading.remarks if remark.startswith("IMG_")]
    if resized and wanted != reading.run.side:
        reading.note(key, value, f"not possible: faces are square here, {reading.run.side} px each way")
        return
    reading.override(key, value, side=wanted)


def buffer(reading: Reading, key: str, value: Any) -> None:
    reading.note(key, value, "not needed: every epoch shuffles the whole pack; there it is fixed in the code at 3000")


def batch(reading: Reading, key: str, value: Any) -> None:
    reading.override(key, value, batch=number(value))


def folder(reading: Reading, key: str, value: Any) -> None:
    reading.source = str(value)
    reading.note(key, value, "the source of `mien data prepare`")


def chosen(reading: Reading, key: str, value: Any) -> None:
    """[NAME, value] is a filter, [NAME] a label."""
    items = value
    if isinstance(value, dict):
        items = [[name] if wanted is None else [name, wanted] for name, wanted in value.items()]
    for item in items:
        words = [item] if isinstance(item, str) else list(item)
        if len(words) not in (1, 2) or not isinstance(words[0], str) or not re.fullmatch(r"\w{1,64}", words[0]):
            raise ValueError(f"{item!r} is neither [NAME] nor [NAME, value]")
        if len(words) == 2:
            reading.where[words[0]] = max(0, number(words[1]))  # CelebA's -1 is no
        else:
            reading.labels.append(words[0])
    reading.note(key, value, "--labels and --where of `mien data prepare`")
    if "No_Beard" in reading.labels:
        reading.remarks.append("  No_Beard is the opposite of a beard; Beard=!No_Beard would be one (homogan-15-fixed)")


def images(reading: Reading, key: str, value: Any) -> None:
    reading.limit = number(value)
    reading.note(key, value, "--limit of `mien data prepare`; there it is not read")


def latent(reading: Reading, key: str, value: Any) -> None:
    reading.override(key, value, model__latent=number(value))


def noise(reading: Reading, key: str, value: Any) -> None:
    reading.note(key, value, "the same as latent_dim, which counts")


def first_epoch(reading: Reading, key: str, value: Any) -> None:
    more = "" if number(value) == 0 else ": a run goes on where its newest checkpoint stands"
    reading.note(key, value, f"not needed: the same command again resumes{more}")


def epochs(reading: Reading, key: str, value: Any) -> None:
    reading.epochs = number(value)
    reading.note(key, value, "--images: epochs times the pack's images")


def train_g(reading: Reading, key: str, value: Any) -> None:
    reading.override(key, value, recipe__generator_steps=number(value), recipe__generator_schedule="interval")
    reading.remarks.append(
        "  as its code does: one move in so many batches. Its description says so many moves a batch: per-step"
    )


def train_d(reading: Reading, key: str, value: Any) -> None:
    if number(value) == 1:
        reading.note(key, value, "the critic moves in every batch, as it does here")
    else:
        reading.override(key, value, recipe__critic_interval=number(value))


def photo_noise(reading: Reading, key: str, value: Any) -> None:
    reading.note(key, value, "not honoured: noise on photographs; there its call is commented out")


KEYS: Mapping[str, Callable[[Reading, str, Any], None]] = {
    "model": model,
    "multilabelling": multilabelling,
    "features": features,
    "noise_dim": noise,
    "img_height": side,
    "img_width": side,
    "buffer_size": buffer,
    "batch_size": batch,
    "dataset_folder": folder,
    "celeba_features": chosen,
    "num_img_training": images,
    "latent_dim": latent,
    "start_epoch": first_epoch,
    "epochs": epochs,
    "train_g": train_g,
    "train_d": train_d,
    "img_noise_mode": photo_noise,
}


def finished(reading: Reading) -> Run:
    """The run, with the command that prepares its data."""
    run = reading.run
    if reading.epochs is not None:
        length = reading.limit or (9_091 if run.preset in ("homogan-15", "homogan-16") else 10_000)
        run = override(run, {"images": max(1, reading.epochs * length)})
    if reading.labels and not run.conditional:
        reading.remarks.append(f"  {run.preset} is not label-conditional: the labels of the pack are not used")
    flags = f"--size {run.side} --crop squash --resampler nearest"
    flags += f" --labels {','.join(reading.labels)}" if reading.labels else ""
    flags += f" --where {','.join(f'{name}={value}' for name, value in reading.where.items())}" if reading.where else ""
    flags += f" --limit {reading.limit}" if reading.limit else ""
    return replace(run, prepare=(f"mien data prepare {quoted(reading.source)} homogan.pack {flags}",))


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    return word if re.fullmatch(r"[\w./@-]+", word) else "'" + word.replace("'", "'\\''") + "'"
