"""Densities fitted to encodings, and drawing from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from mien.data.pack import Pack
from mien.errors import Mismatch, UsageError
from mien.sampling import density as density_module
from mien.sampling.chunks import CHUNK
from mien.sampling.density import DensityKind, density_of, fit, tensors_of
from mien.sampling.options import DrawOptions
from mien.sampling.sampler import Sampler
from mien.sampling.sidecar import Extra
from mien.storage import checkpoint
from tests.conftest import write_pack
from tests.test_cli import PRINTED, call, pixels
from tests.test_latent import write_model
from tests.test_latent_verbs import here  # noqa: F401 - a fixture

pytest.importorskip("sklearn", reason="the extra latent is not installed: no density can be fitted")
pytest.importorskip("zuko", reason="the extra latent is not installed: no density can be fitted")

KINDS: tuple[DensityKind, ...] = get_args(DensityKind)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that learns no longer than these tests need."""
    monkeypatch.setattr(density_module, "STEPS", 150)


def two_clouds(count: int = 3000) -> Tensor:
    """Encodings `[n, 2, 2]` in two clouds at +-3 on the first axis, the last axis twice as wide."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, 4, generator=generator)
    z[:, 0] = 0.5 * z[:, 0] + torch.where(torch.rand(count, generator=generator) < 0.3, 3.0, -3.0)
    z[:, 3] *= 2.0
    return (z + 5.0).reshape(-1, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_finds_both_clouds(kind: DensityKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_module, "STEPS", 1000)
    z = two_clouds()
    density = fit(z, kind)
    drawn = density.draw(range(2000))
    assert drawn.shape == (2000, 2, 2) and drawn.dtype == torch.float32
    first = drawn[:, 0, 0] - 5.0
    assert abs(float((first > 0).float().mean()) - 0.3) < 0.06
    assert float((first.abs() < 1).float().mean()) < 0.08  # hardly any between the clouds, where one Gaussian has most
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=0.3) and torch.allclose(drawn.std(0), z.std(0), rtol=0.15)
    assert torch.allclose(density.mean, z.mean(0), atol=0.1)
    assert density.facts["held_out"] > density.facts["gaussian"] + 0.1 and density.facts["count"] == 3000


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_latent_depends_on_its_seed_alone(kind: DensityKind) -> None:
    density = fit(two_clouds(400), kind)
    together = density.draw(range(CHUNK + 5))
    assert torch.equal(density.draw([9, 2]), together[[9, 2]])
    assert torch.equal(fit(two_clouds(400), kind).draw([9]), together[[9]])  # and fitting is the same each time


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_is_kept_to_the_bit(kind: DensityKind) -> None:
    density = fit(two_clouds(400), kind)
    header = {"kind": kind, "shape": [2, 2], "fit": density.facts}
    again = density_of(Extra(checkpoint.load(checkpoint.pack_tensors(tensors_of(density))), header), kind)
    assert torch.equal(again.draw(range(9)), density.draw(range(9))) and again.facts == density.facts
    for wrong in (
        {**header, "shape": [3]}, {**header, "shape": "x"}, {**header, "shape": [10**30]}, {"kind": kind}, {**header, "fit": 3},
    ):  # fmt: skip
        with pytest.raises(Mismatch):
            density_of(Extra(tensors_of(density), wrong), kind)
    fewer = dict(list(tensors_of(density).items())[:-1])
    with pytest.raises(Mismatch):
        density_of(Extra(fewer, header), kind)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(UsageError, match="too few"):
        fit(torch.zeros(10, 4), "gmm")
    with pytest.raises(UsageError, match="2,000 dimensions"):
        fit(torch.zeros(100, 2000), "gmm")


def test_silent_dimensions_are_harmless() -> None:
    z = torch.cat([two_clouds(300).flatten(1), torch.zeros(300, 2)], 1)
    for kind in KINDS:
        drawn = fit(z, kind).draw(range(50))
        assert drawn.isfinite().all() and drawn[:, 4:].abs().max() < 0.2


# With a model


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("data") / "blobs.pack", 120, 16)


@pytest.mark.parametrize("preset", ["vae", "began-zhao"])
@pytest.mark.parametrize("kind", KINDS)
def test_faces_of_fitted_latents(here: Path, pack: Pack, preset: str, kind: DensityKind) -> None:  # noqa: F811
    file = write_model(preset, here, pack)
    line = ("sample", file, "--seeds", "0-8", "--prior", "fitted", "--density", kind)
    said = call(*line)
    assert said.code == 2 and PRINTED.fullmatch(said.err) and f"--density {kind} --data PACK" in said.err
    said = call(*line, "--data", pack.path, "-o", "fitted.png")
    assert said.code == 0 and "nats a dimension" in said.err, said.err
    assert (here / "extras" / f"{kind}.safetensors").is_file()
    again = call(*line, "-o", "again.png")  # no data, no fit
    assert again.code == 0 and again.err == "" and (pixels(here / "again.png") == pixels(here / "fitted.png")).all()
    assert call("sample", file, "--seeds", "0-8", "-o", "prior.png").code == 0
    assert (pixels(here / "prior.png") != pixels(here / "fitted.png")).any()
    sampler = Sampler.load(file).with_fitted_prior(kind)
    z = sampler.latents([3])
    assert torch.equal(sampler.sample([3]), sampler.decode(z, space=sampler.encoding_space))
    assert torch.equal(sampler.with_options(DrawOptions(truncation=0.0)).latents([3]), sampler.density.mean[None])  # type: ignore[union-attr]
    assert sampler.metadata()["prior"] == kind
    assert (
        call(
            "walk", file, "--seeds", "1", "2", "--frames", "3", "--prior", "fitted", "--density", kind, "-o", "w.png"
        ).code
        == 0
    )


def test_a_stale_density_says_so(here: Path, pack: Pack) -> None:  # noqa: F811
    file = write_model("vae", here, pack)
    line = ("sample", file, "--seeds", "0", "--prior", "fitted")
    assert call(*line, "--data", pack.path).code == 0
    tensors, header = checkpoint.read_model(file)
    file.write_bytes(checkpoint.pack_tensors({name: tensor * 1.01 for name, tensor in tensors.items()}, header))
    said = call(*line)
    assert said.code == 9 and PRINTED.fullmatch(said.err) and "--prior fitted --density gmm --data PACK" in said.err
    assert call(*line, "--data", pack.path).code == 0 and call(*line).code == 0
    assert len(list((here / "extras").iterdir())) == 2  # the stale one is set aside


def test_a_model_without_an_encoder_has_none(here: Path, pack: Pack) -> None:  # noqa: F811
    file = write_model("quick", here, pack)
    said = call("sample", file, "--prior", "fitted", "--data", pack.path)
    assert said.code == 2 and "no encoder" in said.err


def test_scores_of_fitted_latents_are_named_apart(here: Path, pack: Pack) -> None:  # noqa: F811
    file = write_model("vae", here, pack)
    (here / "eye.py").write_text(
        "import numpy as np\n"
        "class Eye:\n    name, hash, resizer, precision = 'mean', '', 'none', 'fp32'\n"
        "    def __call__(self, images): return images.reshape(len(images), -1)[:, :6].astype(np.float32)\n"
        "def eye(): return Eye()\n"
    )
    line = (
        "evaluate",
        file,
        "--data",
        pack.path,
        "--metrics",
        "kid",
        "--samples",
        "20",
        "--extractor",
        "eye.py:eye",
        "--json",
    )
    plain, fitted = call(*line), call(*line, "--prior", "fitted", "--density", "gmm")
    assert plain.code == fitted.code == 0, fitted.err
    (a,), (b,) = (json.loads(said.out)["scores"] for said in (plain, fitted))
    assert b["name"] == f"{a['name']}_fitted_gmm" and a["value"] != b["value"]
    assert b["protocol"]["prior"] == "fitted_gmm" and "prior" not in a["protocol"]
