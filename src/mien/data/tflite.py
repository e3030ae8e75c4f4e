"""A TFLite network by the name of its weights: loaded at first use in each process, on one thread."""

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
    """Runs one network. Cheap to make and to send to a worker process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._interpreter: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_interpreter": None}

    def __call__(self, image: Array) -> list[Array]:
        """The outputs for one picture [height, width, 3] in [0, 1], of exactly the size that the network takes.

        Raises UsageError without the engine, DataError without the weights.
        """
        self.load()
        running = self._interpreter
        running.set_tensor(running.get_input_details()[0]["index"], image[None])
        running.invoke()
        return [running.get_tensor(output["index"])[0] for output in running.get_output_details()]

    def load(self) -> None:
        """Load it now, if it is not, so that what is missing is told. Raises as a call does."""
        if self._interpreter is None:
            self._interpreter = load(self.name)


def load(name: str) -> Any:
    """An interpreter for weights:NAME."""
    from mien.downloads import weights

    file = weights.path(name)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UsageError(
            f"The network {name} cannot run without ai-edge-litert.",
            f"{error}.",
            "Install it: pip install 'mien[faces]'.",
        ) from error
    with quiet():  # the engine announces its delegate on stderr, once a process, whatever its log level is
        interpreter = Interpreter(str(file), num_threads=1)  # the workers already take every core
        interpreter.allocate_tensors()
    return interpreter


@contextmanager
def quiet() -> Iterator[None]:
    """Send what native code writes to stderr nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
