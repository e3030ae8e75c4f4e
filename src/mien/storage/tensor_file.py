"""Opens safetensors files that somebody else may have put there: regular files only, since its library waits for a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from mien.storage.regular_file import check_regular


def open_tensors(path: Path, framework: str = "pt") -> Any:
    """What safetensors' `safe_open` gives, of a regular file. Raises OSError, SafetensorError."""
    check_regular(path)
    return safe_open(path, framework=framework)
