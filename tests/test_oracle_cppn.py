"""cppn-2016 and cppn-residual-2016 against facts of hardmaru's code: cppn-gan-vae-tensorflow@12de312 and
resnet-cppn-gan-tensorflow@9206e06 (model.py, ops.py, train.py, mnist_data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Recipe
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.models.cppn import CPPNConfig, CPPNCriticConfig
from mien.training.train_state import SHARED, TrainState
from tests.conftest import blobs

WIDE, RESIDUAL = presets.PRESETS["cppn-2016"], presets.PRESETS["cppn-residual-2016"]
IMAGES = torch.from_numpy(blobs(6, 12)).permute(0, 3, 1, 2) / 127.5 - 1.0


def layers(network: nn.Module) -> list[Any]:
    """What has parameters, in order."""
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm2d)]


@pytest.mark.parametrize(("run", "outside"), [(WIDE, 0.1), (RESIDUAL, 0.05)])
def test_first_weights(run: Run, outside: float) -> None:
    """fully_connected: N(0, stddev), biases too, 0.1 in part one and 0.05 in part two; in a block 1.0 four times, then 0.001."""
    torch.manual_seed(0)
    assert isinstance(run.model, CPPNConfig)
    decoder = run.model.build(ImageSpec(side=26, channels=1)).decoder
    inside = [1.0, 1.0, 1.0, 1.0, 0.001] * 24 if run is RESIDUAL else [outside] * 3
    expected = [outside, outside, *inside, outside]  # of z, of x, y and r, the body, the colour
    for layer, deviation in zip(layers(decoder), expected, strict=True):
        drawn = torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])
        rough = 5.0 / np.sqrt(2 * drawn.numel())  # five standard errors
        assert float(drawn.std()) == pytest.approx(deviation, rel=rough), layer
    encoder = run.model.build(ImageSpec(side=26, channels=1)).encoder
    for layer in layers(encoder):  # linear: N(0, 0.02), biases 0
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02) and not layer.bias.any()


def test_first_weights_of_the_critic() -> None:
    """conv2d: normal with 0.02, cut off at two deviations, biases 0; batch_norm: gamma N(1, 0.02), eps 1e-5; linear N(0, 0.02)."""
    torch.manual_seed(0)
    critic = CPPNCriticConfig(width=32, classes=True).build(ImageSpec(side=26, channels=1))
    for layer in layers(critic):
        if isinstance(layer, nn.Conv2d):
            assert 0.034 < float(layer.weight.detach().abs().max()) <= 0.04
            assert float(layer.weight.detach().std()) == pytest.approx(
                0.02 * 0.8796, rel=0.05
            )  # of a normal cut off at two
        elif isinstance(layer, nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        else:
            assert float(layer.weight.detach().mean()) == pytest.approx(1.0, abs=0.01) and layer.eps == 1e-5
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.4)
        assert not layer.bias.any()


@pytest.mark.parametrize("seen", [0, 1000, 10**6, 10**8, 2 * 10**8])
def test_rates_stay(seen: int) -> None:
    """train.py: 0.001, 0.005 and 0.001 with beta1 0.65; in part two 0.001 for all three with beta1 0.75. Nothing anneals."""
    for run, rates, beta in (
        (WIDE, {"autoencoder": 0.001, "autoencoder_joint": 0.005, "critic": 0.001}, 0.65),
        (RESIDUAL, {"autoencoder": 0.001, "critic": 0.001, "critic_reals": 0.001}, 0.75),
    ):
        recipe = small(run)
        recipe.schedule(seen)
        groups = {name: optimizer.param_groups[0] for name, optimizer in recipe.optimizers.items()}
        assert {name: group["lr"] for name, group in groups.items()} == rates
        assert all(group["betas"] == (beta, 0.999) for group in groups.values())


def small(run: Run, **changes: Any) -> Recipe:
    """A preset with fewer numbers, at 12 px in colour and in fp64."""
    torch.manual_seed(0)
    sizes = {"model.latent": 3, "model.hidden": 7, "model.layers": 2, "recipe.critic.width": 2}
    run = override(run, {**sizes, **{f"recipe.{name}": value for name, value in changes.items()}})
    return run.recipe.build(run.model.build(ImageSpec(side=12)), ImageSpec(side=12)).double().train()


class Transcription:
    """The networks of an original with the weights of one of ours, and TensorFlow's Adam for each loss."""

    def __init__(self, recipe: Any, residual: bool) -> None:
        self.recipe, self.residual = recipe, residual
        self.painters = list(recipe.model.decoder.parameters())
        self.both = list(recipe.model.encoder.parameters()) + self.painters
        self.judges = list(recipe.critic.parameters())
        self.state: dict[tuple[str, int], list[Tensor]] = {}
        self.calls: dict[str, int] = {}

    def copy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """G, values from 0 to 1, and the sum of the divergence over the batch."""
        l1, l2, mean, spread = layers(self.recipe.model.encoder)
        drop = 0.35 if self.residual else 0.0
        h = F.dropout(F.softplus(x.flatten(1) @ l1.weight.T + l1.bias), drop)
        h = F.dropout(F.softplus(h @ l2.weight.T + l2.bias), drop)
        mu, s = h @ mean.weight.T + mean.bias, h @ spread.weight.T + spread.bias
        z = mu + torch.sqrt(torch.exp(s)) * self.recipe.noise(mu)
        kl = -0.5 * (1 + s - mu**2 - s.exp()).sum(1)
        side = x.shape[-1]
        line = torch.from_numpy(8.0 * (np.arange(side) - (side - 1) / 2.0) / (side - 1) / 0.5)
        xs, ys = line.repeat(side, 1).flatten(), line[:, None].repeat(1, side).flatten()
        of_z, of_place, *body, last = layers(self.recipe.model.decoder)
        places = torch.stack([xs, ys, torch.sqrt(xs * xs + ys * ys)], 1)
        u = ((z * 8.0) @ of_z.weight.T + of_z.bias)[:, None] + places @ of_place.weight.T
        h = torch.tanh(u) if self.residual else F.softplus(u)
        if self.residual:
            for at in range(0, len(body), 5):
                h0 = h
                for layer in body[at : at + 4]:
                    h0 = F.relu(h0 @ layer.weight.T + layer.bias)
                h = h + torch.tanh(h0 @ body[at + 4].weight.T + body[at + 4].bias)
        else:
            for layer in body:
                h = torch.tanh(h @ layer.weight.T + layer.bias)
        colour = torch.sigmoid(h @ last.weight.T + last.bias)
        return colour.transpose(1, 2).reshape(len(x), -1, side, side), kl

    def judge(self, x: Tensor) -> Tensor:
        """Logits of the critic: padding SAME, each batch normalised by itself."""
        c1, c2, b2, c3, b3, last = layers(self.recipe.critic)
        for conv, norm in ((c1, None), (c2, b2), (c3, b3)):
            total = max((-(-x.shape[-1] // 2) - 1) * 2 + 5 - x.shape[-1], 0)
            pads = (total // 2, total - total // 2) * 2
            x = F.conv2d(F.pad(x, pads), conv.weight, conv.bias, 2)
            if norm is not None:
                mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
                x = (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight.view(1, -1, 1, 1) + norm.bias.view(
                    1, -1, 1, 1
                )
            x = 0.6 * x + 0.4 * x.abs()
        return x.flatten(1) @ last.weight.T + last.bias

    def adam(
        self, name: str, loss: Tensor, parameters: list[Tensor], lr: float, beta1: float, clip: float | None
    ) -> None:
        grads = list(torch.autograd.grad(loss, parameters))
        if clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in grads))  # type: ignore[arg-type]
            grads = [g * clip / max(norm, torch.tensor(clip)) for g in grads]
        t = self.calls[name] = self.calls.get(name, 0) + 1
        rate = lr * np.sqrt(1 - 0.999**t) / (1 - beta1**t)
        with torch.no_grad():
            for p, g in zip(parameters, grads, strict=True):
                m, v = self.state.setdefault((name, id(p)), [torch.zeros_like(p), torch.zeros_like(p)])
                m.mul_(beta1).add_(g, alpha=1 - beta1)
                v.mul_(0.999).add_(g * g, alpha=0.001)
                p -= rate * m / (v.sqrt() + 1e-8)


def part_one(t: Transcription, x: Tensor, c: Any) -> list[str]:
    moved = []

    def bound(g: Tensor, kl: Tensor) -> Tensor:
        error = -(x * torch.log(1e-10 + g) + (1 - x) * torch.log(1e-10 + 1 - g)).flatten(1).sum(1)
        return (error + kl).mean() / x.shape[-1] ** 2

    for _ in range(4):
        t.adam("autoencoder", bound(*t.copy(x)), t.both, 0.001, 0.65, None)
        moved.append("autoencoder")
    for _ in range(4):
        g, kl = t.copy(x)
        g_loss = -torch.log(torch.sigmoid(t.judge(g)[:, 0]) + 1e-12).mean()
        t.adam("autoencoder_joint", g_loss + bound(g, kl), t.both, 0.005, 0.65, None)
        moved.append("autoencoder_joint")
        if g_loss.item() < c.joint_stop_below:
            break

    def d_loss() -> Tensor:
        g = t.copy(x)[0].detach()
        real, fake = torch.sigmoid(t.judge(x)[:, 0]), torch.sigmoid(t.judge(g)[:, 0])
        return (-torch.log(real + 1e-12).mean() - torch.log(1 - fake + 1e-12).mean()) / 2

    if d_loss().item() > c.critic_moves_above and g_loss.item() < c.critic_moves_below:
        t.adam("critic", d_loss(), t.judges, 0.001, 0.65, None)
        moved.append("critic")
    return moved


def part_two(t: Transcription, x: Tensor, c: Any) -> list[str]:
    """partial_train, with one class of real faces and one of fakes."""
    moved = []
    for _ in range(16):
        g, kl = t.copy(x)
        logits = t.judge(g)
        g_loss, g_accuracy = F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long)), (logits.argmax(1) == 0)
        loss = g_loss + 10.0 * kl.mean() / x.shape[-1] ** 2
        t.adam("autoencoder", loss, t.both, 0.001, 0.75, 5.0)
        moved.append("autoencoder")
        if g_accuracy.double().mean() > c.joint_stop_above:
            break

    def look() -> tuple[Tensor, Tensor, float, float]:
        real, fake = t.judge(x), t.judge(t.copy(x)[0].detach())
        zeros = torch.zeros(len(x), dtype=torch.long)
        caught = float((fake.argmax(1) == 1).double().mean())
        named = float((real.argmax(1) == 0).double().mean())
        return F.cross_entropy(real, zeros), F.cross_entropy(fake, zeros + 1), named, caught

    _, _, named, caught = look()
    if caught < c.fake_accuracy_below and g_accuracy.double().mean() > c.critic_moves_above:
        for _ in range(8):
            real, fake, _, caught = look()
            t.adam("critic", (1 * real + fake) / 2, t.judges, 0.001, 0.75, 5.0)
            moved.append("critic")
            if caught > c.fake_accuracy_enough:
                break
    elif named < c.real_accuracy_below:
        for _ in range(8):
            real, _, named, _ = look()
            t.adam("critic_reals", real, t.judges, 0.001, 0.75, 5.0)
            moved.append("critic_reals")
            if named > c.real_accuracy_enough:
                break
    return moved


BOTH = {"critic_moves_above": -1.0, "fake_accuracy_below": 2.0}
REALS = {"critic_moves_above": 2.0, "real_accuracy_below": 2.0}


@pytest.mark.parametrize(
    ("run", "steps", "changes"),
    [
        (WIDE, part_one, {}),
        (WIDE, part_one, {"critic_moves_above": 0.0, "critic_moves_below": 9.0}),
        (RESIDUAL, part_two, {}),
        (RESIDUAL, part_two, BOTH),
        (
            RESIDUAL,
            part_two,
            {**BOTH, "fake_accuracy_enough": -1.0},
        ),  # it moves once, although it is good enough already
        (RESIDUAL, part_two, REALS),
        (RESIDUAL, part_two, {**REALS, "real_accuracy_enough": -1.0}),
    ],
)
def test_steps(run: Run, steps: Callable[..., list[str]], changes: dict[str, float]) -> None:
    """Two batches from equal weights with equal noise: who moves, and where every parameter ends."""
    ours, theirs = small(run, **changes), small(run, **changes)
    learner = TrainState(ours, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    transcription, images = Transcription(theirs, run is RESIDUAL), IMAGES.double()
    wrapped, moved = ours.step, []
    names = {id(optimizer): name for name, optimizer in ours.optimizers.items()}

    def watched(batches: Iterator[Batch]) -> Iterator[Any]:
        for update in wrapped(batches):
            moved.append(names[id(update.optimizer)])  # type: ignore[union-attr]
            yield update

    ours.step = watched  # type: ignore[method-assign]
    expected = []
    for _ in range(2):
        seen = learner.seen
        learner.step(iter([Batch(images)]))
        torch.manual_seed(mix(0, seen, 0, 0))
        theirs.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        expected += steps(transcription, (images + 1) / 2, theirs.config)  # type: ignore[arg-type]
    assert moved == expected
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7), name


def test_data() -> None:
    """mnist_data.py: values from 0 to 1. Encoder and critic read the same numbers here, out of images from -1 to 1."""
    recipe: Any = small(WIDE)
    read: list[Tensor] = []
    for network in (recipe.model.encoder.body[1], layers(recipe.critic)[0]):
        network.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    images = torch.linspace(-1, 1, 6 * 3 * 144).reshape(6, 3, 12, 12).double()
    recipe.model.encoder(images), recipe.critic(images)
    assert all(float(x.min()) == 0.0 and float(x.max()) == pytest.approx(1.0) for x in read) and len(read) == 2
