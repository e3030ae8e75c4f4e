"""Several processes and several nodes, at the length that the documentation promises: see docs/scale.md."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mien.__main__ import main
from mien.core.run import Run, override
from mien.report.shards import FINISHED
from mien.storage.bounded_json import read_lines
from mien.storage.run_directory import RunDirectory
from tests.conftest import ROOT, blobs, write_model, write_pack
from tests.forked_ranks import forked
from tests.test_bulk import content
from tests.test_parallel import SMALL, alive, children, environment, torchrun

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
        line = forked(*words, "-o", out, processes=processes)
        for kill in (1, 2) if processes > 1 else ():
            before = len(list((out / FINISHED).glob("*")))
            job = subprocess.Popen(line, cwd=ROOT, env=environment())
            end = time.monotonic() + 600
            while len(list((out / FINISHED).glob("[0-9]*"))) < before + 3 * kill:
                assert time.monotonic() < end and job.poll() is None
                time.sleep(0.01)
            kill_node(job)
            assert not (out / "manifest.json").exists()
        subprocess.run(line, cwd=ROOT, env=environment(), check=True, timeout=1800)
        folders.append(content(out))
    assert len(folders[0]) == SEEDS // SIZE + 2 and folders[0] == folders[1] == folders[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", ["walk", "project"])
def test_frames_and_projections_outlive_kills_at_random(verb: str, tmp_path: Path) -> None:
    """Three kills, each at a random moment after another shard, and a shard changed by hand before the last start."""
    model = write_model("dcgan-2015", tmp_path, write_pack(tmp_path / "blobs.pack"))
    for number, pixels in enumerate(blobs(60, 16)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02d}.png")
    more = {"walk": ["--seeds", "0-9", "--frames", "2000", "--shard-size", "50", "--format", "tar"]}
    more["project"] = [str(tmp_path / "photos"), "--steps", "20", "--shard-size", "2"]
    line = [sys.executable, "-m", "mien", verb, str(model), *more[verb], "-o"]
    moments, out = random.Random(0), tmp_path / "killed"
    for kill in (1, 2, 3):
        job = subprocess.Popen([*line, str(out)], cwd=tmp_path, env=environment())
        end = time.monotonic() + 900
        while len(list((out / FINISHED).glob("[0-9]*"))) < 3 * kill:
            assert time.monotonic() < end and job.poll() is None
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.2))
        job.kill()
        job.wait()
        assert not (out / "manifest.json").exists()
    changed = sorted(out.glob("shard-*"))[1]
    changed.write_bytes(bytes(changed.stat().st_size))
    for folder in (out, tmp_path / "whole"):
        subprocess.run([*line, str(folder)], cwd=tmp_path, env=environment(), check=True, timeout=1800)
    assert content(out) == content(tmp_path / "whole")


FATAL_EYE = """
import os, signal
from mien.metrics.features import PixelFeatures

