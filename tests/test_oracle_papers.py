"""began-2017, r3gan-2024 and vae-torch-2015 against facts of their papers and pages, where no code by their authors says more.

BEGAN: arXiv:1703.10717, sections 3.3 to 4, and its author's layer library. R3GAN: arXiv:2501.05441, algorithm and appendix.
"""

from __future__ import annotations

from math import cos, pi, sqrt
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
from tests.test_oracle_others import Adam, layers

BEGAN, R3GAN, VAE = (presets.PRESETS[name] for name in ("began-2017", "r3gan-2024", "vae-torch-2015"))
IMAGES = (torch.from_numpy(blobs(4, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0).double()


def built(run: Run, faces: ImageSpec, **changes: Any) -> Any:
    torch.manual_seed(0)
    run = override(run, changes)
    return run.recipe.build(run.model.build(faces), faces).train()


def learner_of(recipe: Any) -> TrainState:
    return TrainState(recipe, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)


def test_began_first_weights() -> None:
    """The library's truncated normal with 0.01, biases 0."""
    for layer in layers(built(BEGAN, ImageSpec(side=32), **{"model.width": 16}).model):
        weight = layer.weight.detach()
        assert float(weight.abs().max()) <= 0.0201 and float(weight.std()) == pytest.approx(0.0088, rel=0.15)
        assert not layer.bias.any()


def test_began_steps() -> None:
    """L_D = L(x) - k_t L(G(z_D)), L_G = L(G(z_G)), both from one state; then k_t moves by what the generator's fakes cost."""
    small = {"model.width": 3, "model.latent": 5, "model.hidden": 5}
    ours, theirs = (built(BEGAN, ImageSpec(side=16), **small).double() for _ in range(2))
    learner = learner_of(ours)
    learner.seen = 128_000  # half of the 16,000 steps over which the carry falls
    adam = {
        "d": Adam(list(theirs.model.autoencoder.parameters()), 1e-4, 0.9, False),
        "g": Adam(list(theirs.model.generator.parameters()), 1e-4, 0.9, False),
    }
    k = 0.0

    def conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, stride, 1)

    def blend(x: Tensor, layer: Any, carry: float) -> Tensor:
        return carry * x + (1 - carry) * F.elu(conv(x, layer))

    def decode(h: Tensor, net: Any, carry: float) -> Tensor:
        h0 = (h @ net.embed.weight.T + net.embed.bias).reshape(len(h), -1, 8, 8)
        (merge,), (blends,) = net.merge, net.blends  # one doubling from 8 to 16 px
        x = conv(h0, merge).repeat_interleave(2, 2).repeat_interleave(2, 3)
        for layer in layers(blends):
            x = blend(x, layer, carry)
        return conv(x, net.last)

    def encode(v: Tensor, net: Any, carry: float) -> Tensor:
        x = conv(v, net.first)
        for layer in layers(net.blends):
            x = blend(x, layer, carry)
        x = conv(x, net.grow[0], 2)
        return x.flatten(1) @ net.embed.weight.T + net.embed.bias

    for _ in range(3):
        seen = learner.seen
        learner.step(iter([Batch(IMAGES)]))
        theirs.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        carry = 1.0 - seen / 256_000
        auto = theirs.model.autoencoder

        def error(v: Tensor, auto: Any = auto, carry: float = carry) -> Tensor:
            return (v - decode(encode(v, auto.encoder, carry), auto.decoder, carry)).abs().mean()

        fakes = decode(theirs.latents(4), theirs.model.generator, carry)
        with torch.no_grad():
            other = decode(theirs.latents(4), theirs.model.generator, carry)
        real, fake, generated = error(IMAGES), error(other), error(fakes)
        gradient_d, gradient_g = real - k * fake, generated
        grads = torch.autograd.grad(gradient_g, adam["g"].parameters, retain_graph=True)
        adam["d"](gradient_d)
        frozen = sum((p * g).sum() for p, g in zip(adam["g"].parameters, grads, strict=True))  # the gradient of before
        adam["g"](frozen)  # type: ignore[arg-type]
        k = min(max(k + 0.001 * float((0.5 * real - generated).detach()), 0.0), 1.0)
    assert float(ours.control.k) == pytest.approx(k, rel=1e-5) and k > 0
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name


def test_began_rates() -> None:
    """1e-4, halved when M stalls; nothing by time alone."""
    recipe = built(BEGAN, ImageSpec(side=16), **{"model.width": 2, "recipe.plateau_steps": 2})
    rates = []
    for measure in (1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4):
        recipe.schedule(10**6)
        if recipe.plateau.update(torch.tensor(measure)):
            recipe.lower_rates()
        rates.append(recipe.optimizers["critic"].param_groups[0]["lr"])
    assert rates[1::2] == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5])


