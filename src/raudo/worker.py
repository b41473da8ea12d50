"""Makes or runs an engine in a process of its own: a crash, a hang, a lack of memory end only that.

`Worker` is the side that asks, `Station` (measuring/station.py), in the process, the side that
answers. They exchange pickled frames over the process's standard input and output.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from raudo.errors import RaudoError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


FRAME = struct.Struct("<Q")
GRACE_SECONDS = 5.0
PROGRAM = """\
from raudo.measuring.station import Station
from raudo.worker import serve
serve(Station())
"""


def frame(message: object) -> bytes:
    """Return a message as it is sent: its length, then its pickle."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return FRAME.pack(len(body)) + body


def send(stream: BinaryIO | IO[bytes], message: object) -> None:
    """Send a message."""
    stream.write(frame(message))
    stream.flush()


def receive(stream: BinaryIO | IO[bytes]) -> Any:
    """Wait for a message.

    Raises:
        EOFError: The other side is gone.
    """
    head = stream.read(FRAME.size)
    if len(head) < FRAME.size:
        raise EOFError
    (size,) = FRAME.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return pickle.loads(body)  # noqa: S301 (both ends are ours)


def describe_death(code: int) -> str:
    """Say in words how a process ended."""
    if code == -getattr(signal, "SIGKILL", 9):
        return "was killed (out of memory?)"
    if code < 0:
        return f"crashed with {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class Worker:
    """A process that runs one engine; a context manager.

    Args:
        name: What to call it in errors.
        timeout: Seconds after which a call that was not answered counts as hung.
        log: File that the process's own messages go to; None drops them.
        python: Interpreter that has raudo and the engine's runtime; None is this one.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float = 300.0,
        log: Path | None = None,
        python: str | None = None,
    ) -> None:
        self.name = name
        self._python = python or sys.executable
        self._timeout = timeout
        self._log = log
        self._replies: queue.Queue[Any] = queue.Queue()

    def __enter__(self) -> Self:
        errors = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors or subprocess.DEVNULL,
            )
        finally:
            if errors:
                errors.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (it is a pipe)
        try:
            while True:
                self._replies.put(receive(self._process.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self._replies.put(None)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def call(self, action: str, *arguments: Any) -> Any:
        """Let the process do something, and return its answer.

        Args:
            action: Name of a public method of `Station`.
            arguments: Its arguments.

        Raises:
            RaudoError: What the action itself raised.
            WorkerError: The process died or did not answer in time; it is gone then.
        """
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        try:
            send(self._process.stdin, (action, arguments))
            reply = self._replies.get(timeout=self._timeout)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(
                f"{self.name} gave no answer to '{action}' in {self._timeout:.0f} s",
                hint="it hangs, or needs a longer --timeout",
            ) from None
        except OSError:
            reply = None
        if reply is None:
            raise WorkerError(
                f"{self.name} {self._death()} during '{action}'",
                hint="the run's log has its last words",
            )
        done, value = reply
        if done:
            return value
        raise value

    def _death(self) -> str:
        return describe_death(self._process.wait())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if kind is not None and not issubclass(kind, Exception):  # Ctrl-C: nobody waits for it
            process.kill()
        if process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                process.kill()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        if process.stdout is not None:
            process.stdout.close()


def serve(station: object, *, traces: bool = True) -> None:
    """Answer requests from standard input until it closes, each by a method of the station.

    Args:
        station: Whose methods are called.
        traces: Whether an error that explains itself leaves its traceback too; any other does.
    """
    # A Ctrl-C in the terminal reaches the whole group: the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output; keep the channel for ourselves.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            action, arguments = receive(sys.stdin.buffer)
        except EOFError:
            return
        method: Callable[..., Any] = getattr(station, action)
        try:
            reply = (True, method(*arguments))
        except RaudoError as error:
            if traces:
                traceback.print_exc()
            reply = (False, error)
        except Exception as error:
            traceback.print_exc()
            said = (str(error).strip() or type(error).__name__).splitlines()[-1]
            reply = (
                False,
                WorkerError(
                    f"{type(error).__name__}: {said}", hint="the run's log has the traceback"
                ),
            )
        send(channel, reply)
