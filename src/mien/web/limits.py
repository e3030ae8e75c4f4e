"""How much may go on at once. A place is taken before anything is waited for, so that many at once cannot pass a limit together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")


class Full(Exception):
    """There is no room, or no answer in time: ask again later."""


class Limit:
    """At most `most` at once, of whatever is counted."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, amount: int = 1) -> Callable[[], None]:
        """Take places, and return what gives them back, once. Raises Full when too few are left."""
        if self.taken + amount > self.most:
            raise Full
        self.taken += amount
        left = [amount]

        def give_back() -> None:
            self.taken -= left.pop() if left else 0

        return give_back

    @contextmanager
    def held(self, amount: int = 1) -> Iterator[None]:
        """Places for the length of a block. Raises Full when too few are left."""
        give_back = self.take(amount)
        try:
            yield
        finally:
            give_back()


class LimitedStream(StreamingResponse):
    """A stream that gives its place back however it ends, also when the client left before the first piece."""

    def __init__(self, content: Any, give_back: Callable[[], None], **more: Any) -> None:
        super().__init__(content, **more)
        self.give_back = give_back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.give_back()


class Shared(Generic[Result]):
    """One computation for each key, however many wait for it."""

    def __init__(self) -> None:
        self.running: dict[Hashable, Any] = {}

    async def of(self, key: Hashable, compute: Callable[[], Awaitable[Result]]) -> Result:
        """The result of `compute`, or of the one that is running for `key` already. Who leaves does not end it for others."""
        if key not in self.running:
            self.running[key] = asyncio.ensure_future(compute())
            self.running[key].add_done_callback(lambda _: self.running.pop(key))
        found: Result = await asyncio.shield(self.running[key])
        return found
