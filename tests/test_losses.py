"""Losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mien.recipes.losses import bce_fake, bce_real, gradient_penalty, relativistic_loss


def test_cross_entropies() -> None:
    logits = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
    assert float(bce_real(logits)) == pytest.approx(float(F.binary_cross_entropy(logits.sigmoid(), ones)), rel=1e-12)
    assert float(bce_fake(logits)) == pytest.approx(float(F.binary_cross_entropy(logits.sigmoid(), zeros)), rel=1e-12)
    assert float(bce_real(torch.zeros(4))) == pytest.approx(math.log(2))


def test_relativistic_pairs_by_row() -> None:
    a, b = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(5.0))) / 2
    assert float(relativistic_loss(a, b)) == pytest.approx(expected, rel=1e-6)


def test_penalty_of_a_linear_critic() -> None:
    """The slope of w . x is w, everywhere."""
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(48, dtype=torch.float64)
    penalty = gradient_penalty(images.flatten(1) @ weight, images)
    assert float(penalty) == pytest.approx(float(weight.square().sum()), rel=1e-12)


def test_penalty_against_finite_differences() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 7), torch.nn.Softplus(), torch.nn.Linear(7, 1)
    ).double()
    images = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    penalty = float(gradient_penalty(net(images)[:, 0], images).detach())
    total, step = 0.0, 1e-6
    with torch.no_grad():
        for index in range(images.numel()):
            up, down = images.detach().clone(), images.detach().clone()
            up.view(-1)[index] += step
            down.view(-1)[index] -= step
            total += float(((net(up).sum() - net(down).sum()) / (2 * step)) ** 2)
    assert penalty == pytest.approx(total / 2, rel=1e-6)
