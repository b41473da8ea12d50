"""Frames a second: which settings are tried, and which of them is best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from null_engines import null_engine
from raudo.backends.base import Variant
from raudo.errors import EngineError
from raudo.measuring import throughput as module
from raudo.measuring.throughput import NOISE, best_setting, throughput
from raudo.records import Throughput

if TYPE_CHECKING:
    from pathlib import Path


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


class Asked:
    """A worker whose engine does as many frames a second as it is told; it takes some batches."""

    def __init__(self, fps: dict[tuple[int, int], float]) -> None:
        self._fps, self._now = fps, (1, 1)
        self.loaded: list[tuple[int, int]] = []

    def call(self, action: str, *arguments: Any) -> Any:
        if action == "load":
            _, threads, streams, batch, trust = arguments
            assert (threads, trust) == (8, False)
            self._now = streams, batch
            self.loaded.append(self._now)
            if self._now not in self._fps:
                raise EngineError("it takes no such batch", hint="")
            return 1.0
        assert action == "throughput"
        return self._fps[self._now]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine for batches up to 32, on eight threads."""
    monkeypatch.setattr(module, "available_threads", lambda: 8)
    variant = Variant("fp32", "fp32", batches=(1, 8, 32))
    monkeypatch.setattr(module, "variant_of", lambda _manifest: variant)
    return null_engine(tmp_path / "null.npz")


def test_batches_are_tried_with_the_best_number_of_streams(engine: Path) -> None:
    fps = {(1, 1): 10.0, (4, 1): 40.0, (8, 1): 30.0, (4, 8): 50.0, (4, 32): 45.0}
    worker: Any = Asked(fps)
    found = throughput(worker, engine, trust=False, seconds=1.0)
    assert worker.loaded == [(4, 1), (8, 1), (4, 8), (4, 32)], "what is loaded already is not again"
    assert {(t.streams, t.batch): t.fps for t in found} == fps


def test_a_batch_that_an_engine_does_not_take_is_left_out(engine: Path) -> None:
    fps = {(1, 1): 10.0, (4, 1): 20.0, (8, 1): 20.0, (8, 32): 25.0}
    worker: Any = Asked(fps)
    found = throughput(worker, engine, trust=False, seconds=1.0)
    assert {(t.streams, t.batch): t.fps for t in found} == fps


def test_an_engine_that_fails_at_a_batch_of_one_is_an_error(engine: Path) -> None:
    worker: Any = Asked({(1, 1): 10.0, (4, 1): 20.0})
    with pytest.raises(EngineError):
        throughput(worker, engine, trust=False, seconds=1.0)
