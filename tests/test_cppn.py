"""CPPNs: counts, one latent at many sizes, the schedules of repeated steps, and classes from labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Recipe, Update
from mien.core.families import ResolutionFreeModel, VariationalModel
from mien.core.run import override
from mien.errors import UsageError
from mien.models.cppn import CPPNConfig, CPPNCriticConfig
from mien.recipes.cppn import CPPNVAEGAN, CPPNClassGAN, compatible
from mien.recipes.losses import pixel_cross_entropy
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.training.train_state import apply_updates
from tests.conftest import blobs, tiny, write_pack
from tests.test_models import count

WIDE, RESIDUAL = CPPNConfig(), CPPNConfig(body="residual", width=6, layers=24)


@pytest.mark.parametrize(("config", "expected"), [(WIDE, 54_273), (RESIDUAL, 5_263)])
def test_counts_of_the_grey_originals(config: CPPNConfig, expected: int) -> None:
    assert count(config.build(ImageSpec(side=26, channels=1)).decoder) == expected


@pytest.mark.parametrize("config", [WIDE, RESIDUAL])
@torch.no_grad()
def test_one_latent_at_two_sizes_agrees_where_they_meet(config: CPPNConfig) -> None:
    """26 and 51 places from end to end: every second place of the finer grid is one of the coarser."""
    torch.manual_seed(0)
    model = config.build(ImageSpec(side=26)).eval()
    z = model.prior.draw(range(3), model.latent_shape)
    coarse, fine = model.decode(z), model.decode_at(z, 51)
    assert coarse.shape == (3, 3, 26, 26) and fine.shape == (3, 3, 51, 51)
    assert torch.allclose(coarse, fine[:, :, ::2, ::2], atol=1e-5)
    assert coarse.std((2, 3)).min() > 1e-4 and (coarse[0] - coarse[1]).abs().max() > 1e-3


@torch.no_grad()
def test_large_pictures_are_painted_in_pieces() -> None:
    model = CPPNConfig(width=4).build(ImageSpec(side=16))
    z = model.prior.draw([0], model.latent_shape)
    assert torch.allclose(model.decode_at(z, 385)[:, :, ::2, ::2], model.decode_at(z, 193), atol=1e-5)


@torch.no_grad()
def test_bf16_does_not_blur_places() -> None:
    model = CPPNConfig(width=16).build(ImageSpec(side=16))
    z = model.prior.draw([0], model.latent_shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.decode_at(z, 64)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, model.decode_at(z, 64))


@torch.no_grad()
def test_residual_blocks_start_near_the_identity() -> None:
    torch.manual_seed(0)
    model = RESIDUAL.build(ImageSpec(side=16))
    x = torch.rand(100, 6)
    assert float((model.decoder.body(x) - x).abs().max()) < 0.5 < float(x.abs().max())


@pytest.mark.parametrize("side", [1, 513])
def test_places_need_two_ends(side: int) -> None:
    with pytest.raises(UsageError) as caught:
        WIDE.build(ImageSpec(side=side))
    assert str(min(max(side, 2), 512)) in caught.value.remedy


def test_pixel_cross_entropy() -> None:
    images, wanted = torch.tensor([0.5, -0.2]), torch.tensor([0.8, -1.0])
    expected = torch.nn.functional.binary_cross_entropy((images + 1) / 2, (wanted + 1) / 2)
    assert float(pixel_cross_entropy(images, wanted)) == pytest.approx(float(expected))
    assert torch.isfinite(pixel_cross_entropy(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0])))


IMAGES = torch.from_numpy(blobs(8, 16)).permute(0, 3, 1, 2) / 127.5 - 1.0


def build(name: str, labels: int = 0, **changes: Any) -> Any:
    torch.manual_seed(0)
    whole = presets.PRESETS[name]
    repeats = {
        key: value for key, value in vars(whole.recipe).items() if key in ("vae_steps", "joint_steps", "critic_repeats")
    }
    run = override(tiny(whole), {f"recipe.{key}": value for key, value in {**repeats, **changes}.items()})
    faces = ImageSpec(side=16, label_dim=labels)
    recipe = run.recipe.build(run.model.build(faces), faces).train()
    recipe.shared_noise.manual_seed(0)
    return recipe


def step(recipe: Recipe, labels: Tensor | None = None) -> list[tuple[str, float, Update]]:
    """Who moved in one step, at which rate."""
    names = {id(optimizer): name for name, optimizer in recipe.optimizers.items()}
    moves = []

    def source() -> Iterator[Batch]:
        yield Batch(IMAGES, labels)

    for update in recipe.step(source()):
        assert isinstance(update, Update)
        moves.append((names[id(update.optimizer)], update.optimizer.param_groups[0]["lr"], update))
        apply_updates((update,))
    return moves


@pytest.mark.parametrize(
    ("below", "expected"),
    [(0.0, 4), (100.0, 1)],  # never, at once
)
def test_part_one_repeats_until_the_critic_is_deceived(below: float, expected: int) -> None:
    recipe = build("cppn-2016", joint_stop_below=below, critic_moves_above=-1.0, critic_moves_below=100.0)
    moves = [(who, rate) for who, rate, _ in step(recipe)]
    assert moves == [("autoencoder", 1e-3)] * 4 + [("autoencoder_joint", 5e-3)] * expected + [("critic", 1e-3)]


@pytest.mark.parametrize(("above", "below"), [(100.0, 100.0), (-1.0, -1.0)])
def test_part_one_lets_the_critic_rest(above: float, below: float) -> None:
    recipe = build("cppn-2016", critic_moves_above=above, critic_moves_below=below)
    assert "critic" not in [who for who, _, _ in step(recipe)]


def test_part_one_losses() -> None:
    recipe, twin = build("cppn-2016"), build("cppn-2016")
    (_, _, first), *_ = step(recipe)
    posterior = twin.model.posterior(IMAGES)
    z = posterior.mean + (0.5 * posterior.log_variance).exp() * twin.noise(posterior.mean)
    probabilities = (twin.model.decode(z) + 1) / 2
    entropy = torch.nn.functional.binary_cross_entropy(probabilities, (IMAGES + 1) / 2, reduction="sum") / 8
    kl = 0.5 * (posterior.mean**2 + posterior.log_variance.exp() - 1 - posterior.log_variance).sum() / 8
    assert float(first.loss.detach()) == pytest.approx(float((entropy + kl).detach()) / 256, rel=1e-4)


def test_part_two_counts_its_steps() -> None:
    recipe = build(
        "cppn-residual-2016",
        joint_stop_above=2.0,
        critic_moves_above=-1.0,
        fake_accuracy_below=2.0,
        fake_accuracy_enough=2.0,
    )
    assert [who for who, _, _ in step(recipe)] == ["autoencoder"] * 16 + ["critic"] * 8
    recipe = build(
        "cppn-residual-2016",
        joint_stop_above=-1.0,
        critic_moves_above=-1.0,
        fake_accuracy_below=2.0,
        fake_accuracy_enough=-1.0,
    )
    assert [who for who, _, _ in step(recipe)] == ["autoencoder", "critic"]
    assert all(update.clip == 5.0 for _, _, update in step(recipe))


def test_part_two_teaches_reals_alone_when_fakes_do_not_slip() -> None:
    recipe = build(
        "cppn-residual-2016", joint_steps=1, critic_moves_above=2.0, real_accuracy_below=2.0, real_accuracy_enough=2.0
    )
    moves = step(recipe)
    assert [who for who, _, _ in moves] == ["autoencoder"] + ["critic_reals"] * 8
    update = moves[-1][2]
    assert 0.0 <= float(update.stats["real_accuracy"]) <= 1.0
    rest = build("cppn-residual-2016", joint_steps=1, critic_moves_above=2.0, real_accuracy_below=-1.0)
    assert [who for who, _, _ in step(rest)] == ["autoencoder"]


def test_part_two_weighs_reals_by_their_classes() -> None:
    """(K real + fake) / (K + 1): with ten digits the original's (10 real + fake) / 11."""
    recipe = build(
        "cppn-residual-2016", labels=2, critic_moves_above=-1.0, fake_accuracy_below=2.0, fake_accuracy_enough=2.0
    )
    assert recipe.classes == 4
    right = compatible(torch.zeros(8, 2), 8, 4)
    ((real, fake),) = {
        (
            float(recipe.class_loss(logits, right).detach()),
            float(recipe.class_loss(logits, torch.zeros_like(right)).detach()),
        )
        for logits in (torch.tensor([[2.0, 0.0, 0.0, 0.0, 1.0]]).expand(8, 5),)
    }
    total = torch.tensor([2.0, 0.0, 0.0, 0.0, 1.0]).logsumexp(0)
    assert real == pytest.approx(float(total) - 2.0, rel=1e-5) and fake == pytest.approx(float(total) - 1.0, rel=1e-5)
    recipe.class_loss = lambda logits, right: logits.sum() * 0 + (1.0 if right.any() else 6.0)
    update = next(iter(recipe.critic_steps(IMAGES, right, 1.0)))
    assert float(update.loss.detach()) == pytest.approx((4 * 1.0 + 6.0) / 5)


