"""What users bring: layouts and tables, each with what is used, what is left aside and the sentence that says so.

The table in docs/data.md has a row for each of them, under the same title.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.__main__ import main
from mien.data import Preparation, find_source, prepare
from mien.data.label_tables import spread
from mien.data.name_index import NONE, NameIndex
from mien.data.source import Listing
from mien.errors import DataError, MienError, Untrusted, UsageError
from tests.data_torture import face, saved

JPEG = saved(face(32, 32), "JPEG")
PNG = saved(face(24, 24), "PNG")
TEN = [f"{number:06d}.jpg" for number in range(1, 11)]
AGES = [20, 30, 40, 25, 35, 60, 22, 44, 51, 33]
NAN = float("nan")

Files = Mapping[str, bytes | str | None]  # None is a picture


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG if content is None else content.encode() if isinstance(content, str) else content)
    return folder


def pictures(*names: str) -> dict[str, bytes | str | None]:
    return dict.fromkeys(names)


def table(rows: Sequence[Sequence[object]], header: str = "file,age", separator: str = ",") -> str:
    return "\n".join([header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]) + "\n"


def ages(names: Sequence[str] = TEN, header: str = "file,age", separator: str = ",") -> str:
    return table(list(zip(names, AGES, strict=False)), header, separator)


def column_of(title: str, cells: Sequence[object], separator: str = ",") -> dict[str, bytes | str | None]:
    """Ten pictures, and a table with one column beside their names."""
    rows = list(zip(TEN, cells, strict=True))
    return {**pictures(*TEN), "labels.csv": table(rows, f"file,{title}", separator)}


def in_zip(files: Files) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "faces.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, JPEG if content is None else content)
        return folder / "faces.zip"

    return build


@dataclass(frozen=True, kw_only=True)
class Case:
    """One situation: `files` in a folder, or what `build` makes, and what must become of it."""

    files: Files = field(default_factory=dict)
    build: Callable[[Path], Path] | None = None
    count: int = 10  # pictures
    layout: str = ""
    labels: Sequence[str] | None = None
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)  # the first of each label, NaN = not known
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    says: Sequence[str] = ()  # each must stand in a remark
    error: type[MienError] | None = None  # says then stands in the error
    needs: str = ""  # a package


TAGS = ["hat|smile", "smile", "hat", "beard|hat", "", "beard", "hat", "smile", "hat|smile", "beard|smile"]
AGE = {"age": [(age - 20) / 40 for age in AGES]}
TABLE_USED = "labels.csv is used: the column file names 10 of 10 pictures, the others give the labels age."
ATTRIBUTES = "Male Smiling\n" + "".join(f"{name} {1 - 2 * (n % 2)} -1\n" for n, name in enumerate(TEN))
MALE = {"Male": [1, 0] * 5, "Smiling": [0] * 10}
SPLIT_FILES = [f"{split}/{mood}/{n}.jpg" for split in ("train", "val") for mood in ("anger", "joy") for n in (1, 2)]


def parquet_file(path: Path, rows: Sequence[int], **columns: Sequence[object]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": saved(face(24 + row, 24), "PNG"), "path": f"{row}.png"} for row in rows]
    features = {"label": {"names": ["anger", "joy", "fear"], "_type": "ClassLabel"}}
    data = pyarrow.table({"image": images, **columns})
    data = data.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(data, path)


def hub_folder(folder: Path, *, shards: Sequence[str], other: bool = False) -> Path:
    for number, name in enumerate(shards):
        parquet_file(folder / "hub" / name, range(2 * number, 2 * number + 2), label=[number % 3, 2])
    if other:
        parquet_file(folder / "hub" / "data/other-00000-of-00001.parquet", [0], caption=["a face"])
    (folder / "hub" / "README.md").write_text("# a data set")
    return folder / "hub"


def npz(folder: Path, name: str = "faces.npz", compressed: bool = False, **arrays: np.ndarray) -> Path:
    (np.savez_compressed if compressed else np.savez)(folder / name, **arrays)  # type: ignore[arg-type]
    return folder / name


def pixels(count: int = 10, *shape: int, kind: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (count, *(shape or (20, 24, 3))))
    return values.astype(np.uint8) if kind == "uint8" else (values / 255).astype(np.float32)


def npy(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "faces.npy", values)
    return folder / "faces.npy"


def bytes_named(folder: Path) -> Path:
    for number in range(10):
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9%d.jpg" % number)).write_bytes(JPEG)
    return folder


def with_pipe(folder: Path) -> Path:
    write(folder, pictures(*TEN))
    os.mkfifo(folder / "labels.csv")
    return folder


def as_file(name: str, content: bytes | str, *beside: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        return write(folder, {**pictures(*beside), name: content}) / name

    return build


def given_parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    write(folder, pictures(*(f"images/{name}" for name in TEN)))
    pyarrow.parquet.write_table(pyarrow.table({"name": TEN, "age": AGES}), folder / "labels.parquet")
    return folder / "labels.parquet"


def parquet_beside(folder: Path) -> Path:
    given_parquet(folder)
    return folder


def broken_shard(folder: Path) -> Path:
    hub = hub_folder(folder, shards=["data/train-00000-of-00002.parquet"])
    (hub / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1 cut off")
    return hub


def many_rows(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.array(np.zeros(3_000_000, np.int8))
    data = pyarrow.table({"image": pyarrow.nulls(3_000_000, pyarrow.binary()), "label": column})
    pyarrow.parquet.write_table(data, folder / "bomb.parquet", compression="zstd")
    return folder / "bomb.parquet"


def saved_splits(folder: Path) -> Path:
    import pyarrow

    for split, rows in (("train", (0, 1, 2)), ("test", (3,))):
        images = [{"bytes": saved(face(24 + row, 24), "PNG"), "path": None} for row in rows]
        data = pyarrow.table({"image": images, "age": list(rows)})
        (folder / "set" / split).mkdir(parents=True)
        with (
            pyarrow.OSFile(str(folder / "set" / split / "data-00000-of-00001.arrow"), "wb") as sink,
            pyarrow.ipc.new_stream(sink, data.schema) as writer,
        ):
            writer.write_table(data)
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder / "set"


def sevenfold(folder: Path) -> Path:
    with tarfile.open(folder / "faces.tar", "w") as archive:
        for name, content in {**pictures(*TEN), "labels.csv": ages()}.items():
            data = JPEG if content is None else str(content).encode()
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return folder / "faces.tar"


COLUMNS_LEFT_ASIDE = [
    (
        "dates",
        "taken",
        [f"2019-05-{n:02d}" for n in range(1, 11)],
        "holds dates or times (`2019-05-01`) and is no label.",
    ),
    ("dates, day first", "taken", [f"{n}.5.2019" for n in range(1, 6)] * 2, "holds dates or times (`1.5.2019`)"),
    ("dates with a time", "taken", [f"2019-05-0{n}T10:00:00Z" for n in range(1, 6)] * 2, "holds dates or times"),
    ("dates in words", "taken", [f"May {n} 2019" for n in range(1, 11)], "holds dates or times"),
    ("dates without separators", "taken", [f"201905{n:02d}" for n in range(1, 11)], "holds dates or times"),
    ("seconds since 1970", "timestamp", [str(1_557_000_000 + n * 977) for n in range(10)], "holds dates or times"),
    (
        "addresses on the web",
        "source",
        [f"https://example.org/{n}" for n in range(5)] * 2,
        "holds addresses, files or other",
    ),
    (
        "paths",
        "mask",
        [f"masks/{n}.png" for n in range(10)],
        "holds addresses, files or other identifiers (`masks/0.png`)",
    ),
    ("hashes", "sum", [f"{n}d41402abc4b2a76b9719d911017c592" for n in range(10)], "holds addresses, files or other"),
    ("long numbers", "post", [str(201701161745000 + n) for n in range(10)], "holds addresses, files or other"),
    (
        "numbers of accounts",
        "user_id",
        [str(1000 + 7 * n) for n in range(10)],
        "holds a different number for each picture",
    ),
    ("names", "who", [f"Ann {n}" for n in range(10)], "has 10 different words in 10 lines (`Ann 0`) and is no label."),
    ("long texts", "story", [f"{n % 2} " + "once upon a time " * 9 for n in range(10)], "holds texts of more than 80"),
]
TENTHS = [n / 9 for n in range(10)]
WRITTEN_NUMBERS: list[tuple[str, list[str], list[float], list[str]]] = [
    ("1,5", [f"{n},5" for n in range(2, 11)], TENTHS, []),
    ("10%", [f"{n}0 %" for n in range(2, 11)], TENTHS, ["The numbers of value in labels.csv are in %."]),
    ("1,000", [f"{n},000" for n in range(2, 11)], TENTHS, ["Commas in value in labels.csv separate thousands"]),
    ("1.000,5", [f"{n}.000,5" for n in range(2, 11)], TENTHS, []),
    ("1 000", [f"{n} 000" for n in range(2, 11)], TENTHS, []),
]


CASES: dict[str, Case] = {
    # ---- tables beside pictures: which pictures they name
    "table that names every picture": Case(
        files={**pictures(*TEN), "labels.csv": ages()}, layout="table", values=AGE, says=[TABLE_USED]
    ),
    "table that names more pictures than are there": Case(
        files={**pictures(*TEN), "labels.csv": ages() + "".join(f"x{n}.jpg,30\n" for n in range(90))},
        values=AGE,
        says=[TABLE_USED, "90 lines of labels.csv have no picture here."],
    ),
    "table that names some of the pictures": Case(
        files={**pictures(*TEN), "labels.csv": ages(TEN[:6])},
        values={"age": [0, 0.25, 0.5, 0.125, 0.375, 1, NAN, NAN, NAN, NAN]},
        says=["names 6 of 10 pictures", "4 of 10 pictures carry no label: 000007.jpg, 000008.jpg"],
    ),
    "table that names none of the pictures": Case(
        files={**pictures(*TEN), "labels.csv": ages([f"face{n}.jpg" for n in range(10)])},
        labels=[],
        says=["labels.csv is left aside. None of its columns names one of the pictures.", "such as 000001.jpg"],
    ),
    "table that names one picture by chance": Case(
        files={**pictures(*TEN), "labels.csv": ages(["000001.jpg", *(f"face{n}.jpg" for n in range(9))])},
        labels=[],
        says=["labels.csv is left aside. Its column file names 1 of 10 pictures in 10 lines"],
    ),
    "names without their ending": Case(
        files={**pictures(*TEN), "labels.csv": ages([name[:-4] for name in TEN])}, values=AGE, says=[TABLE_USED]
    ),
    "names with another ending": Case(
        files={**pictures(*TEN), "labels.csv": ages([name.replace("jpg", "png") for name in TEN])}, values=AGE
    ),
    "names in capitals": Case(files={**pictures(*TEN), "labels.csv": ages([name.upper() for name in TEN])}, values=AGE),
    "names that a spreadsheet made numbers of": Case(
        files={**pictures(*TEN), "labels.csv": ages([str(n) for n in range(1, 11)], "id,age")}, values=AGE
    ),
    "names with backslashes": Case(
        files={**pictures(*(f"faces/{n}" for n in TEN)), "labels.csv": ages([f"faces\\{n}" for n in TEN])}, values=AGE
    ),
    "names with the path of another machine": Case(
        files={**pictures(*(f"faces/{n}" for n in TEN)), "labels.csv": ages([f"C:\\Users\\me\\set\\{n}" for n in TEN])},
        values=AGE,
    ),
    "names that begin with ./": Case(
        files={**pictures(*TEN), "labels.csv": ages([f"./{name}" for name in TEN])}, values=AGE
    ),
    "names of decomposed letters": Case(
        files={
            **pictures(*(f"é{n}.jpg" for n in range(10))),
            "labels.csv": ages([f"e\u0301{n}.jpg" for n in range(10)]),
        },
        values=AGE,
    ),
    "equal names in two folders, told apart by folder": Case(
        files={**pictures("a/1.jpg", "b/1.jpg"), "labels.csv": table([("a/1.jpg", 20), ("b/1.jpg", 60)])},
        count=2,
        values={"age": [0, 1]},
    ),
    "equal names in two folders, not told apart": Case(
        files={
            **pictures("x/y/1.jpg", "x/z/1.jpg", "x/z/2.jpg", "3.jpg"),
            "labels.csv": table([("1.jpg", 20), ("2.jpg", 60), ("3.jpg", 40)]),
        },
        count=4,
        values={"age": [0, NAN, NAN, 1]},
        says=["1 lines of labels.csv fit several pictures and were left aside. Write their folders."],
    ),
    "names of the other split": Case(
        files={
            **pictures(*(f"faces/val/{n}.jpg" for n in range(5)), *(f"faces/train/{n}.jpg" for n in range(3, 8))),
            "labels.csv": table([(f"train/{n}.jpg", 20 + n) for n in range(8)]),
        },
        splits=["train"] * 5 + ["val"] * 5,
        values={"age": [0, 0.25, 0.5, 0.75, 1, NAN, NAN, NAN, NAN, NAN]},
    ),
    "two lines for one picture": Case(
        files={**pictures(*TEN), "labels.csv": ages() + "000001.jpg,60\n"},
        values=AGE,
        says=[
            "1 lines of labels.csv name a picture again: its first line counts.",
            "1 of these lines say something else than the first (`000001.jpg`, age: `20` and `60`) and were left aside.",
        ],
    ),
    "one table for each split": Case(
        files={
            **pictures(*(f"images/{name}" for name in TEN)),
            "train.csv": ages(TEN[:7]),
            "test.csv": table(list(zip(TEN, AGES, strict=True))[7:]),
        },
        values=AGE,
        splits=["train"] * 7 + ["test"] * 3,
        says=["test.csv and train.csv are used: the column file names 10 of 10 pictures"],
    ),
    "two tables with other columns": Case(
        files={
            **pictures(*TEN),
            "ages.csv": ages(),
            "smiles.csv": table([(n, i % 2) for i, n in enumerate(TEN)], "file,smile"),
        },
        labels=["age", "smile"],
        values=AGE | {"smile": [0, 1] * 5},
    ),
    "table beside class folders": Case(
        files={**pictures(*(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(TEN))), "labels.csv": ages()},
        labels=["a", "b", "age"],
        says=["The folders are labels: a, b.", TABLE_USED],
    ),
    "class column that says what the class folders say": Case(
        files={
            **pictures(*(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(TEN))),
            "labels.csv": table(
                [(name, "AB"[n % 2], age) for n, (name, age) in enumerate(zip(TEN, AGES, strict=True))],
                "file,class,age",
            ),
        },
        labels=["a", "b", "age"],
        says=["class of labels.csv says the same as the folders."],
    ),
    "class column that contradicts the class folders": Case(
        files={
            **pictures(*(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(TEN))),
            "labels.csv": table([(name, "ab"[n % 2] if n != 4 else "b") for n, name in enumerate(TEN)], "file,class"),
        },
        labels=["a", "b"],
        says=[
            "class of labels.csv contradicts the folders for 1 of 10 pictures (a/000005.jpg: `b`): the folders count."
        ],
    ),
    "class numbers that contradict the class folders": Case(
        files={
            **pictures(*(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(TEN))),
            "labels.csv": table([(name, (n + 1) % 2 if n != 4 else 0) for n, name in enumerate(TEN)], "file,label"),
        },
        labels=["a", "b"],
        says=["label of labels.csv contradicts the folders for 1 of 10 pictures (a/000005.jpg: `0`)"],
    ),
    "class column beside class folders and strays": Case(
        files={
            **pictures(*(f"{'ab'[n % 2]}/{n}.jpg" for n in range(20)), "20.jpg"),
            "labels.csv": table([(f"{n}.jpg", "ab"[n % 2]) for n in range(21)], "file,class"),
        },
        count=21,
        labels=["a", "b", "class_b"],
    ),
    "a column about something else beside class folders": Case(
        files={
            **pictures(*(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(TEN))),
            "labels.csv": table([(name, "abc"[n % 3] + "x") for n, name in enumerate(TEN)], "file,class"),
        },
        labels=["a", "b", "class_ax", "class_bx", "class_cx"],
    ),
    **{
        f"several words in a cell, divided by {name}": Case(
            files=column_of("tags", [cell.replace("|", sign) for cell in TAGS], separator),
            values={"tags_beard": [0, 0, 0, 1, NAN], "tags_hat": [1, 0, 1, 1, NAN], "tags_smile": [1, 1, 0, 0, NAN]},
            labels=["tags_beard", "tags_hat", "tags_smile"],
            says=[
                "The column tags of labels.csv holds several words in a cell, divided by",
                "each of the 3 is a label",
            ],
        )
        for name, sign, separator in (("a bar", "|", ","), ("semicolons", ";", ","), ("commas", ", ", ";"))
    },
    "several words in a cell, as Python writes lists": Case(
        files=column_of(
            "tags",
            ["['hat', 'smile']", "['smile']", "[]", "['hat']", "['beard', 'hat']", "['beard']"] + ["[]"] * 4,
            ";",
        ),
        values={
            "tags_beard": [0, 0, 0, 0, 1, 1, 0],
            "tags_hat": [1, 0, 0, 1, 1, 0, 0],
            "tags_smile": [1, 1, 0, 0, 0, 0, 0],
        },
    ),
    "several of too many words in a cell": Case(
        files={
            **pictures(*(f"{n:03d}.jpg" for n in range(140))),
            "labels.csv": table(
                [(f"{n:03d}.jpg", f"w{n % 70};w{(n + 1) % 70};w{(3 * n) % 70}") for n in range(140)], "file,tags"
            ),
        },
        count=140,
        labels=[],
        says=["holds several words in a cell (`w0;w1;w0`), has 70 different words, more than 64, and is no label."],
    ),
    "lists of words in JSON Lines": Case(
        files={
            **pictures(*TEN),
            "metadata.jsonl": "".join(
                json.dumps({"file_name": name, "tags": tags, "box": [1, 2, 3, 4]}) + "\n"
                for name, tags in zip(
                    TEN, [["hat", "smile"], ["smile"], [], ["hat"]] * 2 + [["beard", "hat"], ["beard"]], strict=True
                )
            ),
        },
        values={"tags_hat": [1, 0, 0, 1], "tags_smile": [1, 1, 0, 0]},
        says=["box of metadata.jsonl holds lists", "tags of metadata.jsonl holds several words in a cell"],
    ),
    "names with a comma": Case(
        files=column_of("who", [f"Smith{n}, Ann{n}" for n in range(10)], ";"),
        labels=[],
        says=["has 10 different words in 10 lines"],
    ),
    "boxes in one column": Case(
        files=column_of("box", [f"{n},{n + 1},{n % 3},{n % 4}" for n in range(10)], ";"),
        labels=[],
        says=["The column box of labels.csv has 10 different words"],
    ),
    "1.234 beside 2,5, among hundreds": Case(
        files=column_of("value", ["1.234", "2,5", "980,1", *range(7)], ";"),
        values={"value": [1, 2.5 / 1234, 980.1 / 1234, 0]},
        says=["Dots in value in labels.csv separate thousands: `1.234` is 1234."],
    ),
    "1.234 beside 2,5, among small numbers": Case(
        files=column_of("value", ["1.234", "2,5", "1.456", *range(7)], ";"),
        values={"value": [1.234 / 6, 2.5 / 6, 1.456 / 6, 0]},
        says=["Dots and commas in value in labels.csv are both decimal: `1.234` is 1.234 and `2,5` is 2.5."],
    ),
    "1,234 beside 2.5, among small numbers": Case(
        files=column_of("value", ["1,234", "2.5", "3.25", *range(7)], "\t"),
        values={"value": [1.234 / 6, 2.5 / 6, 3.25 / 6, 0]},
        says=["Dots and commas in value in labels.csv are both decimal"],
    ),
    "table of names and nothing more": Case(
        files={**pictures(*TEN), "names.csv": "file\n" + "\n".join(TEN)},
        labels=[],
        says=["names.csv is left aside. It names pictures and says nothing of them."],
    ),
    "table without a line of titles": Case(
        files={**pictures(*TEN), "labels.csv": ages().partition("\n")[2]},
        values={"column_2": AGE["age"]},
        says=["the column column_1 names 10 of 10 pictures"],
    ),
    "list with spaces beside pictures": Case(
        files={**pictures(*TEN), "labels.txt": ages(separator=" ").partition("\n")[2]}, values={"column_2": AGE["age"]}
    ),
    "prose beside pictures": Case(files={**pictures(*TEN), "readme.txt": "Faces of friends, 2019.\n"}, labels=[]),
    "table in an archive": Case(build=in_zip({**pictures(*TEN), "labels.csv": ages()}), values=AGE, says=[TABLE_USED]),
    "table in a tar": Case(build=sevenfold, values=AGE, says=[TABLE_USED]),
    # ---- tables beside pictures: how they are written
    "CSV from Excel in UTF-16": Case(
        files={**pictures(*TEN), "labels.csv": ages(separator="\t").encode("utf-16")}, values=AGE, says=[TABLE_USED]
    ),
    "UTF-16 without a mark": Case(
        files={**pictures(*TEN), "labels.csv": ages().encode("utf-16-le")}, values=AGE, says=[TABLE_USED]
    ),
    "UTF-8 with a mark": Case(files={**pictures(*TEN), "labels.csv": "\ufeff" + ages()}, values=AGE, says=[TABLE_USED]),
    "Windows-1252": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, "Zoë" if i % 2 else "Jürgen") for i, n in enumerate(TEN)], "file,who").encode(
                "cp1252"
            ),
        },
        labels=["who_Zoë"],
        says=["labels.csv is not UTF-8 and was read as Windows-1252."],
    ),
    "semicolons and decimal commas": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, f"{a},5") for n, a in zip(TEN, AGES, strict=True)], separator=";"),
        },
        values=AGE,
    ),
    "a line that says sep=;": Case(
        files={**pictures(*TEN), "labels.csv": "sep=;\n" + ages(separator=";")}, values=AGE, says=[TABLE_USED]
    ),
    "tabs": Case(files={**pictures(*TEN), "labels.tsv": ages(separator="\t")}, values=AGE),
    "ragged table": Case(
        files={**pictures(*TEN), "labels.csv": ages() + "x.jpg,1,2\ny.jpg\n"},
        values=AGE,
        says=["2 lines of labels.csv do not have 2 cells and were left aside, line 12 first. Correct them."],
    ),
    "a single quotation mark": Case(
        files={**pictures(*TEN), "labels.csv": ages().replace("000002.jpg,30", '000002.jpg,"30')},
        values={"age": [0, NAN, 0.5]},
        says=['1 cells of age in labels.csv are not numbers (`"30`) and count as not known.'],
    ),
    "bytes that are no text": Case(
        files={**pictures(*TEN), "labels.csv": bytes(range(256)) * 9},
        labels=[],
        says=["labels.csv is left aside. It is not text. Save it as CSV in UTF-8."],
    ),
    "empty table": Case(
        files={**pictures(*TEN), "labels.csv": ""}, labels=[], says=["labels.csv is left aside. It is empty."]
    ),
    "a cell of a megabyte": Case(
        files={**pictures(*TEN), "labels.csv": ages() + "x" * 2_000_000},
        labels=[],
        says=["labels.csv is left aside. It has a line of more than 1,000,000 characters."],
    ),
    "JSON Lines, as the Hub's image folders": Case(
        files={
            **pictures(*TEN),
            "metadata.jsonl": "".join(
                json.dumps({"file_name": n, "age": a, "box": [1]}) + "\n" for n, a in zip(TEN, AGES, strict=True)
            ),
        },
        values=AGE,
        says=["metadata.jsonl is used: the column file_name", "box of metadata.jsonl holds lists"],
    ),
    "a spreadsheet": Case(
        files={**pictures(*TEN), "labels.xlsx": b"PK\x03\x04"},
        labels=[],
        says=["labels.xlsx is left aside. It is a spreadsheet. Save it as CSV."],
    ),
    "JSON": Case(
        files={**pictures(*TEN), "labels.json": "{}"}, labels=[], says=["labels.json is left aside. JSON is not read"]
    ),
    "JSON beside each picture": Case(
        files={**pictures(*TEN), **{name.replace(".jpg", ".json"): "{}" for name in TEN}},
        labels=[],
        says=[
            "000001.json, 000002.json, 000003.json, 000004.json, 000005.json and 5 more is left aside. JSON is not read"
        ],
    ),
    "YAML": Case(
        files={**pictures(*TEN), "labels.yaml": "a: 1"}, labels=[], says=["labels.yaml is left aside. It is not read."]
    ),
    "Parquet beside pictures": Case(build=parquet_beside, values=AGE, needs="pyarrow"),
    "a pipe where a table is expected": Case(
        build=with_pipe, labels=[], says=["labels.csv is left aside. It cannot be read: not a regular file."]
    ),
    # ---- columns
    "one bad cell among numbers": Case(
        files={**pictures(*TEN), "labels.csv": ages().replace(",60", ",ask her")},
        labels=["age"],
        values={"age": [0, 10 / 31, 20 / 31, 5 / 31, 15 / 31, NAN]},
        says=["1 cells of age in labels.csv are not numbers (`ask her`) and count as not known."],
    ),
    "unknown among numbers": Case(
        files={**pictures(*TEN), "labels.csv": ages().replace(",60", ",unknown").replace(",51", ",N/A")},
        labels=["age"],
        values={"age": [0, 10 / 24, 20 / 24, 5 / 24, 15 / 24, NAN]},
    ),
    "two words are one label": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, ("Man", "Woman")[i % 2]) for i, n in enumerate(TEN)], "file,sex"),
        },
        labels=["sex_Woman"],
        values={"sex_Woman": [0, 1] * 5},
        says=["sex is one label, sex_Woman: 1 is Woman, 0 is Man."],
    ),
    "yes and no": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, ("no", "Yes")[i % 2]) for i, n in enumerate(TEN)], "file,smile"),
        },
        labels=["smile"],
        values={"smile": [0, 1] * 5},
    ),
    "two numbers are one label": Case(
        files={**pictures(*TEN), "labels.csv": table([(n, 1 + i % 2) for i, n in enumerate(TEN)], "file,sex")},
        labels=["sex"],
        values={"sex": [0, 1] * 5},
    ),
    "class numbers": Case(
        files={**pictures(*TEN), "labels.csv": table([(n, i % 3) for i, n in enumerate(TEN)], "file,label")},
        labels=["label_0", "label_1", "label_2"],
    ),
    "the row numbers of pandas": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(i, n, a) for i, (n, a) in enumerate(zip(TEN, AGES, strict=True))], ",file,age"),
        },
        labels=["age"],
        says=["The column column_1 of labels.csv only counts the rows and is no label."],
    ),
    "too many words": Case(
        files={
            **pictures(*(f"{n}.jpg" for n in range(70))),
            "labels.csv": table([(f"{n}.jpg", f"a{n}") for n in range(70)], "file,story"),
        },
        count=70,
        labels=[],
        says=["The column story of labels.csv has 70 different words, more than 64, and is no label."],
    ),
    "an empty column": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, a, "") for n, a in zip(TEN, AGES, strict=True)], "file,age,note"),
        },
        labels=["age"],
        says=["The column note of labels.csv is empty."],
    ),
    "two columns with one title": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, a, a % 3) for n, a in zip(TEN, AGES, strict=True)], "file,age,age"),
        },
        labels=["age", "age_2"],
        says=["labels.csv has several columns titled age: each after the first has a number."],
    ),
    "two tables that contradict each other": Case(
        files={
            **pictures(*TEN),
            "a.csv": ages(),
            "b.csv": table([(n, 99 - a, a % 2) for n, a in zip(TEN, AGES, strict=True)], "file,age,odd"),
        },
        labels=["age", "odd"],
        values=AGE,
        says=[
            "age of b.csv contradicts a.csv for 10 of 10 pictures (000001.jpg: `79` and `20`): the column is left aside. "
            "Correct one of the tables, or rename the column if it says something else."
        ],
    ),
    "two tables of which some cells contradict each other": Case(
        files={**pictures(*TEN), "a.csv": ages(TEN[:6]), "b.csv": ages().replace(",20", ",21")},
        labels=["age"],
        values=AGE,
        says=[
            "age of b.csv contradicts a.csv for 1 of 6 pictures (000001.jpg: `21` and `20`): these cells are left aside."
        ],
    ),
    "two tables that say the same": Case(
        files={
            **pictures(*TEN),
            "a.csv": ages(),
            "b.csv": table([(n, f"{a}.0", a % 2) for n, a in zip(TEN, AGES, strict=True)], "file,Age,odd"),
        },
        labels=["age", "odd"],
        values=AGE,
        says=["Age of b.csv says the same as a.csv."],
    ),
    "a picture in the tables of two splits": Case(
        files={**pictures(*TEN), "train.csv": ages(TEN[:7]), "val.csv": table(list(zip(TEN, AGES, strict=True))[6:])},
        splits=["train"] * 7 + ["val"] * 3,
        says=["1 lines name a picture that the table of another split names too: the first table counts."],
    ),
    **{
        f"a column of {what}": Case(
            files={
                **pictures(*TEN),
                "labels.csv": table([(n, c) for n, c in zip(TEN, cells, strict=True)], f"file,{title}"),
            },
            labels=[],
            says=[f"The column {title} of labels.csv {why}"],
        )
        for what, title, cells, why in COLUMNS_LEFT_ASIDE
    },
    **{
        f"numbers written as {first}": Case(
            files={
                **pictures(*TEN),
                "labels.csv": table(list(zip(TEN, [first, *rest], strict=True)), "file\tvalue", "\t"),
            },
            labels=["value"],
            values={"value": values},
            says=says,
        )
        for first, rest, values, says in WRITTEN_NUMBERS
    },
    "yes and no in several spellings": Case(
        files=column_of("smile", ["True", "t", "YES", "y", "1", "no", "F", "off", "0", "?"]),
        labels=["smile"],
        values={"smile": [1] * 5 + [0] * 4 + [NAN]},
    ),
    "words in several spellings": Case(
        files=column_of("sex", ["Male", "male", "MALE", "Male", "Female"] * 2),
        labels=["sex_Male"],
        values={"sex_Male": [1, 1, 1, 1, 0] * 2},
        says=[
            "Words of sex in labels.csv that differ in capitals or spaces count as one: `MALE` as `Male`, `male` as `Male`."
        ],
    ),
    "ranges with underscores": Case(
        files=column_of("range", ["20_29", "30_39", "40_49"] * 3 + ["20_29"]),
        labels=["range_20_29", "range_30_39", "range_40_49"],
    ),
    "-999 among numbers": Case(
        files={**pictures(*TEN), "labels.csv": ages().replace(",60", ",-999")},
        labels=["age"],
        says=["1 cells of age in labels.csv are `-999`, apart from all others, and count as numbers."],
    ),
    "spellings of not known": Case(
        files=column_of("v", ["1.5", "NA", "n/a", "-", "?", "null", "None", "#N/A", "2.5", "3.5"]),
        labels=["v"],
        values={"v": [0, *[NAN] * 7, 0.5, 1]},
    ),
    "titles with odd signs": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table(
                [(n, i % 2, i % 3, i) for i, n in enumerate(TEN)], "file,__proto__,Größe (cm),\u202ea\x1b[31m"
            ),
        },
        labels=["__proto__", "Größe_(cm)", "a_[31m"],
    ),
    "a column of splits": Case(
        files={
            **pictures(*TEN),
            "labels.csv": table([(n, ("Training", "PublicTest")[i % 2]) for i, n in enumerate(TEN)], "file,Usage"),
        },
        splits=["train", "val"] * 5,
        says=["The source has its own split: 5 train, 5 val. `--holdout official` uses it, else all are for training."],
    ),
    "a column of split numbers": Case(
        files={**pictures(*TEN), "labels.csv": table([(n, i % 3) for i, n in enumerate(TEN)], "file,partition")},
        splits=["train", "val", "test"] * 3 + ["train"],
        labels=[],
    ),
    # ---- folders
    "splits with classes below": Case(
        files=pictures(*SPLIT_FILES),
        count=8,
        labels=["anger", "joy"],
        values={"anger": [1, 1, 0, 0] * 2},
        splits=["train"] * 4 + ["val"] * 4,
        says=["The source has its own split: 4 train, 4 val."],
    ),
    "splits without classes": Case(
        files=pictures("train/1.jpg", "test/1.jpg", "test/2.jpg"), count=3, labels=[], splits=["test", "test", "train"]
    ),
    "splits below classes": Case(
        files=pictures(*(f"{c}/{s}/{n}.jpg" for c in ("a", "b") for s in ("test", "train") for n in (1, 2))),
        count=8,
        labels=["a", "b"],
        splits=(["test"] * 2 + ["train"] * 2) * 2,
    ),
    "splits in other words": Case(
        files=pictures("set/Training/a/1.jpg", "set/Training/b/1.jpg", "set/Testing/a/1.jpg", "set/Testing/b/2.jpg"),
        count=4,
        labels=["a", "b"],
        splits=["test", "test", "train", "train"],
    ),
    "splits with a folder of images in each": Case(
        files={**pictures("train/images/1.jpg", "valid/images/2.jpg"), "train/labels/1.txt": "0 0.5 0.5 1 1\n"},
        count=2,
        labels=[],
        splits=["train", "val"],
    ),
    "a folder beside the splits": Case(
        files=pictures("train/1.jpg", "test/1.jpg", "more/1.jpg"),
        count=3,
        splits=["", "test", "train"],
        says=["more is neither train, val nor test: its pictures are for training."],
    ),
    "splits with a year": Case(
        files=pictures("train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg"),
        count=3,
        labels=[],
        splits=["train", "train", "val"],
    ),
    "splits in the names of the pictures": Case(
        files=pictures("train_00001_aligned.jpg", "train_00002_aligned.jpg", "test_0001_aligned.jpg"),
        count=3,
        splits=["test", "train", "train"],
        says=["The source has its own split: 1 test, 2 train."],
    ),
    "one name that begins as a split": Case(
        files=pictures("train_1.jpg", "test_1.jpg", "cat.jpg"), count=3, splits=None
    ),
    "classes in the training images alone": Case(
        files=pictures("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg"),
        count=4,
        labels=["a", "b"],
        splits=["test", "test", "train", "train"],
        says=["2 of 4 pictures carry no label: test/1.jpg, test/2.jpg."],
    ),
    "names with signs that a terminal obeys": Case(
        files=pictures("a\n  refused.jpg", "b\x1b[31m.jpg"), count=2, labels=[]
    ),
    "names in a ZIP with signs that a terminal obeys": Case(
        build=in_zip(pictures("a\n  refused.jpg", "b\x1b[31m.jpg")), count=2, labels=[]
    ),
    "class folders": Case(
        files=pictures("cat/1.jpg", "dog/1.jpg", "dog/2.jpg"), count=3, layout="classes", labels=["cat", "dog"]
    ),
    "class folders and one stray": Case(
        files=pictures(*(f"{c}/{n}.jpg" for c in "ab" for n in range(10)), "cover.jpg"),
        count=21,
        labels=["a", "b"],
        says=["1 of 21 pictures carry no label: cover.jpg."],
    ),
    "class folders with folders inside": Case(
        files=pictures("cat/one/1.jpg", "cat/two/1.jpg", "dog/one/1.jpg"),
        count=3,
        labels=["cat", "dog"],
        says=["Folders inside of the class folders are no labels."],
    ),
    "half of the pictures outside of folders": Case(
        files=pictures("a/1.jpg", "b/1.jpg", "1.jpg", "2.jpg"),
        count=4,
        labels=[],
        says=["2 of 4 pictures lie outside of the folders a, b: folders are no labels here."],
    ),
    "numbered folders": Case(
        files=pictures("00000/1.jpg", "01000/2.jpg", "02000/x.jpg"),
        count=3,
        labels=[],
        says=["The folders 00000, 01000, 02000 are numbered: they are no labels."],
    ),
    "more folders than labels": Case(
        files=pictures(*(f"person {n}/1.jpg" for n in range(101))),
        count=101,
        labels=[],
        groups=sorted(f"person {n}" for n in range(101)),
        says=["101 folders are too many for labels (100 at most): they are taken as identities"],
    ),
    "UTKFace with names that lack a part": Case(
        files=pictures(
            *(f"{n + 1}_{n % 2}_2_201701161745{n:05d}.jpg" for n in range(19)), "61_1_20170109142408075.jpg"
        ),
        count=20,
        layout="utkface",
        says=["1 of 20 pictures carry no label: 61_1_20170109142408075.jpg."],
    ),
    # ---- CelebA
    "CelebA's list with a byte order mark": Case(
        files={**pictures(*TEN), "list_attr_celeba.txt": "\ufeff10\n" + ATTRIBUTES}, layout="celeba", values=MALE
    ),
    "CelebA's list shorter than it promises": Case(
        files={**pictures(*TEN), "list_attr_celeba.txt": "202599\n" + ATTRIBUTES},
        values=MALE,
        says=["list_attr_celeba.txt promises 202,599 lines and has 10: those that are there are used."],
    ),
    "CelebA's list longer than it promises": Case(
        files={**pictures(*TEN), "list_attr_celeba.txt": "3\n" + ATTRIBUTES},
        values=MALE,
        says=["promises 3 lines and has 10"],
    ),
    "CelebA's list without a count": Case(files={**pictures(*TEN), "list_attr_celeba.txt": ATTRIBUTES}, values=MALE),
    "CelebA's list with a short line": Case(
        files={
            **pictures(*TEN),
            "list_attr_celeba.txt": "10\n" + ATTRIBUTES.replace("000010.jpg -1 -1", "000010.jpg -1"),
        },
        values={"Male": [1, 0] * 4 + [1, NAN]},
        says=["1 lines of list_attr_celeba.txt do not have 3 cells", "1 of 10 pictures carry no label: 000010.jpg."],
    ),
    "CelebA's list that names none of the pictures": Case(
        files={**pictures(*(f"face {n}.jpg" for n in range(10))), "list_attr_celeba.txt": "10\n" + ATTRIBUTES},
        layout="folder",
        labels=[],
        says=["list_attr_celeba.txt is left aside. It names none of the pictures, such as face 0.jpg."],
    ),
    "CelebA's pictures saved as PNG": Case(
        files={**{f"{n[:-4]}.png": PNG for n in TEN}, "list_attr_celeba.txt": "10\n" + ATTRIBUTES}, values=MALE
    ),
    "CelebA's list with 0 for no": Case(
        files={**pictures(*TEN), "list_attr_celeba.txt": "10\n" + ATTRIBUTES.replace("-1", "0")}, values=MALE
    ),
    "CelebA's identities alone": Case(
        files={**pictures(*TEN), "identity_CelebA.txt": "".join(f"{n} {i % 3}\n" for i, n in enumerate(TEN))},
        layout="celeba",
        groups=["0", "1", "2"] * 3 + ["0"],
    ),
    # ---- the StyleGAN family
    "a dataset.json of something else": Case(
        files={**pictures(*TEN), "dataset.json": '{"name": "my faces"}'},
        labels=[],
        says=["dataset.json is left aside. It does not parse: KeyError('labels')."],
    ),
    "a class number of 100,000,000": Case(
        build=in_zip({**pictures(*TEN), "dataset.json": json.dumps({"labels": [[n, 10**8] for n in TEN]})}),
        labels=[],
        says=["class numbers from 100,000,000 to 100,000,000 for 10 pictures are past the bounds"],
    ),
    "JSON nested 100,000 deep": Case(
        build=in_zip({**pictures(*TEN), "dataset.json": "[" * 100_000}), labels=[], says=["dataset.json is left aside."]
    ),
    # ---- the Hub
    "Parquet shards of the Hub": Case(
        build=lambda folder: hub_folder(
            folder,
            shards=[
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ],
        ),
        count=6,
        labels=["label_anger", "label_fear", "label_joy"],
        splits=["test", "test", "train", "train", "train", "train"],
        says=["3 files with 6 rows are read as one source.", "The source has its own split: 2 test, 4 train."],
        needs="pyarrow",
    ),
    "Parquet shards of which one is missing": Case(
        build=lambda folder: hub_folder(folder, shards=["data/train-00000-of-00002.parquet"]),
        count=2,
        says=["1 of 2 shards of train are missing. Download them, or go on without."],
        needs="pyarrow",
    ),
    "a Parquet shard that is broken": Case(
        build=broken_shard,
        count=2,
        says=["train-00001-of-00002.parquet is left aside. It does not parse"],
        needs="pyarrow",
    ),
    "Parquet files with other columns": Case(
        build=lambda folder: hub_folder(folder, shards=["data/train-00000-of-00001.parquet"], other=True),
        count=2,
        says=["other-00000-of-00001.parquet is left aside. It has other columns than the rest."],
        needs="pyarrow",
    ),
    "a Parquet file that promises millions of rows": Case(
        build=many_rows, error=Untrusted, says=["It promises 3,000,000 rows."], needs="pyarrow"
    ),
    "a data set saved with its splits": Case(
        build=saved_splits, count=4, splits=["test", "train", "train", "train"], labels=["age"], needs="pyarrow"
    ),
    "a Parquet table of names, given itself": Case(build=given_parquet, values=AGE, needs="pyarrow"),
    # ---- lists and tables that are the source
    "a list in UTF-16": Case(build=as_file("list.txt", "\n".join(TEN).encode("utf-16"), *TEN)),
    "a list with backslashes": Case(
        build=as_file("list.txt", "faces\\1.jpg\r\nfaces\\2.jpg\r\n", "faces/1.jpg", "faces/2.jpg"), count=2
    ),
    "a table, given itself, of names without ending": Case(
        build=as_file("labels.csv", ages([n[:-4] for n in TEN]), *(f"faces/{n}" for n in TEN)), values=AGE
    ),
    "a table of pixels": Case(
        build=as_file("fer2013.csv", "emotion,pixels,Usage\n0,1 2 3,Training\n"),
        error=DataError,
        says=["holds the pictures themselves as text", "Save them as an array"],
    ),
    "a table that names nothing": Case(
        build=as_file("labels.csv", "a,b\n1,2\n"),
        error=DataError,
        says=["names no files", "Add a column titled `file`"],
    ),
    # ---- arrays
    ".npz with labels": Case(
        build=lambda folder: npz(folder, images=pixels(), age=np.array(AGES), names=np.arange(3)),
        layout="arrays",
        values=AGE,
        says=["The images are images.", "names [3] is left aside."],
    ),
    ".npz with splits": Case(
        build=lambda folder: npz(
            folder, x_train=pixels(7), y_train=np.arange(7) % 3, x_test=pixels(3), y_test=np.arange(3)
        ),
        labels=["y_0", "y_1", "y_2"],
        values={"y_1": [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]},
        splits=["train"] * 7 + ["test"] * 3,
    ),
    ".npz that is compressed": Case(
        build=lambda folder: npz(folder, compressed=True, arr_0=pixels(), smiling=np.arange(10) % 2 > 0),
        values={"smiling": [0, 1] * 5},
    ),
    ".npz with Python objects": Case(
        build=lambda folder: npz(folder, images=pixels(), who=np.array([{}] * 10, dtype=object)),
        labels=[],
        says=["who is left aside. It is no array of numbers"],
    ),
    ".npy of floats": Case(build=lambda folder: npy(folder, pixels(10, 20, 20, kind="float"))),
    ".npy with channels first": Case(build=lambda folder: npy(folder, pixels(10, 3, 20, 24))),
    ".npy that holds no images": Case(
        build=lambda folder: npy(folder, np.zeros((10, 5))), error=DataError, says=["holds no images", "images [10, 5]"]
    ),
    ".npz cut off": Case(build=as_file("faces.npz", b"PK\x03\x04 cut off"), error=Untrusted, says=["does not parse"]),
    # ---- names and files
    "pictures without an ending": Case(
        files={
            **{f"face{n}": JPEG for n in range(9)},
            "20170109.142408075": PNG,
            "LICENSE": "Apache",
            "labels.csv": ages([*(f"face{n}" for n in range(9)), "20170109.142408075"]),
        },
        count=10,
        labels=["age"],
    ),
    "pictures without an ending in an archive": Case(build=in_zip({f"face{n}": JPEG for n in range(10)})),
    "names that are not UTF-8": Case(build=bytes_named),
    # ---- what is not read
    "a 7z archive": Case(
        build=as_file("faces.7z", b"7z\xbc\xaf'\x1c"), error=DataError, says=["Unpack it (7z x NAME)"]
    ),
    "a RAR archive called ZIP": Case(
        build=as_file("faces.zip", b"Rar!\x1a\x07"), error=Untrusted, says=["begins like a RAR archive"]
    ),
    "a web page called ZIP": Case(
        build=as_file("celeba.zip", "<!DOCTYPE html><html>"), error=Untrusted, says=["the download gave a page instead"]
    ),
    "a MATLAB file": Case(
        build=as_file("faces.mat", b"MATLAB 5.0"), error=DataError, says=["Save its images as an array"]
    ),
    "TFRecords in a folder": Case(
        files={"faces-0.tfrecord": b"x", "faces-1.tfrecord": b"x"},
        error=DataError,
        says=["2 .tfrecord", "Save its images as files"],
    ),
    "archives in a folder": Case(
        files={"train.zip": b"PK", "test.zip": b"PK"}, error=DataError, says=["Give the archive itself, one at a time"]
    ),
    "one picture": Case(build=as_file("me.jpg", JPEG), error=DataError, says=["one picture is no data set"]),
    "a film": Case(build=as_file("me.mp4", b"ftyp"), error=DataError, says=["ffmpeg"]),
}


def row_of(title: str) -> str:
    """A situation as a row of the table in docs/data.md: `python -m tests.test_user_layouts` prints them all."""
    case = CASES[title]
    if case.error is not None:
        uses = "refused"
    else:
        labels = list(case.values) if case.labels is None else list(case.labels)
        uses = f"{case.count} pictures"
        uses += f", labels {', '.join(labels)}" if labels else ", no labels" if case.labels is not None else ""
        uses += ", a split" if case.splits else ""
        uses += ", identities" if case.groups else ""
    return f"| {title} | {uses} | {' '.join(case.says)} |"


def column(found: Listing, name: str) -> list[float]:
    assert found.labels is not None, found.remarks
    return [float(value) for value in found.labels[:, found.label_names.index(name)]]


def built(case: Case, folder: Path) -> Path:
    return case.build(folder) if case.build else write(folder, case.files)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("title", CASES)
def test_what_users_bring(title: str, tmp_path: Path) -> None:
    case = CASES[title]
    if case.needs and find_spec(case.needs) is None:
        pytest.skip(f"{case.needs} is not installed")
    path = built(case, tmp_path)
    if case.error is not None:
        with pytest.raises(case.error) as raised:
            from mien.data.planning import plan

            plan(find_source(path), Preparation())
        for words in case.says:
            assert words in str(raised.value).replace("\n", " ")
        return
    source = find_source(path)
    found = source.listing()
    remarks = "\n".join(found.remarks)
    assert len(found.names) == case.count, found.names
    assert case.layout in ("", found.layout), remarks
    assert case.labels is None or list(found.label_names) == list(case.labels), remarks
    for name, values in case.values.items():
        known = column(found, name)[: len(values)]
        assert known == pytest.approx(list(values), abs=1e-6, nan_ok=True), remarks
    assert case.splits is None or list(found.splits or ()) == list(case.splits), remarks
    assert case.groups is None or list(found.groups or ()) == list(case.groups), remarks
    for words in case.says:
        assert words in remarks, remarks
    assert source.read(source.address(found.names[-1]))


@pytest.mark.parametrize(
    "title",
    [
        "names that are not UTF-8",
        "pictures without an ending",
        ".npz with splits",
        ".npy of floats",
        "splits with classes below",
    ],
)
def test_it_becomes_a_pack(title: str, tmp_path: Path) -> None:
    """What is listed can be prepared: no name, label or remark that a pack cannot hold."""
    (tmp_path / "in").mkdir()
    path = built(CASES[title], tmp_path / "in")
    center = Preparation(side=16, crop="center")
    pack = prepare(find_source(path), tmp_path / "a.pack", center, workers=1)
    assert pack is not None and len(pack) == CASES[title].count
    pack.verify()
    assert len(pack.entries) == len(pack) and pack.meta["remarks"] == list(find_source(path).listing().remarks)


def test_a_name_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line break in a name wrote a line of its own, an escape reached the terminal; in an error too."""
    for name in ("a\n  refused", "b\x1b[31m", "c\u202e"):
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    (tmp_path / "1.jpg").write_bytes(JPEG)
    zipped = find_source(in_zip({"a\n.jpg": JPEG})(tmp_path.parent)).listing()
    assert zipped.names == ["a\\x0a.jpg"]
    assert main(["data", "check", str(tmp_path), "--workers", "1", "-o", str(tmp_path / "out.png")]) in (0, 3)
    said = capsys.readouterr().out
    assert "a\\x0a  refused.jpg: empty" in said and "b\\x1b[31m.jpg: empty" in said and "\x1b" not in said
    assert "\u202e" not in said
    assert main(["verify", str(tmp_path / "no\x1b[2J.png")]) == 3
    assert "\x1b" not in capsys.readouterr().err


