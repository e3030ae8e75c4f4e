"""The models and runs that the explorer shows, by id. An id is looked up, never joined to a path."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mien.core.contracts import JSON, Model
from mien.core.families import FlowModel, Invertible, ResolutionFreeModel, StyleModel
from mien.core.run import Device, Precision
from mien.errors import DataError, MienError, Mismatch, Untrusted
from mien.nn.priors import Normal, Uniform
from mien.presets import check_code
from mien.report.run_reader import sample_grids
from mien.sampling import bundled
from mien.sampling.directions import Direction
from mien.sampling.order import quality_order
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory, read_json

FRESH = 1.0  # seconds between two readings of the disk
LOADED = 6  # models in memory, at most
LOADED_BYTES = 2 << 30  # of their weights, at most, beside the one in use
DEFAULTS = (Path("runs"), Path("demo/run"))


@dataclass(frozen=True)
class ModelEntry:
    """A file that faces can be drawn from."""

    id: str  # the beginning of its SHA-256
    file: Path
    seen: int | None = None
    run: str | None = None

    @property
    def name(self) -> str:
        """What it is called without a run: its file, or the folder of a `model.safetensors`."""
        return self.file.resolve().parent.name if self.file.name == bundled.MODEL else self.file.stem


@dataclass(frozen=True)
class RunEntry:
    """A run's directory."""

    id: str
    path: Path
    models: tuple[ModelEntry, ...]  # newest first

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.resolve().name if self.path.name != "run" else "the demo"

    @property
    def home(self) -> RunDirectory:
        """Its files."""
        return RunDirectory(self.path)