def test_pixels_are_not_compared_in_part_two() -> None:
    """With its critic frozen to a constant, only the price of information is left."""
    recipe = build("cppn-residual-2016", joint_steps=1)
    for parameter in recipe.critic.parameters():
        torch.nn.init.zeros_(parameter)
    (_, _, first), *_ = step(recipe)
    kl = first.stats["kl"].detach()
    assert float(first.loss.detach()) == pytest.approx(log(2.0) + 10.0 * float(kl) / 256, rel=1e-4)


def test_classes_are_combinations_of_labels() -> None:
    unknown = float("nan")
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [unknown, 1.0], [unknown, unknown]])
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]]
    assert compatible(labels, 5, 4).int().tolist() == expected
    assert compatible(None, 2, 1).all()


def test_part_two_learns_with_labels() -> None:
    recipe = build("cppn-residual-2016", labels=1)
    assert recipe.critic(IMAGES).shape == (8, 3)
    labels = torch.tensor([[0.0], [1.0]] * 4)
    labels[0] = float("nan")
    assert all(torch.isfinite(update.loss) for _, _, update in step(recipe, labels))


def test_too_many_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="classes"):
        CPPNCriticConfig(classes=True).build(ImageSpec(side=16, label_dim=40))
    assert CPPNCriticConfig(classes=False).build(ImageSpec(side=16, label_dim=40))(IMAGES).shape == (8,)


