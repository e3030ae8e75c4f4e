"""Threads that share a batch: what one thread computes, for any number, to the bit for the same number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mien
from mien import presets
from mien.core import distributed
from mien.core.contracts import Batch, ImageSpec, Recipe, Update
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run
from mien.storage import checkpoint
from mien.training.ema import EMA
from mien.training.replicas import Replicas, threads_for
from mien.training.train_state import NonFinite, TrainState
from tests.conftest import tiny, write_pack

LABELS = 3


class Stream(Iterator[Batch]):
    """Random batches of eight, equal for equal seeds."""

    def __init__(self, run: Run) -> None:
        self.run, self.generator = run, torch.Generator().manual_seed(1)

    def __next__(self) -> Batch:
        images = torch.rand(8, self.run.channels, self.run.side, self.run.side, generator=self.generator) * 2.0 - 1.0
        labels = torch.rand(8, LABELS, generator=self.generator).round() if self.run.conditional else None
        return Batch(images, labels)


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def state_of(run: Run, threads: int, precision: str = "fp64") -> TrainState:
    torch.manual_seed(0)
    faces = ImageSpec(side=run.side, channels=run.channels, label_dim=LABELS if run.conditional else 0)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    context = DeviceContext(torch.device("cpu"), precision)
    context.place(recipe)
    recipe.train()
    return TrainState(recipe, EMA(model, run.ema) if run.ema else None, context, World(), 0, threads=threads)


def trained(run: Run, threads: int, steps: int = 5, precision: str = "fp64") -> tuple[TrainState, dict[str, float]]:
    state, batches, stats = state_of(run, threads, precision), Stream(run), {}
    for _ in range(steps):
        stats = state.step(batches)
    return state, {name: float(value) for name, value in stats.items()}


def sharing() -> list[str]:
    """The presets whose batches threads may share."""
    found = []
    for name, run in presets.PRESETS.items():
        state = state_of(tiny(run), 1)
        if threads_for(state.recipe, 8, 64) > 1:
            found.append(name)
    return found


SHARING = (
    "quick",
    "gan",
    "cgan",
    "r3gan-2024",
    "flow",
    "vae",
    "vae-torch-2015",
    "vae-simpsons-2023",
    "began-2017",
    "began-zhao",
)


def test_who_shares_batches() -> None:
    assert set(SHARING) <= set(sharing())
    assert not {"torch-gan-2015", "homogan-15"} & set(sharing()), "their dropout draws from one stream"


@pytest.mark.parametrize("name", SHARING)
def test_two_threads_compute_what_one_computes(name: str) -> None:
    run = tiny(presets.PRESETS[name])
    (one, said), (two, same) = trained(run, 1), trained(run, 2)
    assert one.seen == two.seen >= 40
    said.pop("active_dimensions", None)  # counted by each thread in its own rows
    same.pop("active_dimensions", None)
    assert same == pytest.approx(said, abs=1e-5), "in single precision for stats"
    for key, tensor in one.tensors().items():
        torch.testing.assert_close(two.tensors()[key].double(), tensor.double(), rtol=1e-7, atol=1e-8, msg=key)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_threads_are_exact(precision: str) -> None:
    run = tiny(presets.PRESETS["gan"])
    first, again = trained(run, 2, precision=precision)[0], trained(run, 2, precision=precision)[0]
    assert all(torch.equal(tensor, again.tensors()[key]) for key, tensor in first.tensors().items())


def test_a_restored_state_goes_on_to_the_bit() -> None:
    """The replicas' buffers, here the count of steps between penalties, follow the restored ones."""
    run = tiny(presets.PRESETS["gan"])
    whole, batches = state_of(run, 2, "fp32"), Stream(run)
    for _ in range(3):
        whole.step(batches)
    tensors, counters = {name: t.clone() for name, t in whole.tensors().items()}, whole.counters()
    mark = batches.generator.get_state()
    for _ in range(6):
        whole.step(batches)
    ahead = state_of(run, 2, "fp32")
    ahead.step(Stream(run))  # its replicas exist, and are behind
    ahead.restore(tensors, counters)
    batches.generator.set_state(mark)
    for _ in range(6):
        ahead.step(batches)
    assert all(torch.equal(tensor, ahead.tensors()[key]) for key, tensor in whole.tensors().items())


