"""What the core tells of itself while it works: metrics, logs and pages listen.

Every call comes from the event loop and must return at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from raudo.records import Detections
    from raudo.serve.records import ModelVersion, Stages

Method = Literal["detect", "infer"]


@dataclass(frozen=True)
class Finished:
    """How one request that came to the core ended.

    Attributes:
        id: The request's id.
        method: What was asked for.
        code: "ok", the `code` of the error that it ended with, or "cancelled".
        seconds: From the core's first sight of it to its end.
        stages: Where the time went; None unless it ended well.
        variant: The variant that was chosen; None where it was turned down before.
        version: Its version.
        shadow: Whether it was a copy for comparison, whose reply nobody waits for.
        images: How many it had.
    """

    id: str
    method: Method
    code: str
    seconds: float
    stages: Stages | None = None
    variant: str | None = None
    version: str | None = None
    shadow: bool = False
    images: int = 1


class Observer(Protocol):
    """Listens to the core."""

    def request_finished(self, finished: Finished) -> None:
        """A request ended, well or not."""

    def batch_formed(self, version: ModelVersion, images: int) -> None:
        """A batch of so many images goes to an engine."""

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """So many requests of so many that may wait for an engine of this version."""

    def rejected(self, reason: str, variant: str | None) -> None:
        """A request was turned down: `reason` is the error's code."""

    def detected(self, version: ModelVersion, detections: tuple[Detections, ...]) -> None:
        """An engine found these in the images of one request."""

    def model_loaded(self, version: ModelVersion) -> None:
        """A version became ready, and takes its variant's requests from now on."""

    def model_unloaded(self, version: ModelVersion) -> None:
        """A version answered its last request and is gone."""

    def model_refused(self, name: str, reason: str) -> None:
        """An engine gets no requests: it does not fit this machine, or it did not pass."""

    def worker_restarted(self, version: ModelVersion, reason: str) -> None:
        """An engine's process died and was started again."""


class NullObserver:
    """Listens to nothing; a base for observers that care for some events."""

    def request_finished(self, finished: Finished) -> None:
        """Ignore it."""

    def batch_formed(self, version: ModelVersion, images: int) -> None:
        """Ignore it."""

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """Ignore it."""

    def rejected(self, reason: str, variant: str | None) -> None:
        """Ignore it."""

    def detected(self, version: ModelVersion, detections: tuple[Detections, ...]) -> None:
        """Ignore it."""

    def model_loaded(self, version: ModelVersion) -> None:
        """Ignore it."""

    def model_unloaded(self, version: ModelVersion) -> None:
        """Ignore it."""

    def model_refused(self, name: str, reason: str) -> None:
        """Ignore it."""

    def worker_restarted(self, version: ModelVersion, reason: str) -> None:
        """Ignore it."""


class Observers:
    """Several observers as one; each hears everything, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Let one more hear of what happens from now on."""
        self._observers.append(observer)

    def remove(self, observer: Observer) -> None:
        """Let one hear no more."""
        self._observers.remove(observer)

    def request_finished(self, finished: Finished) -> None:
        """Tell all."""
        for each in self._observers:
            each.request_finished(finished)

    def batch_formed(self, version: ModelVersion, images: int) -> None:
        """Tell all."""
        for each in self._observers:
            each.batch_formed(version, images)

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """Tell all."""
        for each in self._observers:
            each.queue_changed(version, depth, limit)

    def rejected(self, reason: str, variant: str | None) -> None:
        """Tell all."""
        for each in self._observers:
            each.rejected(reason, variant)

    def detected(self, version: ModelVersion, detections: tuple[Detections, ...]) -> None:
        """Tell all."""
        for each in self._observers:
            each.detected(version, detections)

    def model_loaded(self, version: ModelVersion) -> None:
        """Tell all."""
        for each in self._observers:
            each.model_loaded(version)

    def model_unloaded(self, version: ModelVersion) -> None:
        """Tell all."""
        for each in self._observers:
            each.model_unloaded(version)

    def model_refused(self, name: str, reason: str) -> None:
        """Tell all."""
        for each in self._observers:
            each.model_refused(name, reason)

    def worker_restarted(self, version: ModelVersion, reason: str) -> None:
        """Tell all."""
        for each in self._observers:
            each.worker_restarted(version, reason)