@pytest.mark.parametrize("name", ["cppn-2016", "cppn-residual-2016"])
def test_unfit_knobs_and_models_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        override(presets.PRESETS[name], {"recipe.joint_steps": 0})
    with pytest.raises(UsageError):
        presets.PRESETS[name].recipe.build(
            tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16)), ImageSpec(side=16)
        )


def test_kinds() -> None:
    model = build("cppn-2016").model
    assert isinstance(model, ResolutionFreeModel) and isinstance(model, VariationalModel)
    assert isinstance(build("cppn-2016"), CPPNVAEGAN) and isinstance(build("cppn-residual-2016"), CPPNClassGAN)


def test_sizes_on_the_command_line(tmp_path: Path, mien: Callable[..., Any]) -> None:
    write_pack(tmp_path / "blobs.pack")
    small = ("--batch", 16, "--images", 16, "--data", "blobs.pack", "--device", "cpu", "--precision", "fp32")
    mien("train", "cppn-2016", "--model.width", 8, "--model.hidden", 8, *small, "--out", "cppn")
    mien("sample", "cppn", "--seeds", "3", "--size", 90, "-o", "faces")
    assert Image.open(tmp_path / "faces" / "seed00000003.png").size == (90, 90)
    mien("walk", "cppn", "--seeds", 3, 4, "--frames", 3, "--size", 48, "-o", "walk.webp")
    assert Image.open(tmp_path / "walk.webp").size == (48, 48)
    assert "--size" in mien("sample", "cppn", "--size", 1, code=2).stderr
    assert "too large" in mien("sample", "cppn", "--size", 4096, "-o", "grid.png", code=2).stderr


