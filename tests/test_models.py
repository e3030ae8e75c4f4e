"""Architectures against the counts and rules that their originals publish."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mien import presets
from mien.core.contracts import ImageSpec
from mien.errors import UsageError
from mien.models.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from mien.models.torch2015 import TorchDiscriminatorConfig, TorchGeneratorConfig
from mien.nn.truncated_normal import truncated_normal_
from mien.nn.upsample import UpsampleConv2d, upsample_conv2d


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TorchGeneratorConfig(), 7_484_675),  # counted from skaae/torch-gan
        (TorchDiscriminatorConfig(), 6_500_897),
        (DCGANGeneratorConfig(), 3_576_704),  # soumith/dcgan.torch at 64 px
        (DCGANDiscriminatorConfig(), 2_765_568),
    ],
)
def test_parameter_counts(config: object, expected: int) -> None:
    assert count(config.build(ImageSpec())) == expected  # type: ignore[attr-defined]


def test_torch_generator_output_is_linear() -> None:
    model = TorchGeneratorConfig(latent=8, width=4).build(ImageSpec(side=16))
    with torch.no_grad():
        model.body[-1].bias.fill_(5.0)
        assert model.decode(torch.zeros(2, 8)).max() > 1.0


def test_torch_initialisation() -> None:
    """Uniform within 1 / sqrt(fan_in), weights and biases; scales of batch normalisation uniform in (0, 1)."""
    torch.manual_seed(0)
    model = TorchGeneratorConfig().build(ImageSpec())
    convolution = model.body[0]
    bound = (128 * 25) ** -0.5
    for tensor in (convolution.weight, convolution.bias):
        assert tensor.abs().max() <= bound and tensor.abs().max() > 0.95 * bound
    assert model.body[1].weight.min() >= 0 and model.body[1].weight.max() <= 1 and model.body[1].weight.std() > 0.2


def test_dcgan_initialisation() -> None:
    torch.manual_seed(0)
    model = DCGANGeneratorConfig().build(ImageSpec()).requires_grad_(False)
    assert model.body[0].weight.std() == pytest.approx(0.02, rel=0.02) and model.body[0].bias is None
    assert model.body[1].weight.mean() == pytest.approx(1.0, abs=0.01)


def test_critic_dropout_drops_whole_maps() -> None:
    critic = TorchDiscriminatorConfig(width=32).build(ImageSpec()).train()
    assert sum(isinstance(module, nn.Dropout2d) for module in critic.modules()) == 3
    assert [m.p for m in critic.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    normed = TorchDiscriminatorConfig(batch_norm=True).build(ImageSpec())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in normed.modules()) == 3


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize("side", [8, 48, 100])
def test_impossible_sides_name_the_nearest(name: str, side: int) -> None:
    config = presets.PRESETS[name].model
    try:
        model = config.build(ImageSpec(side=side))
    except UsageError as error:
        assert str(side) in error.what and "--side" in error.remedy
        legal = [int(word) for word in error.remedy.replace(".", "").split() if word.isdigit()]
        for candidate in legal:
            config.outline(ImageSpec(side=candidate))
    else:
        with torch.no_grad():
            assert model.eval().decode(model.prior.draw([0], model.latent_shape)).shape == (1, 3, side, side)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_upsampling_convolution_is_upsampling_and_convolution(kernel: int, transposed: bool) -> None:
    torch.manual_seed(0)
    layer = UpsampleConv2d(4, 6, kernel).double()
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)
    slow = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=kernel // 2)
    fast = upsample_conv2d(x, layer.weight, layer.bias) if transposed else layer(x)
    assert torch.allclose(fast, slow, atol=1e-12)
    for parameter in (layer.weight, layer.bias, x):
        ours, theirs = (torch.autograd.grad(y.square().sum(), parameter, retain_graph=True)[0] for y in (fast, slow))
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_a_truncated_normal_is_cut_off_at_two_deviations_whatever_torch_is_installed() -> None:
    torch.manual_seed(0)
    drawn = truncated_normal_(torch.empty(100_000), 0.02)
    assert float(drawn.abs().max()) <= 0.04
    assert float(drawn.std()) == pytest.approx(0.02 * 0.8796, rel=0.01)  # of a normal that is cut off there
    torch.manual_seed(0)
    first = torch.empty(100_000).normal_(0.0, 0.02)
    inside = first.abs() < 0.04
    assert torch.equal(drawn[inside], first[inside])  # only the others are drawn again
