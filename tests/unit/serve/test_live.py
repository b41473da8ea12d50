"""The curves of the page: second by second, and no more than two minutes of them."""

from __future__ import annotations

import pytest

from raudo.serve.live import SECONDS, LiveCurves
from raudo.serve.observer import Finished
from raudo.serve.records import Stages


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def ended(code: str, ms: float = 10.0, *, shadow: bool = False) -> Finished:
    return Finished("r", "detect", code, ms / 1000, Stages(), "primary", "1", shadow=shadow)


def test_each_second_by_itself() -> None:
    clock = Clock()
    curves = LiveCurves(clock)
    for code in ("ok", "ok", "queue_full", "cancelled"):
        curves.request_finished(ended(code))
    curves.request_finished(ended("ok", 500.0, shadow=True))
    clock.seconds += 2
    moments = curves.moments()
    assert [moment.second for moment in moments] == list(range(1002 - SECONDS, 1002))
    busy, quiet = moments[-2:]
    assert (busy.answered, busy.turned_down) == (2, 1)
    assert busy.p99_ms == pytest.approx(10, rel=0.011)
    assert (quiet.answered, quiet.p50_ms) == (0, None)


def test_the_second_that_goes_on_is_not_shown() -> None:
    curves = LiveCurves(Clock())
    curves.request_finished(ended("ok"))
    assert sum(moment.answered for moment in curves.moments()) == 0


def test_old_seconds_are_forgotten() -> None:
    clock = Clock()
    curves = LiveCurves(clock)
    for _ in range(3 * SECONDS):
        curves.request_finished(ended("ok"))
        clock.seconds += 1
    moments = curves.moments()
    assert len(moments) == SECONDS
    assert all(moment.answered == 1 for moment in moments)
