"""Processes that are forked from one that has imported torch and mien, so that a command costs its own work, not 3 s of imports.

`Popen` is that of subprocess, and a test that asks for the fixture `warm_starts` has it in its place, also where mien
starts processes: a line `python -m MODULE ...` or `python FILE ...` is a fork, which does as `conftest.cheap_commands` says; any
other line starts as ever. Run as a module this file is the process that forks.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

VERBS = ("train", "sample", "walk", "project", "evaluate", "benchmark", "explore", "data")
HEAVY = ("tests.forked_ranks", "torch._dynamo", "mien.metrics.online", *(f"mien.cli.{verb}" for verb in VERBS))
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: who becomes the parent of a process whose own has ended


@cache
def server() -> socket.socket:
    """The process that forks, of this process: it ends with this socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = [sys.executable, "-m", "tests.warm_start", str(theirs.fileno())]
    PLAIN(line, cwd=Path(__file__).parents[1], env=environment, pass_fds=(theirs.fileno(),), start_new_session=True)
    theirs.close()
    return ours


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A process of a line, in a fork where that is possible."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        line = [] if isinstance(args, str | bytes) else [os.fsdecode(word) for word in args]
        line = [word for number, word in enumerate(line) if number != 1 or word != "-P"]
        forkable = line[:1] == [sys.executable] and (line[1] == "-m" or line[1].endswith(".py"))
        if sys.platform != "linux" or not forkable or len(more) != 22:  # of subprocess in Python 3.11 to 3.14
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        (_, hook, _, kept, cwd, env, _, _, shell, stdin, _, _, stdout, _, stderr, _, _, _, _, _, new_session, _) = more
        if hook or kept or shell:
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        told = {"line": line[1:], "cwd": os.fspath(cwd or Path.cwd()), "own": new_session}
        told["env"] = {os.fsdecode(name): os.fsdecode(text) for name, text in (env or os.environ).items()}
        files = [given if given >= 0 else number for number, given in enumerate((stdin, stdout, stderr))]
        forks = server()
        reap = ctypes.CDLL(None).prctl
        reap(SUBREAPER, 1, 0, 0, 0)
        socket.send_fds(forks, [json.dumps(told).encode()], files)
        self.pid = int(forks.recv(64))  # whose parent we are by now
        reap(SUBREAPER, 0, 0, 0, 0)
        self._child_created = True
        self._close_pipe_fds(*more[9:15])  # type: ignore[attr-defined]


PLAIN = subprocess.Popen


def become(told: dict[str, Any], files: list[int]) -> int:
    """Be what a line asks for: its exit code."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if told["own"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    tempfile.tempdir = None
    module, words = (told["line"][1], told["line"][2:]) if told["line"][0] == "-m" else ("", told["line"][1:])
    sys.path[:0] = [told["cwd"], *told["env"].get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = [module or told["line"][0], *words]
    try:
        if module:
            runpy.run_module(f"{module}.__main__" if module == "mien" else module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(told["line"][0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def main(asked: socket.socket) -> None:
    """Fork for each line that comes, twice, so that the fork's parent is who asks."""
    for name in HEAVY:
        importlib.import_module(name)
    from mien.metrics import framing
    from mien.report import observers

    observers.plot_run, framing.SEEDS = lambda run_dir: [], range(6)  # as in the tests' own process
    noted, note = os.pipe()
    while True:
        message, files, _, _ = socket.recv_fds(asked, 1 << 20, 3)
        if not message:
            return
        between = os.fork()
        if between == 0:
            if (pid := os.fork()) == 0:
                asked.close()
                code = become(json.loads(message), files)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            os.write(note, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        asked.send(os.read(noted, 64))
        for file in files:
            os.close(file)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
