"""Preparation: resumed after a kill, alone or in company, told in full; and the verbs around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.__main__ import main
from mien.data import Preparation, find_source, open_data, prepare
from mien.data import worker_pool as worker_pool_module
from mien.data.assembly import Assembly
from mien.data.duplicates import near, signature
from mien.data.pack import Pack
from mien.data.preprocess import PreprocessConfig
from mien.data.shard import Shard, is_whole
from mien.data.source import Listing, Source
from mien.data.worker_pool import WorkerPool
from mien.errors import DataError, Locked, MienError, StorageError
from tests.data_torture import face, saved


def photographs(folder: Path, count: int, side: int = 40) -> Path:
    """Pictures of smooth noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side + 8), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.png")
    return folder


def made(source: Path, pack: Path, **asked: object) -> Pack:
    done = prepare(find_source(source), pack, Preparation(**{"side": 16, **asked}), workers=1)  # type: ignore[arg-type]
    assert done is not None
    return done


def test_a_pack_says_where_it_came_from(tmp_path: Path) -> None:
    pack = made(photographs(tmp_path / "in", 12), tmp_path / "a.pack")
    assert len(pack) == 12 and pack.side == 16 and pack.labels is None
    assert [entry.source for entry in pack.entries[:2]] == ["00000.png", "00001.png"]
    assert pack.entries[0].geometry == "0,4,40,44"
    assert pack.meta["source"] == {"kind": "folder", "name": "in", "layout": "folder"}
    assert pack.meta["recipe"]["crop"] == "center" and pack.meta["recipe"]["resampler"] == "lanczos"
    assert "Pillow" in pack.meta["recipe"]["decoder"] and str(tmp_path) not in json.dumps(pack.meta)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pack", "in"]
    expected = Image.open(tmp_path / "in" / "00003.png").crop((0, 4, 40, 44)).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(pack.images[3], np.asarray(expected))


def test_workers_and_places_never_change_the_pack(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 20)
    first = made(folder, tmp_path / "a.pack")
    two = prepare(find_source(folder), tmp_path / "b.pack", Preparation(side=16), workers=2)
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "deep")
    third = made(tmp_path / "deep", tmp_path / "c.pack")
    assert two is not None and first.fingerprint == two.fingerprint == third.fingerprint


def test_what_changes_the_content_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 6)
    prints = [
        made(folder, tmp_path / "a.pack").fingerprint,
        made(folder, tmp_path / "b.pack", crop="squash").fingerprint,
    ]
    (folder / "00003.png").rename(folder / "00003x.png")
    prints.append(made(folder, tmp_path / "c.pack").fingerprint)
    (folder / "00003x.png").write_bytes((folder / "00004.png").read_bytes())
    prints.append(made(folder, tmp_path / "d.pack").fingerprint)
    (folder / "00005.png").unlink()
    prints.append(made(folder, tmp_path / "e.pack").fingerprint)
    assert len(set(prints)) == 5


def test_the_same_command_again_does_nothing_and_another_is_refused(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 5)
    first = made(folder, tmp_path / "a.pack")
    stamp = (first.path / "images.npy").stat().st_mtime_ns
    assert made(folder, tmp_path / "a.pack").fingerprint == first.fingerprint
    assert (first.path / "images.npy").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="exists already"):
        made(folder, tmp_path / "a.pack", crop="squash")


def test_finished_shards_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.data.planning.SHARD_IMAGES", 4)
    folder = photographs(tmp_path / "in", 18)
    reference = made(folder, tmp_path / "reference.pack")

    def stop_after_the_shards(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mien.data.assembly.Assembly.finish", stop_after_the_shards)
        with pytest.raises(KeyboardInterrupt):
            made(folder, tmp_path / "a.pack")
    partial = next(tmp_path.glob(".a.pack.*.partial"))
    shards = sorted(partial.glob("shard-*"))
    assert len(shards) == 5
    shards[2].unlink()
    stamps = {path: path.stat().st_mtime_ns for path in shards if path.exists()}

    def look(assembly: Assembly, force: bool) -> Pack:
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()) and shards[2].exists()
        return real(assembly, force)

    real = Assembly.finish
    monkeypatch.setattr(Assembly, "finish", look)
    assert made(folder, tmp_path / "a.pack").fingerprint == reference.fingerprint
    assert not list(tmp_path.glob(".*.partial"))


