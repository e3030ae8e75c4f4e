"""The pack and the loader: what is written is read, and order is a function of (seed, epoch, index)."""

from __future__ import annotations

import copy
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien.__main__ import main
from mien.core.contracts import Batch
from mien.data import Preparation, open_data, prepare
from mien.data.loader import Loader, to_tensor
from mien.data.pack import Entry, Pack, PackWriter
from mien.data.synthetic import SyntheticFaces
from mien.errors import DataError, MienError, Mismatch, Untrusted, UsageError


def write_pack(path: Path, count: int = 10, side: int = 4, holdout: int = 0, seed: int = 0) -> Pack:
    """A small pack of noise whose first label is the row's share of the count."""
    images = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.stack([np.arange(count) / max(count, 1), np.full(count, np.nan)], 1).astype(np.float32)
    with PackWriter(path, side, ["Row", "Unknown"]) as writer:
        for start in range(0, count, 3):
            entries = [
                Entry(f"{i}.png", split="holdout" if i < holdout else "train")
                for i in range(start, min(start + 3, count))
            ]
            writer.append(images[start : start + 3], labels[start : start + 3], entries)
        return writer.commit({"source": {"kind": "noise"}})


def test_a_pack_reads_what_was_written(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack")
    assert len(pack) == 10 and pack.side == 4 and pack.label_names == ("Row", "Unknown")
    assert np.array_equal(pack.images, np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8))
    assert pack.labels is not None and pack.labels[3, 0] == np.float32(0.3) and np.isnan(pack.labels[:, 1]).all()
    assert pack.entries[7].source == "7.png"
    assert np.array_equal(np.load(pack.path / "images.npy"), pack.images)  # a plain .npy file to everybody else
    pack.verify()
    assert list(tmp_path.iterdir()) == [pack.path]


def test_splits(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack", holdout=4)
    assert pack.rows("holdout").tolist() == [0, 1, 2, 3]
    assert pack.rows("train").tolist() == [4, 5, 6, 7, 8, 9]
    assert len(pack.rows("all")) == 10
    with pytest.raises(UsageError):
        pack.rows("test")


def test_splits_are_read_without_holding_the_index(tmp_path: Path) -> None:
    """A training of ten million images would hold gigabytes of names in each process."""
    count = 20_000
    with PackWriter(tmp_path / "a.pack", 4) as writer:
        entries = [
            Entry(f"folder{i:08d}/{i:08d}.png", split="holdout" if i % 10 == 3 else "train", geometry=f"{i % 7},0,9,9")
            for i in range(count)
        ]
        writer.append(np.zeros((count, 4, 4, 3), np.uint8), None, entries)
        pack = writer.commit({"source": {"kind": "noise"}})
    del entries
    tracemalloc.start()
    rows = pack.rows("holdout")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.tolist() == list(range(3, count, 10)) and len(pack.rows("train")) == count - len(rows)
    assert peak < 20 * count, f"{peak / count:.0f} bytes for each row"
    assert pack.source_of(12_345) == "folder00012345/00012345.png" == pack.entries[12_345].source


def test_an_index_with_too_few_or_too_many_rows_is_refused(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack", holdout=4)
    index = (pack.path / "index.csv").read_text()
    for changed in (index + "10,10.png,,train,\n", index.rsplit("9,9.png", 1)[0]):
        (pack.path / "index.csv").write_text(changed)
        with pytest.raises(Untrusted, match="rows for 10 images"):
            Pack.open(pack.path).rows("train")


def test_the_fingerprint_names_the_content(tmp_path: Path) -> None:
    same = write_pack(tmp_path / "a.pack"), write_pack(tmp_path / "b.pack")
    others = (
        write_pack(tmp_path / "c.pack", seed=1),
        write_pack(tmp_path / "d.pack", holdout=1),
        write_pack(tmp_path / "e.pack", count=9),
    )
    assert same[0].fingerprint == same[1].fingerprint
    assert len({same[0].fingerprint, *(pack.fingerprint for pack in others)}) == 4


def test_an_abandoned_pack_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PackWriter(tmp_path / "a.pack", 4):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def _cut(path: Path) -> None:
    file = path / "images.npy"
    file.write_bytes(file.read_bytes()[:-1])


def _newer(path: Path) -> None:
    meta = json.loads((path / "pack.json").read_text())
    (path / "pack.json").write_text(json.dumps({**meta, "format": 99}))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (_cut, Untrusted),
        (_newer, Mismatch),
        (lambda path: (path / "pack.json").write_text("{"), Untrusted),
        (lambda path: (path / "pack.json").write_text('{"format": 1}'), Untrusted),
        (lambda path: (path / "labels.npy").unlink(), Untrusted),
        (lambda path: (path / "pack.json").unlink(), DataError),
    ],
)
def test_a_damaged_pack_is_refused(tmp_path: Path, damage: Callable[[Path], object], error: type[MienError]) -> None:
    path = write_pack(tmp_path / "a.pack").path
    damage(path)
    with pytest.raises(error) as caught:
        Pack.open(path)
    assert all((caught.value.what, caught.value.why, caught.value.remedy))


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "a.pack").path
    data = bytearray((path / "images.npy").read_bytes())
    data[-1] ^= 1
    (path / "images.npy").write_bytes(data)
    with pytest.raises(Untrusted, match=r"images\.npy"):
        Pack.open(path).verify()


