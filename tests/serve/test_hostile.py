"""Nothing that a client sends breaks the service: no 5xx, no memory kept, and it goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from hostile_calls import call, hostile_calls, of_image
from hostile_images import MEBIBYTE, encoded, hostile_images, odd_images
from hostile_requests import (
    DETECT,
    broken_http,
    hostile_paths,
    hostile_tensors,
    hostile_uploads,
    of_bytes,
    request,
)
from serving import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving import Server

pytestmark = pytest.mark.slow
GROWTH = 50 * MEBIBYTE
HONEST = request(DETECT, encoded("JPEG"))
LINGERING, PATIENCE = 200, 0.5

linux = pytest.mark.skipif(sys.platform != "linux", reason="NO /proc: peaks cannot be seen")


class Answer(NamedTuple):
    """What came back: a status (0: none at all) and the body."""

    status: int
    body: bytes


def exchange(port: int, data: bytes, patience: float = 30) -> Answer:
    """Send bytes, and read until the service closes, or says nothing for a while."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # where not all is taken, the answer is there still
            connection.sendall(data)
        connection.settimeout(patience)
        with contextlib.suppress(OSError):
            while block := connection.recv(65_536):
                received += block
    head, _, body = received.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.1 ") else 0, body)


class Watched(NamedTuple):
    """A service over HTTP and gRPC, and the memory that it had after some honest requests."""

    server: Server
    grpc_port: int
    memory: int

    def growth(self) -> int:
        return self.server.memory() - self.memory


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    grpc_port = free_port()
    folder = tmp_path_factory.mktemp("engines")
    with serving(folder, "--grpc-port", str(grpc_port)) as server, calling(grpc_port) as infer:
        for _ in range(30):
            assert exchange(server.port, HONEST).status == 200
            assert infer(call()) == "OK"
        yield Watched(server, grpc_port, server.memory())


@contextlib.contextmanager
def calling(port: int) -> Iterator[Callable[[bytes], str]]:
    """Yields what sends a message to ModelInfer, whatever it is, and returns the status' name."""
    grpc = pytest.importorskip("grpc", reason="NO GRPC: it goes untested")
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def infer(message: bytes) -> str:
            try:
                send(message, timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        yield infer


def explained(answer: Answer) -> bool:
    """Whether an error says what, and which request it was."""
    try:
        return {"error", "code", "request_id"} <= set(json.loads(answer.body))
    except ValueError:
        return False


def refused_otherwise(
    watched: Watched, requests: dict[str, bytes], statuses: set[int]
) -> dict[str, Answer]:
    """The requests that were not refused as they should be, with an explanation."""
    answers = {name: exchange(watched.server.port, data) for name, data in requests.items()}
    return {
        name: answer
        for name, answer in answers.items()
        if answer.status not in statuses or (answer.status != 200 and not explained(answer))
    }


def images_as_requests(images: dict[str, bytes]) -> dict[str, bytes]:
    """Each image to detect in, and as a BYTES tensor of the v2 protocol."""
    detect = {name: request(DETECT, image) for name, image in images.items()}
    infer = {
        f"{name}, as BYTES": of_bytes(struct.pack("<I", len(image)) + image)
        for name, image in images.items()
    }
    return detect | infer


def called_otherwise(
    watched: Watched, messages: dict[str, bytes], statuses: set[str]
) -> dict[str, str]:
    """The calls that were not answered as they should be, with their status."""
    with calling(watched.grpc_port) as infer:
        answers = {name: infer(message) for name, message in messages.items()}
    return {name: status for name, status in answers.items() if status not in statuses}


def still_well(watched: Watched) -> bool:
    return exchange(watched.server.port, HONEST).status == 200 and watched.growth() < GROWTH


def test_there_are_enough() -> None:
    assert len(hostile_images()) + len(odd_images()) >= 60


def test_files_that_are_no_images(watched: Watched) -> None:
    requests = images_as_requests(hostile_images())
    assert refused_otherwise(watched, requests, {400, 413, 415}) == {}
    assert still_well(watched)


def test_odd_files(watched: Watched) -> None:
    requests = images_as_requests(odd_images())
    assert refused_otherwise(watched, requests, {200, 400, 413, 415}) == {}
    assert still_well(watched)


def test_files_in_calls(watched: Watched) -> None:
    hostile = {name: of_image(image) for name, image in hostile_images().items()}
    odd = {name: of_image(image) for name, image in odd_images().items()}
    assert called_otherwise(watched, hostile, {"INVALID_ARGUMENT"}) == {}
    assert called_otherwise(watched, odd, {"OK", "INVALID_ARGUMENT"}) == {}
    assert still_well(watched)


def test_calls_that_lie(watched: Watched) -> None:
    refusals = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
    assert called_otherwise(watched, hostile_calls(), refusals) == {}
    assert still_well(watched)


@linux
def test_bombs_never_unfold(watched: Watched) -> None:
    (main, *_) = [watched.server.process, *watched.server.process.children(recursive=True)]
    Path(f"/proc/{main.pid}/clear_refs").write_text("5")  # forgets the highest mark so far
    for name, image in hostile_images().items():
        if "1 GB" in name or "40000" in name or "bomb" in name:
            exchange(watched.server.port, request(DETECT, image))
    status = Path(f"/proc/{main.pid}/status").read_text()
    (peak,) = [int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")]
    assert peak * 1024 - psutil.Process(main.pid).memory_info().rss < GROWTH


def test_tensors_that_lie(watched: Watched) -> None:
    assert refused_otherwise(watched, hostile_tensors(), {400, 413}) == {}
    assert still_well(watched)


def test_uploads_that_are_none(watched: Watched) -> None:
    assert refused_otherwise(watched, hostile_uploads(), {400, 405, 413, 415}) == {}
    assert still_well(watched)


def test_paths_that_look_for_files(watched: Watched) -> None:
    assert refused_otherwise(watched, hostile_paths(), {400, 404}) == {}
    assert still_well(watched)


def test_http_that_is_none(watched: Watched) -> None:
    answers = {n: exchange(watched.server.port, d, PATIENCE) for n, d in broken_http().items()}
    assert {name: a for name, a in answers.items() if a.status >= 500} == {}
    smuggled = {name for name, a in answers.items() if a.body.count(b"HTTP/1.1 200")}
    assert smuggled == set()
    assert still_well(watched)


def test_bodies_that_are_cut_off_are_forgotten(watched: Watched) -> None:
    start = HONEST.replace(b"Content-Length: ", b"Content-Length: 9")
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", watched.server.port)) as connection:
            connection.sendall(start)
    assert still_well(watched)


def test_connections_that_linger_do_no_harm(watched: Watched) -> None:
    """Slow loris: many clients that never finish their headers, or send a body byte by byte."""
    lingering = []
    try:
        for number in range(LINGERING):
            connection = socket.create_connection(("127.0.0.1", watched.server.port))
            connection.sendall(HONEST[:30] if number % 2 else HONEST[:-100])
            lingering.append(connection)
        start = time.monotonic()
        assert still_well(watched)
        assert time.monotonic() - start < 10
    finally:
        for connection in lingering:
            connection.close()
