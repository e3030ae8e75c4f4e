"""dcgan-2015, began-zhao-2020 and vae-simpsons-2023 against facts of their code: soumith/dcgan.torch@6eaac63,
sicongzhao/Face-Generation-and-Interpolation-with-BEGAN@79f0ed2, Leikrit/LMH_Summer_Programme@b962e54.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.training.train_state import SHARED, TrainState
from tests.conftest import blobs

DCGAN, ZHAO, SIMPSONS = (presets.PRESETS[name] for name in ("dcgan-2015", "began-zhao-2020", "vae-simpsons-2023"))
SIDE, COUNT = 32, 4
IMAGES = (torch.from_numpy(blobs(COUNT, SIDE)).permute(0, 3, 1, 2) / 127.5 - 1.0).double()


def layers(network: nn.Module) -> list[Any]:
    """What has parameters, in order."""
    return [m for m in network.modules() if list(m.parameters(recurse=False))]


def built(run: Run, faces: ImageSpec, **changes: Any) -> Any:
    torch.manual_seed(0)
    run = override(run, changes)
    return run.recipe.build(run.model.build(faces), faces).train()


SMALL = {
    DCGAN.preset: {"model.latent": 5, "model.width": 3, "recipe.critic.width": 3},
    ZHAO.preset: {"model.latent": 5, "model.width": 3, "model.encoder_width": 3},
    SIMPSONS.preset: {"model.latent": 5, "model.width": 3},
}


@pytest.mark.parametrize(
    ("run", "lr", "betas"), [(DCGAN, 2e-4, (0.5, 0.999)), (ZHAO, 1e-4, (0.5, 0.999)), (SIMPSONS, 8e-4, (0.9, 0.999))]
)
def test_rates_stay(run: Run, lr: float, betas: tuple[float, float]) -> None:
    """No schedule by time: DCGAN and the Simpsons VAE have none, sicongzhao's rates fall where M stalls."""
    recipe = built(run, ImageSpec(side=SIDE), **SMALL[run.preset])
    for seen in (0, 1000, 100_000, 400_000, 10**6):
        recipe.schedule(seen)
        groups = [group for optimizer in recipe.optimizers.values() for group in optimizer.param_groups]
        assert all((group["lr"], group["betas"]) == (lr, betas) for group in groups)


def test_dcgan_first_weights() -> None:
    """weights_init: convolutions N(0, 0.02) without bias, scales N(1, 0.02), shifts 0."""
    recipe = built(DCGAN, ImageSpec())
    for layer in (*layers(recipe.model), *layers(recipe.critic)):
        weight, bias = layer.weight.detach(), layer.bias
        if isinstance(layer, nn.BatchNorm2d):
            assert abs(float(weight.mean()) - 1.0) < 0.01 and not bias.any() and layer.eps == 1e-5
        else:
            assert bias is None and abs(float(weight.mean())) < 0.001
        assert float(weight.std()) == pytest.approx(0.02, rel=0.5 if weight.dim() == 1 else 0.03)


def test_zhao_first_weights() -> None:
    """normal_init reaches the two embeddings and the generator's: N(0, 0.002), bias 0; else torch's U(-1/sqrt(f), 1/sqrt(f))."""
    recipe = built(ZHAO, ImageSpec(side=32))
    for layer in layers(recipe.model):
        weight = layer.weight.detach()
        if isinstance(layer, nn.Linear):
            assert float(weight.std()) == pytest.approx(0.002, rel=0.02) and not layer.bias.any()
        else:
            bound = 1.0 / sqrt(weight[0].numel())
            assert 0.97 * bound < float(weight.abs().max()) <= 1.00001 * bound and layer.bias.any()


