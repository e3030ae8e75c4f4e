"""Reads tensors of third-party weights files: torch's two formats, whole modules or state dicts, and safetensors.

torch's older format is a sequence of pickles (magic number, version, machine, object, keys of its storages) and then
the storages' bytes; its newer one is a ZIP with one pickle and a file for each storage.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from mien.errors import DataError, Untrusted
from mien.foreign.symbolic_pickle import Name, Record, Reference, Unreadable, read
from mien.storage.tensor_file import open_tensors

LARGEST_FILE = 1 << 32  # bytes
LARGEST_PICKLE = 1 << 28  # bytes of the object in a ZIP, without its storages
MAGIC = 0x1950A86A20F9469CFC6C  # of torch's older format
VERSION = 1001
NODES = 200_000  # maximum number of visited objects: a file may refer to one object often
DEPTH = 64  # of modules inside modules
LONGEST_NAME = 500
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
REBUILD = {Name("torch._utils", "_rebuild_tensor"), Name("torch._utils", "_rebuild_tensor_v2")}
PARAMETER = Name("torch._utils", "_rebuild_parameter")
ORDERED = Name("collections", "OrderedDict")
INSIDE_A_MODULE = ("_parameters", "_buffers", "_modules")

Storage = Callable[[str, torch.dtype, int], Tensor]  # key, element type, how many -> [how many]


@dataclass(frozen=True)
class Weights:
    """The content of a weights file."""

    tensors: dict[str, Tensor]  # by their path in the file; views, so that shared storages are not copied
    format: str
    made_by: str  # the class of a whole pickled module; "" for a state dict
    sha256: str  # of the file
    description: dict[str, str]  # metadata of a safetensors header

    def summary(self) -> str:
        """Counts, and the first names and shapes, as text."""
        numbers = sum(tensor.numel() for tensor in self.tensors.values())
        first = [f"{printable(name)} {list(tensor.shape)}" for name, tensor in list(self.tensors.items())[:5]]
        more = ", …" if len(self.tensors) > len(first) else ""
        whole = f" in a {printable(self.made_by)}" if self.made_by else ""
        return f"{len(self.tensors)} tensors of {numbers:,} numbers{whole} ({self.format}): {', '.join(first)}{more}"


def printable(text: str) -> str:
    """Text of a file, safe to print on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text[:100])


def load(path: Path) -> Weights:
    """Every tensor of a file. Nothing that the file names is imported or called.

    Raises DataError for a missing file, Untrusted for one that is truncated, malicious or of an unknown format.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Weights must be one file.", "Check the path.")
    if path.stat().st_size > LARGEST_FILE:
        raise Untrusted(
            f"{path} is too large to be read.",
            f"It has {path.stat().st_size:,} bytes; the limit is {LARGEST_FILE:,}.",
            "Import the generator alone.",
        )
    content = path.read_bytes()
    description: dict[str, str] = {}
    try:
        if content[:4] == b"PK\x03\x04":
            form, root, storage = "torch's ZIP format", *_archive(content)
        elif content[8:9] == b"{":
            with open_tensors(path) as file:
                description = file.metadata() or {}
            form, root, storage = "safetensors", load_safetensors(content), _no_storage
        else:
            form, root, storage = "torch's older format", *_legacy(content)
        tensors = dict(_tensors(root, storage))
    except Exception as error:  # a malicious file can cause any exception
        raise Untrusted(
            f"{path} could not be read as weights.",
            printable(str(error)) or type(error).__name__,
            "Download the file again; mien reads files of torch.save and safetensors.",
        ) from error
    return Weights(tensors, form, _class_of(root), hashlib.sha256(content).hexdigest(), description)


def _no_storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
    raise Unreadable("it refers to data outside itself")


def _archive(content: bytes) -> tuple[Any, Storage]:
    """The object of a ZIP, and a function that loads its storages. Members are read by name, never unpacked to disk."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise Unreadable("two of its members have the same name")
    roots = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Unreadable("it is a ZIP without exactly one data.pkl, so torch did not write it")
    folder = roots[0].removesuffix("data.pkl")

    def member(name: str, largest: int) -> bytes:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Unreadable(f"{name[:80]} is compressed, as torch never does")
        if entry.file_size > min(largest, len(content)):
            raise Unreadable(f"{name[:80]} has {entry.file_size:,} bytes")
        return archive.read(entry)

    if f"{folder}byteorder" in names and member(f"{folder}byteorder", 16) != b"little":
        raise Unreadable("its numbers are not little-endian")
    loaded: dict[str, bytearray] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in loaded:
            loaded[key] = bytearray(member(f"{folder}data/{key}", len(content)))
        return _numbers(loaded[key], dtype, count)

    return read(io.BytesIO(member(roots[0], LARGEST_PICKLE))), storage


