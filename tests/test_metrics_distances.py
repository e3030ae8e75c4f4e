"""Distances of feature sets against closed forms and independent implementations, in float64 at 64 dimensions."""

import numpy as np
import pytest
import scipy.linalg

from mien.metrics.confidence import bootstrap
from mien.metrics.distances import frechet, frechet_at_infinity, kernel_distance, kernel_distance_of_subsets, monge
from mien.metrics.evaluate import NEIGHBOURS
from mien.metrics.prdc import manifolds, memorisation, nearest


def draw(count, dimensions=64, seed=0, shift=0.0, spread=1.0):
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return (random.normal(size=(count, dimensions)) @ mix * spread + shift).astype(np.float64)


def sqrtm_frechet(a, b):
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    covariances = np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root.real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances)


def plain_kernel_distance(x, y):
    def kernel(a, b):
        return (np.einsum("id,jd->ij", a, b) / a.shape[1] + 1) ** 3

    def within(a):
        return sum(kernel(a[i : i + 1], np.delete(a, i, 0)).sum() for i in range(len(a))) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def plain_distances(a, b):
    return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in b] for x in a])


def plain_manifolds(real, fake, k):
    between, own, others = plain_distances(real, fake), plain_distances(real, real), plain_distances(fake, fake)
    radii = np.array([np.sort(row)[k] for row in own])  # the first is the row itself
    fake_radii = np.array([np.sort(row)[k] for row in others])
    inside = between < radii[:, None]
    return {
        "precision": inside.any(0).mean(),
        "recall": (between < fake_radii).any(1).mean(),
        "density": inside.sum(0).mean() / k,
        "coverage": (between.min(1) < radii).mean(),
    }


@pytest.mark.parametrize("shift, spread", [(0.0, 1.0), (0.3, 1.0), (0.1, 0.4), (5.0, 3.0)])
def test_frechet_agrees_with_a_matrix_square_root(shift, spread):
    real, fake = draw(500), draw(400, seed=1, shift=shift, spread=spread)
    assert frechet(real, fake).value == pytest.approx(sqrtm_frechet(real, fake), rel=1e-6)


def test_frechet_of_known_gaussians():
    """Features whose sample moments are exact: mean 0 and identity, against mean m and diagonal covariance."""
    x = np.vstack([np.eye(8), -np.eye(8)]) * np.sqrt(15 / 2)  # covariance is the identity
    scales, mean = np.arange(1.0, 9.0), np.full(8, 0.5)
    expected = (mean**2).sum() + ((scales - 1.0) ** 2).sum()
    assert frechet(x, x * scales + mean).value == pytest.approx(expected, rel=1e-12)


def test_frechet_with_fewer_samples_than_dimensions():
    real, fake = draw(40, 64), draw(30, 64, seed=1, shift=0.2)
    # in the space that the samples span the covariances keep their eigenvalues, and a root exists
    basis = np.linalg.qr(np.vstack([real, fake]).T)[0]
    jitter = 1e-13 * np.eye(64)
    a, b = real @ basis, fake @ basis
    root = scipy.linalg.sqrtm((np.cov(a, rowvar=False) + jitter) @ (np.cov(b, rowvar=False) + jitter)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root
    )
    assert frechet(real, fake).value == pytest.approx(expected, rel=1e-4)
    assert frechet(real, real).value == pytest.approx(0.0, abs=1e-9)
    assert frechet(real, np.repeat(fake[:1], 20, 0)).value == pytest.approx(
        ((real.mean(0) - fake[0]) ** 2).sum() + np.cov(real, rowvar=False).trace(), rel=1e-9
    )


def test_frechet_interval_has_the_width_of_repeated_sampling():
    real = draw(2000, 16)
    repeated = [frechet(real, draw(300, 16, seed=seed, shift=0.1)) for seed in range(1, 101)]
    spread = np.std([estimate.value for estimate in repeated])
    errors = [(estimate.high - estimate.low) / (2 * 1.96) for estimate in repeated]
    assert np.mean(errors) == pytest.approx(spread, rel=0.25)


def test_frechet_extrapolation_removes_the_bias_of_few_samples():
    real, fake = draw(20_000, 32), draw(400, 32, seed=1, shift=0.1)
    truth, biased = frechet(real, draw(40_000, 32, seed=2, shift=0.1)).value, frechet(real, fake).value
    assert biased > 1.5 * truth
    assert frechet_at_infinity(real, fake) == pytest.approx(truth, abs=0.2 * (biased - truth))
    assert frechet_at_infinity(real, fake[:7]) is None