def test_r3gan_first_weights() -> None:
    """N(0, gain / sqrt(fan_in)): gain sqrt(2 / 1.04) L^(-1/4) of a block's first two layers, 0 of its third, else 1."""
    run = override(R3GAN, {"model.width": 64, "recipe.critic.width": 64})
    torch.manual_seed(0)
    model = run.model.build(ImageSpec(side=64))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    stds = [float(m.weight.detach().std() * sqrt(m.weight[0].numel())) for m in convolutions]
    inside = sqrt(2 / 1.04) * 10**-0.25  # ten blocks at 64 px
    assert sum(std == 0 for std in stds) == 10
    assert sum(std == pytest.approx(inside, rel=0.06) for std in stds) == 20


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_r3gan_schedules(share: float) -> None:
    """Everything follows half a cosine to 20 million images, which are 40 million of ours: two pulls a step."""
    recipe = built(R3GAN, ImageSpec(side=64), **{"model.width": 32, "recipe.critic.width": 32})
    recipe.schedule(int(share * 40_000_000))
    half = (1 + cos(pi * min(share, 1.0))) / 2
    group = recipe.optimizers["critic"].param_groups[0]
    assert group["lr"] == pytest.approx(5e-5 + 1.5e-4 * half) and group["betas"][0] == 0.0
    assert group["betas"][1] == pytest.approx(0.99 - 0.09 * half)
    assert recipe.gamma == pytest.approx(0.2 + 1.8 * half)


def test_r3gan_step() -> None:
    """softplus of paired differences, gamma / 2 (R1 + R2) in the critic's loss; fresh reals and latents for the generator."""
    small = {"model.width": 32, "recipe.critic.width": 32, "recipe.augment.mode": "none"}
    ours, theirs = (built(R3GAN, ImageSpec(side=16), **small).double() for _ in range(2))
    for recipe in (ours, theirs):
        torch.manual_seed(1)
        for p in recipe.parameters():
            nn.init.normal_(p, 0.0, 0.1)  # its third layers start at zero
    learner = learner_of(ours)
    learner.step(iter([Batch(IMAGES), Batch(IMAGES.flip(3))]))
    theirs.schedule(0)
    theirs.shared_noise.manual_seed(mix(0, 0, SHARED, 0))
    critic, model = theirs.critic, theirs.model
    x, g = IMAGES.clone().requires_grad_(), model.decode(theirs.latents(4)).detach().requires_grad_()
    real, fake = critic(x), critic(g)
    slopes = [
        torch.autograd.grad(d.sum(), v, create_graph=True)[0].square().sum((1, 2, 3)).mean()
        for d, v in ((real, x), (fake, g))
    ]
    loss = F.softplus(fake - real).mean() + 2.0 / 2 * (slopes[0] + slopes[1])

    def adam(loss: Tensor, parameters: list[Tensor]) -> None:
        with torch.no_grad():
            for p, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                root = ((0.1 * grad**2) / 0.1).sqrt()  # beta2 0.9, corrected
                p -= 2e-4 * grad / (root + 1e-8)

    adam(loss, list(critic.parameters()))
    fake = critic(model.decode(theirs.latents(4)))
    adam(F.softplus(critic(IMAGES.flip(3)).detach() - fake).mean(), list(model.parameters()))
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8), name
    assert learner.seen == 8


def test_vae_torch_step() -> None:
    """y0ast/VAE-Torch: squared error / 2 and divergence, both sums, for the batch; Adam at 1e-3. Here both over pixel values."""
    small = {"model.latent": 5, "model.width": 3, "model.encoder_width": 2, "model.hidden": 7}
    ours, theirs = (built(VAE, ImageSpec(side=16), **small).double() for _ in range(2))
    learner = learner_of(ours)
    learner.step(iter([Batch(IMAGES)]))
    theirs.shared_noise.manual_seed(mix(0, 0, SHARED, 0))
    posterior = theirs.model.posterior(IMAGES)
    mu, s = posterior.mean, posterior.log_variance
    x = theirs.model.decode(mu + torch.exp(0.5 * s) * theirs.noise(mu))
    total = 0.5 * ((x - IMAGES) ** 2).sum() - 0.5 * (1 + s - mu**2 - s.exp()).sum()
    Adam(list(theirs.model.parameters()), 1e-3, 0.9, False)(total / IMAGES.numel())
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name
    for seen in (0, 10, 1000, 10**5, 10**6):
        ours.schedule(seen)
        assert ours.optimizers["autoencoder"].param_groups[0]["lr"] == 1e-3
