"""What is measured while two variants run side by side: one class for each way to do so.

A figure says how much *worse* the candidate is than the baseline: larger is worse in all of them.
All figures of a watch hold at all times, all at once, with probability 1 - alpha: each gets an
equal part of alpha.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from raudo.serve.ab.sequences import Estimate, Mean, Rate, Ratio, difference, mean_difference

if TYPE_CHECKING:
    from raudo.serve.ab.likeness import Likeness
    from raudo.serve.ab.sequences import Number

Figure = Literal["agreement", "latency", "errors", "class_flips", "score_shift"]

UNITS: dict[Figure, str] = {
    "agreement": "points",
    "latency": "%",
    "errors": "points",
    "class_flips": "points",
    "score_shift": "points",
}
_TWICE = float(np.log(2))
_REQUESTS, _PAIRS = 5000, 1000
"""Observations at which intervals are to be narrowest: about where decisions fall."""


class Watch(Protocol):
    """Accumulates observations, and tells the figures."""

    def figures(self) -> dict[Figure, Estimate]:
        """Return all figures, in percent or points, larger is worse."""


class SplitWatch:
    """Requests are dealt to one of the two: compares latencies and errors.

    The side with more traffic has larger batches, which take longer; so latencies are compared
    among requests of one batch size each, and the differences are averaged.

    Args:
        alpha: Probability that any interval ever leaves out the truth.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha / 2
        self._latencies: dict[int, tuple[Mean, Mean]] = {}
        self._errors = (Rate(self._alpha / 2), Rate(self._alpha / 2))

    def add(self, candidate: Number, milliseconds: Number, failed: Number, batch: int = 1) -> None:
        """Add a request.

        Args:
            candidate: 1 if the candidate had it, 0 if the baseline.
            milliseconds: What it took, > 0; not used of a failed one.
            failed: 1 if the variant failed to answer.
            batch: Images that the engine ran at once.
        """
        took = np.log(milliseconds)
        sides = (candidate, 1 - candidate)
        latencies = self._latencies.setdefault(batch, (Mean(_TWICE), Mean(_TWICE)))
        for side, latency, errors in zip(sides, latencies, self._errors, strict=True):
            latency.add(took, side * (1 - failed))
            errors.add(failed, side)

    def figures(self) -> dict[Figure, Estimate]:
        """Return `latency` in percent and `errors` in points."""
        slower = mean_difference(list(self._latencies.values()), self._alpha, _REQUESTS)
        ours, theirs = (rate.estimate() for rate in self._errors)
        return {"latency": _percent(slower), "errors": _scaled(difference(ours, theirs), 100)}


class ShadowWatch:
    """Both answer the same requests: compares detections, latencies and errors, pair by pair.

    Args:
        alpha: Probability that any interval ever leaves out the truth.
        expected_percent: F1 that the candidate's detections are known to have with the baseline's.
    """

    def __init__(self, alpha: float, expected_percent: float) -> None:
        self._alpha, self._expected = alpha / 5, expected_percent
        self._agreement, self._flips, self._shift = Ratio(1), Ratio(1), Ratio(1)
        self._slower = Mean(_TWICE)
        self._errors = (Rate(self._alpha / 2), Rate(self._alpha / 2))

    def add(self, like: Likeness) -> None:
        """Add a request in which both found something to compare, or nothing at all."""
        self._agreement.add(2 * like.matched, like.detections)
        self._flips.add(like.flipped, like.matched + like.flipped)
        self._shift.add(-like.score_shift, like.matched)

    def add_latencies(self, ratio: Number) -> None:
        """Add milliseconds of the candidate by those of the baseline, > 0, at one request."""
        self._slower.add(np.log(ratio))

    def add_outcome(self, candidate: Number, failed: Number) -> None:
        """Add whether one of the two failed to answer: `candidate` is 1, or 0 for the baseline."""
        for side, errors in zip((candidate, 1 - candidate), self._errors, strict=True):
            errors.add(failed, side)

    def figures(self) -> dict[Figure, Estimate]:
        """Return all figures.

        `agreement` is the drop below what is expected, in points; `latency` in percent; `errors`
        and `class_flips` in points; `score_shift` is the fall of scores, in points.
        """
        agreement, flips, shift = (
            _scaled(ratio.estimate(self._alpha, _PAIRS), 100)
            for ratio in (self._agreement, self._flips, self._shift)
        )
        agreement, flips = _a_share(agreement), _a_share(flips)
        ours, theirs = (rate.estimate() for rate in self._errors)
        return {
            "agreement": _below(agreement, self._expected),
            "latency": _percent(self._slower.estimate(self._alpha, _PAIRS)),
            "errors": _scaled(difference(ours, theirs), 100),
            "class_flips": flips,
            "score_shift": shift,
        }


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(
        estimate.value * factor, estimate.low * factor, estimate.high * factor, estimate.count
    )


def _a_share(estimate: Estimate) -> Estimate:
    """Cut off what no share in percent can be; an interval that does not exist yet stays open."""
    low, high = (
        np.where(np.isinf(end), end, np.clip(end, 0, 100)) for end in (estimate.low, estimate.high)
    )
    return Estimate(estimate.value, low, high, estimate.count)


def _below(estimate: Estimate, expected: float) -> Estimate:
    """Turn an estimate into its shortfall."""
    return Estimate(
        expected - estimate.value, expected - estimate.high, expected - estimate.low, estimate.count
    )


def _percent(log_ratio: Estimate) -> Estimate:
    """Turn the logarithm of a ratio into what it is above 1, in percent."""

    def percent(value: Number) -> Number:
        return np.where(np.isinf(value), value, 100 * np.expm1(value))

    return Estimate(
        percent(log_ratio.value), percent(log_ratio.low), percent(log_ratio.high), log_ratio.count
    )
