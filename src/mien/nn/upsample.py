"""Convolution after nearest upsampling by two, without convolving the copies.

Upsampling repeats every pixel four times, so most of a kernel's products are computed again and again. For each of the four
pixels that one becomes, the taps that fall on the same source pixel can be added first: a 5x5 kernel shrinks to four of 3x3
(9 products instead of 25 a pixel), a 3x3 kernel to four of 2x2. The result is the same sum.

The four can be convolved together and their pixels woven (`UpsampleConv2d`), or written as one transposed convolution by a kernel
that is one wider (`upsample_conv2d`). For 3x3 the second takes half the time of upsampling and convolving; for 5x5 they are even.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UpsampleConv2d(nn.Module):
    """`nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)` of the input doubled by nearest neighbours."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        if kernel not in (3, 5):
            raise ValueError(f"kernel {kernel} is not 3 or 5")
        plain = nn.Conv2d(inputs, outputs, kernel)  # for its initialisation
        self.weight, self.bias = plain.weight, plain.bias
        # taps[phase, source, tap]: whether a tap of the kernel falls on a source pixel, left, here or right, for each phase.
        reach = kernel // 2
        taps = torch.zeros(2, 3, kernel)
        for phase in range(2):
            for tap in range(kernel):
                taps[phase, (phase + tap - reach) // 2 + 1, tap] = 1.0
        self.register_buffer("taps", taps, persistent=False)

    taps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`[n, inputs, h, w]` -> `[n, outputs, 2 h, 2 w]`."""
        with torch.autocast(x.device.type, enabled=False):  # adding taps in bf16 would round the weights
            merged = torch.einsum("oiyx,ahy,bwx->oabihw", self.weight, self.taps, self.taps).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        merged = merged.contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(F.conv2d(x, merged, bias, padding=1), 2)


def upsample_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x` `[n, inputs, h, w]`, doubled by nearest neighbours and convolved with an odd kernel at the same size.

    Spreading each pixel by the kernel four times, a step apart each way, is spreading it once by the kernel's own box blur.
    """
    spread = weight.flip((2, 3))
    with torch.autocast(x.device.type, enabled=False):  # as above
        spread = F.pad(spread, (0, 1, 0, 0)) + F.pad(spread, (1, 0, 0, 0))
        spread = F.pad(spread, (0, 0, 0, 1)) + F.pad(spread, (0, 0, 1, 0))
    spread = spread.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    return F.conv_transpose2d(x, spread, bias, stride=2, padding=weight.shape[-1] // 2)
