"""R3GAN against its published facts (arXiv:2501.05441)."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mien.core.contracts import ImageSpec
from mien.core.run import EMAConfig
from mien.errors import UsageError
from mien.models.r3gan import R3GANCriticConfig, R3GANGeneratorConfig
from mien.nn.resample import halve, twice
from mien.presets import PRESETS
from mien.recipes.losses import gradient_penalty, relativistic_loss
from mien.training.ema import EMA


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("side", "labels", "generator", "critic"),
    [
        (32, 0, 20.73, 20.68),
        (32, 10, 20.78, 21.28),  # CIFAR-10, with classes
        (64, 0, 22.43, 22.38),
        (256, 0, 23.06, 23.01),
    ],
)
def test_parameters_in_millions(side: int, labels: int, generator: float, critic: float) -> None:
    faces = ImageSpec(side=side, label_dim=labels)
    with torch.device("meta"):
        counts = [count(config.build(faces)) / 1e6 for config in (R3GANGeneratorConfig(), R3GANCriticConfig())]
    assert [round(millions, 2) for millions in counts] == [generator, critic]


@pytest.mark.parametrize(("side", "gain"), [(32, 0.825), (64, 0.780), (256, 0.717)])
def test_initial_weights(side: int, gain: float) -> None:
    torch.manual_seed(0)
    stages = R3GANGeneratorConfig(width=256).build(ImageSpec(side=side)).stages
    first, _, second, _, third = stages[0].blocks[0]
    assert float(first.weight.detach().std()) * sqrt(256) == pytest.approx(gain, rel=0.02)
    assert float(second.weight.detach().std()) * sqrt(16 * 9) == pytest.approx(gain, rel=0.02)
    assert not third.weight.any() and first.bias is None


def test_blocks_start_as_the_identity_and_images_are_linear() -> None:
    torch.manual_seed(0)
    model = R3GANGeneratorConfig(width=16, latent=8).build(ImageSpec(side=16))
    z = torch.randn(2, 8)
    with torch.no_grad():
        start = model.start * model.modulation(z)[:, :, None, None]
        assert torch.allclose(model.decode(z), model.last(twice(twice(start))), atol=1e-5)
        assert torch.allclose(model.decode(3 * z), 3 * model.decode(z), atol=1e-4)


def test_resampling_is_the_filter() -> None:
    """Against zeros in between and a plain convolution with [1, 3, 3, 1]; and one is the other's adjoint, up to its gain."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    kernel = (taps[:, None] * taps).expand(3, 1, 4, 4)
    spread = torch.zeros(2, 3, 10, 14, dtype=torch.float64)
    spread[..., ::2, ::2] = x
    assert torch.allclose(twice(x), 4 * F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=3))
    y = torch.randn(2, 3, 10, 14, dtype=torch.float64)
    assert (twice(x) * y).sum().item() == pytest.approx(4 * (x * halve(y)).sum().item())


def test_penalties_against_finite_differences() -> None:
    """R1 (and R2, the same function of fakes) of the critic itself, in double precision."""
    torch.manual_seed(0)
    critic = R3GANCriticConfig(width=4, group=2).build(ImageSpec(side=16)).double()
    for parameter in critic.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    penalty = float(gradient_penalty(critic(images), images).detach())
    step, total = 1e-5, 0.0
    flat = images.detach().flatten(1)
    with torch.no_grad():
        for i in range(flat.shape[1]):
            ends = []
            for sign in (1, -1):
                moved = flat.clone()
                moved[:, i] += sign * step
                ends.append(critic(moved.view_as(images)))
            total += float(((ends[0] - ends[1]) / (2 * step)).square().sum()) / 2
    assert penalty == pytest.approx(total, rel=1e-6)


def test_the_loss_pairs_rows() -> None:
    """Softplus of the difference, sample i against sample i (equation 1 of the paper, with f = -softplus(-t))."""
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])
    wanted = (F.softplus(torch.tensor(-0.5)) + F.softplus(torch.tensor(2.0))) / 2
    assert relativistic_loss(real, fake) == pytest.approx(float(wanted))


def test_the_label_reaches_both_players() -> None:
    torch.manual_seed(0)
    faces = ImageSpec(side=16, label_dim=2)
    model, critic = R3GANGeneratorConfig(width=16, latent=8).build(faces), R3GANCriticConfig(width=16).build(faces)
    z, images = torch.randn(1, 8), torch.randn(1, 3, 16, 16)
    yes, no, unknown = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[float("nan"), 0.0]])
    with torch.no_grad():
        assert not torch.equal(model.decode(z, yes), model.decode(z, no))
        assert torch.equal(model.decode(z, unknown), model.decode(z, no))
        assert critic(images, yes) != critic(images, no) and torch.isfinite(critic(images, unknown))


def test_schedules_of_the_preset() -> None:
    """Start and end of the FFHQ-64 table, in images counted as mien counts them."""
    run = PRESETS["r3gan-2024"]
    tiny = R3GANGeneratorConfig(width=4, latent=4).build(ImageSpec(side=16))
    recipe = run.recipe.build(tiny, ImageSpec(side=16))
    for seen, lr, gamma, beta2, p in ((0, 2e-4, 2.0, 0.9, 0.0), (40_000_000, 5e-5, 0.2, 0.99, 0.3)):
        recipe.schedule(seen)
        (group,) = recipe.optimizers["critic"].param_groups
        assert group["lr"] == pytest.approx(lr) and group["betas"] == pytest.approx((0.0, beta2))
        assert recipe.gamma == pytest.approx(gamma) and float(recipe.augment.p) == pytest.approx(p)  # type: ignore[attr-defined,union-attr]
    average = EMA(tiny, run.ema or EMAConfig())
    assert average.decay(512, 0) == 0.0 and average.decay(512, 50_000_000) == pytest.approx(0.5 ** (256 / 500_000))


def test_a_side_that_cannot_be_made() -> None:
    with pytest.raises(UsageError, match="64 or 128"):
        R3GANGeneratorConfig().build(ImageSpec(side=96))
