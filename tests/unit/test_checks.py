"""Candidates against single gates; `test_decide.py` has the verdicts that come of them."""

from __future__ import annotations

import math

import pytest

import sample_report
from raudo.checks import Check, assess, needed_count, overall
from raudo.config import Gates

GATES = Gates(speedup=1.5, map50_loss_percent=1, map50_95_loss_percent=2, similarity_percent=98)


def test_gates_that_apply() -> None:
    engine = sample_report.candidate("engine", 20.0)
    labelled = [c.gate for c in assess(engine, GATES, accuracy_validated=True)]
    assert labelled == [
        "speedup",
        "map50_loss_percent",
        "map50_95_loss_percent",
        "similarity_percent",
    ]
    unlabelled = assess(engine, GATES, accuracy_validated=False)
    assert [c.gate for c in unlabelled] == ["speedup", "similarity_percent"]
    loose = GATES.model_copy(update={"map50_95_loss_percent": None})
    assert len(assess(engine, loose, accuracy_validated=True)) == 3


def test_checks_carry_what_they_rest_on() -> None:
    engine = sample_report.candidate("engine", 20.0, drop=0.5, width=0.1, similarity=99.0)
    speedup, loss, _, similarity = assess(engine, GATES, accuracy_validated=True)
    assert (speedup.count, loss.count) == (12, 91)
    assert (loss.value, loss.low, loss.high) == pytest.approx((0.5, 0.4, 0.6))
    assert (similarity.low, similarity.value, similarity.high) == (98.4, 99.0, 99.4)
    assert not similarity.straddles
    assert Check("similarity_percent", 98, "pass", 98.3, 97.7, 98.7).straddles


def test_overall_is_the_worst() -> None:
    good, unclear, bad = (
        Check("speedup", 1.5, outcome) for outcome in ("pass", "undecided", "fail")
    )
    assert overall([]) == "pass"
    assert overall([good, good]) == "pass"
    assert overall([good, unclear]) == "undecided"
    assert overall([unclear, bad, good]) == "fail"


def test_shortfall_is_in_the_unit_of_the_gate() -> None:
    assert Check("speedup", 1.5, "fail", 1.2, 1.1, 1.3).shortfall == pytest.approx(0.3)
    assert Check("map50_loss_percent", 1, "fail", 3, 2, 4).shortfall == pytest.approx(2)
    assert Check("similarity_percent", 98, "fail", 71, 71, 71).shortfall == pytest.approx(27)
    assert Check("speedup", 1.5, "pass", 2, 1.9, 2.1).shortfall == 0
    assert Check("speedup", 1.5, "undecided").shortfall == math.inf


def test_needed_count_follows_the_square_root() -> None:
    # The interval reaches 1.2 above the value and has to reach less than 0.6: four times as many.
    check = Check("map50_loss_percent", 1, "undecided", 0.4, -0.8, 1.6, 100)
    assert needed_count(check) == pytest.approx(400, rel=0.05)
    # It is the side towards the gate that counts.
    lopsided = Check("map50_loss_percent", 1, "undecided", 0.4, -9.0, 1.6, 100)
    assert needed_count(lopsided) == needed_count(check)
    assert needed_count(Check("speedup", 1.5, "undecided", 1.5, 1.4, 1.6, 10)) is None
    assert needed_count(Check("speedup", 1.5, "undecided", 1.6, 1.4, 1.8)) is None
    assert needed_count(Check("speedup", 1.5, "undecided")) is None
