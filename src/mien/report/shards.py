"""Many faces as shards: WebDataset tar files or Parquet files of a fixed number of seeds, drawn by any number of processes.

A shard is the unit of work. Its bytes depend on the request alone, so every number of processes and every restart gives the
same files. A finished shard has a record in `.finished/` until the manifest, which is written last, holds all of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, overload

import filelock
import torch
from torch import Tensor

from mien.core.contracts import JSON
from mien.data.arrow import import_pyarrow
from mien.errors import Locked, Mismatch, UsageError
from mien.storage import atomic, bounded_json
from mien.storage.checkpoint import file_hash, pack_tensors

ShardFormat = Literal["tar", "parquet"]
ENTRY: dict[str, type] = {"url": str, "filesize": int, "sha256": str, "nsamples": int}  # of a finished shard
MANIFEST, REQUEST, FINISHED = "manifest.json", "request.json", ".finished"
MOST_BYTES = 1 << 28  # of a manifest: half a million shards


class Seeds(Sequence[int]):
    """Seeds as ranges, so that their number costs no memory; each occurs once."""

    def __init__(self, ranges: Sequence[range]) -> None:
        ordered = sorted((part for part in ranges if part), key=lambda part: part.start)
        for one, other in pairwise(ordered):
            if other.start < one.stop:
                raise UsageError(
                    f"Seed {other.start} is named twice.", "A shard holds each seed once.", "Name each seed once."
                )
        self.ranges = [part for part in ranges if part]
        self._ends = list(accumulate(map(len, self.ranges)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self.ranges[part][index - (self._ends[part - 1] if part else 0)]

    def __str__(self) -> str:
        return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in self.ranges)


@dataclass(frozen=True)
class Face:
    """One face of a shard: a PNG that carries its recipe, its labels, and what else belongs to it."""

    seed: int  # or the number of what `unit` says
    png: bytes  # empty where there is none: `fields` says why
    labels: dict[str, float]
    unit: str = "seed"
    fields: Mapping[str, str | float] = field(default_factory=dict)  # the same names in every face of a shard
    latent: Tensor | None = None

    @property
    def key(self) -> str:
        """The name of its files, without ending."""
        return f"{self.unit}{self.seed:08d}"

    @property
    def known(self) -> dict[str, str | float]:
        """The fields that have a value; JSON has no infinity and no NaN."""
        values = self.fields.items()
        return {
            name: value for name, value in values if value != "" and (isinstance(value, str) or math.isfinite(value))
        }


@dataclass(frozen=True)
class Shards:
    """A folder of shards. `recipe` says how every face is drawn; it is part of the request, which cannot change later."""

    folder: Path
    kind: ShardFormat
    recipe: JSON
    seeds: Seeds
    size: int  # seeds in a shard

    def __len__(self) -> int:
        return -(-len(self.seeds) // self.size)

    @cached_property
    def request(self) -> JSON:
        """What the bytes depend on."""
        return {"format": self.kind, "shard_size": self.size, "seeds": str(self.seeds), "recipe": self.recipe}

    def name(self, shard: int) -> str:
        """The file name of a shard, as WebDataset numbers them."""
        return f"shard-{shard:06d}.{self.kind}"

    def describes(self, shard: int, entry: JSON) -> bool:
        """Whether an entry names this shard and its number of faces, which the request decides."""
        count = min(self.size, len(self.seeds) - shard * self.size)
        return (entry["url"], entry["nsamples"]) == (self.name(shard), count)

    def record(self, shard: int) -> Path:
        """The file that says that a shard is finished."""
        return self.folder / FINISHED / f"{shard:06d}.json"

    def open(self, write: bool) -> None:
        """Check that the folder belongs to this request, and with `write` note the request there.

        Raises Mismatch for the folder of another request.
        """
        path = self.folder / REQUEST
        if path.is_file():
            if entry_of(path) != json.loads(json.dumps(self.request)):
                raise Mismatch(
                    f"{self.folder} holds the shards of another request.",
                    f"{REQUEST} there differs: another model, other seeds, options, labels or --shard-size.",
                    "Name another folder, or repeat the first command.",
                )
        elif write:
            (self.folder / FINISHED).mkdir(parents=True, exist_ok=True)
            for unknown in (self.folder / MANIFEST, *(self.folder / FINISHED).glob("[0-9]*.json")):
                unknown.unlink(missing_ok=True)  # whose request is lost
            atomic.replace_text(path, json.dumps(self.request, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: of two commands at once, the first to end would remove the records of the other. Raises Locked."""
        (self.folder / FINISHED).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / FINISHED / "lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise Locked(
                f"Another command is writing shards to {self.folder}.",
                f"It holds {lock.lock_file}.",
                "Wait until it ends.",
            ) from None
        try:
            yield
        finally:
            if (self.folder / MANIFEST).is_file():
                with suppress(OSError):  # Windows removes no open file, and a file browser may have left one of its own
                    Path(lock.lock_file).unlink()
                    (self.folder / FINISHED).rmdir()
            lock.release()

    def _listed(self) -> JSON | None:
        """The manifest, whatever has become of its shards; None for one that is damaged, or whose request is lost."""
        found = entry_of(self.folder / MANIFEST, shardlist=list, sha256=str, nsamples=int)
        if found is None or not (self.folder / REQUEST).is_file() or len(found["shardlist"]) != len(self):
            return None
        try:
            for entry in found["shardlist"]:
                bounded_json.require(entry, **ENTRY)
        except bounded_json.InvalidJSON:
            return None
        sound = all(self.describes(shard, entry) for shard, entry in enumerate(found["shardlist"]))
        sound = sound and (found["nsamples"], found["sha256"]) == (len(self.seeds), total_of(found["shardlist"]))
        return found if sound else None

    @property
    def manifest(self) -> JSON | None:
        """The manifest, if every shard is finished and is what was written."""
        found, path = self._listed(), self.folder / MANIFEST
        if found is None:
            return None
        whole = all(is_unchanged(self.folder / self.name(n), entry, path) for n, entry in enumerate(found["shardlist"]))
        return found if whole else None

    def reopen(self) -> None:
        """Make a manifest, of which a shard is missing or was changed, into the records of the others."""
        found, path = self._listed(), self.folder / MANIFEST
        for shard, entry in enumerate(found["shardlist"] if found else []):
            if is_unchanged(self.folder / self.name(shard), entry, path):
                atomic.replace_text(self.record(shard), json.dumps(entry))
        path.unlink(missing_ok=True)

    def missing(self) -> list[int]:
        """The shards that are not finished."""
        return [shard for shard in range(len(self)) if not self.finished(shard)]

    def finished(self, shard: int) -> bool:
        """Whether a shard has a record, and is what the record says."""
        entry = entry_of(self.record(shard), **ENTRY)
        if entry is None or not self.describes(shard, entry):
            return False
        return is_unchanged(self.folder / self.name(shard), entry, self.record(shard))

    def write(self, shard: int, draw: Callable[[Sequence[int]], Iterator[Face]]) -> int:
        """Draw and write one shard, and its record after it. Returns its number of faces."""
        seeds = self.seeds[shard * self.size : (shard + 1) * self.size]
        path = self.folder / self.name(shard)
        (self.folder / FINISHED).mkdir(parents=True, exist_ok=True)
        empty = 0

        def counted() -> Iterator[Face]:
            nonlocal empty
            for face in draw(seeds):
                empty += not face.png
                yield face

        with atomic.replacing(path) as beside:
            (write_tar if self.kind == "tar" else write_parquet)(beside, counted(), self.recipe)
        entry = {"url": path.name, "nsamples": len(seeds), "filesize": path.stat().st_size, "sha256": file_hash(path)}
        entry |= {"refused": empty} if empty else {}
        atomic.replace_text(self.record(shard), json.dumps(entry))
        return len(seeds)

    def close(self) -> JSON:
        """Write the manifest and remove the records and what killed processes have left.

        It is an index for WebDataset (wids-shard-index-v1). No other process may be writing.
        """
        entries = [bounded_json.read_object(self.record(shard)) for shard in range(len(self))]
        content = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "nsamples": len(self.seeds),
            "sha256": total_of(entries),
            "shardlist": entries,
        }
        atomic.replace_text(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")
        for path in (*atomic.abandoned(self.folder), *(self.record(shard) for shard in range(len(self)))):
            path.unlink(missing_ok=True)
        return content


def entry_of(path: Path, **shape: type) -> JSON | None:
    """The JSON object in a file of a folder of shards; None without one, and for a damaged one, which is made again."""
    try:
        return bounded_json.read_object(path, MOST_BYTES, **shape)
    except (OSError, bounded_json.InvalidJSON):
        return None


def total_of(entries: Sequence[JSON]) -> str:
    """The SHA-256 of all shards' hexadecimal sums in order."""
    return hashlib.sha256("".join(entry["sha256"] for entry in entries).encode()).hexdigest()


def is_unchanged(path: Path, entry: JSON, record: Path) -> bool:
    """Whether a shard is what its entry says.

    Its bytes are read only where it was changed after the file with the entry, or where the clock has been put back since.
    """
    if not path.is_file() or path.stat().st_size != entry["filesize"]:
        return False
    older = path.stat().st_mtime_ns <= record.stat().st_mtime_ns <= time.time_ns()
    return older or file_hash(path) == entry["sha256"]


def write_tar(path: Path, faces: Iterator[Face], recipe: JSON) -> None:
    """A WebDataset shard: KEY.png and KEY.json for each face, without times and owners, which would differ.

    Its latent, if it has one, is KEY.safetensors, as `mien project --save-latent` writes it.
    """
    header = {"kind": "latents", "model_sha256": recipe.get("model"), "space": recipe.get("space")}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for face in faces:
            description: JSON = {**face.known, face.unit: face.seed, "labels": face.labels, "recipe": recipe}
            files = {"png": face.png, "json": bounded_json.dumps(description, sort_keys=True).encode()}
            files["safetensors"] = b"" if face.latent is None else pack_tensors({"latents": face.latent[None]}, header)
            for ending, content in ((ending, content) for ending, content in files.items() if content):
                member = tarfile.TarInfo(f"{face.key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, faces: Iterator[Face], recipe: JSON) -> None:
    """A Parquet file: image (bytes and path, as `datasets` reads it), seed, and a column for each label, field and latent."""
    pyarrow = import_pyarrow("--format parquet")
    rows = list(faces)
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {
        "image": pyarrow.array(
            [{"bytes": face.png, "path": f"{face.key}.png"} if face.png else None for face in rows], image
        ),
        rows[0].unit: pyarrow.array([face.seed for face in rows], pyarrow.int64()),
    }
    for name in rows[0].labels:
        columns[f"label.{name}"] = pyarrow.array([face.labels[name] for face in rows], pyarrow.float32())
    for name, first in rows[0].fields.items():
        kind = pyarrow.string() if isinstance(first, str) else pyarrow.float32()
        columns[name] = pyarrow.array([face.known.get(name) for face in rows], kind)
    if rows[0].fields:  # so that every shard has the same columns, also where no photograph can be used
        latents = [None if face.latent is None else face.latent.to(torch.float32).flatten().tolist() for face in rows]
        columns["latent"] = pyarrow.array(latents, pyarrow.list_(pyarrow.float32()))
    kinds: dict[str, Any] = {name: {"dtype": "float32", "_type": "Value"} for name in columns}
    kinds |= {"image": {"_type": "Image"}, rows[0].unit: {"dtype": "int64", "_type": "Value"}}
    texts = [name for name, first in rows[0].fields.items() if isinstance(first, str)]
    kinds |= {name: {"dtype": "string", "_type": "Value"} for name in texts}
    if "latent" in columns:
        kinds["latent"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    table = pyarrow.table(columns).replace_schema_metadata(
        {"mien": json.dumps(recipe, sort_keys=True), "huggingface": json.dumps({"info": {"features": kinds}})}
    )
    pyarrow.parquet.write_table(table, path, compression="none")  # a PNG is compressed already
