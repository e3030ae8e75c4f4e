"""`mien data`: photographs into packs, and what they hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from mien.cli.result import Result
from mien.data import Preparation, find_source, prepare
from mien.data.archives import printable
from mien.data.assembly import REFUSED_SHARE
from mien.data.check import check
from mien.data.crops import Box
from mien.data.labels import strongest
from mien.data.pack import Pack, is_pack
from mien.data.preprocess import GIVEN, NO_FACE
from mien.data.stylegan import check_absent, write_zip
from mien.errors import Mismatch, UsageError

SHOWN = 10  # refused files that are named on the screen; all of them stand in pack.json

SHEETS = (".png", ".jpg", ".jpeg", ".webp")

Out = Annotated[Path | None, Parameter(name=("--out", "-o"))]
Switch = Parameter(negative=())
Workers = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def data_prepare(
    source: Path,
    pack: Path,
    /,
    *,
    size: int | None = None,
    crop: str | None = None,
    box: str | None = None,
    resampler: str | None = None,
    background: str = "white",
    matte: str | None = None,
    eye_distance: float = 0.26,
    eye_height: float = 0.47,
    labels: str = "",
    where: str = "",
    balance: str = "",
    limit: int | None = None,
    holdout: str = "0",
    dedupe: Annotated[bool, Switch] = False,
    force: Annotated[bool, Switch] = False,
    workers: Workers = None,
) -> Result:
    """Turn photographs into a pack, ready to train on.

    The same command again after an interruption goes on where it was. Under torchrun all processes share the work. Examples:

        mien data prepare photos/ photos.pack --size 64
        mien data prepare celeba.zip men.pack --where Male=1 --labels Eyeglasses,Beard=!No_Beard,Bald
        mien data prepare photos.pack photos.zip        # the StyleGAN family's archive

    Parameters
    ----------
    source
        A folder, ZIP, tar, list of files, CSV or Parquet table, or pack; CelebA, LFW and other layouts are recognised.
    pack
        The directory to make; with the ending .zip, an archive as the StyleGAN family reads it.
    size
        Height and width of the finished images, in pixels. Default: 64, or the pack's own.
    crop
        How the square is cut: center, squash, face, celeba-148, celeba-128-vae, lfw-150. Default: the layout's own.
    box
        LEFT,TOP,RIGHT,BOTTOM in pixels of every picture, instead of a named crop.
    resampler
        lanczos, bicubic, bilinear or nearest. Default: the crop's own, mostly lanczos.
    background
        The colour that transparent pictures are laid on.
    matte
        What replaces the background behind people: grey, blur, or a colour.
    eye_distance
        With --crop face: between the eyes, as a share of the size. 0.26 shows the whole head, 0.47 the face alone.
    eye_height
        With --crop face: of the eyes, from the top.
    labels
        The labels to keep, in order: A,B or Beard=!No_Beard. Default: all of them.
    where
        Only images that fit: Male=1,Wearing_Hat=0 or Age=20..30.
    balance
        Equally many images of every combination of these labels, drawn at random: A,B.
    limit
        Images at most: a random sample of those that fit, the same every time.
    holdout
        Share of the images held out for evaluation, by identity where it is known; or official, the source's own split.
    dedupe
        Leave out images that occur before, exactly or nearly.
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
        matte=matte,
        eye_distance=eye_distance,
        eye_height=eye_height,
        labels=words(labels),
        where=conditions(where),
        balance=words(balance),
        limit=limit,
        holdout=share(holdout),
        dedupe=dedupe,
    )
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    to_archive = pack.suffix.lower() == ".zip"
    if to_archive:
        check_absent(pack)
    if to_archive and is_pack(source) and preparation == Preparation():  # as it is
        write_zip(Pack.open(source), pack)
        return Result(f"{printable(str(pack))}: {len(Pack.open(source)):,} images", {"path": str(pack)})
    target = pack.with_name(f".{pack.name}.pack") if to_archive else pack
    made = prepare(find_source(source), target, preparation, workers=workers, force=force, rank=rank, world=world)
    if made is None:
        return Result(f"rank {rank} of {world} did its share of {printable(str(pack))}", {"rank": rank, "world": world})
    answer = Result(summary(made, pack), described(made, pack))
    if to_archive:
        write_zip(made, pack)
        shutil.rmtree(target)
    return answer


