"""The shape of pack.json: what a pack that somebody else made may hold, checked once, when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.core.compression import Compression

LABEL_COUNT = {"yes": int, "no": int, "unknown": int, "range?": [float], "mean?": float}
NAMED = [{"name": str, "reason": str}]
COUNTS = {
    **{
        f"{name}?": int for name in ("where", "sampled", "selected", "duplicates", "near_duplicates", "rebalanced_away")
    },
    "found": int,
    "refused": int,
    "kept": int,
    "balance?": {"of_each": int, "left_out": {str: int}},
    "labels": {str: LABEL_COUNT},
}
#: A type; [shape] is a list of it; {str: shape} is an object of it; other objects name their fields, `?` ends optional ones.
SHAPE: dict[Any, Any] = {
    "format": int,
    "count": int,
    "side": int,
    "label_names": [str],
    "fingerprint": str,
    "splits?": {str: int},
    "sha256?": {str: str},
    "blocks?": {"rows": int, "sha256": str},
    "bytes?": {str: int},
    "label_scales?": {str: [float]},
    "counts?": COUNTS,
    "recipe?": {"crop?": str, "resampler?": str},
    "source?": {"name?": str, "layout?": str},
    "jpeg?": str,
    "remarks?": [str],
    "others?": {str: int},
    "notes?": {str: int},
    "refused?": NAMED,
    "duplicates?": NAMED,
}
FILES = ("images.npy", "labels.npy", "index.csv")  # of a pack, beside pack.json: a manifest cannot name others
BLOCKS = "blocks.sha256"
MADE_BY_MIEN = frozenset({"counts", "recipe", "source", "remarks", "notes", "refused", "splits"})  # what a report needs


def missing_for_a_report(meta: Mapping[str, Any]) -> list[str]:
    """The fields of pack.json that a report of its preparation needs and that are not there."""
    missing = MADE_BY_MIEN - set(meta)
    inner: dict[str, tuple[str, ...]] = {"source": ("name", "layout"), "recipe": ("crop", "resampler")}
    if meta.get("recipe", {}).get("crop") == "face":
        inner["counts"] = ("selected",)  # of which those without a face are a share
    return sorted(missing) + [
        f"{name}.{field}" for name in sorted(inner) if name in meta for field in inner[name] if field not in meta[name]
    ]


def misfit(value: Any, shape: Any, name: str = "it") -> str:
    """What is wrong with a value, in words that follow "pack.json does not describe a pack:"; empty if nothing is."""
    if isinstance(shape, type):
        allowed = (int, float) if shape is float else shape
        right = isinstance(value, allowed) and not isinstance(value, bool)
        return "" if right else f"{name} is {value!r:.40}, not {shape.__name__}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is {value!r:.40}, not a list"
        return next((words for item in value if (words := misfit(item, shape[0], f"an item of {name}"))), "")
    if not isinstance(value, dict):
        return f"{name} is {value!r:.40}, not an object"
    if str in shape:
        return next((words for key, item in value.items() if (words := misfit(item, shape[str], f"{name}.{key}"))), "")
    for key, inner in shape.items():
        field = key.removesuffix("?")
        if field not in value:
            if not key.endswith("?"):
                return f"{name} has no {field}"
        elif words := misfit(value[field], inner, field):
            return words
    return ""


def check_shape(meta: dict[str, Any]) -> str:
    """What is wrong with the content of a pack.json; empty if nothing is."""
    if words := misfit(meta, SHAPE):
        return words
    for field, known in (("sha256", FILES), ("bytes", (*FILES, BLOCKS))):
        if others := sorted(set(meta.get(field, ())).difference(known)):
            return f"{field} names {others[0]!r:.40}, which is no file of a pack"
    for name, scale in meta.get("label_scales", {}).items():
        if len(scale) != 2:
            return f"label_scales.{name} has {len(scale)} numbers, not 2"
    for name, count in meta.get("counts", {"labels": {}})["labels"].items():
        if ("range" in count) != ("mean" in count) or len(count.get("range", (0, 0))) != 2:
            return f"counts.labels.{name} has no range of 2 numbers with a mean"
    jpeg = Compression.read(meta["jpeg"]) if "jpeg" in meta else None
    if "jpeg" in meta and (jpeg is None or not jpeg.fits(meta["side"])):
        return f"jpeg is {meta['jpeg']!r:.40}, not a quality and a square that leaves marks"
    if min(meta["count"], meta["side"], *meta.get("splits", {"": 0}).values(), *meta.get("bytes", {}).values()) < 0:
        return "a count is below zero"
    return ""