def test_there_are_sixty() -> None:
    assert len(CASES) >= 60


def test_the_documentation_has_them_all() -> None:
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    assert [row for row in map(row_of, CASES) if row not in page] == []


def test_a_table_fills_gaps_and_replaces_nothing() -> None:
    assert spread(["train", ""], ["test", "val"], np.array([0, 1]), 2) == ["train", "val"]
    assert spread(None, ["a"], np.array([1]), 2) == ["", "a"] and spread(["a"], None, np.array([0]), 1) == ["a"]


def test_names_as_addresses_on_the_web() -> None:
    names = NameIndex(["a b.png", "100%.png", "c%20d.png"])
    assert [names.find(name) for name in ("a%20b.png", "https://x.org/y/a%20b.png", "100%.png", "100%25.png")] == [
        0,
        0,
        1,
        1,
    ]
    assert names.find("c%20d.png") == 2 and names.find("%00.png") == NONE and names.find("%" + "25" * 5000) == NONE


def test_hdf5_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faces.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'mien\[hdf5\]'; or save the arrays as \.npz"):
        find_source(tmp_path / "faces.h5").listing()


@pytest.fixture
def h5(tmp_path: Path) -> Any:
    """An open HDF5 file, `faces.h5` of `tmp_path`."""
    with pytest.importorskip("h5py").File(tmp_path / "faces.h5", "w") as file:
        yield file


