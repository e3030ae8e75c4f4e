"""Our own adversarial recipe: pixels without a period, one set of fakes for both players, and its scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import kills
from torch import Tensor

from mien import presets
from mien.__main__ import main
from mien.core.contracts import Batch, ImageSpec
from mien.core.run import scale_run
from mien.data.pack import Pack
from mien.errors import UsageError
from mien.models.residual import ResidualCritic, ResidualCriticConfig, ResidualGeneratorConfig
from mien.nn.pixel_shuffle import ShuffleConv, input_layer, output_layer
from mien.nn.residual_blocks import GroupedBlock
from mien.recipes.losses import relativistic_loss
from mien.recipes.relativistic_gan import RelativisticGAN, RelativisticGANConfig
from mien.storage.run_directory import RunDirectory


def spread_inside(images: Tensor) -> float:
    """How far apart the pixels are that no border reaches."""
    inside = images.detach()[..., 6:-6, 6:-6]
    return float((inside.amax((2, 3)) - inside.amin((2, 3))).max())


def test_smooth_doubling_has_no_period_and_shuffled_channels_have() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 12, 1, 1).expand(2, 12, 8, 8)  # the same everywhere
    smooth, shuffled = output_layer(12, 3, patch=2, full_res_width=8), ShuffleConv(12, 3, patch=2)
    torch.nn.init.normal_(shuffled.weight)  # as after training: at the start its pixels are made equal
    assert smooth(features).shape == shuffled(features).shape == (2, 3, 16, 16)
    assert spread_inside(smooth(features)) < 1e-5 < 0.1 < spread_inside(shuffled(features))


@pytest.mark.parametrize("fine", [0, 4])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_every_pixel_reaches_the_features(fold: int, fine: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 16, 16, requires_grad=True)
    features = input_layer(3, 8, fold, fine)(images)
    assert features.shape == (1, 8, 16 // fold, 16 // fold)
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    assert bool((gradient.abs().sum(1) > 0).all())


def small(**changes: object) -> tuple[RelativisticGAN, Batch]:
    torch.manual_seed(0)
    faces = ImageSpec(side=16)
    model = ResidualGeneratorConfig(latent=8, width=8, max_width=8, full_res_width=4).build(faces)
    torch.nn.init.normal_(model.style[0].weight)
    critic = ResidualCriticConfig(width=8, max_width=8, full_res_width=4)
    recipe = RelativisticGANConfig(critic=critic, **changes).build(model, faces)  # type: ignore[arg-type]
    return recipe, Batch(torch.randn(4, 3, 16, 16))


def test_both_players_learn_from_the_same_fakes() -> None:
    recipe, batch = small(resample_fakes=False)
    drawn: list[Tensor] = []
    fakes = recipe.fakes
    recipe.fakes = lambda given: drawn.append(fakes(given)) or drawn[-1]  # type: ignore[method-assign,func-returns-value]
    critic, generator = recipe.step(iter([batch]))
    assert len(drawn) == 1
    weights = list(recipe.model.parameters())
    found = torch.autograd.grad(generator.loss, weights, retain_graph=True)
    real, fake, _ = recipe.judge(batch, drawn[0])
    wanted = torch.autograd.grad(relativistic_loss(fake, real), weights)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    own = torch.autograd.grad(critic.loss, weights, allow_unused=True)
    assert all(gradient is None for gradient in own)  # the critic's loss does not reach the generator


def test_the_generator_is_measured_against_the_logits_that_reals_had_before_the_critic_moved() -> None:
    recipe, batch = small(resample_fakes=False)
    drawn: list[Tensor] = []
    fakes = recipe.fakes
    recipe.fakes = lambda given: drawn.append(fakes(given)) or drawn[-1]  # type: ignore[method-assign,func-returns-value]
    updates = recipe.step(iter([batch]))
    next(updates)
    assert isinstance(recipe.critic, ResidualCritic)
    with torch.no_grad():
        before = recipe.critic(batch.images)
        recipe.critic.last.weight.mul_(3.0)
        after = recipe.critic(drawn[0])
    rows: list[int] = []
    recipe.critic.register_forward_hook(lambda critic, given, logits: rows.append(len(logits)))
    torch.testing.assert_close(next(updates).loss, relativistic_loss(after, before))
    assert rows == [len(batch.images)]  # the fakes alone


def test_fresh_fakes_are_drawn_twice() -> None:
    recipe, batch = small(resample_fakes=True)
    count = 0
    fakes = recipe.fakes

    def counted(given: Batch) -> Tensor:
        nonlocal count
        count += 1
        return fakes(given)

    recipe.fakes = counted  # type: ignore[method-assign]
    list(recipe.step(iter([batch])))
    assert count == 2


def test_reals_of_another_pull_need_fakes_of_their_own() -> None:
    with pytest.raises(UsageError, match="resample-fakes"):
        RelativisticGANConfig(critic=ResidualCriticConfig(), resample_reals=True, resample_fakes=False)


def test_the_penalty_goes_with_the_pixels() -> None:
    game = presets.PRESETS["gan"].recipe
    for side, gamma in ((32, 0.1), (64, 0.4), (128, 1.6)):
        faces = ImageSpec(side=side)
        recipe = game.build(ResidualGeneratorConfig(width=8, max_width=8).build(faces), faces)
        recipe.schedule(150_000)
        assert recipe.gamma == pytest.approx(gamma)  # type: ignore[attr-defined]


def test_a_grouped_block_mixes_its_neighbourhood_in_groups() -> None:
    """At least `group` maps each, as many groups as divide the width; the block starts as the identity."""
    torch.manual_seed(0)
    x = torch.randn(1, 20, 5, 5)
    for group, groups in ((16, 2), (10, 4), (40, 1), (64, 1), (12, 2), (1, 40)):
        block = GroupedBlock(20, group, blocks=3)
        assert block.grouped.groups == groups
        assert torch.equal(block(x), x)
    with pytest.raises(UsageError, match="group must be"):
        ResidualGeneratorConfig(group=-1).build(ImageSpec(side=16))


def test_grouped_networks_train_and_export(mien, tmp_path, blob_pack) -> None:  # type: ignore[no-untyped-def]
    small = ("--model.width", 8, "--model.max-width", 16, "--recipe.critic.width", 8, "--recipe.critic.max-width", 16)
    grouped = (
        "--model.group",
        4,
        "--recipe.critic.group",
        4,
        "--model.full-res-width",
        4,
        "--batch",
        8,
        "--images",
        32,
    )
    mien("train", "gan", "--data", blob_pack.path, "--out", "run", *small, *grouped)
    mien("export", "run", "--to", "onnx", "-o", "model.onnx")
    assert (tmp_path / "model.onnx").is_file()


def macs(run: presets.Run) -> float:
    """Multiplications of the generator's convolutions, counted from the shapes that pass."""
    network = run.model.build(ImageSpec(side=32))
    count = 0

    def add(layer: torch.nn.Conv2d, _given: object, out: Tensor) -> None:
        nonlocal count
        count += layer.weight.numel() * out.shape[2] * out.shape[3]

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(add)  # type: ignore[arg-type]
    network.decode(torch.zeros(1, *network.latent_shape))
    return count


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_scale_is_the_cost_of_an_image(scale: float) -> None:
    gan = presets.PRESETS["gan"]
    turned = scale_run(gan, scale)
    assert macs(turned) / macs(gan) == pytest.approx(scale, rel=0.15)
    assert turned.recipe.critic.width == turned.model.width == gan.model.width * scale**0.5  # type: ignore[attr-defined]
    assert turned.recipe.critic.full_res_width == turned.model.full_res_width  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", ["quick", "cgan", "flow", "vae"])
