"""Checkpoints under every fault that a disk or a kill can inject: the old state or the new one, never a piece."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mien.errors import Mismatch, Untrusted
from mien.storage import atomic, checkpoint
from mien.storage.checkpoint import Snapshot

PRINTS = {"run": "a" * 16, "data": "b" * 64}


def memory(seen: int) -> Snapshot:
    """A small memory that differs for each number of images."""
    generator = torch.Generator().manual_seed(seen)
    tensors = {f"recipe.{name}": torch.randn(3, 5, generator=generator) for name in "ab"}
    model = checkpoint.pack_tensors({"a": tensors["recipe.a"]}, {"config": {}, "faces": {}})
    return Snapshot(seen, model, checkpoint.pack_tensors(tensors), {"seen": seen, "retry": 0})


def commit(directory: Path, seen: int, **options: Any) -> Path:
    return checkpoint.commit(directory, memory(seen), PRINTS, **options)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


class Disk:
    """The operating system's file calls, of which the `fatal`-th fails; with `dead`, so does every later one, as after a kill."""

    CALLS = ("open", "mkdir", "fsync", "replace", "rename", "unlink", "rmdir")

    def __init__(self, fatal: int, code: int = errno.EIO, dead: bool = False) -> None:
        self.fatal, self.code, self.dead = fatal, code, dead
        self.count = 0
        self.names: list[str] = []

    def call(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.fatal or (self.dead and self.count > self.fatal > 0):
            raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def mounted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
        def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def function(*arguments: Any, **options: Any) -> Any:
                self.call(name)
                return real(*arguments, **options)

            return function

        opened = io.open

        def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            self.call(f"open {mode}")
            handle = opened(file, mode, *arguments, **options)
            return Torn(handle, self) if "w" in mode else handle

        with monkeypatch.context() as patch:
            for name in self.CALLS:
                patch.setattr(os, name, guarded(name, getattr(os, name)))
            patch.setattr(io, "open", open_file)
            yield self


class Torn:
    """A file whose failing write leaves half of the bytes behind."""

    def __init__(self, handle: Any, disk: Disk) -> None:
        self.handle, self.disk = handle, disk

    def write(self, content: Any) -> int:
        try:
            self.disk.call("write")
        except OSError:
            self.handle.write(content[: len(content) // 2])
            self.handle.flush()
            raise
        return int(self.handle.write(content))

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)


def prepared(directory: Path) -> None:
    """A milestone and three older checkpoints, so that the next commit also prunes."""
    for seen in (16, 24, 32, 40):
        commit(directory, seen)


def calls_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    prepared(tmp_path / "count")
    with Disk(0).mounted(monkeypatch) as disk:
        commit(tmp_path / "count", 48)
    return disk.names


def test_a_commit_makes_the_calls_that_the_protocol_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files and their directory forced, a rename, its directory forced, LATEST, whose place is cleared, then the prune."""
    names = [name for name in calls_of_a_commit(tmp_path, monkeypatch) if name not in ("mkdir", "open", "open rb")]
    assert names[:14] == [*(["open wb", "write", "fsync"] * 4), "fsync", "replace"]
    assert names[14] == "fsync" and names[15:21] == ["unlink", "open w", "write", "fsync", "replace", "fsync"]
    assert set(names[21:]) == {"unlink", "rmdir"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("dead", [False, True], ids=["fault", "kill"])
def test_a_fault_at_any_call_leaves_the_old_state_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, dead: bool
) -> None:
    total = len(calls_of_a_commit(tmp_path, monkeypatch))
    assert total >= 30
    expected = {f"{seen:010d}": contents(commit(tmp_path / "expected", seen)) for seen in (40, 48)}
    outcomes = set()
    for fatal in range(1, total + 1):
        directory = tmp_path / f"{fatal}"
        prepared(directory)
        failed = False
        with Disk(fatal, code, dead).mounted(monkeypatch):
            try:
                commit(directory, 48)
            except OSError as error:
                failed = True
                assert error.errno == code
        orphans = [path for path in directory.iterdir() if path.name.startswith(".")]
        found, reports = checkpoint.newest(directory)
        assert found is not None and reports == []
        assert contents(found) == expected[found.name]
        assert failed or found.name.endswith("48")  # what was announced as saved is there
        assert dead or not orphans  # a process that lives tidies up
        checkpoint.clean(directory)
        assert not [path for path in directory.iterdir() if path.name.startswith(".")]
        commit(directory, 56)  # and life goes on
        assert checkpoint.newest(directory)[0] == directory / "0000000056"
        outcomes.add((failed, found.name[-2:]))
        shutil.rmtree(directory)
    assert {(True, "40"), (False, "48")} <= outcomes


def damaged(path: Path, kind: str, rng: random.Random) -> str:
    """Damage one file of a checkpoint; returns what was done."""
    file = rng.choice(sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "zero":
        length = rng.randint(1, 64)
        if not any(content[at : at + length]):
            content[at] = 1
        else:
            content[at : at + length] = bytes(len(content[at : at + length]))
    elif kind == "gone":
        file.unlink()
        return f"{file.name} gone"
    file.write_bytes(bytes(content))
    return f"{file.name} {kind} at {at}"


def test_every_corruption_is_found(tmp_path: Path) -> None:
    """100 flips, 50 cuts, 25 zeroed ranges, 5 lost files, 20 swaps: 200 of 200."""
    commit(tmp_path / "run", 8)
    whole, other = commit(tmp_path / "run", 16), tmp_path / "run" / "0000000008"
    rng = random.Random(0)
    kinds = ["flip"] * 100 + ["cut"] * 50 + ["zero"] * 25 + ["gone"] * 5 + ["swap"] * 20
    missed = []
    for number, kind in enumerate(kinds):
        copy = tmp_path / "copy" / str(number) / whole.name
        shutil.copytree(whole, copy)
        if kind == "swap":
            name = ["MANIFEST.json", "state.json", "state.safetensors", "model.safetensors", "."][number % 5]
            if name == ".":
                shutil.rmtree(copy)
                shutil.copytree(other, copy)
            else:
                shutil.copy(other / name, copy / name)
            done = f"{name} swapped"
        else:
            done = damaged(copy, kind, rng)
        if checkpoint.verify(copy) is None:
            missed.append(done)
        with pytest.raises(Untrusted):
            checkpoint.read_state(copy)
    assert missed == []
    assert checkpoint.verify(whole) is None


def test_a_copy_under_another_name_is_whole(tmp_path: Path) -> None:
    shutil.copytree(commit(tmp_path / "run", 8), tmp_path / "best")
    assert checkpoint.verify(tmp_path / "best") is None


def test_damaged_ones_are_set_aside_and_an_older_one_is_used(tmp_path: Path) -> None:
    for seen in (8, 16, 24):
        commit(tmp_path, seen)
    (tmp_path / "0000000024" / "state.safetensors").write_bytes(b"")
    (tmp_path / "0000000016" / "MANIFEST.json").unlink()
    found, reports = checkpoint.newest(tmp_path)
    assert found == tmp_path / "0000000008"
    assert len(reports) == 2 and "0 bytes" in reports[0] and "manifest" in reports[1]
    aside = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("damaged-"))
    assert [name[:18] for name in aside] == ["damaged-0000000016", "damaged-0000000024"]
    assert checkpoint.newest(tmp_path) == (found, [])  # said once


def test_all_damaged_means_none(tmp_path: Path) -> None:
    (commit(tmp_path, 8) / "state.json").write_text("{}")
    found, reports = checkpoint.newest(tmp_path)
    assert found is None and len(reports) == 1
    assert checkpoint.newest(tmp_path / "nothing") == (None, [])


def test_committing_over_a_damaged_one_sets_it_aside(tmp_path: Path) -> None:
    (commit(tmp_path, 8) / "state.json").write_text("{}")
    assert checkpoint.verify(commit(tmp_path, 8)) is None
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("damaged-")]) == 1


def test_latest_is_only_a_hint(tmp_path: Path) -> None:
    for seen in (8, 16):
        commit(tmp_path, seen)
    assert (tmp_path / "LATEST").read_text() == "0000000016\n"
    for lie in ("0000000008\n", "nonsense", ""):
        (tmp_path / "LATEST").write_text(lie)
        assert checkpoint.newest(tmp_path)[0] == tmp_path / "0000000016"
    (tmp_path / "LATEST").unlink()
    assert checkpoint.newest(tmp_path)[0] == tmp_path / "0000000016"


def test_order_is_by_images_and_never_by_the_clock(tmp_path: Path) -> None:
    for seen in (8, 1000, 64):
        os.utime(commit(tmp_path, seen, keep=9), (seen * 7 % 100, seen * 7 % 100))
    assert [int(path.name) for path in checkpoint.all_of(tmp_path)] == [1000, 64, 8]


def test_a_partial_is_never_chosen(tmp_path: Path) -> None:
    whole = commit(tmp_path, 8)
    shutil.copytree(whole, tmp_path / ".tmp-16-deadbeef")
    shutil.copytree(whole, tmp_path / "damaged-0000000024-abcdef")
    (tmp_path / "0000000032").write_text("a file")
    assert checkpoint.all_of(tmp_path) == [whole]


def test_a_newer_format_is_a_mismatch_and_not_damage(tmp_path: Path) -> None:
    path = commit(tmp_path, 8)
    manifest = json.loads((path / "MANIFEST.json").read_text()) | {"format": 99}
    manifest["seal"] = checkpoint.seal(manifest)
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(Mismatch, match="format 99"):
        checkpoint.verify(path)


def test_files_named_keep_protect(tmp_path: Path) -> None:
    commit(tmp_path, 16)
    (commit(tmp_path, 24) / "KEEP").touch()
    for seen in range(32, 80, 8):
        commit(tmp_path, seen)
    assert [int(path.name) for path in checkpoint.all_of(tmp_path)] == [72, 64, 56, 24, 16]
    assert checkpoint.verify(tmp_path / "0000000024") is None


def test_a_failed_delete_only_costs_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rmdir", refuse)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # LATEST's temporary name is gone by then
        commit(tmp_path, 48)
    assert len(checkpoint.all_of(tmp_path)) == 5
    commit(tmp_path, 56)
    assert [int(path.name) for path in checkpoint.all_of(tmp_path)] == [56, 48, 40, 16]


def test_milestones_show_the_whole_run(tmp_path: Path) -> None:
    """However long a run becomes, a few early checkpoints stay, and those that stay are never displaced."""
    before: set[int] = set()
    for seen in range(0, 20_000, 500):
        commit(tmp_path, seen, keep=2)
        stay = {int(path.name) for path in checkpoint.all_of(tmp_path)}
        assert stay >= before and seen in stay
        before = checkpoint.milestones(stay)
    assert sorted(stay) == [0, 500, 1024 + 476, 4500, 16500, 19000, 19500]


def test_retention_never_loses_the_only_valid_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random walk of saves, failing saves, kills, damage and restarts: what was announced last, or what was valid, is there."""
    rng = random.Random(1)
    seen, outcomes = 0, set()
    for _ in range(300):
        action = rng.choice(["save", "save", "fault", "kill", "damage", "restart"])
        if action in ("save", "fault", "kill"):
            seen += 8
            with Disk(0 if action == "save" else rng.randint(1, 30), dead=action == "kill").mounted(monkeypatch):
                try:
                    commit(tmp_path, seen, keep=2)
                    outcomes.add(action)
                except OSError:
                    outcomes.add(f"{action} failed")
        elif action == "damage":
            intact = [path for path in checkpoint.all_of(tmp_path) if checkpoint.verify(path) is None]
            if len(intact) > 1:
                damaged(rng.choice(intact), "cut", rng)
        else:
            checkpoint.clean(tmp_path)
            found, _ = checkpoint.newest(tmp_path)
            seen = int(found.name) if found else seen
        valid = [path for path in checkpoint.all_of(tmp_path) if checkpoint.verify(path) is None]
        assert valid or "save" not in outcomes
        older = {int(path.name) for path in checkpoint.all_of(tmp_path)[2:]}
        assert action != "save" or older <= checkpoint.milestones(
            int(path.name) for path in checkpoint.all_of(tmp_path)
        )
    assert outcomes >= {"save", "fault failed", "kill failed"}


def test_equal_states_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No time, path or host inside."""
    first = contents(commit(tmp_path / "a", 8))
    monkeypatch.setattr("time.time", lambda: 1e9)
    second = contents(commit(tmp_path / "elsewhere", 8))
    assert first == second
    assert first.keys() == {"model.safetensors", "state.safetensors", "state.json", "MANIFEST.json"}
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_files_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = commit(tmp_path, 8)
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}


def test_find_model_takes_the_newest_valid_one(tmp_path: Path) -> None:
    for seen in (8, 16):
        commit(tmp_path / "checkpoints", seen)
    (tmp_path / "checkpoints" / "0000000016" / "model.safetensors").write_bytes(b"x")
    assert checkpoint.find_model(tmp_path) == tmp_path / "checkpoints" / "0000000008" / "model.safetensors"
    assert (tmp_path / "checkpoints" / "0000000016").exists()  # a reader sets nothing aside: the run's owner does


def test_a_written_file_is_new_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`durable.replacing`, at every call of its own."""
    file = tmp_path / "status.json"
    atomic.replace_text(file, "old")
    with Disk(0).mounted(monkeypatch) as disk:
        atomic.replace_text(file, "old")
    for dead in (False, True):
        for fatal in range(1, disk.count + 1):
            atomic.replace_text(file, "old")
            failed = False
            with Disk(fatal, errno.ENOSPC, dead).mounted(monkeypatch):
                try:
                    atomic.replace_text(file, "new and longer")
                except OSError:
                    failed = True
            assert file.read_text() in (("old", "new and longer") if failed else ("new and longer",))
            if not dead:
                assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
            checkpoint.clean(tmp_path)
            assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned afterwards (directions, latents) is replaced as atomically as a checkpoint is."""
    path = tmp_path / "directions.safetensors"
    atomic.write_bytes(path, b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_bytes(path, b"new content")
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": 5},
        {"labels": [5]},
        {"labels": None},
        {"label_rows": [5]},
        {"label_rows": [["x"]]},
        {"data": 5},
        {"data": {"count": "x"}},
        {"data": {"framing": 5}},
        {"data": {"framing": {"eye_distance": "x"}}},
        {"data": {"fingerprint": []}},
        {"preset": 5},
        {"recipe": 5},
        {"run_fingerprint": {}},
        {"parent": []},
    ],
)
def test_a_header_whose_fields_have_other_types_is_no_model(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Labels that were a number ended `mien sample` with exit code 1."""
    path = tmp_path / "model.safetensors"
    good = {"config": {}, "faces": {}, "labels": ["a"], "label_rows": [[1, 0.5, None]],
            "data": {"count": 1, "fingerprint": "x", "framing": {"crop": "face", "eye_distance": 1}}}  # fmt: skip
    for fields in ({}, {"config": dict}):
        save_file({"x": torch.zeros(1)}, path, {"mien": json.dumps(good)})
        assert checkpoint.read_header(path, **fields) == good
        save_file({"x": torch.zeros(1)}, path, {"mien": json.dumps({**good, **wrong})})
        if fields:  # an extra's header, which has other fields
            assert checkpoint.read_header(path, **fields) == {**good, **wrong}
        else:
            with pytest.raises(Untrusted, match="not a model file"):
                checkpoint.read_header(path)
