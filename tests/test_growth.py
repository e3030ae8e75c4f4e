"""Progressive growing inside one network: half the side first; then the layers of the full side imitate, and take over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import mien
from mien import presets
from mien.core.contracts import Batch, ImageSpec
from mien.core.device import DeviceContext
from mien.core.distributed import World
from mien.core.run import Run, override
from mien.errors import Mismatch, UsageError
from mien.models.residual import ResidualCriticConfig, ResidualGeneratorConfig
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.training.ema import EMA
from mien.training.train_state import TrainState
from tests.conftest import tiny, write_pack

GROWING = {"side": 32, "model.grow_side": 32, "recipe.critic.grow_side": 32}
SCHEDULE = {"recipe.grow_images": 32, "recipe.imitate_images": 32}


def growing(**changes: Any) -> Run:
    return override(tiny(presets.PRESETS["gan"]), {**GROWING, **SCHEDULE, **changes})


def state_of(run: Run) -> TrainState:
    torch.manual_seed(0)
    faces = ImageSpec(side=run.side)
    model = run.model.build(faces)
    recipe = run.recipe.build(model, faces)
    context = DeviceContext(torch.device("cpu"), "fp32")
    context.place(recipe)
    recipe.train()
    return TrainState(recipe, EMA(model, run.ema) if run.ema else None, context, World(), 0)


def batches(side: int = 32) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield Batch(torch.rand(8, 3, side, side, generator=generator) * 2.0 - 1.0)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(before[name], parameter)}


def test_the_phases_follow_the_images() -> None:
    state, stream, phases = state_of(growing()), batches(), []
    for _ in range(10):
        stats = state.step(stream)
        phases.append((state.recipe.grown, "imitation_error_critic" in stats, "penalty" in stats))  # type: ignore[attr-defined]
    half, imitating, full = (False, False), (False, True), (True, False)
    assert [phase[:2] for phase in phases] == [*[half] * 4, *[imitating] * 4, *[full] * 2]
    assert [number for number, phase in enumerate(phases) if phase[2]] == [0, 8], "every fourth step of the game"
    assert state.ema is not None and state.ema.model.growth.grown  # type: ignore[attr-defined, union-attr]
    assert state.recipe.gamma_scale == 0.25 and replace_side(state) == 32  # type: ignore[attr-defined]


def replace_side(state: TrainState) -> int:
    """The side of what the generator draws in training."""
    model = state.recipe.model
    return int(model.decode(torch.randn(2, *model.latent_shape)).shape[-1])


def test_layers_without_effect_do_not_move() -> None:
    state, stream = state_of(growing()), batches()
    model, critic = state.recipe.model, state.recipe.critic
    before, judged = weights(model), weights(critic)
    state.step(stream)
    assert replace_side(state) == 16
    assert {name.split(".")[0] for name in moved(before, model)} == {"mapping", "stages", "growth", "style"}
    assert not [
        name for name in moved(before, model) if name.startswith(("stages.2.", "style.2.", "narrow.1.", "last."))
    ]
    assert not [name for name in moved(judged, critic) if name.startswith(("stages.0.", "widen.0.", "first."))]
    for _ in range(3):
        state.step(stream)
    before, judged = weights(model), weights(critic)
    state.step(stream)
    assert {name.split(".", 2)[0] for name in moved(before, model)} == {"narrow", "stages", "style", "last"}
    assert all(name.startswith(("narrow.1.", "stages.2.", "style.2.", "last.")) for name in moved(before, model))
    assert all(name.startswith(("stages.0.", "widen.0.", "first.")) for name in moved(judged, critic))
    for _ in range(3):
        state.step(stream)
    assert state.ema is not None
    for name, mine in state.ema.model.named_parameters():
        if name.startswith(("stages.2.", "style.2.", "last.")):
            assert torch.equal(mine, model.get_parameter(name)), "an average begins when the layers take over"
    before, judged = weights(model), weights(critic)
    state.step(stream)
    assert not [name for name in (*moved(before, model), *moved(judged, critic)) if name.startswith("growth.")]
    assert [name for name in moved(before, model) if name.startswith("stages.2.")]


def test_the_critic_gets_reals_of_the_side_of_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    state, sides = state_of(growing()), []
    critic = state.recipe.critic
    state.recipe.critic.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))  # type: ignore[operator]
    batch = next(batches())
    state.step(iter([batch]))
    assert set(sides) == {16}
    small = F.avg_pool2d(batch.images, 2)
    torch.testing.assert_close(critic(batch.images), critic(small), msg="an image of the full side is reduced")  # type: ignore[operator]


def test_a_grown_network_is_the_network_without_growth() -> None:
    faces, sizes = ImageSpec(side=32), {"width": 4, "max_width": 8, "group": 4}
    grown = ResidualGeneratorConfig(latent=8, grow_side=32, **sizes).build(faces)  # type: ignore[arg-type]
    plain = ResidualGeneratorConfig(latent=8, **sizes).build(faces)  # type: ignore[arg-type]
    plain.load_state_dict({n: t for n, t in grown.state_dict().items() if not n.startswith("growth.")})
    z = torch.randn(3, 8)
    assert torch.equal(grown.decode(z), plain.decode(z))
    critic = ResidualCriticConfig(grow_side=32, **sizes).build(faces)  # type: ignore[arg-type]
    other = ResidualCriticConfig(**sizes).build(faces)  # type: ignore[arg-type]
    other.load_state_dict({n: t for n, t in critic.state_dict().items() if not n.startswith("growth.")})
    assert torch.equal(critic(grown.decode(z)), other(grown.decode(z)))
    assert ResidualGeneratorConfig(latent=8, grow_side=64, **sizes).build(faces).growth is None  # type: ignore[arg-type]


def test_half_the_side_is_enlarged_outside_of_training() -> None:
    model = ResidualGeneratorConfig(latent=8, width=4, max_width=8, grow_side=32).build(ImageSpec(side=32)).eval()
    assert model.growth is not None
    model.growth.set(False)
    z = torch.randn(2, 8)
    shown = model.decode(z)
    torch.testing.assert_close(F.interpolate(model.train().decode(z), scale_factor=2.0, mode="bicubic"), shown)


def test_the_new_layers_come_to_draw_what_the_old_ones_drew() -> None:
    run = growing(
        **{"recipe.grow_images": 8, "recipe.imitate_images": 8 * 300, "model.width": 8, "recipe.critic.width": 8}
    )
    state, stream, errors = state_of(run), batches(), []
    for _ in range(301):
        stats = state.step(stream)
        errors.append({name: float(value) for name, value in stats.items()})
    for name in ("imitation_error_generator", "imitation_error_critic"):
        assert errors[-1][name] < 0.6 * errors[1][name]


@pytest.mark.parametrize("images", [16, 48, 80])
def test_a_checkpoint_draws_what_the_average_drew(images: int, tmp_path: Path) -> None:
    """Before, while and after the layers imitate, also to the bit after a stop in each."""
    pack = write_pack(tmp_path / "faces.pack", count=64, side=32)
    run = replace(growing(), images=images, batch=8, device="cpu")
    mien.train(run, data=pack.path, out=tmp_path / "whole")
    mien.train(replace(run, images=images - 8), data=pack.path, out=tmp_path / "parts")
    mien.train(run, data=pack.path, out=tmp_path / "parts")
    newest = [checkpoint.newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "parts")]
    states = [checkpoint.read_state(path)[0] for path in newest if path is not None]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert int(states[0]["ema.growth.state"]) == (images == 80)
    assert Sampler.load(tmp_path / "whole").sample(range(2)).shape == (2, 3, 32, 32)


def test_a_growing_model_is_exported_as_it_draws(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from mien.export.graph import drawing

    pack = write_pack(tmp_path / "faces.pack", count=64, side=32)
    for images in (16, 48):
        run = mien.train(replace(growing(), images=images, device="cpu"), data=pack.path, out=tmp_path / str(images))
        assert drawing(Sampler.load(run), tmp_path / f"{images}.onnx").difference < 1e-3


def test_a_parent_that_has_not_grown_is_refused(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "faces.pack", count=64, side=32)
    half = mien.train(replace(growing(), images=16, device="cpu"), data=pack.path, out=tmp_path / "half")
    with pytest.raises(Mismatch, match="half its side"):
        mien.train(growing(), data=pack.path, out=tmp_path / "child", parent=half.path)
    assert not (tmp_path / "child").exists()
    whole = mien.train(replace(growing(), images=72, device="cpu"), data=pack.path, out=tmp_path / "whole")
    child = mien.train(
        replace(tiny(presets.PRESETS["gan"]), images=8, device="cpu"),
        data=pack.path,
        out=tmp_path / "child",
        parent=whole.path,
    )
    state = checkpoint.read_state(checkpoint.newest(child.path / "checkpoints")[0])[0]  # type: ignore[arg-type]
    assert int(state["recipe.model.growth.state"]) == 1, "fine-tuning begins at the full side"


def test_networks_grow_together_or_not_at_all() -> None:
    with pytest.raises(UsageError, match="grow-images"):
        state_of(growing(**{"recipe.critic.grow_side": 0}))
    settled = [state_of(growing(side=side)).recipe.settled for side in (16, 32)]
    assert settled == [0, 64], "too small a side does not grow"
