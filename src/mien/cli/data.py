"""`mien data`: prepare photographs as packs, and inspect them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from mien.cli.data_text import check_text, pack_text
from mien.cli.result import Result
from mien.data import Preparation, find_source, prepare
from mien.data.archives import printable
from mien.data.assembly import REFUSED_SHARE
from mien.data.check import check
from mien.data.crops import Box
from mien.data.labels import strongest
from mien.data.open_pack import open_pack
from mien.data.pack import Pack, is_pack
from mien.data.stylegan import check_absent, write_zip
from mien.downloads.remote import is_remote
from mien.errors import UsageError

SHEETS = (".png", ".jpg", ".jpeg", ".webp")

Out = Annotated[Path | None, Parameter(name=("--out", "-o"))]
Switch = Parameter(negative=())
Workers = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def data_prepare(
    source: str,
    pack: Path,
    /,
    *,
    size: int | None = None,
    crop: str | None = None,
    box: str | None = None,
    resampler: str | None = None,
    blur: float = 0.0,
    background: str = "white",
    matte: str | None = None,
    eye_distance: float | None = None,
    eye_height: float = 0.47,
    max_outside: float = 1.0,
    labels: str = "",
    where: str = "",
    balance: str = "",
    limit: int | None = None,
    holdout: str = "0",
    dedupe: Annotated[bool, Switch] = False,
    variants: int | None = None,
    force: Annotated[bool, Switch] = False,
    workers: Workers = None,
) -> Result:
    """Prepare photographs as a pack, the data set that training reads.

    The same command again resumes after an interruption. Under torchrun all processes share the work. Examples:

        mien data prepare photos/ photos.pack --size 64
        mien data prepare celeba.zip men.pack --where Male=1 --labels Eyeglasses,Beard=!No_Beard,Bald
        mien data prepare photos.pack photos.zip        # the StyleGAN family's archive

    Parameters
    ----------
    source
        A folder, ZIP, tar, list of files, CSV or Parquet table, or pack; CelebA, LFW and other layouts are recognised. A pack may
        lie on a server: https://, s3:// or hf:// (needs the extra `remote`).
    pack
        Directory to create; with the ending .zip, an archive as the StyleGAN family reads it.
    size
        Height and width of the images in pixels; by default 64, or that of a pack.
    crop
        Crop: center, resize-center, squash, face, celeba-148, celeba-128-vae, lfw-150; by default that of the recognised
        layout.
    box
        LEFT,TOP,RIGHT,BOTTOM in pixels of every image, instead of a named crop.
    resampler
        Resampling filter: lanczos, bicubic, bilinear, area or nearest; bicubic-no-antialias or bilinear-no-antialias use only the
        nearest neighbours of a pixel. By default that of the crop, mostly lanczos.
    blur
        Standard deviation in pixels of a Gaussian blur of the crop before it is resized; by default none.
    background
        Colour behind transparent images.
    matte
        Replace the background behind people by grey, blur or a colour.
    eye_distance
        With --crop face, distance between the eyes as a fraction of the side: 0.26 shows the whole head, 0.47 the face only. By
        default the smallest distance at which at most 10% of the area must be filled in, over 100 random images of the source.
    eye_height
        With --crop face, distance of the eyes from the top as a fraction of the side.
    max_outside
        With --crop face, refuse an image when a larger fraction of its crop than this lies outside the picture.
    labels
        Labels to keep, in order: A,B or Beard=!No_Beard; by default all.
    where
        Keep only images that match: Male=1,Wearing_Hat=0 or Age=20..30.
    balance
        Equally many images of every combination of these labels, drawn at random: A,B.
    limit
        Images at most: a random sample of those that fit, the same every time.
    holdout
        Fraction of the images held out for evaluation, by identity if it is known; or official, the split of the source.
    dedupe
        Leave out exact and near duplicates.
    variants
        Number of training images in all: the images are repeated in turn, and each copy is shifted, scaled, turned and recoloured
        a little, as for vaegan-2016. Held-out images are not repeated.
    force
        Go on if more than 1% of the images are refused.
    workers
        Number of decoding processes; by default one per core.
    """
    preparation = Preparation(
        side=size,
        crop=crop,
        box=parse_box(box) if box else None,
        resampler=resampler,
        blur=blur,
        background=background,
        matte=matte,
        eye_distance=eye_distance,
        eye_height=eye_height,
        max_outside=max_outside,
        labels=words(labels),
        where=conditions(where),
        balance=words(balance),
        limit=limit,
        holdout=share(holdout),
        dedupe=dedupe,
        variants=variants,
    )
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    to_archive = pack.suffix.lower() == ".zip"
    if to_archive:
        check_absent(pack)
    if to_archive and (is_remote(source) or is_pack(Path(source))) and preparation == Preparation():  # as it is
        opened = open_pack(source)
        write_zip(opened, pack)
        return Result(f"{printable(str(pack))}: {len(opened):,} images", {"path": str(pack)})
    target = pack.with_name(f".{pack.name}.pack") if to_archive else pack
    made = prepare(find_source(source), target, preparation, workers=workers, force=force, rank=rank, world=world)
    if made is None:
        return Result(f"rank {rank} of {world} did its share of {printable(str(pack))}", {"rank": rank, "world": world})
    result = Result(pack_text(made, pack), pack_json(made, pack))
    if to_archive:
        write_zip(made, pack)
        shutil.rmtree(target)
    return result


def data_info(pack: str, /, *, out: Out = None) -> Result:
    """Show what a pack contains, after verifying every byte; write a contact sheet and a report page.

    Examples:

        mien data info photos.pack
        mien data info photos.pack -o about/
        mien data info https://example.org/photos.pack

    Parameters
    ----------
    pack
        A pack, or the address of one on a server: all of it is read.
    out
        Folder for contact.png and report.html; by default the pack itself, or NAME-info in this folder for one on a server.
    """
    from mien.report.pack_page import write_pack_page  # imports torch, which `prepare` does not need

    opened = open_pack(pack)
    opened.verify()
    lines = [pack_text(opened, pack)]
    sheet, page = write_pack_page(opened, out or Path(f"{Path(opened.name).stem}-info" if opened.address else pack))
    data = {**pack_json(opened, pack), "files": {"contact_sheet": str(sheet), "report": str(page)}}
    if opened.labels is not None:
        pairs = strongest(opened.label_names, opened.labels)
        data["correlations"] = [{"labels": [one, other], "correlation": round(value, 4)} for one, other, value in pairs]
        lines += [f"  {value:>+11.2f}  correlation of {one} and {other}" for one, other, value in pairs]
    return Result("\n".join([*lines, f"  wrote        {printable(f'{sheet}, {page}')}"]), data)


def data_check(
    source: str,
    /,
    *,
    out: Out = None,
    crop: str | None = None,
    size: int = 64,
    strict: Annotated[bool, Switch] = False,
    workers: Workers = None,
) -> Result:
    """Check photographs as `prepare` would, without writing a pack: damaged files, duplicates, sizes, labels.

    Writes a contact sheet. Examples:

        mien data check photos/
        mien data check celeba.zip -o sheet.png --strict

    Parameters
    ----------
    source
        What `mien data prepare` takes.
    out
        The contact sheet, a .png, .jpg or .webp, or a folder for it; by default NAME-check.png in this folder.
    crop
        As `mien data prepare` takes it.
    size
        Height and width of the images on the sheet, in pixels.
    strict
        Exit with code 3 if any image is refused, instead of more than 1%.
    workers
        Number of decoding processes; by default one per core.
    """

    name = source.rstrip("/").rpartition("/")[2] if is_remote(source) else Path(source).absolute().name
    sheet = sheet_path(out, f"{Path(name).stem}-check.png")
    examination = check(find_source(source), Preparation(side=size, crop=crop), workers)
    report = examination.report
    if len(examination.samples):
        from mien.report.grid import save_png  # imports torch: not while the source is listed
        from mien.report.pack_page import contact_sheet
        from mien.storage.provenance import Claim

        save_png(contact_sheet(examination.samples), sheet, {"source": name}, Claim.INPUT)
        report["contact_sheet"] = str(sheet)
    allowed = 0 if strict else REFUSED_SHARE * report["counts"]["selected"]
    return Result(check_text(report), report, exit_code=3 if report["counts"]["refused"] > allowed else 0)


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
            f"holdout must be a number in [0, 1) or official, not {text}.",
            "It is a fraction of the images.",
            "Give --holdout 0.1.",
        ) from None


def parse_box(text: str) -> Box:
    """`LEFT,TOP,RIGHT,BOTTOM` -> four pixel positions."""
    try:
        left, top, right, bottom = (int(word) for word in text.split(","))
        if not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except ValueError:
        example = "Write --box 25,50,153,178."
        raise UsageError(
            f"box must be four integers LEFT,TOP,RIGHT,BOTTOM, not {text}.", "LEFT < RIGHT and TOP < BOTTOM.", example
        ) from None
    return (left, top, right, bottom)


def pack_json(pack: Pack, path: Path | str) -> dict[str, Any]:
    """A pack as JSON: its path and pack.json."""
    return {"path": str(path), **pack.meta}
