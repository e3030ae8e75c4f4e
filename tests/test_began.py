"""BEGAN against its published counts and rules, and each knob of both presets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mien import presets
from mien.core.contracts import Batch, ImageSpec, Recipe, Update
from mien.core.families import AutoencoderCriticModel
from mien.core.run import config_fields, override
from mien.errors import UsageError
from mien.models.began import BEGANModel, BEGANModelConfig
from mien.models.zhao import ZhaoBEGAN, ZhaoConfig
from mien.recipes.balance import PlateauDetector, ProportionalControl
from mien.recipes.began import BEGAN
from mien.training.train_state import apply_updates
from tests.conftest import tiny
from tests.test_models import count


def size(config: BEGANModelConfig | ZhaoConfig, side: int) -> dict[str, int]:
    """Parameters without the memory for them."""
    with torch.device("meta"):
        model = config.build(ImageSpec(side=side))
    return {name: count(network) for name, network in model.named_children()} | {"all": count(model)}


@pytest.mark.parametrize(
    ("layout", "width", "side", "skips", "expected"),
    [
        ("author", 128, 128, True, 17_268_038),  # the paper's "17.3M"
        ("author", 128, 32, True, 6_041_926),
        ("author", 128, 64, True, 10_548_934),
        ("author", 64, 32, True, 2_173_126),
        ("author", 64, 64, True, 3_431_302),
        ("author", 64, 128, True, 5_242_566),
        ("figure", 128, 128, True, 25_527_366),
        ("figure", 128, 128, False, 24_347_718),
        ("figure", 64, 32, True, 3_058_502),
        ("figure", 64, 64, True, 4_832_902),
        ("figure", 64, 128, True, 7_307_846),
    ],
)
def test_counts_of_the_paper(layout: Any, width: int, side: int, skips: bool, expected: int) -> None:
    assert size(BEGANModelConfig(layout=layout, width=width, skips=skips), side)["all"] == expected


@pytest.mark.parametrize(
    ("side", "upsampling", "generator", "linear", "exponential"),
    [
        (32, "nearest", 497_859, 2_352_195, 3_138_819),
        (32, "transposed", 629_059, 2_483_395, 3_270_019),
        (64, "nearest", 575_875, 3_921_923, 9_116_611),
        (64, "transposed", 772_675, 4_118_723, 9_313_411),
        (128, "nearest", 653_891, 6_188_163, 30_693_507),
        (128, "transposed", 916_291, 6_450_563, 30_955_907),
    ],
)
def test_counts_of_zhao(side: int, upsampling: Any, generator: int, linear: int, exponential: int) -> None:
    grown = size(ZhaoConfig(upsampling=upsampling), side)
    assert (grown["generator"], grown["autoencoder"]) == (generator, linear)
    assert size(ZhaoConfig(upsampling=upsampling, growth="exponential"), side)["autoencoder"] == exponential


@pytest.mark.parametrize(
    "config", [BEGANModelConfig(width=4, hidden=8, latent=8), ZhaoConfig(width=4, encoder_width=4)]
)
def test_sides_are_eight_times_a_power_of_two(config: BEGANModelConfig | ZhaoConfig) -> None:
    for side, nearest in ((8, "16"), (48, "32 or 64"), (100, "64 or 128")):
        with pytest.raises(UsageError) as caught:
            config.build(ImageSpec(side=side))
        assert nearest in caught.value.remedy
    for side, stages in ((16, 1), (128, 4)):
        model = config.build(ImageSpec(side=side))
        if isinstance(model, ZhaoBEGAN):
            assert len(model.generator.stages) == stages
        else:
            assert isinstance(model, BEGANModel) and len(model.generator.merge) == stages


def slow_decoder(decoder: Any, z: torch.Tensor) -> torch.Tensor:
    """Zhao's decoder in the order of its description: every stage ends in its upsampling."""
    x = decoder.embed(z).unflatten(1, (-1, 8, 8))
    for narrow, stage in zip(decoder.narrow, decoder.stages, strict=True):
        x = stage(nn.functional.elu(narrow(x)))
        x = nn.functional.interpolate(x, scale_factor=2.0)
    return torch.tanh(decoder.last(x))


