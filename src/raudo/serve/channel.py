"""Questions to a process and its answers, as pickled frames over its standard input and output.

asyncio's streams would do, but each of their layers wakes another coroutine; here the bytes that
complete an answer resolve the one future that is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any, cast

from raudo.errors import WorkerError
from raudo.worker import FRAME, describe_death, frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

STDIN = 0
GRACE_SECONDS = 5.0


class Channel(asyncio.SubprocessProtocol):
    """A process that answers one question at a time; see `raudo.worker.serve` for its side.

    Attributes:
        ended: How the process ended, once it did.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[memoryview | None] | None = None
        self._received = bytearray()

    @classmethod
    async def to(cls, program: str, *descriptors: int, environment: Mapping[str, str]) -> Self:
        """Start a Python program.

        Args:
            program: Its text.
            descriptors: File descriptors that it inherits.
            environment: What it has in its environment besides what this process has.
        """
        loop = asyncio.get_running_loop()
        _, channel = await loop.subprocess_exec(
            cls,
            *(sys.executable, "-c", program),
            stderr=None,
            pass_fds=descriptors,
            env=os.environ | environment,
        )
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._process = cast("asyncio.SubprocessTransport", transport)
        self._input = cast("asyncio.WriteTransport", self._process.get_pipe_transport(STDIN))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take a piece of the answer."""
        del fd
        self._received += data
        if len(self._received) < FRAME.size:
            return
        (size,) = FRAME.unpack_from(self._received)
        if len(self._received) == FRAME.size + size:
            whole, self._received = memoryview(self._received)[FRAME.size :], bytearray()
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(whole)

    def process_exited(self) -> None:
        """Let nobody wait for an answer any more."""
        self.ended.set_result(self._process.get_returncode() or 0)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._process.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.get_pid()

    async def ask(self, seconds: float, action: str, *arguments: object) -> Any:
        """Let the process do something, and return its answer.

        Args:
            seconds: After which it counts as hung, and is killed.
            action: Name of a method of its station.
            arguments: Of the method.

        Raises:
            RaudoError: What the action itself raised.
            WorkerError: The process died at it.
        """
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        timer = loop.call_later(seconds, self.kill)
        try:
            if not self._input.is_closing():  # else it is dying: its end is the answer
                self._input.write(frame((action, arguments)))
            body = None if self.ended.done() else await self._answer
        finally:
            timer.cancel()
        if body is None:
            how = describe_death(self.ended.result())
            raise WorkerError(
                f"the engine's process {how} during '{action}'",
                hint="the service's log has its last words",
            )
        done, value = pickle.loads(body)  # noqa: S301 (both ends are ours)
        if done:
            return value
        raise value

    def kill(self) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """Let it end by itself, or kill it where it does not."""
        self._input.close()
        timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self.kill)
        await asyncio.shield(self.ended)
        timer.cancel()
