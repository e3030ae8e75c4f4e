"""The VAEs: counts, both terms of the bound, each knob, and what keeps information flowing."""

from __future__ import annotations

from collections.abc import Iterator
from math import log, pi
from typing import Any

import pytest
import torch

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Update
from mien.core.families import Gaussian
from mien.core.run import override
from mien.errors import UsageError
from mien.models.simpsons import SimpsonsConfig
from mien.models.torchvae import TorchVAEConfig
from mien.models.vae import ResidualVAE, VAEModelConfig
from mien.recipes import balance
from mien.recipes.losses import haar_bands, reconstruction
from mien.recipes.vae import VAE, draw
from mien.training.train_state import apply_updates
from tests.conftest import blobs, shuffled_weights, tiny
from tests.test_models import count

NAMES = ("vae-simpsons-2023", "vae-torch-2015", "vae")


def test_counts() -> None:
    with torch.device("meta"):
        simpsons, blog = SimpsonsConfig().build(ImageSpec(side=128)), TorchVAEConfig().build(ImageSpec())
    assert count(simpsons) == 139_524_355  # Leikrit's notebook
    assert (count(simpsons.encoder), count(simpsons.decoder)) == (78_137_984, 61_386_371)
    assert count(blog.decoder) == 7_484_675  # the blog's generator


def build(name: str, **changes: Any) -> VAE:
    torch.manual_seed(0)
    run = override(tiny(presets.PRESETS[name]), {f"recipe.{key}": value for key, value in changes.items()})
    recipe = run.recipe.build(run.model.build(ImageSpec(side=16)), ImageSpec(side=16)).train()
    assert isinstance(recipe, VAE)
    recipe.shared_noise.manual_seed(0)
    return recipe


def batches(size: int = 8) -> Iterator[Batch]:
    images = torch.from_numpy(blobs(64, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0
    rows = torch.Generator().manual_seed(1)
    while True:
        yield Batch(images[torch.randint(64, (size,), generator=rows)])


def step(recipe: VAE, source: Iterator[Batch] | None = None) -> Update:
    (update,) = recipe.step(source or batches())
    apply_updates((update,))
    return update


@pytest.mark.parametrize("name", NAMES)
def test_looking_is_deterministic_and_learning_is_not(name: str) -> None:
    recipe = build(name)
    images = next(batches(3)).images
    recipe.eval()
    assert torch.equal(recipe.model.reconstruct(images), recipe.model.reconstruct(images))
    code = recipe.model.posterior(images).mean
    assert torch.equal(recipe.model.encode(images), recipe.model.latents_of(code))
    recipe.train()
    losses = [float(next(iter(recipe.step(iter([Batch(images)])))).loss.detach()) for _ in range(2)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_learns(name: str) -> None:
    recipe = build(name)
    before = [parameter.clone() for parameter in recipe.model.parameters()]
    assert torch.isfinite(step(recipe, batches(1)).loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, recipe.model.parameters(), strict=True))
    assert recipe.model.encode(next(batches(1)).images).shape == (1, *recipe.model.latent_shape)


def test_divergence_in_closed_form() -> None:
    mean, log_variance = torch.tensor([[0.0, 1.0, -2.0]]), torch.tensor([[0.0, 0.5, -1.0]])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0))
    assert torch.allclose(Gaussian(mean, log_variance).divergence(), expected)


def test_reparameterisation() -> None:
    posterior = Gaussian(torch.full((50_000, 1), 3.0), torch.full((50_000, 1), log(4.0)))
    z = draw(posterior, torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0)))
    assert float(z.mean()) == pytest.approx(3.0, abs=0.05) and float(z.std()) == pytest.approx(2.0, abs=0.05)


def test_noise_is_drawn_by_global_row() -> None:
    """Two ranks draw what one draws."""
    recipe = build("vae")
    like = torch.zeros(8, 5)
    whole = recipe.noise(like)
    halves = []
    for rank in (0, 1):
        recipe.shared_noise.manual_seed(0)
        recipe.rank, recipe.world = rank, 2
        halves.append(recipe.noise(like[:4]))
    assert torch.equal(torch.cat(halves), whole)


