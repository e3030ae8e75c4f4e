"""The linear baseline: its components are those of a full decomposition, and it reads like any run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.core.contracts import ImageSpec
from mien.data.pack import Pack
from mien.errors import DataError, Mismatch, UsageError
from mien.models.eigenfaces import Eigenfaces, EigenfacesConfig, fit
from mien.sampling.sampler import Sampler
from mien.training.baseline import fit_baseline
from mien.training.baseline import images as blocks_of
from tests.conftest import write_pack


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """200 images at 8 px whose spread falls by a tenth from direction to direction."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.linalg.qr(torch.randn(192, 192, generator=generator))[0]
    spread = 0.9 ** torch.arange(192.0)
    flat = 0.1 + (torch.randn(200, 192, generator=generator) * spread) @ directions.T * 0.1
    return flat.reshape(200, 3, 8, 8).clamp(-1, 1)


def in_blocks(faces: Tensor) -> Iterator[Tensor]:
    yield from faces.split(64)


@pytest.fixture(scope="module")
def model(faces: Tensor) -> Eigenfaces:
    return fit(EigenfacesConfig(components=12), ImageSpec(side=8), lambda: in_blocks(faces))


def test_the_components_are_those_of_the_full_decomposition(faces: Tensor, model: Eigenfaces) -> None:
    flat = faces.flatten(1).double()
    assert torch.allclose(model.mean.double(), flat.mean(0), atol=1e-6)
    _, singular, rows = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    assert torch.allclose(model.deviations.double(), singular[:12] / 199**0.5, rtol=2e-3)
    overlap = (model.components.double() @ rows[:12].T).abs().diagonal()
    assert overlap.min() > 0.97
    gram = model.components @ model.components.T
    assert torch.allclose(gram, torch.eye(12), atol=1e-5)


def test_samples_have_the_moments_that_were_fitted(model: Eigenfaces) -> None:
    z = model.prior.draw(range(4000), model.latent_shape)
    drawn = model.decode(z).flatten(1)
    assert torch.allclose(drawn.mean(0), model.mean, atol=0.02)
    along = ((drawn - model.mean) @ model.components.T).std(0)
    assert torch.allclose(along / model.deviations, torch.ones(12), atol=0.05)


def test_an_encoding_is_the_projection(faces: Tensor, model: Eigenfaces) -> None:
    z = model.prior.draw(range(5), model.latent_shape)
    assert torch.allclose(model.encode(model.decode(z)), z, atol=1e-3)
    error = (model.reconstruct(faces) - faces).square().mean()
    assert error < (faces - model.mean.reshape(3, 8, 8)).square().mean() * 0.2


def test_a_fit_is_the_same_twice(faces: Tensor, model: Eigenfaces) -> None:
    torch.rand(7)  # whatever the global generator has done
    again = fit(EigenfacesConfig(components=12), ImageSpec(side=8), lambda: in_blocks(faces))
    assert torch.equal(again.components, model.components)


def test_too_few_images_are_refused(faces: Tensor) -> None:
    with pytest.raises(DataError, match="12 images"):
        fit(EigenfacesConfig(components=12), ImageSpec(side=8), lambda: in_blocks(faces[:12]))
    with pytest.raises(UsageError, match="not possible"):
        EigenfacesConfig(components=0)


def test_the_baseline_reads_like_a_run(tmp_path: Path, blob_pack: Pack) -> None:
    out = fit_baseline(blob_pack, tmp_path / "eigenfaces", EigenfacesConfig(components=8))
    images = Sampler.load(out).sample(range(3))
    assert images.shape == (3, 3, 16, 16) and images.std() > 0.05
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert fit_baseline(blob_pack, out, EigenfacesConfig(components=8)) == out
    assert (out / "model.safetensors").stat().st_mtime_ns == before, "what stands there is left as it is"
    other = write_pack(tmp_path / "other.pack", seed=5)
    with pytest.raises(Mismatch, match="other data"):
        fit_baseline(other, out, EigenfacesConfig(components=8))


def test_blocks_cover_every_row(blob_pack: Pack) -> None:
    rows = np.arange(0, 96, 2)
    (block,) = blocks_of(blob_pack, rows)
    assert block.shape == (48, 3, 16, 16) and block.min() >= -1 and block.max() <= 1
