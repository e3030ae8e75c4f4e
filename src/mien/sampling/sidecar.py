"""Sidecar files of a model, fitted after its training: `extras/NAME.safetensors`, in its run or beside its file.

An extra is bound to the SHA-256 of the model's file: training on makes another model, for which it does not hold. Extras of a
bundled model are in the package, which is read-only; newer ones are written to the cache and take precedence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mien.core.contracts import JSON
from mien.downloads import weights
from mien.errors import Mismatch, StorageError, Untrusted
from mien.sampling import bundled
from mien.storage import atomic, bounded_json, checkpoint
from mien.storage.run_directory import check_folders
from mien.storage.tensor_file import open_tensors


@dataclass(frozen=True, eq=False)
class Extra:
    """Tensors with a header."""

    tensors: Mapping[str, Tensor]
    header: JSON  # kind, model_sha256, again (the command that makes it), and the kind's own fields


def folder_of(model_file: Path) -> Path:
    """The folder of a model's extras: in its run, or beside the file."""
    parents = model_file.resolve().parents
    run = next((place for place in parents[:3] if os.path.lexists(place / "run.json")), parents[0])
    return run / "extras"


def writable(folder: Path, model_sha256: str) -> Path:
    """The folder for new extras of a model: its own, or, for a bundled model, one in the cache."""
    if folder.parent.parent != bundled.FOLDER.resolve():
        return folder
    return weights.cache_folder() / "extras" / model_sha256[:16]


def path_of(folder: Path, name: str, model_sha256: str) -> Path:
    """The file of an extra, whether it exists or not; a newer one takes precedence over that of a bundled model."""
    file = f"{name}.safetensors"
    later = writable(folder, model_sha256) / file
    return later if later.is_file() else folder / file


def files_of(folder: Path, model_sha256: str) -> list[Path]:
    """The files of all extras of a model, by name."""
    found = {
        file.name: file for place in (folder, writable(folder, model_sha256)) for file in place.glob("*.safetensors")
    }
    return [found[name] for name in sorted(found)]


def write(
    folder: Path, name: str, kind: str, model_sha256: str, tensors: Mapping[str, Tensor], again: str, **fields: Any
) -> Path:
    """Write an extra; `again` is the command that makes it, with MODEL for the model.

    An existing one of another model is renamed with that model's hash, never overwritten.
    """
    folder = writable(folder, model_sha256)
    if (folder.parent / "run.json").is_file():
        check_folders(folder.parent)
    path = folder / f"{name}.safetensors"
    header = {"kind": kind, "model_sha256": model_sha256, "again": again, **fields}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _set_aside(path, model_sha256)
        atomic.write_bytes(path, checkpoint.pack_tensors(tensors, header))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written.", str(error), "Free space, or copy the model elsewhere."
        ) from error
    return path


def _set_aside(path: Path, model_sha256: str) -> None:
    try:
        other = str(parse(path).header.get("model_sha256"))
    except Untrusted:
        other = "damaged"
    if other != model_sha256:
        path.replace(path.with_name(f"{path.stem}-{other[:12]}.safetensors"))


def belongs(folder: Path, name: str, model_sha256: str) -> bool:
    """Whether an extra exists and belongs to this model."""
    path = path_of(folder, name, model_sha256)
    return path.is_file() and parse(path).header.get("model_sha256") == model_sha256


def read(folder: Path, name: str, kind: str, model_sha256: str) -> Extra | None:
    """An extra of this model, or None where there is no such file.

    Raises Untrusted for a damaged file, Mismatch for one that belongs to another model.
    """
    path = path_of(folder, name, model_sha256)
    if not path.is_file():
        return None
    extra = parse(path)
    if extra.header.get("kind") != kind:
        raise Mismatch(
            f"{path} holds no {kind}.", f"It says that it holds {extra.header.get('kind')}.", "Remove it, or rename it."
        )
    if extra.header.get("model_sha256") != model_sha256:
        raise Mismatch(
            f"{path} belongs to another model.",
            f"It was learned for {str(extra.header.get('model_sha256'))[:12]}, this one is {model_sha256[:12]}: "
            "training on, or another checkpoint, makes another model.",
            f"Make it again: {extra.header.get('again', 'mien directions MODEL')}",
        )
    return extra


def parse(path: Path) -> Extra:
    """The tensors and header of a file that mien wrote. Raises Untrusted for any other."""
    try:
        with open_tensors(path) as file:
            header = bounded_json.loads_object((file.metadata() or {})["mien"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("it holds numbers that are not finite")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise Untrusted(
            f"{path} cannot be read.", f"{type(error).__name__}: {error}.", "Remove it, and make it again."
        ) from error
    return Extra(tensors, header)
