"""Latents of given faces, named directions, and the extras that keep them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import unsupervised
from torch import Tensor

from mien import presets
from mien.core.contracts import ImageSpec
from mien.core.device import DeviceContext, has_bf16_units
from mien.core.distributed import World
from mien.data.pack import Pack
from mien.errors import Mismatch, Untrusted, UsageError
from mien.nn.priors import Normal, Uniform
from mien.sampling import sidecar
from mien.sampling.chunks import CHUNK
from mien.sampling.directions import Direction, Directions, amounts_of, by_labels, components, separability
from mien.sampling.inversion import Best, Step
from mien.sampling.sampler import Sampler
from mien.storage import checkpoint
from mien.training.resolve import ResolvedRun
from tests.conftest import tiny


def write_model(preset: str, folder: Path, pack: Pack) -> Path:
    """A tiny model of a preset that has learned nothing but differs from face to face."""
    plan = ResolvedRun(tiny(presets.PRESETS[preset]), pack, DeviceContext(torch.device("cpu"), "fp32"), None, "blobs")
    learner = plan.initial_state(World())
    generator = torch.Generator().manual_seed(0)
    for parameter in learner.inference_model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    file = folder / "model.safetensors"
    file.write_bytes(learner.snapshot(plan.header).model)
    return file


@pytest.fixture(scope="module", params=["vae", "began-zhao", "quick"])
def sampler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Sampler:
    return Sampler.load(write_model(request.param, tmp_path_factory.mktemp("model"), blob_pack), device="cpu")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Sampler:
    return Sampler.load(write_model("vae", tmp_path_factory.mktemp("model"), blob_pack), device="cpu")


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Sampler:
    return Sampler.load(write_model("began-zhao", tmp_path_factory.mktemp("model"), blob_pack), device="cpu")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, blob_pack: Pack) -> Sampler:
    return Sampler.load(write_model("quick", tmp_path_factory.mktemp("model"), blob_pack), device="cpu")


def faces(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1


# Encoding


def test_an_encoding_depends_on_its_face_alone(vae: Sampler, began: Sampler) -> None:
    images = faces(CHUNK + 3)
    for sampler in (vae, began):
        together = sampler.encode(images)
        assert torch.equal(sampler.encode(images[3:5]), together[3:5]) and together.std() > 0
        assert sampler.reconstruct(images).shape == images.shape


def test_the_spaces_of_encodings(vae: Sampler, began: Sampler, quick: Sampler) -> None:
    images = faces(2)
    assert vae.encoding_space == "latent" and began.encoding_space == "encoding"
    assert torch.equal(vae.reconstruct(images), vae.decode(vae.encode(images)))
    assert not torch.equal(began.reconstruct(images), began.decode(began.encode(images)))
    for call in (lambda: quick.encoding_space, lambda: quick.encode(images), lambda: quick.reconstruct(images)):
        with pytest.raises(UsageError, match="no encoder"):
            call()


def test_noise_draws_from_the_posterior(vae: Sampler, began: Sampler) -> None:
    images, noise = faces(3), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vae.encode(images, noise=torch.zeros(3, 8)), vae.encode(images))
    assert not torch.equal(vae.encode(images, noise=noise), vae.encode(images))
    assert torch.equal(began.encode(images, noise=noise), began.encode(images))  # it has no doubt of its own


# Inversion


def test_a_descent_finds_the_face_of_a_seed(sampler: Sampler) -> None:
    target = sampler.sample([1007, 1008])
    nearest = (sampler.sample(range(4))[None] - target[:, None]).abs().mean((2, 3, 4)).amin(1) / 2
    found = sampler.invert(target, 250)
    assert (found.errors < 0.5 * nearest).all(), (found.errors, nearest)
    assert torch.allclose(sampler.decode(found.latents), found.images, atol=1e-4)
    assert torch.allclose((found.images - target).abs().flatten(1).mean(1) / 2, found.errors, atol=1e-6)
    assert found.steps == 250


def test_a_descent_is_the_same_each_time(sampler: Sampler) -> None:
    target = faces(1)
    first, second = (sampler.invert(target, 12, seed=3) for _ in range(2))
    assert torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, sampler.invert(target, 12, seed=9).latents)


def test_a_descent_stays_where_the_prior_draws(sampler: Sampler) -> None:
    found = sampler.invert(faces(2), 20, lr=5.0).latents
    if isinstance(sampler.model.prior, Uniform):
        assert found.abs().max() <= 1.0
    else:
        assert found.norm(dim=1).max() <= 8**0.5 + 2.3


def test_a_descent_keeps_the_best_of_each_face() -> None:
    """What is worse than before is not kept, face by face, whatever comes last."""
    best, targets = Best(torch.zeros(2, 3, 2, 2)), torch.arange(6.0)
    for values in ([5.0, 3.0], [4.0, 9.0], [6.0, 2.0], [7.0, 8.0]):
        number = torch.tensor(values)
        best.update(number[:, None] * 10, number[:, None, None, None].expand(2, 3, 2, 2), number, 1)
    assert best.values.tolist() == [4.0, 2.0] and best.latents.flatten().tolist() == [40.0, 20.0]
    assert best.images[:, 0, 0, 0].tolist() == [4.0, 2.0]
    rows = torch.tensor([9.0, 1.0, 5.0, 3.0, 8.0, 7.0])  # three tries for each of two faces
    best = Best(torch.zeros(2, 3, 2, 2))
    best.update(targets[:, None], targets[:, None, None, None].expand(6, 3, 2, 2), rows, 3)
    assert best.values.tolist() == [1.0, 3.0] and best.latents.flatten().tolist() == [1.0, 3.0]


def test_a_descent_tells_and_can_be_stopped(quick: Sampler) -> None:
    steps: list[Step] = []
    found = quick.invert(faces(2), 30, on_step=steps.append, cancel=lambda: len(steps) >= 7)
    assert [step.step for step in steps] == list(range(1, 8)) and found.steps == 7 and steps[0].steps == 30
    assert steps[-1].images.shape == (2, 3, 16, 16) and (steps[-1].errors <= steps[0].errors).all()
    assert torch.equal(found.errors, steps[-1].errors)
    assert quick.invert(faces(1), 5, cancel=lambda: True).steps == 1  # one look at least


def test_a_descent_can_begin_at_an_encoding(vae: Sampler) -> None:
    images = faces(2)
    start = vae.encode(images)
    found = vae.invert(images, 10, start=start)
    before = (vae.decode(start) - images).abs().flatten(1).mean(1) / 2
    assert (found.errors <= before + 1e-6).all()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}])
def test_impossible_descents(quick: Sampler, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        quick.invert(faces(1), **{"steps": 5, **wrong})


def test_within_keeps_what_the_prior_draws() -> None:
    for prior, shape in ((Normal(), (64,)), (Uniform(), (64,)), (Normal(), (4, 2, 2))):
        drawn = prior.draw(range(200), shape)
        kept = prior.project(drawn)
        assert (kept == drawn).flatten(1).all(1).float().mean() > 0.99
        assert prior.project(drawn * 9).abs().max() <= drawn.abs().max() * 3
    assert torch.equal(Normal().project(torch.zeros(1, 4)), torch.zeros(1, 4))


# Directions


def toy(count: int = 400) -> tuple[Tensor, Tensor]:
    """Encodings `[n, 6]` where label a moves axis 0, label b axis 1, and b mostly comes with a."""
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(count, generator=generator) < 0.5).float()
    b = torch.where(torch.rand(count, generator=generator) < 0.85, a, 1 - a)
    z = torch.randn(count, 6, generator=generator)
    z[:, 0] += 3 * a
    z[:, 1] += 3 * b
    return z, torch.stack([a, b], 1)


def test_a_direction_is_the_difference_of_means() -> None:
    z, labels = toy()
    (a, b), warnings = by_labels(z, labels, ["a", "b"], "latent")
    expected = z[labels[:, 0] > 0.5].mean(0) - z[labels[:, 0] <= 0.5].mean(0)
    assert warnings == [] and torch.allclose(a.vector / a.vector.norm(), expected / expected.norm(), atol=1e-5)
    along = z @ (a.vector / a.vector.norm())
    assert abs(float(along.std() / a.vector.norm()) - 1) < 1e-4  # its length is one standard deviation
    assert a.facts["with"] + a.facts["without"] == 400 and 0.9 < a.facts["auc"] < 1 and a.facts["apart"] > 1
    assert b.name == "b" and b.space == "latent"


def test_joint_and_orthogonal_directions_are_purer() -> None:
    z, labels = toy()
    share = {}
    for disentangle in ("none", "joint", "orthogonal"):
        (a, _), _ = by_labels(z, labels, ["a", "b"], "latent", disentangle)  # type: ignore[arg-type]
        share[disentangle] = abs(float(a.vector[1] / a.vector[0]))
    assert share["none"] > 0.5 and share["joint"] < 0.15
    plain_b = by_labels(z, labels, ["a", "b"], "latent")[0][1].vector
    pure_a = by_labels(z, labels, ["a", "b"], "latent", "orthogonal")[0][0].vector
    assert abs(float(pure_a @ plain_b)) < 1e-3


def test_labels_that_are_not_known_do_not_count() -> None:
    z, labels = toy()
    holes = labels.clone()
    holes[::3, 0] = torch.nan
    kept = torch.arange(400) % 3 != 0
    (a, b), _ = by_labels(z, holes, ["a", "b"], "latent")
    assert a.facts["with"] == int((labels[kept, 0] > 0.5).sum()) and b.facts["with"] == int((labels[:, 1] > 0.5).sum())
    expected = z[kept & (labels[:, 0] > 0.5)].mean(0) - z[kept & (labels[:, 0] <= 0.5)].mean(0)
    assert torch.allclose(a.vector / a.vector.norm(), expected / expected.norm(), atol=1e-5)
    (joint, _), _ = by_labels(z, holes, ["a", "b"], "latent", "joint")
    assert abs(float(joint.vector[1] / joint.vector[0])) < 0.35


def test_a_direction_is_judged_on_faces_that_it_was_not_found_on() -> None:
    """Labels by chance: in 64 dimensions, a direction of 30 faces tells these apart and no others."""
    generator = torch.Generator().manual_seed(0)
    z, labels = torch.randn(60, 64, generator=generator), (torch.arange(60) // 2 % 2).float()[:, None]
    (chance,), _ = by_labels(z, labels, ["chance"], "latent")
    assert 0.3 < chance.facts["auc"] < 0.7


def test_few_examples_are_said() -> None:
    z, _ = toy(100)
    labels = torch.zeros(100, 3)
    labels[:1, 0], labels[:5, 1], labels[:50, 2] = 1, 1, 1
    found, warnings = by_labels(z, labels, ["one", "five", "many"], "latent")
    assert [direction.name for direction in found] == ["five", "many"]
    assert any("one" in line and "no direction" in line for line in warnings)
    assert any("five" in line and "5 faces with" in line for line in warnings)


def test_separability() -> None:
    values = torch.tensor([0.1, 0.4, 0.35, 0.8])
    assert separability(values, torch.tensor([False, False, True, True])) == pytest.approx(0.75)
    assert separability(values, torch.tensor([True] * 4)) is None


def test_components_are_where_pictures_change_most() -> None:
    """For a linear picture they are its singular vectors."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(12, 3 * 16 * 16, generator=generator) * torch.linspace(4.0, 0.2, 12)[:, None]
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q

    def decode(z: Tensor) -> Tensor:
        return (z @ turn.T @ weights).unflatten(1, (3, 16, 16))

    found = components(decode, Normal(), (12,), 2, like=torch.zeros(()), faces=1024)
    _, _, exact = torch.linalg.svd((turn.T @ weights).T, full_matrices=False)
    for place, direction in enumerate(found):
        unit = direction.vector / direction.vector.norm()
        assert abs(float(unit @ exact[place])) > 0.9
        assert 0.9 < float(direction.vector.norm()) < 1.1  # one standard deviation of the prior
    assert found[0].facts["share"] > found[1].facts["share"] > 0
    assert abs(float(found[0].vector @ found[1].vector)) < 1e-4
    with pytest.raises(UsageError, match="from 1 to 12, not 13"):
        components(decode, Normal(), (12,), 13, like=torch.zeros(()))


