"""The Inception network of December 2015, whose 2048 pooled activations are the features of the Fréchet Inception
Distance.

Szegedy et al. 2015, arXiv 1512.00567, in the version of TensorFlow's `classify_image_graph_def.pb` (Heusel et al.
2017, arXiv 1706.08500): average pools do not count their padding, and the last block pools by maximum. Tensors keep
TensorFlow's node names: `mixed_4.tower_1.conv_3.weight` with `.beta`, `.mean` and `.var` of its batch normalisation,
which has no scale.

Two identities make it fast and leave its function as it is. Batch normalisation with fixed statistics is part of the
convolution before it. And a 1x1 convolution commutes with an average pool that does not count padding, so that the
four branches of a block begin with one 1x1 convolution, and the pool has fewer channels to pass over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299  # pixels, of the images it takes
EPSILON = 1e-3  # of its batch normalisation
STEM_IMAGES = 4  # go through the first layers together: their activations then stay in a CPU's cache, which brings 7%

Tensors = Mapping[str, Tensor]


class Convolution(nn.Module):
    """A convolution with its batch normalisation folded in; several of one shape on the same input are stacked into
    one.
    """

    def __init__(self, tensors: Tensors, *names: str, stride: int = 1, same: bool = True, relu: bool = True) -> None:
        super().__init__()
        scales = [(tensors[f"{name}.var"].double() + EPSILON).rsqrt() for name in names]
        weights = [tensors[f"{n}.weight"].double() * s[:, None, None, None] for n, s in zip(names, scales, strict=True)]
        biases = [
            tensors[f"{n}.beta"].double() - tensors[f"{n}.mean"].double() * s
            for n, s in zip(names, scales, strict=True)
        ]
        self.widths = [len(weight) for weight in weights]
        self.weight = nn.Parameter(torch.cat(weights).float(), requires_grad=False)
        self.bias = nn.Parameter(torch.cat(biases).float(), requires_grad=False)
        self.stride, self.relu = stride, relu
        height, width = self.weight.shape[2:]
        self.padding = (height // 2, width // 2) if same else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # conv2d would want the bias in bf16 too, whose rounding alone changes FID by 0.5%: it stays in fp32
            step = (self.stride, self.stride)
            x = torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, step, (1, 1), 1)
        else:
            x = F.conv2d(x, self.weight, self.bias.to(x.dtype), self.stride, self.padding)
        return F.relu_(x) if self.relu else x


def chain(tensors: Tensors, tower: str) -> Iterator[Convolution]:
    """The convolutions of a tower after its first, in order."""
    for index in count(1):
        if f"{tower}.conv_{index}.weight" not in tensors:
            return
        yield Convolution(tensors, f"{tower}.conv_{index}")


def average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def halve(x: Tensor) -> Tensor:
    """The maximum over 3x3 at stride 2, rows before columns: twice as fast on a CPU as `max_pool2d`, which keeps
    indices.
    """
    x = torch.maximum(torch.maximum(x[:, :, 0:-2:2], x[:, :, 1:-1:2]), x[:, :, 2::2])
    return torch.maximum(torch.maximum(x[..., 0:-2:2], x[..., 1:-1:2]), x[..., 2::2])


class Halve(nn.Module):
    """A maximum pool, then ReLU: the two commute, and this order has a quarter of the work."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(halve(x))


class Block(nn.Module):
    """Four branches side by side: 1x1, two towers that begin with 1x1, and an average pool with 1x1."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        heads = (f"{name}.conv", f"{name}.tower.conv", f"{name}.tower_1.conv", f"{name}.tower_2.conv")
        self.heads = Convolution(tensors, *heads, relu=False)
        self.tower = nn.Sequential(*chain(tensors, f"{name}.tower"))
        self.tower_1 = nn.Sequential(*chain(tensors, f"{name}.tower_1"))

    def forward(self, x: Tensor) -> Tensor:
        one, a, b, pooled = self.heads(x).split(self.heads.widths, dim=1)
        return torch.cat((F.relu(one), self.tower(F.relu(a)), self.tower_1(F.relu(b)), F.relu(average(pooled))), 1)


class ReductionA(nn.Module):
    """35x35 -> 17x17: a strided 3x3, a tower, and a maximum pool."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        self.conv = Convolution(tensors, f"{name}.conv", stride=2, same=False)
        self.tower = nn.Sequential(
            Convolution(tensors, f"{name}.tower.conv"),
            Convolution(tensors, f"{name}.tower.conv_1"),
            Convolution(tensors, f"{name}.tower.conv_2", stride=2, same=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.conv(x), self.tower(x), halve(x)), 1)


