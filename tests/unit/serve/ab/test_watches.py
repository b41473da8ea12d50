"""Watching all the time: few false alarms, and faults are found (benchmarks/ab.py, shorter)."""

from __future__ import annotations

import numpy as np
import pytest

import ab
from raudo.serve.ab.guards import ALPHA
from raudo.serve.ab.likeness import Likeness
from raudo.serve.ab.watches import ShadowWatch, SplitWatch

TESTS = 150


def share(first: np.ndarray) -> float:
    return float(np.isfinite(first).mean())


@pytest.mark.slow
def test_no_false_alarms_though_nothing_is_tolerated() -> None:
    assert share(ab.split(ab.World(), TESTS, seed=1, steps=2000).strict) <= ALPHA
    assert share(ab.shadow(ab.World(), TESTS, seed=2, steps=2000).strict) <= ALPHA


@pytest.mark.slow
def test_what_is_tolerated_is_left_alone() -> None:
    world = ab.World(slowdown=5.0, agreement=97.5)
    assert share(ab.shadow(world, TESTS, seed=3, steps=2000).guarded) <= ALPHA


@pytest.mark.slow
def test_a_slowdown_is_found() -> None:
    slow = ab.World(slowdown=10.0)
    assert share(ab.shadow(slow, TESTS, seed=4, steps=3000).guarded) >= 0.9


@pytest.mark.slow
def test_a_drop_of_agreement_is_found() -> None:
    unlike = ab.World(agreement=ab.EXPECTED - 2)
    assert share(ab.shadow(unlike, TESTS, seed=5).guarded) >= 0.9


def test_no_interval_reaches_beyond_what_can_be() -> None:
    watch = ShadowWatch(0.05, expected_percent=90.0)
    for _ in range(150):
        watch.add(Likeness(10, 0, 5, 0.0))
    agreement, flips = (watch.figures()[name] for name in ("agreement", "class_flips"))
    assert agreement.high == 90  # all that was agreed on is gone, and no more than that
    assert agreement.low > 50
    assert (flips.value, flips.high) == (100, 100)


def test_figures_are_in_their_units() -> None:
    split, shadow = SplitWatch(0.05), ShadowWatch(0.05, expected_percent=90.0)
    for number in range(400):
        candidate = float(number % 2)
        split.add(candidate, 12.0 if candidate else 10.0, float(number % 40 == 1))
        shadow.add(Likeness(20, 8, 1, 0.8))
        shadow.add_latencies(0.5)
        shadow.add_outcome(1.0, float(number % 10 == 0))
        shadow.add_outcome(0.0, 0.0)
    values = {name: float(each.value) for name, each in split.figures().items()}
    assert values == pytest.approx({"latency": 20, "errors": 5})
    values = {name: float(each.value) for name, each in shadow.figures().items()}
    assert values == pytest.approx(
        {
            "agreement": 10,
            "latency": -50,
            "errors": 10,
            "class_flips": 100 / 9,
            "score_shift": -10,
        }
    )