def test_only_scalable_models_take_a_size() -> None:
    from mien.core.device import DeviceContext

    model = tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16))
    header = {"faces": {"side": 16, "channels": 3, "label_dim": 0}}
    sampler = Sampler(model, header, DeviceContext(torch.device("cpu"), "fp32"), "")
    with pytest.raises(UsageError, match="16 px only"):
        sampler.with_options(DrawOptions(size=64))
    painter = CPPNConfig(width=4, hidden=4).build(ImageSpec(side=16)).eval()
    large = Sampler(painter, header, DeviceContext(torch.device("cpu"), "fp32"), "").with_options(DrawOptions(size=31))
    assert (
        large.image_spec.side == 31
        and large.sample([1, 2]).shape == (2, 3, 31, 31)
        and large.sample([]).shape == (0, 3, 31, 31)
    )
    assert large.metadata()["size"] == 31
    assert torch.allclose(
        large.sample([1])[:, :, ::2, ::2], large.with_options(DrawOptions(size=16)).sample([1]), atol=1e-5
    )


@pytest.mark.parametrize("body", ["wide", "residual"])
def test_level_weights_let_a_painter_see_its_places(body: str) -> None:
    """Original weights: the latent's share of what enters the residual painter is over five times that of the place."""
    loud = {}
    for weights in ("original", "level"):
        torch.manual_seed(0)
        config = CPPNConfig(
            body=body, width=32, layers=12 if body == "residual" else 3, deviation=0.05, weights=weights, encoder=False
        )
        model = config.build(ImageSpec(side=32))
        assert not hasattr(model, "encoder") and not isinstance(model, VariationalModel)
        painter = model.decoder
        latent = painter.from_latent(torch.randn(2000, 32) * 8.0).std(0).mean()
        place = painter.from_place(painter.places(32)).std(0).mean()
        loud[weights] = (latent / place).item()
    assert loud["original"] > 5.0 and 0.5 < loud["level"] < 2.0


def test_level_weights_start_near_the_identity() -> None:
    torch.manual_seed(0)
    painter = CPPNConfig(body="residual", width=32, layers=12, weights="level").build(ImageSpec(side=16)).decoder
    x = torch.randn(500, 32)
    with torch.no_grad():
        moved = painter.body(x) - x
    assert 0.01 < moved.std() / x.std() < 0.6


def test_the_fixed_painter_is_the_same_face_at_any_size() -> None:
    model = (
        override(presets.PRESETS["cppn-residual-2016-fixed"], {"model.width": 4}).model.build(ImageSpec(side=17)).eval()
    )
    z = torch.randn(2, 32)
    assert torch.allclose(model.decode(z), model.decode_at(z, 33)[:, :, ::2, ::2], atol=1e-5)


@pytest.mark.parametrize("preset", ["cppn-2016", "cppn-residual-2016"])
def test_a_cppn_without_an_encoder_is_told_which_flag_took_it(preset: str) -> None:
    """The error named the kind of model that it already was."""
    run = tiny(presets.PRESETS[preset])
    faces = ImageSpec(side=16, label_dim=3 if run.conditional else 0)
    model = override(run, {"model.encoder": False}).model.build(faces)
    with pytest.raises(UsageError) as caught:
        run.recipe.build(model, faces)
    assert "--model.no-encoder" in caught.value.remedy and type(model).__name__ in caught.value.why