@pytest.mark.parametrize("how", [{}, {"compression": "gzip", "chunks": (2, 20, 24, 3)}], ids=["whole", "compressed"])
def test_hdf5_is_read(how: dict[str, Any], h5: Any, tmp_path: Path) -> None:
    values = pixels()
    h5.create_dataset("images", data=values, **how)
    h5["age"], h5["mood"] = np.array(AGES), [b"calm", b"glad"] * 5
    h5.close()
    source = find_source(tmp_path / "faces.h5")
    found = source.listing()
    assert len(found.names) == 10 and column(found, "age") == pytest.approx(AGE["age"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(source.read(source.address(found.names[3]))))), values[3])
    pack = prepare(source, tmp_path / "a.pack", Preparation(side=16, crop="center"), workers=2)
    assert pack is not None and len(pack) == 10 and pack.label_names == ("age", "mood_glad")


def test_hdf5_in_groups_is_split(h5: Any, tmp_path: Path) -> None:
    for split in ("train", "test"):
        h5[f"{split}/images"], h5[f"{split}/age"] = pixels(), np.array(AGES)
    h5.close()
    found = find_source(tmp_path / "faces.h5").listing()
    assert found.splits == ["test"] * 10 + ["train"] * 10 and column(found, "age") == pytest.approx(AGE["age"] * 2)