def test_undated_presets_can_be_scaled(preset: str) -> None:
    run = presets.PRESETS[preset]
    assert scale_run(run, 1.0) == run
    assert scale_run(run, 4.0).model.width == 2 * run.model.width  # type: ignore[attr-defined]


def test_scaling_a_reproduction_is_refused() -> None:
    with pytest.raises(UsageError, match="published"):
        scale_run(presets.PRESETS["torch-gan-2015"], 2.0)
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="--scale"):
            scale_run(presets.PRESETS["gan"], scale)


def test_quick_is_the_smallest_gan() -> None:
    quick, gan = presets.PRESETS["quick"], presets.PRESETS["gan"]
    assert quick.model == gan.model and quick.recipe == gan.recipe


def test_the_flag(mien, tmp_path) -> None:  # type: ignore[no-untyped-def]
    told = mien("train", "gan", "--scale", "0.25", "--dry-run", "--json")
    assert '"width": 16' in told.stdout
    refused = mien("train", "began-2017", "--scale", "2", code=2)
    assert "published" in refused.stderr


def test_augment_is_a_word_for_its_mode(blob_pack: Pack, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = [
        "train",
        *kills.small("gan"),
        "--data",
        blob_pack.path,
        "--out",
        out,
        "--images",
        8,
        "--augment",
        "adaptive",
    ]
    assert main([str(word) for word in line]) == 0
    told = RunDirectory(out).run_json
    assert told is not None and told["recipe"]["augment"]["mode"] == "adaptive"
