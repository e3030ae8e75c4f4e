"""JSON that somebody else wrote: whatever it holds, the answer is an object or one sentence, and at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from mien import presets
from mien.__main__ import main
from mien.cli.result import Result
from mien.core.contracts import ImageSpec
from mien.core.run import to_json
from mien.data.pack import Pack
from mien.errors import MienError, Mismatch, Untrusted
from mien.foreign import homogan_config
from mien.metrics.online import all_lines
from mien.report.run_reader import read_record
from mien.sampling import sidecar
from mien.storage import checkpoint, control
from mien.storage.bounded_json import InvalidJSON, dumps, loads, loads_object, read_lines, read_object
from mien.storage.run_directory import RunDirectory
from tests.conftest import write_model, write_pack

DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
#: Documents that are no object of any of mien's files.
HOSTILE = {
    "deep": DEEP,
    "deep object": DEEP_OBJECT,
    "unclosed": b"[" * 100_000,
    "number": b"5",
    "null": b"null",
    "list": b"[]",
    "empty": b"",
    "not UTF-8": b'{"seen": "\xff"}',
    "digits": b'{"seen": ' + b"9" * 5000 + b"}",
    "surrogate": b'{"seen": "\\ud800"}',
    "quotes": b'"' * 100_001,
    "backslashes": b'"' + b"\\" * 100_001,
    "nulls": b"\0" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_one_exception_at_once(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidJSON) as raised:
        loads_object(HOSTILE[name])
    assert len(str(raised.value)) < 300 and time.monotonic() - started < 2


def test_what_is_bounded() -> None:
    assert loads('{"a": [1, 2.5, "]]]", null]}') == {"a": [1, 2.5, "]]]", None]}
    assert loads(b"[" * 32 + b"]" * 32) is not None
    with pytest.raises(InvalidJSON, match="32 deep"):
        loads(b"[" * 33 + b"]" * 33)
    assert loads(json.dumps(["[" * 100, '\\"[{' * 100])) == ["[" * 100, '\\"[{' * 100], "brackets in strings are text"
    with pytest.raises(InvalidJSON, match="11 bytes, more than 10"):
        loads("123456789.0", max_bytes=10)
    assert loads(str(2**64 - 1)) == 2**64 - 1
    with pytest.raises(InvalidJSON, match="an integer has 21 digits"):
        loads("1" * 21)
    assert loads('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_bytes_of_file_names_pass_in_files_alone() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert loads(json.dumps(name)) == name
    with pytest.raises(InvalidJSON, match="surrogate"):
        loads(json.dumps(name), file_names=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"seen": "x"}', "`seen` is a string, not an integer"), ("{}", "it has no `seen`"), ("5", "it is an integer"),
        ('{"seen": true}', "`seen` is true or false"), ('{"seen": null}', "`seen` is null"),
    ],
)  # fmt: skip
def test_the_shape_is_checked(text: str, words: str) -> None:
    with pytest.raises(InvalidJSON, match=words):
        loads_object(text, seen=int)
    assert loads_object('{"seen": 3}', seen=float) == {"seen": 3}


LINES = b'{"seen": 1, "a": 2}\n{"seen": "x"}\n{}\n5\n%s\n{"seen": 2, "a": 3}\n{"seen": 3, "a"' % DEEP


def test_lines_that_do_not_fit_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINES)
    assert [line["a"] for line in read_lines(tmp_path / "metrics.jsonl", seen=float)] == [2, 3]
    assert list(read_lines(tmp_path / "none.jsonl")) == []


def test_a_resumed_run_keeps_the_lines_behind_a_damaged_one(tmp_path: Path) -> None:
    home = RunDirectory(tmp_path)
    home.metrics.write_bytes(LINES)
    home.evaluations.parent.mkdir()
    home.evaluations.write_bytes(b'5\n{"seen": 1}\n{"seen": 1, "metric": "fid", "name": "fid", "value": 3}\n')
    assert [line["value"] for line in all_lines(home)] == [3]
    home.cut_metrics(2)
    assert home.metrics.read_text().splitlines() == ['{"seen": 1, "a": 2}', '{"seen": 2, "a": 3}']


def test_a_status_has_its_shape(tmp_path: Path) -> None:
    home = RunDirectory(tmp_path)
    for text in ("5", '{"seen": "x", "state": 7, "resumes": null, "seconds": Infinity}', DEEP.decode()):
        home.status_file.write_text(text)
        assert home.status == {"state": "new", "seen": 0, "seconds": 0.0, "resumes": 0}
    home.status_file.write_text('{"seen": 7, "reason": "x"}')
    assert home.status == {"state": "new", "seen": 7, "seconds": 0.0, "resumes": 0, "reason": "x"}


def fifo(path: Path) -> None:
    """A FIFO in place of a file."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("SKIPPED FIFO: this platform has none")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def read_everything(run: Path) -> None:
    """Every reader of a run's directory, in turn."""
    home = RunDirectory(run)
    assert home.run_json is None or isinstance(home.run_json, dict)
    assert isinstance(home.status, dict)
    control.owner(home)
    control.Control(home)._read()
    checkpoint.read_best(home.checkpoints)
    for place in checkpoint.all_of(home.checkpoints):
        assert checkpoint.verify(place) is not None
    all_lines(home)


