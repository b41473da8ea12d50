"""Guards: how much worse a candidate may be, and when it is certain that it is or is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raudo.serve.ab.watches import UNITS, Figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raudo.serve.ab.sequences import Estimate

ALPHA = 0.05
"""Probability of a false alarm, over all guards and the whole life of an experiment."""


@dataclass(frozen=True)
class Guard:
    """One figure and its limit; larger is worse.

    A guard is broken as soon as the figure is certainly above `tolerated`, and holds as soon as it
    is certainly below `limit`. The two differ, so that one of both is always reached in the end: a
    candidate that is as bad as the limit is found, and one that is hardly worse is left alone.

    Attributes:
        figure: What is guarded.
        limit: How bad the candidate must not be, in the figure's unit.
    """

    figure: Figure
    limit: float

    @property
    def unit(self) -> str:
        """Of the limit: "%" or "points"."""
        return UNITS[self.figure]

    @property
    def tolerated(self) -> float:
        """Half the limit: what is no reason to act."""
        return self.limit / 2

    def broken(self, estimate: Estimate) -> NDArray[np.bool_]:
        """Tell whether the figure is certainly above what is tolerated."""
        return np.asarray(estimate.low > self.tolerated)

    def holds(self, estimate: Estimate) -> NDArray[np.bool_]:
        """Tell whether the figure is certainly below the limit."""
        return np.asarray(estimate.high < self.limit)


AGREEMENT = Guard("agreement", 2.0)
LATENCY = Guard("latency", 10.0)
ERRORS = Guard("errors", 1.0)
GUARDS = (AGREEMENT, LATENCY, ERRORS)
