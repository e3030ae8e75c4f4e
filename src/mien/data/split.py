"""Which images are held out: whole groups, so that nobody is on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from mien.errors import UsageError


def hold_out(share: float, names: Sequence[str], groups: Sequence[str] | None) -> list[str]:
    """`train` or `holdout` for each image: groups in the order of a hash until the share is reached.

    An image without a group is a group of its own. The same image falls on the same side whatever else is there, but for the
    few at the boundary.
    """
    if not 0 <= share < 1:
        raise UsageError(f"--holdout {share} is not a share.", "It lies in [0, 1).", "Use 0.1 for a tenth.")
    target = round(share * len(names))
    if not target:
        return ["train"] * len(names)
    keys = (
        [group or f"/{name}" for group, name in zip(groups, names, strict=True)]
        if groups
        else [f"/{name}" for name in names]
    )
    sizes = Counter(keys)
    held: set[str] = set()
    total = 0
    for key in sorted(sizes, key=lambda key: hashlib.sha256(key.encode()).digest()):
        if total >= target:
            break
        held.add(key)
        total += sizes[key]
    return ["holdout" if key in held else "train" for key in keys]
