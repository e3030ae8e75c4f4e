"""VAE/GAN: counts, who is moved by which loss and in which direction, who rests, and each knob."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Update
from mien.core.run import override
from mien.errors import UsageError
from mien.models.vaegan import VAEGANCritic, VAEGANCriticConfig, VAEGANModelConfig
from mien.recipes.losses import offset_bce_fake, offset_bce_real
from mien.recipes.vaegan import VAEGAN
from mien.training.train_state import apply_updates, parameters_of
from tests.conftest import blobs, tiny
from tests.test_models import count

IMAGES = torch.from_numpy(blobs(8, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0


def test_counts() -> None:
    with torch.device("meta"):
        model, critic = VAEGANModelConfig().build(ImageSpec()), VAEGANCriticConfig().build(ImageSpec())
    assert (count(model.encoder), count(model.decoder), count(critic)) == (18_071_360, 4_693_155, 10_953_857)


def build(name: str = "vaegan-2016", **changes: Any) -> VAEGAN:
    torch.manual_seed(0)
    run = override(tiny(presets.PRESETS[name]), {f"recipe.{key}": value for key, value in changes.items()})
    recipe = run.recipe.build(run.model.build(ImageSpec(side=16)), ImageSpec(side=16)).train()
    assert isinstance(recipe, VAEGAN)
    recipe.shared_noise.manual_seed(0)
    return recipe


def batches() -> Iterator[Batch]:
    while True:
        yield Batch(IMAGES)


def updates(recipe: VAEGAN) -> dict[str, Update]:
    """What one step yields, in one simultaneous group, by player."""
    (group,) = recipe.step(batches())
    assert isinstance(group, tuple)
    names = {id(optimizer): name for name, optimizer in recipe.optimizers.items()}
    return {names[id(update.optimizer)]: update for update in group}


def gradients(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def by_hand(recipe: VAEGAN) -> dict[str, Tensor]:
    """The terms of a step of the 2016 preset, each on its own."""
    model, critic = recipe.model, recipe.critic
    assert isinstance(critic, VAEGANCritic)
    posterior = model.posterior(IMAGES)
    z = posterior.mean + (0.5 * posterior.log_variance).exp() * recipe.noise(posterior.mean)
    reconstructions, fakes = model.decode(z), model.decode(recipe.latents(8))
    seen, wanted = critic.features(torch.cat([reconstructions, IMAGES]))[1].chunk(2)  # normalised together
    real, fake = critic(torch.cat([IMAGES, fakes])).chunk(2)
    kl = 0.5 * (posterior.mean**2 + posterior.log_variance.exp() - 1 - posterior.log_variance).sum(1).mean()
    return {
        "kl": kl,
        "similarity_error": 0.5 * (seen - wanted.detach()).square().sum((1, 2, 3)).mean(),
        "fake": offset_bce_fake(fake, 1e-3),
        "judgement": 0.5 * offset_bce_real(real, 1e-3) + 0.5 * offset_bce_fake(fake, 1e-3),
    }


def test_routes_of_the_gradient() -> None:
    """Encoder: KL and likeness, never the game. Decoder: likeness and, against the critic, the game. Critic: the game alone."""
    recipe, twin = build(balance="none", similarity_weight=0.3), build(balance="none", similarity_weight=0.3)
    applied = updates(recipe)
    terms = by_hand(twin)
    rules = {
        "encoder": terms["kl"] + terms["similarity_error"],
        "decoder": 0.3 * terms["similarity_error"] - 0.7 * terms["fake"],
        "critic": terms["judgement"],
    }
    for player, rule in rules.items():
        mine = gradients(applied[player].loss, parameters_of(recipe.optimizers[player]))
        theirs = gradients(rule, parameters_of(twin.optimizers[player]))
        assert any(float(g.abs().max()) > 0 for g in theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * float(1 + b.abs().max()))


def test_the_game_never_reaches_the_encoder() -> None:
    recipe = build(balance="none")
    judgement = updates(recipe)["critic"].loss
    assert all(not g.any() for g in gradients(judgement, list(recipe.model.encoder.parameters())))


def test_likeness_would_move_the_critic_if_it_were_not_routed() -> None:
    """The graph does reach the critic: what keeps it out is that each update moves its own optimizer's parameters alone."""
    recipe = build(balance="none")
    before = {name: p.detach().clone() for name, p in recipe.named_parameters()}
    encoder = updates(recipe)["encoder"]
    leaking = gradients(encoder.loss, list(recipe.critic.parameters()))
    assert any(g.any() for g in leaking)
    apply_updates((encoder,))
    moved = {name for name, p in recipe.named_parameters() if not torch.equal(before[name], p)}
    assert moved and all(name.startswith("model.encoder.") for name in moved)