@torch.no_grad()
def test_narrow_convolutions_commute_with_changes_of_resolution() -> None:
    torch.manual_seed(0)
    model = ZhaoConfig(latent=8, width=8, encoder_width=4).build(ImageSpec(side=64)).double()
    z = torch.rand(2, 8, dtype=torch.float64)
    assert torch.allclose(model.decode(z), slow_decoder(model.generator, z), atol=1e-12)
    x = images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    layers = list(model.autoencoder.encoder.body)
    while layers:
        layer = layers.pop(0)
        x = (
            layers.pop(0)(x) if isinstance(layer, nn.AvgPool2d) else layer(x)
        )  # the 1x1 convolution first, as described ...
        x = layer(x) if isinstance(layer, nn.AvgPool2d) else x  # ... and then the pooling
    assert torch.allclose(model.autoencoder.encoder.embed(x.flatten(1)), model.encode(images), atol=1e-12)


@pytest.mark.parametrize("layout", ["author", "figure"])
@torch.no_grad()
def test_carry_of_one_makes_blended_layers_the_identity(layout: Any) -> None:
    torch.manual_seed(0)
    model = BEGANModelConfig(layout=layout, width=4, hidden=8, latent=8, deviation=0.3).build(ImageSpec(side=32))
    images, z = torch.rand(2, 3, 32, 32), torch.rand(2, 8)
    ends: dict[float, list[torch.Tensor]] = {0.0: [], 0.5: [], 1.0: []}
    for _ in range(2):
        for carry, outputs in ends.items():
            model.carry.fill_(carry)
            outputs += [model.decode(z), model.reconstruct(images)]
        for name, parameter in model.named_parameters():
            if "convolution" in name:  # of a Blend
                parameter.add_(0.1)
    for carry, (faces, copies, faces_again, copies_again) in ends.items():
        assert torch.equal(faces, faces_again) == torch.equal(copies, copies_again) == (carry == 1.0)


@torch.no_grad()
def test_carry_of_zero_is_the_plain_network() -> None:
    model = BEGANModelConfig(width=4, hidden=8, latent=8, deviation=0.3, skips=False).build(ImageSpec(side=16))
    x = nn.functional.interpolate(
        model.generator.merge[0](model.generator.embed(z := torch.rand(2, 8)).view(2, 4, 8, 8)), scale_factor=2.0
    )
    plain = model.generator.last(nn.functional.elu(model.generator.blends[0][0].convolution(x)))  # type: ignore[index]
    assert torch.allclose(model.decode(z), plain, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["author", "figure"])
def test_skips_hand_h0_to_every_level(layout: Any) -> None:
    """Without the maps of h0 in its merging layers, the decoder is the one without skips."""
    torch.manual_seed(0)
    model = BEGANModelConfig(layout=layout, width=4, hidden=8, latent=8, deviation=0.3).build(ImageSpec(side=32))
    bare = BEGANModelConfig(layout=layout, width=4, hidden=8, latent=8, skips=False).build(ImageSpec(side=32))
    z, state = torch.rand(2, 8), model.state_dict()
    cut = {n: state[n][:, : p.shape[1]] if p.dim() == 4 else state[n] for n, p in bare.state_dict().items()}
    bare.load_state_dict(cut)
    assert not torch.allclose(model.decode(z), bare.decode(z), atol=1e-5)
    for merge in model.generator.merge:
        merge.weight[:, 4:] = 0.0  # type: ignore[index]
    assert torch.allclose(model.decode(z), bare.decode(z), atol=1e-6)