def test_shards_that_a_power_cut_has_spoilt_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.data.planning.SHARD_IMAGES", 4)
    folder = photographs(tmp_path / "in", 18)
    reference = made(folder, tmp_path / "reference.pack")
    with monkeypatch.context() as patch:
        patch.setattr(Assembly, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made(folder, tmp_path / "a.pack")
    shards = sorted(next(tmp_path.glob(".a.pack.*.partial")).glob("shard-*"))
    whole = shards[2].read_bytes()
    spoilt = [b"", whole[:-100], b"", whole[:-1] + bytes([whole[-1] ^ 1]), whole[:20]]
    for path, content in zip(shards, spoilt, strict=True):
        if path != shards[2]:
            path.write_bytes(content)
    assert [is_whole(path) for path in shards] == [False, False, True, False, False]
    assert made(folder, tmp_path / "a.pack").fingerprint == reference.fingerprint


def test_a_kill_while_assembling_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 20)

    program = (
        "import os, sys; from mien.data.pack import PackWriter; from mien.__main__ import main\n"
        "PackWriter.commit = lambda *_: os.kill(os.getpid(), 9)\n"
        "main(['data', 'prepare', *sys.argv[1:], '--size', '16', '--workers', '1'])"
    )
    died = subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "a.pack")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"]
    assert len(made(folder, tmp_path / "a.pack")) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pack", "in"]


def start(folder: Path, pack: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "mien",
        "data",
        "prepare",
        str(folder),
        str(pack),
        "--size",
        "16",
        "--workers",
        "1",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})


def test_a_killed_preparation_goes_on(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 600)
    reference = made(folder, tmp_path / "reference.pack")
    for delay in (0.35, 0.5, 0.65):
        process = start(folder, tmp_path / "a.pack")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(folder, tmp_path / "a.pack")
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words
    assert Pack.open(tmp_path / "a.pack").fingerprint == reference.fingerprint


def test_ranks_share_the_work(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 600)
    ranks = [start(folder, tmp_path / "a.pack", RANK=str(rank), WORLD_SIZE="2") for rank in (1, 0)]
    words = [process.communicate(timeout=120)[0].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert "rank 1 of 2" in words[0] and "600 kept" in words[1]
    assert Pack.open(tmp_path / "a.pack").fingerprint == made(folder, tmp_path / "b.pack").fingerprint


def test_two_preparations_of_one_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photographs(tmp_path / "in", 5)

    def meanwhile(*_: object) -> None:
        with pytest.raises(Locked):
            made(folder, tmp_path / "a.pack")
        raise KeyboardInterrupt

    monkeypatch.setattr("mien.data.preparation.decode_share", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        made(folder, tmp_path / "a.pack")


class Deadly(Source):
    """A source that only workers open: reading some of its images ends or stops them, as a broken decoder does."""

    @property
    def specification(self) -> dict[str, Any]:
        return {"kind": "deadly"}

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "deadly"}

    def listing(self) -> Listing:
        return Listing(layout="deadly", names=[])

    def address(self, name: str) -> str:
        return name

    def read(self, address: str) -> bytes:
        raise AssertionError(address)


CUTTING = PreprocessConfig(side=16, crop="center", resampler="lanczos")
DEADLY = """
import os, sys, time
from mien.data import worker
from tests.data_torture import face, saved
class Source:
    def read(self, address):
        if address == "crash": os.kill(os.getpid(), 11)
        if address == "hang": time.sleep(60)
        return saved(face(), "PNG")
worker.open_reader = lambda specification: Source()
worker.main()
"""


def test_a_file_that_kills_or_hangs_a_decoder_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool_module, "IMAGE_TIMEOUT", 3.0)
    monkeypatch.setattr(worker_pool_module, "COMMAND", [sys.executable, "-c", DEADLY])
    shards = {0: ["a", "crash", "b"], 1: ["c"], 2: ["d", "hang", "e", "crash"], 3: ["f"]}
    begun: list[int] = []
    with WorkerPool(2) as pool:
        pool.make_shards(tmp_path, shards, Deadly(), CUTTING, begun.append)
    outcomes = [Shard.load(tmp_path / f"shard-{number:06d}") for number in range(4)]
    assert [outcome.positions for outcome in outcomes] == [[0, 2], [0], [0, 2], [0]]
    reasons = {tuple(item) for outcome in outcomes for item in outcome.refused}
    assert reasons == {(1, "crashed the decoder"), (1, "took longer than 3 s to decode"), (3, "crashed the decoder")}


