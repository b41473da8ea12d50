"""Large request bodies, read from the socket straight into the memory that they stay in.

uvicorn's parser would hand a body of a megabyte on in twenty pieces and copy each four times, which
takes longer than all else that the service does with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from raudo.serve.errors import BadRequestError, DeadlineError, TooLargeError
from raudo.serve.responses import WholeResponses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from uvicorn.config import Config

    from raudo.serve.errors import ServeError

UPLOAD, BODY = "raudo.upload", "body"
"""Name of an ASGI extension, and the key in it under which an `Upload` is found."""
PIECE = 1 << 14
"""Bytes that are read at once where no upload is under way; longer bodies are uploads.

What comes along with a head is copied by the parser, so it should not be much.
"""
HEAD_BYTES, HEAD_SECONDS = 1 << 16, 10.0
"""Most bytes of a request's head, which the parser keeps, and most seconds until it is whole."""
LOT = 1 << 18
"""Bytes of an upload that are waited for at once: to wake for each packet holds up the sender."""


class Upload:
    """A body of known length while it arrives.

    Args:
        memory: Where it goes, uint8 [size].

    Attributes:
        missing: Bytes that are still to come.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory: memoryview | None = memory.data
        self.missing = len(memory)
        self._ended = asyncio.Event()
        self._left = False
        self._watcher: Callable[[], None] | None = None

    def room(self, piece: bytearray) -> memoryview:
        """Return where the next bytes go; a piece takes what nobody wants."""
        if self._memory is None:
            return memoryview(piece)[: self.missing]
        return self._memory[-self.missing :]

    def filled(self, count: int) -> bool:
        """Note that so many more bytes are there; tells whether they are all."""
        self.missing -= count
        if not self.missing:
            self._ended.set()
        return not self.missing

    def lose(self) -> None:
        """Note that the client left."""
        self._left = True
        self._ended.set()
        if self._watcher is not None:
            self._watcher()

    def refuse(self) -> None:
        """Give the memory back: the request is turned down, and what still arrives is dropped."""
        self._memory = None

    @contextlib.contextmanager
    def watched(self, tell: Callable[[], None]) -> Iterator[None]:
        """Tell when the client leaves, or that it did already."""
        self._watcher = tell
        if self._left:
            tell()
        try:
            yield
        finally:
            self._watcher = None

    async def arrival(self) -> memoryview | None:
        """Wait for all of it, and hand it over; None: the client left before."""
        await self._ended.wait()
        memory, self._memory = self._memory, None  # the connection keeps this object, idle or not
        return None if self.missing else memory


class UploadProtocol(asyncio.BufferedProtocol):
    """uvicorn's HTTP protocol, with uploads read past its parser, and responses sent as one piece.

    Args:
        largest: Longest body that is read so; a longer one is left to be refused.
        allocate: Returns memory for so many bytes.
        refusal: Returns the answer to what is no request.
        config: uvicorn's.
        uvicorns: What else uvicorn makes its protocol with.
    """

    def __init__(
        self,
        largest: int,
        allocate: Callable[[int], NDArray[np.uint8]],
        refusal: Callable[[ServeError], bytes],
        config: Config,
        **uvicorns: Any,
    ) -> None:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        self._largest, self._allocate, self._refusal = largest, allocate, refusal
        self._http = HttpToolsProtocol(config, **uvicorns)
        self._http.send_400_response = self._refuse_noise  # type: ignore[method-assign]
        self._piece = bytearray(PIECE)
        self._upload: Upload | None = None
        self._last: Upload | None = None
        self._lot = 1
        self._in_head, self._head = False, 0
        self._patience: asyncio.TimerHandle | None = None
        self._renew_parser()

    def _renew_parser(self) -> None:
        """Begin with a new message: the parser saw no end of the one that was read past it."""
        import httptools

        self._http.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: Any = transport
        self._socket = transport.get_extra_info("socket")
        self._lose_patience_later()
        responses = WholeResponses(transport, self._response_goes_on)
        self._http.connection_made(responses)  # type: ignore[arg-type]

    def _response_goes_on(self) -> bool:
        """Tell whether more follows what uvicorn just writes; nothing does where HEAD was asked."""
        cycle = self._http.cycle
        return bool(cycle and cycle.expected_content_length and cycle.scope["method"] != "HEAD")

    def connection_lost(self, error: Exception | None) -> None:
        """End, and end what still arrives or is being answered."""
        if self._patience is not None:
            self._patience.cancel()
        if self._last is not None:
            self._last.lose()
        self._http.connection_lost(error)

    def eof_received(self) -> None:
        """Let the transport close."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Write no more for now."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._http.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        """Return where the next bytes go."""
        del sizehint
        return self._piece if self._upload is None else self._upload.room(self._piece)

    def buffer_updated(self, count: int) -> None:
        """Take the bytes that were read."""
        if self._upload is None:
            self._http.data_received(bytes(memoryview(self._piece)[:count]))
            if self._in_head:
                self._mind_head(count)
        elif self._upload.filled(count):
            self._upload = None
            self._http.cycle.more_body = False
            self._renew_parser()
        self._wait_for(1 if self._upload is None else min(LOT, self._upload.missing))

    def _wait_for(self, count: int) -> None:
        """Be told of new bytes once there are so many, or the client left."""
        if count != self._lot:
            self._lot = count
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _mind_head(self, count: int) -> None:
        """Refuse a head that grows too long, or takes too long."""
        self._head += count
        if self._head > HEAD_BYTES:
            self._refuse(TooLargeError("the head of the request is too long"))
        elif self._patience is None:
            self._lose_patience_later()

    def _lose_patience_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(HEAD_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        if self._in_head:
            self._refuse(DeadlineError("the head of the request did not arrive in time"))
        else:
            self._transport.close()

    def _refuse_noise(self, msg: str) -> None:
        self._refuse(BadRequestError(msg))

    def _refuse(self, error: ServeError) -> None:
        """Answer what is no request as endpoints answer errors, and close."""
        self._transport.write(self._refusal(error))
        self._transport.close()

    def on_message_begin(self) -> None:
        """Pass it on."""
        self._in_head, self._head = True, 0
        self._http.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Pass it on."""
        self._http.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass it on."""
        self._http.on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin an upload where one follows, then pass it on: the request starts."""
        self._in_head = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        headers = dict(self._http.headers)
        length = headers.get(b"content-length", b"")
        plain = b"transfer-encoding" not in headers and b"expect" not in headers
        # The protocol's own head is pipelined behind a request that is still being answered.
        free = self._http.cycle is None or self._http.cycle.response_complete
        if plain and free and length.isdigit() and PIECE < int(length) <= self._largest:
            self._upload = self._last = Upload(self._allocate(int(length)))
            self._http.scope["extensions"] = {UPLOAD: {BODY: self._upload}}
        self._http.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep what came along with the head of an upload; pass all else on."""
        if self._upload is None:
            self._http.on_body(body)
        else:
            self._upload.room(self._piece)[: len(body)] = body
            self._upload.filled(len(body))

    def on_message_complete(self) -> None:
        """Pass it on."""
        self._http.on_message_complete()
