"""First weights from a normal distribution that is cut off at two deviations, as TensorFlow's `truncated_normal` draws them."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def truncated_normal_(weight: Tensor, deviation: float) -> Tensor:
    """Fill `weight` with draws from N(0, deviation²); those beyond two deviations are drawn again.

    `nn.init.trunc_normal_` of torch 2.13 does the same; that of 2.11 inverts the distribution, so that a seed has other weights.
    """
    if weight.is_meta:  # a header is checked without memory for its model
        return weight
    bound = weight.new_tensor(2 * deviation).item()  # as the weights' type rounds it
    weight.normal_(0.0, deviation)
    while (outside := weight.abs() > bound).any():
        weight.copy_(torch.where(outside, torch.empty_like(weight).normal_(0.0, deviation), weight))
    return weight
