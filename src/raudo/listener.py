"""How long work tells how it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raudo.records import Status


class Listener:
    """Is told how a run goes on; this one does nothing with it."""

    def step(self, title: str, total: float | None = None) -> None:
        """A step begins; `total` is what `advance` counts up to."""

    def advance(self, done: float) -> None:
        """The current step got as far as `done`."""

    def finished(self, name: str, status: Status, reason: str) -> None:
        """A candidate was made, was not, or was skipped."""