def test_a_full_disk_is_no_fault_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = "worker.Shard.save = lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device'))"
    monkeypatch.setattr(
        worker_pool_module, "COMMAND", [sys.executable, "-c", DEADLY.replace("worker.main()", f"{full}\nworker.main()")]
    )
    with pytest.raises(StorageError, match="No space left"), WorkerPool(1) as pool:
        pool.make_shards(tmp_path, {0: ["a"]}, Deadly(), CUTTING, print)


def test_workers_that_cannot_start_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool_module, "COMMAND", [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(MienError, match="could not start"), WorkerPool(1) as pool:
        pool.make_shards(tmp_path, {0: ["a"]}, Deadly(), CUTTING, print)


def test_duplicates_are_found_exact_and_near(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", 30, side=64)
    (folder / "copy.png").write_bytes((folder / "00003.png").read_bytes())
    Image.open(folder / "00004.png").save(folder / "again.jpg", quality=70)
    pack = made(folder, tmp_path / "a.pack", dedupe=True, side=64)
    assert len(pack) == 30 and (pack.meta["counts"]["duplicates"], pack.meta["counts"]["near_duplicates"]) == (1, 1)
    said = {item["name"]: item["reason"] for item in pack.meta["duplicates"]}
    assert said == {"copy.png": "the same as 00003.png", "again.jpg": "nearly the same as 00004.png"} or said == {
        "copy.png": "the same as 00003.png",
        "00004.png": "nearly the same as again.jpg",
    }


def test_near_duplicates_differ_in_twelve_bits_at_most() -> None:
    """Copies that were saved again differ in 3 to 16 of 256 bits, other aligned faces in 24 and more (measured)."""
    one = np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8)

    def altered(bits: int) -> str:
        flags = np.unpackbits(one)
        flags[:bits] ^= 1
        return np.packbits(flags).tobytes().hex()

    assert near([altered(0), altered(12)]) == {1: 0}
    assert near([altered(0), altered(13)]) == {}


def test_near_duplicates_chain_to_the_earliest() -> None:
    pictures = [face(64, 64), face(64, 64).rotate(90), face(64, 64), face(64, 64)]
    assert near([signature(picture) for picture in pictures]) == {2: 0, 3: 0}
    assert near([]) == {}


def test_many_copies_of_one_picture_take_no_time() -> None:
    """Each of a thousand pairs a copy was a turn of a loop: 25 s for 20,000 copies, 6 s for these."""
    began = time.process_time()
    assert near(["0f" * 32] * 5000) == dict.fromkeys(range(1, 5000), 0)
    assert time.process_time() - began < 2


def test_balance_holds_after_refusals(tmp_path: Path) -> None:
    photographs(tmp_path / "in" / "no", 10)
    photographs(tmp_path / "in" / "yes", 10)
    for number in range(3):
        (tmp_path / "in" / "yes" / f"0000{number}.png").write_bytes(b"broken")
    done = prepare(
        find_source(tmp_path / "in"), tmp_path / "a.pack", Preparation(side=16, balance=("yes",)), force=True
    )
    assert done is not None and done.labels is not None
    assert done.meta["counts"]["labels"]["yes"] == {"yes": 7, "no": 7, "unknown": 0}
    assert done.meta["counts"]["rebalanced_away"] == 3


def test_a_source_without_one_usable_image(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match="No image of the source"):
        prepare(find_source(tmp_path / "in"), tmp_path / "a.pack", Preparation(), force=True)


def test_open_data_prepares_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    folder = photographs(tmp_path / "in", 8)
    pack = open_data(folder, 16)
    assert len(pack) == 8 and pack.side == 16 and open_data(folder, 16).path == pack.path
    assert open_data(pack.path, 99).side == 16  # the pack's side wins
    photographs(folder, 9)
    assert len(open_data(folder, 16)) == 9


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["data", "prepare", "nothing", "a.pack"], 3, "nothing at nothing"),
        (["data", "prepare", "empty", "a.pack"], 3, "no images"),
        (["data", "prepare", "in", "a.pack", "--crop", "centre"], 2, "Did you mean center"),
        (["data", "prepare", "in", "a.pack", "--resampler", "lanczo"], 2, "Did you mean lanczos"),
        (["data", "prepare", "in", "a.pack", "--labels", "Male"], 2, "no labels"),
        (["data", "prepare", "in", "a.pack", "--size", "2"], 2, "between 4 and 4096"),
        (["data", "prepare", "in", "a.pack", "--box", "1,2,3"], 2, "LEFT,TOP,RIGHT,BOTTOM"),
        (["data", "prepare", "in", "a.pack", "--holdout", "2"], 2, "out of range"),
        (["data", "prepare", "in", "a.pack", "--background", "nocolour"], 2, "not a colour"),
        (["data", "prepare", "in", "a.pack", "--holdout", "some"], 2, "holdout must be"),
        (["data", "prepare", "in", "a.pack", "--holdout", "official"], 2, "no split of its own"),
        (["data", "prepare", "in", "a.pack", "--workers", "-1"], 2, "workers"),
        (["data", "prepare", "in", "a.pack", "--workers", "0"], 2, "workers"),
        (["data", "check", "in", "--workers", "0"], 2, "workers"),
        (["data", "prepare", "in", "a.pack", "--crop", "center", "--box", "0,0,9,9"], 2, "cannot be combined"),
        (["data", "prepare", "in", "a.pack", "--eye-height", "0.4"], 2, "no effect"),
        (["data", "prepare", "in", "a.pack", "--crop", "face", "--resampler", "nearest"], 2, "no effect"),
        (["data", "prepare", "classes", "a.pack", "--balance", "a", "--limit", "1"], 2, "too small for --balance"),
        (["data", "prepare", "in", "there.zip"], 3, "exists already"),
        (["data", "info", "in"], 3, "not a pack"),
        (["data", "prepare", "broken.zip", "a.pack"], 8, "not a readable ZIP"),
    ],
)
def test_bad_input_is_told_in_three_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "classes/a", "classes/b"):
        photographs(tmp_path / folder, 2)
    (tmp_path / "there.zip").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    assert main(arguments) == code
    said = capsys.readouterr().err
    assert words in said and "why:" in said and "do:" in said and "Traceback" not in said


