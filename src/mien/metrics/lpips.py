"""LPIPS, the learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924), as an embedding.

The distance compares activations of an image network, each scaled to unit length over its channels, by weighted
squares, averaged over places and summed over five layers. Weighted squares are a squared length: stacked with the
roots of their weights, the activations are an embedding `e(x)` with LPIPS(x, y) = |e(x) - e(y)|^2. So the mean over
all pairs of n images costs n embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = Literal["alex", "vgg"]

SMALLEST = 64  # pixels: below it the deepest layers have no places left, and images are enlarged to it

# The normalisation of the images that the networks learned from, for images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Layer(nn.Module):
    """A pool, if any, a convolution and ReLU; with `weights` `[1, 1, channels, 1]`, its activations are compared."""

    def __init__(
        self, kernel: Tensor, bias: Tensor, stride: int, padding: int, pool: int, weights: Tensor | None
    ) -> None:
        super().__init__()
        self.kernel = nn.Parameter(kernel.permute(3, 2, 0, 1).contiguous(), requires_grad=False)  # [out, in, h, w]
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.padding, self.pool = stride, padding, pool
        roots = torch.empty(0) if weights is None else weights.flatten().clamp(min=0).sqrt()
        self.roots = nn.Parameter(roots, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool:
            x = F.max_pool2d(x, self.pool, 2)
        activations: Tensor = F.relu(F.conv2d(x, self.kernel, self.bias, self.stride, self.padding))
        return activations

    def compared(self, x: Tensor) -> Tensor:
        """The layer's part of the embedding, `[n, channels * places]`."""
        lengths = (x**2).sum(1, keepdim=True).sqrt() + 1e-10
        places = x.shape[2] * x.shape[3]
        part: Tensor = x / lengths * self.roots[:, None, None] / places**0.5
        return part.flatten(1)


class Lpips(nn.Module):
    """Images `[n, 3, H, W]` in [-1, 1] -> embeddings `[n, D]`, whose squared distances are LPIPS."""

    shift: Tensor
    scale: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], network: Network) -> None:
        """From tensors by the names of their origin: `AlexNet_0.Conv_0.kernel`, `[h, w, in, out]`, and so on."""
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.layers = nn.ModuleList(alexnet(tensors) if network == "alex" else vgg16(tensors))

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[2:]) < SMALLEST:
            images = F.interpolate(images, (SMALLEST, SMALLEST), mode="bilinear", align_corners=False)
        x = (images - self.shift) / self.scale
        parts = []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = layer(x)
            if len(layer.roots):
                parts.append(layer.compared(x))
        embedding: Tensor = torch.cat(parts, 1)
        return embedding


def alexnet(tensors: Mapping[str, Tensor]) -> Iterator[Layer]:
    """AlexNet's five convolutions, each of which is compared (Krizhevsky 2014, arXiv 1404.5997)."""
    for index, (stride, padding, pool) in enumerate([(4, 2, 0), (1, 2, 3), (1, 1, 3), (1, 1, 0), (1, 1, 0)]):
        name = f"AlexNet_0.Conv_{index}"
        weights = tensors[f"NetLinLayer_{index}.Conv_0.kernel"]
        yield Layer(tensors[f"{name}.kernel"], tensors[f"{name}.bias"], stride, padding, pool, weights)


def vgg16(tensors: Mapping[str, Tensor]) -> Iterator[Layer]:
    """VGG16's thirteen convolutions, of which the last before each pool is compared (Simonyan 2014, arXiv 1409.1556)."""
    compared, first = [1, 3, 6, 9, 12], [2, 4, 7, 10]  # the last of a group, and the first after a pool
    for index in range(13):
        name = f"VGG16_0.Conv_{index}"
        weights = tensors[f"NetLinLayer_{compared.index(index)}.Conv_0.kernel"] if index in compared else None
        pool = 2 if index in first else 0
        yield Layer(tensors[f"{name}.kernel"], tensors[f"{name}.bias"], 1, 1, pool, weights)
