"""What `mien data` prints of a pack and of a check of photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mien.core.compression import Compression
from mien.data.archives import printable
from mien.data.framing import SMALL, framing_facts
from mien.data.pack import Pack
from mien.data.preprocess import ALIGNED_BY_SOURCE, NO_FACE

MAX_LISTED = 10  # refused files that are printed; pack.json lists all


def pack_text(pack: Pack, path: Path | str) -> str:
    """A pack as text."""
    meta = pack.preparation
    counts, recipe, source = meta["counts"], meta["recipe"], meta["source"]
    lines = [
        f"{printable(str(path))}: {len(pack):,} images of {pack.side}x{pack.side}, {len(pack.label_names)} labels",
        f"  source       {source['name']} ({source['layout']}), crop {recipe['crop']}, {recipe['resampler']}",
        f"  fingerprint  {pack.fingerprint[:16]}",
        f"  counts       {', '.join(steps(counts))}",
    ]
    if len(meta["splits"]) > 1:
        lines.append(f"  splits       {', '.join(f'{count:,} {split}' for split, count in meta['splits'].items())}")
    if "balance" in counts:
        left_out = counts["balance"]["left_out"].items()
        lines += [f"  left out     {count:,} with {combination}" for combination, count in left_out if count]
    if recipe["crop"] == "face":
        missed = sum(item["reason"] == NO_FACE for item in meta["refused"])
        readable = counts["selected"] - counts["refused"] + missed
        given = meta["notes"].get(ALIGNED_BY_SOURCE, 0)
        if readable > given:
            found = readable - missed - given
            share = found / (readable - given)
            lines.append(f"  faces        detected in {found:,} of {readable - given:,} ({share:.1%})")
    lines += framing_lines(meta, len(pack))
    if meta.get("others"):
        lines.append(f"  other files  {', '.join(f'{count:,} {suffix}' for suffix, count in meta['others'].items())}")
    if meta.get("jpeg"):
        lines.append(f"  compression  {compression_text(Compression.parse(meta['jpeg']))}")
    lines += label_lines(counts["labels"])
    lines += remark_lines(meta["remarks"], meta["notes"])
    return "\n".join(lines + refused_lines(meta["refused"], "pack.json"))


def steps(counts: dict[str, Any]) -> list[str]:
    """The number of images after each step of a preparation."""
    parts = [f"{counts['found']:,} found"]
    if "where" in counts:
        parts.append(f"{counts['where']:,} fit --where")
    if "balance" in counts:
        parts.append(f"{counts['balance']['of_each']:,} of each kind at random")
    if "sampled" in counts:
        parts.append(f"{counts['sampled']:,} sampled at random by --limit")
    parts.append(f"{counts['refused']:,} refused")
    if "duplicates" in counts:
        parts.append(f"{counts['duplicates']:,} duplicates and {counts['near_duplicates']:,} near ones left out")
    return [*parts, f"{counts['kept']:,} kept"]


def check_text(report: dict[str, Any]) -> str:
    """The result of a check as text."""
    counts, source = report["counts"], report["source"]
    lines = [
        f"{source['name']} ({source['layout']}): {counts['usable']:,} of {counts['found']:,} images can be used",
        f"  crop         {report['crop']}",
    ]
    if report["smallest"]:
        (small_x, small_y), (large_x, large_y) = report["smallest"], report["largest"]
        lines.append(f"  sizes        {small_x}x{small_y} to {large_x}x{large_y} pixels")
    lines += framing_lines(report, counts["usable"])
    if report["groups"]:
        lines.append(f"  identities   {report['groups']:,}")
    lines.append(f"  duplicates   {len(report['duplicates']):,} exact, {len(report['near_duplicates']):,} near")
    pairs = [*report["duplicates"], *report["near_duplicates"]]
    lines += [f"               {name} = {first}" for name, first in pairs[:MAX_LISTED]]
    if report["others"]:
        lines.append(f"  other files  {', '.join(f'{count:,} {suffix}' for suffix, count in report['others'].items())}")
    lines += [f"  {count:>11,}  refused: {reason}" for reason, count in report["reasons"].items()]
    lines += label_lines(report["labels"])
    lines += remark_lines(report["remarks"], report["notes"])
    lines += refused_lines(report["refused"], "--json")
    return "\n".join(
        lines + ([f"  wrote        {printable(report['contact_sheet'])}"] if "contact_sheet" in report else [])
    )


def framing_lines(meta: Mapping[str, Any], count: int) -> list[str]:
    """For `--crop face`: the eye distance, and how much is filled in beyond the pictures."""
    lines = [f"  {title:<12} {words}" for title, words in framing_facts(meta, count).items()]
    if meta.get("filled_in", {}).get("area", 0) > SMALL:
        words = "a larger --eye-distance needs less, --crop center nothing; --max-outside 0.3 refuses the worst"
        lines.append(f"               {words}")
    return lines


def label_lines(counted: dict[str, dict[str, Any]]) -> list[str]:
    """How often each label is yes, no and not known; of numbers the range and the mean."""
    if not counted:
        return []
    width = max(5, *map(len, counted))
    lines = [f"  {'label':<{width}} {'yes':>9} {'no':>9} {'unknown':>9}"]
    for name, count in counted.items():
        if "range" in count:
            low, high = count["range"]
            lines.append(
                f"  {name:<{width}} {f'{low:,g} to {high:,g}':>19} {count['unknown']:>9,}  mean {count['mean']:,g}"
            )
        else:
            lines.append(f"  {name:<{width}} {count['yes']:>9,} {count['no']:>9,} {count['unknown']:>9,}")
    return lines


def compression_text(found: Compression) -> str:
    """How the files were compressed, in words."""
    resized = f", then a square of {found.side} px at {found.left}, {found.top} was cut out" if found.side else ""
    return f"JPEG of quality {found.quality}{resized}: `gan` compresses its faces alike (--model.jpeg)"


def remark_lines(remarks: list[str], notes: dict[str, int]) -> list[str]:
    return [f"  remark       {remark}" for remark in remarks] + [
        f"  {count:>11,}  {note}" for note, count in notes.items()
    ]


def refused_lines(refused: list[dict[str, str]], where: str) -> list[str]:
    lines = [f"  refused      {item['name']}: {item['reason']}" for item in refused[:MAX_LISTED]]
    more = len(refused) - MAX_LISTED
    return [*lines, f"               and {more:,} more, see {where}"] if more > 0 else lines
