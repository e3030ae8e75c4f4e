"""Training runs that the page starts: processes of their own, which outlive the explorer.

A run's directory is data from elsewhere. Nothing in it is executed, and no path in it is followed: the command of a resumed run
is built anew from fields that are checked one by one. A preset of one's own needs the file that the server was started with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, Literal, Union, get_args, get_origin

from mien import presets
from mien.core.contracts import JSON
from mien.core.run import Run, config_fields, to_json
from mien.data.pack import Pack
from mien.downloads.weights import cache_folder
from mien.errors import DataError, Locked, MienError
from mien.sampling import bundled
from mien.storage import checkpoint
from mien.storage.run_directory import read_json
from mien.web.photograph_set import PhotographSet
from mien.web.registry import DEFAULTS, Registry, RunEntry

MAX_PACKS = 1000  # that are looked at for the one of a run
WORDS = re.compile(r"[a-z0-9_,-]{0,100}")  # names of metrics
SOURCE = Path(__file__).parents[2]  # what mien is imported from
#: A process that imports what takes longest before it is known what to train. The words of the command come by stdin.
READY = """import json, sys
import mien.training.experiment, mien.cli.flags, mien.cli.train
from mien.__main__ import main
line = sys.stdin.readline()
sys.exit(main(json.loads(line)) if line else 0)"""
#: Fields that name code or a place: a run that sets one is resumed where it was started.
NEVER = frozenset({"evaluate_extractor"})


class Training:
    """At most one run at a time is started from here."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.child: subprocess.Popen[bytes] | None = None
        self.photographs = PhotographSet()
        self._errors: IO[bytes] | None = None  # what the child writes to stderr
        self._ready: tuple[subprocess.Popen[bytes], IO[bytes]] | None = None  # a process that waits for its command

    def get_ready(self) -> None:
        """Begin a process for the next run, which ends with this one; nothing where there is one, or a run."""
        if self.child is not None and self.child.poll() is None:
            return
        if self._ready is None or self._ready[0].poll() is not None:
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
            self._ready = process(["-c", READY], subprocess.PIPE, errors), errors

    def close(self) -> None:
        """End the process that waits; a run goes on."""
        if self._ready is not None:
            self._ready[0].kill()
            self._ready[0].communicate()
            self._ready = None

    def start(self, minutes: float, own: bool = False, parent: str = "") -> None:
        """Train the quick preset, or go on from a bundled model, on the synthetic faces or on the photographs that were brought."""
        if self.child is not None and self.child.poll() is None:
            raise busy()
        data = [f"--data={self.photographs.take()}"] if own else []
        preset, begin = "quick", []
        if parent:
            folder = (
                bundled.FOLDER / parent
            )  # not its name alone: a folder of that name may lie in the working directory
            preset = str(checkpoint.read_header(folder / bundled.MODEL)["preset"])
            begin = [f"--from={folder}"]
        self.registry.expect_run()
        self._begin(["train", preset, "--minutes", f"{minutes:g}", "--resume", "never", *begin, *data])

    def started(self) -> JSON | None:
        """What became of the run that was started from here: whether it goes on, and one line if it failed."""
        if self.child is None:
            return None
        code, line = self.child.poll(), ""
        if code not in (None, 0, 75, 130) and self._errors is not None:
            self._errors.seek(0)
            lines = self._errors.read(1 << 16).decode("utf-8", "replace").splitlines()
            line = next((line for line in reversed(lines) if line.startswith("mien: ")), "mien: Training failed.")
        return {"alive": code is None, "error": line.removeprefix("mien: ")}

    def resume(self, run: RunEntry) -> None:
        """Go on with a run that was stopped. Raises DataError for one whose command cannot be built."""
        self._spawn(resume_command(run, self.registry))

    def _begin(self, words: list[str]) -> None:
        """Let the process that waits run a command, or one that is begun now."""
        ready, self._ready = self._ready, None
        if ready is not None and ready[0].poll() is None and ready[0].stdin is not None:
            with suppress(OSError), ready[0].stdin as pipe:  # it has died just now
                pipe.write(json.dumps(words).encode() + b"\n")
                self.child, self._errors = ready
                return
        self._spawn(words)

    def _spawn(self, words: list[str]) -> None:
        if self.child is not None and self.child.poll() is None:
            raise busy()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
        self.child = process(["-m", "mien", *words], subprocess.DEVNULL, self._errors)