@dataclass
class Registry:
    """The models and runs on the disk, read again at most once a second, so that new checkpoints appear."""

    paths: Sequence[
        Path
    ]  # runs, checkpoints, files, or folders of runs; none = the usual places, and the bundled models
    code: Path | None = None
    device: Device = "auto"
    precision: Precision = "fp32"
    runs: dict[str, RunEntry] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    refused: dict[Path, MienError] = field(default_factory=dict)  # what was named and holds no model, and why
    others: frozenset[Path] | None = None  # runs of other processes, where this server has begun one beside them
    _checked: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read_at: float = float("-inf")
    _loaded: OrderedDict[str, Sampler] = field(default_factory=OrderedDict)
    _hashes: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def expect_run(self) -> None:
        """Show runs that begin in the usual place from now on: this server starts one, also where it was told to show others."""
        if self.others is None:
            self.others = frozenset(inner_runs(DEFAULTS[0]))

    def refresh(self, now: bool = False) -> None:
        """Read the disk again, if the last reading is older than a second, or older than this call where it is `now`."""
        called = time.monotonic()
        with self._lock:  # one reading for all who wait for it
            if self._read_at < (called if now else called - FRESH):
                self._read_disk()

    def _read_disk(self) -> None:
        self.refused.clear()
        runs: dict[str, RunEntry] = {}
        models: dict[str, ModelEntry] = {}
        for path in self._places():
            if (path / "run.json").is_file():
                run = self._run(path)
                runs[run.id] = run
                for model in run.models:
                    models.setdefault(model.id, model)
            else:
                try:
                    file = checkpoint.find_model(path)
                    if self._hash(file) not in self._checked:
                        checkpoint.read_header(file)
                        self._checked.add(self._hash(file))
                except (DataError, Untrusted) as error:
                    self.refused[path] = error
                    continue
                models.setdefault(self._hash(file)[:16], ModelEntry(self._hash(file)[:16], file))
        self.runs, self.models = runs, models
        self._read_at = time.monotonic()

    def _places(self) -> Iterator[Path]:
        """Every run and file that was named, folders of runs opened, newest first; the bundled models where nothing was named."""
        for path in self.paths or DEFAULTS:
            if path.is_file() or any((path / name).exists() for name in ("run.json", "model.safetensors")):
                yield path
            else:
                yield from inner_runs(path)
        if not self.paths:
            yield from (bundled.FOLDER / name for name in bundled.names())
        elif self.others is not None:
            yield from (path for path in inner_runs(DEFAULTS[0]) if path not in self.others)

    def _run(self, path: Path) -> RunEntry:
        name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=6).hexdigest()
        models = []
        for place in checkpoint.all_of(path / "checkpoints"):
            file = place / "model.safetensors"
            try:
                manifest = read_json(place / "MANIFEST.json") or {}
                sha256 = str(manifest["files"]["model.safetensors"]["sha256"])
                if file.is_file():
                    models.append(ModelEntry(sha256[:16], file, int(place.name), name))
            except (KeyError, TypeError, OSError):  # half removed, or damaged: the run's own checks will say so
                continue
        return RunEntry(name, path, tuple(models))

    def _hash(self, file: Path) -> str:
        status = file.stat()
        key = (file, status.st_mtime_ns, status.st_size)
        if key not in self._hashes:
            self._hashes[key] = checkpoint.file_hash(file)
        return self._hashes[key]

    def model(self, id: str) -> ModelEntry:
        """The model of an id. Raises DataError for an unknown one."""
        self.refresh(now=id not in self.models)
        if id not in self.models:
            raise DataError(
                "There is no such model here.",
                "Runs keep their newest checkpoints; this one may have gone.",
                "Choose another from the list.",
            )
        return self.models[id]

    def run(self, id: str) -> RunEntry:
        """The run of an id. Raises DataError for an unknown one."""
        self.refresh()
        if id not in self.runs:
            raise DataError("There is no such run here.", "It may have been moved.", "Choose another from the list.")
        return self.runs[id]

    def first(self) -> str | None:
        """The model that a page shows by default."""
        self.refresh()
        of_runs = [model.id for run in self.runs.values() for model in run.models]
        return next(iter([*of_runs, *self.models]), None)

    def reload(self, id: str) -> None:
        """Read a model again when it is next used: its directions have changed."""
        self._loaded.pop(id, None)

    def in_memory(self, id: str) -> Sampler | None:
        """The model of an id, if it need not be loaded."""
        return self._loaded.get(id)

    def sampler(self, id: str) -> Sampler:
        """The model of an id, in memory. Raises DataError, Untrusted or Mismatch when it cannot be had."""
        if id in self._loaded:
            self._loaded.move_to_end(id)
            return self._loaded[id]
        entry = self.model(id)
        sampler = Sampler.load(entry.file, device=self.device, precision=self.precision, code=self.code)
        if not sampler.model_hash.startswith(id):
            raise Mismatch(
                "This model has changed on the disk.", "Its checksum is another.", "Reload the list of models."
            )
        self._loaded[id] = sampler
        while len(self._loaded) > LOADED or (
            len(self._loaded) > 1 and sum(map(weight, self._loaded.values())) > LOADED_BYTES
        ):
            self._loaded.popitem(last=False)
        return sampler


def open_registry(
    paths: Sequence[str | Path], code: Path | None = None, device: Device = "auto", precision: Precision = "fp32"
) -> Registry:
    """The registry of what a user names. Raises DataError or Untrusted where that holds no model."""
    check_code(code)
    runs = [bundled.locate(path) for path in paths]
    for path in runs:
        if not path.exists():
            raise DataError(
                f"There is no {path}.", "It is neither a run, a checkpoint nor a file.", "Check the spelling."
            )
    registry = Registry(runs, code, device, precision)
    registry.refresh()
    for path in runs:
        error = registry.refused.get(path)
        if isinstance(error, Untrusted) or (error and not registry.models and not registry.runs):
            raise error
    if runs and not registry.models and not registry.runs:
        raise DataError(
            f"{', '.join(map(str, runs))} holds no model.",
            "It has neither a run nor a valid model file.",
            "Name a run, or leave it out.",
        )
    return registry


def inner_runs(folder: Path) -> list[Path]:
    """The runs in a folder, newest first."""
    inner = [place for place in folder.iterdir() if (place / "run.json").is_file()] if folder.is_dir() else []
    return sorted(inner, key=lambda place: place.name, reverse=True)


