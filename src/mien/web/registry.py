"""The models and runs that the explorer shows, by id. An id is looked up, never joined to a path."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mien.core.contracts import JSON, Model
from mien.core.families import FlowModel, Invertible, ResolutionFreeModel, StyleModel
from mien.core.run import Device, Precision
from mien.errors import DataError, MienError, Mismatch
from mien.nn.priors import Normal, Uniform
from mien.report.run_reader import sample_grids
from mien.sampling.directions import Direction
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.storage.run_directory import RunDirectory, read_json

FRESH = 1.0  # seconds between two looks at the disk
LOADED = 6  # models in memory, at most
LOADED_BYTES = 2 << 30  # of their weights, at most, beside the one in use
DEFAULTS = (Path("runs"), Path("demo/run"))


@dataclass(frozen=True)
class ShownModel:
    """A file that faces can be drawn from."""

    id: str  # the beginning of its SHA-256
    file: Path
    seen: int | None = None
    run: str | None = None


@dataclass(frozen=True)
class ShownRun:
    """A run's directory."""

    id: str
    path: Path
    models: tuple[ShownModel, ...]  # newest first

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
    """What there is, looked up anew at most once a second, so that a training run's new checkpoints appear."""

    paths: Sequence[Path]  # runs, checkpoints, files, or folders of runs; none = the usual places
    code: Path | None = None
    device: Device = "auto"
    precision: Precision = "fp32"
    runs: dict[str, ShownRun] = field(default_factory=dict)
    models: dict[str, ShownModel] = field(default_factory=dict)
    _looked: float = float("-inf")
    _loaded: OrderedDict[str, Sampler] = field(default_factory=OrderedDict)
    _hashes: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def refresh(self, now: bool = False) -> None:
        """Look at the disk, if the last look was a while ago."""
        if not now and time.monotonic() - self._looked < FRESH:
            return
        runs: dict[str, ShownRun] = {}
        models: dict[str, ShownModel] = {}
        for path in self._places():
            if (path / "run.json").is_file():
                run = self._run(path)
                runs[run.id] = run
                for model in run.models:
                    models.setdefault(model.id, model)
            else:
                try:
                    file = checkpoint.find_model(path)
                except DataError:
                    continue
                models.setdefault(self._hash(file)[:16], ShownModel(self._hash(file)[:16], file))
        self.runs, self.models = runs, models
        self._looked = time.monotonic()

    def _places(self) -> Iterator[Path]:
        """Every run and file that was named, folders of runs opened; newest first where nothing was named."""
        for path in self.paths or DEFAULTS:
            if path.is_file() or any((path / name).exists() for name in ("run.json", "model.safetensors")):
                yield path
            elif path.is_dir():
                inner = [place for place in path.iterdir() if (place / "run.json").is_file()]
                yield from sorted(inner, key=lambda place: place.name, reverse=True)

    def _run(self, path: Path) -> ShownRun:
        name = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
        models = []
        for place in checkpoint.all_of(path / "checkpoints"):
            file = place / "model.safetensors"
            try:
                manifest = read_json(place / "MANIFEST.json") or {}
                sha256 = str(manifest["files"]["model.safetensors"]["sha256"])
                if file.is_file():
                    models.append(ShownModel(sha256[:16], file, int(place.name), name))
            except (KeyError, TypeError, OSError):  # half removed, or damaged: the run's own checks will say so
                continue
        return ShownRun(name, path, tuple(models))

    def _hash(self, file: Path) -> str:
        status = file.stat()
        key = (file, status.st_mtime_ns, status.st_size)
        if key not in self._hashes:
            self._hashes[key] = checkpoint.file_hash(file)
        return self._hashes[key]

    def model(self, id: str) -> ShownModel:
        """The model of an id. Raises DataError for an unknown one."""
        self.refresh(now=id not in self.models)
        if id not in self.models:
            raise DataError(
                "There is no such model here.",
                "Runs keep their newest checkpoints; this one may have gone.",
                "Choose another from the list.",
            )
        return self.models[id]

    def run(self, id: str) -> ShownRun:
        """The run of an id. Raises DataError for an unknown one."""
        self.refresh()
        if id not in self.runs:
            raise DataError("There is no such run here.", "It may have been moved.", "Choose another from the list.")
        return self.runs[id]

    def first(self) -> str | None:
        """The model that a page shows when it is told no other."""
        self.refresh()
        of_runs = [model.id for run in self.runs.values() for model in run.models]
        return next(iter([*of_runs, *self.models]), None)

    def in_memory(self, id: str) -> Sampler | None:
        """The model of an id, if it need not be loaded."""
        return self._loaded.get(id)

    def sampler(self, id: str) -> Sampler:
        """The model of an id, in memory. Raises DataError, Untrusted or Mismatch when it cannot be had."""
        if id in self._loaded:
            self._loaded.move_to_end(id)
            return self._loaded[id]
        shown = self.model(id)
        sampler = Sampler.load(shown.file, device=self.device, precision=self.precision, code=self.code)
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
    alone = [{"id": m.id, "name": m.file.stem} for m in registry.models.values() if m.run is None]
    return {"runs": runs, "models": alone}


def abilities(shown: ShownModel, sampler: Sampler, run: ShownRun | None) -> JSON:
    """What a model is, and what it can be asked for."""
    model, header = sampler.model, sampler.header
    directions = steps_of(sampler)
    kind = {Normal: "normal", Uniform: "uniform"}.get(type(model.prior), "other")
    return {
        "id": shown.id,
        "sha256": sampler.model_hash,
        "name": run.name if run else shown.file.stem,
        "run": shown.run,
        "seen": shown.seen,
        "preset": header.get("preset", ""),
        "side": sampler.image_spec.side,
        "channels": sampler.image_spec.channels,
        "latent": list(model.latent_shape),
        "prior": kind,
        "labels": list(sampler.label_names) if model.label_dim else [],
        "directions": [{"name": d.name, "note": note(d.told)} for d in directions],
        "gram": products(directions),
        "encodes": isinstance(model, Invertible) and sampler.encoding_space == "latent",
        "inverts": not sampler.header.get("labels"),
        "scalable": isinstance(model, ResolutionFreeModel),
        "styles": model.style_count if isinstance(model, StyleModel) else 0,
        "flow": flow_of(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": {"count": header.get("data", {}).get("count")},
    }


def flow_of(model: Model) -> JSON | None:
    """How a flow is followed when nothing else is said; None for any other model."""
    if not isinstance(model, FlowModel):
        return None
    how = model.solution
    return {"method": how.method, "steps": how.steps, "tolerance": how.tolerance, "guidance": model.guidance}


def steps_of(sampler: Sampler) -> list[Direction]:
    """The named steps that this model's latents can take; none where those on the disk are another model's."""
    try:
        return [d for d in sampler.directions.all if d.space == "latent"]
    except MienError:
        return []


def products(directions: Sequence[Direction]) -> list[list[float]]:
    """The dot products of directions with each other, by which a page keeps some of them still."""
    if not directions:
        return []
    flat = torch.stack([d.vector.double().flatten() for d in directions])
    return [[round(value, 6) for value in row] for row in (flat @ flat.T).tolist()]


def note(told: JSON) -> str:
    """How a direction was found, in words."""
    if told.get("found") == "labels":
        return f"Found on {told.get('with')} faces with the label and {told.get('without')} without."
    return f"Found without labels; {100 * float(told.get('share', 0)):.0f} % of how much pictures change."