def test_components_of_a_model_change_its_faces(quick: Sampler) -> None:
    model = quick.model
    found = components(model.decode, model.prior, model.latent_shape, 8, like=torch.zeros(()), faces=128)
    z = quick.latents(range(16))
    changes = [float((quick.decode(z + 2 * d.vector) - quick.decode(z)).abs().mean()) for d in found]
    assert changes[0] > 1.2 * changes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", unsupervised.FAMILIES)
def test_components_of_every_family_are_found_in_half_a_minute_of_one_core(name: str) -> None:
    """At 64 px; twice that where there are no bf16 units, and room for a machine that is slower."""
    assert unsupervised.seconds(name) < (60 if has_bf16_units("cpu") else 150)


def test_amounts() -> None:
    assert amounts_of(["Smiling=1.5", "a=b=-2"]) == {"Smiling": 1.5, "a=b": -2.0}
    for wrong in ("Smiling", "=1", "Smiling=", "Smiling=nan", "Smiling=inf", "Smiling=1e9", ""):
        with pytest.raises(UsageError):
            amounts_of([wrong])


# Extras


def keep(sampler: Sampler, *directions: Direction, model: str | None = None) -> Path:
    assert sampler.extras_folder is not None
    kept = Directions(directions)
    return sidecar.write(
        sampler.extras_folder, "directions", "directions", model or sampler.model_hash, kept.tensors(),
        "mien directions MODEL --unsupervised 1", directions=kept.descriptions(),
    )  # fmt: skip