@pytest.mark.parametrize(
    ("initialise", "small"),
    [("framework", set()), ("linear", {"Linear"}), ("all", {"Linear", "Conv2d", "ConvTranspose2d"})],
)
def test_zhao_initialisation_reaches_what_it_names(initialise: Any, small: set[str]) -> None:
    model = ZhaoConfig(width=16, encoder_width=16, upsampling="transposed", initialise=initialise).build(
        ImageSpec(side=16)
    )
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            deviation = float(module.weight.detach().std())
            assert (deviation == pytest.approx(0.002, rel=0.2)) == (type(module).__name__ in small)


def test_the_published_initialisation_of_all_layers_does_not_train() -> None:
    """N(0, 0.002) on every convolution: what goes in hardly comes out, and so no gradient tells faces apart."""
    torch.manual_seed(0)
    spread = {}
    for initialise in ("framework", "all"):
        model = ZhaoConfig(initialise=initialise).build(ImageSpec(side=32)).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            spread[initialise] = float(model.decode(model.prior.draw(range(16), (64,))).std(0).mean())
    assert spread["all"] < 1e-8 < 1e-3 < spread["framework"]


def test_encodings_have_their_own_decoder() -> None:
    model = BEGANModelConfig(width=4, hidden=6, latent=8, deviation=0.3).build(
        ImageSpec(side=16)
    )  # N_h and N_z may differ
    images = torch.rand(3, 3, 16, 16)
    code = model.encode(images)
    assert code.shape == (3, 6) and model.latent_shape == (8,)
    assert torch.equal(model.decode_encoding(code), model.reconstruct(images))
    assert model.decode(torch.zeros(1, 8)).shape == (1, 3, 16, 16)


def test_k_rule() -> None:
    """L(x) 0.2, L(G(z)) 0.05, gamma 0.5: k = 0.001 (0.1 - 0.05) = 5e-5 and M = 0.25; k never leaves [0, 1]."""
    control = ProportionalControl(0.5, 1e-3)
    measure = control.update(torch.tensor(0.2), torch.tensor(0.05))
    assert float(control.k) == pytest.approx(5e-5) and float(measure) == pytest.approx(0.25)
    control.update(torch.tensor(0.0), torch.tensor(1e6))
    assert float(control.k) == 0.0
    control.update(torch.tensor(1e6), torch.tensor(0.0))
    assert float(control.k) == 1.0


def plateaus(plateau: PlateauDetector, measures: list[float]) -> list[int]:
    return [index for index, measure in enumerate(measures) if plateau.update(torch.tensor(measure))]


def test_stall() -> None:
    falling, flat = [1.0, 1.0, 0.8, 0.8, 0.6, 0.6], [1.0] * 6
    assert plateaus(PlateauDetector(2, 0.97), falling) == [] and plateaus(PlateauDetector(2, 0.97), flat) == [3, 5]
    assert plateaus(PlateauDetector(0, 0.97), flat) == []
    back = [1.0, 1.0, 0.5, 0.5, 0.9, 0.9]  # M rises again, but stays under the first mark
    assert (
        plateaus(PlateauDetector(2, 0.97), back) == [5]
        and plateaus(PlateauDetector(2, 0.97, lazy_mark=True), back) == []
    )
    late = [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]  # flat at the end; the whole history's mean still falls: 1, 0.75, 0.67
    assert (
        plateaus(PlateauDetector(2, 0.97), late) == [5]
        and plateaus(PlateauDetector(2, 0.97, whole_history=True), late) == []
    )


def build(name: str, **changes: Any) -> BEGAN:
    torch.manual_seed(0)
    run = override(tiny(presets.PRESETS[name]), {f"recipe.{key}": value for key, value in changes.items()})
    recipe = run.recipe.build(run.model.build(ImageSpec(side=16)), ImageSpec(side=16)).train()
    assert isinstance(recipe, BEGAN)
    recipe.shared_noise.manual_seed(0)
    return recipe


def batches() -> Iterator[Batch]:
    torch.manual_seed(1)
    while True:
        yield Batch(torch.rand(8, 3, 16, 16) * 2 - 1)


