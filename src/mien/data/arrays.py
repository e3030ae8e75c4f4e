"""Sources of pixels: .npy, .npz and HDF5 files whose arrays hold images, and labels of the same length."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.data.archives import MOST_INFLATION, NOT_A_ZIP, printable
from mien.data.decode import MAX_PIXELS
from mien.data.label_tables import MOST_CELLS, merge, shorten
from mien.data.layouts import complete
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, Source, stamp_of
from mien.data.table_labels import describe, split_of
from mien.data.tables import MOST_COLUMNS
from mien.downloads.weights import cache_folder
from mien.errors import DataError, Untrusted, UsageError
from mien.storage.atomic import replacing

IMAGE_BASES = ("images", "image", "x", "data", "faces", "arr_0", "")  # likely names, without a split's
MOST_IMAGES = 2_000_000
LEAST_SIDE = 8  # pixels of what is taken for images, so that [n, 3, 5] is not
EXAMINED = 256  # images that tell the range of the values
MOST_CHUNK = 1 << 28  # bytes of an HDF5 file that are decompressed together
MOST_DEEP, MOST_OBJECTS = 16, 10_000  # groups inside each other, and objects, of an HDF5 file
EXPECTED = (
    "Images are an array [n, height, width], [n, height, width, 1, 3 or 4] or [n, 1 or 3, height, width], "
    f"of {MAX_PIXELS // 1_000_000} million pixels at most."
)


@dataclass(frozen=True)
class Pixels:
    """An array of images, in a file that stays on the disk."""

    array: Any  # [n, ...], of numpy or h5py
    channels_first: bool
    low: float  # what is black
    high: float  # what is white

    def image(self, row: int) -> Image.Image:
        """One image. Raises UnreadableFile where it has values that are no numbers, or its part of the file is damaged."""
        try:
            values = np.asarray(self.array[row])
        except OSError as error:
            raise UnreadableFile(str(error)) from error
        if not np.isfinite(values).all():
            raise UnreadableFile("values that are not finite")
        if values.dtype != np.uint8 or (self.low, self.high) != (0, 255):
            scaled = (values.astype(np.float64) - self.low) * (255 / (self.high - self.low))
            values = np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
        values = values.transpose(1, 2, 0) if self.channels_first else values
        return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2:] == (1,) else values))


class ArraySource(Source):
    """The images of an array, with the labels beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": "arrays", "path": str(self.path.absolute())}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "arrays", "name": printable(self.path.resolve().name)}

    @cached_property
    def _arrays(self) -> tuple[dict[str, Any], list[str]]:
        return open_arrays(self.path)

    @cached_property
    def _pixels(self) -> dict[str, Pixels]:
        """The arrays of images with one name but for a split, such as x_train and x_test. Raises DataError without any."""
        found: dict[str, dict[str, Pixels]] = {}
        for name, array in self._arrays[0].items():
            pixels = to_pixels(array)
            if pixels is not None:
                found.setdefault(base_and_split(name)[0], {})[name] = pixels
        if not found:
            shapes = shorten([f"{name} {list(array.shape)}" for name, array in self._arrays[0].items()]) or "nothing"
            why = " ".join([f"It holds {shapes}.", *self._arrays[1]])
            raise DataError(f"{self.path} holds no images.", why, EXPECTED)
        return found[min(found, key=lambda base: IMAGE_BASES.index(base) if base in IMAGE_BASES else len(IMAGE_BASES))]

    @cached_property
    def _rows(self) -> list[tuple[Pixels, int]]:
        return [(pixels, row) for pixels in self._pixels.values() for row in range(len(pixels.array))]

    def listing(self) -> Listing:
        arrays, remarks = self._arrays
        counts = {name: len(pixels.array) for name, pixels in self._pixels.items()}
        total = sum(counts.values())
        if total > MOST_IMAGES:
            raise Untrusted(f"{self.path} is too large.", f"It promises {total:,} images.", f"{MOST_IMAGES:,} at most.")
        columns: dict[str, list[str]] = {}
        used, begin = set(counts), 0
        for image_name, count in counts.items():
            for name, array in arrays.items():
                fits = len(array.shape) in (1, 2) and len(array) == count and name not in counts
                if fits and base_and_split(name)[1] == base_and_split(image_name)[1]:
                    for title, cells in to_columns(base_and_split(name)[0] or name, array):
                        columns.setdefault(title, [""] * total)[begin : begin + count] = cells
                        used.add(name)
            begin += count
        if unused := [f"{name} {list(array.shape)}" for name, array in arrays.items() if name not in used]:
            remarks = [
                *remarks,
                f"{shorten(unused)} is left aside. It is neither the images nor a label for each of them.",
            ]
        splits = [base_and_split(name)[1] for name, count in counts.items() for _ in range(count)]
        info = self.path.stat()
        listing = Listing(
            layout="arrays",
            names=[f"{row:08d}" for row in range(total)],
            splits=splits if len(set(splits)) > 1 else None,
            stamp=stamp_of([self.path.name, info.st_size, info.st_mtime_ns]),
            remarks=[f"The images are {shorten(list(counts))}.", *remarks],
        )
        described = describe(columns, self.path.name)
        listing = merge(listing, described, np.arange(total))
        return complete(replace(listing, remarks=[*listing.remarks, *described.remarks]))

    def address(self, name: str) -> str:
        return name

    def read(self, address: str) -> bytes:
        pixels, row = self._rows[int(address)]
        buffer = io.BytesIO()
        pixels.image(row).save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()


