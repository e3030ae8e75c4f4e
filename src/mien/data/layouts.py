"""What the names in a container mean: the layouts of face data sets, recognised by looking."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.data import tables
from mien.data.archives import Container, Member, base_name, images_in
from mien.data.source import Landmarks, Listing, stamp_of
from mien.errors import Untrusted
from mien.storage import bounded_json

CELEBA_SIZE = (178, 218)  # pixels, width and height of its aligned pictures
DOWNLOAD_AGAIN = "Download it again."
ALMOST_ALL = 0.9  # of the names must fit a pattern: public copies have a few strays
MOST_CLASS_FOLDERS = 100


@dataclass(frozen=True)
class View:
    """A container's members, as a layout looks at them."""

    container: Container
    images: Sequence[Member]
    others: dict[str, int]
    files: dict[str, Member]  # everything, by its name without folders; of two, the one less deep

    @cached_property
    def paths(self) -> list[tuple[str, ...]]:
        """The images' folders and names, without the folders that all of them share."""
        paths = [tuple(image.name.split("/")) for image in self.images]
        shared = 0
        while all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
            shared += 1
        return [path[shared:] for path in paths]

    def read(self, name: str) -> bytes:
        return self.container.read(self.files[name].name)

    def listing(self, layout: str) -> Listing:
        """Every image, without labels."""
        names = [image.name for image in self.images]
        return Listing(layout=layout, names=names, others=self.others, stamp=stamp_of(self.images))


def recognise(container: Container, layouts: Sequence[Callable[[View], Listing | None]] | None = None) -> Listing:
    """The listing of a container, by the first layout that it fits."""
    members = container.members()
    images, others = images_in(members)
    files: dict[str, Member] = {}
    for member in sorted(members, key=lambda member: -member.name.count("/")):
        files[base_name(member.name)] = member
    view = View(container, images, others, files)
    if images:
        for layout in layouts or LAYOUTS:
            if listing := layout(view):
                return listing
    return view.listing("folder")


