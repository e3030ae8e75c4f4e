"""torch-gan-2015 and vaegan-torch-2015 against facts of skaae/torch-gan@3eeffa2 (train_lfw.lua, lfw_adverserial.lua,
datasets/create_datasets.py) and of Torch7's layers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import override
from mien.models.torch2015 import TorchDiscriminatorConfig
from mien.storage.run_directory import read_lines
from mien.training.train_state import SHARED, TrainState
from tests.conftest import blobs, write_pack

RUN, HYBRID = presets.PRESETS["torch-gan-2015"], presets.PRESETS["vaegan-torch-2015"]
IMAGES = torch.from_numpy(blobs(6, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0


def layers(network: nn.Module) -> list[Any]:
    """What has parameters, in order."""
    return [m for m in network.modules() if list(m.parameters(recurse=False))]


def test_first_weights() -> None:
    """Torch7's reset(): weights and biases from U(-b, b), b = 1 / sqrt(fan_in); scales of batch normalisation from U(0, 1)."""
    torch.manual_seed(0)
    generator, critic = RUN.model.build(ImageSpec()), RUN.recipe.critic.build(ImageSpec())  # type: ignore[attr-defined]
    fans = [[512, 128 * 25, None, 256 * 25, None, 256 * 25, None, 128 * 9], [75, 32 * 25, 64 * 25, 96 * 64, 1024]]
    for network, expected in zip((generator, critic), fans, strict=True):
        for layer, fan_in in zip(layers(network), expected, strict=True):
            weight, bias = layer.weight.detach(), layer.bias.detach()
            if fan_in is None:
                assert (
                    weight.min() >= 0 and 0.95 < weight.max() <= 1 and abs(weight.mean() - 0.5) < 0.1 and not bias.any()
                )
                continue
            bound = 1.0 / sqrt(fan_in)
            assert 0.97 * bound < weight.abs().max() <= 1.00001 * bound and bias.abs().max() <= 1.00001 * bound
            assert float(weight.std()) == pytest.approx(bound / sqrt(3), rel=0.06)
            assert len(bias) == 1 or bias.any()


@pytest.mark.parametrize(
    ("images", "rate"),
    [(0, 1e-3), (13_055, 1e-3), (13_056, 0.9801e-3), (13_056 * 99, 0.99**100 * 1e-3), (13_056 * 1000, 1e-6)],
)
def test_rates(images: int, rate: float) -> None:
    """After epoch e of 204 batches of 64 the counter stands at e + 1, and the rate becomes max(0.001 * 0.99^(e + 1), 1e-6)."""
    recipe: Any = small()
    recipe.calls.fill_(30)
    recipe.schedule(images)
    recipe.warm_up("critic")
    assert recipe.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(rate)
    hybrid = HYBRID.recipe.build(
        override(HYBRID, {"model.width": 4}).model.build(ImageSpec(side=16)), ImageSpec(side=16)
    )
    hybrid.schedule(images)
    assert all(o.param_groups[0]["lr"] == pytest.approx(rate) for o in hybrid.optimizers.values())


def test_maps_are_dropped_without_rescaling() -> None:
    """nn.SpatialDropout(0.2): x * mask in training, x * 0.8 in evaluation; nn.Dropout: x * mask * 2, and x."""
    torch.manual_seed(0)
    critic = TorchDiscriminatorConfig(width=8, hidden=4).build(ImageSpec(side=16))
    maps = [m for m in critic.modules() if isinstance(m, nn.Dropout2d)]
    x = torch.rand(64, 8, 3, 3) + 0.5
    assert len(maps) == 3
    for layer in maps:
        y = layer.train()(x)
        kept = y.amax((2, 3)) > 0
        assert torch.allclose(y, x * kept[:, :, None, None]) and 0.72 < float(kept.float().mean()) < 0.88
        assert torch.allclose(layer.eval()(x), 0.8 * x)
    (features,) = [m for m in critic.modules() if type(m) is nn.Dropout]
    assert set(features.train()(torch.ones(1000)).unique().tolist()) == {0.0, 2.0}


def small(**changes: Any) -> Any:
    """The preset with fewer maps, at 16 px and in fp64."""
    torch.manual_seed(0)
    sizes = {"model.latent": 5, "model.width": 3, "recipe.critic.width": 2, "recipe.critic.hidden": 7}
    run = override(RUN, {**sizes, **{f"recipe.{name}": value for name, value in changes.items()}})
    return run.recipe.build(run.model.build(ImageSpec(side=16)), ImageSpec(side=16)).double().train()


