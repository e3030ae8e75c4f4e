"""The flow of affine couplings: there and back, the volume that it claims, and what it can learn."""

from __future__ import annotations

from math import log, pi

import pytest
import torch

from mien.nn.coupling import CouplingFlow
from tests.conftest import shuffled_weights


def flow(width: int = 7, layers: int = 5, bent: bool = True) -> CouplingFlow:
    torch.manual_seed(0)
    network = CouplingFlow(width, layers, 16)
    if bent:
        shuffled_weights(network, 0.2)
    return network


def points(count: int, width: int = 7) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-5)])
@torch.no_grad()
def test_there_and_back(dtype: torch.dtype, error: float) -> None:
    network, x = flow().to(dtype), points(64).to(dtype)
    y = network(x)
    assert y.dtype == dtype and float((y - x).abs().mean()) > 0.3
    assert float((network.inverse(y)[0] - x).abs().max()) < error
    assert float((network(network.inverse(x)[0]) - x).abs().max()) < error


@pytest.mark.parametrize("width", [2, 3, 7])
def test_the_volume_is_the_jacobians_determinant(width: int) -> None:
    network = flow(width).double()
    for y in points(3, width).double():
        slopes = torch.autograd.functional.jacobian(lambda at: network.inverse(at[None])[0][0], y)
        assert float(network.inverse(y[None])[1].detach()) == pytest.approx(float(slopes.det().abs().log()), abs=1e-5)


@torch.no_grad()
def test_a_fresh_flow_only_turns() -> None:
    network, x = flow(bent=False), points(16)
    y, volume = network.inverse(x)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1), rtol=1e-5) and not volume.any()


@torch.no_grad()
def test_without_layers_nothing_changes() -> None:
    network, x = CouplingFlow(7, 0, 16), points(4)
    assert torch.equal(network(x), x) and torch.equal(network.inverse(x)[0], x)


@torch.no_grad()
def test_autocast_does_not_reach_it() -> None:
    network, x = flow(), points(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, back = network(x.bfloat16()), network.inverse(network(x))[0]
        assert (x @ x.T).dtype == torch.bfloat16
    assert y.dtype == torch.float32 and float((back - x).abs().max()) < 1e-5


@torch.no_grad()
def test_far_out_it_stays_finite() -> None:
    network = flow(layers=8)
    assert torch.isfinite(network(1e3 * points(8))).all() and torch.isfinite(network.inverse(1e3 * points(8))[0]).all()


def test_it_learns_a_density() -> None:
    """A crescent: the second number is N(first squared, 0.1). Entropy: that of N(0, 1) plus that of N(0, 0.1)."""
    torch.manual_seed(0)
    network, random = CouplingFlow(2, 6, 32), torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)

    def loss() -> torch.Tensor:
        noise = torch.randn(256, 2, generator=random)
        crescent = torch.stack([noise[:, 0], noise[:, 0] ** 2 + 0.1 * noise[:, 1]], 1)
        latents, volume = network.inverse(crescent)
        return (0.5 * latents.square().sum(1) + log(2 * pi) - volume).mean()

    for _ in range(400):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    entropy = log(2 * pi) + 1.0 + log(0.1)
    assert entropy - 0.15 < float(loss().detach()) < entropy + 0.5
