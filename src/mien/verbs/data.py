"""`mien data`: photographs into packs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mien.answer import Answer
from mien.data import Preparation, find_source
from mien.data import prepare as prepare_pack
from mien.data.geometry import Box
from mien.data.pack import Pack
from mien.errors import UsageError


def prepare(
    source: Path,
    pack: Path,
    /,
    *,
    size: int = 64,
    crop: str | None = None,
    box: str | None = None,
    resampler: str | None = None,
    background: str = "white",
    labels: str = "",
    where: str = "",
    balance: str = "",
    limit: int | None = None,
    holdout: float = 0.0,
    dedupe: bool = False,
    force: bool = False,
    workers: int | None = None,
) -> Answer:
    """Turn photographs into a pack, ready to train on.

    Examples: `mien data prepare photos/ photos.pack --size 64`,
    `mien data prepare celeba.zip men.pack --where Male=1 --labels Eyeglasses,Beard=!No_Beard,Bald`

    Parameters
    ----------
    source
        A folder, ZIP, tar or list of files; CelebA and other layouts are recognised.
    pack
        The directory to make. The same command again after an interruption goes on where it was.
    size
        Height and width of the finished images, in pixels.
    crop
        How the square is cut: center, squash, celeba-148, celeba-128-vae, lfw-150, face. Default: the layout's own.
    box
        LEFT,TOP,RIGHT,BOTTOM in pixels of every picture, instead of a named crop.
    resampler
        lanczos, bicubic, bilinear or nearest. Default: the crop's own, mostly lanczos.
    background
        The colour that transparent pictures are laid on.
    labels
        The labels to keep, in order: A,B or Beard=!No_Beard. Default: all of them.
    where
        Only images that fit: Male=1,Wearing_Hat=0 or Age=20..30.
    balance
        Equally many images of every combination of these labels: A,B.
    limit
        Images at most: the first that fit.
    holdout
        Share of the images held out for evaluation, by identity where it is known.
    dedupe
        Leave out images whose pixels occur before.
    force
        Keep on when more than 1% of the images are refused.
    workers
        Processes that decode. Default: one for each core.
    """
    preparation = Preparation(
        side=size,
        crop=crop,
        box=parse_box(box) if box else None,
        resampler=resampler,
        background=background,
        labels=words(labels),
        where=conditions(where),
        balance=words(balance),
        limit=limit,
        holdout=holdout,
        dedupe=dedupe,
    )
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    made = prepare_pack(find_source(source), pack, preparation, workers=workers, force=force, rank=rank, world=world)
    if made is None:
        return Answer(f"rank {rank} of {world} did its share of {pack}", {"rank": rank, "world": world})
    return Answer(summary(made), described(made))


def info(pack: Path, /) -> Answer:
    """Say what a pack holds.

    Parameters
    ----------
    pack
        A pack.
    """
    opened = Pack.open(pack)
    opened.verify()
    return Answer(summary(opened), described(opened))


def words(text: str) -> tuple[str, ...]:
    """`A,B` -> ("A", "B")."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def conditions(text: str) -> dict[str, str]:
    """`Male=1,Bald=0` -> {"Male": "1", "Bald": "0"}; a bare name means 1, `!Name` means 0."""
    pairs = (word.partition("=") for word in words(text))
    return {name.strip(): value.strip() or "1" for name, _, value in pairs}


def parse_box(text: str) -> Box:
    """`LEFT,TOP,RIGHT,BOTTOM` -> four pixel positions."""
    try:
        left, top, right, bottom = (int(word) for word in text.split(","))
        if not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--box {text} is not a box.", "A box is four pixel positions.", "Write --box 25,50,153,178."
        ) from None
    return (left, top, right, bottom)


def described(pack: Pack) -> dict[str, Any]:
    """The pack for a program: pack.json, and where it lies."""
    return {"path": str(pack.path), **pack.meta}


def summary(pack: Pack) -> str:
    """The pack for a reader."""
    meta = pack.meta
    counts, recipe = meta["counts"], meta["recipe"]
    lines = [
        f"{pack.path}: {len(pack):,} images of {pack.side}x{pack.side}, {len(pack.label_names)} labels",
        f"  source       {meta['source']['name']} ({meta['source']['layout']}), crop {recipe['crop']}, {recipe['resampler']}",
        f"  fingerprint  {pack.fingerprint[:16]}",
    ]
    steps = [f"{counts['found']:,} found"]
    if "where" in counts:
        steps.append(f"{counts['where']:,} fit --where")
    if "balance" in counts:
        steps.append(f"{counts['balance']['of_each']:,} of each kind")
    steps += [f"{counts['refused']:,} refused", f"{counts['kept']:,} kept"]
    lines.append(f"  counts       {', '.join(steps)}")
    if len(meta["splits"]) > 1:
        lines.append(f"  splits       {', '.join(f'{count:,} {split}' for split, count in meta['splits'].items())}")
    if "balance" in counts:
        lines += [
            f"  left out     {count:,} with {words}" for words, count in counts["balance"]["left_out"].items() if count
        ]
    lines += [f"  remark       {remark}" for remark in meta["remarks"]]
    lines += [f"  {count:>11,}  {note}" for note, count in sorted(meta["notes"].items())]
    if counts["labels"]:
        width = max(map(len, counts["labels"]))
        lines.append(f"  {'label':<{width}}     yes        no   unknown")
        lines += [
            f"  {n:<{width}} {c['yes']:>7,}   {c['no']:>7,}   {c['unknown']:>7,}" for n, c in counts["labels"].items()
        ]
    if meta["refused"]:
        lines += [f"  refused {item['name']}: {item['reason']}" for item in meta["refused"][:10]]
        if len(meta["refused"]) > 10:
            lines.append(f"  ... and {len(meta['refused']) - 10:,} more in pack.json")
    return "\n".join(lines)
