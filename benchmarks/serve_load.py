"""Load for a service on this machine: wrk in a closed loop, and requests at a fixed rate.

A closed loop waits for answers, so it can never ask for more than the service does; only a fixed
rate overloads. Its latencies count from the moment that a request was due, not from when it was
sent: a stalled client hides nothing ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOST = "127.0.0.1"
SCRIPT = Path(__file__).with_name("serve_infer.lua")
Kind = Literal["v2", "raw", "form"]

BROKEN, REFUSED = 0, -1
"""In place of a status: the connection broke; nobody listens."""


@dataclass(frozen=True)
class Closed:
    """What wrk measured.

    Attributes:
        requests: Answers.
        seconds: How long it went on.
        p50_ms: Median time of an answer, in milliseconds.
        p99_ms: Its 99th percentile.
        failed: Answers of status 400 and above, and broken or missing ones.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def wrk(url: str, *, kind: Kind, side: int, connections: int, seconds: float) -> Closed:
    """Ask as fast as the answers come, on some connections.

    Args:
        url: Of this machine.
        kind: What the body is: see serve_infer.lua.
        side: Height and width of the image.
        connections: Requests at a time.
        seconds: How long.
    """
    program = shutil.which("wrk")
    if program is None:
        sys.exit("error: wrk is missing\nhint: apt-get install wrk")
    ended = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(SCRIPT), url],
        env=os.environ | {"LOAD_KIND": kind, "LOAD_SIDE": str(side)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in ended.stdout.splitlines() if line.startswith("SUMMARY "))
    return Closed(**json.loads(line.removeprefix("SUMMARY ")))


def infer_request(path: str, side: int, timeout: float | None = None) -> bytes:
    """Return a whole HTTP request: an image as a binary tensor of the v2 protocol.

    Args:
        path: Path of the URL.
        side: Height and width of the image.
        timeout: Seconds that the service may take to begin with it; None leaves it to the service.
    """
    pixels = bytes([114]) * (side * side * 3)
    asked: dict[str, object] = {
        "inputs": [
            {
                "name": "images",
                "shape": [1, side, side, 3],
                "datatype": "UINT8",
                "parameters": {"binary_data_size": len(pixels)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    if timeout is not None:
        asked["parameters"] = {"binary_data_output": True, "timeout": int(timeout * 1e6)}
    header = json.dumps(asked).encode()
    return (
        (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(header)}\r\n"
            f"Content-Length: {len(header) + len(pixels)}\r\n\r\n"
        ).encode()
        + header
        + pixels
    )


@dataclass
class Answers:
    """What became of many requests, each appended once it is known.

    Attributes:
        due: Seconds, since the load began, at which each was due.
        taken: Seconds from then until its answer was there.
        status: Status of the answer; BROKEN or REFUSED where there is none.
    """

    due: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)

    def seconds(self, *statuses: int) -> NDArray[np.float64]:
        """Return the times of the answers with such a status."""
        pairs = zip(self.taken, self.status, strict=True)
        return np.array([taken for taken, status in pairs if status in statuses], np.float64)

    def count(self, low: int, high: int) -> int:
        """Return the number of statuses from `low` up to, and without, `high`."""
        return sum(low <= status < high for status in self.status)


class Connection:
    """One connection that is kept, and opened again where the service closed it.

    Args:
        port: Port of the service.
        request: What to send.
        again: Try once more where a kept connection breaks before the first byte of an answer, as
            every HTTP client does (RFC 9112, 9.3.1): its closing and the request crossed.
    """

    def __init__(self, port: int, request: bytes, *, again: bool = True) -> None:
        self._port, self._request, self._again = port, request, again
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self) -> int:
        """Send the request and return the status of the answer: BROKEN or REFUSED without one."""
        for last in (not self._again or self._writer is None, True):
            try:
                return await self._exchange()
            except ConnectionRefusedError:
                return REFUSED
            except OSError:
                self.close()
                if last:
                    break
        return BROKEN

    async def _exchange(self) -> int:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._writer.write(self._request)
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(str(error)) from error
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        try:
            await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            self.close()
            return BROKEN
        if b"connection: close" in lines:
            self.close()
        return int(lines[0].split()[1])

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def at_rate(port: int, request: bytes, rate: float, seconds: float) -> Answers:
    """Send requests at a fixed rate, however the answers come.

    Args:
        port: Port of the service.
        request: The request.
        rate: Requests a second.
        seconds: How long.
    """
    answers, idle, asked = Answers(), list[Connection](), set[asyncio.Task[None]]()
    start = time.perf_counter()

    async def one(due: float) -> None:
        connection = idle.pop() if idle else Connection(port, request)
        status = await connection.ask()
        answers.due.append(due)
        answers.taken.append(time.perf_counter() - start - due)
        answers.status.append(status)
        idle.append(connection)

    for number in range(int(rate * seconds)):
        due = number / rate
        if (wait := due - (time.perf_counter() - start)) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    for connection in idle:
        connection.close()
    return answers


async def until(stop: asyncio.Event, port: int, request: bytes, connections: int) -> Answers:
    """Ask as fast as the answers come, until told to stop or nobody listens any more."""
    answers = Answers()
    start = time.perf_counter()

    async def loop() -> None:
        connection, status = Connection(port, request, again=False), 0
        while not stop.is_set() and status != REFUSED:
            due = time.perf_counter() - start
            status = await connection.ask()
            answers.due.append(due)
            answers.taken.append(time.perf_counter() - start - due)
            answers.status.append(status)
        connection.close()

    await asyncio.gather(*(loop() for _ in range(connections)))
    return answers