def to_pixels(array: Any) -> Pixels | None:
    """An array as images, None where its shape or its values are no images'."""
    shape, kind = tuple(array.shape), np.dtype(array.dtype).kind
    last = len(shape) == 4 and shape[3] in (1, 3, 4) and min(shape[1:3]) >= LEAST_SIDE
    first = not last and len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) >= LEAST_SIDE
    grey = len(shape) == 3 and min(shape[1:]) >= LEAST_SIDE
    if kind not in "buif" or not shape or not shape[0] or not (last or first or grey):
        return None
    if math.prod(shape[2:] if first else shape[1:3]) > MAX_PIXELS:
        return None
    if array.dtype == np.uint8:
        return Pixels(array, first, 0, 255)
    if kind == "b":
        return Pixels(array, first, 0, 1)
    if array.dtype == np.uint16:
        return Pixels(array, first, 0, 65535)
    rows = sorted({round(row) for row in np.linspace(0, shape[0] - 1, min(shape[0], EXAMINED))})
    values = [np.asarray(array[row]) for row in rows]
    low = float(min(np.nanmin(value) if not np.isnan(value).all() else 0 for value in values))
    high = float(max(np.nanmax(value) if not np.isnan(value).all() else 0 for value in values))
    for bottom, top in ((0, 1), (-1, 1), (0, 255)) if kind == "f" else ((0, 255),):
        if bottom - 0.01 <= low and high <= top + 0.01:
            return Pixels(array, first, bottom, top)
    return None


def to_columns(title: str, array: Any) -> Iterable[tuple[str, list[str]]]:
    """Labels `[n]` or `[n, d]` as columns of cells."""
    if np.dtype(array.dtype).kind not in "buifSUO":
        return
    if math.prod(array.shape[1:]) > MOST_COLUMNS or math.prod(array.shape) > MOST_CELLS:
        return
    values = np.asarray(array)
    table = values.reshape(len(values), -1)
    if values.dtype.kind == "O" and not all(isinstance(cell, str | bytes | float | int) for cell in table.flat):
        return  # lists, references
    for place in range(table.shape[1]):
        cells = [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for value in table[:, place].tolist()
        ]
        name = title if table.shape[1] == 1 else f"{title}_{place}"
        yield name, [str(int(cell)) if isinstance(cell, bool) else str(cell) for cell in cells]


