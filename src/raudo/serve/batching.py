"""Requests that wait for an engine, and the batches that they become."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from raudo.errors import RaudoError, WorkerError
from raudo.serve.errors import DeadlineError, EngineFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from raudo.serve.errors import ServeError
    from raudo.serve.instance import Instance, Part, Result
    from raudo.serve.settings import Limits

PATIENCE = 0.25
"""Most of the last batch's time that the next one may wait to be filled."""


class Waiting:
    """A request that waits for an engine.

    Args:
        part: What it wants.
        deadline: When its time is over, by `time.monotonic`.
        left: Called when it waits no more: an engine took it, or its time is over.

    Attributes:
        done: Its result.
        taken: When an engine took it, by `time.monotonic`.
        alone: Whether it must not share a batch, for an engine died at it.
    """

    def __init__(self, part: Part, deadline: float, left: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.part = part
        self.done: asyncio.Future[Result] = loop.create_future()
        self.taken = 0.0
        self.alone = False
        self._deadline = deadline
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

    def again(self) -> None:
        """Wait once more, and then alone: an engine died at it."""
        self.alone = True
        left = max(0.0, self._deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left, self._expire)

    def too_late(self) -> bool:
        """Tell whether its time is over; its timer may be on its way only."""
        if time.monotonic() < self._deadline:
            return False
        self._timer.cancel()
        self._expire()
        return True

    def leave(self) -> None:
        """Leave the line unanswered: the client is gone."""
        self._timer.cancel()
        self._left()

    def _expire(self) -> None:
        self._left()
        if not self.done.done():
            self.done.set_exception(DeadlineError("its time was over before an engine was free"))

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

    def put_first(self, waiting: Waiting) -> None:
        """Put a request back that an engine could not answer."""
        self._waiting.appendleft(waiting)
        self._arrived.set()

    async def arrival(self) -> None:
        """Return once a request waits."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()

    def take(self, images: int, size: tuple[int, int] | None = None) -> list[Waiting]:
        """Take the next requests for one batch: of one size, and at most so many images together.

        Those of another size keep their places, and the first of them is a later batch's first.

        Args:
            images: Most images.
            size: Height and width of the images of a batch that began already; None: it begins.
        """
        taken: list[Waiting] = []
        passed: list[Waiting] = []
        while self._waiting:
            head = self._waiting.popleft()
            if head.over or head.too_late():
                continue
            if size is not None and head.part.size != size:
                passed.append(head)
                continue
            if len(head.part.images) > images or (head.alone and size is not None):
                passed.append(head)
                break
            taken.append(head)
            images, size = images - len(head.part.images), head.part.size
            head.take()
            if head.alone:
                break
        self._waiting.extendleft(reversed(passed))
        return taken


class Batcher:
    """Feeds one engine from a line: at once where it idles, in batches where requests pile up.

    Args:
        line: Where requests wait; several batchers may share it.
        instance: The engine.
        limits: How large batches may grow, and how long one may wait to do so.
        formed: Told of every batch: its number of images.

    Attributes:
        seconds: What the engine took for the last batch.
    """

    def __init__(
        self, line: Line, instance: Instance, limits: Limits, formed: Callable[[int], None]
    ) -> None:
        self._line = line
        self._instance = instance
        self._limits = limits
        self._formed = formed
        self.seconds = 0.0
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while True:
            backlog = len(self._line) > 0
            await self._line.arrival()
            batch = self._line.take(self._limits.max_batch)
            if backlog and batch and not batch[-1].alone:
                await self._fill(batch)
            if batch:
                await self._run(batch)

    async def _fill(self, batch: list[Waiting]) -> None:
        """Wait a moment for more, but not long for an engine that is quick anyway."""
        room = self._limits.max_batch - sum(len(w.part.images) for w in batch)
        until = time.monotonic() + min(self._limits.max_delay, self.seconds * PATIENCE)
        while room > 0 and (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._line.arrival(), left)
            except asyncio.TimeoutError:
                return
            more = self._line.take(room, batch[0].part.size)
            if not more and len(self._line):
                return
            room -= sum(len(w.part.images) for w in more)
            batch += more

    async def _run(self, batch: list[Waiting]) -> None:
        self._formed(sum(len(waiting.part.images) for waiting in batch))
        start = time.monotonic()
        try:
            results = await self._instance.run([waiting.part for waiting in batch])
        except WorkerError as error:
            self._again(batch, error)
        except RaudoError as error:
            for waiting in batch:
                waiting.fail(EngineFailedError(error.message, hint=error.hint))
        else:
            self.seconds = time.monotonic() - start
            for waiting, result in zip(batch, results, strict=True):
                waiting.answer(result)

    def _again(self, batch: list[Waiting], error: WorkerError) -> None:
        """Give each one more try, alone: what kills an engine shall take nobody with it."""
        for waiting in reversed(batch):
            if waiting.alone:
                waiting.fail(EngineFailedError(error.message, hint=error.hint))
            else:
                waiting.again()
                self._line.put_first(waiting)

    async def close(self) -> None:
        """Stop taking requests, and free the engine."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._instance.close()
