"""Checkpoints: all that a run needs to continue and all that sampling needs, written atomically.

A checkpoint is a directory named by the number of images seen. It is written under a temporary name: every file is fsynced,
MANIFEST.json with sizes and SHA-256 comes last, then the directory is renamed. Only then is LATEST updated, and only then are
old checkpoints deleted. The newest directory with a valid manifest is the state of the run. LATEST is a hint for people.
A damaged checkpoint is renamed, never deleted. In a run with evaluation, BEST names the checkpoint with the best score,
which is never pruned.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mien.core.contracts import JSON
from mien.errors import DataError, Mismatch, Untrusted
from mien.storage import atomic, bounded_json
from mien.storage.regular_file import NotRegular, open_regular, read_own
from mien.storage.tensor_file import open_tensors

FORMAT = 1
KEEP = 3  # checkpoints that are not pruned


@dataclass(frozen=True)
class Snapshot:
    """The complete state of a run between two steps."""

    seen: int
    model: bytes  # model.safetensors
    state: bytes  # state.safetensors
    counters: JSON  # state.json


def pack_tensors(tensors: Mapping[str, Tensor], header: JSON | None = None) -> bytes:
    """Tensors as safetensors, equal bytes for equal tensors; `header` becomes the one metadata entry, `mien`."""
    metadata = {"mien": json.dumps(header, sort_keys=True)} if header is not None else None
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def commit(directory: Path, snapshot: Snapshot, fingerprints: JSON, keep: int = KEEP) -> Path:
    """Write a checkpoint and prune old ones. Returns its directory; the previous ones are untouched if anything fails."""
    directory.mkdir(
        exist_ok=True
    )  # no parents: a run that was deleted while it trains must not come back as a fragment
    target = directory / f"{snapshot.seen:010d}"
    if target.exists():
        if verify(target) is None:
            return target  # a resumed run passes the step from which another process had saved
        set_aside(target)
    beside = directory / f".tmp-{snapshot.seen}-{uuid.uuid4().hex[:8]}"
    beside.mkdir()
    try:
        files = {
            "model.safetensors": snapshot.model,
            "state.safetensors": snapshot.state,
            "state.json": json.dumps(snapshot.counters, sort_keys=True, indent=1).encode(),
        }
        listed = {}
        for name, content in files.items():
            atomic.create_bytes(beside / name, content)
            listed[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = {"format": FORMAT, "seen": snapshot.seen, **fingerprints, "files": listed}
        sealed = {**manifest, "seal": seal(manifest)}
        atomic.create_bytes(beside / "MANIFEST.json", json.dumps(sealed, sort_keys=True, indent=1).encode())
        atomic.fsync_directory(beside)
        atomic.rename(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    atomic.fsync_directory(directory)
    atomic.replace_text(directory / "LATEST", f"{target.name}\n")
    prune(directory, keep)
    return target


def point_latest(checkpoint: Path) -> None:
    """Let LATEST name this checkpoint, on resume: a kill between two renames leaves an old name there."""
    latest = checkpoint.parent / "LATEST"
    with contextlib.suppress(OSError):
        if read_own(latest, 1 << 16).strip() == checkpoint.name.encode():
            return
    atomic.replace_text(latest, f"{checkpoint.name}\n")


def seal(manifest: JSON) -> str:
    """The SHA-256 of a manifest without its `seal` field, which detects damage to the manifest itself."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verify(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is valid. Reads every byte."""
    try:
        manifest = bounded_json.read_object(checkpoint / "MANIFEST.json", seal=str, seen=int, format=int, files=dict)
        if manifest["seal"] != seal(manifest):
            return "its manifest fails its checksum"
        if checkpoint.name.isdecimal() and int(checkpoint.name) != manifest["seen"]:
            return f"its manifest says {manifest['seen']} images"
        files = manifest["files"].items()
        if manifest["format"] > FORMAT:
            raise Mismatch(
                f"{checkpoint} has format {manifest['format']}.",
                f"This version of mien reads up to {FORMAT}.",
                "Install the newer version that wrote it.",
            )
        for name, expected in files:
            path = checkpoint / Path(name).name
            if path.stat().st_size != expected["size"]:
                return f"{name} is {path.stat().st_size} bytes, not {expected['size']}"
            with open_regular(path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} fails its checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest or a file cannot be read ({type(error).__name__})"
    return None