def test_frechet_extrapolation_is_exact_for_two_terms(monkeypatch):
    """A distance of a + b/n + c/n^2 for n samples is a at infinity: 8/3 of it at n, less 2 at n/2, and 1/3 at n/4."""
    a, b, c = 3.0, 40.0, -70.0

    def distance(self, other):
        n = len(other.root)  # fewer samples than dimensions: as many as there are
        return a + b / n + c / n**2

    monkeypatch.setattr("mien.metrics.distances.Spread.distance", distance)
    assert frechet_at_infinity(draw(80), draw(32, seed=1)) == pytest.approx(a, rel=1e-12)
    monkeypatch.setattr("mien.metrics.distances.Spread.distance", lambda self, other: -1.0)
    assert frechet_at_infinity(draw(80), draw(32, seed=1)) == 0.0  # a distance is never negative


def test_kernel_distance_agrees_with_sums_over_pairs():
    real, fake = draw(150), draw(131, seed=1, shift=0.2)
    assert kernel_distance(real, fake).value == pytest.approx(plain_kernel_distance(fake, real), rel=1e-6)


def test_kernel_distance_is_unbiased_and_its_interval_covers():
    estimates = [kernel_distance(draw(300, 8, seed=seed), draw(200, 8, seed=seed + 500)) for seed in range(100)]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean()) < 3 * values.std() / 10
    shifted = [kernel_distance(draw(800, 8), draw(200, 8, seed=seed, shift=0.3)) for seed in range(1, 101)]
    errors = [(estimate.high - estimate.low) / (2 * 1.96) for estimate in shifted]
    assert np.mean(errors) == pytest.approx(np.std([estimate.value for estimate in shifted]), rel=0.25)


def test_kernel_distance_of_one_subset_of_everything_is_the_distance():
    real, fake = draw(60), draw(60, seed=1, shift=0.2)
    mean, deviation = kernel_distance_of_subsets(real, fake, subsets=3, size=60)
    assert mean == pytest.approx(plain_kernel_distance(fake, real), rel=1e-9)
    assert deviation == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("block", [3, 7, 1024])
def test_manifold_scores_agree_with_plain_loops(monkeypatch, block):
    monkeypatch.setattr("mien.metrics.distances.BLOCK", block)
    real, fake = draw(120), draw(90, seed=1, shift=0.05, spread=0.9)
    scores, expected = manifolds(real, fake, k=5), plain_manifolds(real, fake, k=5)
    for name, value in expected.items():
        assert getattr(scores, name).value == pytest.approx(value, rel=1e-6), name
        assert getattr(scores, name).low <= value <= getattr(scores, name).high
    assert 0 < expected["precision"] < 1 and 0 < expected["coverage"] < 1  # the comparison says something


def test_manifolds_look_at_five_neighbours_unless_told():
    """Naeem et al.'s k, and what `evaluate` writes into its protocol."""
    real, fake = draw(120), draw(90, seed=1, shift=0.05, spread=0.9)
    assert manifolds(real, fake) == manifolds(real, fake, k=NEIGHBOURS) != manifolds(real, fake, k=4)
    assert NEIGHBOURS == 5


def test_a_copy_lies_in_no_ball_of_radius_zero():
    """A point lies in a ball only if it is nearer than the radius: reals that are all one face hold nothing."""
    real = np.repeat(draw(1), 20, 0)
    scores = manifolds(real, real[:10])
    assert scores.precision.value == scores.density.value == scores.coverage.value == scores.recall.value == 0.0


def test_a_constant_generator_is_precise_and_covers_nothing():
    real = draw(200)
    scores = manifolds(real, np.repeat(real[:1], 100, 0))
    assert scores.precision.value == 1.0 and scores.recall.value == 0.0
    assert scores.coverage.value < 0.2


def test_neighbours_of_a_set_within_itself_leave_out_the_row():
    points = np.array([[0.0], [1.0], [3.0], [3.0]])
    distances, indices = nearest(points, points, 2, within=True)
    assert distances.tolist() == [[1.0, 3.0], [1.0, 2.0], [0.0, 2.0], [0.0, 2.0]]
    assert indices[2, 0] == 3 and indices[3, 0] == 2


def test_memorisation_finds_the_copied_share():
    train, unseen, honest = draw(1000), draw(500, seed=1), draw(500, seed=2)
    copying = honest.copy()
    copying[:50] = train[100:150]
    clean, caught = memorisation(train, unseen, honest), memorisation(train, unseen, copying)
    assert clean.excess.low <= 0.005 and abs(clean.nearer - 0.5) < 0.05 and clean.ratio == pytest.approx(1.0, abs=0.03)
    assert caught.excess.value == pytest.approx(0.1, abs=0.02) and caught.excess.low > 0.05
    pairs = caught.pairs[:50].tolist()
    assert sorted(pairs) == [[i, 100 + i] for i in range(50)]
    assert memorisation(train, None, copying).excess.low > 0.05


