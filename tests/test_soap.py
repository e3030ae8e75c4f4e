"""SOAP beside a plain reading of its formulas, beside Adam, and where its state could go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.core.contracts import ImageSpec
from mien.errors import UsageError
from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.recipes.relativistic_gan import RelativisticGANConfig
from mien.recipes.soap import SOAP, by_matrices, cost, even_shares

Array = np.ndarray[Any, np.dtype[np.float64]]


def by_the_formulas(
    weights: Array, gradients: list[Array], lr: float, beta2: float, memory: float, every: int, largest: int = 1024
) -> Array:
    """SOAP's steps of one matrix, written out in NumPy."""
    sides = [length if 1 < length <= largest else 0 for length in weights.shape]
    averages: list[Array | None] = [None, None]
    bases = [np.eye(sides[0] or weights.shape[0]), np.eye(sides[1] or weights.shape[1])]
    square = np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        for side in (0, 1):
            if not sides[side]:
                continue
            product = gradient @ gradient.T if side == 0 else gradient.T @ gradient
            old = averages[side]
            average = averages[side] = product if old is None else memory * old + (1 - memory) * product
            if (step in (1, 2, 4, 8, 16) and step < every) or step % every == 0:
                floor = 1e-3 * np.trace(average) / len(average)
                bases[side] = np.linalg.qr((average + floor * np.eye(len(average))) @ bases[side])[0]
        rotated = bases[0].T @ gradient @ bases[1]
        square = beta2 * square + (1 - beta2) * rotated**2
        corrected = square / (1 - beta2**step)
        least = 1e-3 * np.sqrt(corrected.mean()) if any(sides) else 0.0
        scaled = rotated / (np.sqrt(corrected) + 1e-8 + least)
        weights = weights - lr * bases[0] @ scaled @ bases[1].T
    return weights


def apply(network: nn.Module, weights: nn.Parameter, gradients: list[Tensor], **settings: Any) -> SOAP:
    optimizer = SOAP(by_matrices(network, network.parameters()), **settings)
    for gradient in gradients:
        weights.grad = gradient.clone()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("largest", [1024, 6, 2], ids=["both sides", "one side", "no side"])
def test_a_matrix_moves_by_the_formulas(largest: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(9, 5, bias=False, dtype=torch.float64)
    before, gradients = (
        layer.weight.detach().numpy().copy(),
        [torch.randn(5, 9, dtype=torch.float64) for _ in range(45)],
    )
    apply(layer, layer.weight, gradients, lr=0.01, beta2=0.9, memory=0.95, every=10, largest=largest)
    wanted = by_the_formulas(before, [g.numpy() for g in gradients], 0.01, 0.9, 0.95, 10, largest)
    assert np.allclose(layer.weight.detach().numpy(), wanted, rtol=0, atol=1e-12)


def test_a_grouped_convolution_is_a_matrix_for_each_group() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3, groups=2, bias=False, dtype=torch.float64).to(memory_format=torch.channels_last)
    before = layer.weight.detach().clone()
    gradients = [torch.randn_like(layer.weight) for _ in range(12)]
    apply(layer, layer.weight, gradients, lr=0.01, beta2=0.9, memory=0.9, every=5)
    for half in (slice(0, 4), slice(4, 8)):
        rows = [g[half].reshape(4, -1).numpy() for g in gradients]
        wanted = by_the_formulas(before[half].reshape(4, -1).numpy(), rows, 0.01, 0.9, 0.9, 5)
        assert np.allclose(layer.weight[half].detach().reshape(4, -1).numpy(), wanted, rtol=0, atol=1e-12)


