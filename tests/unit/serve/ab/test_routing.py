"""Dealing, copying and rolling back, told as the core tells it."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.records import Detections
from raudo.serve.ab.comparison import Plan
from raudo.serve.ab.routing import ExperimentRouting, ShadowRouting, SplitRouting, drawn
from raudo.serve.observer import Finished
from raudo.serve.records import Reply, Stages

SPLIT = Plan("split", "primary", "baseline", 0.1)
SHADOW = Plan("shadow", "primary", "baseline", 0.5)
BOX = Detections(np.array([[0, 0, 9, 9]], "f4"), np.array([0.9], "f4"), np.array([0]))
NOTHING = Detections(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros(0, np.int64))


@given(st.text(), st.text(min_size=1))
def test_the_same_request_always_goes_the_same_way(request_id: str, salt: str) -> None:
    assert drawn(request_id, salt, 0.3) == drawn(request_id, salt, 0.3)
    assert not drawn(request_id, salt, 0.0)
    assert drawn(request_id, salt, 1.0)


def test_the_share_is_kept_and_experiments_are_independent() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    first = np.array([drawn(each, "first", 0.1) for each in ids])
    second = np.array([drawn(each, "second", 0.1) for each in ids])
    assert first.mean() == pytest.approx(0.1, abs=0.01)
    assert (first & second).mean() == pytest.approx(0.01, abs=0.003)


def finished(request_id: str, variant: str, ms: float | None, **more) -> Finished:
    stages = None if ms is None else Stages(infer=ms / 1000)
    code = "engine_failed" if ms is None else "ok"
    return Finished(request_id, "detect", more.pop("code", code), 1.0, stages, variant, **more)


def reply(variant: str, ms: float, *detections: Detections) -> Reply:
    return Reply("r", "m", "1", variant, ("cat",), Stages(infer=ms / 1000), detections)


def test_a_split_deals_as_asked_and_rolls_back(logged: list[logging.LogRecord]) -> None:
    routing, random = SplitRouting(SPLIT, "trial"), np.random.default_rng(0)
    went: Counter[str] = Counter()
    for number in count():
        variant = routing.choose(f"r{number}")
        went[variant] += 1
        slowdown = 1.3 if variant == "primary" else 1.0
        took = random.lognormal(2, 0.2) * slowdown
        routing.request_finished(finished(f"r{number}", variant, took))
        if routing.comparison.rolled_back:
            break
        assert number < 20_000
    assert went["baseline"] / went.total() == pytest.approx(0.1, abs=0.04)
    assert {routing.choose(f"later{number}") for number in range(50)} == {"baseline"}
    (said,) = logged
    assert said.levelno == logging.ERROR
    assert "rolled back from primary to baseline: latency" in said.getMessage()


def served(routing: ShadowRouting, number: int, ours: Detections, theirs: Detections) -> None:
    """Let one request go as the core lets it go."""
    variant = routing.choose(f"r{number}")
    follower = routing.shadow(f"r{number}")
    routing.request_finished(finished(f"r{number}", variant, 5.0))
    if follower:
        routing.request_finished(finished(f"r{number}", follower, 5.0, shadow=True))
        routing.compare(reply(variant, 5.0, ours), reply(follower, 5.0, theirs))


def test_a_shadow_copies_its_share_and_rolls_back() -> None:
    routing = ShadowRouting(SHADOW, "trial")
    for number in range(2000):
        served(routing, number, BOX, BOX if number % 5 else NOTHING)
    state = routing.comparison.state()
    assert state.rolled_back is not None
    assert state.rolled_back.figure == "agreement"
    assert state.baseline.requests == pytest.approx(state.candidate.requests / 2, rel=0.2)
    assert routing.choose("r") == "baseline"
    assert routing.shadow("r") is None


@pytest.mark.parametrize("routing", [SplitRouting(SPLIT, "a"), ShadowRouting(SHADOW, "b")])
def test_only_failures_of_its_own_count_against_a_variant(routing: ExperimentRouting) -> None:
    for code in ("queue_full", "deadline", "bad_request", "cancelled"):
        routing.request_finished(finished("r", "primary", None, code=code))
    routing.request_finished(finished("r", "another", 5.0))
    assert routing.comparison.state().candidate.requests == 0
    routing.request_finished(finished("r", "primary", None))
    assert routing.comparison.state().candidate.failed == 1


def test_a_candidate_that_always_fails_goes() -> None:
    routing = ShadowRouting(SHADOW, "trial")
    for number in range(200):
        routing.request_finished(finished(f"r{number}", "baseline", 5.0, shadow=True))
        routing.request_finished(finished(f"r{number}", "primary", None))
    assert routing.comparison.rolled_back is not None
    assert routing.comparison.rolled_back.figure == "errors"