def step(recipe: Recipe) -> list[tuple[Update, ...]]:
    """One step, applied; what was yielded."""
    groups = []
    for group in recipe.step(batches()):
        groups.append(group if isinstance(group, tuple) else (group,))
        apply_updates(groups[-1])
    return groups


def value(stat: torch.Tensor) -> float:
    return float(stat.detach())


@pytest.mark.parametrize(("updates", "sizes"), [("simultaneous", [2]), ("alternating", [1, 1])])
def test_order_of_updates(updates: str, sizes: list[int]) -> None:
    assert [len(group) for group in step(build("began-zhao-2020", updates=updates))] == sizes


@pytest.mark.parametrize("latents", ["shared", "independent"])
def test_losses_of_a_simultaneous_step(latents: str) -> None:
    """Recomputed by hand from the state before the step."""
    recipe, twin = (build("began-2017", latents=latents, gamma=0.9) for _ in range(2))
    recipe.control.k.fill_(0.3)
    model: AutoencoderCriticModel = twin.model
    images = next(batches()).images
    with torch.no_grad():
        first = model.decode(twin.latents(8))
        second = model.decode(twin.latents(8)) if latents == "independent" else first
        real, fake, generator_loss = ((model.reconstruct(v) - v).abs().mean() for v in (images, second, first))
    ((critic, generator),) = step(recipe)
    assert value(critic.loss) == pytest.approx(float(real - 0.3 * fake), rel=1e-5)
    assert value(generator.loss) == pytest.approx(float(generator_loss), rel=1e-5)
    expected = 0.3 + 1e-3 * (0.9 * float(real) - float(generator_loss))
    assert float(recipe.control.k) == pytest.approx(expected, rel=1e-5)
    assert value(generator.stats["convergence"]) == pytest.approx(
        float(real + (0.9 * real - generator_loss).abs()), rel=1e-5
    )


def test_alternating_generator_is_judged_by_the_critic_that_has_moved() -> None:
    together, after = (build("began-zhao-2020", updates=u, lr=1e-2) for u in ("simultaneous", "alternating"))
    ((critic, simultaneous),), ((first,), (second,)) = step(together), step(after)
    assert value(critic.loss) == pytest.approx(value(first.loss), rel=1e-5)
    assert value(second.loss) != pytest.approx(value(simultaneous.loss), rel=1e-5)


@pytest.mark.parametrize("source", ["critic", "generator"])
def test_which_error_moves_k(source: str) -> None:
    recipe = build("began-zhao-2020", k_from=source, lr=1e-2)
    (critic,), (generator,) = step(recipe)
    fake = critic.stats["fake_error"] if source == "critic" else generator.loss
    assert float(recipe.control.k) == pytest.approx(
        max(0.0, 1e-3 * (0.75 * value(critic.stats["real_error"]) - value(fake))), rel=1e-5
    )


def test_the_critics_error_on_fakes_counts_against_it() -> None:
    """With k = 1 and enough steps the critic reproduces fakes worse than with k = 0."""
    ends = []
    for k in (0.0, 1.0):
        recipe = build("began-zhao-2020", k_step=0.0, lr=1e-3)
        recipe.control.k.fill_(k)
        for _ in range(10):
            groups = step(recipe)
        ends.append(value(groups[0][0].stats["fake_error"]))
    assert ends[1] > ends[0]


@pytest.mark.parametrize(("fault", "factor"), [(True, 0.75), (False, 0.5)])
def test_rates_fall_by_the_factor_or_by_gamma(fault: bool, factor: float) -> None:
    recipe = build("began-zhao-2020", plateau_decays_by_gamma=fault)
    recipe.lower_rates()
    assert [o.param_groups[0]["lr"] for o in recipe.optimizers.values()] == pytest.approx([factor * 1e-4] * 2)
    floored = build("began-zhao-2020", lr_floor=9e-5)
    floored.lower_rates()
    assert floored.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(9e-5)


