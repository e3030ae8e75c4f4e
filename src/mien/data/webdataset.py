"""A folder of WebDataset shards: tar files in which the files of one sample share a key, such as `00042.jpg` and `00042.json`."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mien.data.archives import Container, Member, TarContainer
from mien.data.contents import Contents
from mien.data.readers import TarReader
from mien.data.source import Listing
from mien.storage import bounded_json

MOST_CLASSES = 100
MOST_JSON = 1 << 20  # bytes of one sample's description


class ShardReader:
    """Members of all shards: an address is the offset and the size of the data, and the shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[str, TarReader] | None = None  # the shard read last: samples are read in their order

    def _of(self, address: str) -> tuple[TarReader, str]:
        offset, size, shard = address.split(" ", 2)
        if self._open is None or self._open[0] != shard:
            self._open = (shard, TarReader(Path(shard)))
        return self._open[1], f"{offset} {size}"

    def read(self, address: str) -> bytes:
        reader, inside = self._of(address)
        return reader.read(inside)

    def head(self, address: str) -> bytes:
        reader, inside = self._of(address)
        return reader.head(inside)


class ShardFolder(Container):
    """The tar files of a folder as one container; a member is named `SHARD/NAME`."""

    def __init__(self, path: Path, suffixes: tuple[str, ...] = (".tar",)) -> None:
        self.path = path
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(suffixes) and file.is_file())
        self.shards = {file.name.partition(".")[0]: TarContainer(file) for file in files if file.name[0] != "."}

    def members(self) -> list[Member]:
        return [
            member._replace(name=f"{name}/{member.name}")
            for name, shard in sorted(self.shards.items())
            for member in shard.members()
        ]

    def address(self, name: str) -> str:
        shard, _, inside = name.partition("/")
        container = self.shards[shard]
        return f"{container.address(inside)} {container.specification['plain']}"

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.path)


def key_of(name: str) -> str:
    """A sample's key: the name up to the first dot after its folders."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def webdataset(contents: Contents, remarks: list[str]) -> Listing:
    """WebDataset: labels from `KEY.json` (its `labels`, numbers in [0, 1]) or from class numbers in `KEY.cls`."""
    listing = contents.listing("webdataset")
    rows = {key_of(name): row for row, name in enumerate(contents.names)}
    found: dict[str, np.ndarray] = {}
    faults = 0
    for member in contents.others:
        row = rows.get(key_of(member.name))
        suffix = member.name.rpartition("/")[2].partition(".")[2]
        if row is None or suffix not in ("json", "cls") or member.size > MOST_JSON:
            continue
        try:
            content = contents.read(member)
            values = {f"class {int(content)}": 1.0} if suffix == "cls" else labels_of(content)
        except ValueError:
            faults += 1
            continue
        for label, value in values.items():
            found.setdefault(label, np.full(len(rows), math.nan, dtype=np.float32))[row] = value
    if faults:
        remarks.append(f"{faults:,} descriptions of samples cannot be read.")
    classes = [label for label in found if label.startswith("class ")]
    if len(classes) > MOST_CLASSES:
        remarks.append(f"{len(classes):,} classes are more than {MOST_CLASSES}: they are left aside.")
        found = {label: column for label, column in found.items() if label not in classes}
    for label in classes:  # a sample of one class is of no other
        if label in found:
            np.nan_to_num(found[label], copy=False, nan=0.0)
    if not found:
        return listing
    return replace(listing, label_names=tuple(found), labels=np.stack(list(found.values()), axis=1))


def labels_of(content: bytes) -> dict[str, float]:
    """The numbers in [0, 1] under `labels` of a sample's JSON. Raises ValueError."""
    labels = bounded_json.loads_object(content, max_bytes=MOST_JSON).get("labels")
    if not isinstance(labels, dict):
        return {}
    numbers = {name: value for name, value in labels.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if 0.0 <= value <= 1.0}
