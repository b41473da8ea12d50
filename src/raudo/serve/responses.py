"""Responses that leave as one piece.

uvicorn writes the head of a response, then its body, and loops send at once what is written. The
head alone costs a call of the system and wakes the client, which then has to wait for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class WholeResponses:
    """A connection's transport as uvicorn has it: what is only a beginning waits for what follows.

    Args:
        transport: The connection's own.
        follows: Tells whether the response goes on after what is written now.
    """

    def __init__(self, transport: asyncio.BaseTransport, follows: Callable[[], bool]) -> None:
        self._transport: Any = transport
        self._follows = follows
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send it, along with what was held back."""
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.writelines((held, data))
        elif self._follows():
            self._held = data
        else:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        """Do all else as the transport does it."""
        return getattr(self._transport, name)
