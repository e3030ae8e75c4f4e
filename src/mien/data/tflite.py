"""Runs a TFLite network on one thread. Each process loads it at first use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import UsageError

Array = NDArray[np.float32]


class Network:
    """One network, by the name of its weights. Cheap to create and to pickle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._interpreter: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_interpreter": None}

    def __call__(self, image: Array) -> list[Array]:
        """The outputs for one picture [height, width, 3] in [0, 1], of the network's input size.

        Raises UsageError without ai-edge-litert, DataError without the weights.
        """
        self.load()
        interpreter = self._interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]

    def load(self) -> None:
        """Load the network now, if it is not loaded yet. Raises the same errors as a call."""
        if self._interpreter is None:
            self._interpreter = load(self.name)


def load(name: str) -> Any:
    """Load an interpreter for weights:NAME."""
    from mien.downloads import weights

    file = weights.path(name)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UsageError(
            f"The network {name} needs ai-edge-litert.",
            f"{error}.",
            "Install it: pip install 'mien[faces]'.",
        ) from error
    with quiet():  # LiteRT prints its delegate to stderr once per process, at any log level
        interpreter = Interpreter(str(file), num_threads=1)  # the workers already use every core
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what native code writes to stderr."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
