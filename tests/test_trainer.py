"""The loop's promises: routed gradients, the order of moves, finite weights, rollbacks, periods."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from mien.core.contracts import Batch, Model, Progress, Recipe, Update
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import EMAConfig
from mien.errors import Interrupted, Preempted, UsageError
from mien.nn.priors import Normal
from mien.training.ema import EMA
from mien.training.period import Period
from mien.training.signals import StopFlag, handled, stop_now
from mien.training.train_state import NonFinite, TrainState, apply_updates, scaled_rates

ENGINE = DeviceContext(torch.device("cpu"), "fp32")


def descend(module: nn.Module, lr: float = 1.0) -> optim.Optimizer:
    return optim.SGD(module.parameters(), lr=lr)


def test_gradients_reach_only_their_own_optimizer() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 1)
    before = copy.deepcopy(a.state_dict())
    apply_updates((Update(descend(b), b(a(torch.ones(1, 2))).sum()),))
    assert all(torch.equal(a.state_dict()[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in (*a.parameters(), *b.parameters()))


def test_a_tuple_is_simultaneous() -> None:
    """x y with x down and y up: simultaneous moves use the old other, alternating ones the new."""
    x, y = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))
    first, second = optim.SGD([x], lr=0.1), optim.SGD([y], lr=0.1)
    apply_updates((Update(first, x * y), Update(second, -x * y)))
    assert (x.item(), y.item()) == (pytest.approx(2 - 0.3), pytest.approx(3 + 0.2))
    with torch.no_grad():
        x.fill_(2.0), y.fill_(3.0)
    apply_updates((Update(first, x * y),))
    apply_updates((Update(second, -x * y),))
    assert (x.item(), y.item()) == (pytest.approx(2 - 0.3), pytest.approx(3 + 0.17))


def test_a_stale_graph_raises() -> None:
    """A loss computed before its parameters moved does not train on old weights unnoticed."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    optimizer = descend(net)
    first, stale = net(torch.ones(1, 2)).sum(), net(torch.ones(1, 2)).square().sum()
    apply_updates((Update(optimizer, first),))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        apply_updates((Update(optimizer, stale),))


def test_a_parameter_without_gradient_is_an_error_unless_named() -> None:
    used, unused = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer = optim.SGD([*used.parameters(), *unused.parameters()], lr=1.0)
    with pytest.raises(UsageError, match="got no gradient"):
        apply_updates((Update(optimizer, used(torch.ones(1, 1)).sum()),))
    weight = unused.weight.clone()
    apply_updates((Update(optimizer, used(torch.ones(1, 1)).sum(), unused=tuple(unused.parameters())),))
    assert torch.equal(unused.weight, weight)


@pytest.mark.parametrize("penalised", [False, True])
def test_fused_adam_moves_the_weights_that_the_gradient_names(penalised: bool) -> None:
    """In channels-last the gradient of a convolution has other strides than its weight; fused Adam does not look."""
    moved = []
    for fused in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 1)).to(memory_format=torch.channels_last)
        images = torch.randn(2, 3, 8, 8).requires_grad_(True)
        loss = net(images).sum()
        if penalised:
            (slope,) = torch.autograd.grad(loss, images, create_graph=True)
            loss = loss + slope.square().sum()
        apply_updates((Update(optim.Adam(net.parameters(), lr=0.1, fused=fused), loss),))
        moved.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    assert torch.allclose(moved[0], moved[1], atol=1e-6)


def test_clip_bounds_the_global_norm() -> None:
    x = nn.Parameter(torch.zeros(2))
    apply_updates((Update(optim.SGD([x], lr=1.0), (x * torch.tensor([3.0, 4.0])).sum(), clip=1.0),))
    assert x.norm().item() == pytest.approx(1.0, abs=1e-5)
    apply_updates((Update(optim.SGD([x], lr=1.0), (x * torch.tensor([0.03, 0.04])).sum(), clip=1.0),))
    assert x.norm().item() == pytest.approx(1.05, abs=1e-5)


