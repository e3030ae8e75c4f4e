"""Optimizers without torch's compiler: the same bits, and the compiler is never imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, optim

from mien.core.eager_optimizer import eager_step
from mien.data.pack import Pack
from mien.recipes.optimizers import AdamHat

KINDS: dict[str, Callable[[list[Tensor]], optim.Optimizer]] = {
    "adam": lambda weights: optim.Adam(weights, 0.1),
    "fused adam": lambda weights: optim.Adam(weights, 0.1, fused=True),
    "adam-hat": lambda weights: AdamHat(weights, 0.1, fused=True),
    "rmsprop": lambda weights: optim.RMSprop(weights, 0.1),
    "decayed sgd": lambda weights: optim.SGD(weights, 0.1, momentum=0.9, weight_decay=0.1),
}


def test_training_does_not_import_torchs_compiler(blob_pack: Pack, tmp_path: Path) -> None:
    """It took 1.8 seconds of computing of each command that trains, and of each *Teach*."""
    code = (
        "import sys; from mien.__main__ import main; "
        f"code = main(['train', 'quick', '--data', {str(blob_pack.path)!r}, '--images', '32', '--model.width', '4', "
        f"'--recipe.critic.width', '4', '--out', {str(tmp_path / 'run')!r}]); "
        "print(code, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split()[-2:] == ["0", "False"], done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_the_bits_of_torchs_own(kind: str) -> None:
    moved = []
    for take in (optim.Optimizer.step, eager_step):
        torch.manual_seed(0)
        weights = [torch.randn(5, 3, requires_grad=True), torch.randn(7, requires_grad=True)]
        optimizer = KINDS[kind](weights)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            if take is eager_step:
                eager_step(optimizer)
            else:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        moved.append([weight.detach().clone() for weight in weights])
        assert all(weight.requires_grad and weight.grad is None for weight in weights)
    assert all(torch.equal(one, other) for one, other in zip(*moved, strict=True))


def test_hooks_and_other_optimizers_take_their_own_step() -> None:
    class Own(optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            taken.append("own")

    weight, taken = torch.zeros(2, requires_grad=True), list[str]()
    eager_step(Own([weight], 0.1))
    hooked = optim.SGD([weight], 0.1)
    hooked.register_step_post_hook(lambda *_: taken.append("hook"))
    eager_step(hooked)
    patched = optim.SGD([weight], 0.1)
    patched.step = lambda: taken.append("patched")  # type: ignore[method-assign, assignment]
    eager_step(patched)
    assert taken == ["own", "hook", "patched"]
