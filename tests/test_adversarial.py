"""GAN and TorchGAN: order and number of updates, warm-up, balance, penalties. Each field has a test that fails without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Recipe, Update
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import override
from mien.errors import UsageError
from mien.recipes.gan import GAN
from mien.recipes.losses import bce_fake, bce_real
from mien.recipes.relativistic_gan import spread
from mien.recipes.torch_gan import TorchGAN
from mien.training.train_state import TrainState, apply_updates
from tests.conftest import tiny


def build(name: str, **changes: Any) -> Recipe:
    torch.manual_seed(0)
    run = override(tiny(presets.PRESETS[name]), {f"recipe.{key}": value for key, value in changes.items()})
    model = run.model.build(ImageSpec(side=16))
    return run.recipe.build(model, ImageSpec(side=16)).train()


def torch_gan(**changes: Any) -> TorchGAN:
    recipe = build("torch-gan-2015", **changes)
    assert isinstance(recipe, TorchGAN)
    return recipe


def gan(**changes: Any) -> GAN:
    recipe = build("dcgan-2015", **changes)
    assert isinstance(recipe, GAN)
    return recipe


def batches(size: int = 8) -> Iterator[Batch]:
    torch.manual_seed(1)
    while True:
        yield Batch(torch.rand(size, 3, 16, 16) * 2 - 1)


def movers(recipe: Recipe, source: Iterator[Batch] | None = None) -> list[str]:
    """Who moves in one step, in order; every update is applied."""
    names = {id(optimizer): name for name, optimizer in recipe.optimizers.items()}
    order = []
    for update in recipe.step(source or batches()):
        assert isinstance(update, Update)
        order.append(names[id(update.optimizer)])
        apply_updates((update,))
    return order


def test_the_critic_moves_first() -> None:
    assert movers(torch_gan(balance="none")) == ["critic", "generator"]
    assert movers(gan()) == ["critic", "generator"]


def test_critic_steps_pull_fresh_batches() -> None:
    pulled = 0

    def source() -> Iterator[Batch]:
        nonlocal pulled
        for batch in batches():
            pulled += 1
            yield batch

    assert movers(torch_gan(balance="none", critic_steps=3), source()) == ["critic"] * 3 + ["generator"]
    assert pulled == 3


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.0, 100.0), ["critic", "generator"]),
        ((50.0, 100.0), ["generator"]),
        ((0.0, 0.01), ["critic"]),
        ((50.0, 0.01), ["critic", "generator"]),
    ],
)
def test_margin_lets_players_rest(bounds: tuple[float, float], expected: list[str]) -> None:
    assert movers(torch_gan(balance="margin", margin=bounds)) == expected


def test_without_balance_the_margin_does_nothing() -> None:
    assert movers(torch_gan(balance="none", margin=(50.0, 100.0))) == ["critic", "generator"]


def test_warm_up_counts_calls_also_of_players_who_rest() -> None:
    recipe = torch_gan(balance="margin", margin=(50.0, 100.0))  # the critic always rests
    rates = []
    source = batches()
    for _ in range(32):
        movers(recipe, source)
        rates.append(
            (recipe.optimizers["critic"].param_groups[0]["lr"], recipe.optimizers["generator"].param_groups[0]["lr"])
        )
    expected = [1e-3 / 50] * 10 + [1e-3 / 5] * 20 + [1e-3] * 2
    assert [critic for critic, _ in rates] == pytest.approx(expected)
    assert [generator for _, generator in rates] == pytest.approx(expected)
    assert recipe.calls.tolist() == [32, 32] and "calls" in recipe.state_dict()


def test_rate_falls_by_a_percent_an_epoch() -> None:
    recipe = torch_gan()
    recipe.calls.fill_(100)
    for seen, rate in (
        (0, 1e-3),
        (13_055, 1e-3),
        (13_056, 0.99**2 * 1e-3),  # epoch 2
        (13_056 * 10, 0.99**11 * 1e-3),
        (13_056 * 5000, 1e-6),
    ):
        recipe.schedule(seen)
        recipe.warm_up("critic")
        assert recipe.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(rate)


def test_adaptive_l2_holds_the_critic() -> None:
    recipe = torch_gan(balance="adaptive-l2", l2_target=(0.0, 0.01))  # the generator always loses
    movers(recipe)
    assert float(recipe.adaptive_l2.coefficient) == pytest.approx(1e-5)
    recipe.adaptive_l2.coefficient.fill_(0.5)
    plain, held = torch_gan(balance="none"), recipe
    held.critic.load_state_dict(plain.critic.state_dict())
    images = next(batches()).images
    torch.manual_seed(5)
    bare = plain.critic_loss(images, images).update
    torch.manual_seed(5)
    decayed = held.critic_loss(images, images).update
    weights = sum(parameter.square().sum() for parameter in plain.critic.parameters())
    assert float((decayed.loss - bare.loss).detach()) == pytest.approx(
        0.25 * float(torch.as_tensor(weights).detach()), rel=1e-4
    )


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_constant_penalties(norm: str) -> None:
    images = next(batches()).images
    losses = []
    for value in (0.0, 0.1):
        recipe = torch_gan(balance="none", **{norm: value})
        torch.manual_seed(5)
        losses.append(float(recipe.critic_loss(images, images).update.loss.detach()))
    assert losses[1] > losses[0]


def test_the_critics_loss_is_the_mean_over_a_joint_batch() -> None:
    recipe = torch_gan(balance="none")
    recipe.critic.eval()
    calls: list[int] = []
    recipe.critic.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    images = next(batches()).images
    loss = recipe.critic_loss(images, -images)
    assert calls == [16]
    apart = bce_real(recipe.critic(images)) + bce_fake(recipe.critic(-images))
    assert float(loss.update.loss.detach()) == pytest.approx(0.5 * float(apart.detach()), rel=1e-5)


@pytest.mark.parametrize("reused", [True, False])
def test_a_gan_reuses_the_critics_fakes_or_draws_its_own(reused: bool) -> None:
    recipe = gan(resample_fakes=not reused, critic_steps=2)
    judged: list[torch.Tensor] = []
    recipe.critic.register_forward_hook(lambda _module, inputs, _output: judged.append(inputs[0]))
    assert movers(recipe) == ["critic", "critic", "generator"]
    assert len(judged) == 5  # reals and fakes twice, then the generator's fakes
    assert torch.equal(judged[-1], judged[-2]) == reused


def test_fresh_latents_double_the_generators_batch() -> None:
    recipe = torch_gan(balance="none")
    seen: list[int] = []
    recipe.model.register_forward_hook(lambda *_: None)
    decode = recipe.model.decode

    def counted(z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(len(z))
        return decode(z, labels)

    recipe.model.decode = counted  # type: ignore[method-assign]
    movers(recipe)
    assert seen == [8, 16]
    again = gan()
    seen.clear()
    decode = again.model.decode
    again.model.decode = counted  # type: ignore[method-assign]
    movers(again)
    assert seen == [8]


def test_the_critic_learns_to_tell() -> None:
    """On separable data the critic's losses fall, so the signs are right."""
    recipe = torch_gan(balance="none", warmup_calls=(), warmup_divisors=())
    reals, fakes = torch.ones(32, 3, 16, 16), -torch.ones(32, 3, 16, 16)
    first = recipe.critic_loss(reals, fakes)
    for _ in range(30):
        apply_updates((recipe.critic_loss(reals, fakes).update,))
    last = recipe.critic_loss(reals, fakes)
    assert float(last.update.loss.detach()) < 0.5 * float(first.update.loss.detach())