class Eye(PixelFeatures):
    calls = 0

    def __call__(self, images):
        self.calls += 1
        if os.environ.get("RANK") == os.environ.get("VICTIM") and self.calls == int(os.environ["CALL"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)[:, ::64]
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_evaluation_outlives_kills_of_its_ranks(tmp_path: Path) -> None:
    """Rank 0 is killed while it reads the data, rank 1 while it draws, and a line was cut off: the next one is whole and right."""
    pack = write_pack(tmp_path / "blobs.pack")
    model = write_model("dcgan-2015", tmp_path, pack)
    (tmp_path / "eye.py").write_text(FATAL_EYE)
    words = ["evaluate", str(model), "--data", str(pack.path), "--metrics", "fid,kid", "--samples", "96"]
    words += ["--extractor", f"{tmp_path / 'eye.py'}:Eye", "--out"]
    out = tmp_path / "killed"
    own = {**environment(), "MIEN_CACHE": str(tmp_path / "cache"), "CALL": "0"}
    for victim, call in ((0, 2), (1, 5)):
        fatal = {**own, "VICTIM": str(victim), "CALL": str(call)}
        line = forked("--module", "mien", *words, out)
        assert subprocess.run(line, cwd=ROOT, env=fatal, timeout=600).returncode != 0
        assert not out.exists() and not list(tmp_path.rglob("*.tmp*"))
    out.mkdir()
    (out / "fid.jsonl").write_text('{"val')
    assert subprocess.run(forked("--module", "mien", *words, out), cwd=ROOT, env=own, timeout=600).returncode == 0
    alone = [sys.executable, "-m", "mien", *words, str(tmp_path / "alone")]
    fresh = {**own, "MIEN_CACHE": str(tmp_path / "fresh")}
    assert subprocess.run(alone, cwd=ROOT, env=fresh, timeout=600).returncode == 0
    for metric in ("fid", "kid"):
        one, many = (list(read_lines(tmp_path / name / f"{metric}.jsonl")) for name in ("alone", "killed"))
        assert len(one) == 1 and one == many


def allowed_namespaces() -> bool:
    """Whether this user may make network namespaces."""
    name = f"mien{os.getpid()}t"
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    return subprocess.run(["ip", "netns", "del", name], capture_output=True).returncode == 0


class Nodes:
    """Two machines with a cable between them: network namespaces, each with a `torchrun` of its own."""

    def __init__(self) -> None:
        self.names = [f"mien{os.getpid()}{letter}" for letter in "ab"]
        cable = [f"mien{os.getpid() % 10**6}{letter}" for letter in "ab"]
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(self.names, cable, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "cable")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")

    def start(self, node: int, *words: object, processes: int = 2) -> subprocess.Popen[bytes]:
        """The launcher of one node, as one would start it by hand on each machine."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
        place = ["--master-addr", "10.77.0.1", "--master-port", "29500", "--nproc-per-node", str(processes)]
        line = ["ip", "netns", "exec", self.names[node], *launcher, *place, *map(str, words)]
        return subprocess.Popen(line, env={**environment(), "GLOO_SOCKET_IFNAME": "cable"})

    def close(self) -> None:
        for name in self.names:
            ip("netns", "del", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    if not allowed_namespaces():
        pytest.skip("needs the right to make network namespaces")
    pair = Nodes()
    yield pair
    pair.close()


def newest(run: Path) -> int:
    """Images seen at the newest checkpoint; 0 before the first."""
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_nodes_of_two_processes_one_dies_and_three_processes_go_on(nodes: Nodes, tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "blobs.pack").path
    small = ("--model.width", "4", "--recipe.critic.width", "4", "--model.latent", "8", "--precision", "fp64")
    fixed = ("dcgan-2015", *small, "--batch", "12", "--save-every", "120", "--threads", "1", "--data", pack)
    run, train = tmp_path / "run", ("--module", "mien", "train", *fixed)
    jobs = [nodes.start(node, *train, "--out", run, "--images", 10**7) for node in (0, 1)]
    try:
        end = time.monotonic() + 600
        while newest(run) < 240:
            assert time.monotonic() < end and not any(job.poll() for job in jobs)
            time.sleep(0.05)
        assert json.loads((run / "env.json").read_text())["processes"] == 4
        remaining = children(jobs[0].pid)
        kill_node(jobs[1])
        began = time.monotonic()
        assert jobs[0].wait(60) != 0
        ended_in = time.monotonic() - began
        assert ended_in < 30 and not any(map(alive, remaining)), ended_in
        seen = newest(run)
        goal = seen + 240
        line = torchrun(*train, "--out", run, "--images", goal, processes=3)
        done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert len([text for text in done.stderr.splitlines() if "processes: 4 -> 3" in text]) == 1, done.stderr
        status = RunDirectory(run).status
        assert (status["state"], status["seen"], status["started_from"]) == ("done", goal, seen)
    finally:
        for job in jobs:
            if job.poll() is None:
                kill_node(job)
    assert main(["train", *map(str, fixed), "--out", str(tmp_path / "alone"), "--images", str(goal)]) == 0
    one, many = (
        load_file(tmp_path / name / "checkpoints" / f"{goal:010d}" / "state.safetensors") for name in ("alone", "run")
    )
    assert one.keys() == many.keys()
    gaps = {key: float((one[key].double() - many[key].double()).abs().max()) for key in one if one[key].numel()}
    assert max(gaps.values()) < 1e-5, gaps


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_machine_is_lost_and_comes_back(tmp_path: Path) -> None:
    """`--nnodes 1:2`: the other goes on alone, then both; when the machine of the rendezvous is lost, the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pack, run = write_pack(tmp_path / "blobs.pack").path, tmp_path / "run"
    words = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "9", "--monitor-interval", "0.5"]
    words += ["--rdzv-backend", "c10d", "--rdzv-id", "mien", "--rdzv-endpoint", f"localhost:{port}"]
    words += ["--rdzv-conf", "join_timeout=900,last_call_timeout=5", "--module", "mien", "train", *SMALL]
    words += ["--data", str(pack), "--out", str(run), "--images", str(10**7)]
    own = {**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

    def machine() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *words], env=own)

    def wait_for(processes: int) -> int:
        """Wait until so many processes have saved twice. Returns the images before that."""
        first, end = None, time.monotonic() + 900
        while first is None or newest(run) < first + 160:
            assert time.monotonic() < end and jobs[0].poll() is None
            if first is None and (run / "env.json").exists():
                here = json.loads((run / "env.json").read_text())["processes"]
                first = newest(run) if here == processes else None
            time.sleep(0.05)
        return first

    jobs = [machine(), machine()]
    try:
        wait_for(2)
        kill_node(jobs[1])
        wait_for(1)
        jobs[1] = machine()
        before = wait_for(2)
        status = RunDirectory(run).status
        assert status["resumes"] >= 2 and status["started_from"] >= before and jobs[1].poll() is None
        remaining = children(jobs[1].pid)
        kill_node(jobs[0])
        assert jobs[1].wait(120) != 0 and not any(map(alive, remaining))
    finally:
        for job in jobs:
            if job.poll() is None:
                kill_node(job)


