"""homogan-01 to homogan-16 against facts of albertnieto/homogan@739cdd0 (src/, docs/Experiment15/src) and of Keras's layers."""

from __future__ import annotations

from math import ceil, sqrt
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
from mien.training.train_state import SHARED, TrainState
from tests.conftest import blobs

SIDE, COUNT = 32, 4
IMAGES = (torch.from_numpy(blobs(COUNT, SIDE)).permute(0, 3, 1, 2) / 127.5 - 1.0).double()
EXPERIMENTS = range(1, 17)
#: What README and code say of each: architecture, batch, epochs x images, ratio G:D, what softens the critic's targets.
LETTER = dict(zip(EXPERIMENTS, "AABCCCDDDEEFFFGG", strict=True))
BATCH = dict(zip(EXPERIMENTS, [16] * 6 + [100, 200, 100, 100, 100, 100, 100, 100, 50, 100], strict=True))
SEEN = [350_000, 250_000, 340_000, *[200_000] * 3, 10**6, 2_200_000, *[10**6] * 4, 2_200_000, 10**6, 909_100, 909_100]
IMAGES_SEEN = dict(zip(EXPERIMENTS, SEEN, strict=True))
EVERY = dict(zip(EXPERIMENTS, [1] * 8 + [3, 1, 3, 1, 3, 5, 3, 3], strict=True))  # train_GEN
SOFT = {6, 8, 9, 10, 11, 12, 13, 14, 15, 16}
LABELS = {10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 3, 16: 3}


def preset(number: int) -> Any:
    return presets.PRESETS[f"homogan-{number:02d}"]


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_facts(number: int) -> None:
    run = preset(number)
    assert (run.batch, run.images, run.side) == (BATCH[number], IMAGES_SEEN[number], 128)
    assert "--crop squash --resampler nearest" in run.prepare[0] and not run.flip
    assert run.recipe.generator_steps == EVERY[number] and run.model.latent == 256


@pytest.mark.parametrize("number", [1, 3, 6, 7, 11, 15])
def test_first_weights(number: int) -> None:
    """Glorot: U(-b, b), b = sqrt(6 / (fan_in + fan_out)), biases 0; batch normalisation 1 and 0 with an eps of 1e-3."""
    torch.manual_seed(0)
    run, faces = preset(number), ImageSpec(side=128, label_dim=LABELS.get(number, 0))
    model = run.model.build(faces)
    for network in (model, run.recipe.critic.build(faces)):
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                weight, area = layer.weight.detach(), layer.weight[0, 0].numel()
                bound = sqrt(6.0 / ((weight.shape[0] + weight.shape[1]) * area))
                assert 0.95 * bound < weight.abs().max() <= 1.00001 * bound and not (
                    layer.bias is not None and layer.bias.any()
                )
            elif isinstance(layer, nn.BatchNorm2d):
                assert (layer.weight == 1).all() and not layer.bias.any() and layer.eps == 1e-3


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_rates(number: int) -> None:
    """Adam at 1e-4 with 0.9 and 0.999 up to 6, at 2e-4 with beta_1 0.5 from 7 on; nothing anneals."""
    recipe = small(number)
    for seen in (0, 1000, 10_000, 100_000, 900_000):
        recipe.schedule(seen)
        for optimizer in recipe.optimizers.values():
            (group,) = optimizer.param_groups
            assert (group["lr"], group["betas"]) == ((1e-4, (0.9, 0.999)) if number < 7 else (2e-4, (0.5, 0.999)))


def small(number: int) -> Any:
    """A preset with fewer numbers, at 32 px and in fp64."""
    torch.manual_seed(0)
    run = override(preset(number), {"model.latent": 5, "model.width": 8, "recipe.critic.width": 3})
    run = override(run, {"model.hidden": 6}) if run.model.hidden else run
    faces = ImageSpec(side=SIDE, label_dim=LABELS.get(number, 0))
    return run.recipe.build(run.model.build(faces), faces).double().train()


