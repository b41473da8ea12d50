from __future__ import annotations

from raudo.measuring.throughput import NOISE, best_setting
from raudo.records import Throughput


def setting(streams: int, batch: int, fps: float) -> Throughput:
    return Throughput(streams=streams, batch=batch, fps=fps)


def test_of_settings_that_are_as_fast_the_one_with_most_streams_is_taken() -> None:
    one, two, batched = setting(1, 1, 50.0), setting(2, 1, 48.0), setting(2, 4, 49.0)
    assert best_setting([one, batched, two]) == two


def test_a_setting_that_is_clearly_faster_is_taken() -> None:
    one, two = setting(1, 32, 1000.0), setting(2, 1, 1000.0 * NOISE - 1)
    assert best_setting([two, one]) == one


def test_without_settings_there_is_no_best() -> None:
    assert best_setting([]) is None
