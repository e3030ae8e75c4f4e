"""An excerpt of `benchmarks/fuzz.py`: command lines, mutated files and requests, each answered in time and inside its folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("starlette", reason="SKIPPED FUZZING: the extra `web` is not installed")
pytest.importorskip("uvicorn")
pytest.importorskip("psutil")


@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED FUZZING: it needs Linux")
def test_an_excerpt_of_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """4 command lines, a mutation of each of 27 kinds of file, and two servers with 60 requests each: every route is asked."""
    line = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--few", "--box", tmp_path, "--seed", "1"]
    line += ["--count", "4", "--count-files", "27", "--count-requests", "120"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 findings\n")
    assert "commands: 4 cases" in done.stdout and "files: 27 cases" in done.stdout and "requests: 120" in done.stdout
