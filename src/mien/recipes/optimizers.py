"""Optimizers by name, with the constants that papers give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import Any, Literal

from torch import Tensor, nn, optim

OptimizerName = Literal["adam", "adam-hat", "rmsprop"]


class AdamHat(optim.Adam):
    """Adam whose epsilon is added before the moments are corrected (arXiv:1412.6980, end of section 2).

    So do TensorFlow, Keras and Torch7. Torch adds it afterwards, which is a 30 times smaller one in the first step: where
    gradients are small, a network starts otherwise.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            hat = group.setdefault("eps_hat", group["eps"])
            state = self.state.get(group["params"][0], {})
            done = state.get("step", 0)
            calls = 1 + int(done.item() if isinstance(done, Tensor) else done)
            group["eps"] = hat / sqrt(1.0 - group["betas"][1] ** calls)
        return inspect.unwrap(optim.Adam.step)(
            self, closure
        )  # below what would import torch's compiler: core/eager_optimizer


def build(
    name: OptimizerName,
    parameters: Iterable[nn.Parameter] | Sequence[dict[str, Any]],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    alpha: float = 0.9,
    eps: float = 1e-8,
) -> optim.Optimizer:
    """`betas` are Adam's; `alpha` is RMSprop's. Both add `eps` outside the square root, as torch-gan does.

    "adam-hat" is Adam as TensorFlow, Keras and Torch7 have it.
    """
    if name == "rmsprop":
        return optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=eps)
    kind = AdamHat if name == "adam-hat" else optim.Adam
    return kind(parameters, lr=lr, betas=betas, eps=eps, fused=True)


def decayed(network: nn.Module, weight_decay: float, exempt: Sequence[nn.Module] = ()) -> list[dict[str, Any]]:
    """Parameter groups of a network: weights of linear and convolutional layers decay, all else and `exempt` layers do not."""
    if not weight_decay:
        return [{"params": list(network.parameters())}]
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    chosen = {id(m.weight) for m in network.modules() if isinstance(m, layers) and not any(m is one for one in exempt)}
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in network.parameters():
        groups[id(parameter) not in chosen].append(parameter)
    return [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in zip(groups, (weight_decay, 0.0), strict=True)
        if parameters
    ]


def set_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every parameter of an optimizer the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
