"""Two processes are one process with both batches; and when one dies, so does the other.

Run as a module under torchrun this file is the work of one rank: it trains each preset and writes down what it has become.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from benchmarks import kills
from safetensors.torch import load_file, save_file
from torch import Tensor

from mien import presets
from mien.__main__ import main
from mien.core import distributed
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import Disconnected
from mien.storage.run_directory import RunDirectory
from mien.training.resolve import ResolvedRun
from tests.conftest import ROOT, tiny
from tests.forked_ranks import forked

pytestmark = pytest.mark.usefixtures("warm_starts")

STEPS = 20
DRY = {"recipe.critic.map_dropout": 0.0, "recipe.critic.dropout": 0.0}  # ranks drop different units: no dropout here
RUNS: dict[str, Run] = {
    "gated": override(
        tiny(presets.PRESETS["torch-gan-2015"]),
        {**DRY, "recipe.margin": (0.6, 0.72), "recipe.warmup_calls": (), "recipe.warmup_divisors": ()},
    ),
    "held": override(
        tiny(presets.PRESETS["torch-gan-2015"]),
        {**DRY, "recipe.balance": "adaptive-l2", "recipe.l2_target": (0.1, 0.2), "recipe.critic.batch_norm": True},
    ),
    "normed": override(tiny(presets.PRESETS["dcgan-2015"]), {"ema": presets.PRESETS["quick"].ema}),
    "penalised": tiny(presets.PRESETS["quick"]),
    "mapped": override(tiny(presets.PRESETS["quick"]), {"model.mapping": 2, "recipe.style_mixing": 0.5}),
    "self-judged": override(tiny(presets.PRESETS["began-2017"]), {"recipe.plateau_steps": 3}),
    "encoded": override(tiny(presets.PRESETS["vae"]), {"recipe.free_nats": 0.05}),
    "beyond pixels": override(tiny(presets.PRESETS["vaegan-2016"]), {"recipe.balance": "none"}),
}


def learned(run: Run, pack: Pack, world: World) -> dict[str, Tensor]:
    """The memory after STEPS steps in float64, and how many of them moved the generator."""
    learner = ResolvedRun(run, pack, DeviceContext(torch.device("cpu"), "fp64"), None, "blobs").initial_state(world)
    loader = Loader(pack, batch=run.batch, seed=run.seed, rank=world.rank, world=world.size, flip=run.flip, threads=0)
    moves = 0
    for _ in range(STEPS):
        before = next(learner.recipe.model.parameters()).detach().clone()
        learner.step(loader)
        moves += not torch.equal(before, next(learner.recipe.model.parameters()))
    return {**{name: tensor.contiguous() for name, tensor in learner.tensors().items()}, "moves": torch.tensor(moves)}


def work(pack: Path, folder: Path) -> None:
    """One rank's work."""
    torch.set_num_threads(1)
    with distributed.world("cpu") as world:
        for name, run in RUNS.items():
            save_file(learned(run, Pack.open(pack), world), folder / f"{name}-{world.rank}.safetensors")
        during = gloo_threads()
    (folder / f"threads-{world.rank}.txt").write_text(f"{during} {gloo_threads()}")


def gloo_threads() -> int:
    """How many threads of gloo this process has, where the system says so."""
    return sum("gloo" in path.read_text() for path in Path("/proc").glob("self/task/*/comm"))


