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


@pytest.mark.slow  # until its time on a quiet core is known: docs/LOG.md, 2026-11-29
@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED FUZZING: it needs Linux")
def test_an_excerpt_of_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    line = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--few", "--count", "12", "--box", tmp_path, "--seed", "1"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("0 findings\n") and "requests: 40 cases" in done.stdout
