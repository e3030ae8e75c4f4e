"""Augmentation is linear where it says so, differentiable twice, and changes as many images as it is asked to."""

from __future__ import annotations

import pytest
import torch

from mien.errors import UsageError
from mien.recipes.augmentation import DRAWS, Augment, Augmentation, placement, resampled


def augment(p: float, **config: float) -> Augment:
    module = Augment(Augmentation(mode="ramp", **config))
    module.p.fill_(p)
    return module


def numbers(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def test_nothing_changes_at_zero() -> None:
    images = torch.randn(4, 3, 16, 16)
    assert augment(0.0)(images, numbers(4)) is images


def test_changes_come_as_often_as_p_says() -> None:
    """With cutout alone, an image is changed with probability p; the square is half the side where it fits."""
    module = augment(0.3, geometry=0.0, colour=0.0)
    changed = module(torch.ones(4000, 3, 16, 16), numbers(4000)) < 0.5
    assert float(changed.flatten(1).any(1).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert int(changed[:, 0].sum((1, 2)).max()) == 64


def test_each_group_has_a_switch() -> None:
    images = torch.rand(64, 3, 16, 16)
    for group in ("geometry", "colour", "cutout"):
        off = dict.fromkeys(("geometry", "colour", "cutout"), 0.0)
        same = augment(0.9, **off)(images, numbers(64))
        assert torch.allclose(same, images, atol=1e-5)
        assert not torch.allclose(augment(0.9, **{**off, group: 1.0})(images, numbers(64)), images, atol=0.1)


def test_each_change_of_place_is_what_its_numbers_say() -> None:
    """A number far below 0 turns a change on, far above 0 off; coordinates go from -1 to 1 over 16 pixels."""
    step, on = 2**0.2, -9.0
    changes = {
        "both scaled": ({6: 1.0, 7: on}, [[step, 0, 0], [0, step, 0]]),
        "one scaled against the other": ({10: 1.0, 11: on}, [[step, 0, 0], [0, 1 / step, 0]]),
        "moved by two whole pixels": ({3: on}, [[1, 0, 0.25], [0, 1, 0.25]]),
        "moved by an eighth of the side": ({14: on, 15: 1.0, 16: 0.0}, [[1, 0, 0.25], [0, 1, 0]]),
        "turned by a quarter": ({1: on, 2: -0.4}, [[0, -1, 0], [1, 0, 0]]),
        "mirrored": ({0: on}, [[-1, 0, 0], [0, 1, 0]]),
    }
    for name, (drawn, wanted) in changes.items():
        rows = torch.full((1, DRAWS), 9.0)
        for place, number in drawn.items():
            rows[0, place] = number
        found = placement(iter(rows.unbind(1)), 0.5, 16)[0]
        assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float32), atol=1e-5), (name, found)


def test_flips_are_exact() -> None:
    image = torch.randn(1, 3, 8, 8)
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert torch.allclose(resampled(image, mirror), image.flip(-1), atol=1e-6)


def test_greys_stay_grey_and_a_grey_image_works() -> None:
    grey = torch.rand(32, 1, 16, 16).expand(-1, 3, -1, -1)
    changed = augment(1.0, geometry=0.0, colour=1.0, cutout=0.0)(grey, numbers(32))
    assert torch.allclose(changed[:, 0], changed[:, 2], atol=1e-5) and not torch.allclose(changed, grey, atol=0.1)
    assert augment(1.0)(torch.rand(4, 1, 16, 16), numbers(4)).shape == (4, 1, 16, 16)


def test_derivatives_are_right_twice() -> None:
    """Against finite differences in double precision, also of the slope's own slope."""
    module = augment(1.0, colour=1.0).double()
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = numbers(2).double()

    def seen(x: torch.Tensor) -> torch.Tensor:
        return module(x, weights).square()

    assert torch.autograd.gradcheck(seen, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(seen, images, fast_mode=True)


def test_ramp_and_bounds() -> None:
    module = Augment(Augmentation(mode="ramp", p=0.4, images=1000))
    for seen, p in ((0, 0.0), (250, 0.058579), (500, 0.2), (1000, 0.4), (9000, 0.4)):  # half a cosine
        module.schedule(seen)
        assert float(module.p) == pytest.approx(p, rel=1e-4)
    for wrong in ({"p": 1.5}, {"cutout": float("nan")}, {"images": 0}):
        with pytest.raises(UsageError):
            Augmentation(**wrong)  # type: ignore[arg-type]


def test_adaptive_follows_the_critic() -> None:
    module = Augment(Augmentation(mode="adaptive", p=0.5, images=100))
    sure, unsure = torch.ones(10), torch.tensor([1.0, -1.0] * 5)
    for _ in range(3):
        module.heed(sure, -sure, 10)
    assert float(module.p) == pytest.approx(0.3)
    for _ in range(9):
        module.heed(sure, -sure, 10)
    assert float(module.p) == 0.5
    module.heed(unsure, torch.zeros(10), 10)
    assert float(module.p) == pytest.approx(0.4)
