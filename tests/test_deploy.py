"""The files under `deploy/`: their steps run here, where neither docker nor SLURM is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mien.storage.run_directory import RunDirectory
from tests.conftest import ROOT, write_pack
from tests.test_parallel import SMALL, environment

DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with what follows each; lines that go on are joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(words[0], words[1]) for words in lines]


def test_the_container_is_slim_and_its_user_is_not_root() -> None:
    steps = instructions()
    assert steps[0][0] == "FROM" and steps[0][1].endswith("-slim")
    assert [rest for word, rest in steps if word == "USER"] == ["1000"]
    words = [word for word, _ in steps]
    assert "RUN" not in words[words.index("USER") :]
    permitted = (ROOT / ".dockerignore").read_text().split()
    for source in (name for word, rest in steps if word == "COPY" for name in rest.split()[:-1]):
        assert (ROOT / source).exists() and f"!{source}" in permitted, source


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_steps_of_the_container_install_mien_in_a_clean_folder(tmp_path: Path) -> None:
    """COPY and the pip lines of RUN, in a new virtual environment in place of the image's Python."""
    settings = {**os.environ, "PATH": f"{tmp_path / 'image' / 'bin'}:{os.environ['PATH']}"}
    settings.pop("PYTHONPATH", None)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "image"], check=True)
    work = tmp_path / "src"
    work.mkdir()
    for word, rest in instructions():
        if word == "ARG":
            name, _, value = rest.partition("=")
            settings[name] = value
        elif word == "COPY":
            *sources, target = rest.split()
            for name in sources:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, work / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, work / target)
        elif word == "RUN" and "pip install" in rest:
            subprocess.run(["sh", "-ec", rest.replace("/src", str(work))], cwd=work, env=settings, check=True)
    assert not any(work.iterdir())  # mien is installed, not read from the folder
    mien = tmp_path / "image" / "bin" / "mien"
    small = ("--minutes", "0.02", "--out", "run", "--threads", "1")
    for words in (["--version"], ["train", "quick", *small], ["explore", "--help"]):
        done = subprocess.run([mien, *words], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert RunDirectory(tmp_path / "run").status["state"] == "done"


def block(name: str) -> str:
    """A script in the file for SkyPilot."""
    text = (DEPLOY / "skypilot.yaml").read_text()
    found = re.search(rf"^{name}: \|\n((?:  .*\n)+)", text, re.MULTILINE)
    assert found, name
    return found[1]


def test_each_machine_of_a_cloud_starts_its_part(tmp_path: Path) -> None:
    """The script with SkyPilot's variables, and a torchrun that says what it was called with."""
    (tmp_path / "torchrun").write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    own = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    own |= {"SKYPILOT_NUM_GPUS_PER_NODE": "4", "ARGUMENTS": "train gan --images 5", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = block("run").replace("cd /data", f'cd "{tmp_path}"')
    said = subprocess.run(["bash", "-eu", "-c", script], env=own, capture_output=True, text=True, check=True).stdout
    assert said.split() == [
        *(str(tmp_path), "--nnodes", "2", "--nproc-per-node", "4", "--node-rank", "1", "--master-addr", "10.0.0.7"),
        *("--master-port", "29500", "--module", "mien", "train", "gan", "--images", "5"),
    ]


def test_a_cloud_installs_the_same_torch_into_a_bucket_that_can_be_appended_to() -> None:
    """With SkyPilot's mode MOUNT nothing can be appended to a file, and every run fails at its first line of metrics."""
    assert re.findall(r"mode: (\w+)", (DEPLOY / "skypilot.yaml").read_text()) == ["MOUNT_CACHED"]
    (torch,) = [rest.partition("=")[2] for word, rest in instructions() if rest.startswith("TORCH=")]
    assert re.findall(r"torch==(\S+)", block("setup")) == [torch, torch]


SRUN = """#!/bin/sh
echo "$@" >> steps
while case "$1" in --*) ;; *) false ;; esac; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
case "$1" in
show) echo 127.0.0.1 ;;
requeue) echo "$2" >> requeued ;;
esac
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_batch_file_stops_at_its_signal_and_is_queued_again(tmp_path: Path) -> None:
    """With `srun` and `scontrol` that do for one node what SLURM's do: the job stops, is queued again, and goes on."""
    commands = tmp_path / "bin"
    commands.mkdir()
    torchrun = f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", torchrun)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    settings = {
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_CPUS_PER_TASK": "32",
    }
    variables = {**environment(), **settings, "PATH": f"{commands}:{os.environ['PATH']}"}
    pack = write_pack(tmp_path / "blobs.pack").path
    train = ["bash", DEPLOY / "slurm.sbatch", "train", *SMALL, "--data", pack, "--out", "run", "--images"]
    job = subprocess.Popen([*train, str(10**7)], cwd=tmp_path, env=variables)
    run, end = tmp_path / "run", time.monotonic() + 300
    while not list((run / "checkpoints").glob("[0-9]*")):
        assert time.monotonic() < end and job.poll() is None
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(120) == 0
    assert (tmp_path / "requeued").read_text() == "7\n"
    assert "--cpus-per-task=32 " in (tmp_path / "steps").read_text()
    status = RunDirectory(run).status
    assert status["state"] == "preempted" and status["exit_code"] == 75
    goal = str(status["seen"] + 80)
    assert subprocess.run([*train, goal], cwd=tmp_path, env=variables, timeout=300).returncode == 0
    assert RunDirectory(run).status["state"] == "done"
    assert RunDirectory(run).status["started_from"] == status["seen"]
    assert (tmp_path / "requeued").read_text() == "7\n"  # not when it is done
