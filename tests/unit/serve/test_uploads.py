"""Bodies that are read past the parser: whole, in any pieces, and the next request after them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.serve import uploads
from raudo.serve.arena import Arena, private
from raudo.serve.http import Answer, Endpoint, refusal
from raudo.serve.settings import Limits
from raudo.serve.uploads import HEAD_BYTES, LOT, PIECE, Upload, UploadProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from numpy.typing import NDArray

    from raudo.serve.http import Call

pytest.importorskip("uvicorn", reason="NO UVICORN: uploads go untested")

LARGEST = LOT + 4 * PIECE
SIZES = (0, 1, PIECE - 1, PIECE, PIECE + 1, LOT - 1, LARGEST)


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


class Host:
    """What an endpoint needs of a service."""

    leaving = False

    def __init__(self, timeout: float) -> None:
        self.limits = Limits(body=LARGEST, timeout=timeout)


async def digest(call: Call) -> Answer:
    return Answer((hashlib.sha256(call.body).hexdigest().encode(),), type="text/plain")


@contextlib.asynccontextmanager
async def serving(
    timeout: float = 5.0,
    handler: Callable[[Call], Awaitable[Answer]] = digest,
    allocate: Callable[[int], NDArray[np.uint8]] = private,
) -> AsyncIterator[int]:
    import uvicorn

    endpoint: Any = Endpoint(handler, Host(timeout))  # type: ignore[arg-type]
    config = uvicorn.Config(
        endpoint,
        http=partial(UploadProtocol, LARGEST, allocate, refusal),
        lifespan="off",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        task = asyncio.ensure_future(server.serve([door]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield door.getsockname()[1]
        server.should_exit = True
        await task


def request(body: bytes, **headers: str) -> bytes:
    lines = {"host": "x", "content-length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return b"POST / HTTP/1.1\r\n" + head.encode() + b"\r\n" + body


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(
        int(line.split(": ")[1]) for line in head.split("\r\n") if "content-length" in line
    )
    return int(head.split()[1]), await reader.readexactly(length)


def expected(body: bytes) -> tuple[int, bytes]:
    return 200, hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize("step", [None, 997, PIECE])
def test_bodies_of_any_size_arrive_whole_one_after_the_other(step: int | None) -> None:
    async def story() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for size in (*SIZES, *reversed(SIZES)):
                body = bytes(index * 7 % 251 for index in range(size))
                whole = request(body)
                for start in range(0, len(whole), step or len(whole)):
                    writer.write(whole[start : start + (step or len(whole))])
                    await writer.drain()
                assert await response(reader) == expected(body), size
            writer.close()

    run(story())


def test_requests_may_stand_in_line_on_one_connection() -> None:
    async def story() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            bodies = [bytes([n]) * size for n, size in enumerate((3, PIECE * 2, 5, PIECE * 3, 0))]
            writer.write(b"".join(map(request, bodies)))
            for body in bodies:
                assert await response(reader) == expected(body)
            writer.close()

    run(story())


def test_a_longer_body_is_refused_before_it_is_read() -> None:
    async def story() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(bytes(LARGEST + 1))[: PIECE // 2])
            assert (await response(reader))[0] == 413
            writer.close()

    run(story())


def test_what_is_no_request_is_refused_as_any_is() -> None:
    heads = {
        b"\0\1\2\r\n\r\n": (400, "bad_request"),
        b"GET / HTTP/1.1\r\nx: " + bytes([97]) * (HEAD_BYTES + PIECE): (413, "too_large"),
    }

    async def story() -> None:
        async with serving() as port:
            for head, (status, code) in heads.items():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head)
                found, body = await response(reader)
                assert (found, json.loads(body)["code"]) == (status, code)
                assert {"error", "request_id"} < json.loads(body).keys()
                writer.close()

    run(story())


def test_a_head_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "HEAD_SECONDS", 0.1)

    async def story() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b"x"))
            assert await response(reader) == expected(b"x")
            writer.write(b"GET / HTTP/1.1\r\nx:")
            found, body = await response(reader)
            assert (found, json.loads(body)["code"]) == (504, "deadline")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"", "nobody is silent for ever"
            writer.close()

    run(story())


def test_a_body_that_never_ends_is_given_up() -> None:
    async def story() -> None:
        async with serving(timeout=0.1) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(bytes(LARGEST))[:-1])
            assert (await response(reader))[0] == 504
            writer.close()

    run(story())


def test_a_client_may_leave_and_others_are_answered() -> None:
    async def story() -> None:
        async with serving() as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(bytes(LARGEST))[:-1])
            await writer.drain()
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b"x"))
            assert await response(reader) == expected(b"x")
            writer.close()

    run(story())


@pytest.mark.parametrize("size", [PIECE, PIECE + 1])
def test_a_client_that_leaves_ends_the_work_on_its_request(size: int) -> None:
    async def story() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def work(_: Call) -> Answer:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return Answer()

        async with serving(handler=work) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(bytes(size)))
            await begun.wait()
            writer.close()
            await ended.wait()

    run(story())


def test_who_watches_too_late_is_told_that_the_client_left() -> None:
    async def story() -> None:
        upload, told = Upload(private(2)), list[str]()
        upload.filled(2)
        upload.lose()
        assert await upload.arrival() is not None
        with upload.watched(lambda: told.append("left")):
            assert told == ["left"]
        upload.lose()
        assert told == ["left"]

    run(story())


def test_answers_without_a_body_leave_at_once() -> None:
    async def story() -> None:
        async def nothing(_: Call) -> Answer:
            return Answer((b"",))

        async with serving(handler=nothing) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(b""))
            assert await response(reader) == (200, b"")
            writer.write(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.close()
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"content-length: 64" in await reader.readuntil(b"\r\n\r\n")
            writer.write(request(b"x"))
            assert await response(reader) == expected(b"x")
            writer.close()

    run(story())


def test_many_at_once_get_answers_to_their_own_bodies_though_others_leave() -> None:
    """More clients than slots: one that is free goes to the next, while others are looked at."""

    async def slow_digest(call: Call) -> Answer:
        pixels = np.frombuffer(call.body, np.uint8)  # all that a copy for comparison keeps
        call.body, before = b"", hashlib.sha256(pixels).hexdigest().encode()
        for _ in range(pixels[0] % 8):
            await asyncio.sleep(0)
        assert hashlib.sha256(pixels).hexdigest().encode() == before
        return Answer((before,))

    async def client(port: int, number: int) -> None:
        random = Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(6):
            body = random.randbytes(random.randrange(PIECE // 2, LARGEST))
            whole = request(body)
            if leaves := random.random() < 0.3:
                whole = whole[: random.randrange(len(whole)) or None]
            for start in range(0, len(whole), step := random.randrange(1000, LARGEST)):
                writer.write(whole[start : start + step])
                await asyncio.sleep(0)
            if not leaves:
                assert await response(reader) == expected(body)
                continue
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    async def story() -> None:
        arena = Arena(slots=4, size=LARGEST)
        async with serving(20, slow_digest, arena.empty) as port:
            await asyncio.gather(*(client(port, number) for number in range(16)))
        arena.close()

    run(story())


def test_chunks_and_an_asked_for_go_ahead_take_the_usual_way() -> None:
    async def story() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            body = bytes(2 * PIECE)
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            assert await response(reader) == expected(body)
            whole = request(body, expect="100-continue")
            cut = whole.index(b"\r\n\r\n") + 4
            writer.write(whole[:cut])
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(whole[cut:])
            assert await response(reader) == expected(body)
            writer.close()

    run(story())
