"""`mien data check` over archives that were made to exhaust memory: it ends with an answer and stays below 400 MB."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mien.__main__ import main
from mien.data.source_kinds import find_source
from tests.data_torture import face, png_header, saved, text_bomb
from tests.hostile_archives import Content, more, pax, zipped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED MEMORY OF ARCHIVES: it needs fork and Linux")

LIMIT = 400 << 20  # bytes of one process
ANSWERS = {0, 2, 3, 8, 9}
EXCERPT = 23  # every so many of them, in the fast tests


def tarred(members: dict[str, bytes], mode: str = "w:", **pax: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(content), dict(pax)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def header_only(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar whose only member promises `size` bytes."""
    info = tarfile.TarInfo("a.png")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024


def with_size(data: bytes, size: int) -> bytes:
    """A ZIP whose directory promises another size for its first member."""
    place = data.index(b"PK\x01\x02")
    return data[: place + 24] + size.to_bytes(4, "little") + data[place + 28 :]


def with_bits(data: bytes, offset: int, value: bytes) -> bytes:
    """A ZIP with other bytes in the directory's entry of its first member."""
    place = data.index(b"PK\x01\x02") + offset
    return data[:place] + value + data[place + len(value) :]


def array(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """A .npy that promises a shape and holds next to nothing."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (118 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 100


def whole(most: int) -> Iterator[tuple[str, Content]]:
    """Name and bytes of archives, each with pictures beside what is hostile; bombs inflate to `most` bytes."""
    good = {f"{n}.png": saved(face(), "PNG") for n in range(3)}
    zeros = b"\0" * most
    names = [*good]
    for name in (
        "a.png",
        "a.jpg",
        "a",
        "labels.csv",
        "dataset.json",
        "metadata.jsonl",
        "list_attr_celeba.txt",
        "a.zip",
    ):
        yield f"bomb-{name}.zip", zipped({**good, name: zeros})
    for name in ("a.png", "labels.csv", "dataset.json"):
        yield f"bomb-{name}.tar", tarred({**good, name: zeros[: most // 3]})
        yield f"lines-{name}.zip", zipped({**good, name: b"a,b\n" * (most // 15)})
    plain = tarred({**good, "a.png": zeros})
    for suffix, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        yield f"bomb.tar.{suffix}", pack(plain)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"method-{method}.zip", zipped({**good, "a.png": zeros[: most // 10]}, method)
    inner = zipped({"a.png": zeros})
    for _ in range(5):
        inner = zipped({f"{n}.zip": inner for n in range(5)})
    yield "nested.zip", zipped({**good, "inner.zip": inner})
    for size in (0, 1, 2**31, 2**32 - 2, 99_999_999):
        yield f"promises-{size}.zip", with_size(zipped(good), size)
    yield "encrypted.zip", with_bits(zipped(good), 8, b"\x01\x00")
    yield "method-99.zip", with_bits(zipped(good), 10, b"\x63\x00")
    yield "far.zip", with_bits(zipped(good), 42, b"\xf0\xff\xff\xff")
    yield "many.zip", lambda: zipped({f"{n:05d}.png": b"" for n in range(60_000)})
    yield "deep.zip", zipped({**good, "a/" * 20_000 + "b.png": good["0.png"]})
    yield "long.zip", zipped({**good, "n" * 60_000 + ".png": good["0.png"]})
    yield "above.zip", zipped({"../../../a.png": good["0.png"], "/etc/b.png": good["1.png"]})
    labels: list[Any] = [10**8, 2**63, -1, 1e308, "x" * 10_000_000, [1] * 1_000_000, {}, None, "\ud800"]
    for number, label in enumerate(labels):
        document = json.dumps({"labels": [[name, label] for name in names]}).encode()
        yield f"label-{number}.zip", zipped({**good, "dataset.json": document})
        yield f"label-{number}.tar", tarred({**good, "dataset.json": document})
    yield "brackets.zip", zipped({**good, "dataset.json": b"[" * 10_000_000})
    yield "columns.zip", zipped({**good, "labels.csv": b"file" + b",a" * 2_000_000 + b"\n0.png" + b",1" * 2_000_000})
    yield "cell.zip", zipped({**good, "labels.csv": b"file,a\n0.png," + b"x" * 50_000_000})
    yield (
        "values.zip",
        zipped({**good, "labels.csv": b"file,a\n" + b"".join(b"%d.png,v%d\n" % (n, n) for n in range(400_000))}),
    )
    yield "pixels.zip", zipped({**good, "a.png": png_header(60_000, 60_000), "b.png": text_bomb()})
    for size in (2**33 - 1, 2**40, 10**8):
        yield f"promises-{size}.tar", header_only(size)
        yield f"name-{size}.tar", header_only(size, tarfile.GNUTYPE_LONGNAME)
        yield f"pax-{size}.tar", header_only(size, tarfile.XHDTYPE)
    yield "sparse.tar", header_only(10**9, tarfile.GNUTYPE_SPARSE)
    sparse = {"GNU.sparse.map": "0,1," * 100_000 + "0,1", "GNU.sparse.size": str(10**12)}
    yield "sparse-pax.tar", tarred(good, **sparse)
    yield "path.tar", tarred(good, path="p" * 20_000_000)
    yield "size.tar", tarred(good, size=str(10**15))
    yield (
        "links.tar",
        header_only(0, tarfile.SYMTYPE) + header_only(0, tarfile.FIFOTYPE) + header_only(0, tarfile.CHRTYPE),
    )
    for number, shape in enumerate(((10**12, 64, 64, 3), (2**62, 1), (3, 10**9, 3, 3), (0, 8, 8, 3), (1,) * 40)):
        yield f"shape-{number}.npy", array(shape)
        yield f"shape-{number}.npz", zipped({"images.npy": array(shape)})
    yield "objects.npy", array((3,), "|O")
    yield "bomb.npz", zipped({"images.npy": array((40_000, 64, 64, 3)) + zeros})
    yield "lines.jsonl", b'{"file_name": "a.png"}\n' * 300_000
    yield "seven.7z", b"7z\xbc\xaf'\x1c" + b"\xff" * 100
    yield "rar.zip", b"Rar!\x1a\x07" + b"\xff" * 100


def archives(most: int) -> Iterator[tuple[str, Content]]:
    """The whole ones, and the small ones cut off."""
    yield from more(most)
    for name, data in whole(most):
        yield name, data
        if isinstance(data, bytes) and len(data) < 1_000_000:
            stem, _, suffix = name.partition(".")
            yield f"{stem}-cut.{suffix}", data[: len(data) * 2 // 3]


def check(path: Path) -> str:
    """The fault of one archive's check, or nothing: in a fork, whose peak of memory begins with that of this process."""
    pid = os.fork()
    if pid == 0:
        code = 70
        with contextlib.suppress(BaseException):
            os.chdir(path.parent)  # it writes a sheet of faces there
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            code = main(["data", "check", str(path), "--workers", "1"])
        os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10
    seconds = usage.ru_utime + usage.ru_stime
    faults = [f"exit code {code}"] if code not in ANSWERS else []
    faults += [f"{peak >> 20} MiB"] if peak > LIMIT else []
    faults += [f"{seconds:.0f} s"] if seconds > 20 else []
    return f"{path.name}: {', '.join(faults)}" if faults else ""


def run_checks(folder: Path, every: int) -> list[str]:
    """Check every n-th archive in a process without torch, whose memory would count for each."""
    line = [sys.executable, "-c", f"from tests.test_hostile_archives import *; go({str(folder)!r}, {every})"]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "MIEN_CACHE": str(folder), "TMPDIR": str(folder)}
    done = subprocess.run(line, capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    *faults, count = done.stdout.splitlines()
    assert int(count) >= 127 // every
    return faults


def go(folder: str, every: int) -> None:
    """Print the faults, and the number of archives."""
    import mien.cli.data  # once for all forks

    assert mien.cli.data
    place = Path(folder) / "archives"
    place.mkdir()
    if (pid := os.fork()) == 0:  # writing them takes memory that is not to count
        for number, (name, content) in enumerate(archives(600_000_000 if every == 1 else 10_000_000)):
            if number % every == 0:
                (place / name).write_bytes(content() if callable(content) else content)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    found = sorted(place.iterdir())
    for path in found:
        if fault := check(path):
            print(fault, flush=True)
    print(len(found))


@pytest.mark.slow
def test_127_hostile_archives_stay_below_400_mb(tmp_path: Path) -> None:
    assert run_checks(tmp_path, 1) == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_that_promises_a_long_header_is_refused(
    kind: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terabyte was reserved for it: exit code 1."""
    path = tmp_path / "a.tar"
    path.write_bytes(header_only(2**40, kind))
    assert main(["data", "check", str(path), "--workers", "1"]) == 8
    assert "1,099,511,627,776 bytes" in capsys.readouterr().err


def test_a_tar_with_a_number_of_many_digits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header of a megabyte of digits took hours in an older Python's tarfile (CVE-2024-6232)."""
    path, began = tmp_path / "a.tar", time.process_time()
    path.write_bytes(pax(b"9" * 60_000 + b" path=x\n"))
    assert main(["data", "check", str(path), "--workers", "1"]) == 8
    assert "255 digits" in capsys.readouterr().err and time.process_time() - began < 5
    good = {f"{'1' * 200}/{n}.png": saved(face(), "PNG") for n in range(2)}
    path.write_bytes(tarred(good))
    assert len(find_source(path).listing().names) == 2


def test_some_hostile_archives_stay_below_400_mb(tmp_path: Path) -> None:
    assert run_checks(tmp_path, EXCERPT) == []