def test_a_stalled_measure_lowers_the_rates() -> None:
    recipe = build("began-2017", plateau_steps=2, plateau_tolerance=0.0)
    rates = []
    for _ in range(6):
        step(recipe)
        rates.append(recipe.optimizers["critic"].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5])


def test_carry_falls_over_sixteen_thousand_steps() -> None:
    recipe = build("began-2017")
    carries = []
    for seen in (0, 128_000, 256_000, 10**7):
        recipe.schedule(seen)
        carries.append(float(recipe.model.carry))
    assert carries == [1.0, 0.5, 0.0, 0.0] and 16_000 * presets.PRESETS["began-2017"].batch == 256_000
    assert "model.carry" in recipe.state_dict()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_norm(norm: str) -> None:
    recipe = build("began-2017", norm=norm)
    images = next(batches()).images
    gap = recipe.model.reconstruct(images) - images
    expected = gap.abs().mean() if norm == "l1" else gap.square().mean()
    assert value(recipe.error(images)) == pytest.approx(value(expected), rel=1e-6)


def test_gamma_is_a_ratio() -> None:
    with pytest.raises(UsageError):
        override(presets.PRESETS["began-zhao"], {"recipe.gamma": 1.5})


def test_the_recipe_needs_a_model_that_judges_itself() -> None:
    run = presets.PRESETS["began-zhao"]
    with pytest.raises(UsageError):
        run.recipe.build(tiny(presets.PRESETS["quick"]).model.build(ImageSpec(side=16)), ImageSpec(side=16))


#: Every parameter of the original's train.py: the knob here, and its default there.
PARAMETERS: dict[str, tuple[tuple[str, Any], ...]] = {
    "input_dim": (("side", 32),),
    "output_dim": (("side", 32),),
    "hidden_dim": (("model.latent", 64),),
    "ngf": (("model.width", 64),),
    "ndf": (("model.encoder_width", 64),),
    "nc": (),  # the data's: packs hold colour
    "n_layers": (("model.layers", 2),),
    "exp": (("model.growth", "linear"),),
    "t_conv": (("model.upsampling", "nearest"),),
    "mean": (("model.mean", 0.0),),
    "std": (("model.deviation", 0.002),),
    "batch_size": (("batch", 64),),
    "n_epochs": (("images", 1000 * 202_599),),
    "lr": (("recipe.lr", 1e-4),),
    "b1": (("recipe.beta1", 0.5),),
    "b2": (("recipe.beta2", 0.999),),
    "outf": (),  # --out
    "data_path": (),  # --data
    "lambda_k": (("recipe.k_step", 1e-3),),
    "gamma": (("recipe.gamma", 0.75),),
    "sample_interval": (("sample_every", 0),),  # by time
    "show_every": (("log_every", 0), ("save_every", 0)),
    "lr_update_step": (("recipe.plateau_steps", 3000),),
    "lr_gamma": (("recipe.plateau_factor", 0.5), ("recipe.plateau_decays_by_gamma", True)),
}


def test_every_parameter_of_the_original_has_its_knob_and_its_row() -> None:
    known = {knob.name: knob.value for knob in config_fields(presets.PRESETS["began-zhao-2020"])}
    page = (Path(__file__).parent.parent / "docs" / "presets-encode.md").read_text(encoding="utf-8")
    table = page.partition("### sicongzhao's parameters")[2].partition("\n\nKept")[0]
    rows = {cells[1]: cells[3] for line in table.splitlines() if len(cells := line.split("|")) == 5}
    for parameter, turned in PARAMETERS.items():
        (row,) = [here for there, here in rows.items() if f"`{parameter}`" in there]
        for name, default in turned:
            assert known[name] == default and f"--{name.replace('_', '-')}" in row, parameter
    flags = {f"--{name.replace('_', '-')}" for name in known} | {"--data", "--out"}
    assert set(re.findall(r"--[a-z][\w.-]*", table)) <= flags