@pytest.mark.parametrize("field, value", [("fingerprint", "0" * 64), ("label_names", ["Row", "Other"])])
def test_verify_compares_the_fingerprint(tmp_path: Path, field: str, value: object) -> None:
    path = write_pack(tmp_path / "a.pack").path
    meta = json.loads((path / "pack.json").read_text())
    (path / "pack.json").write_text(json.dumps({**meta, field: value}))
    with pytest.raises(Untrusted, match="fingerprint"):
        Pack.open(path).verify()


def test_open_data_refuses_a_pack_that_was_edited(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "a.pack").path
    assert open_data(path).fingerprint == Pack.open(path).fingerprint
    index = (path / "index.csv").read_text()
    (path / "index.csv").write_text(index.replace("3.png", "x.png"))
    with pytest.raises(Untrusted, match=r"index\.csv"):
        open_data(path)
    (path / "index.csv").unlink()
    with pytest.raises(Untrusted, match=r"index\.csv"):
        open_data(path)


def test_a_missing_pack_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        Pack.open(tmp_path / "nothing")


def take(pack: Pack, batches: int, **knobs: int) -> list[Batch]:
    loader = Loader(pack, **{"batch": 4, "seed": 3, **knobs})  # type: ignore[arg-type]
    try:
        return [next(loader) for _ in range(batches)]
    finally:
        loader.close()


def same(left: list[Batch], right: list[Batch]) -> bool:
    return all(torch.equal(a.images, b.images) for a, b in zip(left, right, strict=True))


def test_batches_are_channels_last_and_in_range(tmp_path: Path) -> None:
    batch = take(write_pack(tmp_path / "a.pack"), 1)[0]
    assert batch.images.shape == (4, 3, 4, 4) and batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels is not None and batch.labels.shape == (4, 2)
    ends = to_tensor(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, 3))
    assert ends.unique().tolist() == [-1.0, 1.0]