def all_of(directory: Path) -> list[Path]:
    """The checkpoints of a run, newest first, ordered by images seen and never by the clock."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if p.is_dir() and p.name.isdecimal()), key=lambda p: -int(p.name))


def newest(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint or None, and one line for each damaged checkpoint that was renamed."""
    reports: list[str] = []
    for checkpoint in all_of(directory):
        fault = verify(checkpoint)
        if fault is None:
            return checkpoint, reports
        aside = set_aside(checkpoint)
        reports.append(f"checkpoint {checkpoint.name}: {fault}; set aside as {aside.name}")
    return None, reports


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither used nor lost."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}-{uuid.uuid4().hex[:6]}")
    checkpoint.rename(aside)
    return aside


def clean(directory: Path) -> None:
    """Delete temporary files and directories of killed processes. Only the holder of the run's lock may call this."""
    if directory.is_dir():
        for orphan in directory.glob(".*tmp*"):
            if orphan.is_dir():
                shutil.rmtree(orphan, ignore_errors=True)
            else:
                orphan.unlink(missing_ok=True)


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, the best one, the milestones, and those that contain a file named KEEP.

    A read or delete that fails is ignored: it only costs disk space.
    """
    try:
        best = read_best(directory).get("seen")
    except OSError:
        return
    found = all_of(directory)
    spared = {best, *milestones(int(path.name) for path in found)}
    for old in found[keep:]:
        if int(old.name) not in spared and not (old / "KEEP").exists():
            shutil.rmtree(old, ignore_errors=True)


def milestones(seen: Iterable[int]) -> set[int]:
    """The first of some numbers of images in each interval from a power of 4 to the next.

    They show a whole run, in which most is learned early: six at most while the images seen become a thousand times as many.
    The first of an interval stays the first, so that later checkpoints never displace it.
    """
    first: dict[int, int] = {}
    for number in sorted(seen):
        first.setdefault((number.bit_length() - 1) // 2, number)
    return set(first.values())


def read_best(directory: Path) -> JSON:
    """The content of BEST: `seen`, `metric`, `name` and `value` of the best score; empty if there is none."""
    try:
        return bounded_json.read_object(directory / "BEST", 1 << 16, seen=int)
    except (FileNotFoundError, NotRegular, ValueError):
        return {}


def write_best(directory: Path, best: JSON | None) -> None:
    """Let BEST name another checkpoint (atomically), or delete it."""
    if best is None:
        (directory / "BEST").unlink(missing_ok=True)
    elif best != read_best(directory):
        atomic.replace_text(directory / "BEST", json.dumps(best) + "\n")


def follow(path: Path) -> Path:
    """The checkpoint that `checkpoints/BEST` or `checkpoints/LATEST` names; any other path unchanged.

    Raises DataError if the checkpoint does not exist.
    """
    if path.name not in ("BEST", "LATEST") or path.is_dir():
        return path
    try:
        text = bounded_json.read_bytes(path, 1 << 16).decode().strip()
        named = path.parent / (f"{read_best(path.parent)['seen']:010d}" if path.name == "BEST" else Path(text).name)
    except (OSError, ValueError, KeyError):
        named = path
    if not named.is_dir():
        raise DataError(
            f"{path} does not name a checkpoint.",
            "BEST is written by runs with evaluation: `mien train --evaluate-every N`."
            if path.name == "BEST"
            else "LATEST is written with the first checkpoint.",
            "Give the run directory, or a checkpoint inside it.",
        )
    return named


def read_state(checkpoint: Path) -> tuple[dict[str, Tensor], JSON]:
    """The tensors and counters of a checkpoint. Raises Untrusted if it is damaged."""
    fault = verify(checkpoint)
    if fault is not None:
        raise Untrusted(
            f"{checkpoint} is damaged.", f"{fault}.", "Resume without a path: the newest valid checkpoint is used."
        )
    return load((checkpoint / "state.safetensors").read_bytes()), bounded_json.read_object(checkpoint / "state.json")


def read_header(path: Path, **fields: type) -> JSON:
    """The header of a `model.safetensors`, without its tensors. Raises Untrusted for any other file.

    `fields` replace those that a model's header must have, with their types.
    """
    try:
        with open_tensors(path) as file:
            header = bounded_json.loads_object((file.metadata() or {})["mien"])
            bounded_json.require(header, **(fields or {"config": dict, "faces": dict}))
            return header if fields else checked(header)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise not_a_model(path, error) from error


#: What a model's header may hold besides, of its data, and of how its data were cropped.
OPTIONAL: dict[str, type] = {"preset": str, "parent": str, "run_fingerprint": str, "recipe": dict, "data": dict, "labels": list,
                             "label_rows": list}  # fmt: skip
OF_DATA: dict[str, type] = {"fingerprint": str, "count": int, "framing": dict}
OF_FRAMING: dict[str, type] = {"crop": str, "resampler": str, "eye_distance": float, "eye_height": float}


def checked(header: JSON) -> JSON:
    """A model's header whose optional fields have their types. Raises InvalidJSON."""
    data = header.get("data", {})
    for found, shape in ((header, OPTIONAL), (data, OF_DATA)):
        bounded_json.require(found, **{name: kind for name, kind in shape.items() if name in found})
    framing = data.get("framing", {})
    bounded_json.require(framing, **{name: kind for name, kind in OF_FRAMING.items() if name in framing})
    if not all(isinstance(name, str) for name in header.get("labels", ())):
        raise bounded_json.InvalidJSON("`labels` are not all strings")
    rows = header.get("label_rows", ())
    if not all(isinstance(row, list) and all(isinstance(v, int | float | None) for v in row) for row in rows):
        raise bounded_json.InvalidJSON("`label_rows` are not all rows of numbers")
    return header


