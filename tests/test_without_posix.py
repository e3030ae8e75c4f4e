"""A platform without POSIX calls: train, sample and export where `resource`, `fcntl`, SIGUSR1 and `os.fork` do not exist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mien.data.pack import Pack

HIDE = """
import os
import signal
import sys
from enum import IntEnum

#: Modules that Windows does not have; importing one raises ImportError.
sys.modules.update(dict.fromkeys(("resource", "fcntl", "pwd", "grp", "termios"), None))
names = {name: value for name, value in signal.Signals.__members__.items() if name not in ("SIGUSR1", "SIGUSR2", "SIGHUP")}
signal.Signals = IntEnum("Signals", names)
for module, absent in ((signal, ("SIGUSR1", "SIGUSR2", "SIGHUP")), (os, ("fork", "forkpty", "sched_getaffinity", "getuid"))):
    for name in absent:
        if hasattr(module, name):
            delattr(module, name)
"""
RUN = """
from pathlib import Path

from mien.__main__ import main

assert main(["train", "quick", "--data", DATA, "--out", "run", "--images", "8", "--batch", "4", "--threads", "1"]) == 0
assert main(["sample", "run", "--seeds", "0-3", "-o", "faces.png"]) == 0
assert main(["export", "run", "--to", "hub", "-o", "folder"]) == 0
assert Path("folder/model.safetensors").is_file() and Path("faces.png").is_file()
"""


def test_training_sampling_and_export_need_no_posix_call(blob_pack: Pack, tmp_path: Path) -> None:
    code = f"{HIDE}\nDATA = {str(blob_pack.path)!r}\n{RUN}"
    (tmp_path / "elsewhere.py").write_text(f"if __name__ == '__main__':\n    exec({code!r})\n", encoding="utf-8")
    line = [sys.executable, "-W", "ignore", "elsewhere.py"]
    # Windows names the user so; without `pwd`, torch 2.11 finds the name nowhere else.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "USERNAME": "somebody"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