@pytest.mark.parametrize(
    ("count", "fraction", "rows"),
    [(8, 1.0, range(8)), (8, 0.25, [0, 4]), (9, 1 / 3, [0, 3, 6]), (8, 0.75, [0, 2, 3, 4, 6, 7]), (4, 0.01, [0])],
)
def test_penalties_use_evenly_spaced_rows(count: int, fraction: float, rows: Iterable[int]) -> None:
    assert spread(count, fraction) == list(rows)


@pytest.mark.parametrize("parts", range(1, 100))
def test_a_fraction_of_one_in_so_many_rows_is_a_stride(parts: int) -> None:
    assert spread(600, 1 / parts) == list(range(0, 600, parts))


@pytest.mark.parametrize("fraction", [0.0, -0.25, 1.5, 4])
def test_fractions_of_a_batch_lie_between_none_and_all(fraction: float) -> None:
    with pytest.raises(UsageError, match="reg-fraction"):
        override(presets.PRESETS["quick"], {"recipe.reg_fraction": fraction})


def test_relativistic_penalty_is_lazy() -> None:
    run = tiny(presets.PRESETS["quick"])
    torch.manual_seed(0)
    model = run.model.build(ImageSpec(side=16))
    recipe = run.recipe.build(model, ImageSpec(side=16))
    learner = TrainState(recipe, None, DeviceContext(torch.device("cpu"), "fp32"), World(), 0)
    source = batches()
    present = ["penalty" in learner.step(source) for _ in range(9)]
    every = run.recipe.reg_interval  # type: ignore[attr-defined]
    assert present == [index % every == 0 for index in range(9)]