def not_a_model(path: Path, error: Exception) -> Untrusted:
    """The error for a file that mien did not write."""
    return Untrusted(
        f"{path} is not a model file of mien.",
        f"Its tensors or header cannot be read ({type(error).__name__}: {error}).",
        "Give a run directory, a checkpoint inside one, or a model.safetensors that mien wrote.",
    )


def read_model(path: Path, **fields: type) -> tuple[dict[str, Tensor], JSON]:
    """The tensors and the header of a `model.safetensors`; numbers of half precision are widened to float32 here.

    `fields` are as in `read_header`. Raises Untrusted for any other file, and for NaN or infinity.
    """
    header = read_header(path, **fields)
    try:
        with open_tensors(path) as file:
            tensors = {name: widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise not_a_model(path, error) from error
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise Untrusted(
            f"{path} contains NaN or infinity.", f"The first such tensor is {bad[0]}.", "Use an earlier checkpoint."
        )
    return tensors, header


def widened(tensor: Tensor) -> Tensor:
    """The tensor, in float32 if it is of half precision, which is for files only."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal. Extras and metrics identify a model by it."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(path: Path) -> Path:
    """The `model.safetensors` of a run directory, a checkpoint, or the file itself. Raises DataError if there is none.

    `RUN/checkpoints/BEST` means the checkpoint that it names.
    """
    path = follow(path)
    if path.is_file():
        return path
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    for checkpoint in all_of(path / "checkpoints"):
        fault = verify(checkpoint)
        if fault is None:
            return checkpoint / "model.safetensors"
    if not path.exists():
        raise DataError(f"{path} does not exist.", "A model is a run, a checkpoint or a file.", "Check the path.")
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder.", "It holds no model.", "Check the path.")
    raise DataError(
        f"{path} contains no model.",
        "It has no valid checkpoint (yet).",
        "Wait for the first checkpoint of the run, or give another run.",
    )


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of `path`, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(os.fspath(path)).free