def test_what_the_critic_sees_in_reals_is_a_constant() -> None:
    recipe = build(balance="none")
    critic = recipe.critic
    assert isinstance(critic, VAEGANCritic)
    looks: list[Tensor] = []
    critic.look.register_forward_hook(lambda *given: looks.append(given[-1]))
    encoder = updates(recipe)["encoder"]
    (gradient,) = torch.autograd.grad(encoder.loss, [looks[0]], retain_graph=True)
    of_copies, of_reals = gradient.chunk(2)  # seen in one batch
    assert of_copies.any() and not of_reals.any()
    (gradient,) = torch.autograd.grad(encoder.loss, [looks[1]], allow_unused=True)
    assert gradient is None  # the game's look


@pytest.mark.parametrize("generator_loss", ["saturating", "non-saturating"])
def test_the_sign_trap(generator_loss: str) -> None:
    """The decoder moves so that the critic fails more, and the critic so that it fails less."""
    for player, sign in (("decoder", 1.0), ("critic", -1.0)):
        recipe = build(balance="none", similarity_weight=0.0, generator_loss=generator_loss, optimizer="adam", lr=1e-3)
        applied = updates(recipe)
        before = float(applied["critic"].loss.detach())
        apply_updates((applied[player],))
        recipe.shared_noise.manual_seed(0)
        after = float(updates(recipe)["critic"].loss.detach())
        assert (after - before) * sign > 0


def test_all_three_move_from_one_state() -> None:
    recipe, twin = build(balance="none"), build(balance="none")
    (group,) = recipe.step(batches())
    assert isinstance(group, tuple) and len(group) == 3
    losses = [float(update.loss.detach()) for update in group]
    apply_updates(group)
    assert losses == pytest.approx([float(update.loss.detach()) for update in updates(twin).values()])


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        (0.2, 0.5, (False, True)),
        (0.5, 0.2, (False, True)),
        (0.5, 1.1, (True, False)),
        (0.2, 1.1, (True, True)),  # both would rest: both move
        (0.34, 1.02, (True, True)),
        (0.5, 0.5, (True, True)),
    ],
)
def test_margin_of_the_paper(real: float, fake: float, expected: tuple[bool, bool]) -> None:
    """0.68 +- 0.35: bounds of 0.33 and 1.03."""
    recipe = build()
    assert recipe.who_moves(torch.tensor(real), torch.tensor(fake)) == expected
    assert build(balance="none").who_moves(torch.tensor(real), torch.tensor(fake)) == (True, True)


