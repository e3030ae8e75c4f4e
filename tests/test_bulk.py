"""Bulk sampling: shards with equal bytes for any number of processes, resumed after any kill."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mien.__main__ import main
from mien.cli.arguments import interpolate_labels
from mien.cli.edit import read_latents
from mien.data.pack import Pack
from mien.data.source_kinds import find_source
from mien.errors import DataError, Locked, Mismatch, StorageError, UsageError
from mien.report.grid import read_recipe, to_bytes
from mien.report.shards import FINISHED, Face, Seeds, Shards
from mien.sampling.sampler import Sampler
from tests.conftest import blobs, write_model, write_pack
from tests.forked_ranks import forked
from tests.test_parallel import environment
from tests.test_resume import has_namespaces, tmpfs

pytestmark = pytest.mark.usefixtures("warm_starts")


def after_a_kill(line: list[str], expected: dict[str, bytes], cut: str, tmp_path: Path) -> Path:
    """A folder of shards that two processes finish, as `expected`, after a kill that left one shard cut off."""
    out = tmp_path / "two"
    (out / FINISHED).mkdir(parents=True)
    (out / "request.json").write_bytes(expected["request.json"])
    (out / cut).write_bytes(b"cut")
    done = subprocess.run(
        forked("--module", "mien", *line, "-o", out), cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert content(out) == expected
    return out


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return write_model("cgan", folder, write_pack(folder / "labelled.pack", labels=("Smiling", "Male")))


@pytest.fixture(scope="module")
def alone(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 faces in shards of 12, by one process."""
    out = tmp_path_factory.mktemp("alone") / "shards"
    assert main([*command(labelled), "-o", str(out)]) == 0
    return out


def command(model: Path) -> list[str]:
    return ["sample", str(model), "--seeds", "0-48,99", "--format", "tar", "--shard-size", "12"]


def test_a_shard_has_faces_recipes_and_labels(alone: Path, labelled: Path, tmp_path: Path) -> None:
    with tarfile.open(alone / "shard-000004.tar") as archive:
        assert archive.getnames() == ["seed00000048.png", "seed00000048.json", "seed00000099.png", "seed00000099.json"]
        said = json.loads(archive.extractfile("seed00000099.json").read())  # type: ignore[union-attr]
        png = archive.extractfile("seed00000099.png").read()  # type: ignore[union-attr]
    assert main(["sample", str(labelled), "--seeds", "99", "-o", str(tmp_path / "faces")]) == 0
    single = tmp_path / "faces" / "seed00000099.png"
    assert png == single.read_bytes()  # the same face as anywhere else, to the bit
    assert said["seed"] == 99 and said["recipe"]["model"] == read_recipe(single)["model"]
    assert set(said["labels"]) == {"Smiling", "Male"} and set(said["labels"].values()) <= {0.0, 1.0}


def test_the_manifest_has_the_sums_of_all_shards(alone: Path) -> None:
    manifest = json.loads((alone / "manifest.json").read_text())
    assert [entry["nsamples"] for entry in manifest["shardlist"]] == [12, 12, 12, 12, 2]
    for entry in manifest["shardlist"]:
        shard = (alone / entry["url"]).read_bytes()
        assert (len(shard), hashlib.sha256(shard).hexdigest()) == (entry["filesize"], entry["sha256"])
    assert {path.name for path in alone.iterdir()} == {"manifest.json", "request.json"} | {
        entry["url"] for entry in manifest["shardlist"]
    }


def test_two_processes_finish_what_one_began(alone: Path, labelled: Path, tmp_path: Path) -> None:
    """As after a kill: one shard whole, one without its record, one half written by a process that is dead."""
    out = tmp_path / "shards"
    (out / FINISHED).mkdir(parents=True)
    for name in ("request.json", "shard-000000.tar"):
        (out / name).write_bytes((alone / name).read_bytes())
    entry = json.loads((alone / "manifest.json").read_text())["shardlist"][0]
    (out / FINISHED / "000000.json").write_text(json.dumps(entry))
    (out / "shard-000001.tar").write_bytes(b"cut")
    (out / ".shard-000002.tar.4194305.tmp.tar").write_bytes(b"half")
    before = (out / "shard-000000.tar").stat()
    line = forked("--module", "mien", *command(labelled), "-o", out)
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"50 faces in 5 shards: {out / 'manifest.json'}\n"  # one process speaks for all
    assert content(out) == content(alone)
    after = (out / "shard-000000.tar").stat()
    assert (before.st_ino, before.st_mtime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
    )  # what was finished is not drawn again