CPU = torch.device("cpu")
FULL_DEVICES = (torch.OutOfMemoryError("no room"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize("error", [*FULL_DEVICES, RuntimeError("cuDNN is broken")])
def test_a_speed_is_measured_with_the_largest_batch_that_fits(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(run: Run, *_: object) -> dict[str, Any]:
        if run.batch > 4:
            raise error
        return {"batch": run.batch}

    monkeypatch.setattr(gpu, "timed", timed)
    if error in FULL_DEVICES:
        assert gpu.fitting(gpu.gan(16, 0.25, CPU), CPU, 1, None, 1.0) == {"batch": 4}
    else:
        with pytest.raises(RuntimeError, match="broken"):
            gpu.fitting(gpu.gan(16, 0.25, CPU), CPU, 1, None, 1.0)


@pytest.mark.slow
def test_what_is_timed_is_what_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator was compiled where recipes do not call it, and one step in four, which counts most, stood for all."""
    run = override(gpu.gan(16, 0.25, CPU), {"batch": 4})
    calls: list[int] = []

    def compiled(function: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
        return lambda *given: (calls.append(1), function(*given))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    gpu.timed(run, CPU, 1, "compile", 1.0)
    assert len(calls) == 4  # a step before, and three that are timed
    monkeypatch.setattr(gpu.r3gan_speed, "seconds", lambda step, _, times=1: [step() for _ in range(times)] and 1.0)
    often, seldom = (gpu.timed(override(run, {"recipe.reg_interval": n}), CPU, 1, None, 1e-9) for n in (1, 4))
    assert 1.0 < often["share_of_peak"] / seldom["share_of_peak"] < 2.0
    on_a_gpu = gpu.gan(64, 1.0, torch.device("cuda"))
    assert (on_a_gpu.batch, on_a_gpu.recipe.reg_fraction) == (256, 1.0)  # type: ignore[attr-defined]


def test_a_part_without_data_or_time_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as done."""
    line = [str(tmp_path), "--device", "cpu", "--only", "r3gan", "train64"]
    done = subprocess.CompletedProcess([], 0, "fast", "")
    monkeypatch.setattr(gpu, "run_command", lambda *_: done)
    assert gpu.main(line) == gpu.main([*line, "--minutes", "1", "--data64", str(tmp_path), "--r3gan", "x"]) == 0
    assert gpu.main([*line, "--r3gan", "x"]) == 0
    results = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [result["skipped"] for result in results if "skipped" in result] == [
        *("no --r3gan CHECKOUT", "no --data64", "no time is left for all of it", "no time is left", "no --data64")
    ]
    assert [result["part"] for result in results if result.get("finished")] == ["r3gan"]


def test_a_command_that_takes_too_long_may_save_what_it_has() -> None:
    save = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('saved')); time.sleep(60)"
    done = gpu.run_command(["-c", save], 2.0)
    assert done.returncode == 1 and done.stderr == "saved\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_hour_with_a_gpu_at_toy_size(tmp_path: Path) -> None:
    """An excerpt of `benchmarks/gpu.py`: the checks against themselves, and a training with its score."""
    line = [sys.executable, ROOT / "benchmarks" / "gpu.py", tmp_path / "out", "--device", "cpu", "--toy"]
    words = [*map(str, line), "--only", "checks", "r3gan", "train16"]
    for _ in range(2):  # the second time everything is there already
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(text) for text in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [result["part"] for result in results if result.get("finished")] == ["checks", "train16"]
    assert not any("error" in result for result in results)
    found = {result["check"]: result for result in results if "check" in result}
    assert found["5 steps in bf16 against the CPU's"]["relative_distance"] == 0.0
    assert found["resume to the bit"]["equal"] and found["double backward of augmentation"]["largest_gap"] == 0.0
    assert found["two processes on one device"]["largest_gap"] < 1e-5
    (scores,) = [result["scores"] for result in results if "scores" in result]
    assert (
        scores and (tmp_path / "out" / "train16.safetensors").is_file() and (tmp_path / "out" / "train16.png").is_file()
    )
