"""Write golden trajectories anew, on purpose: `python tests/write_golden.py [preset ...]`, then read the diff."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from mien import presets
from tests.test_golden_trajectories import GOLDEN, packs_in, recorded


def rounded(value: Any) -> Any:
    """Eight digits are enough, and make a diff shorter."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def written(value: Any, indent: str = "") -> str:
    """JSON in which what fits on a line stands on one: an update, a network, an optimizer."""
    line = json.dumps(value)
    if len(line) + len(indent) <= 240:
        return line
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(name)}: {written(item, inner)}" for name, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + written(item, inner) for item in value) + f"\n{indent}]"


def main(names: list[str]) -> None:
    """Write the files of these presets, or of all; a file whose preset is gone is removed."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        packs = packs_in(Path(folder))
        for name in names or presets.PRESETS:
            file = GOLDEN / f"{name}.json"
            file.write_text(written(rounded(recorded(name, packs))) + "\n")
    for file in GOLDEN.glob("*.json"):
        if file.stem not in presets.PRESETS:
            file.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