def process(words: list[str], stdin: int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Python with some arguments, in a session of its own: it outlives this process."""
    # -P: a torch.py in the working directory, which may be a run's, is not imported in place of torch
    safe = [] if Path.cwd() == SOURCE else ["-P"]
    return subprocess.Popen(
        [sys.executable, *safe, *words],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=os.name != "nt",
    )


def busy() -> Locked:
    """The error for a second run."""
    return Locked("A run is being trained already.", "One at a time is started from here.", "Stop it, or wait.")


def resume_command(run: RunEntry, registry: Registry) -> list[str]:
    """The words after `mien` that go on with a run: preset, changed values, data and directory, each checked."""
    described, data = run.home.run_json or {}, read_json(run.path / "data.json") or {}
    word, preset = find_preset(described.get("preset"), registry.code)
    words = ["train", word, *changed_flags(preset, described)]
    if data.get("name") != "drawn":
        words.append(f"--data={find_pack(data.get('fingerprint'), registry)}")
    return [*words, f"--resume={run.path.resolve()}"]


def find_preset(name: object, code: Path | None) -> tuple[str, Run]:
    """The preset of a name, and how a command names it: one of mien's, or one in the file that this server was started with."""
    if isinstance(name, str) and name in presets.PRESETS:
        return name, presets.PRESETS[name]
    own = presets.load_code(code).presets if code is not None else {}
    if isinstance(name, str) and name in own:
        assert code is not None
        return f"{code.resolve()}:{name}", own[name]
    raise refused(
        "Its preset is none of mien's, and no code is taken from a run.",
        "Start `mien explore --code` with the file of your own preset.",
    )


def changed_flags(preset: Run, described: JSON) -> Iterator[str]:
    """`--NAME=VALUE` for each field that differs from the preset. Raises DataError for a value that its field cannot have."""
    check_kinds(to_json(preset), described)
    for field in config_fields(preset):
        value: Any = described
        for part in field.name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise refused(f"Its run.json has no {field.name}.")
            value = value[part]
        if value == to_json(field.value) and type(value) is type(to_json(field.value)):
            continue
        if field.name in NEVER or not fits(field.hint, value):
            raise refused(f"Its {field.name} is not one that can be repeated from here.")
        yield f"--{field.name.replace('_', '-')}={value}"


def check_kinds(preset: JSON, described: JSON) -> None:
    """Raises DataError where a config inside a run is of another class than the preset's."""
    for name, value in preset.items():
        found = described.get(name)
        if isinstance(value, dict):
            if not isinstance(found, dict) or found.get("kind") != value.get("kind"):
                raise refused(f"Its {name} is of another kind than the preset's.")
            check_kinds(value, found)


def fits(hint: Any, value: object) -> bool:
    """Whether a plain value has the type of a field; text is one of the choices, or a list of names."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(option, value) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint in (NoneType, None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if hint is str:
        return isinstance(value, str) and WORDS.fullmatch(value) is not None
    return hint in (bool, int) and type(value) is hint


def find_pack(fingerprint: object, registry: Registry) -> Path:
    """The pack that a run learned from, by its fingerprint, among those near this server; a path in a run is not followed.

    Looked at: the working directory, the folders of the runs that were named, and the cache.
    """
    named = [path.resolve().parent for path in registry.paths or DEFAULTS]
    places = dict.fromkeys([Path.cwd(), *named, *(path.parent for path in named), cache_folder() / "packs"])
    for place in places:
        for meta in islice((m for depth in ("*", "*/*") for m in place.glob(f"{depth}/pack.json")), MAX_PACKS):
            try:
                if Pack.open(meta.parent).fingerprint == fingerprint:
                    return meta.parent.resolve()
            except (MienError, OSError):
                continue
    raise refused("Its pack is not below this server's working directory, beside its runs, or in the cache.")


def refused(why: str, remedy: str = "Run `mien train` with the same arguments where the run was started.") -> DataError:
    """The error for a run that is not resumed from here."""
    return DataError("This run cannot be resumed from here.", why, remedy)