def test_hdf5_reads_no_other_file_and_no_bomb(h5: Any, tmp_path: Path) -> None:
    """Values elsewhere, links, promises without values, groups in groups and no values at all."""
    import h5py

    (tmp_path / "secret").write_bytes(bytes(14400))
    h5["images"], h5["nothing"], h5["one"] = pixels(), h5py.Empty("f"), 3
    outside = [(str(tmp_path / "secret"), 0, 14400)]
    h5.create_dataset("elsewhere", (10, 20, 24, 3), "u1", external=outside)
    layout = h5py.VirtualLayout((10, 20, 24, 3), "u1")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (10, 20, 24, 3))
    h5.create_virtual_dataset("virtual", layout)
    h5["linked"] = h5py.ExternalLink("other.h5", "x")
    h5.create_dataset("promise", (10**9, 16, 16, 3), "u1", chunks=(1000, 16, 16, 3))
    h5.create_dataset("lists", (10,), dtype=h5py.vlen_dtype(np.uint8))
    h5.create_dataset("wide", (10, 10**7), "u1", chunks=(10, 1000))
    h5.close()
    found = find_source(tmp_path / "faces.h5").listing()
    assert len(found.names) == 10 and found.label_names == ()
    assert [remark for remark in found.remarks if "elsewhere" in remark or "virtual" in remark] == [
        f"{name} is left aside. Its values are in another file. Copy them into this one."
        for name in ("elsewhere", "virtual")
    ]
    assert "linked is left aside. It is a link. Copy the data set into the file." in found.remarks
    assert "promise is left aside. Its values take over 100 times their place on disk." in found.remarks
    assert any("lists [10]" in remark and "is left aside" in remark for remark in found.remarks)