@pytest.mark.parametrize("text", ["", "5", '{"shardlist": 5}', '{"shardlist": [{"filesize": "x"}]}', "{}x", "[" * 100])
def test_damaged_records_are_made_again_and_a_damaged_request_is_another(tmp_path: Path, text: str) -> None:
    """They ended with exit code 1."""

    def faces(seeds: Sequence[int]) -> Iterator[Face]:
        yield from (Face(seed, b"png", {}) for seed in seeds)

    shards = Shards(tmp_path, "tar", {"model": "m"}, Seeds([range(7)]), 3)
    shards.open(write=True)
    for shard in shards.missing():
        shards.write(shard, faces)
    shards.record(1).write_text(text)
    assert shards.missing() == [1]
    shards.write(1, faces)
    whole = shards.close()
    assert shards.manifest == whole
    (tmp_path / "manifest.json").write_text(text)
    assert shards.manifest is None and shards.missing() == [0, 1, 2]
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(Mismatch, match="another request"):
        shards.open(write=True)


def test_a_kill_between_any_two_faces_changes_nothing(tmp_path: Path) -> None:
    def faces(seeds: Sequence[int]) -> Iterator[Face]:
        for seed in seeds:
            drawn.append(seed)
            if len(drawn) == limit:
                raise KeyboardInterrupt
            buffer = io.BytesIO()
            Image.new("L", (2, 2), seed).save(buffer, "PNG")
            yield Face(seed, buffer.getvalue(), {})

    def whole(folder: Path) -> dict[str, bytes]:
        shards = Shards(folder, "tar", {"model": "m"}, Seeds([range(7)]), 3)
        shards.open(write=True)
        for shard in shards.missing():
            shards.write(shard, faces)
        shards.close()
        return content(folder)

    drawn: list[int] = []
    limit = 0
    expected = whole(tmp_path / "whole")
    for limit in range(1, 8):
        drawn = []
        folder = tmp_path / str(limit)
        with pytest.raises(KeyboardInterrupt):
            whole(folder)
        assert not (folder / "manifest.json").exists() and all(
            content(folder)[name] == expected[name] for name in content(folder) if name.endswith(".tar")
        )
        limit = 0
        assert whole(folder) == expected


@pytest.mark.parametrize("by", ["records", "manifest"])
def test_a_shard_changed_after_the_clock_was_put_back_is_drawn_again(by: str, tmp_path: Path) -> None:
    """Files from the future seemed to be younger than every later change."""
    drawn: list[int] = []
    expected = finish(tmp_path, drawn)
    if by == "records":
        shards, _ = cheap(tmp_path, drawn)
        with shards.locked():
            shards.reopen()
    future = time.time() + 10**6
    for path in tmp_path.rglob("*"):
        os.utime(path, (future, future))
    damaged = bytearray(expected["shard-000001.tar"])
    damaged[600] ^= 1
    (tmp_path / "shard-000001.tar").write_bytes(damaged)
    assert finish(tmp_path, drawn) == expected and drawn == [3, 4, 5]