def test_the_simpsons_loss() -> None:
    """Mean squared error plus 1.7 times the divergence averaged over dimensions: the published formula, in the same noise."""
    recipe, twin = build("vae-simpsons-2023"), build("vae-simpsons-2023")
    images = next(batches()).images
    update = next(iter(recipe.step(iter([Batch(images)]))))
    posterior = twin.model.posterior(images)
    z = posterior.mean + torch.exp(0.5 * posterior.log_variance) * twin.noise(posterior.mean)
    kl = -0.5 * torch.mean(1 + posterior.log_variance - posterior.mean**2 - posterior.log_variance.exp())
    expected = (twin.model.decode(z) - images).square().mean() + 1.7 * kl
    assert float(update.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert update.clip == 0.1


def test_sum_and_mean_differ_by_the_number_of_dimensions() -> None:
    sums, means = (
        build("vae-torch-2015", kl=kl, kl_weight=weight) for kl, weight in (("sum", 768.0), ("mean", 8.0))
    )  # 3 x 16 x 16 pixel values, 8 dimensions
    assert float(step(sums).loss.detach()) == pytest.approx(float(step(means).loss.detach()), rel=1e-5)


def test_unit_variance_is_the_bound_divided_by_the_pixel_values() -> None:
    recipe, twin = build("vae-torch-2015"), build("vae-torch-2015")
    images = next(batches()).images
    update = next(iter(recipe.step(iter([Batch(images)]))))
    posterior = twin.model.posterior(images)
    reconstructions = twin.model.decode(draw(posterior, twin.noise(posterior.mean)))
    likelihood = torch.distributions.Normal(reconstructions, 1.0).log_prob(images).sum((1, 2, 3)).mean() + 384 * log(
        2 * pi
    )
    bound = likelihood - posterior.divergence().sum(1).mean()
    assert float(update.loss.detach()) == pytest.approx(-float(bound.detach()) / 768, rel=1e-5)


def test_the_calibrated_variance_is_the_best_one() -> None:
    errors = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.3
    mse = errors.square().mean()
    best = float(balance.calibrated_nll(mse))
    for variance in (0.05, float(mse), 0.2):
        density = -torch.distributions.Normal(0.0, variance**0.5).log_prob(errors).mean() - 0.5 * log(2 * pi)
        assert best <= float(density) + 1e-6
        assert (best == pytest.approx(float(density), abs=1e-6)) == (variance == float(mse))


def test_the_calibrated_gradient_is_that_of_the_logarithm() -> None:
    error = torch.tensor(0.2, requires_grad=True)
    (gradient,) = torch.autograd.grad(balance.calibrated_nll(error), error)
    assert float(gradient) == pytest.approx(0.5 / 0.2)


def test_haar_bands_are_orthonormal() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    bands = haar_bands(images)
    assert [band.shape[-1] for band in bands] == [8, 8, 8, 4, 4, 4, 4]
    assert sum(band.numel() for band in bands) == images.numel()
    assert float(sum(band.square().sum() for band in bands)) == pytest.approx(float(images.square().sum()), rel=1e-5)
    flat = haar_bands(torch.ones(1, 1, 8, 8))
    assert all(float(band.abs().max()) == 0.0 for band in flat[:-1]) and torch.equal(
        flat[-1], torch.full((1, 1, 4, 4), 2.0)
    )
    assert len(haar_bands(torch.ones(1, 1, 24, 24))) == 3 * 3 + 1  # 24, 12, 6, 3: it stops when it must


def test_bands_of_equal_error_are_one_band() -> None:
    recipe = build("vae")
    noise = torch.randn(512, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    error = reconstruction(noise, torch.zeros_like(noise))
    together = float(recipe.distortion(noise, torch.zeros_like(noise), error))
    assert together == pytest.approx(float(balance.calibrated_nll(error)), abs=1e-3)
    detail = torch.zeros_like(noise)
    detail[:, :, ::2, ::2] = noise[:, :, ::2, ::2]
    smooth = torch.nn.functional.interpolate(noise[:, :, ::4, ::4], scale_factor=4.0)  # all its error in coarse bands
    assert (
        float(recipe.distortion(smooth, torch.zeros_like(smooth), reconstruction(smooth, 0 * smooth))) < together - 0.5
    )


def with_a_flow(couplings: int = 3) -> ResidualVAE:
    """A tiny VAE in float64 whose flow bends."""
    torch.manual_seed(3)
    model = (
        VAEModelConfig(latent=6, width=4, max_width=8, couplings=couplings, coupling_width=8)
        .build(ImageSpec(side=16))
        .double()
    )
    shuffled_weights(model.flow, 0.4)
    return model


@torch.no_grad()
def test_latents_lead_to_codes_and_back() -> None:
    model = with_a_flow()
    images = next(batches(5)).images.double()
    codes, latents = model.posterior(images).mean, model.encode(images)
    assert torch.allclose(model.flow(latents), codes, atol=1e-6) and not torch.allclose(latents, codes, atol=0.1)
    assert torch.allclose(model.reconstruct(images), model.decode_code(codes), atol=1e-6)
    assert torch.equal(model.decode(latents), model.decode_code(model.flow(latents)))


def test_information_is_the_density_of_the_posterior_over_that_of_the_learned_prior() -> None:
    """Against the change of variables with the Jacobian that autograd finds, at the mean of log q that is known exactly."""
    model = with_a_flow()
    posterior = Gaussian(torch.randn(4, 6).double(), torch.randn(4, 6).double() - 2.0)
    codes = draw(posterior, torch.randn(4, 6).double())
    for code, nats, log_variance in zip(
        codes, model.kl(posterior, codes).squeeze(1), posterior.log_variance, strict=True
    ):
        latent = model.flow.inverse(code[None])[0][0]
        slopes = torch.autograd.functional.jacobian(lambda z: model.flow(z[None])[0], latent)
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum() - slopes.det().abs().log()
        entropy = torch.distributions.Normal(0.0, (0.5 * log_variance).exp()).entropy().sum()
        assert float(nats.detach()) == pytest.approx(float((-entropy - prior).detach()), abs=1e-5)


def test_information_of_a_flow_that_only_turns_is_that_without_one() -> None:
    model = VAEModelConfig(latent=6, width=4, max_width=8, couplings=3, coupling_width=8).build(ImageSpec(side=16))
    posterior = Gaussian(
        torch.tensor([[0.5, -1.0, 0.0, 2.0, 0.0, 1.0]]), torch.tensor([[0.0, -1.0, 0.3, -3.0, 0.0, 0.0]])
    )
    many = Gaussian(posterior.mean.expand(100_000, -1), posterior.log_variance.expand(100_000, -1))
    codes = draw(many, torch.randn(100_000, 6, generator=torch.Generator().manual_seed(0)))
    assert float(model.kl(many, codes).mean().detach()) == pytest.approx(float(posterior.divergence().sum()), abs=0.02)


@torch.no_grad()
def test_what_each_number_carries_sums_to_the_information() -> None:
    """Exactly, where scales and shifts are constants, and nearly where the flow bends over the width of the posterior."""
    for bends in (False, True):
        model = with_a_flow()
        if not bends:
            for layer in model.flow.layers:
                layer.last.weight.zero_()
        images = next(batches(3)).images.double()
        posterior = model.posterior(images)
        narrow = Gaussian(posterior.mean, posterior.log_variance - (8.0 if bends else 0.0))
        model.posterior = lambda *_, kept=narrow: kept  # type: ignore[method-assign]
        carried = model.kl_per_dimension(images)
        assert carried.shape == (3, 6) and (carried > 0).any()
        noise = torch.randn(40_000, 1, 6, generator=torch.Generator().manual_seed(0)).double()
        codes = (narrow.mean + noise * (0.5 * narrow.log_variance).exp()).reshape(-1, 6)
        many = Gaussian(codes, narrow.log_variance.expand(40_000, 3, 6).reshape(-1, 6))
        nats = model.kl(many, codes).reshape(40_000, 3).mean(0)
        assert torch.allclose(carried.sum(1), nats, rtol=0.03, atol=0.03), bends


def test_codes_cost_less_under_the_learned_prior() -> None:
    recipe, source = build("vae", lr=3e-3), batches(32)
    for _ in range(150):
        step(recipe, source)
    with torch.no_grad():
        posterior = recipe.model.posterior(next(batches(512)).images)
        codes = draw(posterior, torch.randn(512, 8, generator=torch.Generator().manual_seed(0)))
        learned, normal = recipe.model.kl(posterior, codes).mean(), posterior.divergence().sum(1).mean()
    assert float(learned) < 0.95 * float(normal)


def test_free_nats_cost_nothing() -> None:
    kl = torch.tensor([0.1, 0.4], requires_grad=True)
    paid = balance.free_bits(kl, 0.2)
    assert paid.tolist() == pytest.approx([0.2, 0.4])
    (gradient,) = torch.autograd.grad(paid.sum(), kl)
    assert gradient.tolist() == [0.0, 1.0]


def test_schedules() -> None:
    recipe = build("vae", warmup_images=100, kl_weight=2.0, lr=1e-3, lr_end=1e-4, decay_images=1000)
    prices, rates = [], []
    for seen in (0, 50, 100, 1000):
        recipe.schedule(seen)
        prices.append(recipe.beta)
        rates.append(recipe.optimizers["autoencoder"].param_groups[0]["lr"])
    assert prices == [0.0, 1.0, 2.0, 2.0] and rates[0] == 1e-3 and rates[3] == pytest.approx(1e-4)
    plain = build("vae", decay_images=0)
    plain.schedule(10**6)
    assert plain.beta == 1.0 and plain.optimizers["autoencoder"].param_groups[0]["lr"] == 1e-3


def test_our_vae_keeps_information_where_the_simpsons_price_kills_it() -> None:
    """On drawn blobs: every latent says something on one side, next to nothing passes on the other."""
    ends = {}
    for name, changes in (("vae", {}), ("vae-simpsons-2023", {"clip": None, "kl_weight": 100.0})):
        recipe = build(name, **changes)
        source = batches(32)
        for _ in range(120):
            step(recipe, source)
        ends[name] = recipe.model.kl_per_dimension(next(source).images).mean(0).detach()
    assert int((ends["vae"] > 0.01).sum()) >= 5 and float(ends["vae"].sum()) > 1.5
    assert float(ends["vae-simpsons-2023"].sum()) < 0.2


def test_the_recipe_needs_an_encoder() -> None:
    with pytest.raises(UsageError):
        presets.PRESETS["vae"].recipe.build(
            tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16)), ImageSpec(side=16)
        )


@pytest.mark.parametrize("side", [96, 144])
def test_the_blogs_vae_makes_multiples_of_eight(side: int) -> None:
    model = TorchVAEConfig(latent=4, width=4, encoder_width=2, hidden=8).build(ImageSpec(side=side)).eval()
    assert model.reconstruct(torch.zeros(1, 3, side, side)).shape == (1, 3, side, side)


@pytest.mark.parametrize(
    "knobs", [{"couplings": -1}, {"couplings": 2, "latent": 1}, {"couplings": 2, "coupling_width": 0}]
)
def test_a_flow_that_is_not_possible_is_refused(knobs: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="couplings"):
        VAEModelConfig(**knobs).build(ImageSpec(side=16))


def test_our_vae_never_mixes_the_batch() -> None:
    model = VAEModelConfig(latent=8, width=4, max_width=8).build(ImageSpec(side=16)).train()
    images = next(batches()).images
    assert torch.allclose(model.reconstruct(images)[:1], model.reconstruct(images[:1]), atol=1e-5)