def data_info(pack: Path, /, *, out: Out = None) -> Result:
    """Say what a pack holds, after reading every byte of it; write a contact sheet and a report page.

    Examples:

        mien data info photos.pack
        mien data info photos.pack -o about/

    Parameters
    ----------
    pack
        A pack.
    out
        The folder for contact.png and report.html. Default: the pack itself.
    """
    from mien.report.pack_page import write_pack_page  # draws with torch: not for `prepare`

    opened = Pack.open(pack)
    opened.verify()
    sheet, page = write_pack_page(opened, out or pack)
    told = {**described(opened, pack), "files": {"contact_sheet": str(sheet), "report": str(page)}}
    lines = [summary(opened, pack)]
    if opened.labels is not None:
        pairs = strongest(opened.label_names, opened.labels)
        told["together"] = [{"labels": [one, other], "correlation": round(value, 4)} for one, other, value in pairs]
        lines += [f"  {value:>+11.2f}  correlation of {one} and {other}" for one, other, value in pairs]
    return Result("\n".join([*lines, f"  wrote        {printable(f'{sheet}, {page}')}"]), told)


def data_check(
    source: Path,
    /,
    *,
    out: Out = None,
    crop: str | None = None,
    size: int = 64,
    strict: Annotated[bool, Switch] = False,
    workers: Workers = None,
) -> Result:
    """Look at photographs as `prepare` would, without writing a pack: what is damaged, doubled, small, labelled.

    Writes a contact sheet. Examples:

        mien data check photos/
        mien data check celeba.zip -o sheet.png --strict

    Parameters
    ----------
    source
        What `mien data prepare` takes.
    out
        The contact sheet, a .png, .jpg or .webp, or a folder for it. Default: NAME-check.png here.
    crop
        As `mien data prepare` takes it.
    size
        Height and width of the images on the sheet, in pixels.
    strict
        Exit with 3 when a single image is refused, instead of more than 1%.
    workers
        Processes that decode. Default: one for each core.
    """
    from mien.report.pack_page import contact_sheet

    sheet = sheet_path(out, f"{source.resolve().stem}-check.png")
    examination = check(find_source(source), Preparation(side=size, crop=crop), workers)
    report = examination.report
    if len(examination.samples):
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(examination.samples).save(sheet)
        report["contact_sheet"] = str(sheet)
    allowed = 0 if strict else REFUSED_SHARE * report["counts"]["selected"]
    return Result(examined(report), report, exit_code=3 if report["counts"]["refused"] > allowed else 0)


def sheet_path(out: Path | None, name: str) -> Path:
    """Where a contact sheet is written: a picture, or a folder, which is every name without an ending."""
    if out is None or out.is_dir():
        return (out or Path()) / name
    if not out.suffix:
        return out / name
    if out.suffix.lower() not in SHEETS:
        raise UsageError(f"--out {out} is not a picture.", f"Its ending is one of {', '.join(SHEETS)}.", "Use .png.")
    return out


