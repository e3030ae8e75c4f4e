"""The models that come with mien, and where any model lies that a user names.

A bundled model is a folder `bundled_models/NAME` beside this file: `model.safetensors` and `critic.safetensors` in half precision,
MODEL_CARD.md, `sheet.png`, and `extras/` with its directions and its quality order. A model in the working directory that has the
same name wins; any other file or folder of that name does not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from mien.core.contracts import JSON
from mien.downloads import hub
from mien.errors import DataError, did_you_mean
from mien.storage import checkpoint

FOLDER = Path(__file__).parent / "bundled_models"
MODEL = "model.safetensors"
CRITIC = "critic.safetensors"  # helper networks of the recipe, named as in its state_dict: `critic.last.weight`
CARD = "MODEL_CARD.md"
SHEET = "sheet.png"  # seeds 0 to 63, none left out


@dataclass(frozen=True, eq=False)
class Critic:
    """The helper networks that a model was trained with."""

    tensors: Mapping[str, Tensor]  # as in the recipe's state_dict, without those of the model
    header: JSON  # recipe (its configuration), model_sha256


def names() -> tuple[str, ...]:
    """The names of the bundled models, photographs first: the explorer opens with the first."""
    return tuple(
        sorted((file.parent.name for file in FOLDER.glob(f"*/{MODEL}")), key=lambda name: (name != "faces", name))
    )


def locate(model: str | Path) -> Path:
    """The path of a model that a user names: `hf://OWNER/NAME` is downloaded, a bundled model's name is its folder.

    Raises DataError for one word that is neither a bundled model nor a path.
    """
    name = str(model)
    if name.startswith("hf:/"):  # as a Path, hf:// has one slash
        return hub.fetch(f"{hub.SCHEME}{name.removeprefix('hf:').lstrip('/')}")
    path, known = Path(model), names()
    if name in known:
        if not (path.is_file() or any((path / part).exists() for part in ("run.json", MODEL))):
            return FOLDER / name
        _warn_of_shadow(path)
    elif len(path.parts) == 1 and not path.exists():
        what = "A model is a run, a checkpoint or a file" + (f", or {' or '.join(known)}." if known else ".")
        raise DataError(
            f"{name} does not exist.",
            what,
            f"Check the path. {did_you_mean(name, known)}" if known else "Check the path.",
        )
    return path


def model_file(model: str | Path) -> Path:
    """The `model.safetensors` of a run, a checkpoint, a file, `hf://OWNER/NAME` or a bundled model's name.

    Raises DataError if there is none.
    """
    return checkpoint.find_model(locate(model))


def critic_file(model: Path) -> Path | None:
    """The file beside a `model.safetensors` with its recipe's helper networks, or None: only bundled models have one."""
    file = model.with_name(CRITIC)
    return file if file.is_file() else None


def read_critic(file: Path) -> Critic:
    """Read a critic's file, widened to float32. Raises Untrusted for any other file."""
    tensors, header = checkpoint.read_model(file, recipe=dict, model_sha256=str)
    return Critic(tensors, header)


def card_of(model: Path) -> str | None:
    """The card of a bundled model's file; None for any other file."""
    ours = model.resolve().parent.parent == FOLDER.resolve() and model.with_name(CARD).is_file()
    return model.with_name(CARD).read_text(encoding="utf-8") if ours else None


@cache
def _warn_of_shadow(path: Path) -> None:
    print(f"mien: {path} is the model in this folder, not the bundled one", file=sys.stderr)