def test_an_epoch_holds_every_image_once_and_epochs_differ(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack", count=12)
    order = torch.cat([batch.labels[:, 0] for batch in take(pack, 6) if batch.labels is not None])
    first, second = order[:12], order[12:]
    assert torch.equal(first.sort()[0], second.sort()[0]) and len(first.unique()) == 12
    assert not torch.equal(first, second)


def test_flips_mirror_some_images_and_never_change_them_otherwise(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack", count=64)
    batch = take(pack, 1, batch=64)[0]
    assert batch.labels is not None
    plain = to_tensor(pack.images[(batch.labels[:, 0] * 64).round().long().numpy()])
    straight = (batch.images == plain).flatten(1).all(1)
    mirrored = (batch.images == plain.flip(3)).flatten(1).all(1)
    assert bool((straight ^ mirrored).all()) and 16 < int(mirrored.sum()) < 48
    assert bool((take(pack, 1, batch=64, flip=False)[0].images == plain).all())


def test_each_epoch_mirrors_another_half(tmp_path: Path) -> None:
    """Neither the same images again nor the same places in the order."""
    pack = write_pack(tmp_path / "a.pack", count=64)
    places, images = [], []
    for position in (0, 64, 128):
        batch = take(pack, 1, batch=64, position=position)[0]
        assert batch.labels is not None
        rows = (batch.labels[:, 0] * 64).round().long()
        places.append((batch.images == to_tensor(pack.images[rows.numpy()]).flip(3)).flatten(1).all(1))
        images.append(torch.zeros(64, dtype=torch.bool).scatter(0, rows, places[-1]))
    for mirrored in (places, images):
        assert all(20 <= int(one.sum()) <= 44 for one in mirrored)
        assert not any(torch.equal(mirrored[a], mirrored[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


def test_threads_never_change_the_stream(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack")
    reference = take(pack, 30, threads=0)
    assert same(reference, take(pack, 30, threads=1)) and same(reference, take(pack, 30, threads=3))
    assert not same(reference, take(pack, 30, threads=0, seed=4))


def test_a_loader_continues_at_any_position(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack")
    reference = take(pack, 20)
    for consumed in range(20):
        assert same(reference[consumed:], take(pack, 20 - consumed, position=consumed * 4))


def test_position_counts_what_was_consumed_not_what_was_prepared(tmp_path: Path) -> None:
    loader = Loader(write_pack(tmp_path / "a.pack"), batch=4, seed=0, threads=2)
    next(loader)
    assert loader.position == 4 and loader.waited > 0
    loader.close()


def test_ranks_share_every_batch_in_contiguous_slices(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "a.pack")
    whole, halves = take(pack, 15), [take(pack, 15, rank=rank, world=2) for rank in (0, 1)]
    for batch, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images, torch.cat([left.images, right.images]))


def test_a_batch_larger_than_the_pack_spans_epochs(tmp_path: Path) -> None:
    batch = take(write_pack(tmp_path / "a.pack", count=5), 1, batch=12)[0]
    assert batch.labels is not None
    assert sorted(batch.labels[:5, 0].tolist()) == sorted(batch.labels[5:10, 0].tolist())


def test_only_the_training_split_is_learned_from(tmp_path: Path) -> None:
    batch = take(write_pack(tmp_path / "a.pack", holdout=4), 1, batch=60)[0]
    assert batch.labels is not None and float(batch.labels[:, 0].min()) > 0.39


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Loader(write_pack(tmp_path / "a.pack"), batch=5, seed=0, world=2)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        Loader(write_pack(tmp_path / "a.pack", count=0), batch=4, seed=0)


JUNK = [None, "x", -1, 1e308, [], {}, [[]], True, "../../etc/passwd", {"a": 1}, [1, 2, 3]]


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every field and item of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*path, key), *places(item, (*path, key)))]


def test_a_changed_pack_json_is_never_a_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field exchanged or removed: the pack is as good, or refused with a reason; exit 1 is a bug."""
    made = prepare(SyntheticFaces(16, 6), tmp_path / "a.pack", Preparation(side=16, balance=("Smiling",)), workers=1)
    assert made is not None
    meta = json.loads((made.path / "pack.json").read_text())
    rng = random.Random(0)
    for place in rng.sample(places(meta), 60):
        changed = copy.deepcopy(meta)
        inner: Any = changed
        for key in place[:-1]:
            inner = inner[key]
        value = rng.choice([*JUNK, "remove"])
        if value == "remove":
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        (made.path / "pack.json").write_text(json.dumps(changed))
        code = main(["data", "info", str(made.path), "-o", str(tmp_path / "about")])
        assert code in (0, 3, 8, 9), (place, value, capsys.readouterr().err)


@pytest.mark.parametrize("field", ["counts", "recipe", "source", "remarks", "notes", "refused", "splits"])
def test_a_pack_that_does_not_say_how_it_was_prepared_can_be_trained_on_only(
    tmp_path: Path, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(SyntheticFaces(16, 6), tmp_path / "a.pack", Preparation(side=16), workers=1)
    assert made is not None and made.preparation == made.meta
    meta = {name: value for name, value in made.meta.items() if name != field}
    (made.path / "pack.json").write_text(json.dumps(meta))
    opened = Pack.open(made.path)
    assert len(opened.rows("train")) == 6  # the loader needs nothing else
    with pytest.raises(Mismatch, match=f"no {field}"):
        _ = opened.preparation
    before = sorted(path.name for path in made.path.iterdir())
    assert main(["data", "info", str(made.path)]) == 9 and "can be trained on" in capsys.readouterr().err
    assert sorted(path.name for path in made.path.iterdir()) == before