def test_replicas_move_the_same_weights() -> None:
    state = state_of(tiny(presets.PRESETS["gan"]), 2)
    replicas = Replicas(state.recipe, 2)
    pairs = zip(*(recipe.parameters() for recipe in replicas.recipes), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert [recipe.rank for recipe in replicas.recipes] == [0, 1]


class Failing(torch.nn.Module):
    """A critic's layer that fails in one thread."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        raise ValueError("no such layer")


def test_an_error_in_a_thread_is_raised_and_nobody_waits_for_it() -> None:
    state = state_of(tiny(presets.PRESETS["gan"]), 2)
    state.step(Stream(tiny(presets.PRESETS["gan"])))
    assert state.replicas is not None
    state.replicas.recipes[1].critic = Failing()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no such layer"):
        state.step(Stream(tiny(presets.PRESETS["gan"])))


def test_a_loss_that_is_not_finite_in_one_thread_moves_nothing() -> None:
    run = tiny(presets.PRESETS["vae"])
    state = state_of(run, 2)
    state.step(Stream(run))
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}

    class Broken(Stream):
        def __next__(self) -> Batch:
            batch = super().__next__()
            batch.images[-1] = torch.nan  # a row of the second thread
            return batch

    with pytest.raises(NonFinite):
        state.step(Broken(run))
    kept = [name for name in before if name.startswith(("recipe.model.", "optimizer."))]
    assert kept and all(torch.equal(before[name], state.tensors()[name]) for name in kept if "running" not in name)


def test_means_over_threads() -> None:
    """`mean` and the differentiable sum, in a group, are those over all rows."""

    class Probe(Recipe):
        def step(self, batches: Iterator[Batch]) -> Iterator[Update | tuple[Update, ...]]:
            yield from ()

    probe = Probe(state_of(tiny(presets.PRESETS["vae"]), 1).recipe.model)
    images = torch.arange(8.0).view(8, 1, 1, 1)

    def work(recipe: Recipe, batches: Iterator[Batch]) -> tuple[float, float]:
        x = next(batches).images.clone().requires_grad_(True)
        total = distributed.differentiable_sum(x.square().sum())
        (slope,) = torch.autograd.grad(total, x)
        return float(distributed.mean(x.mean())), float(slope.sum())

    found = Replicas(probe, 2).run(work, iter([Batch(images)]))
    assert found == [(3.5, 2 * 2 * 6.0), (3.5, 2 * 2 * 22.0)]  # each thread's loss is the sum: its slope counts twice


@pytest.mark.parametrize(
    ("batch", "side", "cores", "expected"),
    [(16, 64, 2, 2), (16, 64, 16, 4), (18, 64, 4, 3), (16, 16, 2, 1), (6, 64, 2, 1)],
)
def test_how_many_threads_share_a_batch(batch: int, side: int, cores: int, expected: int) -> None:
    recipe = state_of(tiny(presets.PRESETS["gan"]), 1).recipe
    torch.set_num_threads(cores)
    assert threads_for(recipe, batch, side) == expected


def test_a_run_on_two_threads_resumes_to_the_bit(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "faces.pack", count=64, side=32)
    run = replace(tiny(presets.PRESETS["gan"]), side=32, batch=8, images=96, threads=2, save_every=48, device="cpu")
    whole = mien.train(run, data=pack.path, out=tmp_path / "whole")
    part = replace(run, images=48)
    mien.train(part, data=pack.path, out=tmp_path / "parts")
    resumed = mien.train(run, data=pack.path, out=tmp_path / "parts")
    states = [checkpoint.read_state(checkpoint.newest(Path(path) / "checkpoints")[0])[0] for path in (whole, resumed)]  # type: ignore[arg-type]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
