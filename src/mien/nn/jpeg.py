"""JPEG as the last step of a generator that draws, for faces that come from JPEG files (ITU-T T.81).

Photographs that were compressed at about the size at which they are learned have the marks of it: blocks of 8 by 8 pixels, ripples,
chroma of half the side. A critic, and Inception, see them at once, and no small generator draws them. It learns without this
layer: fakes that were compressed before the critic got them made worse faces (docs/LOG.md).
"""

from __future__ import annotations

from math import cos, pi, sin, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.compression import BLOCK, CHROMA_STEPS, LUMA_STEPS, UNIT, Compression, steps
from mien.errors import UsageError

LOBES = 3  # of the Lanczos filter
#: RGB -> luma and two chroma planes, all in [-1, 1] (JFIF: ITU-R BT.601 at full range).
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def cosines() -> Tensor:
    """The orthonormal DCT of a block of 8 by 8 numbers, `[64, 64]`, frequencies by row."""
    rows = [[cos((2 * x + 1) * k * pi / (2 * BLOCK)) for x in range(BLOCK)] for k in range(BLOCK)]
    line = torch.tensor(rows) * torch.tensor([sqrt(1 / BLOCK)] + [sqrt(2 / BLOCK)] * (BLOCK - 1))[:, None]
    return torch.kron(line, line)


def resampling(old: int, new: int) -> Tensor:
    """The matrix `[new, old]` that resizes a line of pixels, antialiased, by Lanczos filters of three lobes."""
    scale = old / new
    reach = LOBES * max(scale, 1.0)
    rows = []
    for place in range(new):
        offsets = [(x + 0.5 - (place + 0.5) * scale) / max(scale, 1.0) for x in range(old)]
        row = [lanczos(x) if abs(x) * max(scale, 1.0) < reach else 0.0 for x in offsets]
        rows.append([weight / sum(row) for weight in row])
    return torch.tensor(rows, dtype=torch.float64)


def lanczos(x: float) -> float:
    return 1.0 if x == 0.0 else LOBES * sin(pi * x) * sin(pi * x / LOBES) / (pi * x) ** 2


class JPEG(nn.Module):
    """Images `[n, C, side, side]` in [-1, 1] -> the same as they are read from JPEG files with 4:2:0 chroma; C is 1 or 3.

    Where the files were resized afterwards, images are enlarged to the files' pixels, and the error of their compression is
    reduced and added. Beyond the square, edges are repeated. Values outside [-1, 1] are compressed as they are.
    """

    ycc: Tensor
    rgb: Tensor
    dct: Tensor
    luma: Tensor
    chroma: Tensor
    enlarge: Tensor
    reduce: Tensor

    def __init__(self, compression: Compression, side: int) -> None:
        super().__init__()
        inner = compression.side or side
        if not compression.fits(side):
            raise UsageError(
                f"--model.jpeg {compression} is not possible at {side} px.",
                f"Of a square of {inner} pixels that is resized so far, no mark of its compression is left.",
                "Leave it out.",
            )
        left, top = compression.left % UNIT, compression.top % UNIT
        self.compression = compression
        self.resizes = inner != side
        self.square = (left, top, inner)
        self.edges = (left, -(left + inner) % UNIT, top, -(top + inner) % UNIT)
        ycc = torch.tensor(TO_YCC)
        constants = {
            "ycc": ycc,
            "rgb": torch.linalg.inv(ycc.double()),
            "dct": cosines(),
            "luma": torch.tensor(steps(LUMA_STEPS, compression.quality)) / 127.5,
            "chroma": torch.tensor(steps(CHROMA_STEPS, compression.quality)) / 127.5,
            "enlarge": resampling(side, inner),
            "reduce": resampling(inner, side),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            files = self.enlarge @ images @ self.enlarge.T if self.resizes else images
            error = self.compressed(files) - files
            return images + (self.reduce @ error @ self.reduce.T if self.resizes else error)

    def compressed(self, images: Tensor) -> Tensor:
        """Images `[n, C, inner, inner]` at the pixels of the files, compressed and read again."""
        left, top, inner = self.square
        whole = F.pad(images, self.edges, mode="replicate")
        if whole.shape[1] == 3:
            planes = torch.einsum("dc,nchw->ndhw", self.ycc, whole)
            luma = self.rounded(planes[:, :1], self.luma)
            chroma = self.rounded(F.avg_pool2d(planes[:, 1:], 2), self.chroma)
            chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)  # libjpeg's filter
            whole = torch.einsum("dc,nchw->ndhw", self.rgb, torch.cat([luma, chroma], 1))
        else:
            whole = self.rounded(whole, self.luma)
        return whole[:, :, top : top + inner, left : left + inner]

    def rounded(self, planes: Tensor, step: Tensor) -> Tensor:
        """Planes `[n, k, H, W]`, their cosine transforms rounded to multiples of `step` `[64]`; gradients ignore it."""
        rows, columns = planes.shape[2] // BLOCK, planes.shape[3] // BLOCK
        blocks = planes.detach().reshape(-1, rows, BLOCK, columns, BLOCK).transpose(2, 3)
        found = blocks.reshape(-1, BLOCK**2) @ self.dct.T  # one product for all blocks is fast
        error = ((found / step).round() * step - found) @ self.dct
        return planes + error.view(blocks.shape).transpose(2, 3).reshape(planes.shape)
