"""Responses leave as one piece, and nothing that has no sequel waits for one."""

from __future__ import annotations

from typing import Any

from raudo.serve.responses import WholeResponses


class Transport:
    """Remembers what it sent, call by call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.sent.append(b"".join(pieces))

    def close(self) -> None:
        self.closed = True


def test_a_beginning_is_sent_along_with_what_follows() -> None:
    transport: Any = Transport()
    missing = iter((True, False, False, True, True, False))
    responses = WholeResponses(transport, lambda: next(missing))
    for piece in (b"head ", b"body", b"continue", b"head ", b"a part ", b"the rest"):
        responses.write(piece)
    assert b"".join(transport.sent) == b"head bodycontinuehead a part the rest"
    assert transport.sent[:2] == [b"head body", b"continue"]


def test_all_else_is_the_transports() -> None:
    transport: Any = Transport()
    responses = WholeResponses(transport, lambda: False)
    responses.close()
    assert transport.closed