@pytest.mark.parametrize("where", ["loss", "gradient", "loss alone"])
def test_nothing_moves_when_something_is_not_finite(where: str) -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
    fine = Update(optim.SGD([a], lr=1.0), a.sum())
    bad_loss = {
        "loss": (b * float("nan")).sum(),
        "gradient": b.sqrt().sum(),  # its slope at 0 is infinite
        "loss alone": b.sum() + float("inf"),
    }[where]
    with pytest.raises(NonFinite):
        apply_updates((fine, Update(optim.SGD([b], lr=1.0), bad_loss)))
    assert a.item() == 1.0 and b.item() == 0.0


def test_scaled_rates_are_restored() -> None:
    optimizer = descend(nn.Linear(1, 1), lr=0.5)
    with scaled_rates(optimizer, 0.25):
        assert optimizer.param_groups[0]["lr"] == 0.125
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_periods_in_images_and_in_time() -> None:
    counted = Period(100, least=5.0)
    assert [counted.due(before, before + 32, 0.0) for before in range(0, 320, 32)] == [
        False, False, False, True, False, False, True, False, False, True,
    ]  # fmt: skip
    timed = Period(0, least=2.0)
    assert not timed.due(0, 1, 1.9) and timed.due(0, 1, 2.0)
    timed.record(2.0, cost=0.1)
    assert not timed.due(0, 1, 6.9) and timed.due(0, 1, 7.1)  # 0.1 s may come every 5 s: 2%
    warming = Period(0, least=2.0, warmup=1)
    warming.record(2.0, cost=9.0)
    assert warming.due(0, 1, 4.0)  # what the first time costs says nothing
    slow, times = Period(0, least=2.0, growth=0.02), []  # samples that take 5 s: a busy machine
    for second in range(1, 1200):
        if slow.due(0, 1, second):
            times.append(second)
            slow.record(second, cost=5.0)
    assert times == [2, 50, 100, 200, 400, 650, 900, 1150], "none for four minutes, before"


class Line(Model):
    """One weight times the latent, painted over an image."""

    latent_shape = (1,)
    prior = Normal()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return (z * self.weight)[:, :, None, None].expand(-1, 3, 4, 4)


class Script(Recipe):
    """Moves the weight by 1 a step; goes wrong where the script says, once for each retry listed."""

    def __init__(self, wrong: dict[int, int]) -> None:
        super().__init__(Line())
        self.optimizers["line"] = optim.Adam(self.model.parameters(), lr=0.01)
        self.wrong = wrong
        self.now = 0

    def schedule(self, seen: int) -> None:
        self.now = seen

    def step(self, batches: Iterator[Batch]) -> Iterator[Update]:
        batch = next(batches)
        loss = (self.model.decode(self.latents(len(batch.images))) - batch.images).square().mean()
        if self.wrong.get(self.now, 0) > 0:
            self.wrong[self.now] -= 1
            loss = loss * float("inf")
        yield Update(self.optimizers["line"], loss, stats={"loss": loss.detach()})


class Source:
    """Batches of zeros, from any position."""

    waited = 0.0

    def __init__(self, position: int) -> None:
        self.position = position

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Batch:
        return Batch(torch.zeros(4, 3, 4, 4))

    def close(self) -> None: ...


def start(tmp_path: Path, wrong: dict[int, int], images: int = 80, **changes: Any) -> tuple[Any, ...]:
    import dataclasses

    from mien import presets
    from mien.storage.run_directory import RunDirectory
    from mien.training.loop import train

    run = dataclasses.replace(presets.PRESETS["quick"], minutes=None, images=images, save_every=16, **changes)
    home = RunDirectory(tmp_path)
    torch.manual_seed(0)
    learner = TrainState(Script(wrong), None, ENGINE, World(), seed=0)
    header = {"run_fingerprint": "x", "data": {"fingerprint": "y"}, "config": {}}
    return train, (run, home, learner, Source, [], header), learner, home


