"""Requests that wait for an engine, and the batches that they become."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from raudo.errors import RaudoError
from raudo.serve.errors import DeadlineError, EngineFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from raudo.serve.errors import ServeError
    from raudo.serve.instance import Instance, Part, Result
    from raudo.serve.settings import Limits


class Waiting:
    """A request that waits for an engine.

    Args:
        part: What it wants.
        deadline: When its time is over, by `time.monotonic`.
        left: Called once when it waits no more: an engine took it, or its time is over.
    """

    def __init__(self, part: Part, deadline: float, left: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.part = part
        self.done: asyncio.Future[Result] = loop.create_future()
        self.taken = 0.0
        self._left = left
        self._timer = loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)

    @property
    def over(self) -> bool:
        """Whether no answer is needed any more."""
        return self.done.done()

    def take(self) -> None:
        """Hand it to an engine; from here on its deadline does not matter."""
        self._timer.cancel()
        self.taken = time.monotonic()
        self._left()

    def leave(self) -> None:
        """Leave the line unanswered: the client is gone."""
        self._timer.cancel()
        self._left()

    def _expire(self) -> None:
        self._left()
        if not self.done.done():
            self.done.set_exception(
                DeadlineError(
                    "the request's time was over before an engine was free",
                    hint="send less at once, or give it a longer timeout",
                )
            )

    def answer(self, result: Result) -> None:
        """Give the result to whoever still waits for it."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: ServeError) -> None:
        """Give an error to whoever still waits."""
        if not self.done.done():
            self.done.set_exception(error)


class Line:
    """First come, first served; what was cancelled or is too late never reaches an engine."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: Waiting) -> None:
        """Append a request."""
        self._waiting.append(waiting)
        self._arrived.set()

    async def arrival(self) -> None:
        """Return once a request waits."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()

    def take(self, images: int) -> list[Waiting]:
        """Take the first requests that have at most so many images together."""
        taken: list[Waiting] = []
        while self._waiting and (first := self._waiting[0]):
            if first.over:
                self._waiting.popleft()
            elif len(first.part.images) <= images:
                taken.append(self._waiting.popleft())
                images -= len(first.part.images)
                first.take()
            else:
                break
        return taken


class Batcher:
    """Feeds one engine from a line: at once where it idles, in batches where requests pile up.

    Args:
        line: Where requests wait; several batchers may share it.
        instance: The engine.
        limits: How large batches may grow, and how long one may wait to do so.
        formed: Told of every batch: its number of images.
    """

    def __init__(
        self, line: Line, instance: Instance, limits: Limits, formed: Callable[[int], None]
    ) -> None:
        self._line = line
        self._instance = instance
        self._limits = limits
        self._formed = formed
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while True:
            backlog = len(self._line) > 0
            await self._line.arrival()
            batch = self._line.take(self._limits.max_batch)
            if backlog and batch:
                await self._fill(batch)
            if batch:
                await self._run(batch)

    async def _fill(self, batch: list[Waiting]) -> None:
        """Wait a moment for more: an engine that was busy will be busy again."""
        room = self._limits.max_batch - sum(len(w.part.images) for w in batch)
        until = time.monotonic() + self._limits.max_delay
        while room > 0 and (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._line.arrival(), left)
            except asyncio.TimeoutError:
                return
            more = self._line.take(room)
            if not more and len(self._line):
                return
            room -= sum(len(w.part.images) for w in more)
            batch += more

    async def _run(self, batch: list[Waiting]) -> None:
        self._formed(sum(len(waiting.part.images) for waiting in batch))
        try:
            results = await self._instance.run([waiting.part for waiting in batch])
        except RaudoError as error:
            for waiting in batch:
                waiting.fail(EngineFailedError(error.message, hint=error.hint))
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.answer(result)

    async def close(self) -> None:
        """Stop taking requests, and free the engine."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._instance.close()
