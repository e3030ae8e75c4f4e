"""Progressive growing inside one network (Karras et al. 2017, arXiv:1710.10196, section 2): training begins at half the side, where
an image costs half as much; then the layers of the full side are faded in.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Growth(nn.Module):
    """The output or input layer of a network at half its side, and the share of the full side's layers, from 0 to 1.

    The share is part of the network's state, in thousandths: an average of weights copies integers and does not average them.
    """

    thousandths: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("thousandths", torch.tensor(1000))
        self.known = 1.0
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]

    @property
    def share(self) -> float:
        """0 = half the side alone, 1 = the full side alone, between them both are blended."""
        if self.training or torch.compiler.is_exporting():
            return self.known  # a graph has no branches, and a GPU need not wait for the number
        return int(self.thousandths) / 1000

    def set(self, share: float) -> None:
        """Set the share, rounded to thousandths."""
        self.thousandths.fill_(round(1000 * share))
        self.known = round(1000 * share) / 1000


def _loaded(module: nn.Module, _: object) -> None:
    assert isinstance(module, Growth)
    if module.thousandths.device.type != "meta":
        module.known = int(module.thousandths) / 1000


def share_of(growth: Growth | None) -> float:
    """The share of the full side's layers; 1 in a network that does not grow."""
    return 1.0 if growth is None else growth.share


def idle_parameters(growth: Growth, full: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters without effect: those of the `full` side's layers before it grows, those of half the side afterwards."""
    layers = {0.0: full, 1.0: (growth.layer,)}.get(growth.share, ())
    return [parameter for layer in layers for parameter in layer.parameters()]


def enlarge(images: Tensor) -> Tensor:
    """`[n, C, H, W]` -> `[n, C, 2H, 2W]`, cubic."""
    return F.interpolate(images, scale_factor=2.0, mode="bicubic", align_corners=False)
