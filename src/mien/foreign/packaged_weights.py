"""Reads tensors of packaged weights files: TorchScript archives and pickled trees of numpy arrays.

Both contain pickles. The symbolic reader reads them, so nothing that they name is imported or called.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import Untrusted
from mien.foreign.symbolic_pickle import Name, Record, Reference, Unreadable, read

STORAGES = {
    Name("torch", "FloatStorage"): torch.float32,
    Name("torch", "HalfStorage"): torch.float16,
    Name("torch", "DoubleStorage"): torch.float64,
    Name("torch", "LongStorage"): torch.int64,
}
ELEMENTS = ("f2", "f4", "f8", "i4", "i8", "u1")  # numpy's names of the supported element types
MAX_STORAGE = 1 << 30  # bytes
MAX_DEPTH = 64  # of dicts in dicts
REBUILD_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
INT_LIST = Name("torch.jit._pickle", "build_intlist")
ORDERED_DICT = Name("collections", "OrderedDict")
NEW_ARRAY = {Name("numpy.core.multiarray", "_reconstruct"), Name("numpy._core.multiarray", "_reconstruct")}
DTYPE = Name("numpy", "dtype")

Leaf = Callable[[Record], Tensor | None]


def torchscript_tensors(content: bytes) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive, named as in its `state_dict`. Raises Untrusted."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (data,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            folder = data.removesuffix(".pkl")

            def tensor(node: Record) -> Tensor | None:
                if node.maker != REBUILD_TENSOR:
                    return None
                reference, offset, size, stride = node.arguments[:4]
                if not isinstance(reference, Reference):
                    raise Unreadable("it has a tensor without a storage")
                kind, storage, key, _device, _count = reference.address
                if kind != "storage" or not str(key).isdecimal():
                    raise Unreadable(f"it refers to {reference.address!r}")
                entry = archive.getinfo(f"{folder}/{key}")
                if entry.file_size > MAX_STORAGE:
                    raise Unreadable(f"storage {key} has {entry.file_size} bytes")
                values = torch.frombuffer(bytearray(archive.read(entry)), dtype=STORAGES[storage])
                return torch.as_strided(values, size, stride, offset).contiguous()  # raises beyond the storage's end

            return _flatten(read(io.BytesIO(archive.read(data))), tensor)
    except Exception as error:  # a malicious file can cause any exception
        raise _refuse("TorchScript archive", error) from error


def numpy_tensors(content: bytes) -> dict[str, Tensor]:
    """The arrays of a pickled tree of dicts, named by their keys, joined with dots. Raises Untrusted."""
    try:
        return _flatten(read(io.BytesIO(content)), _array)
    except Exception as error:
        raise _refuse("pickle of arrays", error) from error


def _array(node: Record) -> Tensor | None:
    if node.maker not in NEW_ARRAY:
        return None
    _version, shape, dtype, fortran_order, values = node.state
    if not isinstance(dtype, Record) or dtype.maker != DTYPE or dtype.arguments[0] not in ELEMENTS:
        raise Unreadable(f"it has elements of type {getattr(dtype, 'arguments', ('?',))[0]!r}")
    byte_order = {"<": "<", ">": ">", "|": "|"}[dtype.state[1]]
    array = np.frombuffer(values, np.dtype(f"{byte_order}{dtype.arguments[0]}"))
    ordered = array.reshape(shape, order="F" if fortran_order else "C")
    return torch.from_numpy(np.array(ordered, dtype=dtype.arguments[0]))  # a copy: the pickle's memory is read-only


def _flatten(node: Any, leaf: Leaf, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    if depth > MAX_DEPTH:
        raise Unreadable(f"it has more than {MAX_DEPTH} levels")
    if not isinstance(node, Record):
        return {}
    tensor = leaf(node)
    if tensor is not None:
        return {prefix: tensor}
    is_module = isinstance(node.maker, Name) and node.maker.module.startswith("__torch__.")
    if node.maker not in (None, ORDERED_DICT, INT_LIST) and not is_module:
        raise Unreadable(f"it names {node.maker}, which weights do not need")
    if is_module:  # an object of a class of the archive: its fields
        return _flatten(node.state, leaf, prefix, depth + 1)
    tensors: dict[str, Tensor] = {}
    for key, value in node.mapping().items():
        tensors |= _flatten(value, leaf, f"{prefix}.{key}" if prefix else key, depth + 1)
    return tensors


def _refuse(what: str, error: Exception) -> Untrusted:
    return Untrusted(f"This {what} could not be read.", str(error) or type(error).__name__, "Download the file again.")