def test_another_request_is_refused(alone: Path, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(alone)
    assert main([*command(labelled)[:-1], "13", "-o", str(alone)]) == Mismatch.exit_code
    assert main([*command(labelled), "--label", "Male=1", "-o", str(alone)]) == Mismatch.exit_code
    assert "another request" in capsys.readouterr().err and content(alone) == before


def test_a_damaged_shard_is_drawn_again(alone: Path, labelled: Path) -> None:
    before = content(alone)
    (alone / "shard-000002.tar").unlink()
    assert main([*command(labelled), "-o", str(alone)]) == 0
    assert content(alone) == before


def cheap(folder: Path, drawn: list[int], count: int = 7) -> tuple[Shards, Callable[[Sequence[int]], Iterator[Face]]]:
    """Shards of three faces that are quick to draw; `drawn` gets the seeds."""

    def faces(seeds: Sequence[int]) -> Iterator[Face]:
        for seed in seeds:
            drawn.append(seed)
            yield Face(seed, b"png of %d" % seed, {})

    return Shards(folder, "tar", {"model": "m"}, Seeds([range(count)]), 3), faces


def finish(folder: Path, drawn: list[int]) -> dict[str, bytes]:
    """What a command does with a folder, and the folder then."""
    drawn.clear()
    shards, faces = cheap(folder, drawn)
    if shards.manifest is None:
        with shards.locked():
            shards.open(write=True)
            shards.reopen()
            for shard in shards.missing():
                shards.write(shard, faces)
            shards.close()
    return content(folder)


def change(path: Path, seconds: float = 5.0) -> None:
    """Change a file as one does by hand: later, and perhaps with as many bytes."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, (time.time() + seconds,) * 2)


def test_only_what_was_changed_or_lost_is_drawn_again(tmp_path: Path) -> None:
    """A shard changed by hand kept its size and stayed, and one lost shard of a finished folder cost all."""
    drawn: list[int] = []
    whole = finish(tmp_path, drawn)
    assert drawn == list(range(7)) and not (tmp_path / FINISHED).exists()
    assert finish(tmp_path, drawn) == whole and not drawn
    change(tmp_path / "shard-000001.tar")
    assert finish(tmp_path, drawn) == whole and drawn == [3, 4, 5]
    (tmp_path / "shard-000000.tar").unlink()
    assert finish(tmp_path, drawn) == whole and drawn == [0, 1, 2]
    os.utime(tmp_path / "shard-000002.tar")  # copied, but the same
    assert finish(tmp_path, drawn) == whole and not drawn

    shards, faces = cheap(tmp_path / "begun", drawn)
    shards.open(write=True)
    for shard in (0, 1):
        shards.write(shard, faces)
    change(shards.folder / shards.name(0))
    assert finish(shards.folder, drawn) == whole and drawn == [0, 1, 2, 6]


def test_without_manifest_or_request_all_is_drawn_again(tmp_path: Path) -> None:
    """Without its request.json a folder passed for that of any request with as many shards."""
    drawn: list[int] = []
    whole = finish(tmp_path, drawn)
    for name in ("manifest.json", "request.json"):
        (tmp_path / name).unlink()
        assert finish(tmp_path, drawn) == whole and drawn == list(range(7))
    (tmp_path / "request.json").unlink()
    shards, _ = cheap(tmp_path, drawn, count=8)
    assert shards.manifest is None
    shards.open(write=True)
    assert shards.missing() == [0, 1, 2]


@pytest.mark.parametrize(
    "place, value",
    [("sha256", "0" * 64), ("url", "../other.tar"), ("nsamples", -3), ("nsamples", 4), ("filesize", 1)],
)
def test_a_manifest_that_was_changed_is_written_again(place: str, value: object, tmp_path: Path) -> None:
    """Another sum, name or number in it stayed, since the shards themselves had not been changed after it."""
    drawn: list[int] = []
    whole = finish(tmp_path, drawn)
    path = tmp_path / "manifest.json"
    changed = json.loads(path.read_text())
    changed["shardlist"][1][place] = value
    path.write_text(json.dumps(changed))
    assert finish(tmp_path, drawn) == whole and drawn
    changed = {**json.loads(path.read_text()), "nsamples": 6}
    path.write_text(json.dumps(changed))
    assert finish(tmp_path, drawn) == whole and drawn


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Such a file in `.finished` made the command fail after its last shard."""
    drawn: list[int] = []
    others = {tmp_path / "notes.txt", tmp_path / FINISHED / ".DS_Store", tmp_path / ".shard-000001.tar.swp"}
    (tmp_path / FINISHED).mkdir()
    for other in others:
        other.write_bytes(b"own")
    finish(tmp_path, drawn)
    assert cheap(tmp_path, drawn)[0].manifest and all(other.read_bytes() == b"own" for other in others)


def test_two_commands_at_once_in_one_folder(
    alone: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first to end removed the records of the other, which then failed."""
    out = tmp_path / "shards"
    (out / FINISHED).mkdir(parents=True)
    with filelock.FileLock(out / FINISHED / "lock"):
        assert main([*command(labelled), "-o", str(out)]) == Locked.exit_code
    assert "Another command is writing shards" in capsys.readouterr().err and not (out / "request.json").exists()
    assert main([*command(labelled), "-o", str(out)]) == 0
    assert content(out) == content(alone)


def test_a_full_disk_stops_and_space_heals_it(alone: Path, labelled: Path, tmp_path: Path) -> None:
    """On a disk of its own that has room for the first shards, and after it was enlarged."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not has_namespaces(disk):
        pytest.skip("this machine lets no user mount a tmpfs of its own (unshare -rm)")
    steps = '"$@"; echo "code $?"; mount -o remount,size=8m "$DISK" && "$@" && cp -r "$DISK/out" "$COPY"'
    line = [*tmpfs("100k", disk), "sh", "-c", steps, "sh", sys.executable, "-m", "mien", *command(labelled)]
    own = {"DISK": str(disk), "COPY": str(tmp_path / "copy")}
    done = subprocess.run(
        [*line, "-o", str(disk / "out")], capture_output=True, text=True, timeout=300, env={**environment(), **own}
    )
    assert done.returncode == 0, done.stderr
    assert f"code {StorageError.exit_code}\n" in done.stdout and "Traceback" not in done.stderr
    assert done.stderr.count("  do:  ") == 1, done.stderr
    assert content(tmp_path / "copy") == content(alone)


def test_parquet(labelled: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ["sample", str(labelled), "--seeds", "5-9", "--format", "parquet", "--label", "Male=1"]
    for out in ("one", "two"):
        assert main([*words, "-o", str(tmp_path / out)]) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    table = parquet.read_table(tmp_path / "one" / "shard-000000.parquet")
    assert table.column_names == ["image", "seed", "label.Smiling", "label.Male"]
    assert table["seed"].to_pylist() == [5, 6, 7, 8, 9] and table["label.Male"].to_pylist() == [1.0] * 5
    face = table["image"][0].as_py()
    assert Image.open(io.BytesIO(face["bytes"])).size == (16, 16) and face["path"] == "seed00000005.png"


def test_seeds_of_any_number() -> None:
    seeds = Seeds([range(5, 8), range(3), range(10**9, 2 * 10**9)])
    assert len(seeds) == 10**9 + 6 and seeds[2:5] == [7, 0, 1] and seeds[10**9 + 5] == 2 * 10**9 - 1
    assert str(seeds) == "5-7,0-2,1000000000-1999999999"
    with pytest.raises(UsageError, match="Seed 6 is named twice"):
        Seeds([range(5, 8), range(6, 7)])


def test_a_format_that_does_not_fit_is_refused(labelled: Path, tmp_path: Path) -> None:
    assert main(["sample", str(labelled), "--format", "tar", "-o", str(tmp_path / "a.png")]) == UsageError.exit_code
    assert main(["sample", str(labelled), "--shard-size", "0", "-o", str(tmp_path / "a")]) == UsageError.exit_code


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_are_a_source_of_data_with_their_labels(kind: str, labelled: Path, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    shards = tmp_path / "shards"
    draw = ["sample", str(labelled), "--seeds", "0-9", "--format", kind, "--shard-size", "4", "-o", str(shards)]
    assert main(draw) == 0
    prepare = ["data", "prepare", str(shards), str(tmp_path / "faces.pack"), "--size", "16", "--crop", "squash"]
    assert main(prepare) == 0
    pack = Pack.open(tmp_path / "faces.pack")
    sampler = Sampler.load(labelled, device="cpu")
    expected = to_bytes(sampler.sample(range(10))).numpy()
    places = [pack.label_names.index(name if kind == "tar" else f"label.{name}") for name in sampler.label_names]
    rows = sampler.labels(range(10))
    assert pack.labels is not None and rows is not None
    for image, labels in zip(pack.images, pack.labels, strict=True):
        (seed,) = [seed for seed in range(10) if (expected[seed] == image).all()]
        assert labels[places].tolist() == rows[seed].tolist()


def test_class_numbers_and_damaged_descriptions_of_shards(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    for shard, number in (("00", 0), ("01", 7)):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for name, data in (("a.b.png", buffer.getvalue()), ("a.cls", str(number).encode()), ("a.json", b"{")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    source = find_source(tmp_path)
    listing = source.listing()
    assert list(listing.names) == ["00/a.b.png", "01/a.b.png"] and listing.label_names == ("class 0", "class 7")
    assert listing.labels is not None and listing.labels.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert any("2 descriptions" in remark for remark in listing.remarks)
    assert all(source.read(source.address(name)) == buffer.getvalue() for name in listing.names)


def test_the_frames_of_a_walk_as_shards(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes that go on after a kill write what one process writes, and what the film shows."""
    line = ["walk", str(labelled), "--seeds", "3", "42", "7", "--label-from", "Smiling=0", "--label-to", "Smiling=1"]
    line += ["--frames", "25", "--loop", "--format", "tar", "--shard-size", "6"]
    assert main([*line, "-o", str(tmp_path / "alone")]) == 0
    expected = content(tmp_path / "alone")
    names: list[str] = []
    for number in range(5):
        with tarfile.open(tmp_path / "alone" / f"shard-{number:06d}.tar") as archive:
            names += archive.getnames()
            first = archive.extractfile(names[-2])
            assert first is not None
            last = first.read()
    assert [name for name in names if name.endswith("png")] == [f"frame{number:08d}.png" for number in range(25)]
    file = tmp_path / "last.png"
    file.write_bytes(last)
    recipe = read_recipe(file)
    assert recipe is not None and recipe["frame"] == 24 and recipe["seeds"] == [3, 42, 7]
    sampler = Sampler.load(labelled, device="cpu")
    rows = interpolate_labels(sampler, sampler.labels([3, 42, 7], {}), {"Smiling": 0.0}, {"Smiling": 1.0})
    *_, image = sampler.interpolate(sampler.latents([3, 42, 7]), 25, rows, loop=True)
    with Image.open(file) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), to_bytes(image[None])[0].numpy())

    capsys.readouterr()
    assert main(["verify", str(file), "--model", str(labelled)]) == 0
    assert "drawn again: equal" in capsys.readouterr().out

    out = after_a_kill(line, expected, "shard-000002.tar", tmp_path)
    assert main([*line[:-1], "7", "-o", str(out)]) == Mismatch.exit_code
    assert main([*line, "-o", "walk.mp4"]) == 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 pictures of several shapes in folders, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, pixels in enumerate(blobs(25, 24)):
        name = f"more/{number:02d}.png" if number % 2 else f"{number:02d}.png"
        Image.fromarray(pixels[: 16 + number % 8]).save(folder / name)
    (folder / "08.png").write_bytes(b"\x89PNG, and no more")
    return folder


def members(folder: Path) -> dict[str, bytes]:
    """The members of all shards."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                found[member.name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("method", ["encoder", "descent"])
def test_a_folder_is_projected_by_any_number_of_processes(
    method: str, labelled: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The latents are those that `mien project` finds of the same block, and two processes go on after a kill."""
    preset, steps = ("vae", ()) if method == "encoder" else ("quick", ("--steps", "3"))
    model = write_model(preset, tmp_path, write_pack(tmp_path / "blobs.pack"))
    line = ["project", str(model), str(photos), *steps, "--shard-size", "9"]
    assert main([*line, "-o", str(tmp_path / "alone")]) == 0
    assert "1 of them cannot be used" in capsys.readouterr().out
    expected = content(tmp_path / "alone")
    assert [entry.get("refused", 0) for entry in json.loads(expected["manifest.json"])["shardlist"]] == [1, 0, 0]
    found = members(tmp_path / "alone")
    damaged = json.loads(found["photo00000004.json"])
    assert damaged["photo_name"] == "08.png" and damaged["refused"] and "l1" not in damaged
    assert not {"photo00000004.png", "photo00000004.safetensors"} & found.keys() and len(found) == 3 * 25 - 2

    names = [json.loads(found[f"photo{number:08d}.json"])["photo_name"] for number in range(9, 17)]
    single = ["project", str(model), *(str(photos / name) for name in names), *steps, "-o", str(tmp_path / "a.png")]
    assert main([*single, "--save-latent", str(tmp_path / "z.safetensors"), "--json"]) == 0
    errors = json.loads(capsys.readouterr().out)["photos"]
    for row, (number, error) in enumerate(zip(range(9, 17), errors, strict=True)):
        key = f"photo{number:08d}"
        (tmp_path / "one.safetensors").write_bytes(found[f"{key}.safetensors"])
        one, all_of_them = (load_file(tmp_path / name)["latents"] for name in ("one.safetensors", "z.safetensors"))
        assert torch.equal(one[0], all_of_them[row])
        said = json.loads(found[f"{key}.json"])
        assert (said["l1"], said["psnr"], said["notes"]) == (error["l1"], error["psnr"], "; ".join(error["notes"]))
    read = read_latents(
        Sampler.load(model, device="cpu"), tmp_path / "one.safetensors", {}
    )  # as `mien edit --latent` does
    assert torch.equal(read.z, one)
    picture = tmp_path / "face.png"
    picture.write_bytes(found["photo00000009.png"])
    assert main(["verify", str(picture), "--model", str(model)]) == 0
    assert "photographs went into it" in capsys.readouterr().out

    out = after_a_kill(line, expected, "shard-000001.tar", tmp_path)
    (photos / "new.png").write_bytes((photos / "00.png").read_bytes())
    try:
        assert main([*line, "-o", str(out)]) == Mismatch.exit_code  # another folder than the one that was begun
    finally:
        (photos / "new.png").unlink()


def test_a_projected_folder_as_parquet(labelled: Path, photos: Path, tmp_path: Path) -> None:
    """Every shard has the same columns, also one in which no photograph can be used."""
    parquet = pytest.importorskip("pyarrow.parquet")
    line = ["project", str(labelled), str(photos), "--steps", "1", "--shard-size", "1", "--format", "parquet"]
    assert main([*line, "-o", str(tmp_path / "out")]) == 0
    tables = [parquet.read_table(tmp_path / "out" / f"shard-{number:06d}.parquet") for number in range(25)]
    assert all(table.schema.equals(tables[0].schema) for table in tables)
    assert [name for name in tables[0].column_names if not name.startswith("label.")] == [
        *("image", "photo", "photo_name", "l1", "psnr", "notes", "refused", "latent")
    ]
    good, damaged = tables[3].to_pylist()[0], tables[4].to_pylist()[0]
    assert damaged["image"] is None and damaged["latent"] is None and damaged["l1"] is None and damaged["refused"]
    assert len(good["latent"]) == 8 and 0 < good["l1"] < 1 and good["refused"] is None
    assert Image.open(io.BytesIO(good["image"]["bytes"])).size == (16, 16)


def test_what_a_folder_cannot_be_projected_with(labelled: Path, photos: Path, tmp_path: Path) -> None:
    line = ["project", str(labelled), str(photos)]
    for wrong in ([str(photos)], ["-o", "a.png"], ["--save-latent", "z.safetensors"], ["--shard-size", "0"]):
        assert main([*line, *wrong]) == UsageError.exit_code
    (tmp_path / "empty").mkdir()
    assert main(["project", str(labelled), str(tmp_path / "empty")]) == DataError.exit_code
