"""The explorer's queue by itself: room, patience, and who may share a chunk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("starlette", reason="SKIPPED QUEUE TESTS: the extra `web` is not installed")

from mien.web.limits import Full
from mien.web.queue import Kind, Queue, Stale


def rows(count: int, value: float = 0.0) -> Tensor:
    return torch.full((count, 2), value)


class Drawer:
    """Gives each latent back as its picture, and keeps what was drawn together."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, list[float]]] = []

    def __call__(self, kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        self.calls.append((kind.model, z[:, 0].tolist()))
        return z[:, :, None, None]


def together(queue: Queue, *questions: Coroutine[Any, Any, Tensor], wait: float = 0.0) -> list[Any]:
    """Put the questions, wait, and only then let the queue work: the answers, or what was raised."""

    async def all_of() -> list[Any]:
        asked = [asyncio.ensure_future(question) for question in questions]
        await asyncio.sleep(wait)
        worker = asyncio.ensure_future(queue.work())
        found = await asyncio.gather(*asked, return_exceptions=True)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        return found

    return asyncio.run(all_of())


def test_questions_of_one_kind_share_a_chunk_and_others_do_not() -> None:
    drawer = Drawer()
    queue = Queue(drawer)
    one, two = Kind("one"), Kind("two")
    found = together(
        queue, queue.faces(one, rows(1, 1.0)), queue.faces(two, rows(1, 2.0)), queue.faces(one, rows(2, 3.0))
    )
    assert [float(images[0, 0, 0, 0]) for images in found] == [1.0, 2.0, 3.0]  # everybody gets their own
    assert drawer.calls == [("one", [1.0, 3.0, 3.0]), ("two", [2.0])]


def test_where_there_is_no_room_a_question_is_refused_at_once() -> None:
    queue = Queue(Drawer(), room=3)
    first, second, third = together(queue, *(queue.faces(Kind("one"), rows(count)) for count in (2, 2, 1)))
    assert first.shape[0] == 2 and isinstance(second, Full) and third.shape[0] == 1


@pytest.mark.parametrize("patience, refused", [(0.01, True), (30.0, False)])
def test_a_question_waits_so_long_and_no_longer(patience: float, refused: bool) -> None:
    drawer = Drawer()
    queue = Queue(drawer, patience=patience)
    (found,) = together(queue, queue.faces(Kind("one"), rows(1)), wait=0.1)
    assert isinstance(found, Full) == refused and bool(drawer.calls) != refused


def test_a_queue_that_closes_refuses_also_what_is_drawn_now() -> None:
    """A flow's face may take longer than a server has to stop: its request was cut off, with a traceback for whoever stopped it."""
    begun, ended = threading.Event(), threading.Event()

    def draw(kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        begun.set()
        ended.wait(30)
        return z

    async def closed() -> list[Any]:
        queue = Queue(draw)
        worker = asyncio.ensure_future(queue.work())
        asked = [asyncio.ensure_future(queue.faces(Kind(model), rows(1))) for model in ("one", "two")]
        await asyncio.to_thread(begun.wait, 30)
        queue.close()
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
        late = await asyncio.gather(queue.faces(Kind("one"), rows(1)), return_exceptions=True)
        ended.set()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        return [*found, *late]

    assert [type(answer) for answer in asyncio.run(closed())] == [Full, Full, Full]


def test_a_newer_question_of_a_drag_takes_the_olders_place() -> None:
    queue = Queue(Drawer())
    kind = Kind("one")
    found = together(
        queue, queue.faces(kind, rows(1), drag="a"), queue.faces(kind, rows(1), drag="b"),
        queue.faces(kind, rows(1, 5.0), drag="a"),
    )  # fmt: skip
    assert isinstance(found[0], Stale) and found[1].shape[0] == 1 and float(found[2][0, 0, 0, 0]) == 5.0
    assert queue.dropped == 1


def test_a_single_face_comes_before_thumbnails_that_have_not_waited_long() -> None:
    def order(wait: float) -> list[float]:
        drawer = Drawer()
        queue = Queue(drawer)
        kind = Kind("one")
        waiting = [queue.faces(kind, rows(count, value)) for count, value in ((8, 1.0), (8, 2.0), (1, 3.0))]
        together(queue, *waiting, wait=wait)
        return [values[0] for _, values in drawer.calls]

    assert order(0.0) == [3.0, 1.0, 2.0]
    assert order(0.7) == [1.0, 2.0, 3.0], "thumbnails are not put off for ever"


def test_a_drag_moves_on_while_thumbnails_wait_and_they_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow's chunk of thumbnails takes a second: all of them came before the next face of a drag, which stood still."""
    monkeypatch.setattr("mien.web.queue.MOVING", 0.3)
    drawn: list[str] = []

    def draw(kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        drawn.append(str(kind.model))
        time.sleep(0.1 if kind.exact else 0.002)
        return z[:, :, None, None]

    async def both() -> list[str]:
        queue, clock = Queue(draw), asyncio.get_running_loop().time
        worker = asyncio.ensure_future(queue.work())
        thumbnails = [asyncio.ensure_future(queue.faces(Kind("thumbnail"), rows(8))) for _ in range(12)]
        end = clock() + 1.5
        while clock() < end:
            await queue.faces(Kind("moving", exact=False), rows(1), drag="a")
        found = [*drawn]
        await asyncio.gather(*thumbnails)
        worker.cancel()
        return found

    found = asyncio.run(both())
    assert 2 <= found.count("thumbnail") <= 6 and found.count("moving") > 40, found


def test_a_drag_does_not_keep_another_ones_face_waiting() -> None:
    """Its exact face waits as long as it would without the drag, and so do its thumbnails once nothing moves."""

    def draw(kind: Kind, z: Tensor, labels: Tensor | None) -> Tensor:
        time.sleep(0.01)
        return z[:, :, None, None]

    async def both() -> float:
        queue, clock = Queue(draw), asyncio.get_running_loop().time
        worker = asyncio.ensure_future(queue.work())
        end = clock() + 1.5

        async def drag(name: str) -> None:
            while clock() < end:
                with contextlib.suppress(Stale):
                    await queue.faces(Kind("moving", exact=False), rows(1), drag=name)

        drags = [asyncio.ensure_future(drag(name)) for name in "ab"]
        await asyncio.sleep(0.1)
        thumbnails = asyncio.ensure_future(queue.faces(Kind("thumbnail"), rows(8)))
        began = clock()
        await queue.faces(Kind("another"), rows(1))
        waited = clock() - began
        await asyncio.gather(*drags)
        await asyncio.wait_for(thumbnails, 1.0)
        worker.cancel()
        return waited

    assert asyncio.run(both()) < 1.0