FILES = (
    *("status.json", "owner.json", "control.json", "health.json", "metrics.jsonl", "eval/during.jsonl", "health.jsonl"),
    *("checkpoints/BEST", "checkpoints/0000000048/MANIFEST.json", "run.json"),
)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_run_may_hold_anything(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    for content in HOSTILE.values():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
        read_everything(run)
        if name != "run.json":
            (run / "run.json").write_text("{}")
        read_record(run)
    fifo(run / name)
    started = time.monotonic()
    read_everything(run)
    if name != "run.json":
        read_record(run)
    assert time.monotonic() - started < 5


def header_of(path: Path, header: str) -> Path:
    save_file({}, path, {"mien": header})
    return path


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "pack": ("pack.json", lambda folder: Pack.open(folder)),
    "homogan": ("config.json", lambda folder: homogan_config.homogan_config(folder / "config.json")),
    "manifest": ("MANIFEST.json", checkpoint.read_state),
    "object": ("x.json", lambda folder: read_object(folder / "x.json")),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", [*HOSTILE, "object", "fifo"])
def test_a_document_is_refused_in_words(tmp_path: Path, reader: str, kind: str) -> None:
    name, read = READERS[reader]
    if kind == "fifo":
        fifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b'{"a": 1}' if kind == "object" else HOSTILE[kind])
    started = time.monotonic()
    if (reader, kind) == ("object", "object"):
        read(tmp_path)
    else:
        with pytest.raises((MienError, InvalidJSON) if (reader, kind) != ("object", "fifo") else OSError):
            read(tmp_path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("text", [DEEP.decode(), DEEP_OBJECT.decode(), "5", "{}", '{"config": 1, "faces": {}}'])
def test_headers_of_tensors_are_refused_in_words(tmp_path: Path, text: str) -> None:
    file = header_of(tmp_path / "model.safetensors", text)
    with pytest.raises(Untrusted):
        checkpoint.read_model(file)
    if text != "{}" and not text.startswith('{"config'):
        with pytest.raises(Untrusted):
            sidecar.parse(file)


def test_fifos_are_not_waited_for(tmp_path: Path) -> None:
    write_pack(tmp_path / "blobs.pack")
    fifo(tmp_path / "blobs.pack" / "images.npy")
    fifo(tmp_path / "model.safetensors")
    fifo(tmp_path / "checkpoints" / "LATEST")
    for read in (
        lambda: Pack.open(tmp_path / "blobs.pack"),
        lambda: checkpoint.read_model(tmp_path / "model.safetensors"),
        lambda: sidecar.parse(tmp_path / "model.safetensors"),
        lambda: checkpoint.follow(tmp_path / "checkpoints" / "LATEST"),
    ):
        with pytest.raises(MienError):
            read()


@pytest.mark.parametrize(
    ("preset", "name", "value"),
    [
        ("quick", "blocks", 10**9), ("quick", "blocks", 500_000), ("quick", "width", 10**19), ("quick", "latent", -(10**9)),
        ("vae", "couplings", 10**9), ("vae", "couplings", 10**5), ("began-2017", "depth", 10**9),
        ("began-zhao-2020", "layers", 10**9), ("cppn-2016", "layers", 10**6), ("quick", "blocks", "x"),
        ("quick", "blocks", None), ("quick", "fold", []), ("quick", "side", 10**9), ("quick", "label_dim", 10**12),
    ],
)  # fmt: skip
def test_a_config_is_bounded_before_it_is_built(preset: str, name: str, value: Any) -> None:
    run = next(run for known, run in presets.PRESETS.items() if known.startswith(preset))
    faces = ImageSpec(side=32)
    shapes = {key: tensor.shape for key, tensor in run.model.outline(faces).state_dict().items()}
    header = {"config": to_json(run.model), "faces": to_json(faces)}
    part = "faces" if name in header["faces"] else "config"
    header[part][name] = value
    started = time.monotonic()
    with pytest.raises(Mismatch):
        presets.build_model(header, presets.KINDS, shapes)
    assert time.monotonic() - started < 10


def test_the_bounds_leave_models_alone(tmp_path: Path) -> None:
    from mien.sampling.sampler import Sampler

    pack = write_pack(tmp_path / "blobs.pack")
    write_model("quick", tmp_path, pack)
    assert Sampler.load(tmp_path, device="cpu").sample([1]).shape == (1, 3, 16, 16)


def test_a_number_that_is_none_is_null(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`jq` and a browser refuse NaN; a PSNR of equal pictures was Infinity, and NaN in a run's files the answer 500."""
    assert loads(b'{"a": NaN, "b": [Infinity, -Infinity, 1e999, -1e999, 1.5e3, 2]}') == {
        "a": None,
        "b": [None, None, None, None, 1500.0, 2],
    }
    assert dumps({"a": float("nan"), "b": (float("inf"), 1)}, indent=None) == '{"a": null, "b": [null, 1]}'
    monkeypatch.setattr("mien.__main__.run_verb", lambda *_: Result("", {"psnr": float("inf")}))
    assert main(["cite", "--json"]) == 0
    assert capsys.readouterr().out == '{"psnr": null}\n'
