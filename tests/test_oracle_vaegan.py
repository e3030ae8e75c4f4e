"""vaegan-2016 against facts of its authors' code: autoencoding_beyond_pixels@24aa0f2 on deeppy@8cb658b.

Nothing here is computed by the code that it tests, but for the random numbers, which both are given.
"""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext, mix
from mien.core.distributed import World
from mien.core.run import override
from mien.models.vaegan import VAEGANCriticConfig, VAEGANModelConfig
from mien.recipes.vaegan import VAEGAN
from mien.training.train_state import SHARED, TrainState
from tests.conftest import blobs

RUN = presets.PRESETS["vaegan-2016"]
AFFINE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def layers(network: nn.Module) -> list[nn.Module]:
    """What has parameters, in order."""
    return [module for module in network.modules() if isinstance(module, (*AFFINE, nn.BatchNorm2d))]


#: filler.py: fan_in of each affine layer in order. Of a backward convolution `[inputs, outputs, k, k]`: outputs k^2.
FAN_IN = {
    "encoder": [3 * 25, 64 * 25, 128 * 25, 256 * 64, 1024, 1024],
    "decoder": [128, 256 * 25, 128 * 25, 32 * 25, 32 * 25],
    "critic": [3 * 25, 32 * 25, 128 * 25, 256 * 25, 256 * 64, 512],
}


def test_first_weights() -> None:
    """AutoFiller with gain 1: U(-b, b), b = 1 / sqrt(fan_in) / sqrt(3); biases 0; gamma 1, beta 0."""
    torch.manual_seed(0)
    recipe = RUN.recipe.build(RUN.model.build(ImageSpec()), ImageSpec())
    assert isinstance(recipe, VAEGAN)
    players = {"encoder": recipe.model.encoder, "decoder": recipe.model.decoder, "critic": recipe.critic}
    for name, network in players.items():
        affine = [module for module in layers(network) if isinstance(module, AFFINE)]
        for module, fan_in in zip(affine, FAN_IN[name], strict=True):
            bound, weight = 1.0 / sqrt(fan_in) / sqrt(3.0), module.weight.detach()
            assert 0.98 * bound < float(weight.abs().max()) <= 1.000001 * bound, (name, module)
            assert float(weight.std()) == pytest.approx(bound / sqrt(3.0), rel=0.08)
            assert module.bias is None or not module.bias.any()
        for module in layers(network):
            if isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and not module.bias.any()


def test_the_divergence_starts_small() -> None:
    """Each of 128 means has a variance of 1024 / (9 x 1024) x 1/2 at first, as has each logarithm: about 5.3 nats in all."""
    torch.manual_seed(0)
    model = VAEGANModelConfig().build(ImageSpec()).train()
    with torch.no_grad():
        images = torch.from_numpy(blobs(64, 64)).permute(0, 3, 1, 2) / 127.5 - 1.0
        assert 4.0 < float(model.posterior(images).divergence().sum(1).mean()) < 7.0  # three times louder: over 50


def test_eps_of_the_normalisations() -> None:
    """SpatialBatchNormalization(eps=bn_eps) has 1e-6; BatchNormalization(noise_std=...) keeps its default, 1e-5."""
    model, critic = VAEGANModelConfig().build(ImageSpec()), VAEGANCriticConfig().build(ImageSpec())
    found = [
        [m.eps for m in layers(net) if isinstance(m, nn.BatchNorm2d)] for net in (model.encoder, model.decoder, critic)
    ]
    assert found == [[1e-6, 1e-6, 1e-6, 1e-5], [1e-5, 1e-6, 1e-6, 1e-6], [1e-6, 1e-6, 1e-6, 1e-5]]


@pytest.mark.parametrize(
    ("images", "rate"),
    [
        (0, 0.025 / 64),
        (15_999, 0.025 / 64),  # all of epoch 0
        (50 * 16_000, (0.025 - (50 / 250) ** 0.75 * (0.025 - 1e-5)) / 64),
        (125 * 16_000 + 64, 1.584e-4),
        (249 * 16_000, 1.328e-6),  # the last epoch
    ],
)
def test_rates(images: int, rate: float) -> None:
    """GammaAnnealer(0.025, 1e-5, 250, gamma=0.75).value(epoch) / 64, set before each epoch of 250 batches of 64."""
    recipe = RUN.recipe.build(VAEGANModelConfig(width=4, hidden=4).build(ImageSpec(side=16)), ImageSpec(side=16))
    recipe.schedule(images)
    rates = [group["lr"] for optimizer in recipe.optimizers.values() for group in optimizer.param_groups]
    assert rates == pytest.approx([rate] * 6, rel=1e-3)
    recipe.schedule(4_000_000)
    assert recipe.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(1e-5 / 64)