def stylegan(view: View) -> Listing | None:
    """The StyleGAN family's archive: `dataset.json` with `labels`, a list of file name and vector or class number."""
    if "dataset.json" not in view.files:
        return None
    root = PurePosixPath(view.files["dataset.json"].name).parent
    try:
        described = bounded_json.loads_object(view.read("dataset.json"), max_bytes=1 << 28)
        given = {str(root / name): label for name, label in described["labels"] or []}
        return with_vectors(view.listing("stylegan"), given, described.get("mien", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Untrusted("dataset.json does not parse.", f"{error!r}.", "Pack the archive again.") from error


def with_vectors(listing: Listing, given: Mapping[str, Any], extra: Mapping[str, Any]) -> Listing:
    """The listing with labels by name, each a vector or a class number; `extra` is written by mien and ignored by others."""
    groups, parts = extra.get("groups"), extra.get("splits")
    if not all(told is None or len(told) == len(listing.names) for told in (groups, parts)):
        raise ValueError("groups and splits are not one for each image")
    listing = replace(listing, groups=groups if any(groups or ()) else None, parts=parts)
    rows = [given.get(name) for name in listing.names]
    known = [row for row in rows if row is not None]
    if not known:
        return listing
    if all(isinstance(row, int) for row in known):
        width = 1 + max(known)
        labels = np.full((len(rows), width), np.nan, np.float32)
        for number, row in enumerate(rows):
            if row is not None:
                labels[number] = np.arange(width) == row
        return replace(listing, label_names=tuple(f"class_{number}" for number in range(width)), labels=labels)
    width = len(known[0])
    labels = np.array([[math.nan] * width if row is None else row for row in rows], np.float32)
    scales = {name: (float(low), float(high)) for name, (low, high) in extra.get("label_scales", {}).items()}
    names = tuple(extra.get("label_names") or (f"label_{number}" for number in range(width)))
    if labels.shape != (len(rows), len(names)):
        raise ValueError(f"labels have {labels.shape[1:]} numbers for {len(names)} names")
    if not extra:
        for number, name in enumerate(names):
            labels[:, number], scale = tables.to_unit(labels[:, number].astype(np.float64))
            scales |= {name: scale} if scale != (0.0, 1.0) else {}
    return replace(listing, label_names=names, labels=labels, scales=scales)


def celeba(view: View) -> Listing | None:
    """CelebA: `list_attr_celeba.txt` (or .csv) beside the pictures, and the other lists when they are there."""
    found = read_rows(view, "list_attr_celeba")
    if found is None:
        return None
    name, rows, label_names, values = found
    labels = np.where(values == 1, 1, np.where(values == -1, 0, np.nan)).astype(np.float32)
    listing, order = match(view.listing("celeba"), rows, name)
    base_names = [base_name(name) for name in listing.names]
    identities = read_pairs(view, "identity_CelebA.txt")
    partition = read_pairs(view, "list_eval_partition.txt") or read_pairs(view, "list_eval_partition.csv")
    known_parts = {"0": "train", "1": "val", "2": "test"}
    landmarks = celeba_landmarks(view, base_names)
    return replace(
        listing,
        label_names=label_names,
        labels=labels[order],
        groups=[identities.get(name, "") for name in base_names] if identities else None,
        parts=[known_parts.get(partition.get(name, ""), "") for name in base_names] if partition else None,
        landmarks=landmarks,
        landmarks_of=CELEBA_SIZE,
        crop="celeba-148",
        stamp=stamp_of([listing.stamp, labels.tobytes(), identities, partition, *marks(landmarks)]),
    )


def celeba_landmarks(view: View, base_names: Sequence[str]) -> Landmarks | None:
    """Where CelebA has the eyes, nose and mouth of each picture; NaN where it does not say."""
    found = read_rows(view, "list_landmarks_align_celeba")
    if found is None:
        return None
    _, rows, _, values = found
    if values.shape[1] != 10:
        raise Untrusted("list_landmarks_align_celeba does not parse.", "There are ten numbers a face.", DOWNLOAD_AGAIN)
    place = {name: row for row, name in enumerate(rows)}
    known = np.concatenate([values, np.full((1, 10), np.nan, np.float32)])
    points = known[[place.get(name, -1) for name in base_names]].reshape(-1, 5, 2)
    middles = points + 0.5  # it names pixels
    shares: Landmarks = np.divide(middles, np.array(CELEBA_SIZE), dtype=np.float32)
    return shares


def marks(landmarks: Landmarks | None) -> list[bytes]:
    """What landmarks add to a stamp."""
    return [] if landmarks is None else [landmarks.tobytes()]


def read_rows(view: View, name: str) -> tuple[str, list[str], tuple[str, ...], NDArray[np.float32]] | None:
    """One of CelebA's lists, `name`.txt or .csv: its full name, the files, the column names and numbers; None without it.

    As text: a count, a line of names, then a file name and a number for each column.
    """
    if f"{name}.txt" in view.files:
        try:
            count, header, *lines = view.read(f"{name}.txt").decode("utf-8").splitlines()
            columns = tuple(header.split())
            split = [line.split(maxsplit=1) for line in lines if line.strip()]
            if len(split) != int(count):
                raise ValueError(f"the first line promises {count} rows, there are {len(split)}")
            values = np.array([], np.float32)
            if split:
                values = np.loadtxt([rest for _, rest in split], np.float32, comments=None, ndmin=2)
            return f"{name}.txt", [file for file, _ in split], columns, values.reshape(len(split), len(columns))
        except ValueError as error:
            raise Untrusted(f"{name}.txt does not parse.", f"{error}.", DOWNLOAD_AGAIN) from error
    if f"{name}.csv" in view.files:
        table = dict(tables.read_csv(view.read(f"{name}.csv"), f"{name}.csv"))
        files = list(table.pop(next(iter(table))))
        numbers = [[tables.to_float(value) for value in column] for column in table.values()]
        return (
            f"{name}.csv",
            files,
            tuple(map(tables.clean, table)),
            np.array(numbers, np.float32).reshape(len(table), -1).T,
        )
    return None


def read_pairs(view: View, name: str) -> dict[str, str]:
    """A list with a file name and one word a line; empty when it is not there."""
    if name not in view.files:
        return {}
    text = view.read(name).decode("utf-8", errors="replace").replace(",", " ")
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}


def match(listing: Listing, rows: Sequence[str], table: str) -> tuple[Listing, list[int]]:
    """The images that a table names, the table's row of each, and a remark on what has no partner."""
    exact = {name: row for row, name in enumerate(rows)}
    known = {base_name(name): row for row, name in enumerate(rows)}
    found = [exact.get(name, -1) for name in listing.names]
    found = [known.get(base_name(name), -1) if row < 0 else row for name, row in zip(listing.names, found, strict=True)]
    kept = [number for number, row in enumerate(found) if row >= 0]
    remarks = list(listing.remarks)
    if len(kept) < len(found):
        remarks.append(f"{len(found) - len(kept):,} pictures are not in {table} and were left aside.")
    order = [found[number] for number in kept]
    if len(set(order)) < len(rows):
        remarks.append(f"{len(rows) - len(set(order)):,} lines of {table} have no picture.")
    return replace(listing.take(np.array(kept, dtype=np.int64)), remarks=remarks), order


def utkface(view: View) -> Listing | None:
    """UTKFace: age, gender and race in the names, `[age]_[gender]_[race]_[time].jpg`; a few lack one of them."""
    pattern = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d{8,})")
    found = [pattern.match(path[-1]) for path in view.paths]
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
    return replace(view.listing("utkface"), label_names=names, labels=labels, scales={"Age": (0.0, oldest)})


