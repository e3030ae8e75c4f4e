"""What a verb returns: the same result for a reader and for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A verb's result: `text` goes to stdout, or `data` does as one JSON document under `--json`."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0
