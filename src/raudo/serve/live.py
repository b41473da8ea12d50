"""The last two minutes, second by second, for the page; constant memory."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from raudo.records import Record
from raudo.serve.ab.records import Experiment
from raudo.serve.observer import NullObserver
from raudo.serve.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from raudo.serve.observer import Finished
    from raudo.serve.records import ModelVersion

SECONDS = 120


class Moment(Record):
    """One second of the service."""

    second: int = Field(description="Unix time")
    answered: int
    turned_down: int
    p50_ms: float | None = Field(description="First sight to reply; None where none was answered")
    p95_ms: float | None
    p99_ms: float | None


class VersionState(Record):
    """A version that takes requests."""

    version: str
    variant: str
    engine: str
    precision: str
    run: str | None
    size: tuple[int, int] = Field(description="Input (height, width)")
    requests: int = Field(description="Answered since it was loaded, copies included")
    queue_depth: int
    queue_limit: int


class LiveState(Record):
    """The service at this moment, and second by second over the last two minutes."""

    raudo: str
    model: str
    ready: bool
    versions: tuple[VersionState, ...]
    moments: tuple[Moment, ...]
    experiment: Experiment | None


@dataclass
class _Counting:
    second: int
    answered: int = 0
    turned_down: int = 0
    latencies: Quantiles = field(default_factory=Quantiles)

    def moment(self) -> Moment:
        known = self.latencies.count > 0
        p50, p95, p99 = (self.latencies.at(s) if known else None for s in (0.5, 0.95, 0.99))
        return Moment(
            second=self.second,
            answered=self.answered,
            turned_down=self.turned_down,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )


class LiveCurves(NullObserver):
    """Counts what clients waited for; copies for comparison are left out.

    Args:
        now: Unix time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._counted: deque[_Counting] = deque(maxlen=SECONDS)
        self._queues: dict[str, tuple[int, int]] = {}
        self._answered: Counter[str | None] = Counter()

    def request_finished(self, finished: Finished) -> None:
        """Count it."""
        self._answered[finished.version] += finished.code == "ok"
        if finished.shadow or finished.code == "cancelled":
            return
        current = self._current()
        if finished.code == "ok":
            current.answered += 1
            current.latencies.add(max(1000 * finished.seconds, 1e-3))
        else:
            current.turned_down += 1

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """Note how long a version's queue is."""
        self._queues[version.version] = (depth, limit)

    def model_unloaded(self, version: ModelVersion) -> None:
        """Forget it."""
        self._queues.pop(version.version, None)
        self._answered.pop(version.version, None)

    def version(self, version: ModelVersion) -> VersionState:
        """Return what is known of a version."""
        manifest = version.artifact.manifest
        depth, limit = self._queues.get(version.version, (0, 0))
        return VersionState(
            version=version.version,
            variant=version.variant,
            engine=manifest.name,
            precision=manifest.precision,
            run=version.run,
            size=(manifest.spec.height, manifest.spec.width),
            requests=self._answered[version.version],
            queue_depth=depth,
            queue_limit=limit,
        )

    def _current(self) -> _Counting:
        second = int(self._now())
        if not self._counted or self._counted[-1].second != second:
            self._counted.append(_Counting(second))
        return self._counted[-1]

    def moments(self) -> tuple[Moment, ...]:
        """Return the last 120 whole seconds, the oldest first; quiet ones too."""
        now = int(self._now())
        counted = {each.second: each for each in self._counted}
        seconds = range(now - SECONDS, now)
        return tuple(counted.get(s, _Counting(s)).moment() for s in seconds)
