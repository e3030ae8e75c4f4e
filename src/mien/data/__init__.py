"""Data: sources, preparation, packs and the loader. Imports no torch; the loader does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.data.open import open_data
    from mien.data.pack import Pack
    from mien.data.planning import Preparation
    from mien.data.preparation import prepare
    from mien.data.source_kinds import find_source

__all__ = ["Pack", "Preparation", "find_source", "open_data", "prepare"]

_HOMES = {
    "Pack": "mien.data.pack",
    "Preparation": "mien.data.planning",
    "find_source": "mien.data.source_kinds",
    "open_data": "mien.data.open",
    "prepare": "mien.data.preparation",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use: the workers of a preparation need none of them, and start faster."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mien.data' has no attribute {name!r}")