def test_rollback_goes_back_slows_down_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, arguments, learner, _ = start(tmp_path, {24: 2})
    train(*arguments)
    assert learner.seen == 80 and learner.retry == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "NaN or infinite" in line]
    assert (
        "back to 16 images, learning rates times 0.5, retry 1" in lines[0] and "rates times 0.25, retry 2" in lines[1]
    )


@pytest.mark.parametrize("keep", [1, 4])
def test_as_many_checkpoints_stay_as_asked(keep: int, tmp_path: Path) -> None:
    train, arguments, _, home = start(tmp_path, {}, keep=keep)
    train(*arguments)
    stay = sorted(int(path.name) for path in home.checkpoints.iterdir() if path.name.isdigit())
    newest, milestones = [16, 32, 48, 64, 80][-keep:], [16, 64]
    assert stay == sorted({*newest, *milestones})


def test_rollback_before_the_first_checkpoint(tmp_path: Path) -> None:
    train, arguments, learner, _ = start(tmp_path, {8: 1})
    train(*arguments)
    assert learner.seen == 80 and learner.retry == 1


def test_three_rollbacks_and_no_more(tmp_path: Path) -> None:
    from mien.errors import Diverged
    from mien.storage import checkpoint

    train, arguments, learner, home = start(tmp_path, {24: 9})
    with pytest.raises(Diverged) as caught:
        train(*arguments)
    assert learner.recipe.wrong[24] == 9 - 4  # the fourth time it went wrong was the last
    assert caught.value.exit_code == 5
    newest, reports = checkpoint.newest(home.checkpoints)
    assert newest is not None and int(newest.name) == 16 and not reports
    tensors, _ = checkpoint.read_state(newest)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize("failures, ends_at", [({1, 2}, 200), ({1, 3, 4, 6}, 200), ({1, 2, 3}, 48), ({2, 4, 5, 6}, 96)])
