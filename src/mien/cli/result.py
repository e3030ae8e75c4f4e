"""What a verb returns: the same result as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mien.storage.bounded_json import dumps


@dataclass(frozen=True)
class Result:
    """A verb's result: `text` goes to stdout, or `data` does as one JSON document under `--json`."""

    text: str
    data: Any = field(default_factory=dict)
    exit_code: int = 0

    def json(self) -> str:
        """What --json prints."""
        return dumps(self.data)


def readable(value: Mapping[str, Any], indent: str = "") -> str:
    """A JSON object as an indented list."""
    lines = []
    for name, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{name}", readable(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {item}")
    return "\n".join(lines)
