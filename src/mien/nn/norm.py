"""Batch normalisation over all ranks, on any device: torch's synchronised layer refuses CPUs and double backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mien.core import distributed
from mien.errors import UsageError


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Normalise by the batch as in training, and leave the running statistics as they are."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm2d)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that, under torchrun, normalises by the statistics of all ranks' batches together."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and not distributed.joined() and input.numel() == input.shape[1]:
            raise UsageError(
                "A batch of one cannot be normalised.",
                "Each feature has but one value there.",
                "Use --batch 2 or more.",
            )
        if not (self.training and distributed.joined()):
            return super().forward(input)
        x = input.float() if input.dtype == torch.bfloat16 else input
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])])
        totals = distributed.differentiable_sum(sums)
        count = totals[-1].detach()
        mean, square = (totals[:-1] / count).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            assert (
                self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            )
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)
            self.num_batches_tracked += 1
        shape = (1, -1, 1, 1)
        y = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        return (y * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)
