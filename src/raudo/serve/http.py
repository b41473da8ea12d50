"""HTTP under every endpoint: reading a request, answering it, and the one place for errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from raudo.serve.deadlines import in_time
from raudo.serve.errors import (
    BadRequestError,
    QueueFullError,
    ServeError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedMediaError,
    as_served,
)
from raudo.serve.json_body import write_json
from raudo.serve.records import REQUEST_ID
from raudo.serve.uploads import BODY, UPLOAD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence

    from raudo.serve.core import Service
    from raudo.serve.observer import Method
    from raudo.serve.settings import Limits
    from raudo.serve.uploads import Upload

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Buffer = bytes | bytearray | memoryview

STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "unsupported_media": 415,
    "queue_full": 429,
    "not_ready": 503,
    "deadline": 504,
}
"""HTTP status of each `ServeError.code`; what is not here is a 500."""
JSON = "application/json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A response; an ASGI application that sends it.

    Attributes:
        body: Its parts, sent as one: each piece that is sent costs a call of the system.
        status: HTTP status.
        type: Media type.
        headers: Further headers, names in lower case.
    """

    body: Sequence[Buffer] = ()
    status: int = 200
    type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def _head(self, size: int) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": self.type,
            "content-length": str(size),
            "x-content-type-options": "nosniff",
            **self.headers,
        }
        return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    def last(self) -> bytes:
        """Return all bytes of it, as the last response of a connection."""
        body = b"".join(self.body)
        head = [*self._head(len(body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % field for field in head)
        phrase = HTTPStatus(self.status).phrase.encode()
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, phrase, lines, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del receive
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        head = self._head(len(body))
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        sent = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": sent})


def answer_json(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Answer with JSON."""
    return Answer((write_json(content),), status, JSON, headers or {})


def answer_error(error: ServeError, request_id: str) -> Answer:
    """Answer with an error, as every endpoint does: error, code and request_id."""
    headers = {"x-request-id": request_id}
    if isinstance(error, QueueFullError):
        headers["retry-after"] = str(error.seconds)
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    content = {"error": error.message, "code": error.code, "request_id": request_id}
    return answer_json({**content, "hint": error.hint}, STATUS.get(error.code, 500), headers)


def refusal(error: ServeError) -> bytes:
    """Return the answer to what is no whole request, so that no endpoint gets to see it."""
    return answer_error(error, secrets.token_hex(16)).last()


@dataclass
class Call:
    """One request.

    Attributes:
        id: The client's X-Request-ID, or one made here.
        path: What the path's placeholders stand for.
        headers: By name in lower case; of several the last.
        query: Values of the query string; of several the last.
        body: All of it, once it was read.
        started: When its head was there, by `time.monotonic`.
    """

    id: str
    path: dict[str, str]
    headers: dict[str, str]
    query: dict[str, str]
    started: float
    body: bytes | memoryview = b""

    @classmethod
    def of(cls, scope: Scope) -> Call:
        """Read the head of a request."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        query = scope["query_string"].decode("latin-1")
        given = headers.get("x-request-id", "")
        return cls(
            id=given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16),
            path=dict(scope.get("path_params", {})),
            headers=headers,
            query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
            started=time.monotonic(),
        )

    @property
    def type(self) -> str:
        """The media type of the body, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def upload_of(scope: Scope) -> Upload | None:
    """Return the body where it is read past the parser."""
    upload: Upload | None = scope.get("extensions", {}).get(UPLOAD, {}).get(BODY)
    return upload


async def read_body(
    call: Call, scope: Scope, receive: Receive, limits: Limits
) -> bytes | memoryview:
    """Read a body, and stop as soon as it is too large, or too slow.

    Raises:
        TooLargeError: It has more bytes than are taken.
        DeadlineError: It did not arrive in time.
        UnsupportedMediaError: It is compressed.
        BadRequestError: The client left.
    """
    if call.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaError("the body is compressed", hint="send it as it is")
    said = call.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > limits.body:
        raise _too_large(limits)
    upload = upload_of(scope)
    with in_time(limits.timeout, "the body did not arrive in time"):
        if upload is None:
            return await _read_pieces(receive, limits)
        body = await upload.arrival()
        if body is None:
            raise _left()
        return body


async def _read_pieces(receive: Receive, limits: Limits) -> bytes:
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _left()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limits.body:
            raise _too_large(limits)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextlib.contextmanager
def _watching(scope: Scope, receive: Receive, leave: Callable[[], None]) -> Iterator[None]:
    """Tell when the client leaves."""
    if upload := upload_of(scope):
        with upload.watched(leave):
            yield
        return

    async def watch() -> None:
        await receive()
        leave()

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _left() -> BadRequestError:
    return BadRequestError("the client left before its request was whole")


def _too_large(limits: Limits) -> TooLargeError:
    return TooLargeError("the body is too large", hint=f"send at most {limits.body} bytes")


class Endpoint:
    """An ASGI application that lets a handler answer, and turns what it raises into errors.

    A client that leaves cancels the handler.

    Args:
        handler: Makes the answer; the body was read.
        service: What bounds the body.
        method: What the handler asks of the service. A body is not even read where the service
            would turn the request down; None: it is.
    """

    def __init__(
        self,
        handler: Callable[[Call], Awaitable[Answer]],
        service: Service,
        method: Method | None = None,
    ) -> None:
        self._handler = handler
        self._service = service
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call.of(scope)
        try:
            answer = await self._answer(call, scope, receive)
        except Exception as error:
            answer = self._refuse(call, error)
        if answer is not None:
            if self._service.leaving:
                answer = replace(answer, headers={**answer.headers, "connection": "close"})
            await answer(scope, receive, send)

    def _refuse(self, call: Call, error: Exception) -> Answer:
        """Answer with what went wrong; it is counted here where it never came to the core."""
        refusal = as_served(error)
        if refusal.code == ServeError.code:
            log.error("request %s failed", call.id, exc_info=error)
        if self._method and not refusal.told:
            self._service.turned_down(self._method, call.id, refusal, call.started)
        return answer_error(refusal, call.id)

    async def _let_in(self, call: Call, scope: Scope, receive: Receive) -> None:
        try:
            if self._method:
                self._service.check()
            call.body = await read_body(call, scope, receive, self._service.limits)
        except ServeError:
            if upload := upload_of(scope):
                upload.refuse()
            raise

    async def _answer(self, call: Call, scope: Scope, receive: Receive) -> Answer | None:
        if scope["method"] in {"GET", "HEAD"}:
            return await self._handler(call)
        await self._let_in(call, scope, receive)
        work = asyncio.current_task()
        assert work is not None  # noqa: S101 (coroutines run in tasks)
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            work.cancel()

        try:
            with _watching(scope, receive, leave):
                return await self._handler(call)
        except asyncio.CancelledError:
            if gone:
                return None
            raise
