"""Something else where a file is expected, a pipe or an endless device: an answer in time that names it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from mien.__main__ import main
from mien.cli.evaluate import eval_folder
from mien.cli.file_errors import fault_of
from mien.data.archives import Folder, TarContainer, ZipContainer, begins_with
from mien.data.pack import Pack
from mien.data.readers import UnreadableFile
from mien.errors import DataError, Untrusted
from mien.report.comparison import parameters
from mien.report.run_reader import RunRecord, sample_grids
from mien.sampling import sidecar
from mien.storage import atomic, tensor_file
from mien.storage.checkpoint import find_model
from mien.storage.run_directory import RunDirectory
from tests.conftest import write_pack
from tests.hostile_archives import one_member

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SKIPPED SPECIAL FILES: Windows has none")

OWN = """class Pixels:
    resizer, precision, name, hash = "none", "fp32", "pixels", "0" * 64
    def __call__(self, images):
        return images.reshape(len(images), -1)[:, ::97].astype("float32")
features = Pixels
"""


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A reader that waits for a pipe is a failure, not a test without an end."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(300)  # on a starved machine a training takes a minute
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of photographs."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(f"photos/{number}.png")
    Path("own.py").write_text(OWN)
    return tmp_path


def evaluate(real: str, fake: str) -> int:
    return main(["evaluate", "--real", real, "--fake", fake, "--metrics", "kid", "--extractor", "own.py:features"])


@pytest.mark.parametrize("name", ["a.zip", "a.h5", "a.parquet", "a.csv", "a.tar", "a"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_sets_of_images_that_are_no_files(
    name: str, kind: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe was waited for, and /dev/zero took all memory."""
    os.mkfifo(name) if kind == "pipe" else Path(name).symlink_to("/dev/zero")
    assert evaluate("photos", name) == 3 and evaluate(name, "photos") == 3
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("make", [ZipContainer, TarContainer])
def test_containers_open_regular_files_alone(make: type[ZipContainer] | type[TarContainer], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Untrusted, match="pipe"):
        make(tmp_path / "pipe").members()
    assert begins_with(tmp_path / "pipe") == ""


def test_a_picture_that_is_none_is_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was an UnreadableFile that nobody expected: exit code 1."""
    Path("photos/3.png").unlink()
    Path("photos/3.png").symlink_to("/dev/zero")
    assert evaluate("photos", "photos") == 3
    assert "3.png" in capsys.readouterr().err


def test_images_are_opened_before_weights_are_fetched(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mien.downloads.weights.download", lambda name: pytest.fail(f"{name} is downloaded"))
    monkeypatch.setenv("MIEN_CACHE", "cache")
    Path("not-a.zip").write_bytes(b"junk")
    assert main(["evaluate", "--real", "photos", "--fake", "not-a.zip", "--metrics", "kid"]) == 8
    assert "not-a.zip" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling"])
@pytest.mark.parametrize("verb", ["data check faces.pack", "data info faces.pack", "data prepare faces.pack b.pack"])
def test_a_pack_whose_description_is_no_file(
    kind: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a folder without images."""
    monkeypatch.chdir(tmp_path)
    write_pack(Path("faces.pack"))
    file = Path("faces.pack/pack.json")
    file.unlink()
    {"pipe": lambda: os.mkfifo(file), "folder": file.mkdir, "dangling": lambda: file.symlink_to("no")}[kind]()
    assert main(verb.split()) == 8
    assert "pack.json" in capsys.readouterr().err


def test_members_of_a_folder_are_read_as_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    folder = Folder(tmp_path)
    assert [member.name for member in folder.members()] == ["a.png"]
    with pytest.raises(UnreadableFile, match="not a regular file"):
        folder.read("a.png")


def test_tensors_are_read_by_one_function() -> None:
    """The library of safetensors waits for a pipe: `mien compare` did, for a run whose newest model was one."""
    source = Path(tensor_file.__file__).parents[1]
    others = [
        path for path in source.rglob("*.py") if "safe_open(" in path.read_text() and path.name != "tensor_file.py"
    ]
    assert [path.name for path in others] == ["folder.py"]  # which writes an example


def test_extras_are_those_of_a_run_whose_description_is_gone(tmp_path: Path) -> None:
    """They were looked for beside the checkpoint, and `mien edit` said that the model has no directions."""
    (tmp_path / "run.json").symlink_to("nowhere")
    assert sidecar.folder_of(tmp_path / "checkpoints" / "0000000016" / "model.safetensors") == tmp_path / "extras"


def test_a_model_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "0000000016"
    checkpoint.mkdir(parents=True)
    os.mkfifo(checkpoint / "model.safetensors")
    assert parameters(cast(RunRecord, SimpleNamespace(directory=tmp_path))) is None
    with pytest.raises(DataError, match="neither a file nor a folder"):
        find_model(checkpoint / "model.safetensors")
    with pytest.raises(OSError, match="Not a regular file"):
        tensor_file.open_tensors(checkpoint / "model.safetensors")


