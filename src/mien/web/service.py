"""What the routes share: the models, the queue before them, and the pictures that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from starlette.requests import Request
from torch import Tensor

from mien.errors import MienError
from mien.sampling.address import Address, Place
from mien.sampling.sampler import Sampler
from mien.web.params import Look
from mien.web.pictures import Kept
from mien.web.queue import Kind, Queue
from mien.web.registry import Registry


class Desk:
    """Where every question to a sampler goes through."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.kept = Kept()
        self.queue = Queue(self.draw)

    def draw(self, kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the queue runs in its thread."""
        sampler = kind.manner.of(self.registry.sampler(str(kind.model)))
        if kind.stages:
            return sampler.trajectory(z, labels)
        return sampler.decode(z, labels) if kind.exact else sampler.preview(z, labels)

    async def warm(self) -> None:
        """Load the model that will be asked for first, and draw a face: the first of all takes longest."""

        def draw() -> None:
            id = self.registry.first()
            if id is not None:
                sampler = self.registry.sampler(id)
                z, labels = sampler.latent_at(Address(Place(0)))
                sampler.decode(z, labels)
                sampler.preview(z, labels)

        with suppress(MienError):  # whoever asks for it is told
            await self.queue.alone(draw)

    async def sampler(self, request: Request) -> Sampler:
        """The model that a path names."""
        id = request.path_params["id"]
        known = self.registry.in_memory(id)
        return known if known is not None else await self.queue.alone(lambda: self.registry.sampler(id))

    async def faces(
        self,
        request: Request,
        addresses: Sequence[Address],
        look: Look,
        drag: str | None = None,
        stages: bool = False,
    ) -> Tensor:
        """Images `[n, C, H, W]` at some addresses, or how a flow comes to them, `[n, steps + 1, C, H, W]`."""
        sampler = look.manner.of(await self.sampler(request))
        placed = [sampler.latent_at(address, look.labels, look.directions) for address in addresses]
        rows = [labels for _, labels in placed if labels is not None]
        kind = Kind(request.path_params["id"], look.manner, exact=drag is None, stages=stages)
        return await self.queue.faces(kind, torch.cat([z for z, _ in placed]), torch.cat(rows) if rows else None, drag)