def torchrun(*words: object, processes: int = 2) -> list[str]:
    """A command for some processes here, on a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Path:
    """What two ranks have become."""
    folder = tmp_path_factory.mktemp("ranks")
    line = forked("--module", "tests.test_parallel", blob_pack.path, folder)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_learns(two: Path, name: str, blob_pack: Pack) -> None:
    alone, first = learned(RUNS[name], blob_pack, World()), load_file(two / f"{name}-0.safetensors")
    assert alone.keys() == first.keys()
    far = {key: float((alone[key].double() - first[key].double()).abs().max()) for key in alone if alone[key].numel()}
    assert max(far.values()) < 1e-5, {key: gap for key, gap in far.items() if gap >= 1e-5}
    fresh = (
        ResolvedRun(RUNS[name], blob_pack, DeviceContext(torch.device("cpu"), "fp64"), None, "blobs")
        .initial_state(World())
        .tensors()
    )
    assert max(float((alone[key] - fresh[key]).abs().max()) for key in fresh if fresh[key].is_floating_point()) > 1e-3
    if name == "gated":
        assert 0 < int(alone["moves"]) < STEPS  # the gate opened and closed


@pytest.mark.parametrize("name", RUNS)
def test_ranks_agree_to_the_bit(two: Path, name: str) -> None:
    first, second = (load_file(two / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see threads")
def test_nothing_of_the_group_outlives_it(two: Path) -> None:
    """Threads that are still there when Python ends may abort the process: seen as exit code -6 after a run that went well."""
    for rank in (0, 1):
        during, after = map(int, (two / f"threads-{rank}.txt").read_text().split())
        assert during > 0 and after == 0


SMALL = (
    *("dcgan-2015", "--model.width", "4", "--recipe.critic.width", "4", "--model.latent", "8", "--batch", "8"),
    *("--precision", "fp64", "--save-every", "80", "--threads", "1"),
)


def test_the_command_line_under_torchrun(
    tmp_path: Path, blob_pack: Pack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 steps, stopped in the middle: the checkpoint of two equals the checkpoint of one. torchrun starts the second half."""
    monkeypatch.chdir(tmp_path)
    for images, start in ((80, forked), (160, torchrun)):
        line = start("--module", "mien", "train", *SMALL, "--data", blob_pack.path, "--out", "two", "--images", images)
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment())
        assert done.returncode == 0, done.stderr
        assert done.stdout == "two\n"  # one process speaks for all
    status = RunDirectory(tmp_path / "two").status
    assert (status["state"], status["seen"], status["started_from"]) == ("done", 160, 80)
    assert main(["train", *SMALL, "--data", str(blob_pack.path), "--out", "one", "--images", "160"]) == 0
    one, both = (
        load_file(tmp_path / out / "checkpoints" / "0000000160" / "state.safetensors") for out in ("one", "two")
    )
    assert one.keys() == both.keys()
    assert max(float((one[key].double() - both[key].double()).abs().max()) for key in one) < 1e-5


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            found += [int(path.name)] if parent == process else []
    return found


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the ranks")
def test_when_one_rank_dies_all_end(tmp_path: Path, blob_pack: Pack) -> None:
    out = tmp_path / "run"
    line = torchrun("--module", "mien", "train", *SMALL, "--data", blob_pack.path, "--out", out, "--images", 10**7)
    with (tmp_path / "words.txt").open("wb") as words:
        launcher = subprocess.Popen(line, cwd=tmp_path, stdout=words, stderr=words, env=environment())
    try:
        end = time.monotonic() + 120
        while not kills.checkpoints(out):
            assert time.monotonic() < end and launcher.poll() is None, (tmp_path / "words.txt").read_text()
            time.sleep(0.05)
        ranks = children(launcher.pid)
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGKILL)
        started = time.monotonic()
        assert launcher.wait(60) != 0 and time.monotonic() - started < 45
        assert not any(map(alive, ranks))
        with RunDirectory(out).locked():
            pass
        text = (tmp_path / "words.txt").read_text()
        assert "mien: The connection to another process of this command is lost." in text and "bug" not in text
        assert RunDirectory(out).status["exit_code"] == Disconnected.exit_code
    finally:
        launcher.kill()
        launcher.wait()


def test_only_what_torch_says_of_other_processes_is_a_lost_connection() -> None:
    text = (
        "[/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:2476. This is typically a crash."
    )
    with pytest.raises(Disconnected) as caught, distributed.connected():
        raise RuntimeError(text)
    assert caught.value.why == "Connection closed by peer [127.0.0.1]:2476."
    with pytest.raises(Disconnected), distributed.connected():
        raise dist.DistStoreError("timed out after 600 seconds")
    with pytest.raises(RuntimeError, match=r"^mat1"), distributed.connected():
        raise RuntimeError("mat1 and mat2 cannot be multiplied")


def test_processes_that_are_started_again_meet_only_each_other() -> None:
    """torchrun 2.13 gives them the store of those before, where the addresses of the dead stand."""
    store = dist.HashStore()
    for attempt in range(3):
        if attempt == 2:  # one that died in between, when the others had not come yet
            store.set("mien/greeting/2", "dead")
        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(lambda rank: distributed.of_this_attempt(store, rank, 3), range(3)))
        assert not any(part.check(["address"]) for part in parts)
        parts[0].set("address", str(attempt))
        assert [part.get("address") for part in parts] == [str(attempt).encode()] * 3


def test_one_process_needs_no_neighbours() -> None:
    assert not distributed.joined() and distributed.maximum(3.0) == 3.0 and distributed.broadcast("x") == "x"
    value = torch.ones(2, requires_grad=True)
    assert distributed.differentiable_sum(value) is value and not distributed.mean(value).requires_grad
    loss, gradients = distributed.average_gradients(value.sum(), [value.detach()])
    assert float(loss) == 2.0 and gradients[0].tolist() == [1.0, 1.0]


def test_a_batch_that_cannot_be_shared_is_refused(blob_pack: Pack) -> None:
    from mien.errors import UsageError

    with pytest.raises(UsageError, match="multiple of 3"):
        Loader(blob_pack, batch=8, seed=0, rank=0, world=3)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