def test_doctor_does_not_compare_with_other_data(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its data.json a run was compared with 8,000 faces that mien drew for it; with one that names a folder of
    photographs, or `/`, all of them were read and made into a pack; an address was opened."""
    run = tmp_path / "run"
    words = ["--images", "32", "--batch", "8", "--threads", "1", "--model.width", "4", "--data", str(blob_pack.path)]
    assert main(["train", "quick", *words, "--out", str(run)]) == 0
    monkeypatch.setattr("mien.metrics.api.open_data", lambda *_: pytest.fail("other data are opened"))
    for text, said in (
        ("", "Its data.json cannot be read"),
        ('{"name": "/"}', "was trained on /. That is no pack here"),
        ('{"name": "https://192.0.2.1/a.pack"}', "a.pack. An address that stands in a run is not opened"),
        ('{"name": "//192.0.2.1/a.pack"}', "a.pack. An address that stands in a run is not opened"),
    ):
        (run / "data.json").write_text(text)
        assert main(["doctor", str(run)]) == 0
        assert said in capsys.readouterr().out
        assert main(["evaluate", str(run), "--metrics", "kid", "--samples", "8"]) == 2
        assert said.rpartition(". ")[2] in capsys.readouterr().err


def test_a_zip_whose_members_overlap_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One member that 50,000 names share inflates to 4,500 GB: each would be read and refused for itself, for hours."""
    path = tmp_path / "a.zip"
    path.write_bytes(one_member(1000, 100_000))
    assert main(["data", "check", str(path), "--workers", "1"]) == 8
    assert "they overlap" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["data check a.jsonl", "data prepare a.jsonl b.pack", "sample a.jsonl", "train --data a.jsonl --out c"]
)
def test_a_link_to_itself_is_no_bug(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python below 3.13 has a RuntimeError for it: exit code 1."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").symlink_to("a.jsonl")
    assert main(words.split()) in (2, 3, 6)
    assert "a.jsonl" in capsys.readouterr().err
    assert fault_of(RuntimeError("Symlink loop from 'x'")) is not None and fault_of(RuntimeError("other")) is None


def test_a_column_of_parquet_that_inflates_is_a_bomb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """19 KB with a value of 600 MB took 3 GB."""
    pytest.importorskip("pyarrow", reason="SKIPPED PARQUET: the extra `tables` is not installed")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": [b"x", bytes(130_000_000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", write_statistics=False)
    assert main(["data", "check", str(tmp_path / "a.parquet"), "--workers", "1"]) == 8
    assert "inflates over 100 times" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["checkpoints", "samples", "eval", "extras", "plots", "tensorboard"])
def test_nothing_is_written_through_a_folder_that_leads_out_of_a_run(name: str, tmp_path: Path) -> None:
    """Checkpoints were pruned, grids and extras written in a folder of the user's that a downloaded run had linked."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir(), outside.mkdir()
    (run / "run.json").write_text("{}")
    (run / "own").mkdir()
    (run / "inside").symlink_to("own")
    with RunDirectory(run).locked():
        assert eval_folder(run) == run / "eval"
    (run / name).symlink_to(outside)
    with pytest.raises(Untrusted, match=f"{name} leads out"), RunDirectory(run).locked():
        pass
    with pytest.raises(Untrusted, match="leads out"):
        eval_folder(run)
    with pytest.raises(Untrusted, match="leads out"):
        sidecar.write(run / "extras", "a", "directions", "0" * 64, {}, "")
    assert not list(outside.iterdir())
    (tmp_path / "linked").symlink_to(run)
    (run / name).unlink()
    with RunDirectory(tmp_path / "linked").locked():  # as a whole it may lie elsewhere
        pass


def test_grids_of_another_folder_are_not_those_of_a_run(tmp_path: Path) -> None:
    """Pictures that a camera has numbered were shown as samples."""
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (16, 16)).save(outside / "0001.png")
    (tmp_path / "samples").symlink_to(outside)
    assert sample_grids(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_temporary_name_that_is_taken_is_not_followed(kind: str, tmp_path: Path) -> None:
    """Its number is a process's: a downloaded run can have a link for each. A pipe was waited for."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    with atomic.replacing(tmp_path / "a.json") as beside:
        beside.touch()
    beside.symlink_to(outside) if kind == "link" else os.mkfifo(beside)
    atomic.replace_text(tmp_path / "a.json", "new")
    assert outside.read_text() == "mine" and (tmp_path / "a.json").read_text() == "new"
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize(
    "line",
    [
        "sample drawn --seeds 0-3 -o out.png",
        "walk drawn --seeds 0 1 --frames 2 -o out.png",
        "export drawn --to onnx -o out.onnx",
    ],
)
def test_a_picture_does_not_take_the_place_of_a_pipe(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = line.split()[-1]
    os.mkfifo(name)
    assert main(line.split()) == 6
    assert name in capsys.readouterr().err
    assert Path(name).is_fifo() and [path.name for path in Path().iterdir()] == [name]