def lfw(view: View) -> Listing | None:
    """Labeled Faces in the Wild: a folder for each person, `Name/Name_0001.jpg`."""
    fits = [
        len(path) >= 2
        and path[-1].rpartition(".")[0][:-5] == path[-2]
        and re.match(r"_\d{4}\.", path[-1][len(path[-2]) :]) is not None
        for path in view.paths
    ]
    if sum(fits) < ALMOST_ALL * len(fits):
        return None
    groups = [path[-2] if fit else "" for path, fit in zip(view.paths, fits, strict=True)]
    return replace(view.listing("lfw"), groups=groups, crop="lfw-150")


def ffhq(view: View) -> Listing | None:
    """FFHQ: five digits in folders of a thousand, `00000/00012.png`."""
    fits = [re.fullmatch(r"(\d\d000/)?\d{5}\.(png|jpg|webp)", "/".join(path[-2:])) for path in view.paths]
    foldered = sum(len(path) > 1 and path[-2].endswith("000") for path in view.paths)
    named = any("ffhq" in image.name.lower() or "thumbnails128" in image.name.lower() for image in view.images[:1])
    if sum(map(bool, fits)) < ALMOST_ALL * len(fits) or not (foldered or named):
        return None
    return view.listing("ffhq")


def simpsons(view: View) -> Listing | None:
    """The Simpsons faces: `cropped/*.png`, squashed to the side as Leikrit/LMH_Summer_Programme does."""
    if not all("cropped" in PurePosixPath(image.name).parts[:-1] for image in view.images):
        return None
    return replace(view.listing("simpsons"), crop="squash")


def table(view: View) -> Listing | None:
    """Any CSV or TSV that names most of the files."""
    known = frozenset(path[-1] for path in view.paths)
    for name in sorted(name for name in view.files if name.lower().endswith((".csv", ".tsv"))):
        columns = tables.read_csv(view.read(name), name)
        files = tables.file_column(columns, known)
        if files is None:
            continue
        described = tables.describe(columns, columns[files], files)
        listing, order = match(view.listing("table"), described.files, name)
        return with_table(listing, described, order)
    return None


def with_table(listing: Listing, described: tables.Described, order: Sequence[int]) -> Listing:
    """The listing with what a table says of its rows."""
    return replace(
        listing,
        label_names=described.label_names,
        labels=described.labels[list(order)] if described.label_names else None,
        scales=described.scales,
        groups=[described.groups[row] for row in order] if described.groups else None,
        parts=[described.parts[row] for row in order] if described.parts else None,
        remarks=[*listing.remarks, *described.remarks],
        stamp=stamp_of([listing.stamp, described.labels.tobytes(), described.groups, described.parts]),
    )


def classes(view: View) -> Listing | None:
    """A folder for each class, and every image in one of them: the folders are labels."""
    if not all(len(path) == 2 for path in view.paths):
        return None
    counts = Counter(path[0] for path in view.paths)
    if not 2 <= len(counts) <= MOST_CLASS_FOLDERS:
        return None
    names = tuple(sorted(counts))
    labels = np.array([[path[0] == name for name in names] for path in view.paths], dtype=np.float32)
    return replace(view.listing("classes"), label_names=tuple(tables.clean(name) for name in names), labels=labels)


LAYOUTS: tuple[Callable[[View], Listing | None], ...] = (stylegan, celeba, lfw, utkface, ffhq, simpsons, table, classes)
