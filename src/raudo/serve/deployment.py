"""One loaded version: its line, its engines, and the requests that are under way in it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

from raudo.serve.batching import Batcher, Line, Waiting
from raudo.serve.errors import QueueFullError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raudo.serve.instance import Instance, Part, Result
    from raudo.serve.observer import Observer
    from raudo.serve.records import ModelVersion
    from raudo.serve.settings import Limits


class Place:
    """A place in a version's line, from before the images are decoded until an engine takes them.

    Args:
        deployment: The version that counts who waits.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._waits = True

    def leave(self) -> None:
        """Wait no more; only the first call counts."""
        if self._waits:
            self._waits = False
            self._deployment.count(-1)


class Deployment:
    """A version that takes requests until it is closed.

    Args:
        version: What it is.
        instances: Its engines, which share one line.
        limits: How many may wait, and how batches form.
        observer: Told of batches, and of the line's length.
    """

    def __init__(
        self,
        version: ModelVersion,
        instances: Sequence[Instance],
        limits: Limits,
        observer: Observer,
    ) -> None:
        self.version = version
        most = min(limits.max_batch, version.max_batch)
        self._limits = limits = limits.model_copy(update={"max_batch": most})
        for instance in instances:
            instance.on_restart(self._restarted)
        self._observer = observer
        self._line = Line()
        self._waiting = self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._batchers = [
            Batcher(self._line, instance, limits, self._batch_formed) for instance in instances
        ]

    def _batch_formed(self, images: int) -> None:
        # Soon: the engine gets the batch first.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._observer.batch_formed, self.version, images)

    def _restarted(self, reason: str) -> None:
        self._observer.worker_restarted(self.version, reason)

    def count(self, more: int) -> None:
        """Note that so many more requests wait, or fewer."""
        self._waiting += more
        self._observer.queue_changed(self.version, self._waiting, self._limits.queue)

    @property
    def full(self) -> bool:
        """Whether as many wait as may wait."""
        return self._waiting >= self._limits.queue

    @property
    def drain_seconds(self) -> float:
        """Until an engine will have taken all who wait, if batches take as long as the last did.

        Nobody waits longer than the timeout: later they are answered without an engine.
        """
        each = max(batcher.seconds for batcher in self._batchers)
        batches = math.ceil(self._waiting / self._limits.max_batch / len(self._batchers))
        return min(each * batches, self._limits.timeout)

    @contextlib.contextmanager
    def admit(self) -> Iterator[Place]:
        """Let a request in, from before its images are decoded until its reply is there.

        Raises:
            QueueFullError: As many wait as may wait.
        """
        if self.full:
            raise QueueFullError(
                f"{self._waiting} requests wait already", retry_after=self.drain_seconds
            )
        self._inside += 1
        self._empty.clear()
        self.count(1)
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def run(self, part: Part, deadline: float, place: Place) -> tuple[float, Result]:
        """Wait for an engine, and return when it took the part, and what it found.

        Raises:
            DeadlineError: None was free before the deadline, of `time.monotonic`.
            EngineFailedError: The engine failed.
        """
        waiting = Waiting(part, deadline, place.leave)
        self._line.put(waiting)
        try:
            result = await waiting.done
        except asyncio.CancelledError:
            waiting.leave()
            raise
        return waiting.taken, result

    async def close(self) -> None:
        """Answer what is under way, then free the engines."""
        await self._empty.wait()
        await asyncio.gather(*(batcher.close() for batcher in self._batchers))