def test_hdf5_of_groups_without_end(h5: Any, tmp_path: Path) -> None:
    h5["a/images"] = pixels()
    h5["a/again"] = h5["a"]
    h5.close()
    with pytest.raises(Untrusted, match="groups over 16 deep"):
        find_source(tmp_path / "faces.h5").listing()


def test_a_damaged_part_of_hdf5_refuses_its_images_alone(h5: Any, tmp_path: Path) -> None:
    h5.create_dataset("images", data=pixels(), chunks=(1, 20, 24, 3), compression="gzip")
    place = h5["images"].id.get_chunk_info(3)
    h5.close()
    with (tmp_path / "faces.h5").open("r+b") as file:
        file.seek(place.byte_offset)
        file.write(b"\xff" * 200)
    source = find_source(tmp_path / "faces.h5")
    pack = prepare(source, tmp_path / "a.pack", Preparation(side=16, crop="center"), workers=1, force=True)
    assert pack is not None and len(pack) == 9


def test_an_array_of_images_too_large(tmp_path: Path) -> None:
    """4 GB of nothing in a file with a hole: an image of more pixels than a picture may have is none."""
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2, 40_000, 40_000, 1)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2 * 40_000**2)
    with pytest.raises(DataError, match=r"of 50 million pixels at most"):
        find_source(tmp_path / "huge.npy").listing()


