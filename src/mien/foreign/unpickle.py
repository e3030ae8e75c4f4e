"""Tensors out of foreign pickles, by an allow-list: nothing that the file names is ever imported or run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import Untrusted

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
}
ARRAYS = ("f2", "f4", "f8", "i4", "i8", "u1")  # numpy's names of the element types that are read
LARGEST = 1 << 30  # bytes in one storage


class Record:
    """Stands for an object of any class of a TorchScript archive: its fields, without its code."""

    def __setstate__(self, fields: dict[str, Any]) -> None:
        self.fields = fields


class Allowed(pickle.Unpickler):
    """Knows the names in `table` and no others."""

    def __init__(
        self, content: bytes, table: Mapping[str, Any], storage: Callable[[Any], Tensor] | None = None
    ) -> None:
        super().__init__(io.BytesIO(content))
        self.table, self.storage = table, storage

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__.") and "__torch__" in self.table:
            return self.table["__torch__"]
        try:
            return self.table[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need") from None

    def persistent_load(self, address: Any) -> Tensor:
        if self.storage is None:
            raise pickle.UnpicklingError("it refers to data outside itself")
        return self.storage(address)


def torchscript_tensors(content: bytes) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive, named as in its `state_dict`. Its code is not read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (data,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            folder = data.removesuffix(".pkl")

            def storage(address: Any) -> Tensor:
                kind, dtype, key, _place, _count = address
                if kind != "storage" or not str(key).isdecimal():
                    raise pickle.UnpicklingError(f"it refers to {address!r}")
                entry = archive.getinfo(f"{folder}/{key}")
                if entry.file_size > LARGEST:
                    raise pickle.UnpicklingError(f"storage {key} holds {entry.file_size} bytes")
                return torch.frombuffer(bytearray(archive.read(entry)), dtype=dtype)

            table: dict[str, Any] = {f"torch.{name}": dtype for name, dtype in STORAGES.items()}
            table |= {
                "__torch__": Record,
                "collections.OrderedDict": OrderedDict,
                "torch._utils._rebuild_tensor_v2": _tensor,
                "torch.jit._pickle.build_intlist": list,
            }
            return _flatten(Allowed(archive.read(data), table, storage).load())
    except Exception as error:  # an unpickler raises whatever a hostile stream makes its parts raise
        raise _refuse("TorchScript archive", error) from error


def numpy_tensors(content: bytes) -> dict[str, Tensor]:
    """The arrays of a pickled tree of dicts, named by the keys that lead to them, joined with dots."""
    table = {
        "numpy.core.multiarray._reconstruct": _empty_array,
        "numpy._core.multiarray._reconstruct": _empty_array,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": _dtype,
    }
    try:
        return _flatten(Allowed(content, table).load())
    except Exception as error:
        raise _refuse("pickle of arrays", error) from error


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).contiguous()  # raises where it would leave the storage


def _empty_array(_kind: object, _shape: object, _code: object) -> np.ndarray[Any, Any]:
    return np.ndarray((0,), np.uint8)  # its shape, type and values follow in the pickle's state


def _dtype(name: str, *_: object) -> np.dtype[Any]:
    if name not in ARRAYS:
        raise pickle.UnpicklingError(f"it holds elements of type {name!r}")
    return np.dtype(name, copy=True)  # a copy, because the pickle then sets its byte order


def _flatten(node: Any, prefix: str = "") -> dict[str, Tensor]:
    fields = node.fields if isinstance(node, Record) else node
    if isinstance(fields, Tensor):
        return {prefix: fields}
    if isinstance(fields, np.ndarray):
        return {prefix: torch.from_numpy(np.array(fields))}  # a copy of our own: the pickle's memory is read-only
    found: dict[str, Tensor] = {}
    if isinstance(fields, Mapping):
        for key, value in fields.items():
            found |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _refuse(what: str, error: Exception) -> Untrusted:
    return Untrusted(f"This {what} could not be read.", str(error) or type(error).__name__, "Fetch the file again.")