def test_an_edit_moves_by_standard_deviations(tmp_path: Path, blob_pack: Pack) -> None:
    file = write_model("vae", tmp_path, blob_pack)
    assert len(Sampler.load(file).directions) == 0
    vector = torch.arange(8.0)
    keep(Sampler.load(file), Direction("up", vector, "latent", {}), Direction("far", vector, "encoding", {"auc": 0.5}))
    sampler = Sampler.load(file)
    z = sampler.latents([3, 4])
    assert torch.equal(sampler.edit(z, {"up": 2.0}), z + 2 * vector)
    assert torch.equal(sampler.edit(z, {}), z)
    assert list(sampler.directions) == ["up", "far"] and sampler.directions["far"].facts == {"auc": 0.5}
    with pytest.raises(UsageError, match="Did you mean up"):
        sampler.edit(z, {"upp": 1.0})
    with pytest.raises(UsageError, match="a direction of encodings"):
        sampler.edit(z, {"far": 1.0})
    joined = sampler.directions.joined(
        [Direction("up", vector * 2, "latent", {}), Direction("new", vector, "latent", {})]
    )
    assert list(joined) == ["far", "up", "new"] and torch.equal(joined["up"].vector, vector * 2)


def test_extras_of_another_model_are_refused(tmp_path: Path, blob_pack: Pack) -> None:
    file = write_model("vae", tmp_path, blob_pack)
    sampler = Sampler.load(file)
    path = keep(sampler, Direction("up", torch.ones(8), "latent", {}), model="f" * 64)
    with pytest.raises(Mismatch, match="belongs to another model") as caught:
        _ = sampler.directions
    assert "mien directions MODEL --unsupervised 1" in caught.value.remedy
    keep(sampler, Direction("up", torch.ones(8), "latent", {}))  # made again: the old one is set aside
    assert list(Sampler.load(file).directions) == ["up"]
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "directions-ffffffffffff.safetensors",
        "directions.safetensors",
    ]


