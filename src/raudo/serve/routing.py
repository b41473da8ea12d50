"""Which variant answers a request, and which one only follows along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from raudo.serve.records import PRIMARY

if TYPE_CHECKING:
    from raudo.serve.records import Reply


class Routing(Protocol):
    """Splits the requests among variants; called from the event loop, and returns at once."""

    def choose(self, request_id: str) -> str:
        """Return the name of the variant that answers this request."""

    def shadow(self, request_id: str) -> str | None:
        """Return the variant that gets a copy of this request, for `compare`; None: none does."""

    def compare(self, served: Reply, shadow: Reply) -> None:
        """Take both replies to one request, with detections; the client got the first."""


class PrimaryOnly:
    """Every request goes to the primary variant."""

    def choose(self, request_id: str) -> str:
        """Return the primary."""
        del request_id
        return PRIMARY

    def shadow(self, request_id: str) -> None:
        """Return None: nothing is shadowed."""

    def compare(self, served: Reply, shadow: Reply) -> None:
        """Never called: nothing is shadowed."""
