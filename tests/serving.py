"""A service in a process of its own, as a user starts it, with a null engine."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from null_engines import null_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A service that runs."""

    process: psutil.Popen
    port: int

    def memory(self) -> int:
        """Resident memory of all its processes, in bytes."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def serving(folder: Path, *options: str, side: int = 64) -> Iterator[Server]:
    """Start a service of a null engine called `model`, and end it."""
    engine = null_engine(folder / "model.npz", side=side)
    port = free_port()
    command = [sys.executable, "-m", "raudo.cli", "serve", str(engine), "--port", str(port)]
    process = psutil.Popen([*command, *options])
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(port):
            assert process.poll() is None, "the service ended"
            assert time.monotonic() < deadline, "the service was not ready in time"
            time.sleep(0.1)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) == 0
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
