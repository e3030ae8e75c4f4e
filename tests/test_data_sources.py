"""Layouts are recognised by looking, whatever holds them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.data import Preparation, find_source, prepare
from mien.data.pack import Pack
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, Source
from mien.data.stylegan import write_zip
from mien.errors import DataError, Untrusted
from tests.data_torture import face, saved

JPEG = saved(face(32, 32), "JPEG")


def write(folder: Path, *names: str, **texts: str) -> Path:
    """Pictures under `names`, and text files whose dots are written as two underscores."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def listing(path: Path) -> Listing:
    return find_source(path).listing()


def column(found: Listing, name: str) -> list[float]:
    assert found.labels is not None
    return [round(float(value), 4) for value in found.labels[:, found.label_names.index(name)]]


def read(source: Source, name: str) -> bytes:
    return source.read(source.address(name))


ATTRIBUTES = "3\nMale Smiling\n000001.jpg  1 -1\n000002.jpg -1 -1\n000003.jpg -1  1\n"


def write_celeba(folder: Path) -> Path:
    return write(
        folder,
        *(f"img_align_celeba/00000{number}.jpg" for number in (1, 2, 4)),
        list_attr_celeba__txt=ATTRIBUTES,
        identity_CelebA__txt="000001.jpg 7\n000002.jpg 9\n000003.jpg 7\n",
        list_eval_partition__txt="000001.jpg 0\n000002.jpg 2\n000003.jpg 1\n",
    )


def test_celeba(tmp_path: Path) -> None:
    found = listing(write_celeba(tmp_path))
    assert found.layout == "celeba" and found.crop == "celeba-148"
    assert [Path(name).name for name in found.names] == ["000001.jpg", "000002.jpg", "000004.jpg"]
    assert column(found, "Male")[:2] == [1, 0] and column(found, "Smiling")[:2] == [0, 0]
    assert np.isnan(column(found, "Male")[2])
    assert found.groups == ["7", "9", ""] and found.splits == ["train", "test", ""]
    remarks = "\n".join(found.remarks)
    assert "1 of 3 pictures carry no label: img_align_celeba/000004.jpg." in remarks
    assert "1 lines of list_attr_celeba.txt have no picture here." in remarks


def test_celebas_labels_go_to_their_own_pictures(tmp_path: Path) -> None:
    """The list's order is its own, and only 1 and -1 say something."""
    attributes = "4\nMale Smiling\n000004.jpg 1 0\n000002.jpg -1 1\n000009.jpg 1 1\n000001.jpg 1 -1\n"
    names = [f"img_align_celeba/00000{number}.jpg" for number in (1, 2, 4)]
    found = listing(write(tmp_path, *names, list_attr_celeba__txt=attributes))
    assert [Path(name).name for name in found.names] == ["000001.jpg", "000002.jpg", "000004.jpg"]
    assert column(found, "Male") == [1, 0, 1]
    assert column(found, "Smiling")[:2] == [0, 1] and np.isnan(column(found, "Smiling")[2])


LANDMARKS = (
    "2\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y\n"
)
LANDMARKS += "000001.jpg  69  109  106  113   77  142   73  152  108  154\n000003.jpg 1 2 3 4 5 6 7 8 9 10\n"


def test_celeba_landmarks_are_shares_of_the_picture(tmp_path: Path) -> None:
    without = listing(write_celeba(tmp_path))
    found = listing(write(tmp_path, list_landmarks_align_celeba__txt=LANDMARKS))
    assert without.landmarks is None and without.stamp != found.stamp
    assert found.landmarks is not None and found.landmarks.shape == (3, 5, 2) and found.landmarks_of == (178, 218)
    assert found.landmarks[0, 0] == pytest.approx([69.5 / 178, 109.5 / 218])
    assert found.landmarks[0, 4] == pytest.approx([108.5 / 178, 154.5 / 218])
    assert np.isnan(found.landmarks[1:]).all()  # these pictures have no line
    assert found.take(np.array([1])).landmarks is not None
    header, *lines = LANDMARKS.splitlines()[1:]
    (tmp_path / "list_landmarks_align_celeba.txt").unlink()
    table = "\n".join(["image_id " + header, *lines])
    again = listing(write(tmp_path, list_landmarks_align_celeba__csv=re.sub(" +", ",", table)))
    assert again.landmarks is not None and np.array_equal(again.landmarks, found.landmarks, equal_nan=True)
    (tmp_path / "list_landmarks_align_celeba.csv").write_text("image_id,lefteye_x\n000001.jpg,69\n")
    other = listing(tmp_path)
    assert other.landmarks is None and any("ten numbers" in remark for remark in other.remarks)