def base_and_split(name: str) -> tuple[str, str]:
    """`x_train` -> x and train; `images` -> images and nothing."""
    words = re.split(r"[_\-/.]+", name)
    splits = [split for word in words if (split := split_of(word))]
    return ("_".join(word for word in words if not split_of(word)) if splits else name), next(iter(splits), "")


def open_arrays(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Every array of a file by its name, mapped and not read, and remarks on those that cannot be. Raises Untrusted."""
    try:
        if path.suffix.lower() == ".npy":
            return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}, []
        if path.suffix.lower() == ".npz":
            return open_npz(path)
    except (*NOT_A_ZIP, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise Untrusted(
            f"{path} does not parse.", f"{error or type(error).__name__}.", "Save it again with numpy, without objects."
        ) from error
    return open_hdf5(path)


def open_npz(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The arrays of an .npz: mapped where they are stored, copied into the cache once where they are compressed."""
    arrays, remarks = {}, []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = printable(member.filename.removesuffix(".npy"))
            try:
                if member.compress_type == zipfile.ZIP_STORED:
                    arrays[name] = map_member(path, member)
                else:
                    arrays[name] = np.load(unpacked(path, archive, member), mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                remarks.append(f"{name} is left aside. It is no array of numbers: {error}. Save it again.")
    return arrays, remarks


def map_member(path: Path, member: zipfile.ZipInfo) -> Any:
    """A stored .npy inside of a ZIP, by memory map."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
        file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        if 0 in shape or not shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Path:
    """A compressed .npy, in the cache. Raises Untrusted for a bomb."""
    info = path.stat()
    name = f"{path.stem}-{info.st_size}-{info.st_mtime_ns}-{member.header_offset}.npy"
    plain = cache_folder() / "arrays" / name
    if not plain.exists():
        plain.parent.mkdir(parents=True, exist_ok=True)
        with replacing(plain) as temporary, archive.open(member) as packed, temporary.open("wb") as file:
            while block := packed.read(1 << 22):
                file.write(block)
                if file.tell() > MOST_INFLATION * max(info.st_size, 1 << 20):
                    raise Untrusted(f"{path} is a bomb.", f"It inflates over {MOST_INFLATION} times.", "Do not use it.")
    return plain


def open_hdf5(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The data sets of an HDF5 file by their paths in it, and remarks on those that it does not hold itself."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            f"{path} needs h5py.",
            f"{error}.",
            "Install it: pip install 'mien[hdf5]'; or save the arrays as .npz with numpy.",
        ) from error
    arrays: dict[str, Any] = {}
    remarks, seen = [], 0

    def visit(group: Any, prefix: str) -> None:
        nonlocal seen
        for name in group:
            seen += 1
            if seen > MOST_OBJECTS or prefix.count("/") >= MOST_DEEP:
                raise ValueError(f"over {MOST_OBJECTS:,} objects, or groups over {MOST_DEEP} deep")
            link, full = group.get(name, getlink=True), f"{prefix}{printable(name)}"
            if not isinstance(link, h5py.HardLink):
                remarks.append(f"{full} is left aside. It is a link. Copy the data set into the file.")
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item, f"{full}/")
            elif not isinstance(item, h5py.Dataset) or item.shape is None:
                continue
            elif item.external or item.is_virtual:
                remarks.append(f"{full} is left aside. Its values are in another file. Copy them into this one.")
            elif item.nbytes > MOST_INFLATION * max(item.id.get_storage_size(), 1 << 20):
                remarks.append(
                    f"{full} is left aside. Its values take over {MOST_INFLATION} times their place on disk."
                )
            elif math.prod(item.chunks or ()) * item.dtype.itemsize > MOST_CHUNK:
                remarks.append(f"{full} is left aside. It has chunks over {MOST_CHUNK >> 20} MiB. Save it with less.")
            else:
                arrays[full] = item

    try:
        visit(h5py.File(path, "r"), "")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise Untrusted(f"{path} does not parse.", f"{error}.", "Download or save it again.") from error
    return arrays, remarks