def test_simpsons_first_weights() -> None:
    """weight_init: convolutions N(0, 0.02), bias 0; linear layers and normalisations as torch starts them."""
    recipe = built(SIMPSONS, ImageSpec(side=64), **{"model.latent": 32, "model.width": 32})
    for layer in layers(recipe.model):
        weight = layer.weight.detach()
        if isinstance(layer, nn.Linear):
            assert float(weight.abs().max()) <= 1.00001 / sqrt(weight.shape[1])
        elif isinstance(layer, nn.BatchNorm2d):
            assert (weight == 1).all() and layer.eps == 1e-5
        else:
            assert float(weight.std()) == pytest.approx(0.02, rel=0.06) and not layer.bias.any()


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


class Adam:
    """Torch7's and TensorFlow's (`hat`: epsilon before the correction), or torch's."""

    def __init__(self, parameters: list[Tensor], lr: float, beta: float, hat: bool) -> None:
        self.parameters, self.lr, self.beta, self.hat, self.t = parameters, lr, beta, hat, 0
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def __call__(self, loss: Tensor, clip: float | None = None) -> None:
        grads = list(torch.autograd.grad(loss, self.parameters))
        if clip is not None:
            whole = torch.cat([g.flatten() for g in grads]).norm()
            grads = [g * min(1.0, clip / (float(whole) + 1e-6)) for g in grads]
        self.t += 1
        first, second = 1 - self.beta**self.t, 1 - 0.999**self.t
        with torch.no_grad():
            for p, m, v, g in zip(self.parameters, self.m, self.v, grads, strict=True):
                m.mul_(self.beta).add_(g, alpha=1 - self.beta)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                root = v.sqrt() + 1e-8 if self.hat else v.sqrt() + 1e-8 * sqrt(second)
                p -= self.lr * sqrt(second) / first * m / root