def generate(z: Tensor, net: nn.Module) -> Tensor:
    first, c1, b1, c2, b2, c3, b3, last = layers(net)
    x = (z @ first.weight.T + first.bias).relu().reshape(len(z), -1, 2, 2)
    for conv, norm in ((c1, b1), (c2, b2), (c3, b3)):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.conv2d(x, conv.weight, conv.bias, 1, 2)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        x = x.relu()
    return F.conv2d(x, last.weight, last.bias, 1, 1)


def judge(x: Tensor, net: nn.Module) -> Tensor:
    """D in training: a map is kept with probability 0.8 as it is; a feature with 0.5, doubled. Masks from torch's generator."""
    c1, c2, c3, l1, l2 = layers(net)
    for conv in (c1, c2, c3):
        x = F.max_pool2d(F.conv2d(x, conv.weight, conv.bias, 1, 2), 2).relu()
        x = x * torch.empty(len(x), x.shape[1], 1, 1, dtype=x.dtype).bernoulli_(0.8)
    x = (x.flatten(1) @ l1.weight.T + l1.bias).relu()
    x = x * torch.empty_like(x).bernoulli_(0.5) * 2
    return torch.sigmoid(x @ l2.weight.T + l2.bias)[:, 0]


def entropy(p: Tensor, target: Tensor) -> Tensor:
    """nn.BCECriterion, averaged."""
    return -(target * torch.log(p + 1e-12) + (1 - target) * torch.log(1 - p + 1e-12)).mean()


class RMSprop:
    """The hand-written optimizer of lfw_adverserial.lua, with the warm-up by calls."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.calls = parameters, 0
        self.m = [torch.zeros_like(p) for p in parameters]

    def __call__(self, loss: Tensor, moves: bool, lr: float = 1e-3) -> None:
        grads = torch.autograd.grad(loss, self.parameters)
        rate = lr / 50 if self.calls < 10 else lr / 5 if self.calls < 30 else lr
        self.calls += 1
        if moves:
            with torch.no_grad():
                for p, m, g in zip(self.parameters, self.m, grads, strict=True):
                    m.mul_(0.9).addcmul_(g, g, value=0.1)
                    p -= rate * g / (m.sqrt() + 1e-8)


@pytest.mark.parametrize("margin", [0.3, 0.0, 0.9])
def test_steps(margin: float) -> None:
    """Twelve steps from equal weights and noise, so that the warm-up's first edge is passed; the margin decides who moves."""
    changes = {"margin": (margin, 1.0 - margin)}
    ours, theirs = small(**changes), small(**changes)
    learner = TrainState(ours, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    x, n = IMAGES.double(), len(IMAGES)
    optimizers = {
        "critic": RMSprop(list(theirs.critic.parameters())),
        "generator": RMSprop(list(theirs.model.parameters())),
    }
    for _ in range(12):
        seen = learner.seen
        stats = learner.step(iter([Batch(x)]))
        torch.manual_seed(mix(0, seen, 0, 0))
        theirs.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        fakes = generate(theirs.latents(n), theirs.model).detach()
        targets = torch.cat([torch.ones(n), torch.zeros(n)]).double()
        outputs = judge(torch.cat([x, fakes]), theirs.critic)
        r, f = (float(entropy(outputs[part], targets[part]).detach()) for part in (slice(0, n), slice(n, None)))
        critic_moves = not (f < margin or r < margin)
        generator_moves = not (f > 1.0 - margin or r > 1.0 - margin)
        if not critic_moves and not generator_moves:
            critic_moves = generator_moves = True
        optimizers["critic"](entropy(outputs, targets), critic_moves)
        g = entropy(judge(generate(theirs.latents(2 * n), theirs.model), theirs.critic), torch.ones(2 * n).double())
        optimizers["generator"](g, generator_moves)
        told = [float(stats[name].detach()) for name in ("critic_real", "critic_fake", "generator_loss")]
        assert told == pytest.approx([r, f, float(g.detach())], rel=1e-6)  # R, F and G are printed in every iteration
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name


@pytest.mark.usefixtures("with_plots")
def test_a_short_run_draws_all_three_curves(tmp_path: Path, mien: Callable[..., Any]) -> None:
    """The rule rests the generator in every step here; its curve is drawn all the same."""
    pytest.importorskip("matplotlib")
    write_pack(tmp_path / "blobs.pack")
    small = ("--model.width", 4, "--recipe.critic.width", 4, "--batch", 64, "--recipe.margin", 0.0, 0.1)
    mien("train", "torch-gan-2015", "--images", 192, "--data", "blobs.pack", "--out", "run", "--device", "cpu", *small)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert all({"generator_loss", "critic_real", "critic_fake"} <= line.keys() for line in lines) and lines
    assert (tmp_path / "run" / "plots" / "balance.png").exists()