def _legacy(content: bytes) -> tuple[Any, Storage]:
    """The object of the older format, and a function that loads its storages."""
    stream = io.BytesIO(content)
    if content[:1] != b"\x80" or read(stream) != MAGIC:
        raise Unreadable("it is neither a torch nor a safetensors file: its magic number is wrong")
    if read(stream) != VERSION:
        raise Unreadable("it has an unknown version of torch's older format")
    machine = read(stream)
    if not isinstance(machine, Record) or machine.mapping().get("little_endian") is not True:
        raise Unreadable("its numbers are not little-endian")
    references: list[Reference] = []
    root = read(stream, references)
    keys = read(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise Unreadable("it does not list its storages")
    declared: dict[str, int] = {}  # bytes per number: only the object records them
    for reference in references:
        if reference.address[:1] == ("storage",):
            dtype, key, _ = _storage_of(reference)
            if declared.setdefault(key, dtype.itemsize) != dtype.itemsize:
                raise Unreadable("a storage has two types")
    offset, positions = stream.tell(), dict[str, tuple[int, int]]()
    for key in keys:
        count = int.from_bytes(content[offset : offset + 8], "little", signed=True)
        size = count * declared.get(key, 0)
        if key not in declared or count < 0 or offset + 8 + size > len(content):
            raise Unreadable("a storage exceeds the file")
        positions[key] = (offset + 8, size)
        offset += 8 + size
    loaded: dict[str, bytearray] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in loaded:
            start, size = positions[key]
            loaded[key] = bytearray(content[start : start + size])
        return _numbers(loaded[key], dtype, count)

    return root, storage


def _numbers(content: bytearray, dtype: torch.dtype, count: int) -> Tensor:
    if count * dtype.itemsize != len(content):
        raise Unreadable(f"a storage of {count} numbers has {len(content)} bytes")
    return torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _tensors(root: Any, storage: Storage) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of an object by its path: attributes of modules, keys of dicts, indices of lists."""
    visited = 0

    def walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
        nonlocal visited
        visited += 1
        if visited > NODES or len(path) > DEPTH:
            raise Unreadable("it is nested too deeply, or has too many objects")
        if isinstance(node, Tensor):
            yield named(path), node
        elif isinstance(node, dict):
            for key, value in node.items():
                yield from walk(value, (*path, key))
        elif isinstance(node, list | tuple) and not isinstance(node, Name | Reference):
            for place, value in enumerate(node):
                yield from walk(value, (*path, str(place)))
        elif isinstance(node, Record):
            if node.maker == PARAMETER and node.arguments:
                yield from walk(node.arguments[0], path)
            elif isinstance(node.maker, Name) and node.maker in REBUILD:
                yield named(path), _rebuilt(node.arguments, storage)
            else:
                yield from walk_record(node, path)

    def named(path: tuple[str, ...]) -> str:
        if sum(map(len, path)) > LONGEST_NAME:
            raise Unreadable("a tensor's name is too long")
        return ".".join(path)

    def walk_record(node: Record, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
        parts = node.mapping()
        inside = node.state.mapping() if isinstance(node.state, Record) else {}
        if any(name in inside for name in INSIDE_A_MODULE):
            for name in INSIDE_A_MODULE:
                if isinstance(inside.get(name), Record):
                    parts |= inside[name].mapping()
        else:
            parts |= inside
        if node.maker == ORDERED and node.arguments:  # some versions write its pairs as an argument
            (listed, *_) = node.arguments
            if isinstance(listed, list):
                parts |= Record(entries=[tuple(pair) for pair in listed if _is_pair(pair)]).mapping()
        for name, value in parts.items():
            yield from walk(value, (*path, name))
        for place, value in enumerate(node.items):
            yield from walk(value, (*path, str(place)))

    return walk(root, ())


def _class_of(root: Any) -> str:
    """The class of a pickled object, "" for a dict. Torch's older format stores a module's class with its source."""
    maker = root.maker if isinstance(root, Record) else None
    if isinstance(maker, Reference) and isinstance(maker.address, tuple) and len(maker.address) > 1:
        maker = maker.address[1]
    return str(maker) if isinstance(maker, Name) and maker != ORDERED else ""


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _rebuilt(arguments: tuple[Any, ...], storage: Storage) -> Tensor:
    """The tensor that `_rebuild_tensor(storage, offset, size, stride, ...)` would return, if it fits into its storage."""
    reference, offset, size, stride, *_ = arguments
    dtype, key, count = _storage_of(reference)
    for number in (offset, count, *size, *stride):
        if type(number) is not int or not 0 <= number <= LARGEST_FILE:
            raise Unreadable("a tensor's size, stride or offset is out of range")
    if len(size) != len(stride) or len(size) > 8:
        raise Unreadable("a tensor must have as many strides as sizes, at most eight")
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if all(size) else offset
    numbers = 1
    for n in size:
        numbers *= n
    if reach > count or numbers > count:
        raise Unreadable("a tensor exceeds its storage")
    return storage(key, dtype, count).as_strided(size, stride, offset)


def _storage_of(reference: Any) -> tuple[torch.dtype, str, int]:
    """The element type, key and length of a referenced storage."""
    if not isinstance(reference, Reference):
        raise Unreadable("a tensor has no storage")
    kind, of_type, key, _place, count, *view = reference.address
    if kind != "storage" or not isinstance(of_type, Name) or of_type.name not in DTYPES or of_type.module != "torch":
        # A value that is not a Name is not printed: a malicious one could take forever to print.
        raise Unreadable(
            f"a tensor's storage is of an unknown type{f': {of_type}' if isinstance(of_type, Name) else ''}"
        )
    if not isinstance(key, str) or not key.isdecimal() or any(part is not None for part in view):
        raise Unreadable("a storage has an address that torch does not write")
    return DTYPES[of_type.name], key, count
