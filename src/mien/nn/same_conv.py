"""A convolution with TensorFlow's padding, for networks that come from there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """A convolution with `padding="SAME"`: ceil(side / stride) outputs, and an odd pixel of padding goes to the right and below.

    `nn.Conv2d` pads both ends alike, which shifts what a strided convolution looks at by a pixel.
    """

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(input.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            whole = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(input, pads))