def test_extras_lie_in_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "0000000010").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert sidecar.folder_of(run / "checkpoints" / "0000000010" / "model.safetensors") == run / "extras"
    assert sidecar.folder_of(tmp_path / "deep" / "x" / "model.safetensors") == tmp_path / "deep" / "x" / "extras"


def test_hostile_extras_are_refused(tmp_path: Path, blob_pack: Pack) -> None:
    sampler = Sampler.load(write_model("vae", tmp_path, blob_pack))
    assert sampler.extras_folder is not None
    path = keep(sampler, Direction("up", torch.ones(8), "latent", {}))
    good = path.read_bytes()

    def told(**changes: object) -> bytes:
        kept = Directions((Direction("up", torch.ones(8), "latent", {}),))
        header = {
            "kind": "directions",
            "model_sha256": sampler.model_hash,
            "again": "",
            "directions": kept.descriptions(),
        }
        return checkpoint.pack_tensors(kept.tensors(), {**header, **changes})

    long = Directions((Direction("up", torch.ones(9), "latent", {}),)).tensors()
    nan = Directions((Direction("up", torch.full((8,), torch.nan), "latent", {}),)).tensors()
    header = {
        "kind": "directions",
        "model_sha256": sampler.model_hash,
        "directions": [{"name": "up", "space": "latent"}],
    }
    wrong = [
        b"", b"x" * 100, good[:-5], good[:40], told(directions=3), told(directions=[3]), told(directions=[{"name": "up"}] * 2),
        told(kind="gmm"), told(model_sha256=None), checkpoint.pack_tensors({}, {}), checkpoint.pack_tensors({}, None),
        checkpoint.pack_tensors(long, header), checkpoint.pack_tensors(nan, header),
    ]  # fmt: skip
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises((Untrusted, Mismatch)):
            extra = sidecar.read(sampler.extras_folder, "directions", "directions", sampler.model_hash)
            Directions.of(extra, {"latent": (8,)})


def test_a_model_that_is_still_learning_has_no_extras(vae: Sampler) -> None:
    learning = Sampler(vae.model, vae.header, vae.device_context, "")
    assert len(learning.directions) == 0 and ImageSpec(**learning.header["faces"]).side == 16
