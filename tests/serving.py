"""`raudo serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from null_engines import null_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 180.0
PATIENCE = 120.0
"""Seconds after which what is waited for counts as missing, on however slow a machine."""


@dataclass(frozen=True)
class Server:
    """A service that runs."""

    process: psutil.Popen
    port: int

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def memory(self) -> int:
        """Resident memory of all its processes, in bytes."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)


@dataclass(frozen=True)
class Reply:
    """An answer, and the seconds that it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def ask(
    port: int, *, body: bytes | None = None, model: str = "detector", **parameters: Any
) -> Reply:
    """Ask for one inference of the v2 protocol, in JSON; of a grey image unless a body is given."""
    if body is None:
        image = {"name": "images", "shape": [1, 64, 64, 3], "datatype": "UINT8"}
        inputs = [image | {"data": [114] * (64 * 64 * 3)}]
        body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    start = time.perf_counter()
    try:
        connection.request(
            "POST", f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, headers, content, time.perf_counter() - start)


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
def starting(source: Path, *options: str) -> Iterator[Server]:
    """Serve a run folder or an engine on a free port; SIGTERM ends it, and must end it well.

    What it says is in `served.log`, in the folder.

    Args:
        source: What to serve.
        options: Of `raudo serve`.
    """
    port = free_port()
    command = [sys.executable, "-m", "raudo.cli", "serve", str(source), "--port", str(port)]
    log = (source if source.is_dir() else source.parent) / "served.log"
    with log.open("w") as said:
        process = psutil.Popen([*command, *options], stderr=said)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the service was not ready in time"
            time.sleep(0.1)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0, log.read_text()
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def served(source: Path, *options: str) -> Iterator[str]:
    """Serve a run folder or an engine; yields the address."""
    with starting(source, *options) as server:
        yield server.address


@contextlib.contextmanager
def serving(
    folder: Path, *options: str, pauses: dict[str, float] | None = None
) -> Iterator[Server]:
    """Serve a null engine of 64x64.

    Args:
        folder: Where to write the engine.
        options: Of `raudo serve`.
        pauses: Milliseconds that the engine takes: `call_ms`, `image_ms`.
    """
    with starting(null_engine(folder / "model.npz", pauses=pauses), *options) as server:
        yield server
