"""Following velocity fields, and learning one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import cos, exp, pi

import pytest
import torch
from torch import Tensor, nn

from mien.core.contracts import Batch, ImageSpec
from mien.core.families import FlowModel
from mien.errors import UsageError
from mien.models.flow import FlowConfig
from mien.nn.ode import TABLEAUS, Method, Solution, solve, stages
from mien.nn.priors import Normal
from mien.recipes.flow import FlowMatchingConfig
from tests.conftest import shuffled_weights


def decay(x: Tensor, t: Tensor) -> Tensor:
    """dx/dt = -2 t x, so that x(t) = x(0) exp(-t^2)."""
    return -2.0 * t.reshape(-1, *[1] * (x.ndim - 1)) * x


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4", "multistep"])
def test_the_error_falls_at_the_methods_order(method: Method) -> None:
    x = torch.ones(1, 1, dtype=torch.float64)
    errors = [
        abs(float(solve(decay, x, 0.0, 1.0, Solution(method=method, steps=steps))) - exp(-1.0)) for steps in (20, 40)
    ]
    order = TABLEAUS[method].order if method in TABLEAUS else 2
    assert errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.15)


@pytest.mark.parametrize(
    ("method", "looks"), [("euler", 8), ("multistep", 8), ("midpoint", 16), ("heun", 16), ("rk4", 32)]
)
def test_looks_at_the_field_are_counted(method: Method, looks: int) -> None:
    seen: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return decay(x, t)

    solve(field, torch.ones(1, 1), 0.0, 1.0, Solution(method=method, steps=8))
    assert len(seen) == looks and seen == sorted(seen) and seen[0] == 0.0


def test_a_multistep_is_exact_where_the_field_changes_evenly() -> None:
    """Second order: dx/dt = t is followed to the last digit from the second step on, there and back."""
    x = torch.zeros(1, 1, dtype=torch.float64)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return t[:, None].expand_as(x)

    first = 0.5 * (1 / 5 + 0.5 * (1.0 - cos(pi / 5)))  # where the first step ends, which only Euler's can take
    found = solve(field, x, 0.0, 1.0, Solution(method="multistep", steps=5))
    assert float(found) == pytest.approx(0.5 - 0.5 * first**2, abs=1e-12)
    back = solve(field, found, 1.0, 0.0, Solution(method="multistep", steps=5))
    assert float(back) == pytest.approx(float(found) - 0.5 - 0.5 * first**2, abs=1e-12)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_the_adaptive_error_keeps_its_bound(tolerance: float) -> None:
    x = torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    found = solve(decay, x, 0.0, 1.0, Solution(method="adaptive", tolerance=tolerance))
    assert torch.allclose(found, x * exp(-1.0), rtol=5 * tolerance, atol=0)


def test_rows_do_not_see_each_other() -> None:
    """A wild neighbour changes nothing, to the bit, in either direction of time."""
    calm, wild = torch.ones(1, 3), 1e4 * torch.randn(1, 3)
    how = Solution(method="adaptive", tolerance=1e-4)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return (x + t[:, None]).sin() * x.abs()

    for start, end in ((0.0, 1.0), (1.0, 0.0)):
        alone, together = solve(field, calm, start, end, how), solve(field, torch.cat([calm, wild]), start, end, how)
        assert torch.equal(alone[0], together[0])


def test_a_wild_field_is_refused_and_so_are_wrong_settings() -> None:
    def wall(x: Tensor, t: Tensor) -> Tensor:
        return 1.0 / (0.5 - t)[:, None].abs() ** 2 + x

    with pytest.raises(UsageError, match="not solved"):
        solve(wall, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, Solution(method="adaptive", tolerance=1e-6))
    for wrong in ({"steps": 0}, {"tolerance": 0.0}, {"tolerance": float("nan")}):
        with pytest.raises(UsageError):
            Solution(**wrong)  # type: ignore[arg-type]


def test_an_encoded_face_decodes_to_itself() -> None:
    """There and back with a field of random weights, as finely as asked: latent and face return to 1e-3."""
    torch.manual_seed(0)
    model = FlowConfig(width=8, max_width=16, method="adaptive", tolerance=1e-5).build(ImageSpec(side=16))
    shuffled_weights(model, 0.03)
    z = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        face = model.decode(z)
        assert (face - z).abs().mean() > 0.1  # the field moves things
        assert (model.encode(face) - z).abs().max() < 1e-3
        assert (model.reconstruct(z) - z).abs().max() < 1e-3
        rough = model.decode_by(z, Solution(method="euler", steps=2), 1.0)
        assert 1e-3 < (rough - face).abs().mean() < (face - z).abs().mean()


class Known(FlowModel):
    """The field of data that is one constant face: from anywhere, straight to it."""

    def __init__(self, face: float) -> None:
        super().__init__()
        self.face, self.latent_shape, self.prior = face, (3, 8, 8), Normal()
        self.solution, self.guidance = Solution(steps=50), 1.0
        self.weight = nn.Parameter(torch.zeros(()))
        self.asked: list[Tensor | None] = []

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.asked.append(labels)
        return (self.face - x) / (1.0 - t)[:, None, None, None] + self.weight

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode_by(z, self.solution, self.guidance, labels)

    def decode_by(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Tensor:
        return solve(self.velocity, z, 0.0, 0.999, how)

    def stages(self, z: Tensor, how: Solution, guidance: float, labels: Tensor | None = None) -> Iterator[Tensor]:
        return stages(self.velocity, z, 0.0, 0.999, how)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        raise AssertionError("not asked here")


def test_the_loss_is_zero_at_the_true_field_and_only_there() -> None:
    model = Known(0.25)
    recipe = FlowMatchingConfig(label_dropout=0.5).build(model, ImageSpec(side=8))
    labels = torch.ones(256, 2)
    batch = Batch(torch.full((256, 3, 8, 8), 0.25), labels)
    (update,) = recipe.step(iter([batch]))
    assert not isinstance(update, tuple) and float(update.loss.detach()) < 1e-6
    model.weight.data.fill_(0.1)
    (update,) = recipe.step(iter([batch]))
    assert float(update.loss.detach()) == pytest.approx(0.01, rel=1e-3)  # type: ignore[union-attr]
    told = model.asked[0]
    assert told is not None and float(told.isnan().all(1).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert model.decode(torch.randn(2, 3, 8, 8)).sub(0.25).abs().max() < 0.2


@pytest.mark.parametrize("word", ["euler:3", "heun:4", "rk4:2", "multistep:4", "adaptive:1e-3"])
def test_the_path_begins_with_noise_and_ends_with_the_face(word: str) -> None:
    torch.manual_seed(0)
    model = FlowConfig(width=8, max_width=16).build(ImageSpec(side=16, label_dim=2))
    shuffled_weights(model, 0.05)
    z, how, labels = torch.randn(2, 3, 16, 16), Solution.of(word), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    with torch.no_grad():
        path = list(model.stages(z, how, 2.0, labels))
        face = model.decode_by(z, how, 2.0, labels)
    assert len(path) == (13 if how.method == "adaptive" else how.steps + 1) and torch.equal(path[0], z)
    if how.method == "adaptive":
        assert (path[-1] - face).abs().max() < 0.02
    else:
        assert torch.equal(path[-1], face)
    lengths = [float((there - here).norm()) for here, there in pairwise(path)]
    assert min(lengths) > 0


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.5, -1.0])
def test_guidance_in_closed_form(guidance: float) -> None:
    """v + g (v(labels) - v), with v the field without labels (arXiv:2207.12598, equation 6 with w = g - 1)."""
    torch.manual_seed(0)
    model = FlowConfig(width=8, max_width=16).build(ImageSpec(side=16, label_dim=2)).double()
    shuffled_weights(model, 0.1)
    x, t = torch.randn(3, 3, 16, 16).double(), torch.tensor([0.1, 0.5, 0.9]).double()
    asked = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, torch.nan]]).double()
    with torch.no_grad():
        without, with_labels = model.velocity(x, t, None), model.velocity(x, t, asked)
        found = model.guided_field(guidance, asked)(x, t)
        assert (with_labels - without).abs().max() > 1e-3
        assert torch.allclose(found, without + guidance * (with_labels - without), atol=1e-9)
        assert torch.allclose(
            model.guided_field(guidance, None)(x, t), without, atol=1e-9
        )  # nothing is asked: no guidance


def test_guidance_leans_toward_what_is_asked() -> None:
    torch.manual_seed(0)
    faces = ImageSpec(side=16, label_dim=2)
    plain, guided = (FlowConfig(width=8, max_width=16, guidance=g, steps=4).build(faces) for g in (1.0, 3.0))
    shuffled_weights(plain, 0.1)
    guided.load_state_dict(plain.state_dict())
    z, asked = torch.randn(2, 3, 16, 16), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    nothing = torch.full_like(asked, torch.nan)
    with torch.no_grad():
        t = torch.full((2,), 0.5)
        there = plain.velocity(z, t, asked) - plain.velocity(z, t, nothing)
        assert there.abs().max() > 1e-3
        assert torch.allclose(guided.decode(z, nothing), plain.decode(z, nothing), atol=1e-4)
        apart = (guided.decode(z, asked) - plain.decode(z, nothing)).norm()
        assert apart > 1.5 * (plain.decode(z, asked) - plain.decode(z, nothing)).norm()
        assert torch.allclose(plain.decode(z), plain.decode(z, nothing))


def test_only_fields_can_be_matched() -> None:
    from mien.models.dcgan import DCGANGeneratorConfig

    with pytest.raises(UsageError, match="no velocity"):
        FlowMatchingConfig().build(DCGANGeneratorConfig(width=4).build(ImageSpec(side=16)), ImageSpec(side=16))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("heun", Solution(method="heun")),
        ("euler:4", Solution(method="euler", steps=4)),
        ("adaptive:1e-5", Solution(method="adaptive", tolerance=1e-5)),
    ],
)
def test_solvers_by_name(word: str, wanted: Solution) -> None:
    assert Solution.of(word) == wanted and Solution.of(str(wanted)) == wanted


@pytest.mark.parametrize("word", ["", "dopri", "heun:", "heun:0", "heun:x", "euler:1.5", "adaptive:2", "adaptive:nan"])
def test_words_that_are_no_solver(word: str) -> None:
    if word == "heun:":
        assert Solution.of(word).steps == Solution.steps
    else:
        with pytest.raises(UsageError):
            Solution.of(word)


def test_a_sampler_follows_as_it_is_told() -> None:
    from mien.core.device import DeviceContext
    from mien.sampling.options import DrawOptions
    from mien.sampling.sampler import Sampler

    torch.manual_seed(0)
    model = FlowConfig(width=8, max_width=16, steps=4).build(ImageSpec(side=16))
    shuffled_weights(model, 0.05)
    header = {"faces": {"side": 16, "channels": 3, "label_dim": 0}}
    sampler = Sampler(model.eval(), header, DeviceContext(torch.device("cpu"), "fp32"), "")
    coarse = sampler.with_options(DrawOptions(solver="euler:1"))
    assert torch.equal(sampler.with_options(DrawOptions(solver="multistep:4")).sample([3]), sampler.sample([3]))
    assert not torch.equal(coarse.sample([3]), sampler.sample([3]))
    assert coarse.metadata()["solver"] == "euler:1" and "solver" not in sampler.metadata()
    assert torch.allclose(
        sampler.with_options(DrawOptions(solver="adaptive:1e-5")).encode(coarse.sample([3])).std(),
        torch.tensor(1.0),
        atol=0.5,
    )
    with pytest.raises(UsageError, match="guidance must be"):
        sampler.with_options(DrawOptions(guidance=-1.0))
