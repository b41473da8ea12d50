"""Confidence sequences: their arithmetic, and that they hold however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.serve.ab.sequences import (
    FEWEST,
    Mean,
    Rate,
    Ratio,
    difference,
    mean_difference,
    radius,
)

TESTS, STEPS, ALPHA = 400, 1500, 0.05
values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(values)
def test_running_mean_and_variance(seen: list[float]) -> None:
    mean = Mean()
    for value in seen:
        mean.add(value)
    assert mean.mean == pytest.approx(np.mean(seen), abs=1e-9)
    assert mean.variance == pytest.approx(np.var(seen), rel=1e-9, abs=1e-6)


@given(values)
def test_what_is_not_seen_changes_nothing(seen: list[float]) -> None:
    with_gaps, without = Mean(), Mean()
    for value in seen:
        with_gaps.add(value)
        with_gaps.add(1e6, 0)
        without.add(value)
    assert (with_gaps.count, with_gaps.mean) == (without.count, without.mean)
    assert with_gaps.variance == without.variance


def test_arrays_are_many_experiments() -> None:
    random = np.random.default_rng(0)
    table, dealt = random.random((200, 3)), random.integers(0, 2, (200, 3))
    together = (Mean(), Ratio(1), Rate(0.05))
    apart = [(Mean(), Ratio(1), Rate(0.05)) for _ in range(3)]
    for row, seen in zip(table, dealt, strict=True):
        feed(together, row, seen)
        for column in range(3):
            feed(apart[column], float(row[column]), float(seen[column]))
    for column in range(3):
        for ours, theirs in zip(estimates(together), estimates(apart[column]), strict=True):
            for name in ("value", "low", "high", "count"):
                assert getattr(ours, name)[column] == pytest.approx(float(getattr(theirs, name)))


def feed(each, value, seen) -> None:
    mean, ratio, rate = each
    mean.add(value, seen)
    ratio.add(value, 1 + value, seen)
    rate.add(value, seen)


def estimates(each):
    mean, ratio, rate = each
    return mean.estimate(0.05, 500), ratio.estimate(0.05, 500), rate.estimate()


def test_the_radius_against_the_paper() -> None:
    # Waudby-Smith et al., theorem 2.2, with rho = 1: sqrt(2 (t + 1) / t^2 log(sqrt(t + 1) / a)).
    rho2 = -2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))
    expected = math.sqrt(2 * 101 / 100**2 * math.log(math.sqrt(101) / 0.05))
    assert radius(100.0, 1.0, 0.05, rho2) == pytest.approx(expected)
    assert radius(100.0, 9.0, 0.05, rho2) == pytest.approx(3 * expected)


def test_the_radius_is_tuned() -> None:
    tuned_for = 1000
    best = radius(1000.0, 1.0, 0.05, tuned_for)
    for other in (10, 100, 10_000, 100_000):
        assert radius(1000.0, 1.0, 0.05, other) > best


def test_no_interval_before_there_is_enough() -> None:
    mean, ratio = Mean(), Ratio()
    for _ in range(FEWEST - 1):
        mean.add(1.0)
        ratio.add(0.0, 0.0)
    assert math.isinf(mean.estimate(0.05, 100).high)
    mean.add(1.0)
    ratio.add(0.0, 0.0)
    assert math.isfinite(mean.estimate(0.05, 100).high)
    assert math.isinf(ratio.estimate(0.05, 100).high)  # there still is nothing to divide by


def test_what_was_never_seen_stays_possible() -> None:
    careless, careful = Mean(), Mean(unseen=1.0)
    for _ in range(1000):
        careless.add(0.0)
        careful.add(0.0)
    assert careless.estimate(0.05, 1000).high == 0
    # As the rule of three has it, events that were not seen in n are as likely as a few in n.
    assert 3 / 1000 < careful.estimate(0.05, 1000).high < 6 / 1000


def test_a_rate_lies_between_nothing_and_all() -> None:
    rate = Rate(0.05)
    nothing = rate.estimate()
    assert (nothing.low, nothing.high) == (0, 1)
    for _ in range(1000):
        rate.add(0.0)
    never = rate.estimate()
    assert never.low == 0
    assert 3 / 1000 < never.high < 0.02


def excluded(estimates, truth) -> np.ndarray:
    return (estimates.low > truth) | (estimates.high < truth)


def test_rare_events_are_covered_at_all_times() -> None:
    """Not asymptotic: no look at any of 400 tests may miss the truth more often than alpha."""
    random, rate, missed = np.random.default_rng(1), Rate(ALPHA), np.zeros(TESTS, bool)
    for _ in range(STEPS):
        rate.add((random.random(TESTS) < 0.01).astype(float))
        missed |= excluded(rate.estimate(), 0.01)
    assert missed.mean() <= ALPHA


def test_heavy_tails_are_covered_at_all_times() -> None:
    """Pareto latencies of infinite variance, as logarithms; ordinary intervals miss much more."""
    random, mean = np.random.default_rng(2), Mean()
    missed, naive = np.zeros(TESTS, bool), np.zeros(TESTS, bool)
    for _ in range(STEPS):
        mean.add(np.log(1 + random.pareto(1.5, TESTS)))  # exponential, its mean is 1 / 1.5
        missed |= excluded(mean.estimate(ALPHA, 1000), 1 / 1.5)
        reach = 1.96 * np.sqrt(mean.variance / mean.count)
        naive |= (np.abs(mean.mean - 1 / 1.5) > reach) & (mean.count >= FEWEST)
    assert missed.mean() <= ALPHA
    assert naive.mean() > 3 * ALPHA


def test_ratios_are_covered_at_all_times() -> None:
    random, ratio, missed = np.random.default_rng(3), Ratio(), np.zeros(TESTS, bool)
    for _ in range(STEPS):
        boxes = random.poisson(random.gamma(1, 5, TESTS))
        ratio.add(random.binomial(boxes, 0.9).astype(float), boxes.astype(float))
        missed |= excluded(ratio.estimate(ALPHA, 1000), 0.9)
    assert missed.mean() <= ALPHA


def test_groups_of_different_sizes_are_covered_at_all_times() -> None:
    random, groups, missed = np.random.default_rng(4), (Mean(), Mean()), np.zeros(TESTS, bool)
    for _ in range(STEPS):
        first = (random.random(TESTS) < 0.8).astype(float)
        value = random.exponential(1, TESTS) + 0.2 * first
        groups[0].add(value, first)
        groups[1].add(value, 1 - first)
        missed |= excluded(mean_difference([groups], ALPHA, 1000), 0.2)
    assert missed.mean() <= ALPHA


def test_unevenly_dealt_kinds_do_not_mislead() -> None:
    """One group has more of the slow kind; within each kind, both groups are the same."""
    random = np.random.default_rng(5)
    strata = ((Mean(), Mean()), (Mean(), Mean()))
    for slow, counts in zip((0, 1), ((200, 800), (900, 150)), strict=True):
        for group, count in zip(strata[slow], counts, strict=True):
            for value in random.normal(10 * slow, 1, count):
                group.add(value)
    found = mean_difference(strata, ALPHA, 1000)
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.2
    assert found.count == 2050


def test_kinds_that_one_group_hardly_has_are_left_out() -> None:
    few = (Mean(), Mean())
    for _ in range(FEWEST):
        few[0].add(1.0)
    found = mean_difference([few], ALPHA, 1000)
    assert (found.count, math.isinf(found.low)) == (0, True)
    assert math.isinf(mean_difference([], ALPHA, 1000).high)


def test_a_difference_holds_when_both_hold() -> None:
    first, second = Rate(0.05), Rate(0.05)
    for number in range(1000):
        first.add(float(number % 10 == 0))
        second.add(0.0)
    both = difference(first.estimate(), second.estimate())
    assert both.value == pytest.approx(0.1)
    assert both.low == first.estimate().low - second.estimate().high
    assert both.high == first.estimate().high - second.estimate().low
