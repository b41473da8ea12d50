"""Confidence sequences: intervals that hold at all times at once, so that watching them is free.

An ordinary 95 % interval that is looked at after every request leaves out the truth sooner or
later. A confidence sequence does so with probability `alpha` at most, over all looks together:
one may stop, go on or act whenever one likes (Johari et al., "Always valid inference",
arXiv 1512.04922; Howard et al., arXiv 1810.08240).

Everything is O(1) an observation, and takes one number or an array with an element for each of
many experiments at once, which is how benchmarks/ab.py runs a thousand of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Number: TypeAlias = float | NDArray[np.float64]
Truth: TypeAlias = bool | NDArray[np.bool_]

FEWEST = 100
"""Observations below which a normal approximation is no basis for an interval."""
_STEEPEST = 0.5


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval; `low` and `high` are infinite before there is one.

    Attributes:
        value: The estimate.
        low: Low end of its confidence sequence.
        high: High end of it.
        count: Observations that it rests on.
    """

    value: Number
    low: Number
    high: Number
    count: Number


def radius(count: Number, variance: Number, alpha: float, tuned_for: float) -> Number:
    """Return half the width of the asymptotic confidence sequence of a mean.

    It is the Gaussian mixture's of Waudby-Smith et al., "Time-uniform central limit theory and
    asymptotic confidence sequences" (arXiv 2103.06476), theorem 2.2: the mixture SPRT, inverted.

    Args:
        count: Observations so far, > 0.
        variance: Of one observation.
        alpha: Probability that the truth is ever outside.
        tuned_for: Number of observations at which the interval is narrowest, compared with others.
    """
    rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / tuned_for
    grown = count * rho2 + 1
    spread = 2 * grown / (count**2 * rho2) * np.log(np.sqrt(grown) / alpha)
    return np.sqrt(spread * variance)


def around(value: Number, reach: Number, count: Number, enough: Truth) -> Estimate:
    """Return the estimate value +- reach, unbounded where there is not `enough` to go by."""
    reach = np.where(enough, reach, np.inf)
    return Estimate(value, value - reach, value + reach, count)


class Mean:
    """The running mean and variance of independent observations (Welford's recurrence).

    Args:
        unseen: Size of the one deviation that is held possible though none was seen; it keeps the
            interval open as long as all observations were alike.
    """

    def __init__(self, unseen: float = 0.0) -> None:
        self.count: Number = 0.0
        self.mean: Number = 0.0
        self._squares: Number = unseen**2

    def add(self, value: Number, seen: Number = 1.0) -> None:
        """Add an observation, or nothing where `seen` is 0."""
        self.count = self.count + seen
        delta = value - self.mean
        self.mean = self.mean + seen * delta / (self.count + (self.count == 0))
        self._squares = self._squares + seen * delta * (value - self.mean)

    @property
    def variance(self) -> Number:
        """Variance of one observation."""
        return self._squares / (self.count + (self.count == 0))

    def estimate(self, alpha: float, tuned_for: float) -> Estimate:
        """Return the mean with its asymptotic confidence sequence."""
        count = np.maximum(self.count, 1)
        reach = radius(count, self.variance, alpha, tuned_for)
        return around(self.mean, reach, self.count, self.count >= FEWEST)


class Ratio:
    """A ratio of two sums over independent observations, for instance matched boxes to all boxes.

    The interval is that of the mean of `above - ratio * below` (the delta method).

    Args:
        unseen: Largest deviation of one average observation's own ratio; see `Mean`.
    """

    def __init__(self, unseen: float = 0.0) -> None:
        self.count: Number = 0.0
        self._above, self._below = Mean(), Mean()
        self._products: Number = 0.0
        self._unseen = unseen**2

    def add(self, above: Number, below: Number, seen: Number = 1.0) -> None:
        """Add an observation, or nothing where `seen` is 0."""
        self.count = self.count + seen
        delta = above - self._above.mean
        self._above.add(above, seen)
        self._below.add(below, seen)
        self._products = self._products + seen * delta * (below - self._below.mean)

    def estimate(self, alpha: float, tuned_for: float) -> Estimate:
        """Return the ratio with its asymptotic confidence sequence; unbounded while below is 0."""
        empty = self._below.mean == 0
        below = self._below.mean + empty
        value = self._above.mean / below
        count = np.maximum(self.count, 1)
        cross = self._products / count
        variance = self._above.variance - 2 * value * cross + value**2 * self._below.variance
        variance = np.maximum(variance, 0) / below**2 + self._unseen / count
        reach = radius(count, variance, alpha, tuned_for)
        return around(value, reach, self.count, (self.count >= FEWEST) & ~np.asarray(empty))