@pytest.mark.parametrize(
    "described",
    [
        {"labels": [["00000/img00000000.jpg", [1, 0]], ["00000/img00000001.jpg", [1]]]},
        {"labels": [["00000/img00000000.jpg", [1, 0]]], "mien": {"label_names": ["one"]}},
        {"labels": None, "mien": {"groups": ["a"]}},
        {"labels": None, "mien": ["a"]},
        {"labels": [["00000/img00000000.jpg", "word"]]},
        {"labels": 7},
        {"labels": [["00000/img00000000.jpg", 100_000_000]]},
        {"labels": [["00000/img00000000.jpg", -1]]},
        {"labels": [["00000/img00000000.jpg", [0] * 5000]]},
        [],
    ],
)
def test_labels_of_a_stylegan_archive_that_lie_are_left_aside(tmp_path: Path, described: object) -> None:
    write(tmp_path, "00000/img00000000.jpg", "00000/img00000001.jpg", dataset__json=json.dumps(described))
    found = listing(tmp_path)
    assert len(found.names) == 2 and found.labels is None
    assert any("dataset.json is left aside. It does not parse" in remark for remark in found.remarks)


def test_celeba_with_tables_of_commas(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        "img_align_celeba/img_align_celeba/000001.jpg",
        "img_align_celeba/img_align_celeba/000002.jpg",
        list_attr_celeba__csv="image_id,Male,Smiling\n000001.jpg,1,-1\n000002.jpg,-1,1\n",
        list_eval_partition__csv="image_id,partition\n000001.jpg,0\n000002.jpg,1\n",
    )
    found = listing(folder)
    assert found.layout == "celeba" and column(found, "Male") == [1, 0] and found.splits == ["train", "val"]


def test_a_celeba_list_of_another_length_is_used_and_said(tmp_path: Path) -> None:
    write(tmp_path, "000001.jpg", list_attr_celeba__txt=ATTRIBUTES.replace("3\n", "30\n", 1))
    found = listing(tmp_path)
    assert column(found, "Male") == [1]
    assert "list_attr_celeba.txt promises 30 lines and has 3: those that are there are used." in found.remarks


def test_lfw_knows_its_people(tmp_path: Path) -> None:
    found = listing(write(tmp_path, "Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bo/Bo_0001.jpg"))
    assert found.layout == "lfw" and found.crop == "lfw-150" and found.groups == ["Ann_Lee", "Ann_Lee", "Bo"]


def test_utkface_reads_its_names(tmp_path: Path) -> None:
    names = [
        f"{age}_{gender}_{race}_2017010{age % 9}1200.jpg.chip.jpg" for age, gender, race in ((29, 0, 2), (58, 1, 0))
    ]
    many = [f"1_0_0_201701{number:04d}.jpg" for number in range(20)]
    found = listing(write(tmp_path, *names, *many, "61_1_20170109142408075.jpg"))
    rows = [number for number, name in enumerate(found.names) if name in names]
    assert found.layout == "utkface" and found.scales == {"Age": (0, 116)}
    assert [column(found, "Age")[row] for row in rows] == [0.25, 0.5]
    assert [column(found, "Male")[row] for row in rows] == [1, 0] and [column(found, "Asian")[row] for row in rows] == [
        1,
        0,
    ]
    assert (
        found.labels is not None and np.isnan(found.labels[list(found.names).index("61_1_20170109142408075.jpg")]).all()
    )


def test_ffhq_and_simpsons(tmp_path: Path) -> None:
    ffhq = listing(write(tmp_path / "a", "thumbnails128x128/00000/00001.png", "thumbnails128x128/01000/01002.png"))
    assert ffhq.layout == "ffhq" and ffhq.labels is None and ffhq.crop == "center"
    simpsons = listing(write(tmp_path / "b", "cropped/1.png", "cropped/2.png"))
    assert simpsons.layout == "simpsons" and simpsons.crop == "squash"


def test_folders_of_classes_are_labels(tmp_path: Path) -> None:
    found = listing(write(tmp_path, "cats and dogs/cat/1.jpg", "cats and dogs/cat/2.jpg", "cats and dogs/a dog/1.jpg"))
    assert found.layout == "classes" and found.label_names == ("a_dog", "cat")
    assert column(found, "cat") == [0, 1, 1]


