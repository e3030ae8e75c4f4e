"""Latents: the published test vectors of the generator, the shapes of the priors, and their walks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mien.errors import UsageError
from mien.nn.priors import MAX_SEED, Normal, Uniform, normals, philox, uniforms


def test_philox_known_answer() -> None:
    """Random123's kat_vectors: philox4x32-10, counter 0, key 0."""
    assert [int(word) for word in philox([0], 1)[0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_philox_by_plain_integers() -> None:
    """Other counters and keys against the definition, in Python's own integers."""

    def reference(seed: int, block: int) -> list[int]:
        c, k = [block, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
        for _ in range(10):
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return c

    seeds = [0, 1, 42, 2**32, MAX_SEED]
    words = philox(seeds, 3)
    for row, seed in enumerate(seeds):
        for block in range(3):
            assert [int(w) for w in words[row, 4 * block : 4 * block + 4]] == reference(seed, block)


def test_test_vectors_for_other_languages() -> None:
    """The same numbers stand in docs/seeds.md: the page must reproduce them."""
    assert uniforms([42], 4)[0].tolist() == pytest.approx(
        [0.6129598811967298, 0.4685865183128044, 0.0732317374786362, 0.3408615494845435], abs=1e-15
    )
    assert normals([42], 4)[0].tolist() == pytest.approx(
        [-0.9701897900197691, 0.19401895535991237, -1.2356207433180222, 1.9239267497535832], abs=1e-12
    )
    assert normals([MAX_SEED], 2)[0].tolist() == pytest.approx([-1.3785447723973931, -0.6003620491652482], abs=1e-12)
    u = (philox([42], 1)[0].astype(np.float64) + 0.5) / 2**32
    expected = math.sqrt(-2 * math.log(u[0])) * math.cos(2 * math.pi * u[1])
    assert normals([42], 4)[0, 0] == pytest.approx(expected, abs=1e-15)


def test_normals_are_normal() -> None:
    sample = normals(range(2000), 64)
    assert abs(sample.mean()) < 0.01 and abs(sample.std() - 1) < 0.01
    assert abs(np.corrcoef(sample[:, 0], sample[:, 1])[0, 1]) < 0.08


def test_a_seed_is_an_address() -> None:
    together = Normal().draw([3, 42, 7], (5,))
    assert torch.equal(together[1], Normal().draw([42], (5,))[0])
    assert torch.equal(together[1, :3], Normal().draw([42], (3,))[0])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_have_bounds(seed: int) -> None:
    with pytest.raises(UsageError):
        Normal().draw([seed], (2,))


def test_great_circle() -> None:
    a, b = Normal().draw([1, 2], (3, 64)).split(1)
    half = Normal().path(a, b, 0.5)
    assert torch.allclose(Normal().path(a, b, 0.0), a, atol=1e-6) and torch.allclose(
        Normal().path(a, b, 1.0), b, atol=1e-6
    )
    assert half.norm() == pytest.approx(float(a.norm() + b.norm()) / 2, rel=1e-6)
    assert torch.allclose(Normal().path(a, a, 0.3), a, atol=1e-6)
    assert torch.isfinite(Normal().path(a, -a, 0.5)).all()


def test_uniform_stays_in_the_cube() -> None:
    z = Uniform().draw(range(100), (64,))
    assert z.abs().max() <= 1 and z.std() == pytest.approx(3**-0.5, abs=0.02)
    assert torch.allclose(Uniform().path(z[:1], z[1:2], 0.25), 0.75 * z[:1] + 0.25 * z[1:2])
    drawn = Uniform().sample(100, (64,), torch.Generator().manual_seed(0))
    assert drawn.abs().max() <= 1 and drawn.shape == (100, 64)
