"""Selection: labels chosen and negated, conditions, balance, and splits that tear nobody apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data import prepare
from mien.data.labels import balance, choose, count_labels, strongest, together, where
from mien.data.planning import Preparation, plan, select
from mien.data.source import Listing
from mien.data.source_kinds import find_source
from mien.data.split import hold_out
from mien.data.synthetic import SyntheticFaces
from mien.data.table_labels import describe
from mien.errors import DataError, UsageError
from tests.conftest import SHARED

NAN = np.nan


def listing(**columns: list[float]) -> Listing:
    labels = np.array(list(columns.values()), dtype=np.float32).T
    return Listing(
        layout="test",
        names=[f"{row}.png" for row in range(len(labels))],
        label_names=tuple(columns),
        labels=labels,
        scales={"Age": (0, 100)} if "Age" in columns else {},
    )


def test_labels_are_chosen_renamed_and_negated() -> None:
    chosen = choose(listing(A=[0, 1, NAN], B=[1, 0.25, 0], Age=[0.2, 0.3, 1]), ["B", "Not_old=!Age", "!A"])
    assert chosen.label_names == ("B", "Not_old", "Not_A") and chosen.labels is not None
    assert np.allclose(chosen.labels, [[1, 0.8, 1], [0.25, 0.7, 0], [0, 0, NAN]], equal_nan=True)
    assert chosen.scales == {"Not_old": (100, 0)}


@pytest.mark.parametrize("choices", [["Nope"], ["A", "A"], ["B=!Nope"]])
def test_wrong_choices_are_usage_errors(choices: list[str]) -> None:
    with pytest.raises(UsageError):
        choose(listing(A=[0, 1]), choices)


def test_conditions() -> None:
    found = listing(A=[0, 1, 1, NAN], Age=[0.2, 0.3, 0.5, 0.3])
    assert where(found, {"A": "1"}).tolist() == [1, 2]
    assert where(found, {"!A": "1"}).tolist() == [0]
    assert where(found, {"A": "1", "Age": "25..40"}).tolist() == [1]
    assert where(found, {"Age": "30"}).tolist() == [1, 3]
    with pytest.raises(UsageError, match="not a condition"):
        where(found, {"A": "yes"})


def test_balance_takes_equal_counts_of_every_combination() -> None:
    found = listing(A=[0, 0, 0, 1, 1, 1, NAN], B=[0, 0, 1, 0, 1, 1, 1])
    rows, report = balance(found, ["A", "B"])
    assert report["of_each"] == 1 and report["not_known"] == 1
    assert found.labels is not None
    assert sorted(map(tuple, found.labels[rows].tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert report["left_out"] == {"A=0, B=0": 1, "A=0, B=1": 0, "A=1, B=0": 0, "A=1, B=1": 1}
    rows, report = balance(found, ["A"], limit=4)
    assert found.labels[rows][:, 0].tolist() == [0, 0, 1, 1] and report["of_each"] == 2


def test_counts() -> None:
    found = listing(A=[0, 1, 1, NAN], Age=[0.2, 0.4, NAN, 0.3])
    assert count_labels(found.label_names, found.labels, found.scales) == {
        "A": {"yes": 2, "no": 1, "unknown": 1},
        "Age": {"yes": 0, "no": 3, "unknown": 1, "range": [20, 40], "mean": 30},
    }


def test_labels_together() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, NAN, 0]], dtype=np.float32)
    assert np.allclose(together(labels)[0], [1, 1 / 2, 0])
    assert strongest(["A", "B", "C"], labels)[0] == ("A", "C", pytest.approx(-1))


def test_a_selection_that_leaves_nothing_is_a_data_error() -> None:
    with pytest.raises(DataError, match="No image has A=1"):
        select(listing(A=[0, 0]), Preparation(where={"A": "1"}))


def test_a_limit_is_a_fixed_random_sample() -> None:
    sorted_by_class = listing(A=[0] * 500 + [1] * 500)
    few, counts = select(sorted_by_class, Preparation(limit=100))
    more, _ = select(sorted_by_class, Preparation(limit=200))
    assert few.labels is not None and 0.35 < few.labels.mean() < 0.65 and counts["sampled"] == 100
    assert list(few.names) == list(select(sorted_by_class, Preparation(limit=100))[0].names)
    assert set(few.names) < set(more.names) and [*few.names] == [
        n for n in sorted_by_class.names if n in set(few.names)
    ]
    balanced, _ = balance(listing(A=[0] * 900 + [1] * 100), ["A"])
    assert balanced[:100].mean() > 200  # not the first hundred of the nine


def test_limits() -> None:
    everything, counts = select(listing(A=[0, 1, 0]), Preparation(limit=3))
    assert len(everything.names) == 3 and "sampled" not in counts
    with pytest.raises(UsageError):
        Preparation(limit=0)


def test_a_plan_is_named_by_what_decides_the_outcome() -> None:
    source = SyntheticFaces(16, 30)
    keys = [
        plan(source, asked).key
        for asked in (
            Preparation(),
            Preparation(),
            Preparation(side=32),
            Preparation(labels=("Bald",)),
            Preparation(holdout=0.1),
        )
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 4


def test_identities_are_never_torn_apart() -> None:
    groups = [f"person {number % 100}" for number in range(1000)]
    splits = hold_out(0.1, [f"{number}" for number in range(1000)], groups)
    assert splits.count("holdout") == 100
    sides = {group: {split for other, split in zip(groups, splits, strict=True) if other == group} for group in groups}
    assert all(len(side) == 1 for side in sides.values())


def test_a_split_depends_on_the_names_alone() -> None:
    names = [f"{number}.png" for number in range(500)]
    forwards = dict(zip(names, hold_out(0.2, names, None), strict=True))
    backwards = dict(zip(names[::-1], hold_out(0.2, names[::-1], None), strict=True))
    assert forwards == backwards and list(forwards.values()).count("holdout") == 100


def attribute_file() -> str:
    """CelebA's attribute list as text; the test is skipped where it is missing."""
    path = SHARED / "data" / "celeba-10k.zip"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return archive.read("list_attr_celeba.txt").decode()