def test_a_flat_or_deep_folder_has_no_labels(tmp_path: Path) -> None:
    found = listing(write(tmp_path, "b.jpg", "x/a.png", "x/y/z/c.webp", "._b.jpg", ".git/d.jpg", notes__txt="no"))
    assert found.layout == "folder" and found.labels is None
    assert list(found.names) == ["b.jpg", "x/a.png", "x/y/z/c.webp"]
    assert found.other_files[".txt"] == 1


TABLE = (
    "file,age,gender,glasses,identity,split\n1.jpg,20,Female,1,a,train\n2.jpg,40,,0,b,holdout\n3.jpg,30,Male,,a,train\n"
)


def check_table(found: Listing) -> None:
    assert found.label_names == ("age", "gender_Male", "glasses")  # two words are one label
    assert found.scales == {"age": (20, 40)} and column(found, "age") == [0, 1, 0.5]
    assert column(found, "gender_Male")[::2] == [0, 1] and np.isnan(column(found, "gender_Male")[1])
    assert np.isnan(column(found, "glasses")[2])


def test_a_table_beside_the_pictures(tmp_path: Path) -> None:
    found = listing(write(tmp_path, "1.jpg", "2.jpg", "3.jpg", labels__csv=TABLE))
    assert found.layout == "table"
    check_table(found)
    assert found.groups == ["a", "b", "a"] and found.splits == ["train", "holdout", "train"]