def test_three_saves_that_fail_in_a_row_end_a_run(
    failures: set[int], ends_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mien.errors import StorageError
    from mien.storage import checkpoint

    train, arguments, learner, _ = start(tmp_path, {}, images=200)
    commit, calls = checkpoint.commit, []

    def failing(*given: Any) -> Path:
        calls.append(learner.seen)
        if len(calls) in failures:
            raise OSError("no space")
        return commit(*given)

    monkeypatch.setattr(checkpoint, "commit", failing)
    if ends_at < 200:
        with pytest.raises(StorageError, match="could not be saved"):
            train(*arguments)
    else:
        train(*arguments)
    assert learner.seen == ends_at


def test_a_retry_draws_other_numbers() -> None:
    """From the generator that ranks share, and from torch's own, which dropout and noise behind layers draw from."""
    shared, own = [], []
    for retry in (0, 1, 0):
        learner = TrainState(Script({}), None, ENGINE, World(), seed=0, retry=retry)
        learner.step(Source(0))
        shared.append(learner.recipe.latents(3))
        own.append(torch.rand(3))
    for first, second, again in (shared, own):
        assert not torch.equal(first, second) and torch.equal(first, again)


def test_ranks_share_one_stream_and_have_one_of_their_own() -> None:
    shared, own = [], []
    for rank in (0, 1):
        learner = TrainState(Script({}), None, ENGINE, World(rank=rank, size=2), seed=0)
        learner.pulled = 0
        torch.manual_seed(99)
        next(iter([learner.step(Source(0))]))
        shared.append(torch.rand(3, generator=learner.recipe.shared_noise))
        own.append(torch.rand(3))
    assert torch.equal(*shared) and not torch.equal(*own)


def test_after_a_rollback_rates_are_halved_until_the_next_checkpoint(tmp_path: Path) -> None:
    train, arguments, learner, _ = start(tmp_path, {24: 2})
    rates: list[tuple[int, float]] = []
    step = learner.step

    def watched(batches: Iterator[Batch], rate: float = 1.0, player: str = "all") -> dict[str, Tensor]:
        rates.append((learner.seen, rate))
        return step(batches, rate, player)

    learner.step = watched
    train(*arguments)
    again = [(16, 0.25), (20, 0.25), (24, 0.25), (28, 0.25)]
    assert rates[:7] == [(seen, 1.0) for seen in range(0, 28, 4)]
    assert rates[7:10] == [(16, 0.5), (20, 0.5), (24, 0.5)]
    assert rates[10:14] == again and {rate for _, rate in rates[14:]} == {1.0}


class Looking:
    """A judge that finds nothing, and keeps when it was asked."""

    def __init__(self) -> None:
        self.last_seen = 0
        self.asked: list[int] = []

    def scores(self, seen: int, model: Model, stopping: Any) -> dict[str, float]:
        self.asked.append(seen)
        return {}

    def stop_reason(self) -> str:
        return ""


def test_a_rollback_takes_evaluations_and_metrics_back(tmp_path: Path) -> None:
    train, arguments, _, home = start(tmp_path, {28: 1}, images=40, evaluate_every=8)
    home.metrics.parent.mkdir(parents=True, exist_ok=True)
    home.metrics.write_text("".join(f'{{"seen": {seen}}}\n' for seen in (8, 16, 24)))
    judge = Looking()
    train(*arguments, evaluator=judge)
    assert judge.asked == [8, 16, 24, 24, 32, 40]
    assert [json.loads(line)["seen"] for line in home.metrics.read_text().splitlines()] == [8, 16]


class Counting:
    """An observer that keeps how many rollbacks it was told of."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def after_step(self, progress: Progress, model: Model) -> None:
        self.told.append((progress.seen, progress.rollbacks))

    def after_commit(self, progress: Progress, checkpoint: Path) -> None: ...

    def close(self, outcome: str) -> None: ...


def test_rollbacks_are_counted_to_the_end(tmp_path: Path) -> None:
    """Those of the whole run, also after a checkpoint has forgiven them."""
    train, arguments, _, _ = start(tmp_path, {24: 2, 48: 1}, log_every=4)
    counting = Counting()
    arguments[4].append(counting)
    train(*arguments)
    told = dict(counting.told)
    assert [told[seen] for seen in (16, 24, 32, 40, 52, 80)] == [0, 2, 2, 2, 3, 3]


def test_snapshot_refuses_what_is_not_finite() -> None:
    learner = TrainState(Script({}), None, ENGINE, World(), seed=0)
    learner.recipe.model.weight.data.fill_(float("nan"))
    with pytest.raises(NonFinite):
        learner.snapshot({})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_every_part_of_a_snapshot_must_be_finite(bad: float) -> None:
    """Weights, what the optimizer remembers, and the average, each by itself."""
    recipe = Script({})
    learner = TrainState(recipe, EMA(recipe.model, EMAConfig()), ENGINE, World(), seed=0)
    learner.step(Source(0))
    learner.snapshot({})
    parts = {name for name, tensor in learner.tensors().items() if tensor.is_floating_point()}
    assert {name.split(".")[0] for name in parts} == {"recipe", "ema", "optimizer"}
    for name in parts:
        tensor = learner.tensors()[name]
        kept = tensor.clone()
        tensor.data.fill_(bad)
        with pytest.raises(NonFinite):
            learner.snapshot({})
        tensor.data.copy_(kept)
    learner.snapshot({})


def test_signals_are_a_flag() -> None:
    import os

    signals = StopFlag()
    with handled(signals.receive):
        assert signals.code == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.code == 75
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_before_the_first_step_has_its_exit_code_too(number: int, code: int) -> None:
    with pytest.raises((Preempted, Interrupted)) as error, handled(stop_now):
        signal.raise_signal(number)
    assert error.value.exit_code == code
