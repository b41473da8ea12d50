"""The last two minutes, second by second, for the page; constant memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from raudo.records import Record
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
        self.queue: dict[str, tuple[int, int]] = {}

    def request_finished(self, finished: Finished) -> None:
        """Count it."""
        if finished.shadow or finished.code == "cancelled":
            return
        current = self._current()
        if finished.code == "ok":
            current.answered += 1
            current.latencies.add(max(1000 * finished.seconds, 1e-3))
        else:
            current.turned_down += 1

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """Note how long a variant's queue is."""
        self.queue[version.variant] = (depth, limit)

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