def test_a_table_that_names_its_pictures(tmp_path: Path) -> None:
    write(tmp_path / "faces", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    (tmp_path / "labels.csv").write_text(
        TABLE.replace("\n1", "\nfaces/1").replace("\n2", "\nfaces/2").replace("\n3", "\nfaces/3")
    )
    found = listing(tmp_path / "labels.csv")
    assert list(found.names) == ["faces/1.jpg", "faces/2.jpg", "faces/3.jpg"]
    check_table(found)
    assert read(find_source(tmp_path / "labels.csv"), "faces/1.jpg") == JPEG


def test_a_ragged_table_does_not_stop_the_pictures(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg", labels__csv="file,age\n1.jpg,2,3\n2.jpg,5\n")
    found = listing(tmp_path)
    assert list(found.names) == ["1.jpg", "2.jpg"] and column(found, "age")[1] == 0
    assert any("1 lines of labels.csv do not have 2 cells" in remark for remark in found.remarks)


def test_a_list_of_files(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/2.jpg", list__txt="# mine\na/1.jpg\n\na/gone.jpg\n")
    source = find_source(tmp_path / "list.txt")
    assert list(source.listing().names) == ["a/1.jpg", "a/gone.jpg"]
    with pytest.raises(UnreadableFile, match="missing"):
        read(source, "a/gone.jpg")


def parquet(path: Path, columns: dict[str, object]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_parquet_with_files(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    columns: dict[str, object] = {
        "file": ["1.jpg", "2.jpg", "3.jpg"],
        "age": [20, 40, 30],
        "gender": ["Female", None, "Male"],
        "glasses": [True, False, None],
    }
    source = find_source(parquet(tmp_path / "t.parquet", columns))
    check_table(source.listing())
    assert read(source, "2.jpg") == JPEG


def test_parquet_with_images_inside(tmp_path: Path) -> None:
    images = [{"bytes": saved(face(32 + row, 32), "PNG"), "path": f"{row}.png"} for row in range(5)]
    source = find_source(parquet(tmp_path / "t.parquet", {"image": images, "smiling": [0, 1, 1, 0, None]}))
    found = source.listing()
    assert len(found.names) == 5 and column(found, "smiling")[:4] == [0, 1, 1, 0]
    for row in (4, 0, 3):
        assert read(source, found.names[row]) == images[row]["bytes"]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view", "dictionary", "large_struct"])
def test_parquet_with_images_of_any_type_of_bytes(kind: str, tmp_path: Path) -> None:
    """As pandas, polars and pyarrow write them. A dictionary, which holds each picture once, was "names no images"."""
    pyarrow, _ = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [saved(face(32 + row % 3, 32), "PNG") for row in range(40)]
    column_of = {
        "dictionary": lambda: pyarrow.array(images).dictionary_encode(),
        "large_struct": lambda: pyarrow.array(
            [{"bytes": image, "path": None} for image in images],
            pyarrow.struct([("bytes", pyarrow.large_binary()), ("path", pyarrow.large_string())]),
        ),
    }.get(kind, lambda: pyarrow.array(images, getattr(pyarrow, kind)()))()
    moods = pyarrow.array(["sad", "glad"] * 20).dictionary_encode()
    ages = pyarrow.array([float(row) for row in range(39)] + [float("nan")])
    pyarrow.parquet.write_table(pyarrow.table({"image": column_of, "mood": moods, "age": ages}), tmp_path / "t.parquet")
    source = find_source(tmp_path / "t.parquet")
    found = source.listing()
    assert column(found, "mood_sad") == [1, 0] * 20 and column(found, "age")[38] == 1
    for row in (0, 1, 39, 20, 19, 39, 0):  # also back, and into the next rows that are read at once
        assert read(source, found.names[row]) == images[row]


def test_a_value_that_stands_for_many_rows_is_held_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 rows of one picture of 5 MB took 3.6 GB: all rows of a group were read at once."""
    pyarrow, _ = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = pyarrow.array([saved(face(32, 32), "PNG")] * 600).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table({"image": images}), tmp_path / "t.parquet", store_schema=False)
    source = find_source(tmp_path / "t.parquet")
    names = source.listing().names
    before = pyarrow.total_allocated_bytes()
    size = len(read(source, names[599]))
    assert 0 < pyarrow.total_allocated_bytes() - before < 100 * size


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_file_of_many_blocks_is_opened_once(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of rows opened the file again, and passed over all before it: minutes for 20,000 blocks."""
    pyarrow, parquet_module = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [saved(face(32 + row, 32), "PNG") for row in range(30)]
    rows, folder = pyarrow.table({"image": images, "age": [*range(30)]}), tmp_path / "set"
    folder.mkdir()
    if suffix == "parquet":
        parquet_module.write_table(rows, folder / "t.parquet", row_group_size=1)
    else:
        with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), rows.schema) as stream:
            stream.write_table(rows, max_chunksize=1)
        (folder / "state.json").write_text("{}")
        (folder / "dataset_info.json").write_text("{}")
    opened: list[object] = []
    for place, name in ((parquet_module, "ParquetFile"), (pyarrow.ipc, "open_stream")):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *words, real=real, **more: opened.append(words) or real(*words, **more))
    source = find_source(folder)
    found = source.listing()
    assert [read(source, name) for name in found.names] == images
    assert read(source, found.names[3]) == images[3] and read(source, found.names[7]) == images[7]  # back, and on
    assert len(found.label_names) == 1 and len(opened) <= 5, len(opened)


def test_parquet_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    pyarrow, _ = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    picture = saved(face(32, 32), "PNG")
    path = tmp_path / "t.parquet"

    def written(table: Any) -> Any:
        pyarrow.parquet.write_table(table, path)
        return find_source(path)

    twice = pyarrow.Table.from_arrays(
        [pyarrow.array([picture]), pyarrow.array(["a"]), pyarrow.array(["a"])], ["image", "b", "b"]
    )
    with pytest.raises(Untrusted) as caught:  # it was exit code 1
        written(twice).listing()
    assert "two of its columns have one name" in caught.value.why
    with pytest.raises(Untrusted, match="5,001 columns, and 4,096 are the most"):  # 30,000 took 46 s and 485 MiB
        written(pyarrow.table({"image": [picture], **{f"c{n}": [n] for n in range(5_000)}})).listing()
    inner = pyarrow.table({"sample": [{"image": {"bytes": picture}}], "age": [3]})
    with pytest.raises(DataError) as missing:
        written(inner).listing()
    assert "sample, age" in missing.value.why
    outside = written(pyarrow.table({"image": [{"bytes": None, "path": "/etc/passwd"}]}))
    with pytest.raises(UnreadableFile, match="not in the table, which names its file"):  # nor is that read
        read(outside, outside.listing().names[0])


def test_a_saved_data_set(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    images = [{"bytes": saved(face(32 + row, 32), "PNG"), "path": None} for row in range(4)]
    data = pyarrow.table({"image": images, "label": [0, 1, 1, None]}).replace_schema_metadata(metadata)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    file = str(tmp_path / "saved" / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=3)
    source = find_source(tmp_path / "saved")
    found = source.listing()
    assert found.label_names == ("label_dog",) and column(found, "label_dog")[:3] == [0, 1, 1]
    assert read(source, found.names[3]) == images[3]["bytes"]


def pack_zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))


def pack_tar(folder: Path, path: Path, squeeze: Callable[[bytes], bytes] = bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, ".")
    path.write_bytes(squeeze(buffer.getvalue()))


@pytest.mark.parametrize("kind", ["celeba.zip", "celeba.tar", "celeba.tar.gz", "celeba.tbz2"])
def test_archives_read_like_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    folder = write_celeba(tmp_path / "celeba")
    squeezes: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".tbz2": bz2.compress}
    path = tmp_path / kind
    if kind.endswith(".zip"):
        pack_zip(folder, path)
    else:
        pack_tar(folder, path, squeezes.get(path.suffix, bytes))
    source, plain = find_source(path), listing(folder)
    found = source.listing()
    assert (found.names, found.groups, found.label_names) == (plain.names, plain.groups, plain.label_names)
    assert read(source, found.names[0]) == JPEG


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar", "broken.tar.gz", "broken.parquet"])
def test_damaged_archives_are_untrusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    head = {"broken.tar.gz": gzip.compress(b"x" * 5000)[:-9], "broken.zip": b"PK\x03\x04"}.get(name, b"")
    (tmp_path / name).write_bytes(head + b"no archive at all" * 99)
    with pytest.raises(Untrusted):
        listing(tmp_path / name)


