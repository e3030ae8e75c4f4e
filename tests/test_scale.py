"""Several processes and several nodes, at the length that the documentation promises: see docs/scale.md."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mien.report.shards import FINISHED
from tests.conftest import write_model, write_pack
from tests.test_bulk import content
from tests.test_parallel import children, environment, torchrun

SEEDS, SIZE = 20_000, 250


def kill_node(launcher: subprocess.Popen[bytes]) -> None:
    """Kill a launcher and its processes, which are in sessions of their own, at once."""
    processes = [launcher.pid, *children(launcher.pid)]
    for process in processes:
        os.kill(process, signal.SIGKILL)
    launcher.wait()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_seeds_by_one_two_and_three_processes_and_two_kills(tmp_path: Path) -> None:
    model = write_model("dcgan-2015", tmp_path, write_pack(tmp_path / "blobs.pack"))
    words = ("--module", "mien", "sample", model, "--seeds", f"0-{SEEDS - 1}", "--format", "tar", "--shard-size", SIZE)
    folders = []
    for processes in (1, 2, 3):
        out = tmp_path / f"by{processes}"
        line = torchrun(*words, "-o", out, processes=processes)
        for kill in (1, 2) if processes > 1 else ():
            before = len(list((out / FINISHED).glob("*")))
            job = subprocess.Popen(line, cwd=tmp_path, env=environment())
            end = time.monotonic() + 600
            while len(list((out / FINISHED).glob("[0-9]*"))) < before + 3 * kill:
                assert time.monotonic() < end and job.poll() is None
                time.sleep(0.01)
            kill_node(job)
            assert not (out / "manifest.json").exists()
        subprocess.run(line, cwd=tmp_path, env=environment(), check=True, timeout=1800)
        folders.append(content(out))
    assert len(folders[0]) == SEEDS // SIZE + 2 and folders[0] == folders[1] == folders[2]