def spatial(x: Tensor, module: nn.Module) -> Tensor:
    """SpatialBatchNormalization in training, with biased variance."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * module.weight.view(1, -1, 1, 1) + module.bias.view(1, -1, 1, 1)


def full(x: Tensor, module: nn.Module) -> Tensor:
    """BatchNormalization of `[n, features]`."""
    mean, variance = x.mean(0), x.var(0, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-5) * module.weight + module.bias


def encode(x: Tensor, net: nn.Module) -> tuple[Tensor, Tensor]:
    c1, b1, c2, b2, c3, b3, l1, b4, mean, log_variance = layers(net)
    for conv, norm in ((c1, b1), (c2, b2), (c3, b3)):
        x = spatial(F.conv2d(x, conv.weight, None, 2, 2), norm).relu()
    x = full(x.reshape(len(x), -1) @ l1.weight.T, b4).relu()
    return x @ mean.weight.T + mean.bias, x @ log_variance.weight.T + log_variance.bias


def decode(z: Tensor, net: nn.Module, base: int) -> Tensor:
    l1, b1, t1, n1, t2, n2, t3, n3, last = layers(net)
    x = full(z @ l1.weight.T, b1).relu().reshape(len(z), -1, base, base)
    for conv, norm in ((t1, n1), (t2, n2), (t3, n3)):
        whole = F.conv_transpose2d(
            x, conv.weight, None, 2
        )  # [n, C, 2 h + 3, 2 w + 3]: border "same" cuts 2 off the front
        x = spatial(whole[:, :, 2 : 2 + 2 * x.shape[2], 2 : 2 + 2 * x.shape[3]], norm).relu()
    return torch.tanh(F.conv2d(x, last.weight, last.bias, 1, 2))


def look(x: Tensor, net: nn.Module) -> Tensor:
    """recon_depth 9: up to the third strided convolution, before its normalisation."""
    c0, c1, b1, c2, b2, c3, *_ = layers(net)
    x = F.conv2d(x, c0.weight, c0.bias, 1, 2).relu()
    x = spatial(F.conv2d(x, c1.weight, None, 2, 2), b1).relu()
    x = spatial(F.conv2d(x, c2.weight, None, 2, 2), b2).relu()
    return F.conv2d(x, c3.weight, None, 2, 2)


def judge(x: Tensor, net: nn.Module) -> Tensor:
    *_, b3, l1, b4, l2 = layers(net)
    x = spatial(look(x, net), b3).relu().reshape(len(x), -1)
    return torch.sigmoid(full(x @ l1.weight.T, b4).relu() @ l2.weight.T + l2.bias)[:, 0]


def gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def step(recipe: VAEGAN, x: Tensor, squares: dict[Tensor, Tensor], epoch: int) -> set[str]:
    """AEGAN.update and GradientDescent.train_epoch for one batch, on sums. Returns who moved."""
    model, critic, n, w = recipe.model, recipe.critic, len(x), 1e-6
    enc, dec, dis = (list(net.parameters()) for net in (model.encoder, model.decoder, critic))
    mean, log_variance = encode(x, model.encoder)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
    z = mean + (0.5 * log_variance).exp() * recipe.noise(mean)
    base = x.shape[-1] // 8
    copies, drawn = decode(z, model.decoder, base), decode(recipe.latents(n), model.decoder, base)
    seen, wanted = look(torch.cat([copies, x]), critic).chunk(2)  # one forward, one normalisation
    error = 0.5 * ((seen - wanted.detach()) ** 2).sum()
    real, fake = judge(torch.cat([x, drawn]), critic).chunk(2)
    log_real, log_fake = torch.log(real + 1e-3), torch.log(1 - fake + 1e-3)
    real_cost, fake_cost = -log_real.mean().item(), -log_fake.mean().item()
    grads = {
        "encoder": (enc, gradients(kl + error, enc)),
        "decoder": (dec, gradients(w * error + (1 - w) * log_fake.sum(), dec)),  # w of the one, -(1 - w) of the game
        "critic": (dis, gradients(-0.5 * log_real.sum() - 0.5 * log_fake.sum(), dis)),
    }
    critic_moves = not (real_cost < 0.68 - 0.35 or fake_cost < 0.68 - 0.35)
    decoder_moves = not (real_cost > 0.68 + 0.35 or fake_cost > 0.68 + 0.35)
    if not (critic_moves or decoder_moves):
        critic_moves = decoder_moves = True
    moves = {"encoder": True, "decoder": decoder_moves, "critic": critic_moves}
    movers = {name for name, moving in moves.items() if moving}
    heads = {id(layer.weight) for layer in layers(model.encoder)[-2:]}
    decays = {id(m.weight) for net in (model, critic) for m in layers(net) if isinstance(m, AFFINE)} - heads
    lr = (0.025 - (epoch / 250) ** 0.75 * (0.025 - 1e-5)) / n
    with torch.no_grad():
        for name in movers:
            for p, g in zip(*grads[name], strict=True):
                g = g + 2 * 1e-5 * p if id(p) in decays else g
                squares[p] = 0.9 * squares.get(p, torch.zeros_like(p)) + 0.1 * g**2
                p -= lr * g / (squares[p].sqrt() + 1e-8)
    return movers


def small(n: int) -> VAEGAN:
    """The preset at 16 px with fewer maps, in fp64, for batches of `n`: its constants per image stay those of 64."""
    torch.manual_seed(0)
    run = override(
        RUN, {"recipe.critic.width": 4, "recipe.critic.hidden": 16, "recipe.lr": 0.025 / n, "recipe.lr_end": 1e-5 / n}
    )
    run = override(run, {"recipe.eps": 1e-8 / n, "recipe.weight_decay": 2e-5 / n})
    model = VAEGANModelConfig(latent=6, width=8, hidden=16).build(ImageSpec(side=16))
    recipe = run.recipe.build(model, ImageSpec(side=16))
    assert isinstance(recipe, VAEGAN)
    return recipe.double().train()


def test_steps() -> None:
    """Three whole steps from equal weights, with equal noise: every parameter ends where DeepPy's would."""
    images = (torch.from_numpy(blobs(8, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0).double()
    ours, theirs = small(8), small(8)
    learner = TrainState(ours, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    squares: dict[Tensor, Tensor] = {}
    moved = set()
    for _ in range(3):
        seen = learner.seen
        learner.step(iter([Batch(images)]))
        theirs.shared_noise.manual_seed(mix(0, seen, SHARED, 0))
        moved |= step(theirs, images, squares, 0)
    assert moved == {"encoder", "decoder", "critic"}
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9), name


def test_faces_are_normalised_by_the_statistics_of_reconstructions() -> None:
    """`decoder_neggrad` is a deep copy of the decoder that shares its weights, not its running means: fakes leave them alone."""
    images = (torch.from_numpy(blobs(8, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0).double()
    recipe = small(8)
    first = recipe.model.decoder.body[2]  # behind the linear layer
    inputs: list[Tensor] = []
    first.register_forward_hook(lambda _, given, __: inputs.append(given[0].detach().clone()))
    learner = TrainState(recipe, None, DeviceContext(torch.device("cpu"), "fp64"), World(), 0)
    learner.step(iter([Batch(images)]))
    reconstructed, drawn = inputs
    assert torch.allclose(first.running_mean, 0.1 * reconstructed.mean((0, 2, 3)))
    assert torch.allclose(first.running_var, 0.9 + 0.1 * reconstructed.var((0, 2, 3)))
    assert not torch.allclose(reconstructed.var((0, 2, 3)), drawn.var((0, 2, 3)), rtol=0.1)
    assert all(layer.momentum == 0.1 for layer in recipe.model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_weight_decay() -> None:
    """2 * 1e-5 * weight on sums, for weights of affine and convolutional layers but the encoder's two heads."""
    recipe = small(8)
    decays = {
        (id(p), group["weight_decay"])
        for optimizer in recipe.optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    heads = {id(p) for layer in layers(recipe.model.encoder)[-2:] for p in layer.parameters()}
    for p in recipe.parameters():
        (decay,) = [value for key, value in decays if key == id(p)]
        assert decay == pytest.approx(2e-5 / 8 if p.dim() > 1 and id(p) not in heads else 0.0)
    assert RUN.recipe.weight_decay == pytest.approx(2e-5 / 64)  # type: ignore[attr-defined]