@pytest.mark.parametrize(
    ("gate", "bounds", "players"),
    [
        ("player", (50.0, 60.0), {"decoder", "encoder"}),  # the critic is far ahead
        ("player", (-9.0, 1.0), {"critic", "encoder"}),  # the decoder is
        ("adversary", (-9.0, 1.0), {"critic", "decoder", "encoder"}),
    ],
)
def test_who_rests(gate: str, bounds: tuple[float, float], players: set[str]) -> None:
    equilibrium, margin = bounds if bounds[0] > 0 else (-9.0, 1.0)
    recipe = build(gate=gate, equilibrium=equilibrium, margin=0.0 if equilibrium > 0 else margin)
    recipe.who_moves = lambda real, fake: ("critic" in players, players == {"decoder", "encoder"})  # type: ignore[method-assign]
    applied = updates(recipe)
    assert set(applied) == players
    if gate == "adversary":  # it still learns to copy, and only that
        mine = gradients(applied["decoder"].loss, parameters_of(recipe.optimizers["decoder"]))
        twin = build()
        copying = gradients(1e-6 * by_hand(twin)["similarity_error"], parameters_of(twin.optimizers["decoder"]))
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-9) for a, b in zip(mine, copying, strict=True))


def test_offset_bounds_the_losses() -> None:
    sure = torch.full((4,), 100.0)
    assert float(offset_bce_fake(sure, 1e-3)) == pytest.approx(-log(1e-3), rel=1e-4)
    assert float(offset_bce_real(-sure, 1e-3)) == pytest.approx(-log(1e-3), rel=1e-4)
    assert float(offset_bce_real(torch.zeros(4), 0.0)) == pytest.approx(log(2.0))


def test_copies_are_judged_only_if_asked() -> None:
    plain, shown = (build(balance="none", reconstructions_as_fakes=flag) for flag in (False, True))
    a, b = (float(updates(recipe)["critic"].loss.detach()) for recipe in (plain, shown))
    assert a != b


def test_pixels() -> None:
    recipe = build("vaegan-torch-2015", balance="none", kl_weight=0.0)
    encoder = updates(recipe)["encoder"]
    twin = build("vaegan-torch-2015")
    posterior = twin.model.posterior(IMAGES)
    reconstructions = twin.model.decode(
        posterior.mean + (0.5 * posterior.log_variance).exp() * twin.noise(posterior.mean)
    )
    expected = 0.5 * (reconstructions - IMAGES).square().sum((1, 2, 3)).mean()
    assert float(encoder.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_rates_anneal() -> None:
    recipe = build()
    rates = []
    for seen in (0, 2_000_000, 4_000_000, 9_000_000):
        recipe.schedule(seen)
        rates.append(recipe.optimizers["decoder"].param_groups[0]["lr"])
    start, end = 0.025 / 64, 1e-5 / 64
    assert rates == pytest.approx([start, start - 0.5**0.75 * (start - end), end, end])


def test_the_critic_perceives_in_its_third_strided_convolution() -> None:
    critic = VAEGANCriticConfig().build(ImageSpec()).eval()
    with torch.no_grad():
        logits, features = critic.features(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2,) and features.shape == (2, 256, 8, 8)
    assert isinstance(critic.look[-1], nn.Conv2d) and not any(
        isinstance(m, nn.BatchNorm2d) for m in list(critic.look)[:2]
    )
    assert sum(m.stride == (2, 2) for m in critic.look if isinstance(m, nn.Conv2d)) == 3


def test_initialisation_has_the_deviation_of_its_fan_in() -> None:
    torch.manual_seed(0)
    model = VAEGANModelConfig(gain=1.0).build(ImageSpec(side=16))
    weight = model.encoder.body[3].weight.detach()  # 64 -> 128
    assert float(weight.std()) == pytest.approx((64 * 25) ** -0.5 / 3, rel=0.02)  # DeepPy's AutoFiller


def test_unfit_partners_are_refused() -> None:
    with pytest.raises(UsageError, match="encoder"):
        run = presets.PRESETS["vaegan-2016"]
        run.recipe.build(tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16)), ImageSpec(side=16))
    with pytest.raises(UsageError, match="features"):
        build("vaegan-torch-2015", similarity="features")


def test_a_batch_of_one_is_refused() -> None:
    """Its linear layers are normalised by feature over the batch."""
    with pytest.raises(UsageError, match="batch of one"):
        next(iter(build().step(iter([Batch(IMAGES[:1])]))))
