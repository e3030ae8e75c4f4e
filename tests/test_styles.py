"""Truncation toward a mean face, for every family; styles, their tracked mean, and their mixing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from mien import presets
from mien.core.contracts import JSON, ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.families import StyleModel
from mien.core.run import EMAConfig, Run, override, to_json
from mien.data.loader import Loader
from mien.data.pack import Pack
from mien.errors import UsageError
from mien.models.residual import MappingNetwork, ResidualGenerator, ResidualGeneratorConfig
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.sampling.styles import Style, in_layers
from mien.training.ema import EMA
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny

ENGINE = DeviceContext(torch.device("cpu"), "fp32")
MAPPED = override(tiny(presets.PRESETS["quick"]), {"model.mapping": 2})
ONE_OF_A_KIND = ("quick", "r3gan-2024", "flow", "vae", "vaegan-2016", "began-2017", "began-zhao", "dcgan-2015", "torch-gan-2015",
                 "vae-torch-2015", "homogan-15", "cppn-2016")  # fmt: skip


def drawn_by(run: Run) -> Sampler:
    """A model with weights that have never learned, whose faces differ."""
    torch.manual_seed(1)
    model = run.model.build(ImageSpec(side=16))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    header: JSON = {"faces": to_json(ImageSpec(side=16))}
    return Sampler(model.eval().requires_grad_(False), header, ENGINE, "")


def mapped(**changes: Any) -> ResidualGenerator:
    torch.manual_seed(2)
    config = ResidualGeneratorConfig(**{"latent": 8, "width": 8, "max_width": 16, "mapping": 2} | changes)
    model = config.build(ImageSpec(side=32))
    for name, parameter in model.named_parameters():
        if name.startswith("style"):
            torch.nn.init.normal_(parameter, 0.0, 0.5)
    return model


# Truncation


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_truncation_leads_every_family_to_one_face(name: str) -> None:
    """1 is the face itself, to the bit; 0 is one face for all seeds; between them pictures move ever farther from it."""
    sampler = drawn_by(tiny(presets.PRESETS[name]))
    seeds = range(6)
    faces, mean = sampler.sample(seeds), sampler.sample(seeds, truncation=0.0)
    assert torch.equal(sampler.with_options(DrawOptions(truncation=1.0)).sample(seeds), faces)
    assert torch.equal(mean, mean[:1].expand_as(mean)) and (faces - mean).abs().max() > 1e-3
    far = [float((sampler.sample(seeds, truncation=t) - mean).square().mean()) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(nearer < farther for nearer, farther in pairwise(far))


def test_truncation_is_felt_by_a_model_that_normalises_its_latents() -> None:
    """The length of a latent says nothing there, so that scaling it would change nothing."""
    sampler = drawn_by(tiny(presets.PRESETS["quick"]))
    z = sampler.latents([1, 2])
    assert torch.allclose(sampler.decode(z * 0.5), sampler.decode(z), atol=1e-5)
    assert not torch.allclose(sampler.with_options(DrawOptions(truncation=0.5)).decode(z), sampler.decode(z), atol=1e-3)


def test_the_face_in_the_middle_is_that_of_the_mean_style() -> None:
    model = mapped().eval()
    assert model.mapper is not None
    model.mapper.mean.copy_(model.styles(model.prior.draw(range(2000), (8,))).mean(0))
    z = model.prior.draw(range(3), (8,))
    middle = model.decode_styles([model.mean_style.expand(3, -1)] * model.style_count)
    assert torch.equal(model.decode_truncated(z, 0.0), middle)
    half = model.decode_styles([0.5 * (model.styles(z) + model.mean_style)] * model.style_count)
    assert torch.allclose(model.decode_truncated(z, torch.tensor(0.5)), half, atol=1e-6)


# The mapping network


def test_no_mapping_is_the_network_of_before() -> None:
    plain, styled = mapped(mapping=0).state_dict(), mapped().state_dict()
    assert not [name for name in plain if name.startswith("mapper")]
    assert styled.keys() - plain.keys() == {
        "mapper.mean", *(f"mapper.layers.{n}.{part}" for n in (0, 1) for part in ("weight", "bias"))
    }  # fmt: skip
    assert plain["mapping.weight"].shape == styled["mapping.weight"].shape


def test_a_mapping_keeps_the_size_of_latents() -> None:
    torch.manual_seed(0)
    w = MappingNetwork(64, 4).eval()(torch.randn(4096, 64)).detach()
    assert float(w.square().mean()) == pytest.approx(1.0, rel=0.25)


def test_the_mean_of_styles_is_tracked_while_learning_alone() -> None:
    torch.manual_seed(3)
    network = MappingNetwork(8, 2)
    truth = network.eval()(torch.randn(20_000, 8)).mean(0).detach()
    assert float(truth.norm()) > 0.3 and float(network.mean.norm()) == 0.0
    network.train()
    for _ in range(600):
        network(torch.randn(32, 8))
    assert float((network.mean - truth).norm()) < 0.1 * float(truth.norm())
    before = network.mean.clone()
    network.eval()(torch.randn(32, 8))
    assert torch.equal(network.mean, before)


@pytest.mark.parametrize("mixing", [0.0, 0.9])
def test_a_mapped_run_resumes_to_the_bit_and_its_average_has_a_mean_style(blob_pack: Pack, mixing: float) -> None:
    run = override(MAPPED, {"recipe.style_mixing": mixing})

    def learned(pieces: tuple[int, ...]) -> dict[str, Tensor]:
        tensors, counters = None, None
        for steps in pieces:
            learner = ResolvedRun(run, blob_pack, ENGINE, None, "blobs").initial_state(World())
            if tensors is not None and counters is not None:
                learner.restore(tensors, counters)
            loader = Loader(blob_pack, batch=run.batch, seed=0, position=learner.seen, threads=0, flip=run.flip)
            for _ in range(steps):
                learner.step(loader)
            tensors, counters = {k: v.clone() for k, v in learner.tensors().items()}, learner.counters()
        assert tensors is not None
        return tensors

    whole, cut = learned((6,)), learned((2, 3, 1))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert float(whole["recipe.model.mapper.mean"].norm()) > 0 and float(whole["ema.mapper.mean"].norm()) > 0


def test_the_average_follows_the_mean() -> None:
    model = mapped()
    assert model.mapper is not None
    average = EMA(model, EMAConfig(half_life=8, warmup=0.0))
    model.mapper.mean.fill_(1.0)
    average.update(model, 8, 8)
    assert isinstance(average.model, ResidualGenerator) and average.model.mapper is not None
    assert torch.allclose(average.model.mapper.mean, torch.full((8,), 0.5))


def test_impossible_knobs() -> None:
    for wrong in ({"model.mapping": -1}, {"model.mapping": 99}, {"recipe.style_mixing": 1.5}):
        with pytest.raises(UsageError):
            override(presets.PRESETS["quick"], wrong)


# Mixing


def test_styles_are_mixed_stage_by_stage() -> None:
    model = mapped().eval()
    z, other = model.prior.draw([1], (8,)), model.prior.draw([2], (8,))
    own, others = model.styles(z), model.styles(other)
    assert model.style_count == 3
    for stage in range(3):
        shares = torch.zeros(1, 3)
        shares[:, stage] = 1.0
        expected = model.decode_styles([others if at == stage else own for at in range(3)])
        assert torch.equal(model.decode_mixed(z, other, shares), expected)
        assert not torch.equal(expected, model.decode(z))
    assert torch.equal(model.decode_mixed(z, other, torch.zeros(1, 3)), model.decode(z))
    assert torch.equal(model.decode_mixed(z, other, torch.ones(1, 3)), model.decode(other))


def test_a_sampler_mixes_seeds() -> None:
    sampler = drawn_by(MAPPED)
    assert isinstance(sampler.model, StyleModel) and sampler.model.style_count == 2
    whole, other = sampler.sample([7, 8]), sampler.sample([42])[0]
    assert torch.equal(sampler.with_options(DrawOptions(style="42:1-2")).sample([7, 8]), torch.stack([other, other]))
    one, two = (sampler.with_options(DrawOptions(style=f"42:{stage}")).sample([7, 8]) for stage in (1, 2))
    assert not torch.equal(one, whole) and not torch.equal(two, whole) and not torch.equal(one, two)
    truncated = sampler.with_options(DrawOptions(style="42:2", truncation=0.0)).sample([7])
    assert torch.equal(truncated, sampler.with_options(DrawOptions(truncation=0.0)).sample([7]))
    assert sampler.with_options(DrawOptions(style="42:fine")).metadata()["style"] == "42:fine"


@pytest.mark.parametrize(
    ("count", "parts"), [(1, (0, 1, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (1, 2, 1)), (5, (2, 1, 2))]
)
def test_thirds_share_the_stages(count: int, parts: tuple[int, ...]) -> None:
    found = [Style(42, word).columns(count) for word in ("coarse", "middle", "fine")]
    assert tuple(some.stop - some.start for some in found) == parts
    assert [at for some in found for at in range(count)[some]] == list(range(count))


@pytest.mark.parametrize(
    "words", ["", "42", "42:", "x:fine", "42:thin", "42:1-", "-1:fine", "42:fine:fine", "4.2:fine"]
)
def test_words_that_name_no_styles(words: str) -> None:
    with pytest.raises(UsageError, match="names no styles"):
        Style.of(words)


def test_an_edit_of_some_layers_leaves_the_others() -> None:
    """The stages outside take the style of the face before the edit, whatever else is drawn of it."""
    sampler = drawn_by(MAPPED)
    model, z = sampler.model, sampler.latents([7, 8])
    assert isinstance(model, StyleModel) and model.style_count == 2
    moved = z + torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    whole, before = sampler.decode(moved), sampler.decode(z)
    own, after = model.styles(z), model.styles(moved)
    for layers, styles in (("1", [after, own]), ("2", [own, after]), ("fine", [own, after])):
        edited = sampler.decode(in_layers(model, z, moved, layers))
        assert torch.allclose(edited, model.decode_styles(styles).clamp(-1, 1), atol=1e-5), layers
        assert (edited - whole).abs().max() > 1e-3 and (edited - before).abs().max() > 1e-3, layers
        assert torch.allclose(sampler.preview(in_layers(model, z, moved, layers)), edited, atol=1e-5)
    assert torch.equal(sampler.decode(in_layers(model, z, moved, "1-2")), whole)
    mixed = sampler.with_options(DrawOptions(style="42:2", truncation=0.8))
    assert torch.equal(mixed.decode(in_layers(model, z, moved, "2")), mixed.decode(z)), (
        "another face's style comes last"
    )
    assert torch.equal(mixed.decode(in_layers(model, z, moved, "1")), mixed.decode(moved))
    for wrong in ("0", "3", "2-1", "rough", "42:2"):
        with pytest.raises(UsageError, match="There are no stages"):
            in_layers(model, z, moved, wrong)
    with pytest.raises(UsageError, match="no layers to edit"):
        in_layers(drawn_by(tiny(presets.PRESETS["vae"])).model, z, moved, "1")


def test_styles_that_there_are_not() -> None:
    sampler = drawn_by(MAPPED)
    for words in ("42:0", "42:3", "42:2-1", "42:1-9"):
        with pytest.raises(UsageError, match="stages"):
            sampler.with_options(DrawOptions(style=words))
    with pytest.raises(UsageError, match="no style stages"):
        drawn_by(tiny(presets.PRESETS["vae"])).with_options(DrawOptions(style="42:fine"))
    with pytest.raises(UsageError, match="not a valid seed"):
        sampler.with_options(DrawOptions(style=f"{2**53}:fine")).sample([1])