def test_pixels_of_arrays_are_unchanged(tmp_path: Path) -> None:
    values = pixels()
    source = find_source(npz(tmp_path, images=values))
    pack = prepare(source, tmp_path / "a.pack", Preparation(side=16, crop="center"), workers=1)
    read = np.asarray(Image.open(io.BytesIO(source.read(source.address(source.listing().names[3])))))
    assert np.array_equal(read, values[3]) and pack is not None and len(pack) == 10


def test_hostile_archives_take_little_memory(tmp_path: Path) -> None:
    """Archives of a few kilobytes that promise a lot: listed in one process, whose peak is measured."""
    images = pictures(*TEN)
    hostile: list[Files] = [
        {"dataset.json": json.dumps({"labels": [[name, 10**8] for name in TEN]})},
        {"dataset.json": json.dumps({"labels": [[TEN[0], [0] * 100_000]]})},
        {"dataset.json": b"[" + b"[]," * 10_000_000 + b"0]"},
        {"labels.csv": b"," * 90_000_000},
        {"labels.csv": b"file,a\n" + b"0,0\n" * 10_000_000},
        {"list_attr_celeba.txt": b"9\n" + b"A " * 40_000_000},
        {"metadata.jsonl": b'{"a": 1}\n' * 8_000_000},
    ]
    paths = []
    for number, files in enumerate(hostile):
        (tmp_path / str(number)).mkdir()
        paths.append(str(in_zip({**images, **files})(tmp_path / str(number))))
    program = (
        "import sys, pathlib, re\nfrom mien.data import find_source\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "before = peak()\n"
        "for path in map(pathlib.Path, sys.argv[1:]): assert len(find_source(path).listing().names) == 10\n"
        "print((peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # megabytes; one class number of 100,000,000 took 10,800 before


if __name__ == "__main__":
    print("\n".join(map(row_of, CASES)))
