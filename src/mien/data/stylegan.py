"""Write the ZIP that the StyleGAN family reads: PNGs in folders of a thousand, and `dataset.json` with the labels.

`layouts.stylegan` reads it. What mien knows beyond it stands under the key `mien`, which other readers pass over.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from PIL import Image

from mien.data.pack import Pack
from mien.errors import DataError
from mien.storage.atomic import replacing

EPOCH = (1980, 1, 1, 0, 0, 0)  # equal packs give equal files


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
        raise DataError(
            f"{path} is there already.", "Nothing is ever overwritten.", "Choose another name, or remove it."
        )


def to_png(pack: Pack, row: int) -> bytes:
    """One image as the bytes of a PNG, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pack.images[row]).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