def follow(run: Run, steps: int, theirs: Any, step: Any) -> Any:
    """Ours and a transcription, from equal weights with equal noise; every parameter must end alike."""
    ours = built(run, ImageSpec(side=SIDE), **SMALL[run.preset]).double()
    learner = TrainState(ours, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    for _ in range(steps):
        seen = learner.seen
        learner.step(iter([Batch(IMAGES)]))
        theirs.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        step()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name
    return ours


def test_dcgan_steps() -> None:
    """fDx and fGx: reals, fakes, then the generator on the same fakes. Ours computes the critic's forward again (a deviation)."""
    theirs = built(DCGAN, ImageSpec(side=SIDE), **SMALL[DCGAN.preset]).double()
    adam_d = Adam(list(theirs.critic.parameters()), 2e-4, 0.5, True)
    adam_g = Adam(list(theirs.model.parameters()), 2e-4, 0.5, True)

    def generate(z: Tensor) -> Tensor:
        first, *rest, last = layers(theirs.model)
        x = F.conv_transpose2d(z[:, :, None, None], first.weight)
        for scale, conv in zip(rest[::2], [*rest[1::2], last], strict=True):
            x = F.conv_transpose2d(norm(x, scale).relu(), conv.weight, None, 2, 1)
        return torch.tanh(x)

    def judge(x: Tensor) -> Tensor:
        first, *rest, last = layers(theirs.critic)
        x = F.leaky_relu(F.conv2d(x, first.weight, None, 2, 1), 0.2)
        for conv, scale in zip(rest[::2], rest[1::2], strict=True):
            x = F.leaky_relu(norm(F.conv2d(x, conv.weight, None, 2, 1), scale), 0.2)
        return torch.sigmoid(F.conv2d(x, last.weight)).flatten()

    def step() -> None:
        fakes = generate(theirs.latents(COUNT))
        adam_d(-torch.log(judge(IMAGES)).mean() - torch.log(1 - judge(fakes.detach())).mean())
        adam_g(-torch.log(judge(fakes)).mean())

    follow(DCGAN, 3, theirs, step)


def test_zhao_steps() -> None:
    """train.py: one z for both, the critic first; k and M from the critic's errors, before it moved."""
    theirs = built(ZHAO, ImageSpec(side=SIDE), **SMALL[ZHAO.preset]).double()
    model, state = theirs.model, {"k": 0.0}
    adam_d = Adam(list(model.autoencoder.parameters()), 1e-4, 0.5, False)
    adam_g = Adam(list(model.generator.parameters()), 1e-4, 0.5, False)

    def conv(x: Tensor, layer: Any) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, 1, layer.weight.shape[-1] // 2)

    def decode(h: Tensor, net: Any) -> Tensor:
        x = (h @ net.embed.weight.T + net.embed.bias).reshape(len(h), -1, 8, 8)
        for narrow, stage in zip(
            net.narrow, net.stages, strict=True
        ):  # deconv_block: 1x1, ELU, two 3x3 with ELU, nearest x2
            x = F.elu(conv(x, narrow))
            for layer in layers(stage):
                x = F.elu(conv(x, layer))
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        one, two, last = layers(net.last)
        return torch.tanh(conv(F.elu(conv(F.elu(conv(x, one)), two)), last))

    def encode(x: Tensor, net: Any) -> Tensor:
        first, *rest = layers(net.body)
        x = F.elu(conv(x, first))
        for block in range(2):  # conv_block: two 3x3 with ELU, 1x1, then the pooling
            one, two, narrow = rest[3 * block : 3 * block + 3]
            x = F.avg_pool2d(conv(F.elu(conv(F.elu(conv(x, one)), two)), narrow), 2)
        for layer in rest[6:]:
            x = F.elu(conv(x, layer))
        return x.flatten(1) @ net.embed.weight.T + net.embed.bias

    def error(v: Tensor) -> Tensor:
        return (decode(encode(v, model.autoencoder.encoder), model.autoencoder.decoder) - v).abs().mean()

    def step() -> None:
        z = theirs.latents(COUNT)
        assert z.abs().max() <= 1  # U(-1, 1)
        fakes = decode(z, model.generator)
        real, fake = error(IMAGES), error(fakes.detach())
        adam_d(real - state["k"] * fake)
        adam_g(error(decode(z, model.generator)))
        state["k"] = min(max(state["k"] + 0.001 * float((0.75 * real - fake).detach()), 0.0), 1.0)

    ours = follow(ZHAO, 3, theirs, step)
    assert float(ours.control.k) == pytest.approx(state["k"], rel=1e-5) and state["k"] > 0


def test_simpsons_steps() -> None:
    """Mean squared error + 1.7 times the divergence averaged over batch and dimensions; the gradient's norm is cut to 0.1."""
    theirs = built(SIMPSONS, ImageSpec(side=SIDE), **SMALL[SIMPSONS.preset]).double()
    adam = Adam(list(theirs.model.parameters()), 8e-4, 0.9, False)

    def step() -> None:
        *body, mean, spread = layers(theirs.model.encoder)
        x = IMAGES
        for conv, scale in zip(body[::2], body[1::2], strict=True):
            x = norm(F.conv2d(x, conv.weight, conv.bias, 2, 1), scale).relu()
        h = x.flatten(1)
        mu, s = h @ mean.weight.T + mean.bias, h @ spread.weight.T + spread.bias
        z = mu + torch.exp(0.5 * s) * theirs.noise(mu)
        first, *body, last = layers(theirs.model.decoder)
        x = F.leaky_relu((z @ first.weight.T + first.bias).reshape(COUNT, -1, 4, 4), 0.2)
        for conv, scale in zip(body[::2], body[1::2], strict=True):
            x = F.leaky_relu(norm(F.conv_transpose2d(x, conv.weight, conv.bias, 2, 1), scale), 0.2)
        x = torch.tanh(F.conv_transpose2d(x, last.weight, last.bias, 2, 1))
        kl = -0.5 * (1 + s - mu**2 - s.exp()).mean(1).mean()
        adam(((x - IMAGES) ** 2).mean() + 1.7 * kl, clip=0.1)

    follow(SIMPSONS, 3, theirs, step)
