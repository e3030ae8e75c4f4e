"""The moving average of a model: its half-life in images, at any batch size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mien.core.contracts import Model
from mien.core.run import EMAConfig
from mien.nn.priors import Normal
from mien.training.ema import EMA


class Point(Model):
    """One weight, one floating buffer, one counter."""

    latent_shape = (1,)
    prior = Normal()

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), value))
        self.register_buffer("mean", torch.full((1,), value))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z * self.weight


def moved(average: EMA, model: Point, images: int, batch: int, start: int = 0) -> float:
    """The averaged weight after `images` images at a constant model."""
    for seen in range(start + batch, start + images + 1, batch):
        average.update(model, batch, seen)
    return float(average.model.weight)


@pytest.mark.parametrize("batch", [1, 8, 125, 1000])
def test_after_a_half_life_half_is_left(batch: int) -> None:
    average = EMA(Point(1.0), EMAConfig(half_life=1000, warmup=0.0))
    assert moved(average, Point(0.0), 1000, batch) == pytest.approx(0.5, abs=1e-5)
    assert moved(average, Point(0.0), 2000, batch, 1000) == pytest.approx(0.125, abs=1e-5)


def test_early_noise_is_forgotten() -> None:
    """With warm-up the half-life is a share of the images seen, so that the first weights are gone long before 10,000 images."""
    slow, warm = (EMA(Point(1.0), EMAConfig(half_life=10_000, warmup=share)) for share in (0.0, 0.1))
    left = [moved(average, Point(0.0), 1000, 10) for average in (slow, warm)]
    assert left[0] == pytest.approx(0.5**0.1, abs=1e-4) and left[1] < 1e-3
    assert warm.decay(10, 5_000) == pytest.approx(0.5 ** (10 / 500))
    assert warm.decay(10, 10**6) == pytest.approx(0.5 ** (10 / 10_000))  # later the half-life itself holds
    assert warm.decay(10, 10) == pytest.approx(0.5**10)


def test_floating_buffers_are_averaged_and_counters_copied() -> None:
    average, model = EMA(Point(1.0), EMAConfig(half_life=10, warmup=0.0)), Point(0.0)
    model.count.fill_(7)
    average.update(model, 10, 10)
    assert float(average.model.mean) == pytest.approx(0.5) and int(average.model.count) == 7
    assert float(model.weight.detach()) == 0.0 and float(model.mean) == 0.0  # the model itself is not touched


def test_the_average_is_a_twin_that_never_learns() -> None:
    model = Point(1.0).train()
    average = EMA(model, EMAConfig())
    assert average.model is not model and not average.model.training and model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = float(average.model.weight)
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert float(average.model.weight) == before