class ReductionB(nn.Module):
    """17x17 -> 8x8: two towers and a maximum pool."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        self.heads = Convolution(tensors, f"{name}.tower.conv", f"{name}.tower_1.conv")
        self.tower = Convolution(tensors, f"{name}.tower.conv_1", stride=2, same=False)
        self.tower_1 = nn.Sequential(
            Convolution(tensors, f"{name}.tower_1.conv_1"),
            Convolution(tensors, f"{name}.tower_1.conv_2"),
            Convolution(tensors, f"{name}.tower_1.conv_3", stride=2, same=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.heads(x).split(self.heads.widths, dim=1)
        return torch.cat((self.tower(a), self.tower_1(b), halve(x)), 1)


class Wide(nn.Module):
    """The 8x8 blocks: each tower ends in a 1x3 and a 3x1 side by side. The last block of the network pools by
    maximum.
    """

    def __init__(self, tensors: Tensors, name: str, maximum: bool) -> None:
        super().__init__()
        heads = [f"{name}.conv", f"{name}.tower_conv", f"{name}.tower_1_conv"]
        self.heads = Convolution(tensors, *heads)
        self.split = nn.ModuleList(Convolution(tensors, f"{name}.tower_mixed_conv{end}") for end in ("", "_1"))
        self.tower_1 = Convolution(tensors, f"{name}.tower_1_conv_1")
        self.split_1 = nn.ModuleList(Convolution(tensors, f"{name}.tower_1_mixed_conv{end}") for end in ("", "_1"))
        self.pooled = Convolution(tensors, f"{name}.tower_2_conv")
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        one, a, b = self.heads(x).split(self.heads.widths, dim=1)
        b = self.tower_1(b)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else average(x)
        branches = (one, *(conv(a) for conv in self.split), *(conv(b) for conv in self.split_1), self.pooled(pooled))
        return torch.cat(branches, 1)


class Inception(nn.Module):
    """Images `[n, 3, 299, 299]`, in about [-1, 1] -> features `[n, 2048]`, float32."""

    def __init__(self, tensors: Tensors) -> None:
        """From tensors by node name, which may stand behind the prefix `net.layers.`."""
        super().__init__()
        tensors = {name.removeprefix("net.layers."): tensor for name, tensor in tensors.items()}
        self.stem = nn.Sequential(
            Convolution(tensors, "conv", stride=2, same=False),
            Convolution(tensors, "conv_1", same=False),
            Convolution(tensors, "conv_2", relu=False),
            Halve(),
            Convolution(tensors, "conv_3"),
            Convolution(tensors, "conv_4", same=False, relu=False),
            Halve(),
        )
        self.body = nn.Sequential(
            Block(tensors, "mixed"),
            Block(tensors, "mixed_1"),
            Block(tensors, "mixed_2"),
            ReductionA(tensors, "mixed_3"),
            *(Block(tensors, f"mixed_{index}") for index in (4, 5, 6, 7)),
            ReductionB(tensors, "mixed_8"),
            Wide(tensors, "mixed_9", maximum=False),
            Wide(tensors, "mixed_10", maximum=True),
        )

    def cast(self, dtype: torch.dtype) -> Inception:
        """Take images of another type from now on: weights are rounded to it, biases are not."""
        for module in self.modules():
            if isinstance(module, Convolution):
                module.weight.data = module.weight.data.to(dtype)
        return self

    def forward(self, images: Tensor) -> Tensor:
        few = STEM_IMAGES if images.device.type == "cpu" else len(images)
        stems = torch.cat([self.stem(some) for some in torch.split(images, few)])  # [n, 192, 35, 35]
        activations: Tensor = self.body(stems)  # [n, 2048, 8, 8]
        return activations.float().mean((2, 3))