def test_the_verbs_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "in" / "cat", 6)
    photographs(tmp_path / "in" / "dog", 6)
    assert main(["data", "prepare", "in", "a.pack", "--size", "16", "--holdout", "0.25", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["count"] == 12 and told["splits"] == {"train": 9, "holdout": 3} and told["label_names"] == ["cat", "dog"]
    )
    assert main(["data", "info", "a.pack"]) == 0
    said = capsys.readouterr().out
    assert "12 images of 16x16" in said and "correlation of cat and dog" in said
    page = (tmp_path / "a.pack" / "report.html").read_text()
    assert "<title>a.pack" in page and "http://" not in page and "https://" not in page
    assert Image.open(tmp_path / "a.pack" / "contact.png").width > 16
    Pack.open(tmp_path / "a.pack").verify()
    assert main(["data", "check", "in", "-o", "sheet.png", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"]["usable"] == 12 and len(report["duplicates"]) == 6 and (tmp_path / "sheet.png").is_file()
    assert main(["data", "prepare", "a.pack", "a.zip"]) == 0
    capsys.readouterr()
    assert main(["data", "prepare", "in", "b.zip", "--size", "16", "--holdout", "0.25"]) == 0
    assert capsys.readouterr().out.startswith("b.zip: 12 images")
    assert main(["data", "check", "b.zip", "-o", "sheet.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] is None
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "a.zip").testzip() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pack", "a.zip", "b.zip", "in", "sheet.png"]


def test_check_fails_when_too_much_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "in", 150)
    assert main(["data", "check", "in", "--strict"]) == 0
    (tmp_path / "in" / "00000.png").write_bytes(saved(face(), "PNG")[:200])
    assert main(["data", "check", "in"]) == 0 and main(["data", "check", "in", "--strict"]) == 3
    (tmp_path / "in" / "00001.png").write_bytes(b"text")
    assert main(["data", "check", "in"]) == 3