def layers(network: nn.Module) -> list[Any]:
    """What has parameters, in order."""
    return [m for m in network.modules() if list(m.parameters(recurse=False))]


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-3) * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def doubled(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """Conv2DTranspose with stride 2 and padding same: of 2 h - 2 + k rows, (k - 2) // 2 are cut above."""
    whole = F.conv_transpose2d(x, layer.weight, layer.bias, 2)
    left, size = (layer.weight.shape[-1] - 2) // 2, 2 * x.shape[-1]
    return whole[:, :, left : left + size, left : left + size]


def same(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Conv2D with padding same: an odd pixel of it goes to the right."""
    kernel, stride = layer.weight.shape[-1], layer.stride[0]
    total = (ceil(x.shape[-1] / stride) - 1) * stride + kernel - x.shape[-1]
    return F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), layer.weight, layer.bias, stride)


def channel(x: Tensor, labels: Tensor, layer: Any) -> Tensor:
    """Embedding(2, 50) of one label, or the labels as they are, then Dense(side^2) as one more map."""
    coded = layer.table[0][labels[:, 0].long()] if LABELS and labels.shape[1] == 1 else labels
    plane = coded @ layer.weight.T + layer.bias
    return torch.cat([x, plane.reshape(len(x), 1, *x.shape[2:])], 1)


def generate(z: Tensor, labels: Tensor | None, net: nn.Module, number: int, training: bool) -> Tensor:
    letter, found, n = LETTER[number], layers(net), len(z)
    base, slope = SIDE // 16, 0.3 if LETTER[number] in "ABC" else 0.2

    def act(x: Tensor, noisy: bool = False) -> Tensor:
        x = torch.where(x > 0, x, slope * x)
        return x + 0.01 * torch.randn_like(x) if noisy and training and number == 16 else x

    take = iter(found)
    if letter in "AB":
        for _ in range(2):
            dense, scale = next(take), next(take)
            z = act(norm((z @ dense.weight.T)[:, :, None, None], scale)).flatten(1)
        x = z.reshape(n, -1, base, base)
    elif letter == "C":
        first, scale, second, other = (next(take) for _ in range(4))
        x = act(norm(F.conv_transpose2d(z[:, :, None, None], first.weight), scale))
        x = act(norm(F.conv_transpose2d(x, second.weight), other))
    elif letter == "G":
        first = next(take)
        x = act(F.conv_transpose2d(z[:, :, None, None], first.weight, first.bias)).reshape(n, -1, base, base)
    else:
        dense = next(take)
        x = act(z @ dense.weight.T + dense.bias).reshape(n, -1, base, base)
    if labels is not None:
        x = channel(x, labels, next(take))
    for stage in range(4):
        x = doubled(x, next(take))
        if letter in "ABC":
            x = same(x, next(take)) if letter == "A" or stage >= 2 else x
            x = norm(x, next(take))
        x = act(x, noisy=True)
    return torch.tanh(same(x, next(take)))


def judge(x: Tensor, labels: Tensor | None, net: nn.Module, number: int) -> Tensor:
    """D in training, as a logit."""
    letter, take = LETTER[number], iter(layers(net))
    slope = 0.3 if letter in "ABC" else 0.2
    if labels is not None:
        x = channel(x, labels, next(take))
    for _ in range({"A": 4, "B": 3, "C": 3}.get(letter, 5)):
        x = same(x, next(take))
        x = norm(x, next(take)) if letter in "ABC" else x
        x = torch.where(x > 0, x, slope * x)
        if letter in "ABC":
            x = F.dropout(x, 0.3 if letter == "A" else 0.5)
        if number == 16:
            x = x + 0.01 * torch.randn_like(x)
    x = x.flatten(1)
    x = F.dropout(x, 0.4) if letter not in "ABC" else x
    dense = next(take)
    return (x @ dense.weight.T + dense.bias)[:, 0]


class Keras:
    """Adam of TensorFlow 2: lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + 1e-7)."""

    def __init__(self, parameters: list[Tensor], number: int) -> None:
        self.parameters, self.t = parameters, 0
        self.lr, self.beta = (1e-4, 0.9) if number < 7 else (2e-4, 0.5)
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def apply(self, grads: tuple[Tensor, ...]) -> None:
        self.t += 1
        rate = self.lr * sqrt(1 - 0.999**self.t) / (1 - self.beta**self.t)
        with torch.no_grad():
            for p, m, v, g in zip(self.parameters, self.m, self.v, grads, strict=True):
                m.mul_(self.beta).add_(g, alpha=1 - self.beta)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                p -= rate * m / (v.sqrt() + 1e-7)


class Transcription:
    """train_step of 1 to 6, and the loop of 7 to 16, on the weights of one of ours."""

    def __init__(self, recipe: Any, number: int) -> None:
        self.recipe, self.number, self.cycle = recipe, number, 0
        self.d, self.g = list(recipe.critic.parameters()), list(recipe.model.parameters())
        self.adam = {"d": Keras(self.d, number), "g": Keras(self.g, number)}

    def targets(self, real: bool) -> Tensor:
        """smooth_pos_and_trick and smooth_neg_and_trick; experiment 6 drew once, when it was traced."""
        if self.number not in SOFT:
            return torch.full((COUNT,), float(real)).double()
        source = self.recipe.shared_noise
        if self.number == 6:
            source = torch.Generator().manual_seed(6 if real else 7)
        drawn = 0.1 * torch.rand(COUNT, generator=source)
        found = (1.0 - drawn if real else drawn).double()
        for index in torch.randint(COUNT, (ceil(COUNT * 0.05),), generator=source).tolist():
            found[index] = abs(found[index] - 1)
        return found

    def entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets)

    def fakes(self, labels: Tensor | None, training: bool) -> tuple[Tensor, Tensor | None]:
        if labels is not None:
            labels = (self.recipe.uniform(COUNT, labels.shape[1]) < 0.5).double()
        return generate(self.recipe.latents(COUNT), labels, self.recipe.model, self.number, training), labels

    def constrain(self) -> None:
        """The constraint on the five kernels of 12 to 14: over the matrix of their rows, five iterations from a random u."""
        with torch.no_grad():
            for layer in layers(self.recipe.critic):
                if LETTER[self.number] == "F" and isinstance(layer, nn.Conv2d):
                    rows = layer.weight.permute(2, 3, 1, 0).reshape(5, -1)
                    u = torch.randn(5, generator=self.recipe.shared_noise).double()
                    for _ in range(5):
                        v = rows.T @ u / (rows.T @ u).norm()
                        u = rows @ v / (rows @ v).norm()
                    layer.weight /= u @ rows @ v

    def step(self, images: Tensor, labels: Tensor | None) -> None:
        critic, number = self.recipe.critic, self.number
        if number < 7:
            pixels = (images + 1) * 127.5
            x = torch.stack([(each - each.mean()) / each.std(unbiased=False) for each in pixels])
            x = x.contiguous(memory_format=torch.channels_last)  # as the engine gives them: dropout draws in this order
            fakes, _ = self.fakes(None, True)
            real_logits, fake_logits = judge(x, None, critic, number), judge(fakes, None, critic, number)
            real = self.entropy(real_logits, self.targets(True))
            d_loss = 0.5 * (real + self.entropy(fake_logits, self.targets(False)))
            g_loss = self.entropy(fake_logits, torch.ones(COUNT).double())
            g_grads = torch.autograd.grad(g_loss, self.g, retain_graph=True)
            d_grads = torch.autograd.grad(d_loss, self.d)
            self.adam["g"].apply(g_grads)
            if not (number == 4 and g_loss >= 4):
                self.adam["d"].apply(d_grads)
            return
        self.cycle += 1
        with torch.no_grad():
            fakes, fake_labels = self.fakes(labels, False)  # G.predict
        for x, told, real in (((images + 1) / 2, labels, True), (fakes, fake_labels, False)):
            logits = judge(x, told, critic, number)
            self.adam["d"].apply(torch.autograd.grad(self.entropy(logits, self.targets(real)), self.d))
            self.constrain()
        if self.cycle % EVERY[number] == 0:
            fakes, fake_labels = self.fakes(labels, True)
            loss = self.entropy(judge(fakes, fake_labels, critic, number), torch.ones(COUNT).double())
            self.adam["g"].apply(torch.autograd.grad(loss, self.g))


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_steps(number: int) -> None:
    """Three steps (five where the generator moves in every fifth) from equal weights with equal noise."""
    ours, theirs = small(number), Transcription(small(number), number)
    learner = TrainState(ours, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1]]).double()[:, : LABELS.get(number, 0)]
    told = labels if labels.shape[1] else None
    for _ in range(max(3, EVERY[number])):
        seen = learner.seen
        learner.step(iter([Batch(IMAGES, told)]))
        torch.manual_seed(mix(0, seen, 0, 0))
        theirs.recipe.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        theirs.step(IMAGES, told)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.recipe.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name