def words(text: str) -> tuple[str, ...]:
    """`A,B` -> ("A", "B")."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def conditions(text: str) -> dict[str, str]:
    """`Male=1,Bald=0` -> {"Male": "1", "Bald": "0"}; a bare name means 1."""
    pairs = (word.partition("=") for word in words(text))
    return {name.strip(): value.strip() or "1" for name, _, value in pairs}


def share(text: str) -> float | Literal["official"]:
    """`0.1` -> 0.1; `official` is itself."""
    if text == "official":
        return "official"
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--holdout {text} is not a share.", "It lies in [0, 1).", "Use 0.1 for a tenth, or official."
        ) from None


def parse_box(text: str) -> Box:
    """`LEFT,TOP,RIGHT,BOTTOM` -> four pixel positions."""
    try:
        left, top, right, bottom = (int(word) for word in text.split(","))
        if not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except ValueError:
        example = "Write --box 25,50,153,178."
        raise UsageError(f"--box {text} is not a box.", "A box is LEFT,TOP,RIGHT,BOTTOM.", example) from None
    return (left, top, right, bottom)


def described(pack: Pack, path: Path) -> dict[str, Any]:
    """The pack for a program: pack.json, and where it lies."""
    return {"path": str(path), **pack.meta}


def summary(pack: Pack, path: Path) -> str:
    """The pack for a reader."""
    meta = pack.meta
    if missing := {"counts", "recipe", "source"} - set(meta):
        raise Mismatch(
            f"{path} does not say how it was made.",
            f"Its pack.json has no {', '.join(sorted(missing))}.",
            "It can be trained on; for a report, prepare it with `mien data prepare`.",
        )
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
        given = meta["notes"].get(GIVEN, 0)
        if readable > given:
            found = readable - missed - given
            share = found / (readable - given)
            lines.append(f"  faces        detected in {found:,} of {readable - given:,} ({share:.1%})")
    if meta.get("others"):
        lines.append(f"  left aside   {', '.join(f'{count:,} {suffix}' for suffix, count in meta['others'].items())}")
    lines += label_lines(counts["labels"])
    lines += remark_lines(meta["remarks"], meta["notes"])
    return "\n".join(lines + refused_lines(meta["refused"], "pack.json"))


def steps(counts: dict[str, Any]) -> list[str]:
    """What each step of a preparation left."""
    told = [f"{counts['found']:,} found"]
    if "where" in counts:
        told.append(f"{counts['where']:,} fit --where")
    if "balance" in counts:
        told.append(f"{counts['balance']['of_each']:,} of each kind at random")
    if "sampled" in counts:
        told.append(f"{counts['sampled']:,} sampled at random by --limit")
    told.append(f"{counts['refused']:,} refused")
    if "duplicates" in counts:
        told.append(f"{counts['duplicates']:,} duplicates and {counts['near_duplicates']:,} near ones left out")
    return [*told, f"{counts['kept']:,} kept"]


def examined(report: dict[str, Any]) -> str:
    """An examination for a reader."""
    counts, source = report["counts"], report["source"]
    lines = [
        f"{source['name']} ({source['layout']}): {counts['usable']:,} of {counts['found']:,} images can be used",
        f"  crop         {report['crop']}",
    ]
    if report["smallest"]:
        (small_x, small_y), (large_x, large_y) = report["smallest"], report["largest"]
        lines.append(f"  sizes        {small_x}x{small_y} to {large_x}x{large_y} pixels")
    if report["groups"]:
        lines.append(f"  identities   {report['groups']:,}")
    lines.append(f"  duplicates   {len(report['duplicates']):,} exact, {len(report['near_duplicates']):,} near")
    pairs = [*report["duplicates"], *report["near_duplicates"]]
    lines += [f"               {name} = {first}" for name, first in pairs[:SHOWN]]
    if report["others"]:
        lines.append(f"  left aside   {', '.join(f'{count:,} {suffix}' for suffix, count in report['others'].items())}")
    lines += [f"  {count:>11,}  refused: {reason}" for reason, count in report["reasons"].items()]
    lines += label_lines(report["labels"])
    lines += remark_lines(report["remarks"], report["notes"])
    lines += refused_lines(report["refused"], "--json")
    return "\n".join(
        lines + ([f"  wrote        {printable(report['contact_sheet'])}"] if "contact_sheet" in report else [])
    )


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


def remark_lines(remarks: list[str], notes: dict[str, int]) -> list[str]:
    return [f"  remark       {remark}" for remark in remarks] + [
        f"  {count:>11,}  {note}" for note, count in notes.items()
    ]


def refused_lines(refused: list[dict[str, str]], where: str) -> list[str]:
    lines = [f"  refused      {item['name']}: {item['reason']}" for item in refused[:SHOWN]]
    more = len(refused) - SHOWN
    return [*lines, f"               and {more:,} more, see {where}"] if more > 0 else lines
