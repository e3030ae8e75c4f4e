"""What the names in a container mean: the layouts of face data sets, recognised by their files."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from mien.data import celeba, stylegan
from mien.data.archives import Container
from mien.data.contents import Contents, without_shared
from mien.data.label_tables import add_tables, shorten
from mien.data.source import Listing
from mien.data.table_labels import clean, split_of

ALMOST_ALL = 0.9  # of the names must fit a pattern: public copies have a few strays
MOST_CLASS_FOLDERS = 100

#: Looks at names and returns a listing if they fit; what it leaves aside is appended as sentences.
Layout = Callable[[Contents, list[str]], Listing | None]


def recognise(container: Container, layouts: Sequence[Layout] | None = None) -> Listing:
    """The listing of a container: by the first layout that it fits, with the tables beside the pictures."""
    contents = Contents.of(container)
    if not contents.images:
        return contents.listing("folder")
    listing, remarks = None, list[str]()
    for layout in LAYOUTS if layouts is None else layouts:
        listing = layout(contents, remarks)
        if listing is not None:
            break
    listing = contents.listing("folder") if listing is None else listing
    listing = replace(listing, remarks=[*remarks, *listing.remarks])
    return complete(add_tables(contents, listing, (*celeba.FILES, stylegan.LABEL_FILE)))


def complete(listing: Listing) -> Listing:
    """The listing with remarks on pictures without labels, and on its own split."""
    remarks = list(listing.remarks)
    if listing.labels is not None:
        unknown = np.flatnonzero(np.isnan(listing.labels).all(axis=1)).tolist()
        if unknown:
            names = shorten([listing.names[row] for row in unknown])
            remarks.append(f"{len(unknown):,} of {len(listing.names):,} pictures carry no label: {names}.")
    if listing.splits is not None and any(listing.splits):
        counts = Counter(split or "unnamed" for split in listing.splits)
        words = ", ".join(f"{count:,} {split}" for split, count in sorted(counts.items()))
        use = (
            "holdout is held out" if "holdout" in counts else "`--holdout official` uses it, else all are for training"
        )
        remarks.append(f"The source has its own split: {words}. {use[0].upper()}{use[1:]}.")
    return replace(listing, remarks=remarks)


def utkface(contents: Contents, remarks: list[str]) -> Listing | None:
    """UTKFace: age, gender and race in the names, `[age]_[gender]_[race]_[time].jpg`; a few lack one of them."""
    pattern = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d{8,})")
    found = [pattern.match(path[-1]) for path in contents.paths]
    if sum(fit is not None for fit in found) < ALMOST_ALL * len(found):
        return None
    oldest = 116.0  # the data set's greatest age
    races = ("White", "Black", "Asian", "Indian", "Other_Race")
    rows = []
    for fit in found:
        if fit is None:
            rows.append([math.nan] * (2 + len(races)))
        else:
            age, gender, race = (int(fit[group]) for group in (1, 2, 3))
            rows.append(
                [min(age / oldest, 1.0), float(gender == 0), *(float(race == number) for number in range(len(races)))]
            )
    labels = np.array(rows, dtype=np.float32)
    names = ("Age", "Male", *races)
    return replace(contents.listing("utkface"), label_names=names, labels=labels, scales={"Age": (0.0, oldest)})


def lfw(contents: Contents, remarks: list[str]) -> Listing | None:
    """Labeled Faces in the Wild: a folder for each person, `Name/Name_0001.jpg`."""
    fits = [
        len(path) >= 2
        and path[-1].rpartition(".")[0][:-5] == path[-2]
        and re.match(r"_\d{4}\.", path[-1][len(path[-2]) :]) is not None
        for path in contents.paths
    ]
    if sum(fits) < ALMOST_ALL * len(fits):
        return None
    groups = [path[-2] if fit else "" for path, fit in zip(contents.paths, fits, strict=True)]
    return replace(contents.listing("lfw"), groups=groups, crop="lfw-150")


def ffhq(contents: Contents, remarks: list[str]) -> Listing | None:
    """FFHQ: five digits in folders of a thousand, `00000/00012.png`."""
    fits = [re.fullmatch(r"(\d\d000/)?\d{5}\.(png|jpg|webp)", "/".join(path[-2:])) for path in contents.paths]
    foldered = sum(len(path) > 1 and path[-2].endswith("000") for path in contents.paths)
    named = any("ffhq" in image.name.lower() or "thumbnails128" in image.name.lower() for image in contents.images[:1])
    if sum(map(bool, fits)) < ALMOST_ALL * len(fits) or not (foldered or named):
        return None
    return contents.listing("ffhq")


def simpsons(contents: Contents, remarks: list[str]) -> Listing | None:
    """The Simpsons faces: `cropped/*.png`, squashed to the side as Leikrit/LMH_Summer_Programme does."""
    if not all("cropped" in PurePosixPath(image.name).parts[:-1] for image in contents.images):
        return None
    return replace(contents.listing("simpsons"), crop="squash")


def folders(contents: Contents, remarks: list[str]) -> Listing | None:
    """Folders: `train` and `test` are splits, as such names are, folders of pictures are classes, many are identities."""
    paths, splits = without_splits(contents.paths)
    splits = splits or splits_of_names(paths)
    listing = contents.listing("folder")
    if splits is not None:
        listing = replace(listing, layout="splits", splits=splits)
        others = sorted({path[0] for path, split in zip(contents.paths, splits, strict=True) if not split})
        if others:
            remarks.append(f"{shorten(others)} is neither train, val nor test: its pictures are for training.")
    counts = Counter(path[0] for path in paths if len(path) > 1)
    if len(counts) < 2:
        return listing
    foldered = sum(counts.values())
    where = splits or [""] * len(paths)
    sorted_splits = {split for split, path in zip(where, paths, strict=True) if len(path) > 1}  # not always the test's
    if foldered < ALMOST_ALL * sum(split in sorted_splits for split in where):
        remarks.append(
            f"{len(paths) - foldered:,} of {len(paths):,} pictures lie outside of the folders {shorten(sorted(counts))}: "
            "folders are no labels here. Put each picture into one of them, if they are."
        )
        return listing
    if all(re.fullmatch(r"(?:\D*)0\d{3,}", name) or re.fullmatch(r"\d{5,}", name) for name in counts):
        remarks.append(f"The folders {shorten(sorted(counts))} are numbered: they are no labels.")
        return listing
    if len(counts) > MOST_CLASS_FOLDERS:
        remarks.append(
            f"{len(counts):,} folders are too many for labels ({MOST_CLASS_FOLDERS} at most): they are taken as identities, "
            "which `--holdout` never divides."
        )
        return replace(listing, groups=[path[0] if len(path) > 1 else "" for path in paths])
    names = tuple(sorted(counts))
    place = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(paths), len(names)), dtype=np.float32)
    for row, path in enumerate(paths):
        if len(path) > 1:
            labels[row, place[path[0]]] = 1
        else:
            labels[row] = math.nan
    if any(len(path) > 2 for path in paths):
        remarks.append("Folders inside of the class folders are no labels.")
    remarks.append(f"The folders are labels: {shorten(names)}.")
    return replace(listing, layout="classes", label_names=tuple(clean(name) for name in names), labels=labels)


Paths = list[tuple[str, ...]]


def without_splits(paths: Paths) -> tuple[Paths, list[str] | None]:
    """Paths without the folder that names a split, and the split of each; None where folders do not name splits.

    The folder is the first or the second, such as `train/anger/1.jpg` or `anger/train/1.jpg`.
    """
    for level in (0, 1):
        counts = Counter(path[level] for path in paths if len(path) > level + 1)
        splits = {name: split_of(name) for name in counts}
        found = {split for split in splits.values() if split}
        if len(found) < 2 or sum(counts.values()) < ALMOST_ALL * len(paths):
            continue
        known = sum(count for name, count in counts.items() if splits[name])
        if (level == 1 and known < len(paths)) or ("train" not in found and known < len(paths)):
            continue
        rest = [path[:level] + path[level + 1 :] if len(path) > level + 1 else path for path in paths]
        return without_shared(rest), [splits.get(path[level], "") if len(path) > level + 1 else "" for path in paths]
    return paths, None


def splits_of_names(paths: Paths) -> list[str] | None:
    """The split of each picture by names such as `train_00001_aligned.jpg`; None unless each begins so, with more than one."""
    splits = [split_of(re.split(r"[\W_]", path[-1], maxsplit=1)[0]) for path in paths]
    return splits if all(splits) and len(set(splits)) > 1 else None


LAYOUTS: tuple[Layout, ...] = (stylegan.stylegan, celeba.celeba, lfw, utkface, ffhq, simpsons, folders)
