"""Starts ranks as torchrun does, for a third of the processor time: one process imports what they need, and forks them.

    python -m tests.forked_ranks PROCESSES --module mien sample ...

If a rank fails the others get SIGTERM, and after 30 seconds SIGKILL. What is torchrun's own (how it starts processes again, finds
other machines, passes on signals) is tested with torchrun itself.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import socket
import sys
import time

GRACE = 30.0  # seconds between the two signals, as torchrun's
HEAVY = ("mien.cli.flags", "mien.training.experiment", "mien.metrics.online", "torch._dynamo")


def forked(*words: object, processes: int = 2) -> list[str]:
    """A command for some ranks here, on a free port."""
    return [sys.executable, "-m", "tests.forked_ranks", str(processes), *map(str, words)]


def start(rank: int, processes: int, port: int, module: str, words: list[str]) -> int:
    """Fork one rank, which runs a module as `python -m` does. Returns its number."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(value) for name, value in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()})
    sys.argv = [module, *words]
    code = 1
    try:
        runpy.run_module(f"{module}.__main__" if module == "mien" else module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(arguments: list[str]) -> int:
    count, _, module, *words = arguments
    own = f"mien.cli.{words[0]}" if module == "mien" else module
    for name in (*(HEAVY if "train" in words else HEAVY[:1]), own):
        importlib.import_module(name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    living = {start(rank, int(count), port, module, words) for rank in range(int(count))}
    ends, failed = float("inf"), False

    def stop(*_: object) -> None:
        nonlocal ends
        ends = min(ends, time.monotonic() + GRACE)
        for rank in living:
            os.kill(rank, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    while living:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if not ended:
            if time.monotonic() > ends:
                for rank in living:
                    os.kill(rank, signal.SIGKILL)
            time.sleep(0.02)
            continue
        living.discard(ended)
        if status and not failed:
            failed = True
            stop()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