def test_members_that_lie_are_refused_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.jpg", JPEG)
        archive.writestr("good.jpg", JPEG)
        archive.writestr("huge.jpg", bytes(101_000_000))
        archive.writestr("wrong.jpg", JPEG * 3)
    data = bytearray(path.read_bytes())
    place = data.find(b"wrong.jpg") + 60
    data[place] ^= 255
    path.write_bytes(data)
    source = find_source(path)
    assert (
        read(source, "good.jpg") == JPEG and read(source, "../../outside.jpg") == JPEG
    )  # read in place, never unpacked
    with pytest.raises(UnreadableFile, match="larger"):
        read(source, "huge.jpg")
    with pytest.raises(UnreadableFile, match="damaged"):
        read(source, "wrong.jpg")


@pytest.mark.parametrize("name", ["nothing", "some.bin"])
def test_what_is_no_source_is_a_data_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "some.bin").write_bytes(b"\0" * 99)
    with pytest.raises(DataError):
        find_source(tmp_path / name)


def test_a_pack_goes_through_the_stylegan_archive_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path / "in", "1.jpg", "2.jpg", "3.jpg", labels__csv=TABLE)
    for number in (1, 2, 3):  # three different pictures
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)).save(
            tmp_path / "in" / f"{number}.jpg"
        )
    first = prepare(find_source(tmp_path / "in"), tmp_path / "a.pack", Preparation(side=16), workers=1)
    assert isinstance(first, Pack) and first.labels is not None
    write_zip(first, tmp_path / "a.zip")
    second = prepare(find_source(tmp_path / "a.zip"), tmp_path / "b.pack", Preparation(side=16), workers=1)
    assert isinstance(second, Pack) and second.labels is not None
    assert np.array_equal(first.images, second.images) and first.label_names == second.label_names
    assert np.array_equal(first.labels, second.labels, equal_nan=True)
    assert first.meta["label_scales"] == second.meta["label_scales"] and len(second.rows("holdout")) == 1
    write_zip(second, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        write_zip(second, tmp_path / "b.zip")


@pytest.mark.parametrize(
    ("labels", "names", "second"),
    [
        (
            [["00000/img00000000.png", [0.5, 0]], ["00000/img00000001.png", [1, 0.25]]],
            ("label_0", "label_1"),
            [1, 0.25],
        ),
        ([["00000/img00000000.png", 2], ["00000/img00000001.png", 0]], ("class_0", "class_1", "class_2"), [1, 0, 0]),
        ([["00000/img00000000.png", [-4, 10]], ["00000/img00000001.png", [4, 10]]], ("label_0", "label_1"), [1, 0]),
        (None, (), None),
    ],
)
def test_an_archive_of_the_stylegan_family_is_read(
    tmp_path: Path, labels: object, names: tuple[str, ...], second: list[float] | None
) -> None:
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"00000/img{number:08d}.png", saved(face(64, 64), "PNG"))
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    found = listing(tmp_path / "made.zip")
    assert found.layout == "stylegan" and found.label_names == names
    assert (None if found.labels is None else found.labels[1].tolist()) == second


def test_a_pack_is_a_source(tmp_path: Path) -> None:
    write(tmp_path / "in", "1.jpg", "2.jpg", "3.jpg", labels__csv=TABLE)
    prepare(find_source(tmp_path / "in"), tmp_path / "a.pack", Preparation(side=16), workers=1)
    asked = Preparation(where={"age": "25..40"}, labels=("Glasses=glasses",))
    pack = prepare(find_source(tmp_path / "a.pack"), tmp_path / "b.pack", asked, workers=1)
    assert pack is not None and pack.side == 16 and pack.label_names == ("Glasses",)
    assert [entry.source for entry in pack.entries] == ["2.jpg", "3.jpg"]
    assert np.array_equal(pack.images, Pack.open(tmp_path / "a.pack").images[1:])
