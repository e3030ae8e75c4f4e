"""The ZIP of the StyleGAN family, read and written: PNGs in folders of a thousand, and `dataset.json` with the labels.

What mien knows beyond it stands under the key `mien`, which other readers pass over.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.data.archives import printable
from mien.data.contents import Contents
from mien.data.label_tables import MOST_CELLS
from mien.data.pack import Pack
from mien.data.readers import UnreadableFile
from mien.data.source import Listing
from mien.data.table_labels import to_unit
from mien.errors import DataError
from mien.storage import bounded_json
from mien.storage.atomic import replacing

EPOCH = (1980, 1, 1, 0, 0, 0)  # equal packs give equal files
LABEL_FILE = "dataset.json"
MOST_LABELS = 4096
MOST_JSON, MOST_JSON_EACH = 1 << 20, 1 << 12  # bytes of `dataset.json`, and for each picture


def stylegan(contents: Contents, remarks: list[str]) -> Listing | None:
    """The StyleGAN family's archive: `dataset.json` with `labels`, a list of file name and vector or class number."""
    member = contents.find(LABEL_FILE)
    if member is None:
        return None
    plain = contents.listing("stylegan")
    try:
        most = MOST_JSON + MOST_JSON_EACH * len(plain.names)
        if member.size > most:
            raise ValueError(f"it has {member.size:,} bytes for {len(plain.names):,} pictures, more than {most:,}")
        described = bounded_json.loads_object(contents.read(member))
        folder = member.name.rpartition("/")[0]
        rows = {}
        for name, label in described["labels"] or []:
            row = contents.index.find(str(name), folder)
            if row >= 0:
                rows[row] = label
        return with_vectors(plain, rows, described.get("mien", {}))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UnreadableFile) as error:
        why = f"{error}" if isinstance(error, (ValueError, UnreadableFile)) else f"{error!r}"
        remarks.append(f"{member.name} is left aside. It does not parse: {why}. Pack the archive again.")
        return None


def with_vectors(listing: Listing, by_row: Mapping[int, Any], extra: Mapping[str, Any]) -> Listing:
    """The listing with labels by row, each a vector or a class number; `extra` is written by mien and ignored by others."""
    count = len(listing.names)
    groups, splits = words(extra.get("groups"), count), words(extra.get("splits"), count)
    listing = replace(listing, groups=groups if any(groups or ()) else None, splits=splits)
    known = [label for label in by_row.values() if label is not None]
    if not known:
        return listing
    numbered = all(isinstance(label, int) for label in known)
    width = 1 + max(known) if numbered else len(known[0])
    if not 0 < width <= MOST_LABELS or width * count > MOST_CELLS or (numbered and min(known) < 0):
        what = f"class numbers from {min(known):,} to {max(known):,}" if numbered else f"vectors of {width:,} numbers"
        raise ValueError(f"{what} for {count:,} pictures are past the bounds, {MOST_LABELS:,} labels at most")
    labels = np.full((count, width), np.nan, np.float32)
    for row, label in by_row.items():
        if label is not None:
            labels[row] = np.arange(width) == label if numbered else np.array(label, np.float32).reshape(width)
    if numbered:
        return replace(listing, label_names=tuple(f"class_{number}" for number in range(width)), labels=labels)
    scales = {printable(name): (float(low), float(high)) for name, (low, high) in extra.get("label_scales", {}).items()}
    names = tuple(map(printable, extra.get("label_names") or (f"label_{number}" for number in range(width))))
    if len(names) != width:
        raise ValueError(f"labels have {width} numbers for {len(names)} names")
    if not extra:
        for number, name in enumerate(names):
            labels[:, number], scale = to_unit(labels[:, number].astype(np.float64))
            scales |= {name: scale} if scale != (0.0, 1.0) else {}
    return replace(listing, label_names=names, labels=labels, scales=scales)


def words(values: Any, count: int) -> list[str] | None:
    """A word for each image, or None where there are none."""
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != count:
        raise ValueError("groups and splits are not one for each image")
    return [printable(str(value)) for value in values]


def write_zip(pack: Pack, path: Path) -> None:
    """Write `pack` to a new ZIP at `path`, without loss. Raises DataError when there is something already."""
    check_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{row // 1000:05d}/img{row:08d}.png" for row in range(len(pack))]
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for row, name in enumerate(names):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), to_png(pack, row))
        described = {
            "labels": None
            if pack.labels is None
            else [[name, pack.labels[row].tolist()] for row, name in enumerate(names)],
            "mien": {
                "label_names": pack.label_names,
                "label_scales": pack.meta.get("label_scales", {}),
                "groups": [entry.group for entry in pack.entries],
                "splits": [entry.split for entry in pack.entries],
            },
        }
        archive.writestr(zipfile.ZipInfo("dataset.json", EPOCH), json.dumps(described))


def check_absent(path: Path) -> None:
    """Raise DataError when there is something at `path`."""
    if path.exists():
        raise DataError(f"{path} exists already.", "Nothing is ever overwritten.", "Choose another name, or remove it.")


def to_png(pack: Pack, row: int) -> bytes:
    """One image as the bytes of a PNG, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pack.images[row]).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
