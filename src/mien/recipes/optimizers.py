"""Optimizers by name, with the constants that papers give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn, optim

OptimizerName = Literal["adam", "rmsprop"]


def build(
    name: OptimizerName,
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    alpha: float = 0.9,
    weight_decay: float = 0.0,
) -> optim.Optimizer:
    """`betas` are Adam's; `alpha` is RMSprop's. Both add 1e-8 outside the square root, as torch-gan does."""
    if name == "rmsprop":
        return optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=1e-8, weight_decay=weight_decay)
    return optim.Adam(parameters, lr=lr, betas=betas, eps=1e-8, weight_decay=weight_decay, fused=True)


def set_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every parameter of an optimizer the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
