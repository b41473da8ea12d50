"""An engine in a process of its own: what kills it costs a batch's time, and not the service."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from raudo.backends.base import Outputs, Resources
from raudo.errors import RaudoError, WorkerError
from raudo.serve import gpus
from raudo.serve.channel import Channel
from raudo.serve.memory import reserve, shared
from raudo.worker import describe_death

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from raudo.records import Artifact
    from raudo.serve.arena import Arena
    from raudo.serve.instance import Facts, Part, Result, Want

PROGRAM = "from raudo.serve.station import main; main({}, {})"
OPEN_SECONDS = 600.0
"""After which an engine that does not open counts as hung: some compile for minutes."""
RUN_SECONDS = 60.0
RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class ProcessInstance:
    """An engine in a process, which is started again whenever it dies.

    Args:
        artifact: The engine file and its manifest.
        resources: What the engine may use.
        arena: Where images may lie already.
        environment: What the process has in its environment besides what this one has.
    """

    def __init__(
        self,
        artifact: Artifact,
        resources: Resources,
        arena: Arena,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.facts: Facts
        self._environment = environment or {}
        self._artifact, self._resources, self._arena = artifact, resources, arena
        self._descriptor = reserve()
        self._tensors: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}
        self._alive = asyncio.Event()
        self._closing = False
        self._tell: Callable[[str], None] = lambda _: None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._channel.pid

    def on_restart(self, tell: Callable[[str], None]) -> None:
        """Tell why, whenever the process had to be started again."""
        self._tell = tell

    async def start(self) -> None:
        """Start the process, and load the engine in it.

        Raises:
            RaudoError: It cannot run here.
        """
        try:
            await self._spawn()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _spawn(self) -> None:
        memory = (self._descriptor, self._arena.descriptor)
        self._channel = await Channel.to(
            PROGRAM.format(*memory), *memory, environment=self._environment
        )
        try:
            opened = self._channel.ask(OPEN_SECONDS, "open", self._artifact, self._resources)
            self.facts = await opened
        except BaseException:
            await self._channel.close()
            raise
        self._tensors = shared(self._descriptor, self.facts)
        self._alive.set()

    async def _watch(self) -> None:
        """Start the process again whenever it ends, until this is closed."""
        while not self._closing:
            how = describe_death(await asyncio.shield(self._channel.ended))
            self._alive.clear()
            if self._closing:
                return
            log.warning("the engine's process %s; it is started again", how)
            self._tell(how)
            while not self._alive.is_set() and not self._closing:
                try:
                    await self._spawn()
                except RaudoError as error:
                    log.exception("the engine does not start again: %s", error.message)
                    await asyncio.sleep(RETRY_SECONDS)

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        """Run the images of all parts as one batch.

        Raises:
            WorkerError: The process died at it, and is started again.
            RaudoError: The engine failed.
        """
        await self._alive.wait()
        size = parts[0].size
        tensors, places, first = self._tensors[size], [], 0
        for part in parts:
            places.append(self._arena.place(part.images))
            if places[-1] is None:
                tensors["images"][first : first + len(part.images)] = part.images
            first += len(part.images)
        found = await self._ask_run(size, [part.want for part in parts], places)
        results, first = [], 0
        for part, result in zip(parts, found, strict=True):
            last = first + len(part.images)
            results.append(_with_outputs(result, tensors, first, last) if part.raw else result)
            first = last
        return results

    async def _ask_run(
        self, size: tuple[int, int], wants: list[Want], places: list[int | None]
    ) -> list[Result]:
        try:
            found: list[Result] = await self._channel.ask(RUN_SECONDS, "run", size, wants, places)
        except WorkerError:
            if self._channel.ended.done():
                self._alive.clear()
            raise
        return found

    async def close(self) -> None:
        """End the process."""
        self._closing = True
        await self._channel.close()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._tensors = {}
        os.close(self._descriptor)


def _with_outputs(
    result: Result, tensors: dict[str, NDArray[Any]], first: int, last: int
) -> Result:
    taken = {n: tensors[n][first:last].copy() for n in tensors if n != "images"}
    return replace(result, outputs=Outputs(**taken))


class ProcessOpener:
    """Loads an engine in one or more processes, which share the cores, and the GPUs in turns.

    Args:
        instances: How many run side by side.
        threads: CPU threads of all of them together.
        batch: Most images that one gets at once.
        arena: Where images may lie already.
    """

    def __init__(self, instances: int, threads: int, batch: int, arena: Arena) -> None:
        self._instances, self._arena = instances, arena
        self._resources = Resources(threads=max(1, threads // instances), batch=batch)

    async def __call__(self, artifact: Artifact) -> list[ProcessInstance]:
        """Load it; either all run or none."""
        started: list[ProcessInstance] = []
        usable = gpus.usable() if artifact.manifest.device == "gpu" else ()
        try:
            for number in range(self._instances):
                shared_out = gpus.only(usable[number % len(usable)]) if len(usable) > 1 else {}
                instance = ProcessInstance(artifact, self._resources, self._arena, shared_out)
                await instance.start()
                started.append(instance)
        except BaseException:
            await asyncio.gather(*(instance.close() for instance in started))
            raise
        return started
