"""A comparison from its first request to its verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial

import numpy as np
import pytest

from raudo.serve.ab import comparison
from raudo.serve.ab.comparison import Comparison, Plan, describe, needed
from raudo.serve.ab.guards import AGREEMENT, ERRORS, GUARDS, LATENCY
from raudo.serve.ab.likeness import Likeness
from raudo.serve.ab.sequences import Estimate
from raudo.serve.ab.watches import ShadowWatch, SplitWatch

SPLIT = Plan("split", "primary", "baseline", 0.5)
SHADOW = Plan("shadow", "primary", "baseline", 1.0, expected_percent=98.0)
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def split(requests: int, slowdown: float = 1.0, failing: float = 0.0) -> Comparison[SplitWatch]:
    """Deal requests; stop as the service does."""
    random = np.random.default_rng(5)
    watched = Comparison(SPLIT, SplitWatch, lambda: NOON)
    for _ in range(requests):
        candidate = float(random.random() < 0.5)
        took = random.lognormal(2, 0.2) * (slowdown if candidate else 1)
        failed = bool(candidate) and random.random() < failing
        watched.sides["primary" if candidate else "baseline"].count(None if failed else took)
        watched.watch.add(candidate, took, float(failed))
        if watched.request_ended():
            break
    return watched


def shadow(requests: int, agreement: float) -> Comparison[ShadowWatch]:
    random = np.random.default_rng(6)
    watched = Comparison(SHADOW, partial(ShadowWatch, expected_percent=98.0), lambda: NOON)
    for _ in range(requests):
        boxes = int(random.poisson(8))
        matched = int(random.binomial(boxes, agreement))
        like = Likeness(2 * boxes, matched, 0, -0.01 * matched)
        watched.watch.add(like)
        watched.watch.add_latencies(random.lognormal(0, 0.2))
        watched.watch.add_outcome(1.0, 0.0)
        watched.watch.add_outcome(0.0, 0.0)
        if watched.request_ended():
            break
    return watched


def test_alike_variants_pass_once_that_is_certain() -> None:
    early, late = split(200), split(6000)
    assert early.verdict == "INCONCLUSIVE"
    assert late.verdict == "PASS"
    state = late.state()
    assert state.rolled_back is None
    assert state.held_after is not None
    assert 200 < state.held_after < 6000
    assert {figure.name: figure.verdict for figure in state.figures} == {
        "latency": "PASS",
        "errors": "PASS",
    }


def test_a_slow_candidate_goes() -> None:
    watched = split(6000, slowdown=1.2)
    assert watched.verdict == "FAIL"
    state = watched.state()
    assert state.rolled_back is not None
    assert state.rolled_back.figure == "latency"
    assert state.rolled_back.requests == state.requests < 6000
    assert state.rolled_back.at == "2026-01-01T12:00:00+00:00"
    assert "latency is worse by at least" in watched.reason


def test_a_failing_candidate_goes() -> None:
    state = split(6000, failing=0.1).state()
    assert state.rolled_back is not None
    assert state.rolled_back.figure == "errors"
    assert state.candidate.failed > 0 == state.baseline.failed


def test_detections_that_drift_go() -> None:
    assert shadow(3000, 0.98).verdict == "PASS"
    state = shadow(3000, 0.95).state()
    assert state.rolled_back is not None
    assert state.rolled_back.figure == "agreement"
    figures = {figure.name: figure for figure in state.figures}
    assert figures["agreement"].value == pytest.approx(3, abs=1)
    assert figures["score_shift"].value == pytest.approx(1)
    assert figures["class_flips"].value == 0
    assert figures["class_flips"].verdict is None


def test_a_faster_candidate_is_not_rolled_back() -> None:
    assert split(3000, slowdown=0.5).verdict == "PASS"


def test_after_a_roll_back_nothing_counts() -> None:
    watched = split(6000, slowdown=1.2)
    before = watched.state()
    for _ in range(100):
        assert not watched.request_ended()
    assert watched.state() == before


def test_a_fault_that_comes_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "EPOCH", 4000)
    random, watched = np.random.default_rng(7), Comparison(SPLIT, SplitWatch)
    for number in range(12_000):
        candidate = float(random.random() < 0.5)
        slowdown = 1.15 if candidate and number >= 8000 else 1
        watched.watch.add(candidate, random.lognormal(2, 0.2) * slowdown, 0.0)
        if watched.request_ended():
            break
    state = watched.state()
    assert (state.epoch, state.verdict) == (3, "FAIL")
    assert state.held_after is not None


def test_the_state_before_any_request() -> None:
    state = Comparison(SHADOW, partial(ShadowWatch, expected_percent=98.0)).state()
    assert state.verdict == "INCONCLUSIVE"
    assert all(figure.value is None for figure in state.figures)
    bounded = {figure.name for figure in state.figures if figure.low is not None}
    assert bounded == {"errors"}  # the difference of two shares is bounded before anything is seen
    assert state.candidate.p50_ms is None
    assert type(state).model_validate_json(state.model_dump_json()) == state


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.figure)
def test_a_guard_is_broken_or_holds_in_the_end(guard) -> None:
    """Whatever the truth, a narrow enough interval settles it; and never both ways wrongly."""
    for truth in np.linspace(-guard.limit, 2 * guard.limit, 61):
        narrow = Estimate(truth, truth - guard.limit / 5, truth + guard.limit / 5, 1000)
        assert guard.broken(narrow) or guard.holds(narrow)
        assert not guard.broken(narrow) or truth > guard.tolerated
        assert not guard.holds(narrow) or truth < guard.limit


def test_an_open_guard_says_what_would_settle_it() -> None:
    # At 0 +- 20 % after 1000, below 10 % takes half the width, hence four times as many.
    assert needed(Estimate(0.0, -20.0, 20.0, 1000.0), LATENCY) == pytest.approx(4000, rel=0.05)
    # At 15 +- 20 %, above the tolerated 5 % takes the same.
    assert needed(Estimate(15.0, -5.0, 35.0, 1000.0), LATENCY) == pytest.approx(4000, rel=0.05)
    assert needed(Estimate(0.0, -math.inf, math.inf, 5.0), AGREEMENT) is None
    shown = describe("errors", Estimate(0.0, -9.0, 9.0, 1000.0), ERRORS)
    assert (shown.verdict, shown.tolerated, shown.limit) == ("INCONCLUSIVE", 0.5, 1.0)
    assert describe("errors", Estimate(0.0, 0, 0, 10), replace(ERRORS, limit=1)).needed is None