def weight(sampler: Sampler) -> int:
    """Bytes of a model's numbers."""
    return sum(t.numel() * t.element_size() for t in (*sampler.model.parameters(), *sampler.model.buffers()))


def overview(registry: Registry) -> JSON:
    """What there is to choose from: runs with their checkpoints, and single files."""
    registry.refresh()
    runs = []
    for run in registry.runs.values():
        described, status = run.home.run_json or {}, run.home.status
        runs.append(
            {
                "id": run.id,
                "name": run.name,
                "preset": described.get("preset", ""),
                "side": described.get("side"),
                "state": status.get("state", "new"),
                "seen": status.get("seen", 0),
                "samples": len(sample_grids(run.path)),
                "checkpoints": [{"model": model.id, "seen": model.seen} for model in run.models],
            }
        )
    alone = [{"id": m.id, "name": m.name} for m in registry.models.values() if m.run is None]
    return {"runs": runs, "models": alone}


def capabilities(entry: ModelEntry, sampler: Sampler, run: RunEntry | None) -> JSON:
    """What a model is, and what it supports."""
    model, header = sampler.model, sampler.header
    directions = latent_directions(sampler)
    kind = {Normal: "normal", Uniform: "uniform"}.get(type(model.prior), "other")
    return {
        "id": entry.id,
        "sha256": sampler.model_hash,
        "name": run.name if run else entry.name,
        "run": entry.run,
        "seen": entry.seen,
        "preset": header.get("preset", ""),
        "side": sampler.image_spec.side,
        "channels": sampler.image_spec.channels,
        "latent": list(model.latent_shape),
        "prior": kind,
        "labels": list(sampler.label_names) if model.label_dim else [],
        "directions": [{"name": d.name, "note": note(d.facts)} for d in directions],
        "gram": gram_matrix(directions),
        "order": quality_order(sampler),
        "encodes": isinstance(model, Invertible) and sampler.encoding_space == "latent",
        "inverts": not sampler.header.get("labels"),
        "scalable": isinstance(model, ResolutionFreeModel),
        "styles": model.style_count if isinstance(model, StyleModel) else 0,
        "flow": flow_of(model),
        "guidance": model.guidance if model.label_dim else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": {"count": header.get("data", {}).get("count")},
    }


def flow_of(model: Model) -> JSON | None:
    """The solver settings of a flow; None for any other model."""
    if not isinstance(model, FlowModel):
        return None
    how = model.solution
    return {"method": how.method, "steps": how.steps, "tolerance": how.tolerance}


def latent_directions(sampler: Sampler) -> list[Direction]:
    """The named steps that this model's latents can take; none where those on the disk are another model's."""
    try:
        return [d for d in sampler.directions.all if d.space == "latent"]
    except MienError:
        return []


def gram_matrix(directions: Sequence[Direction]) -> list[list[float]]:
    """The dot products of directions with each other, by which a page keeps some of them still."""
    if not directions:
        return []
    flat = torch.stack([d.vector.double().flatten() for d in directions])
    return [[round(value, 6) for value in row] for row in (flat @ flat.T).tolist()]


def note(header: JSON) -> str:
    """How a direction was found, in words."""
    if header.get("found") == "labels":
        return f"Found on {header.get('with')} faces with the label and {header.get('without')} without."
    if header.get("found") == "measures":
        return (
            f"Measured on {header.get('faces')} faces; correlation {float(header.get('correlation', 0)):.2f} on unseen ones. "
            f"Of all else, {header.get('leaks_to')} changes most: {float(header.get('leak', 0)):.2f}."
        )
    if header.get("found") == "named":
        return "Named in the explorer: " + ", ".join(
            f"{amount:+g} {name}" for name, amount in dict(header["of"]).items()
        )
    return f"Found without labels; {100 * float(header.get('share', 0)):.0f} % of how much pictures change."
