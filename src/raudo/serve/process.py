"""An engine in a process of its own: what kills it costs a batch's time, and not the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import sys
from typing import TYPE_CHECKING

from raudo.backends.base import Outputs, Resources
from raudo.errors import RaudoError, WorkerError
from raudo.serve.instance import Result
from raudo.serve.memory import Layout, reserve
from raudo.worker import FRAME, describe_death, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from raudo.records import Artifact
    from raudo.serve.instance import Facts, Part

PROGRAM = "from raudo.serve.station import main; main({})"
OPEN_SECONDS = 600.0
"""After which an engine that does not open counts as hung: some compile for minutes."""
RUN_SECONDS = 60.0
RETRY_SECONDS = 1.0
GRACE_SECONDS = 5.0

log = logging.getLogger(__name__)


class ProcessInstance:
    """An engine in a process, which is started again whenever it dies.

    Args:
        artifact: The engine file and its manifest.
        resources: What the engine may use.
    """

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        self.facts: Facts
        self._artifact, self._resources = artifact, resources
        self._descriptor = reserve()
        self._tensors: dict[str, NDArray[Any]] = {}
        self._alive = asyncio.Event()
        self._closing = False
        self._tell: Callable[[str], None] = lambda _: None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

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
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM.format(self._descriptor),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._descriptor,),
        )
        try:
            self.facts = await self._call(OPEN_SECONDS, "open", self._artifact, self._resources)
        except BaseException:
            await self._end()
            raise
        self._tensors = Layout.of(self._artifact.manifest.spec, self.facts).map(self._descriptor)
        self._alive.set()

    async def _watch(self) -> None:
        """Start the process again whenever it ends, until this is closed."""
        while not self._closing:
            how = describe_death(await self._process.wait())
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
        images, first = self._tensors["images"], 0
        for part in parts:
            images[first : first + len(part.images)] = part.images
            first += len(part.images)
        found = await self._call(RUN_SECONDS, "run", [part.want for part in parts])
        results, first = [], 0
        for part, result in zip(parts, found, strict=True):
            last = first + len(part.images)
            results.append(self._with_outputs(result, first, last) if part.raw else result)
            first = last
        return results

    def _with_outputs(self, result: Result, first: int, last: int) -> Result:
        names = ("boxes", "scores", "labels")
        taken = {n: self._tensors[n][first:last].copy() for n in names if n in self._tensors}
        return Result(
            Outputs(**taken), result.detections, result.infer, result.select, result.batch
        )

    async def _call(self, seconds: float, action: str, *arguments: object) -> Any:
        process = self._process
        assert process.stdin is not None  # noqa: S101 (they are pipes)
        assert process.stdout is not None  # noqa: S101
        timer = asyncio.get_running_loop().call_later(seconds, self._kill)
        try:
            process.stdin.write(frame((action, arguments)))
            head = await process.stdout.readexactly(FRAME.size)
            body = await process.stdout.readexactly(*FRAME.unpack(head))
        except (asyncio.IncompleteReadError, OSError) as error:
            self._alive.clear()
            raise WorkerError(
                f"the engine's process {describe_death(await process.wait())} during '{action}'",
                hint="the service's log has its last words",
            ) from error
        finally:
            timer.cancel()
        done, value = pickle.loads(body)  # noqa: S301 (both ends are ours)
        if done:
            return value
        raise value

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _end(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        self._process.stdin.close()
        timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._kill)
        await self._process.wait()
        timer.cancel()

    async def close(self) -> None:
        """End the process."""
        self._closing = True
        await self._end()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._tensors = {}
        os.close(self._descriptor)


class ProcessOpener:
    """Loads an engine in one or more processes, which share the cores.

    Args:
        instances: How many run side by side.
        threads: CPU threads of all of them together.
        batch: Most images that one gets at once.
    """

    def __init__(self, instances: int, threads: int, batch: int) -> None:
        self._instances = instances
        self._resources = Resources(threads=max(1, threads // instances), batch=batch)

    async def __call__(self, artifact: Artifact) -> list[ProcessInstance]:
        """Load it; either all run or none."""
        started: list[ProcessInstance] = []
        try:
            for _ in range(self._instances):
                instance = ProcessInstance(artifact, self._resources)
                await instance.start()
                started.append(instance)
        except BaseException:
            await asyncio.gather(*(instance.close() for instance in started))
            raise
        return started
