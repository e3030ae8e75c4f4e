"""What a verb returns: the same result as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """A verb's result: `text` goes to stdout, or `data` does as one JSON document under `--json`."""

    text: str
    data: Any = field(default_factory=dict)
    exit_code: int = 0


def readable(value: Mapping[str, Any], indent: str = "") -> str:
    """A JSON object as an indented list."""
    lines = []
    for name, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{name}", readable(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {item}")
    return "\n".join(lines)
