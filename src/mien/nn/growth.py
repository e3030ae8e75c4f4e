"""Progressive growing inside one network (Karras et al. 2017, arXiv:1710.10196, section 2): training begins at half the side, where
an image costs half as much. Then the layers of the full side learn to imitate, and take over; nothing is faded in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Growth(nn.Module):
    """The output or input layer of a network at half its side, and whether the layers of the full side have taken over.

    That is part of the network's state, as an integer, which an average of weights copies.
    """

    state: Tensor

    def __init__(self, layer: nn.Module, full: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer = layer
        self._full = tuple(full)  # a tuple, so that they stay the network's own
        self.register_buffer("state", torch.tensor(1))
        self.known = True
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]

    @property
    def grown(self) -> bool:
        """Whether the network uses the layers of the full side, and not that of half the side."""
        if self.training or torch.compiler.is_exporting():
            return self.known  # a graph has no branches, and a GPU need not wait for the number
        return bool(int(self.state))

    def set(self, grown: bool) -> None:
        """Let the layers of the full side take over, or not."""
        self.state.fill_(int(grown))
        self.known = grown

    def full(self) -> list[nn.Parameter]:
        """The parameters of the layers of the full side."""
        return list(chain.from_iterable(layer.parameters() for layer in self._full))

    def idle(self) -> list[nn.Parameter]:
        """The parameters that the network's output does not depend on."""
        return list(self.layer.parameters()) if self.grown else self.full()


def _loaded(module: nn.Module, _: object) -> None:
    assert isinstance(module, Growth)
    if module.state.device.type != "meta":
        module.known = bool(int(module.state))


def enlarge(images: Tensor) -> Tensor:
    """`[n, C, H, W]` -> `[n, C, 2H, 2W]`, cubic."""
    return F.interpolate(images, scale_factor=2.0, mode="bicubic", align_corners=False)
