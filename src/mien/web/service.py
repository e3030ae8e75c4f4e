"""What the routes share: the models, the queue before them, and the cache of pictures."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from starlette.requests import Request
from torch import Tensor

from mien.core.families import FlowModel
from mien.errors import MienError, UsageError
from mien.nn.ode import TABLEAUS, Solution
from mien.sampling.address import Address, SeedPoint
from mien.sampling.sampler import Sampler
from mien.web.limits import Limit
from mien.web.params import FaceParams
from mien.web.pictures import ResponseCache
from mien.web.queue import Kind, Queue
from mien.web.registry import Registry
from mien.web.responses import while_connected

PREVIEW = Solution(
    method="multistep", steps=4
)  # of a flow's thumbnails and drags: one evaluation of its network a step
SMOOTH = 0.08  # seconds of computing for a picture of a drag: of a slower flow it takes fewer steps, so that ten come a second
LEAST = 2  # ... but so many
LIGHT = 0.02  # seconds of computing up to which a preview is one core's: threads that wait for work hold the page's
MAX_PIXELS = 1 << 25  # of the faces of one answer: 400 MB while they are drawn


def few_steps(sampler: Sampler, steps: int = PREVIEW.steps) -> Sampler:
    """The sampler with the solver of previews and thumbnails, or itself where its own takes no more evaluations."""
    if not isinstance(model := sampler.model, FlowModel):
        return sampler
    own = sampler.options.solution(model)
    evaluations = own.steps * (1 if own.method == "multistep" else len(TABLEAUS[own.method].times))
    if own.method != "adaptive" and evaluations <= steps:
        return sampler
    return sampler.with_options(replace(sampler.options, solver=solver_of(steps)))


def solver_of(steps: int) -> str:
    """The solver of previews, as an option."""
    return str(replace(PREVIEW, steps=steps))


class Service:
    """Runs every request to a sampler."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.cache = ResponseCache()
        self.queue = Queue(self.draw)
        self.pixels = Limit(4 * MAX_PIXELS)
        self.steps: dict[Hashable, int] = {}  # of a drag's pictures, by model, where they are fewer than PREVIEW's
        self.heavy: set[Hashable] = set()  # models whose previews take half of the cores

    def draw(self, kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the queue runs in its thread."""
        sampler = self.registry.sampler(str(kind.model)).with_options(kind.options)
        if kind.stages:
            return sampler.trajectory(z, labels, self.queue.check)
        if kind.exact:
            return self.exact(sampler, z, labels)
        cores, started = torch.get_num_threads(), time.thread_time()
        torch.set_num_threads(max(1, cores // 2) if kind.model in self.heavy else 1)  # of this thread
        try:
            images = sampler.preview(z, labels)
        finally:
            torch.set_num_threads(cores)
        seconds, steps = (time.thread_time() - started) / len(z), self.steps.get(kind.model, PREVIEW.steps)
        if seconds > LIGHT:
            self.heavy.add(kind.model)
        if seconds > SMOOTH and kind.options.solver == solver_of(steps) and steps > LEAST:
            self.steps[kind.model] = steps - 1
        return images

    def exact(self, sampler: Sampler, z: Tensor, labels: Tensor | None) -> Tensor:
        """Images `[n, C, H, W]` as `decode` draws them. Raises Stale where that takes many steps and everybody has gone."""
        flow = sampler.model if few_steps(sampler) is not sampler else None
        if isinstance(flow, FlowModel) and sampler.options.solution(flow).method != "adaptive":
            return sampler.trajectory(z, labels, self.queue.check)[:, -1]
        return sampler.decode(z, labels)

    async def warm(self) -> None:
        """Load the first model of the list and draw a face: the first face takes longest."""

        def draw() -> None:
            id = self.registry.first()
            if id is not None:
                sampler = self.registry.sampler(id)
                z, labels = sampler.latent_at(Address(SeedPoint(0)))
                sampler.decode(z, labels)
                sampler.preview(z, labels)

        with suppress(MienError):  # the request for it gets the error
            await self.queue.alone(draw)

    async def sampler(self, request: Request) -> Sampler:
        """The model that a path names."""
        id = request.path_params["id"]
        known = self.registry.in_memory(id)
        return known if known is not None else await self.queue.alone(lambda: self.registry.sampler(id))

    async def as_thumbnail(self, request: Request, face: FaceParams) -> FaceParams:
        """How the face is drawn where it is small: as it is, or by a flow, whose faces are slow, in few steps and within 2/255."""
        sampler = (await self.sampler(request)).with_options(face.options)
        quick = few_steps(sampler)
        return face if quick is sampler else replace(face, options=quick.options, exact=False)

    async def faces(
        self,
        request: Request,
        addresses: Sequence[Address],
        face: FaceParams,
        drag: str | None = None,
        stages: bool = False,
    ) -> Tensor:
        """Images `[n, C, H, W]` at some addresses, or how a flow comes to them, `[n, steps + 1, C, H, W]`."""
        sampler = (await self.sampler(request)).with_options(face.options)
        placed = [sampler.latent_at(address, face.labels, face.directions, face.layers) for address in addresses]
        rows = [labels for _, labels in placed if labels is not None]
        id = request.path_params["id"]
        options = face.options if drag is None else few_steps(sampler, self.steps.get(id, PREVIEW.steps)).options
        kind = Kind(id, options, exact=face.exact and drag is None, stages=stages)
        side = sampler.image_spec.side
        pixels = len(placed) * side * side
        if pixels > MAX_PIXELS:
            raise UsageError(
                f"{len(placed)} faces of {side} px are too many.",
                f"One answer has up to {MAX_PIXELS:,} pixels.",
                "Ask for fewer, or for smaller ones.",
            )
        with self.pixels.held(pixels):
            z, labels = torch.cat([z for z, _ in placed]), torch.cat(rows) if rows else None
            return await while_connected(request, self.queue.faces(kind, z, labels, drag))