def test_celeba_counts_against_an_independent_count() -> None:
    _, header, *lines = attribute_file().splitlines()
    people = [dict(zip(header.split(), line.split()[1:], strict=True)) for line in lines]
    men = [person for person in people if person["Male"] == "1"]
    expected = {name: sum(man[name] == "1" for man in men) for name in ("Eyeglasses", "No_Beard", "Bald")}
    assert (len(men), *expected.values()) == (4217, 524, 2558, 246)

    source = find_source(SHARED / "data" / "celeba-10k.zip")
    chosen, counts = select(source.listing(), Preparation(where={"Male": "1"}))
    counted = count_labels(chosen.label_names, chosen.labels, chosen.scales)
    assert counts == {"found": 10_000, "where": 4217, "selected": 4217}
    assert {name: counted[name]["yes"] for name in expected} == expected

    chosen, counts = select(source.listing(), Preparation(balance=("Male",)))
    assert len(chosen.names) == 8434 and counts["balance"]["of_each"] == 4217
    assert counts["balance"]["left_out"] == {"Male=0": 10_000 - 2 * 4217, "Male=1": 0}


def test_the_split_is_by_identity(tmp_path: Path) -> None:
    from tests.test_data_sources import write

    names = [f"{person}/{person}_{number:04d}.jpg" for person in ("Ann", "Bo", "Cy", "Di") for number in range(1, 6)]
    found = find_source(write(tmp_path, *names)).listing()
    splits = hold_out(0.25, found.names, found.groups)
    assert (
        splits.count("holdout") == 5
        and len({name[:2] for name, s in zip(found.names, splits, strict=True) if s == "holdout"}) == 1
    )


