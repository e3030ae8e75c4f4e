"""A bounded queue of faces to draw: concurrent requests share a chunk, abandoned ones are dropped."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mien.sampling.chunks import CHUNK
from mien.sampling.options import DrawOptions
from mien.web.limits import Full

FEW = 2  # rows of a chunk of thumbnails in few steps, which no padding makes equal in any company: the next preview waits less
ROOM = 512  # rows that wait, at most
PATIENCE = 8.0  # seconds that a row waits, at most
FAIR = 0.5  # seconds after which many rows wait no longer for single ones
MOVING = 4.0  # ... that many rows are held back by a drag: a flow's chunk takes a second, and nothing moves in it
STILL = 0.25  # seconds without a question after which a drag has ended

Result = TypeVar("Result")


class Stale(Exception):
    """A newer question of the same drag has taken this one's place."""


@dataclass(frozen=True)
class Kind:
    """What rows must share to be drawn together."""

    model: Hashable
    options: DrawOptions = DrawOptions()
    exact: bool = True
    stages: bool = False  # how a flow comes to its faces, too


@dataclass(eq=False)
class Waiting:
    """One question: a few rows that wait to be drawn."""

    kind: Kind
    z: Tensor  # [n, *latent_shape], n at most CHUNK
    labels: Tensor | None
    drag: str | None
    born: float
    answer: asyncio.Future[Tensor]


class Queue:
    """Draws in one thread, single faces and then the oldest question first, together with all that fits its chunk."""

    def __init__(
        self, draw: Callable[[Kind, Tensor, Tensor | None], Tensor], room: int = ROOM, patience: float = PATIENCE
    ) -> None:
        self.draw, self.room, self.patience = draw, room, patience
        self.waiting: deque[Waiting] = deque()
        self.drawing: list[Waiting] = []  # what is drawn now
        self.thread = ThreadPoolExecutor(1, "drawing")
        self.something = asyncio.Event()
        self.crowded = 0.0  # when many rows were drawn last
        self.moved = -STILL  # when a face of a drag was asked for last
        self.drawn = 0  # rows, since the start
        self.dropped = 0  # stale questions

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(len(question.z) for question in self.waiting)

    async def faces(self, kind: Kind, z: Tensor, labels: Tensor | None = None, drag: str | None = None) -> Tensor:
        """Images `[n, C, H, W]` in [-1, 1] of latents `[n, *latent_shape]`. Raises Full, or Stale for a drag that went on."""
        found = []
        most = CHUNK if kind.exact else FEW
        for start in range(0, len(z), most):  # one chunk at a time, so that a long question lets short ones in between
            rows = slice(start, start + most)
            found.append(await self._chunk(kind, z[rows], None if labels is None else labels[rows], drag))
        return torch.cat(found)

    async def _chunk(self, kind: Kind, z: Tensor, labels: Tensor | None, drag: str | None) -> Tensor:
        if drag is not None:
            self.moved = time.monotonic()
            for other in [other for other in self.waiting if other.drag == drag]:
                self._leave(other, Stale())
                self.dropped += 1
        if self.rows + len(z) > self.room:
            raise Full
        answer: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        question = Waiting(kind, z, labels, drag, time.monotonic(), answer)
        self.waiting.append(question)
        self.something.set()
        try:
            return await answer
        finally:
            if question in self.waiting:  # the client has gone
                self.waiting.remove(question)

    def check(self) -> None:
        """Raises Stale where nobody waits any more for what is drawn now: what takes long looks here between its steps."""
        if self.drawing and all(question.answer.done() for question in self.drawing):
            raise Stale

    def close(self) -> None:
        """Refuse what waits, what is drawn now, which may take longer than a server has to stop, and all that comes."""
        self.room = 0
        for question in [*self.waiting]:
            self._leave(question, Full())
        for question in self.drawing:
            if not question.answer.done():
                question.answer.set_exception(Full())

    def _leave(self, question: Waiting, why: Exception) -> None:
        self.waiting.remove(question)
        if not question.answer.done():
            question.answer.set_exception(why)

    def _take(self) -> list[Waiting]:
        """A question that is still wanted, and others of its kind that fit the same chunk.

        A single face, which somebody looks at, comes before thumbnails that have not waited long. While something is dragged,
        thumbnails are held back: none is begun in the gap between two faces of the drag.
        """
        now = time.monotonic()
        for question in [q for q in self.waiting if now - q.born > self.patience]:
            self._leave(question, Full())
        if not self.waiting:
            return []
        moving = now - self.moved < STILL
        ready = [q for q in self.waiting if len(q.z) == 1 or not moving or now - max(q.born, self.crowded) > MOVING]
        if not ready:
            return []  # the drag's next face is about to be asked for
        single = next((q for q in ready if len(q.z) == 1), ready[0])
        first = ready[0] if now - ready[0].born > FAIR else single
        taken, rows, kind = [], 0, first.kind
        for question in [first, *(q for q in self.waiting if q is not first)]:
            alike = question.kind == kind and question.z.shape[1:] == first.z.shape[1:]  # or a latent for each stage
            if alike and rows + len(question.z) <= CHUNK:
                taken.append(question)
                rows += len(question.z)
                self.waiting.remove(question)
        return taken

    async def work(self) -> None:
        """Draw until cancelled."""
        try:
            while True:
                await self.something.wait()
                self.something.clear()
                while self.waiting:
                    if taken := self._take():
                        self.drawing = taken
                        await self._answer(taken)
                    else:
                        await asyncio.sleep(STILL / 10)
        finally:
            self.close()
            self.thread.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, taken: list[Waiting]) -> None:
        z = torch.cat([question.z for question in taken])
        rows = [question.labels for question in taken if question.labels is not None]
        try:
            images = await self.alone(lambda: self.draw(taken[0].kind, z, torch.cat(rows) if rows else None))
        except Exception as error:
            for question in taken:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        finally:
            if len(z) > 1:
                self.crowded = time.monotonic()
        self.drawn += len(z)
        start = 0
        for question in taken:
            if not question.answer.done():
                question.answer.set_result(images[start : start + len(question.z)])
            start += len(question.z)

    async def alone(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the drawing thread, in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work)