class Rate:
    """How often something happens: the mean of observations between 0 and 1.

    The interval is the empirical Bernstein confidence sequence with predictable plug-ins of
    Waudby-Smith and Ramdas (arXiv 2010.09686), theorem 2. It is not asymptotic: it holds for rare
    events, where the normal approximation does not.

    Args:
        alpha: Probability that the truth is ever outside; the sums depend on it.
    """

    def __init__(self, alpha: float) -> None:
        self.count: Number = 0.0
        self._bound = math.log(2 / alpha)
        self._total: Number = 0.0
        self._squares: Number = 0.25
        self._weights: Number = 0.0
        self._weighted: Number = 0.0
        self._penalty: Number = 0.0

    def add(self, value: Number, seen: Number = 1.0) -> None:
        """Add an observation in [0, 1], or nothing where `seen` is 0."""
        before = (0.5 + self._total) / (self.count + 1)
        variance = self._squares / (self.count + 1)
        following = self.count + 1
        pace = np.sqrt(2 * self._bound / (variance * following * np.log(following + 1)))
        weight = np.minimum(pace, _STEEPEST)
        self._weights = self._weights + seen * weight
        self._weighted = self._weighted + seen * weight * value
        cost = -np.log1p(-weight) - weight
        self._penalty = self._penalty + seen * (value - before) ** 2 * cost
        self.count = self.count + seen
        self._total = self._total + seen * value
        mean = (0.5 + self._total) / (self.count + 1)
        self._squares = self._squares + seen * (value - mean) ** 2

    def estimate(self) -> Estimate:
        """Return the mean with its confidence sequence, which is centred on a weighted mean."""
        weights = self._weights + (self._weights == 0)
        centre, reach = self._weighted / weights, (self._bound + self._penalty) / weights
        known = self.count > 0
        return Estimate(
            self._total / np.maximum(self.count, 1),
            np.where(known, np.maximum(centre - reach, 0), 0.0),
            np.where(known, np.minimum(centre + reach, 1), 1.0),
            self.count,
        )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Return first - second; it holds as often as both intervals hold."""
    return Estimate(
        first.value - second.value,
        first.low - second.high,
        first.high - second.low,
        first.count + second.count,
    )


def mean_difference(
    strata: Sequence[tuple[Mean, Mean]], alpha: float, tuned_for: float
) -> Estimate:
    """Return the difference of the means of two groups that observations were dealt to at random.

    Args:
        strata: Both groups' observations, apart for each kind of observation; the more a kind
            tells of the difference, the more it weighs.
        alpha: Probability that the truth is ever outside.
        tuned_for: Number of observations, of both groups, at which the interval is narrowest.
    """
    weights: Number = 0.0
    weighted: Number = 0.0
    noise: Number = 0.0
    count: Number = 0.0
    for first, second in strata:
        enough = np.minimum(first.count, second.count) >= FEWEST
        ours, theirs = np.maximum(first.count, 1), np.maximum(second.count, 1)
        weight = np.where(enough, ours * theirs / (ours + theirs), 0.0)
        weights = weights + weight
        weighted = weighted + weight * (first.mean - second.mean)
        noise = noise + weight**2 * (first.variance / ours + second.variance / theirs)
        count = count + np.where(enough, ours + theirs, 0.0)
    known = np.asarray(weights) > 0
    total, seen = np.where(known, weights, 1.0), np.where(known, count, 1.0)
    reach = radius(seen, seen * noise / total**2, alpha, tuned_for)
    return around(weighted / total, reach, count, known)