def test_vectors_move_as_with_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.LayerNorm(7), nn.LayerNorm(7)
    gradients = [torch.randn(7) for _ in range(30)]
    apply(ours, ours.weight, gradients, lr=0.01, beta2=0.9)
    adam = torch.optim.Adam([theirs.weight], lr=0.01, betas=(0.0, 0.9))
    for gradient in gradients:
        theirs.weight.grad = gradient
        adam.step()
    assert torch.allclose(ours.weight, theirs.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_correlated_inputs_are_learned_faster_than_with_adam(seed: int) -> None:
    """A linear layer whose inputs vary along directions that no axis is: its error after 200 steps at equal rates."""
    torch.manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(24, 24)).Q * torch.logspace(0, -2, 24)
    inputs = torch.randn(4096, 24) @ mixing.T
    target = inputs @ torch.randn(24, 8)
    start = nn.Linear(24, 8, bias=False).state_dict()

    def error(kind: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
        layer = nn.Linear(24, 8, bias=False)
        layer.load_state_dict(start)
        optimizer = kind(layer)
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
            rows = torch.randint(4096, (16,))
            optimizer.zero_grad()
            (layer(inputs[rows]) - target[rows]).square().mean().backward()
            optimizer.step()
        return (layer(inputs) - target).square().mean().item()

    soap = error(lambda layer: SOAP(layer.parameters(), 0.1, 0.99))
    adam = error(lambda layer: torch.optim.Adam(layer.parameters(), 0.1, betas=(0.0, 0.99)))
    assert soap < 0.7 * adam


def test_a_gradient_of_zeros_moves_nothing_and_leaves_no_nan() -> None:
    layer = nn.Linear(4, 3, bias=False)
    before = layer.weight.detach().clone()
    optimizer = apply(layer, layer.weight, [torch.zeros(3, 4)] * 3, lr=0.1, beta2=0.9)
    assert torch.equal(layer.weight, before)
    assert all(torch.isfinite(t).all() for t in optimizer.state[layer.weight].values() if isinstance(t, Tensor))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    """Tensors are shared between threads; what one thread computes, and the order of the state, do not depend on it."""
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            network = nn.Sequential(
                nn.Conv2d(12, 48, 3, groups=2), nn.Linear(96, 40), nn.Linear(40, 160), nn.LayerNorm(9)
            )
            optimizer = SOAP(by_matrices(network, network.parameters()), 0.01)
            for _ in range(3):
                for weights in network.parameters():
                    weights.grad = torch.randn_like(weights)
                optimizer.step()
            kept = optimizer.state_dict()["state"]
            tensors = [t for state in kept.values() for t in state.values() if isinstance(t, Tensor)]
            found.append((list(kept), [*network.parameters(), *tensors]))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    (order, first), *others = found
    for their_order, their in others:
        assert their_order == order
        assert len(their) == len(first) and all(map(torch.equal, their, first))


def test_threads_have_shares_that_take_as_long_as_each_other() -> None:
    """A side of 3,840 is not rotated and costs little, a side of 144 in 30 matrices costs memory besides its products."""
    critic = ResidualCriticConfig(width=32, max_width=240, group=16, full_res_width=16).build(ImageSpec(side=64))
    groups = by_matrices(critic, critic.parameters())
    shapes = [(weights.shape, group["matrices"]) for group in groups for weights in group["params"]]
    costs = [cost(shape, matrices, 1024) for shape, matrices in shapes]
    widen = costs[shapes.index((torch.Size((480, 240, 1, 1)), 1))]
    assert widen == max(costs) and cost(torch.Size((3840, 64)), 1, 1024) < widen / 2
    grouped = costs[shapes.index((torch.Size((480, 16, 3, 3)), 30))]
    assert grouped > cost(torch.Size((256, 128, 1, 1)), 1, 1024)
    shares = even_shares(costs, 2)
    assert sorted(index for share in shares for index in share) == list(range(len(costs)))
    sums = [sum(costs[index] for index in share) for share in shares]
    assert max(sums) < 1.02 * min(sums)
    assert even_shares([5], 2) == [[0], []]


def test_a_matrix_keeps_its_norm_on_request_unless_it_starts_at_zero() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Linear(6, 5))
    nn.init.zeros_(network[1].weight)
    before = [weights.norm().item() for weights in network.parameters()]

    def steps(optimizer: SOAP, count: int) -> None:
        for _ in range(count):
            for weights in network.parameters():
                weights.grad = torch.randn_like(weights)
            optimizer.step()

    first = SOAP(by_matrices(network, network.parameters()), 0.05, hold=True)
    steps(first, 5)
    with torch.no_grad():
        network[0].weight.mul_(2.0)  # what a loaded state must not take for the norm to keep
    later = SOAP(by_matrices(network, network.parameters()), 0.05, hold=True)
    later.load_state_dict(first.state_dict())
    steps(later, 5)
    conv, bias, linear, other = (weights.norm().item() for weights in network.parameters())
    assert conv == pytest.approx(before[0], rel=1e-5)
    assert min(linear, other) > 0.1 and abs(bias - before[1]) > 0.1
    free = SOAP(by_matrices(network, network.parameters()), 0.05)
    steps(free, 5)
    assert abs(network[0].weight.norm().item() / before[0] - 1.0) > 0.01


def test_a_fault_in_a_thread_is_raised() -> None:
    threads = torch.get_num_threads()
    layer = nn.Linear(4, 3)
    optimizer = SOAP(layer.parameters(), 0.01)
    optimizer.state[layer.weight]["square"] = torch.zeros(5)
    layer.weight.grad, layer.bias.grad = torch.ones(3, 4), torch.ones(3)
    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError):
            optimizer.step()
    finally:
        torch.set_num_threads(threads)


def test_a_held_stage_of_the_critic_does_not_move() -> None:
    critic = ResidualCriticConfig(width=8, max_width=16, group=8)
    model = ResidualGeneratorConfig(width=8, max_width=16, group=8).build(ImageSpec(side=32))
    recipe = RelativisticGANConfig(critic=critic, optimizer="soap", freeze=1).build(model, ImageSpec(side=32))
    moving = {id(weight) for group in recipe.optimizers["critic"].param_groups for weight in group["params"]}
    held = {id(weight) for weight in recipe.critic.first.parameters()}
    assert (
        held
        and moving == {id(weight) for weight in recipe.critic.parameters() if weight.requires_grad}
        and not held & moving
    )


def test_a_first_moment_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--recipe\.beta1 0\.5 is not possible with --recipe\.optimizer soap"):
        RelativisticGANConfig(critic=ResidualCriticConfig(), optimizer="soap", beta1=0.5)