def test_equal_distances_are_half_a_win_each():
    """Nothing is memorised where samples are exactly as near as unseen faces; all is where they are nearer."""
    train = np.arange(8.0)[:, None] * 10
    at_one, nearer = memorisation(train, train + 1, train - 1), memorisation(train, train + 1, train)
    assert at_one.nearer == 0.5 and nearer.nearer == 1.0 and memorisation(train, train, train + 1).nearer == 0.0
    assert at_one.ratio == pytest.approx(1.0) and nearer.ratio == 0.0


def test_bootstrap_is_seeded_and_as_wide_as_theory():
    values = np.random.default_rng(0).normal(size=400)
    estimate = bootstrap(values)
    assert estimate == bootstrap(values)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("holdout", [False, True])
def test_duplicates_do_not_hide_a_copier(share, holdout):
    """One training image in a hundred that is there twice made the bound 0, and a perfect copier clean (-0.01)."""
    train, unseen = draw(600), draw(300, seed=1)
    count = round(share * (len(unseen) if holdout else len(train)))
    if holdout:
        unseen[:count] = train[:count]
    elif count:
        train[-count:] = train[:count] * (1 + 1e-4)  # features of one image in two batches are not equal to the bit
    found = memorisation(train, unseen if holdout else None, train[200:400])
    clean = memorisation(draw(600), draw(300, seed=1) if holdout else None, draw(600)[200:400])
    assert found.excess.value == pytest.approx(0.99) and found.excess.low <= clean.excess.value <= found.excess.high
    expected = list(range(count)) + ([] if holdout else list(range(600 - count, 600)))
    assert found.duplicates.tolist() == expected and clean.duplicates.tolist() == []
    assert memorisation(train, unseen if holdout else None, draw(200, seed=7)).excess.value < 0.05


def test_a_picture_saved_again_is_a_duplicate_by_a_few_features_too():
    few = draw(300)[:, :8].copy()  # too few numbers for the comparison that leaves out brightness and contrast
    few[-3:] = few[:3] * 1.001
    assert memorisation(few, None, draw(50, seed=1)[:, :8]).duplicates.tolist() == [0, 1, 2, 297, 298, 299]


def test_a_set_of_nothing_but_duplicates_is_no_error():
    twice = np.repeat(draw(20), 2, 0)
    assert len(memorisation(twice, None, draw(20, seed=1)).duplicates) == 40


def test_points_at_the_radius_are_told_apart():
    """A set in which each image is there six times, against itself: 0 by open balls, 1 by closed ones."""
    real = np.repeat(draw(20), 6, 0)
    scores = manifolds(real, real)
    assert scores.precision.value == scores.recall.value == 0.0 and scores.points == (120, 120)
    assert scores.closed == (1.0, 1.0)
    plain = manifolds(draw(100), draw(100, seed=1))
    assert plain.points == (0, 0) and plain.closed == (plain.precision.value, plain.recall.value)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
def test_kernel_distance_of_a_few_images_has_an_interval(count):
    estimate = kernel_distance(draw(10), draw(count, seed=1))
    assert np.isfinite([estimate.value, estimate.low, estimate.high]).all() and estimate.low < estimate.high


def test_monge_distance_of_a_shift_and_of_a_stretch() -> None:
    """A shift by v moves every projection by u.v, whose mean square is |v|^2 / d; a stretch moves x to 2x."""
    real = np.random.default_rng(0).standard_normal((500, 40))
    shift = np.linspace(-1.0, 1.0, 40)
    assert monge(real, real + shift).value == pytest.approx(3.0 * shift @ shift, rel=0.05)
    assert monge(real, 2.0 * real).value == pytest.approx(3.0 * (real**2).sum(1).mean(), rel=0.02)
    assert monge(real, real[::-1]).value == pytest.approx(0.0, abs=1e-9)


def test_monge_distance_is_torch_fidelitys() -> None:
    """Values of `mind_features_to_metric` of torch-fidelity 0.4 (commit 5e211a9), seed 2020, on these numbers."""
    random = np.random.default_rng(0)
    for fakes, reals, value in ((200, 200, 795.0661), (150, 200, 948.6924), (200, 150, 763.5778)):
        fake = (random.standard_normal((fakes, 30)) * 1.1 + 0.05).astype(np.float32)
        real = (random.standard_normal((reals, 30)) ** 3).astype(np.float32)
        assert monge(real, fake).value == pytest.approx(value, rel=1e-6)


def test_the_interval_of_the_monge_distance_is_that_of_new_samples() -> None:
    random = np.random.default_rng(1)
    real = random.standard_normal((400, 20)) ** 3
    found = [monge(real, random.standard_normal((400, 20))) for _ in range(40)]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    widths = np.mean([(estimate.high - estimate.low) / 3.92 for estimate in found])
    assert 0.7 < widths / spread < 1.4
