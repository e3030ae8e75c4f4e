"""Who moves, and how hard a critic is held: the truth tables of the published rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mien.recipes.balance import AdaptiveL2, absolute_norm, margin, squared_norm


@pytest.mark.parametrize(
    ("real", "fake", "critic", "generator"),
    [
        (0.2, 0.5, False, True),  # reals are too easy: the critic rests
        (0.5, 0.2, False, True),
        (0.5, 0.8, True, False),  # fakes are too hard: the generator rests
        (0.8, 0.5, True, False),
        (0.2, 0.8, True, True),  # both would rest: both move
        (0.5, 0.5, True, True),
        (0.3, 0.7, True, True),  # the bounds themselves are inside
    ],
)
def test_margin_rule(real: float, fake: float, critic: bool, generator: bool) -> None:
    real_loss, fake_loss = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    assert margin(real_loss, fake_loss, 0.3, 0.7) == (critic, generator)


def test_margin_rule_of_larsen() -> None:
    """Equilibrium 0.68, margin 0.35: bounds 0.33 and 1.03."""
    assert margin(torch.tensor(0.32), torch.tensor(0.6), 0.68 - 0.35, 0.68 + 0.35) == (False, True)
    assert margin(torch.tensor(0.6), torch.tensor(1.04), 0.68 - 0.35, 0.68 + 0.35) == (True, False)


def test_adaptive_l2() -> None:
    rule = AdaptiveL2(0.9, 1.3, 1e-5)
    rule.update(torch.tensor(0.8))
    assert float(rule.coefficient) == 0.0  # the floor
    rule.update(torch.tensor(1.4))
    rule.update(torch.tensor(1.4))
    assert float(rule.coefficient) == pytest.approx(2e-5)
    rule.update(torch.tensor(1.0))
    assert float(rule.coefficient) == pytest.approx(2e-5)
    rule.update(torch.tensor(0.8))
    assert float(rule.coefficient) == pytest.approx(1e-5)
    assert "coefficient" in rule.state_dict()  # so it is checkpointed


def test_l2_gradient_is_the_coefficient_times_the_weight() -> None:
    critic, rule = nn.Linear(3, 2), AdaptiveL2(0.9, 1.3, 1e-5)
    rule.coefficient.fill_(0.25)
    rule.penalty(critic).backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, 0.25 * parameter)


def test_norms() -> None:
    critic = nn.Linear(1, 1)
    nn.init.constant_(critic.weight, 3.0)
    nn.init.constant_(critic.bias, -4.0)
    assert squared_norm(critic).item() == 25.0 and absolute_norm(critic).item() == 7.0
