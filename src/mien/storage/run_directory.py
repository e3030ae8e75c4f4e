"""The directory of a run: created exclusively, locked by one process, never overwritten."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import filelock

from mien import __version__
from mien.core.contracts import JSON
from mien.errors import Locked, StorageError, Untrusted
from mien.storage import atomic
from mien.storage.bounded_json import InvalidJSON, dumps, read_lines, read_object
from mien.storage.regular_file import append_text

#: What status.json says before the first step, and where it says nothing that can be used.
NEW: JSON = {"state": "new", "seen": 0, "seconds": 0.0, "resumes": 0}


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / "eval" / "during.jsonl"
        self.status_file = path / "status.json"

    @property
    def run_json(self) -> JSON | None:
        """The resolved configuration. None if there is no run, or if it was killed before it wrote the file."""
        return read_json(self.path / "run.json")

    @property
    def status(self) -> JSON:
        """The content of status.json: `state`, `seen`, `seconds`, `resumes`, `reason`."""
        found = read_json(self.status_file) or {}
        return {**found, **{name: value for name, value in NEW.items() if not is_like(found.get(name), value)}}

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file of the run atomically."""
        atomic.replace_text(self.path / name, dumps(value, indent=1) + "\n")

    def update_status(self, **fields: Any) -> None:
        """Change some fields of status.json; a full disk never stops training."""
        try:
            self.write_json("status.json", {**self.status, **fields})
        except OSError as error:
            print(f"mien: status.json could not be written: {error}", file=sys.stderr)

    def log(self, line: str) -> None:
        """Append a line to log.txt; a full disk never stops training."""
        try:
            append_text(self.path / "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        except OSError as error:
            print(f"mien: log.txt could not be written: {error}", file=sys.stderr)

    def cut_metrics(self, seen: int) -> None:
        """Delete lines and scores beyond `seen`, which a resumed run writes again, and lines that do not parse."""
        for file in (self.metrics, self.evaluations):
            if file.exists():
                kept = [dumps(line) for line in read_lines(file, seen=float) if line["seen"] <= seen]
                atomic.replace_text(file, "".join(f"{line}\n" for line in kept))

    def clean(self) -> None:
        """Delete temporary files of killed processes in all folders of the run. Only the holder of the lock may call this."""
        for path in atomic.abandoned(self.path):
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the run. It ends with the process, whatever kills it. Raises Locked, which names the holder."""
        check_folders(self.path)
        lock = filelock.FileLock(self.path / "LOCK", timeout=0)
        owner_file = self.path / "owner.json"
        try:
            lock.acquire()
        except filelock.Timeout as error:
            owner = read_json(owner_file) or {}
            raise Locked(
                f"{self.path} is in use.",
                f"Process {owner.get('pid', '?')} on {owner.get('host', '?')} has held it since {owner.get('since', '?')}.",
                "Wait for it, stop it, or choose another --out.",
            ) from error
        try:
            (self.path / "control.json").unlink(missing_ok=True)  # a request to an earlier process
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            self.write_json("owner.json", {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            yield
        finally:
            owner_file.unlink(missing_ok=True)
            lock.release()


def check_folders(run: Path) -> None:
    """Raises Untrusted where a folder of a run is a link that leads out of it: what is written there would be lost or do harm."""
    for folder in run.iterdir():
        if folder.is_dir() and not folder.resolve().is_relative_to(run.resolve()):
            raise Untrusted(
                f"{folder} leads out of its run.",
                f"It is a link to {folder.resolve()}, and nothing is written outside of a run.",
                "Put the folder itself in its place. The run's directory as a whole may be a link.",
            )


def read_json(path: Path) -> JSON | None:
    """A JSON object, or None where there is no such file or it holds something else."""
    try:
        return read_object(path)
    except (OSError, InvalidJSON):
        return None


def is_like(value: object, example: object) -> bool:
    """Whether `value` is text where `example` is, or a finite number where it is one."""
    if isinstance(example, str):
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


NUMBERS = 100_000  # of runs in one folder: five digits


def create(path: Path) -> RunDirectory:
    """Create the directory of a run. Raises StorageError if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}.tmp"
        atomic.write_bytes(probe, b"mien")
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written.", str(error), "Free some space, or choose another directory with --out."
        ) from error
    return RunDirectory(path)


def create_numbered(root: Path, slug: str) -> RunDirectory:
    """Create the next free `root/00007-slug`. Two processes at once get different numbers."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(next_number(root), NUMBERS):
            claim = root / f"{number:05d}.claim"
            try:
                claim.touch(exist_ok=False)
            except FileExistsError:
                continue
            try:
                if not any(root.glob(f"{number:05d}-*")):
                    (root / f"{number:05d}-{slug}").mkdir()
                    return create(root / f"{number:05d}-{slug}")
            finally:
                claim.unlink()
    except OSError as error:
        raise StorageError(
            f"{root} cannot be written.", str(error), "Free some space, or choose another directory with --out."
        ) from error
    raise StorageError(f"{root} is full.", "It contains 100,000 runs.", "Choose another directory with --out.")


def next_number(root: Path) -> int:
    """One more than the largest number in use; the smallest free one if that has six digits, because of a folder `99999-old`."""
    numbers = {int(found[0]) for p in root.iterdir() if (found := re.match(r"[0-9]{5}(?=[-.])", p.name))}
    following = max(numbers, default=-1) + 1
    return following if following < NUMBERS else next((n for n in range(NUMBERS) if n not in numbers), NUMBERS)


def all_runs(root: Path) -> list[RunDirectory]:
    """The numbered runs in `root`, newest first. Entries of other kinds are ignored."""
    if not root.is_dir():
        return []
    paths = sorted((p for p in root.iterdir() if p.is_dir() and re.match(r"\d{5}-", p.name)), reverse=True)
    return [RunDirectory(p) for p in paths]


def environment(device: str, precision: str, threads: int, processes: int = 1) -> JSON:
    """What a result can depend on beside the configuration, for env.json."""
    import torch

    return {
        "mien": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": device,
        "precision": precision,
        "threads": threads,
        "processes": processes,
        "capability": torch.backends.cpu.get_cpu_capability() if device == "cpu" else device,
    }