def test_the_source_has_a_split_of_its_own(tmp_path: Path) -> None:
    faces = tmp_path / "img_align_celeba"
    faces.mkdir()
    for number in range(4):
        Image.new("RGB", (89, 109), (60 * number, 0, 0)).save(faces / f"{number}.png")
    (tmp_path / "list_attr_celeba.txt").write_text("4\nMale\n" + "".join(f"{number}.png 1\n" for number in range(4)))
    with pytest.raises(UsageError, match="no split of its own"):
        plan(find_source(tmp_path), Preparation(holdout="official"))
    (tmp_path / "list_eval_partition.txt").write_text("0.png 0\n1.png 1\n2.png 2\n")
    (tmp_path / "identity_CelebA.txt").write_text("0.png 5\n1.png 5\n2.png 6\n3.png 6\n")
    official = prepare(find_source(tmp_path), tmp_path / "a.pack", Preparation(side=16, holdout="official"), workers=1)
    assert official is not None
    assert [entry.split for entry in official.entries] == ["train", "holdout", "holdout", "train"]
    assert official.meta["splits"] == {"train": 2, "holdout": 2} and official.meta["recipe"]["holdout"] == "official"
    assert list(official.rows("holdout")) == [1, 2]
    drawn = prepare(find_source(tmp_path), tmp_path / "b.pack", Preparation(side=16, holdout=0.5), workers=1)
    assert drawn is not None
    assert [entry.group for entry in drawn.entries] == ["5", "5", "6", "6"]
    assert [entry.split for entry in drawn.entries] in (
        ["train"] * 2 + ["holdout"] * 2,
        ["holdout"] * 2 + ["train"] * 2,
    )


def test_a_group_of_many_pictures_is_a_label_and_not_a_person() -> None:
    """FairFace's column `group` has seven words for 13,472 faces: a split by it would hold out one of the seven."""
    crowd = describe({"group": ["East Asian", "White", "Black"] * 100}, "labels.csv")
    assert crowd.groups is None and set(crowd.columns) == {"group_Black", "group_East_Asian", "group_White"}
    persons = describe({"group": [f"{number // 3}" for number in range(300)]}, "labels.csv")
    assert persons.groups is not None and len(set(persons.groups)) == 100
    assert describe({"person": ["Ann", "Bo"] * 100}, "labels.csv").groups is not None


def beside(folder: Path, names: list[str], table: str, text: str) -> Listing:
    """The listing of pictures with a table beside them."""
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / table).write_text(text)
    return find_source(folder).listing()


def test_quoted_cells_with_spaces_outside_the_quotation_marks(tmp_path: Path) -> None:
    """They kept their quotation marks and named no picture."""
    rows = "".join(f'"p{n}.png" ; "{20 + n}"\n' for n in range(4))
    found = beside(tmp_path, [f"p{n}.png" for n in range(4)], "labels.csv", f'"file" ; "age"\n{rows}')
    assert found.label_names == ("age",) and found.labels is not None
    assert np.allclose(found.labels[:, 0] * 3 + 20, [20, 21, 22, 23])


def test_zero_names_the_picture_of_zeros(tmp_path: Path) -> None:
    """1 named 000001, and 0 nothing."""
    rows = "".join(f"{n},{n % 2}\n" for n in range(4))
    found = beside(tmp_path, [f"{n:06d}.png" for n in range(4)], "labels.csv", f"id,Smiling\n{rows}")
    assert found.labels is not None and found.labels[:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("table", "text", "reason"),
    [("labels.CSV.gz", "x", "It is compressed. Unpack it."), ("labels.csv", "file,age\n", "no line below its titles")],
)
def test_a_table_that_holds_nothing_to_read_is_left_aside_with_its_reason(
    tmp_path: Path, table: str, text: str, reason: str
) -> None:
    found = beside(tmp_path, ["a.png", "b.png"], table, text)
    assert found.labels is None and len(found.remarks) == 1
    assert found.remarks[0].startswith(f"{table} is left aside.") and reason in found.remarks[0]
