"""Quantiles of durations in constant memory."""

from __future__ import annotations

import math
from collections import Counter

_GROWTH = math.log(1.02)


class Quantiles:
    """Counts durations in buckets that are 2 % wide, so that quantiles are within 1 %."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, duration: float) -> None:
        """Count one duration, > 0, in any unit."""
        self._buckets[round(math.log(duration) / _GROWTH)] += 1
        self.count += 1

    def at(self, share: float) -> float:
        """Return the duration that a share, in (0, 1], of all do not exceed; NaN without any."""
        rank = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return math.exp(bucket * _GROWTH)
        return math.nan
